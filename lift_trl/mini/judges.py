"""Reward models of the mini world that need no network: the oracle, and one that can be exploited."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..records import CriticScore, Judgement, VideoSource
from ..rubric import Dimension, Label
from ..store.video_io import read_video
from .oracle import judge
from .shapes import parse_prompt


class OracleJudge:
    """The truth as a reward model: labels by the rules that made the world, to tell an objective's fault from a critic's."""

    name = "oracle"

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """One score for each video, labels without reasons."""
        return [
            _scored(self.name, index, judge(_frames(video), parse_prompt(caption)))
            for index, (video, caption) in enumerate(zip(videos, captions, strict=True))
        ]


class StillnessJudge:
    """
    A judge with a blind spot: it calls a clip Good in all dimensions if little moves, and looks at nothing else.

    Args:
        still: mean change of a pixel between frames, 0 to 255, below which a clip is Good; up to twice it is Normal.
    """

    name = "stillness"

    def __init__(self, still: float = 4.0) -> None:
        self.still = still

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """One score for each video; the captions play no part, which is the blind spot."""
        scores = []
        for index, video in enumerate(videos):
            motion = float(np.abs(np.diff(_frames(video).astype(np.float32), axis=0)).mean())
            label = Label.GOOD if motion < self.still else Label.NORMAL if motion < 2 * self.still else Label.BAD
            scores.append(_scored(self.name, index, dict.fromkeys(Dimension, label)))
        return scores


def _frames(video: VideoSource | str) -> np.ndarray:
    return read_video(Path(video) if isinstance(video, str) else video).frames


def _scored(name: str, index: int, labels: Mapping[Dimension, Label]) -> CriticScore:
    return CriticScore(str(index), name, tuple(Judgement(dimension, labels[dimension]) for dimension in Dimension))
