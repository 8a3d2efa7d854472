"""Pairs of clips that people compared, as training data of a critic: whose questions a choice answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from accelerate.logging import get_logger

from ...judges.preference_benchmarks import ASPECTS
from ...judges.preferences import questions_of, read_preferences
from ...records import RatedVideo
from ...rubric import LIFT, Rubric


logger = get_logger(__name__)


class Pair(NamedTuple):
    """
    Two clips of one prompt, of which people like `chosen` better.

    Attributes:
        dimensions: whose rewards are compared: one, or all of the rubric for an overall choice.
    """

    chosen: RatedVideo
    rejected: RatedVideo
    dimensions: tuple[str, ...]


def read_pairs(
    source: Path | str, systems: Mapping[str, Path | str] | None = None, rubric: Rubric = LIFT
) -> list[Pair]:
    """
    The pairs of `source` on each question that `rubric` asks, and overall; ties are left out and counted.

    Args:
        source, systems: as `judges.preferences.read_preferences`. A CSV's columns may have the benchmark's names (VQ, MQ,
            TA) or those of the rubric's dimensions; other columns are passed over.

    Raises:
        ValueError: as `read_preferences`, for votes on a question that `rubric` has not, or if nobody prefers a clip.
        FileNotFoundError: naming the row, if a clip is not there.
    """
    asked: dict[str | None, tuple[str, ...]] = {None: rubric.dimensions, **{d: (d,) for d in rubric.dimensions}}
    if Path(source).suffix.lower() == ".csv":
        asked |= {aspect: (d,) for aspect, d in ASPECTS.items() if d in rubric.dimensions}
    questions = questions_of(source)
    unknown = [question for question in questions if question not in asked]
    if unknown and Path(source).suffix.lower() != ".csv":
        raise ValueError(
            f"{source}: votes on {', '.join(map(str, unknown))}, and the critic's dimensions are "
            f"{', '.join(rubric.dimensions)}. Name the rubric that the votes are of, or leave them out."
        )
    pairs = []
    for question in questions:
        if question in asked:
            found = read_preferences(source, systems, dimension=question)
            clips = {video.id: video for video in found.videos}
            pairs += [Pair(clips[a], clips[b], asked[question]) for a, b in found.pairs]
    if not pairs:
        raise ValueError(f"{source}: no pair in which one clip is preferred, on any of {', '.join(map(str, asked))}.")
    return pairs


def without_controls(pairs: Sequence[Pair], tokens: Sequence[str]) -> list[Pair]:
    """`pairs` but those whose caption holds one of `tokens`, which scoring leaves unscored too; says how many."""
    kept = [pair for pair in pairs if not any(token in pair.chosen.prompt for token in tokens)]
    if len(kept) < len(pairs):
        logger.warning(
            "%d of %d pairs have captions that the model takes for more than text; they are left out.",
            len(pairs) - len(kept),
            len(pairs),
        )
    return kept
