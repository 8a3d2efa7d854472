"""How good a critic is: agreement with people by dimension, calibration, and the sanity suite of `lift-trl audit`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ..protocols import RewardModel
from ..records import CriticScore, EvalRow, NativeScore, VideoSource
from ..rubric import REWARDS, Dimension, Label, parse_label
from ..store.video_io import read_video, write_video
from .intervals import bootstrap_mean, interval, resample_counts, wilson
from .label_measures import accuracy, balanced_accuracy, confusion, macro_f1, quadratic_kappa
from .rank_measures import auc, spearman, without_prior


NUM_BINS = 10
#: How far two scores of one clip may differ and still count as equal.
REPEAT_TOLERANCE = 1e-4
#: How far two expected rewards may differ and still earn the same.
EQUAL = 0.01
#: Share of real clips that may earn less than a blank one.
LOWEST = 0.1
#: Figures that are shares: at 0 or 1 they have Wilson's interval.
SHARES = frozenset(
    ("accuracy", "balanced_accuracy", "macro_f1", "auc_good", "auc_bad", "prior_corrected_balanced_accuracy")
)
#: Figures that have no interval where every resample gives the same, as a perfect order does.
CORRELATIONS = frozenset(("spearman", "quadratic_kappa"))


class Verdict(NamedTuple):
    """One dimension of one clip: what people said, and what the critic said (`probs` in the order of `Label`)."""

    video: str
    dimension: Dimension
    truth: Label
    label: Label
    probs: tuple[float, ...] | None


def calibration_error(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """
    Expected calibration error: how far the probability of the chosen label is from how often it is right, in [0, 1].

    >>> calibration_error([1.0, 1.0, 0.5, 0.5], [True, True, True, False])
    0.0

    Source: Guo et al., arXiv 1706.04599, equation 3 (10 equal bins).
    """
    return float(np.abs(_gaps(confidence, right).sum(axis=0)).sum() / len(right))


def _gaps(confidence: Sequence[float], right: Sequence[bool]) -> np.ndarray:
    """Confidence minus hit, in the column of its bin: [N, bins]."""
    values = np.asarray(confidence, float)
    gaps = np.zeros((len(values), NUM_BINS))
    gaps[np.arange(len(values)), np.minimum((values * NUM_BINS).astype(int), NUM_BINS - 1)] = values - np.asarray(
        right
    )
    return gaps


def verdicts(rows: Iterable[Mapping[str, Any]], truth: Mapping[str, Mapping[Dimension, Label]]) -> list[Verdict]:
    """
    Pairs of people's labels and the critic's, of the clips that have a score and the dimensions that were rated.

    Args:
        rows: scored rows, as `score_videos` writes them.
        truth: people's labels by the clip's id.

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
            given = (row.get("probs") or {}).get(dimension.value)
            probs = None if given is None else tuple(given[one.value] for one in Label)
            found.append(Verdict(row["id"], dimension, label, parse_label(row[dimension.value]), probs))
    return found


def evaluate_verdicts(rows: Sequence[Verdict], *, system: str, seed: int = 0) -> list[EvalRow]:
    """
    How far the critic agrees with people, by dimension and over all, with 95 % intervals.

    Labels: accuracy, balanced accuracy, macro-F1, and calibration error, which needs probabilities. Order, where people gave
    two labels or more: Spearman's correlation of expected reward and label, AUC of Good and of Bad, quadratic kappa, and,
    with probabilities, balanced accuracy of the labels that are likeliest once the critic's own leaning is taken out.

    The intervals are bootstrapped over videos, since the three verdicts on one video are not independent; a share of 0 or 1
    has Wilson's, a correlation of 1 none. `n` counts videos. A dimension that nobody rated has no row.

    Raises:
        ValueError: if there is no verdict at all.
    """
    if not rows:
        raise ValueError("no verdict: every clip is unscored or unrated. Look at `unscored` of the scores first.")
    parts = {"overall": list(rows), **{d.value: [row for row in rows if row.dimension == d] for d in Dimension}}
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
            figures.append(EvalRow("critic", f"critic/{name}/{metric}", system, value, len(names), ci95))
    return figures


# A figure of each of R resamples, from how often each was drawn of the V videos: [R, V] to [R].
_Measure = Callable[[np.ndarray], np.ndarray]


