"""What a report is made of: plain records, each section optional, and the functions that fill them from scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..records import CriticScore, EvalRow
from ..statistics.drift import MEASURES, DriftAlarm
from ..statistics.intervals import FEW_UNITS, Estimate, bootstrap_mean, wilson
from ..statistics.win_rate import WinRate
from ..vbench.score import PairedDelta
from ..vbench.suite import PROTOCOLS


CRITIC_SUITE, VIDEOSCORE_SUITE, REWARD_SUITE = "critic", "videoscore", "reward"


class LabelRate(NamedTuple):
    """Share of a system's clips with `label` on `dimension`, Wilson's interval."""

    system: str
    dimension: str
    label: str
    rate: Estimate


class CalibrationBin(NamedTuple):
    """Answers of similar confidence: mean probability of the given label, share that were right, how many."""

    confidence: float
    accuracy: float
    n: int


class Paired(NamedTuple):
    """`a` minus `b` in one measure of one judge, over `n` prompts; `ci95` is None where there is one prompt only."""

    judge: str
    a: str
    b: str
    measure: str
    value: float
    ci95: tuple[float, float] | None
    n: int


class JudgeAgreement(NamedTuple):
    """
    How often `judge` votes as the majority of `people` on one dimension (`None` = overall).

    Attributes:
        with_ties, without_ties, kappa: as in `win_rate.Agreement`.
    """

    judge: str
    people: str
    dimension: str | None
    with_ties: Estimate
    without_ties: Estimate | None
    kappa: float


class Strength(NamedTuple):
    """Bradley-Terry's log-strength of a system by a judge's votes on the whole clip, mean 0 over the systems."""

    judge: str
    system: str
    strength: Estimate


class Curve(NamedTuple):
    """One training curve: `group` is the plot that it belongs to ("critic loss"), `name` the line in it, over `unit`s."""

    group: str
    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    unit: str = "step"


class ClipRow(NamedTuple):
    """Clips of one prompt by system, to stand side by side, with a line about each (labels, reward)."""

    prompt: str
    clips: Mapping[str, Path]
    notes: Mapping[str, str] = {}


@dataclass(frozen=True)
class Report:
    """
    Everything that a report may show; whatever is empty has no section.

    Attributes:
        base: the system that the others are compared with.
        summary: what a reader should know first, one sentence each; `default_summary` writes them from the figures.
        rows: figures of any suite; those of VBench, VideoScore and the critic get the paper's tables.
        rewards: system -> reward of each clip, for the histogram.
        calibration: critic -> its bins (`calibration_bins`).
        deltas: paired differences of any metric (rewards, VBench dimensions).
        paired: differences of each pair of systems, by judge and measure.
        strengths: of three systems or more, by judge.
        agreements: of a critic or another judge with people's votes on the same pairs.
        stamps: how it was made: models and revisions, versions.
        parents: what it was made from: a system, or judge/system -> hash of its clips and what is said of them.
        suite_stamps: suite -> system -> what its figures were measured with; shown beside them.
        notes: caveats, shown at the end.
        cards: system -> model card (or its folder) that takes the system's figures when the report is saved.
    """

    title: str
    base: str
    summary: tuple[str, ...] = ()
    rows: tuple[EvalRow, ...] = ()
    label_rates: tuple[LabelRate, ...] = ()
    rewards: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    deltas: tuple[PairedDelta, ...] = ()
    paired: tuple[Paired, ...] = ()
    win_rates: tuple[WinRate, ...] = ()
    strengths: tuple[Strength, ...] = ()
    agreements: tuple[JudgeAgreement, ...] = ()
    clips: tuple[ClipRow, ...] = ()
    calibration: Mapping[str, tuple[CalibrationBin, ...]] = field(default_factory=dict)
    drift: tuple[DriftAlarm, ...] = ()
    curves: tuple[Curve, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    suite_stamps: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cards: Mapping[str, Path] = field(default_factory=dict)


def label_rates(scores: Mapping[str, Sequence[CriticScore]]) -> tuple[LabelRate, ...]:
    """
    The label shares of each system's scored clips; unscored clips are left out.

    Raises:
        ValueError: if a system has no scored clip.
    """
    rates = []
    for system, rows in scores.items():
        labelled = [row.labels for row in rows if row.labels]
        if not labelled:
            raise ValueError(f"{system}: none of {len(rows)} clips is scored; look at the scores' `unscored` reasons.")
        rubric = next(row.rubric for row in rows if row.labels)
        for dimension in rubric.dimensions:
            for label in rubric.labels:
                count = sum(labels[dimension] == label for labels in labelled)
                rates.append(LabelRate(system, dimension, label, wilson(count, len(labelled))))
    return tuple(rates)


def calibration_bins(
    confidence: Sequence[float], right: Sequence[bool], *, num_bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """
    Answers grouped by the probability of the given label, empty groups left out.

    >>> calibration_bins([0.95, 0.97, 0.41], [True, False, True])[1]
    CalibrationBin(confidence=0.96, accuracy=0.5, n=2)
    """
    order = np.argsort(confidence)  # a mean's last digit depends on the order
    values, hits = np.asarray(confidence, float)[order], np.asarray(right, float)[order]
    index = np.minimum((values * num_bins).astype(int), num_bins - 1)
    groups = [np.flatnonzero(index == number) for number in range(num_bins)]
    return tuple(CalibrationBin(float(np.mean(values[g])), float(np.mean(hits[g])), len(g)) for g in groups if len(g))


def mean_row(suite: str, metric: str, system: str, values: Mapping[str, float], prompts: Mapping[str, str]) -> EvalRow:
    """The mean of `values` (by clip key) with a bootstrap interval over `prompts` (the prompt of each key)."""
    keys = sorted(values)
    estimate = bootstrap_mean([values[key] for key in keys], [prompts[key] for key in keys])
    return EvalRow(suite, f"{suite}/{metric}", system, estimate.value, estimate.n, estimate.ci95)


def paired_delta(
    suite: str,
    metric: str,
    base: tuple[str, Mapping[str, float]],
    other: tuple[str, Mapping[str, float]],
    prompts: Mapping[str, str],
) -> PairedDelta:
    """
    `other` minus `base`, each (name, value by key), over the keys that both have (same prompt and seed).

    Raises:
        ValueError: if they share no key.
    """
    keys = sorted(base[1].keys() & other[1].keys())
    if not keys:
        raise ValueError(f"{base[0]} and {other[0]} share no clip key; pair clips of the same prompts and seeds.")
    estimate = bootstrap_mean([other[1][key] - base[1][key] for key in keys], [prompts[key] for key in keys])
    before, after = (sum(side[1][key] for key in keys) / len(keys) for side in (base, other))
    return PairedDelta(suite, f"{suite}/{metric}", base[0], other[0], before, after, estimate)


def default_summary(report: Report) -> tuple[str, ...]:
    """The sentences that a reader needs first, from the figures: gains and losses that are sure, wins, alarms."""
    sentences = []
    for delta in report.deltas:
        if "reward" in delta.metric:
            sentences.append(f"{_plain(delta.metric)}: {delta.system} {delta.value:.3f}, {_verdict(delta)}.")
    suites = (*PROTOCOLS, VIDEOSCORE_SUITE)
    for suite in dict.fromkeys(d.suite for d in report.deltas if d.suite in suites):
        title = "VideoScore" if suite == VIDEOSCORE_SUITE else suite
        for system in dict.fromkeys(d.system for d in report.deltas if d.suite == suite):
            mine = [d for d in report.deltas if d.suite == suite and d.system == system and "score" not in d.metric]
            if all(d.estimate.n < FEW_UNITS for d in mine):
                sentences.append(f"{title}: fewer than {FEW_UNITS} prompts, so no verdict on {system}.")
                continue
            sure = [d.estimate for d in mine if d.estimate.is_sure]
            better = sum(estimate.is_above_zero for estimate in sure)
            sentences.append(
                f"{title}: {system} is surely better than {report.base} on {better} of {len(mine)} dimensions, "
                f"surely worse on {len(sure) - better}."
            )
    for rate in report.win_rates:
        if rate.dimension is None:
            sentences.append(
                f"{rate.judge.capitalize()}: {rate.first} wins {rate.win.value:.0%}, ties {rate.tie.value:.0%} and loses "
                f"{rate.loss.value:.0%} of {rate.num_votes} comparisons with {rate.second}."
            )
    return (*sentences, *_agreement_sentences(report), *_drift_sentences(report))


def _agreement_sentences(report: Report) -> Iterator[str]:
    for found in report.agreements:
        if found.dimension is None:
            share = found.with_ties
            bounds = f" (95% interval {share.ci95[0]:.0%} to {share.ci95[1]:.0%})" if share.ci95 else ""
            yield (
                f"{found.judge.capitalize()} agrees with the majority of {found.people} on {share.value:.0%} of the "
                f"pairs{bounds}."
            )


def _drift_sentences(report: Report) -> Iterator[str]:
    for system in dict.fromkeys(alarm.system for alarm in report.drift):
        mine = [alarm for alarm in report.drift if alarm.system == system]
        raised = [alarm for alarm in mine if alarm.level != "ok"]
        if raised:
            listed = "; ".join(f"{MEASURES[a.measure].title} {a.change_in_words}, {a.level}" for a in raised)
            yield f"Drift of {system} against {report.base}: {listed}."
        else:
            yield f"No drift alarm for {system} in {len(mine)} pixel statistics."


def _plain(metric: str) -> str:
    return metric.rsplit("/", 1)[-1].replace("_", " ").capitalize()


def _verdict(delta: PairedDelta) -> str:
    change = f"{delta.estimate.value:+.3f} against {delta.base}"
    if delta.estimate.ci95 is None:
        return f"{change} (one prompt, no interval)"
    low, high = delta.estimate.ci95
    sure = "sure" if delta.estimate.is_sure else "not sure"
    return f"{change} (95% interval {low:+.3f} to {high:+.3f}, {sure})"
