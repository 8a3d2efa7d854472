"""Several judges on the same systems: paired differences, wins, and how far the first judge agrees with each other one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from ..records import EvalRow
from ..rubric import REWARDS, Dimension, Label, parse_label
from ..store.manifest import METADATA_FILE, read_rows
from .critic_eval import Verdict, evaluate_verdicts, verdicts
from .intervals import bootstrap_mean
from .report_data import CalibrationBin, Paired, calibration_bins
from .win_rate import REWARD_MARGIN, Vote, WinRate, win_rates


class JudgedClip(NamedTuple):
    """What a judge says of one clip: `measures` are the reward of each labelled dimension and `reward`, in [0, 1]."""

    prompt: str
    measures: Mapping[str, float]


#: System -> clip key (the same prompt and how many-th clip of it) -> what one judge says.
Judged = Mapping[str, Mapping[str, JudgedClip]]


def measures(labels: Mapping[Dimension, Label] | None, reward: float | None) -> dict[str, float]:
    """The figures of one clip that can be compared; empty where it has neither label nor reward."""
    found = {dimension.value: REWARDS[label] for dimension, label in (labels or {}).items()}
    return found if reward is None else {**found, "reward": reward}


def _pairs(judged: Judged) -> Iterator[tuple[str, str]]:
    """Each other system against the first, then the others among themselves in their order."""
    base, *others = judged
    yield from ((other, base) for other in others)
    yield from combinations(others, 2)


def _both(judged: Judged, a: str, b: str, measure: str) -> list[tuple[str, str, float]]:
    """(key, prompt, a minus b) of the clips that both systems have `measure` of."""
    return [
        (key, judged[a][key].prompt, judged[a][key].measures[measure] - judged[b][key].measures[measure])
        for key in sorted(judged[a].keys() & judged[b].keys())
        if measure in judged[a][key].measures and measure in judged[b][key].measures
    ]


def paired_differences(judge: str, judged: Judged) -> Iterator[Paired]:
    """Paired differences of all pairs of systems in reward and in each dimension, bootstrapped over prompts."""
    for a, b in _pairs(judged):
        for measure in ("reward", *Dimension):
            found = _both(judged, a, b, measure)
            if found:
                estimate = bootstrap_mean([d for _, _, d in found], [prompt for _, prompt, _ in found])
                yield Paired(judge, a, b, str(measure), *estimate)


def judge_wins(judge: str, judged: Judged) -> Iterator[WinRate]:
    """Wins of all pairs of systems by dimension and, by reward, overall; a difference within the margin is a tie."""
    for a, b in _pairs(judged):
        votes = []
        for dimension in (*Dimension, None):
            for key, prompt, change in _both(judged, a, b, dimension or "reward"):
                outcome = 0 if abs(change) <= REWARD_MARGIN else 1 if change > 0 else -1
                votes.append(Vote(prompt, key, dimension, outcome, judge))
        if votes:
            yield from win_rates(votes, judge=judge, first=a, second=b)


def compare_judges(
    judge: str, scored: Mapping[str, Path], truth: Mapping[str, Path]
) -> tuple[list[EvalRow], tuple[CalibrationBin, ...]]:
    """
    The scores in the folders `scored` against `judge`'s labels in `truth`, by system, joined by the rows' ids.

    Returns:
        Accuracy, balanced accuracy and the like (suite `critic against {judge}`), and the reliability where the scores
        hold probabilities. Nothing if the two share no labelled clip.
    """
    found: list[Verdict] = []
    for system in scored.keys() & truth.keys():
        labels = {row["id"]: _labels(row) for row in _rows(truth[system])}
        rows = [row for row in _rows(scored[system]) if labels.get(row["id"]) and row.get(Dimension.VIDEO_FIDELITY)]
        found += [verdict._replace(video=f"{system}/{verdict.video}") for verdict in verdicts(rows, labels)]
    if not found:
        return [], ()
    suite = f"critic against {judge}"
    figures = evaluate_verdicts(found, system="critic")
    sure = [(v.probs[list(Label).index(v.label)], v.label == v.truth) for v in found if v.probs is not None]
    bins = calibration_bins([p for p, _ in sure], [right for _, right in sure]) if sure else ()
    return [replace(row, suite=suite, metric=row.metric.removeprefix("critic/")) for row in figures], bins


def _rows(folder: Path) -> Sequence[Mapping[str, Any]]:
    file = folder / METADATA_FILE
    return [row for row in read_rows(file) if "id" in row] if file.is_file() else []


def _labels(row: Mapping[str, Any]) -> dict[Dimension, Label]:
    return {dimension: parse_label(row[dimension]) for dimension in Dimension if row.get(dimension)}