def _measures(part: Sequence[Verdict], videos: np.ndarray) -> dict[str, _Measure]:
    """The figures of `part`, whose verdicts are on the `videos` with these numbers; none of no verdict."""
    if not part:
        return {}
    truth = np.array([row.truth.rank for row in part])
    labels = np.array([row.label.rank for row in part])
    of_tables = partial(_of_tables, videos, truth)
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
    likely = np.eye(len(Label))[labels] if probs is None else probs
    reward = likely @ np.array([REWARDS[label] for label in Label])
    # Without probabilities a label is all there is to rank by.
    good, bad = (labels, -labels) if probs is None else (probs[:, -1], probs[:, 0])
    measures["spearman"] = lambda w: spearman(reward, truth, w[:, videos])
    measures["auc_good"] = lambda w: auc(good, truth == Label.GOOD.rank, w[:, videos])
    measures["auc_bad"] = lambda w: auc(bad, truth == Label.BAD.rank, w[:, videos])
    measures["quadratic_kappa"] = of_tables(labels, quadratic_kappa)
    if probs is not None:
        unbiased = labels.copy()
        for dimension in {row.dimension for row in part}:
            mine = np.array([row.dimension == dimension for row in part])
            unbiased[mine] = without_prior(probs[mine])
        measures["prior_corrected_balanced_accuracy"] = of_tables(unbiased, balanced_accuracy)
    return measures


def _of_tables(videos: np.ndarray, truth: np.ndarray, labels: np.ndarray, figure: _Measure) -> _Measure:
    """A `figure` of counts by people's and critic's label."""
    size = len(Label)
    cells = np.zeros((videos.max() + 1, size * size))
    np.add.at(cells, (videos, truth * size + labels), 1)
    return lambda weights: figure((weights @ cells).reshape(-1, size, size))


@dataclass(frozen=True)
class AuditCheck:
    """
    One question to a critic's sanity, and its figure.

    Attributes:
        passed: whether the figure is on the right side of its bound; `None` where it is only to be looked at.
        ci95: 95 % interval of the figure over the clips, where it is a mean.
    """

    name: str
    value: float
    meaning: str
    passed: bool | None = None
    ci95: tuple[float, float] | None = None


def audit(critic: RewardModel, videos: Sequence[VideoSource | str], captions: Sequence[str]) -> list[AuditCheck]:
    """
    The sanity suite: does the critic read the caption, look at the video and its motion, and repeat itself?

    Swapped captions and blank videos should score lower, and surely so: the whole interval lies below 0. A blank clip also
    belongs into the lowest tenth of real ones in each dimension. A frozen clip or shuffled frames must not earn more for
    their motion. Frames in reverse and half the size show how much order and resolution weigh. Values are differences of
    the mean expected reward to the plain run.

    Args:
        videos, captions: clips that suit their captions, at least two with captions that differ.

    Raises:
        ValueError: if all captions are equal, or no clip can be scored.

    Source: complaints about neighbouring reward models (VideoScore 4, VideoScore2 5, VisionReward 26).
    """
    swapped = swap_captions(captions)
    with TemporaryDirectory(prefix="lift_trl_audit_") as name:
        folder = Path(name)
        scores = critic.score(videos, captions)
        names = [*dict.fromkeys(name for score in scores for name in score.dimension_rewards)]
        plain = _table(scores, names)
        usable = np.isfinite(plain).all(axis=1)
        if not names or not usable.any():
            raise ValueError(
                "no clip could be scored, so there is nothing to audit. Score one and read its `unscored`."
            )
        again, by_caption = (_table(critic.score(videos, texts), names) for texts in (captions, swapped))
        changed = {
            name: _table(
                critic.score([_rewrite(v, folder / f"{name}{i}.mp4", c) for i, v in enumerate(videos)], captions),
                names,
            )
            for name, c in _CHANGES.items()
        }
    blank = changed["blank"]
    # A judge with dimensions of its own is asked about motion by its whole reward.
    motion = [names.index(d)] if (d := Dimension.MOTION_SMOOTHNESS) in names else slice(None)
    largest = float(np.nanmax(np.abs(again - plain), initial=0))
    ranks = [_blank_rank(name, plain[usable, i], blank[usable, i]) for i, name in enumerate(names)]
    grey = _drop("blank_video", blank - plain, "change of the reward with a grey clip; surely below 0 is right")
    return [
        _drop(
            "swapped_captions", by_caption - plain, "change with the caption of another clip; surely below 0 is right"
        ),
        replace(grey, passed=grey.passed and all(rank.passed for rank in ranks)),
        *ranks,
        _motion("frozen_video", (changed["frozen"] - plain)[:, motion].mean(axis=1), "the first frame all along"),
        _motion(
            "shuffled_frames", (changed["shuffled"] - plain)[:, motion].mean(axis=1), "the frames in random order"
        ),
        AuditCheck("repeated_run", largest, "largest change in a second run; 0 is right", largest <= REPEAT_TOLERANCE),
        _change("reversed_frames", changed["reversed"] - plain, "change with the frames in reverse order"),
        _change("half_size", changed["half"] - plain, "change at half the height and width; near 0 is right"),
        AuditCheck(
            "spread", float(plain[usable].mean(axis=1).std()), "standard deviation over clips; 0: all clips are one"
        ),
        AuditCheck("unscored", float((~usable).mean()), "share of clips that could not be scored; 0 is right"),
    ]


