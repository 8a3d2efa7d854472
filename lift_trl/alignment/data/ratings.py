"""Ratings of the clips of a dataset as tensors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...records import RatedVideo
from ...rubric import LIFT, REWARD_MARGIN, Rubric
from ...store.rubrics.of_data import check_same


class Ratings(NamedTuple):
    """Ratings of N clips: `reward` f32 [N] (NaN where real), `dimension_reward` f32 [N, D] (NaN where unknown), `is_real`
    and `all_good` bool [N]."""

    reward: Tensor
    dimension_reward: Tensor
    is_real: Tensor
    all_good: Tensor

    @classmethod
    def of(
        cls,
        videos: Sequence[RatedVideo],
        dimension_weights: Mapping[str, float] | None,
        *,
        expected: bool = False,
    ) -> "Ratings":
        """
        The ratings of `videos`; `dimension_weights` act on labels, `expected` takes the critic's expected reward.

        Raises:
            ValueError: if the videos were rated by two rubrics, or a weight is none of theirs.
        """
        rubric = rubric_of(videos)
        rubric.check_dimension_weights(dimension_weights)

        def by_dimension(video: RatedVideo) -> list[float]:
            return [rubric.rewards[video.labels[d]] if video.labels else float("nan") for d in rubric.dimensions]

        if expected:
            given = [video.expected_reward for video in videos]
            reward = torch.tensor([float("nan") if value is None else value for value in given])
        else:
            reward = torch.tensor([video.reward(dimension_weights) for video in videos])
        dimension_reward = torch.tensor([by_dimension(video) for video in videos])
        dimension_reward = dimension_reward.reshape(len(videos), len(rubric.dimensions))
        is_real = torch.tensor([video.is_real for video in videos], dtype=torch.bool)
        best = rubric.rewards[rubric.best]
        rated_good = (dimension_reward == best).all(dim=1)
        # A clip whose only rating is a reward has the best label in all dimensions if no labels give a higher one.
        all_good = torch.where(dimension_reward.isnan().all(dim=1), reward >= best - REWARD_MARGIN, rated_good)
        return cls(reward, dimension_reward, is_real, all_good)


def rubric_of(videos: Sequence[RatedVideo]) -> Rubric:
    """
    The rubric of clips that are trained on together: that of those with labels, of which each has one.

    Raises:
        ValueError: naming both where there are two.
    """
    rubric = next((video.rubric for video in videos if video.labels), videos[0].rubric if videos else LIFT)
    for video in videos:
        if video.labels:
            check_same(
                rubric, video.rubric, f"the rubrics of clips that are trained on together, one of them {video.id},"
            )
    return rubric
