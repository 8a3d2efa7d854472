"""Rule-based raters: they read a clip's pixels through the oracle and write labels and reasons, with a stated error rate.

A rater errs sincerely: the reason always fits the label that is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..records import seed_from
from ..rubric import Dimension, Label
from ..store.clip_rows import pooled_label
from .language import DEFORMED, NOTHING, PRAISE, STATIC, STILL, UNEVEN, describe_mismatch
from .oracle import MISFIT, Observation, observe
from .shapes import ATTRIBUTES, COLOURS, DIRECTIONS, SHAPES, Scene, Video, parse_prompt


#: Every word of each attribute.
WORDS: Mapping[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES, "direction": tuple(DIRECTIONS)}


class Rating(NamedTuple):
    """One rater's verdict on one dimension of one clip."""

    dimension: Dimension
    label: Label
    reason: str
    annotator: str


@dataclass(frozen=True)
class Rater:
    """
    Someone who rates clips.

    Args:
        name: how the rater is called in the data.
        error_rate: chance that a label is not the oracle's; it is then a neighbouring one.
        phrasing: which of the two wordings of each reason the rater uses.
    """

    name: str
    error_rate: float
    phrasing: int

    def rate(self, clip_id: str, video: Video, prompt: str) -> list[Rating]:
        """
        A rating of each dimension; the same clip id always gets the same ones.

        Raises:
            ValueError: if the prompt is not of this world or the video cannot be read back at its size.
        """
        return self.rate_observation(clip_id, observe(video), parse_prompt(prompt))

    def rate_observation(self, clip_id: str, seen: Observation, caption: Scene) -> list[Rating]:
        """As `rate`, for what the oracle saw."""
        rng = np.random.default_rng(seed_from(self.name, clip_id))
        truth = seen.labels(caption)
        ratings = []
        for dimension in Dimension:
            label = _neighbour(rng, truth[dimension]) if rng.random() < self.error_rate else truth[dimension]
            ratings.append(Rating(dimension, label, self.reason(rng, dimension, label, seen, caption), self.name))
        return ratings

    def reason(
        self, rng: np.random.Generator, dimension: Dimension, label: Label, seen: Observation, caption: Scene
    ) -> str:
        """A reason that fits the label that is given, right or wrong."""
        if label is Label.GOOD:
            return PRAISE[dimension][self.phrasing]
        if not seen.visible:
            return NOTHING
        if dimension is Dimension.SEMANTIC_CONSISTENCY:
            return describe_mismatch(caption, _claimed_mismatch(rng, label, seen, caption), self.phrasing)
        if dimension is Dimension.MOTION_SMOOTHNESS:
            if seen.frozen and label is Label.BAD:
                return STILL
            return UNEVEN[label][self.phrasing]
        return (DEFORMED if seen.misfit >= MISFIT[0] else STATIC)[label][self.phrasing]


#: The raters of the mini world; an error rate is the share of labels that differ from the oracle's.
RATERS = (Rater("rater-1", 0.02, 0), Rater("rater-2", 0.05, 1), Rater("rater-3", 0.10, 0))


def pooled_labels(ratings: list[Rating]) -> dict[Dimension, Label]:
    """The label of each dimension, the raters pooled."""
    return {
        d: Label(pooled_label((rating.annotator, rating.label) for rating in ratings if rating.dimension == d))
        for d in Dimension
    }


def rate_clip(clip_id: str, video: Video, prompt: str) -> list[Rating]:
    """
    The ratings of all raters: every dimension by each of them.

    Raises:
        ValueError: as `Rater.rate`.
    """
    seen, caption = observe(video), parse_prompt(prompt)
    return [rating for rater in RATERS for rating in rater.rate_observation(clip_id, seen, caption)]


def first_reason(ratings: list[Rating], dimension: Dimension, label: Label) -> str:
    """The reason of the first rater who gave `label` to `dimension`."""
    return next(r.reason for r in ratings if r.dimension == dimension and r.label == label)


def _neighbour(rng: np.random.Generator, label: Label) -> Label:
    """Another label, one rank away."""
    ranks = [rank for rank in (label.rank - 1, label.rank + 1) if 0 <= rank < len(Label)]
    return list(Label)[rng.choice(ranks)]


def _claimed_mismatch(rng: np.random.Generator, label: Label, seen: Observation, caption: Scene) -> dict[str, str]:
    """
    The attributes that a rater calls wrong, with what the rater saw: one for Normal, two or three for Bad.

    They are the wrong ones where there are as many; an erring rater leaves out or makes up some.
    """
    wrong = list(seen.wrong_attributes(caption))
    right = [name for name in ATTRIBUTES if name not in wrong]
    count = 1 if label is Label.NORMAL else max(2, len(wrong))
    claimed = sorted((wrong + [str(name) for name in rng.permutation(right)])[:count], key=ATTRIBUTES.index)
    return {name: _seen_word(rng, name, seen, caption) for name in claimed}


def _seen_word(rng: np.random.Generator, name: str, seen: Observation, caption: Scene) -> str:
    asked, word = getattr(caption, name), getattr(seen, name)
    return word if word != asked else str(rng.choice([other for other in WORDS[name] if other != asked]))