def swap_captions(captions: Sequence[str]) -> list[str]:
    """
    Every clip's caption replaced by another clip's that differs from it.

    >>> swap_captions(["a", "a", "b"])
    ['b', 'b', 'a']

    Raises:
        ValueError: if all captions are equal.
    """
    texts = list(dict.fromkeys(captions))
    if len(texts) < 2:
        raise ValueError("all captions are equal, so none can be swapped. Give clips of at least two captions.")
    return [texts[(texts.index(caption) + 1) % len(texts)] for caption in captions]


def _table(scores: Sequence[CriticScore | NativeScore], names: Sequence[str]) -> np.ndarray:
    """Expected rewards [N, D] by the dimensions `names`; NaN where a clip is unscored."""
    return np.array([[score.dimension_rewards.get(name, np.nan) for name in names] for score in scores])


def _change(name: str, change: np.ndarray, meaning: str) -> AuditCheck:
    """The mean of `change` ([N] or, by dimension, [N, 3]) over the clips that could be scored both times."""
    values = change if change.ndim == 1 else change.mean(axis=1)
    values = values[np.isfinite(values)]
    if not len(values):
        return AuditCheck(name, float("nan"), meaning)
    estimate = bootstrap_mean(values.tolist())
    return AuditCheck(name, estimate.value, meaning, ci95=estimate.ci95)


def _drop(name: str, change: np.ndarray, meaning: str) -> AuditCheck:
    """Passed if the reward surely falls: one clip, or an interval that holds 0, shows nothing."""
    check = _change(name, change, meaning)
    return replace(check, passed=check.ci95 is not None and check.ci95[1] < 0)


def _motion(name: str, change: np.ndarray, what: str) -> AuditCheck:
    """Passed if the reward of motion surely falls, failed if it surely rises; between them people must look."""
    check = _change(name, change, f"change of the reward of motion with {what}; below 0 is right, 0 sees no motion")
    low, high = check.ci95 or (-np.inf, np.inf)
    return replace(check, passed=True if high < 0 else False if low > EQUAL else None)


def _blank_rank(dimension: str, plain: np.ndarray, blank: np.ndarray) -> AuditCheck:
    """Passed if hardly any real clip earns less than a blank one."""
    blank = blank[np.isfinite(blank)]
    share = float((plain < blank[:, None] - EQUAL).mean()) if len(blank) else float("nan")
    meaning = f"share of clips that earn less than a grey one; at most {LOWEST} is right"
    return AuditCheck(f"blank_video/{dimension}", share, meaning, share <= LOWEST)


_CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "blank": lambda frames: np.full_like(frames, 128),
    "frozen": lambda frames: np.repeat(frames[:1], len(frames), axis=0),
    "shuffled": lambda frames: frames[np.random.default_rng(0).permutation(len(frames))],
    "reversed": lambda frames: frames[::-1],
    "half": lambda frames: _halved(frames),
}


def _halved(frames: np.ndarray) -> np.ndarray:
    """`frames` (uint8 [F, H, W, 3]) at half the height and width, both even, each pixel the mean of four."""
    count, height, width, _ = frames.shape
    height, width = height // 4 * 2, width // 4 * 2
    blocks = frames[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


def _rewrite(video: VideoSource | str, path: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of `video` with its frames changed; no file, and so unscored, where it cannot be read."""
    try:
        clip = read_video(video)
    except (ValueError, FileNotFoundError):
        return path
    _, height, width, _ = clip.frames.shape
    even = clip.frames[:, : height // 2 * 2, : width // 2 * 2]  # as H.264 needs them
    write_video(path, np.ascontiguousarray(change(even)), fps=clip.fps)
    return path


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
        "auc_good": "AUC of Good",
        "auc_bad": "AUC of Bad",
        "quadratic_kappa": "quadratic kappa",
        "prior_corrected_balanced_accuracy": "balanced accuracy without its leaning",
    },
)


def critic_report(rows: Sequence[Verdict], figures: Sequence[EvalRow], checks: Sequence[AuditCheck]) -> str:
    """The figures of a critic as Markdown, for its model card: agreement, confusion, sanity suite."""
    table = {row.metric: row for row in figures}
    lines: list[str] = []
    for metrics in _COLUMNS:
        lines += ["", f"| | {' | '.join(metrics.values())} | videos |", "|---" * (len(metrics) + 2) + "|"]
        for name in ("overall", *Dimension):
            if f"critic/{name}/accuracy" in table:
                cells = " | ".join(_cell(table.get(f"critic/{name}/{metric}")) for metric in metrics)
                lines.append(f"| {name.replace('_', ' ')} | {cells} | {table[f'critic/{name}/accuracy'].n} |")
    for dimension in Dimension:
        part = [row for row in rows if row.dimension == dimension]
        if part:
            counts = confusion([row.truth for row in part], [row.label for row in part]).astype(int)
            heads = " | ".join(f"critic: {label}" for label in Label)
            lines += ["", f"| {dimension.words} | {heads} |", "|---" * (len(Label) + 1) + "|"]
            lines += [f"| people: {label} | {' | '.join(map(str, counts[label.rank]))} |" for label in Label]
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
