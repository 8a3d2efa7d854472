"""How good a critic is: its agreement with people by dimension, in labels, in order and in calibration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..records import EvalRow
from ..rubric import LIFT, Rubric, words
from ..statistics.intervals import interval, resample_counts, wilson
from ..statistics.label_measures import accuracy, balanced_accuracy, confusion, macro_f1, quadratic_kappa
from ..statistics.rank_measures import auc, spearman, without_prior
from .audit import AuditCheck


NUM_BINS = 10
#: Figures that are shares: at 0 or 1 they have Wilson's interval.
SHARES = frozenset(
    ("accuracy", "balanced_accuracy", "macro_f1", "auc_good", "auc_bad", "prior_corrected_balanced_accuracy")
)
#: Figures that have no interval where every resample gives the same, as a perfect order does.
CORRELATIONS = frozenset(("spearman", "quadratic_kappa"))


class Verdict(NamedTuple):
    """One dimension of one clip: what people said, and what the critic said (`probs` in the order of the rubric)."""

    video: str
    dimension: str
    truth: str
    label: str
    probs: tuple[float, ...] | None
    rubric: Rubric = LIFT


def _gaps(confidence: Sequence[float], right: Sequence[bool]) -> np.ndarray:
    """Confidence minus hit, in the column of its bin: [N, bins]. Source: Guo et al., arXiv 1706.04599, equation 3."""
    values = np.asarray(confidence, float)
    gaps = np.zeros((len(values), NUM_BINS))
    gaps[np.arange(len(values)), np.minimum((values * NUM_BINS).astype(int), NUM_BINS - 1)] = values - np.asarray(
        right
    )
    return gaps


def verdicts(
    rows: Iterable[Mapping[str, Any]], truth: Mapping[str, Mapping[str, str]], rubric: Rubric = LIFT
) -> list[Verdict]:
    """
    Pairs of people's labels and the critic's, of the clips that have a score and the dimensions that were rated.

    Args:
        rows: scored rows, as `score_videos` writes them.
        truth: people's labels by the clip's id.
        rubric: what both are of.

    Raises:
        ValueError: if a row's id is not in `truth`.
    """
    found = []
    for row in rows:
        if row["id"] not in truth:
            raise ValueError(
                f"scored clip {row['id']!r} has no rating. Score the clips of the same split that is rated."
            )
        # Neither an unscored clip nor a real one that was passed on has labels.
        for dimension, label in truth[row["id"]].items() if row.get("reward") is not None else ():
            given = (row.get("probs") or {}).get(dimension)
            probs = None if given is None else tuple(given[one] for one in rubric.labels)
            found.append(Verdict(row["id"], dimension, label, rubric.parse_label(row[dimension]), probs, rubric))
    return found


def evaluate_verdicts(rows: Sequence[Verdict], *, system: str, seed: int = 0) -> list[EvalRow]:
    """
    How far the critic agrees with people, by dimension and over all, with 95 % intervals.

    Labels: accuracy, balanced accuracy, macro-F1, and calibration error, which needs probabilities. Order, where people gave
    two labels or more: Spearman's correlation of expected reward and label, AUC of the best and the worst label, quadratic
    kappa, and, with probabilities, balanced accuracy of the labels that are likeliest once the critic's own leaning is taken
    out.

    The intervals are bootstrapped over videos, since the verdicts on one video are not independent; a share of 0 or 1
    has Wilson's, a correlation of 1 none. `n` counts videos. A dimension that nobody rated has no row.

    Raises:
        ValueError: if there is no verdict at all.
    """
    if not rows:
        raise ValueError("no verdict: every clip is unscored or unrated. Look at `unscored` of the scores first.")
    parts = {
        "overall": list(rows),
        **{d: [row for row in rows if row.dimension == d] for d in rows[0].rubric.dimensions},
    }
    figures = []
    for name, part in parts.items():
        names, videos = np.unique([row.video for row in part], return_inverse=True)
        for metric, measure in _measures(part, videos).items():
            value = float(measure(np.ones((1, len(names))))[0])
            if not np.isfinite(value):
                continue
            ci95 = None
            if len(names) > 1 and metric in SHARES and value in (0.0, 1.0):
                ci95 = wilson(value * len(names), len(names)).ci95  # the bootstrap would draw nothing else
            elif len(names) > 1:
                drawn = measure(resample_counts([0] * len(names), seed=seed))
                low, high = interval(drawn[np.isfinite(drawn)])
                ci95 = None if metric in CORRELATIONS and high - low < 1e-9 else (low, high)
                if metric == "calibration_error" and not low <= value <= high:
                    ci95 = None  # bins of fewer answers are further off: the resamples lie above the figure
            figures.append(EvalRow("critic", f"critic/{name}/{metric}", system, value, len(names), ci95))
    return figures


# A figure of each of R resamples, from how often each was drawn of the V videos: [R, V] to [R].
_Measure = Callable[[np.ndarray], np.ndarray]


def _measures(part: Sequence[Verdict], videos: np.ndarray) -> dict[str, _Measure]:
    """The figures of `part`, whose verdicts are on the `videos` with these numbers; none of no verdict."""
    if not part:
        return {}
    rubric = part[0].rubric
    truth = np.array([rubric.rank(row.truth) for row in part])
    labels = np.array([rubric.rank(row.label) for row in part])
    of_tables = partial(_of_tables, videos, truth, len(rubric.labels))
    measures: dict[str, _Measure] = {
        figure.__name__: of_tables(labels, figure) for figure in (accuracy, balanced_accuracy, macro_f1)
    }
    probs = np.array([row.probs for row in part]) if all(row.probs is not None for row in part) else None
    if probs is not None:
        gaps = np.zeros((videos.max() + 1, NUM_BINS + 1))
        np.add.at(gaps[:, 1:], videos, _gaps(probs.max(axis=1), truth == labels))
        gaps[:, 0] = np.bincount(videos)
        measures["calibration_error"] = lambda w: np.abs((w @ gaps)[:, 1:]).sum(axis=-1) / (w @ gaps)[:, 0]
    if len(set(truth)) < 2:
        return measures
    likely = np.eye(len(rubric.labels))[labels] if probs is None else probs
    reward = likely @ np.array(list(rubric.rewards.values()))
    # Without probabilities a label is all there is to rank by.
    good, bad = (labels, -labels) if probs is None else (probs[:, -1], probs[:, 0])
    measures["spearman"] = lambda w: spearman(reward, truth, w[:, videos])
    measures["auc_good"] = lambda w: auc(good, truth == rubric.rank(rubric.best), w[:, videos])
    measures["auc_bad"] = lambda w: auc(bad, truth == rubric.rank(rubric.worst), w[:, videos])
    measures["quadratic_kappa"] = of_tables(labels, quadratic_kappa)
    if probs is not None:
        unbiased = labels.copy()
        for dimension in {row.dimension for row in part}:
            mine = np.array([row.dimension == dimension for row in part])
            unbiased[mine] = without_prior(probs[mine])
        measures["prior_corrected_balanced_accuracy"] = of_tables(unbiased, balanced_accuracy)
    return measures


def _of_tables(videos: np.ndarray, truth: np.ndarray, size: int, labels: np.ndarray, figure: _Measure) -> _Measure:
    """A `figure` of counts by people's and critic's label, of which there are `size`."""
    cells = np.zeros((videos.max() + 1, size * size))
    np.add.at(cells, (videos, truth * size + labels), 1)
    return lambda weights: figure((weights @ cells).reshape(-1, size, size))


# The tables of a report: what the labels are worth, and what their order is.
_COLUMNS: tuple[Mapping[str, str], ...] = (
    {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro-F1",
        "calibration_error": "calibration error",
    },
    {
        "spearman": "Spearman",
        "auc_good": "AUC of {best}",
        "auc_bad": "AUC of {worst}",
        "quadratic_kappa": "quadratic kappa",
        "prior_corrected_balanced_accuracy": "balanced accuracy without its leaning",
    },
)


def critic_report(rows: Sequence[Verdict], figures: Sequence[EvalRow], checks: Sequence[AuditCheck]) -> str:
    """The figures of a critic as Markdown, for its model card: agreement, confusion, sanity suite."""
    table = {row.metric: row for row in figures}
    lines: list[str] = []
    rubric = rows[0].rubric
    for metrics in _COLUMNS:
        titles = " | ".join(metrics.values()).format(best=rubric.best, worst=rubric.worst)
        lines += ["", f"| | {titles} | videos |", "|---" * (len(metrics) + 2) + "|"]
        for name in ("overall", *rubric.dimensions):
            if f"critic/{name}/accuracy" in table:
                cells = " | ".join(_cell(table.get(f"critic/{name}/{metric}")) for metric in metrics)
                lines.append(f"| {words(name)} | {cells} | {table[f'critic/{name}/accuracy'].n} |")
    for dimension in rubric.dimensions:
        part = [row for row in rows if row.dimension == dimension]
        if part:
            counts = confusion([row.truth for row in part], [row.label for row in part], rubric).astype(int)
            heads = " | ".join(f"critic: {label}" for label in rubric.labels)
            lines += ["", f"| {words(dimension)} | {heads} |", "|---" * (len(rubric.labels) + 1) + "|"]
            lines += [f"| people: {label} | {' | '.join(map(str, n))} |" for label, n in zip(rubric.labels, counts)]
    if checks:
        lines += ["", "| sanity check | value (95 %) | passed | meaning |", "|---|---|---|---|"]
        passed = {True: "yes", False: "**no**", None: ""}
        lines += [f"| {c.name} | {_figure(c.value, c.ci95, 4)} | {passed[c.passed]} | {c.meaning} |" for c in checks]
    return "\n".join(lines[1:]) + "\n"


def _cell(row: EvalRow | None) -> str:
    return "" if row is None else _figure(row.value, row.ci95, 3)


def _figure(value: float, ci95: tuple[float, float] | None, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if ci95 is None else f"{text} ({ci95[0]:.{digits}f} to {ci95[1]:.{digits}f})"
