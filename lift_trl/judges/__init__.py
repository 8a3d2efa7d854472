"""Released judges as they are: VideoReward, UnifiedReward-2.0 and VideoScore2, each in the terms that it was trained in."""

from collections.abc import Mapping

import torch

from .native import NativeJudge, Scale
from .unified_reward import UnifiedReward
from .video_reward import VideoReward
from .video_score2 import VideoScore2


__all__ = ["JUDGES", "NativeJudge", "Scale", "UnifiedReward", "VideoReward", "VideoScore2", "load_judge"]

#: What `judge` of the recipes may say -> the judge.
JUDGES: Mapping[str, type[NativeJudge]] = {
    "video_reward": VideoReward,
    "unified_reward": UnifiedReward,
    "video_score2": VideoScore2,
}


def load_judge(
    judge: str,
    *,
    model: str | None = None,
    revision: str | None = None,
    scale: str | None = None,
    device: torch.device | str = "cpu",
) -> NativeJudge:
    """
    A released judge.

    Args:
        judge: one of `JUDGES`.
        model: folder or repo of its weights, the released ones by default.
        scale: how its native values become a reward, as `Scale.parse` reads it; the judge's own by default.

    Raises:
        ValueError: if there is no such judge, or its weights are not whole.
    """
    if judge not in JUDGES:
        raise ValueError(f"judge={judge!r} is unknown; use one of {', '.join(JUDGES)}.")
    family = JUDGES[judge]
    return family.from_pretrained(
        model or family.released,
        revision=revision,
        scale=None if scale is None else Scale.parse(scale),
        device=device,
    )
