"""Released judges as they are: VideoReward, UnifiedReward-2.0 and VideoScore2, each in the terms that it was trained in.

Their names cost no torch, so that a command line is read before anything is loaded.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple


if TYPE_CHECKING:
    import torch

    from .native import NativeJudge

#: What `judge` of the recipes may say.
JudgeName = Literal["video_reward", "unified_reward", "video_score2"]
#: Each the module of its class -> the class.
JUDGES: Mapping[str, str] = MappingProxyType(
    {"video_reward": "VideoReward", "unified_reward": "UnifiedReward", "video_score2": "VideoScore2"}
)
#: What the five outputs of VideoScore (`video_score`, a judge that is named by its repo) are, in order, by the paper's
#: names. Source: TIGER-AI-Lab/VideoScore, examples/run_videoscore.py.
VIDEO_SCORE_ASPECTS: Mapping[str, str] = MappingProxyType(
    {
        "VQ": "visual quality",
        "TC": "temporal consistency",
        "DD": "dynamic degree",
        "TA": "text alignment",
        "FC": "factual consistency",
    }
)


class NamedJudge(NamedTuple):
    """One of `JUDGES`, and the folder or repo[@revision] of its weights; `None` for the released ones."""

    name: str
    model: str | None


def named_judge(text: str) -> NamedJudge | None:
    """
    The released judge that `text` names, with `=` before weights of its own; `None` where it names a critic.

    >>> named_judge("video_reward=runs/weights")
    NamedJudge(name='video_reward', model='runs/weights')
    >>> named_judge("runs/critic") is None
    True
    """
    name, _, model = text.partition("=")
    return NamedJudge(name, model or None) if name in JUDGES else None


def load_judge(
    judge: str,
    *,
    model: str | None = None,
    revision: str | None = None,
    scale: str | None = None,
    device: "torch.device | str" = "cpu",
) -> "NativeJudge":
    """
    A released judge.

    Args:
        judge: one of `JUDGES`.
        model: folder or repo of its weights, the released ones by default.
        scale: how its native values become a reward, as `Scale.parse` reads it; the judge's own by default.

    Raises:
        ValueError: if there is no such judge, or its weights are not whole.
    """
    from ..hub_source import pinned
    from .native import Scale

    family = judge_class(judge)
    source = pinned(model or family.released, revision)
    return family.from_pretrained(
        source.repo_id,
        revision=source.revision,
        scale=None if scale is None else Scale.parse(scale),
        device=device,
    )


def judge_name(judge: str, *, model: str | None = None, revision: str | None = None, scale: str | None = None) -> str:
    """The `name` of what `load_judge` would load; raises as it does."""
    from ..hub_source import pinned
    from .native import Scale

    family = judge_class(judge)
    source = pinned(model or family.released, revision)
    return family.name_of(*source, None if scale is None else Scale.parse(scale))


def judge_class(judge: str) -> "type[NativeJudge]":
    """The class of one of `JUDGES`; `ValueError` where there is no such judge."""
    if judge not in JUDGES:
        raise ValueError(f"judge={judge!r} is unknown; use one of {', '.join(JUDGES)}.")
    family: type[NativeJudge] = getattr(import_module(f".{judge}", __name__), JUDGES[judge])
    return family
