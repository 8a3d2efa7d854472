"""What a report is made of: plain records, each section optional, and the functions that fill them from scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..records import EvalRow
from ..rubric import LIFT, Rubric
from ..statistics.drift import DriftAlarm
from ..statistics.intervals import Estimate, bootstrap_mean
from ..statistics.win_rate import WinRate
from ..vbench.score import PairedDelta


CRITIC_SUITE, VIDEOSCORE_SUITE, REWARD_SUITE = "critic", "videoscore", "reward"
#: Figure of a critic against a judge that gives no labels: how far the two order clips alike.
REWARDS_ORDER = "rewards/spearman"
#: The judge that stands for the ratings in the systems' own folders: as a rule the one that gave the training reward.
TRAINING_JUDGE = "critic"

#: Of a judge: it gave no training reward, it gave that of some system, or the one or the other does not say who it is.
Role = Literal["independent", "training", "not known"]
_WORST: tuple[Role, ...] = ("training", "not known", "independent")


class SystemFacts(NamedTuple):
    """What a system is, as its clips' own folder says; empty where that says nothing. `seeds` is clips a prompt."""

    name: str
    model: str
    adapter: str
    objective: str
    settings: str
    clips: int
    prompts: int
    seeds: str
    made: str


class LabelRate(NamedTuple):
    """Share of a system's clips with `label` on `dimension`, interval over prompts."""

    system: str
    dimension: str
    label: str
    rate: Estimate


class Confusion(NamedTuple):
    """Counts by a judge's label (row) and the critic's (column), `labels` worst first."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class CalibrationBin(NamedTuple):
    """Answers of similar confidence: mean probability of the given label, share that were right, how many."""

    confidence: float
    accuracy: float
    n: int


class Paired(NamedTuple):
    """
    `a` minus `b` in one measure of one judge, over `n` prompts; `ci95` is None where there is one prompt only. `p_value` is
    of the sign-flip test over prompts (of several voters the larger of that and one over voters), uncorrected. `b_value`
    is the mean of `b` on the same clips; people's preferences have none.
    """

    judge: str
    a: str
    b: str
    measure: str
    value: float
    ci95: tuple[float, float] | None
    n: int
    p_value: float
    b_value: float | None = None

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.ci95, self.n)


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
    """Clips of one prompt by system, to stand side by side, with a line about each, and why they are shown."""

    prompt: str
    clips: Mapping[str, Path]
    notes: Mapping[str, str] = {}
    why: str = ""


@dataclass(frozen=True)
class Report:
    """
    Everything that a report may show; whatever is empty has no section.

    Attributes:
        base: the system that the others are compared with.
        judge: the judge whose reward decides, an independent one where there is one; empty where none took part.
        roles: judge -> system -> whether the judge gave the reward that the system was trained on.
        summary: what a reader should know first, one sentence each; `verdict.default_summary` writes them from the figures.
        systems: what each system is, the base first.
        controls: system -> the plain fine-tuning of the same clips and weights that it is compared with besides the base.
        verdict_clips: system -> the pair of clips with the median gain over the base's, and the worst loss.
        rows: figures of any suite; those of VBench, VideoScore and the critic get the paper's tables.
        rewards: system -> reward of each clip, for the histogram.
        calibration: critic -> its bins (`calibration_bins`).
        confusion: judge -> the critic's labels against the judge's.
        deltas: paired differences of any metric (rewards, VBench dimensions).
        paired: differences of each pair of systems, by judge and measure.
        strengths: of three systems or more, by judge.
        agreements: of a critic or another judge with people's votes on the same pairs.
        stamps: how it was made: models and revisions, versions.
        parents: what it was made from: a system, or judge/system -> hash of its clips and what is said of them.
        suite_stamps: suite -> system -> what its figures were measured with; shown beside them.
        notes: caveats, shown at the end.
        cards: system -> model card (or its folder) that takes the system's figures when the report is saved.
        rubric: what the labels in the systems' own folders are of.
    """

    title: str
    base: str
    judge: str = ""
    summary: tuple[str, ...] = ()
    systems: tuple[SystemFacts, ...] = ()
    controls: Mapping[str, str] = field(default_factory=dict)
    verdict_clips: Mapping[str, tuple[ClipRow, ...]] = field(default_factory=dict)
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
    confusion: Mapping[str, Confusion] = field(default_factory=dict)
    drift: tuple[DriftAlarm, ...] = ()
    curves: tuple[Curve, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    suite_stamps: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cards: Mapping[str, Path] = field(default_factory=dict)
    roles: Mapping[str, Mapping[str, Role]] = field(default_factory=dict)
    rubric: Rubric = LIFT

    def role(self, judge: str, system: str | None = None) -> Role:
        """Of `judge` to `system`, or to all systems."""
        roles = self.roles.get(judge, {})
        return worst_role(roles.values()) if system is None else roles.get(system, "not known")


def worst_role(roles: Iterable[Role]) -> Role:
    """What can be said of a judge over several systems; `"not known"` of none."""
    return min(roles, key=_WORST.index, default="not known")


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
