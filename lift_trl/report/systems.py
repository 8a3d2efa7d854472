"""Figures of each system from its clips, and each system's paired difference to the base."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..records import EvalRow
from ..rubric import words
from ..store.system_clips import SystemClip
from ..vbench.score import PairedDelta
from .data import mean_row, paired_delta


class Compared(NamedTuple):
    """The mean of each system, and each system's paired difference to the base."""

    rows: list[EvalRow]
    deltas: list[PairedDelta]


def values_of(
    systems: Mapping[str, Sequence[SystemClip]], value: Callable[[SystemClip], float | None]
) -> dict[str, dict[str, float]]:
    """System -> clip key -> value; clips without one are left out, and systems without any."""
    found = {
        name: {clip.key: number for clip in clips if (number := value(clip)) is not None}
        for name, clips in systems.items()
    }
    return {name: values for name, values in found.items() if values}


def compare_means(
    metric: str, values: Mapping[str, Mapping[str, float]], prompts: Mapping[str, str], *, suite: str, base: str
) -> Compared:
    """The means of `values` (of `values_of`) and the differences to `base` over the clips that both have."""
    rows = [mean_row(suite, metric, name, mine, prompts) for name, mine in values.items()]
    deltas = [
        paired_delta(suite, metric, (base, values[base]), (name, mine), prompts)
        for name, mine in values.items()
        if name != base and base in values
    ]
    return Compared(rows, deltas)


def describe_clip(clip: SystemClip) -> str:
    """A clip's reward and labels in one line, empty where it has none."""
    parts = [] if clip.reward is None else [f"reward {clip.reward:.2f}"]
    if clip.labels:
        parts += [f"{words(dimension)} {label}" for dimension, label in clip.labels.items()]
    return ", ".join(parts)
