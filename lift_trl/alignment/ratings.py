"""Ratings of the clips of a dataset as tensors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..records import RatedVideo
from ..rubric import REWARDS, Dimension, Label


# A clip whose only rating is a reward is Good in all dimensions if the reward is the highest that equation 2 gives.
_TOP_REWARD = REWARDS[Label.GOOD] - 1e-6


class Ratings(NamedTuple):
    """Ratings of N clips: `reward` f32 [N] (NaN where real), `dimension_reward` f32 [N, 3] (NaN where unknown), `is_real`
    and `all_good` bool [N]."""

    reward: Tensor
    dimension_reward: Tensor
    is_real: Tensor
    all_good: Tensor

    @classmethod
    def of(
        cls,
        videos: Sequence[RatedVideo],
        dimension_weights: Mapping[Dimension, float] | None,
        *,
        expected: bool = False,
    ) -> "Ratings":
        """The ratings of `videos`; `dimension_weights` act on labels, `expected` takes the critic's expected reward."""

        def by_dimension(video: RatedVideo) -> list[float]:
            return [REWARDS[video.labels[d]] if video.labels else float("nan") for d in Dimension]

        if expected:
            given = [video.expected_reward for video in videos]
            reward = torch.tensor([float("nan") if value is None else value for value in given])
        else:
            reward = torch.tensor([video.reward(dimension_weights) for video in videos])
        dimension_reward = torch.tensor([by_dimension(video) for video in videos]).reshape(len(videos), len(Dimension))
        is_real = torch.tensor([video.is_real for video in videos], dtype=torch.bool)
        rated_good = (dimension_reward == REWARDS[Label.GOOD]).all(dim=1)
        all_good = torch.where(dimension_reward.isnan().all(dim=1), reward >= _TOP_REWARD, rated_good)
        return cls(reward, dimension_reward, is_real, all_good)
