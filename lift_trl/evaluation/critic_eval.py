"""How good a critic is: agreement with people by dimension, calibration, and the sanity suite of `lift-trl audit`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ..protocols import RewardModel
from ..records import EvalRow, VideoSource
from ..rubric import Dimension, Label, parse_label
from ..store.video_io import read_video, write_video
from .intervals import interval, resample_counts, wilson


NUM_BINS = 10
#: How far two scores of one clip may differ and still count as equal.
REPEAT_TOLERANCE = 1e-4


class Verdict(NamedTuple):
    """One dimension of one clip: what people said, and what the critic said (`probs` in the order of `Label`)."""

    video: str
    dimension: Dimension
    truth: Label
    label: Label
    probs: tuple[float, ...] | None


def confusion(truth: Sequence[Label], labels: Sequence[Label]) -> np.ndarray:
    """
    Counts [3, 3]: row is what people said, column what the critic said, worst label first.

    >>> confusion([Label.GOOD, Label.GOOD], [Label.BAD, Label.GOOD]).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    table = np.zeros((len(Label), len(Label)))
    np.add.at(table, ([t.rank for t in truth], [p.rank for p in labels]), 1)
    return table


def accuracy(tables: np.ndarray) -> np.ndarray:
    """Share of equal labels, of each of the `tables` [..., 3, 3]."""
    return _hits(tables).sum(axis=-1) / tables.sum(axis=(-2, -1))


def balanced_accuracy(tables: np.ndarray) -> np.ndarray:
    """Mean recall over the labels that people gave; a critic that says one thing only gets 1 over their number."""
    return _mean_share(_hits(tables), tables.sum(axis=-1))


def macro_f1(tables: np.ndarray) -> np.ndarray:
    """Mean F1 over the labels that people or critic gave."""
    return _mean_share(2 * _hits(tables), tables.sum(axis=-1) + tables.sum(axis=-2))


def _hits(tables: np.ndarray) -> np.ndarray:
    return np.diagonal(tables, axis1=-2, axis2=-1)


def _mean_share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Mean over the last axis of `part / whole`, where `whole` is not 0."""
    given = whole > 0
    return (part / np.where(given, whole, 1)).sum(axis=-1) / given.sum(axis=-1)


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
    Accuracy, balanced accuracy, macro-F1 and calibration error by dimension and over all, with 95 % intervals.

    The intervals are bootstrapped over videos, since the three verdicts on one video are not independent; a share of 0 or 1
    has Wilson's. `n` counts videos. A dimension that nobody rated has no row; calibration needs probabilities.

    Raises:
        ValueError: if there is no verdict at all.
    """
    if not rows:
        raise ValueError("no verdict: every clip is unscored or unrated. Look at `unscored` of the scores first.")
    parts = {"overall": list(rows), **{d.value: [row for row in rows if row.dimension == d] for d in Dimension}}
    figures = []
    for name, part in parts.items():
        names, videos = np.unique([row.video for row in part], return_inverse=True)
        for metric, (sums, measure) in _measures(part, videos).items():
            value = float(measure(sums.sum(axis=0)))
            ci95 = None
            if len(names) > 1 and metric != "calibration_error" and value in (0.0, 1.0):
                ci95 = wilson(value * len(names), len(names)).ci95  # the bootstrap would draw nothing else
            elif len(names) > 1:
                ci95 = interval(measure(resample_counts([0] * len(names), seed=seed) @ sums))
            figures.append(EvalRow("critic", f"critic/{name}/{metric}", system, value, len(names), ci95))
    return figures


class _Measure(NamedTuple):
    """A figure that follows from sums over videos: `sums` [videos, K], and what it makes of their totals [..., K]."""

    sums: np.ndarray
    of_totals: Callable[[np.ndarray], np.ndarray]


def _measures(part: Sequence[Verdict], videos: np.ndarray) -> dict[str, _Measure]:
    """The figures of `part`, whose verdicts are on the `videos` with these numbers; none of no verdict."""
    if not part:
        return {}
    size = len(Label)
    cells = np.zeros((videos.max() + 1, size * size))
    np.add.at(cells, (videos, np.array([row.truth.rank * size + row.label.rank for row in part])), 1)

    def of_tables(figure: Callable[[np.ndarray], np.ndarray]) -> _Measure:
        return _Measure(cells, lambda totals: figure(totals.reshape(*totals.shape[:-1], size, size)))

    measures = {figure.__name__: of_tables(figure) for figure in (accuracy, balanced_accuracy, macro_f1)}
    confidence = [max(row.probs) for row in part if row.probs is not None]
    if len(confidence) == len(part):
        gaps = np.zeros((videos.max() + 1, NUM_BINS + 1))
        np.add.at(gaps[:, 1:], videos, _gaps(confidence, [row.truth == row.label for row in part]))
        gaps[:, 0] = np.bincount(videos)
        measures["calibration_error"] = _Measure(gaps, lambda t: np.abs(t[..., 1:]).sum(axis=-1) / t[..., 0])
    return measures


@dataclass(frozen=True)
class AuditCheck:
    """
    One question to a critic's sanity, and its figure.

    Attributes:
        passed: whether the figure is on the right side of its bound; `None` where it is only to be looked at.
    """

    name: str
    value: float
    meaning: str
    passed: bool | None = None


def audit(critic: RewardModel, videos: Sequence[VideoSource | str], captions: Sequence[str]) -> list[AuditCheck]:
    """
    The sanity suite: does the critic read the caption, look at the video, and repeat itself?

    Swapped captions and blank videos should score lower, a repeated run the same; frames in reverse and half the size
    show how much motion and resolution weigh. Values are differences of the mean expected reward to the plain run.

    Args:
        videos, captions: clips that suit their captions, at least two with captions that differ.

    Raises:
        ValueError: if all captions are equal, or no clip can be scored.

    Source: complaints about neighbouring reward models (VideoScore 4, VideoScore2 5, VisionReward 26).
    """
    swapped = swap_captions(captions)
    with TemporaryDirectory(prefix="lift_trl_audit_") as name:
        folder = Path(name)
        plain = _rewards(critic, videos, captions)
        usable = np.isfinite(plain)
        if not usable.any():
            raise ValueError(
                "no clip could be scored, so there is nothing to audit. Score one and read its `unscored`."
            )

        def shift(others: Sequence[VideoSource | str], texts: Sequence[str]) -> np.ndarray:
            change: np.ndarray = _rewards(critic, others, texts) - plain
            return change[usable & np.isfinite(change)]

        copies = {
            name: [_rewrite(video, folder / f"{name}{i}.mp4", change) for i, video in enumerate(videos)]
            for name, change in _CHANGES.items()
        }
        by_caption, again = shift(videos, swapped), shift(videos, captions)
        blank, reverse, small = (shift(copies[name], captions) for name in _CHANGES)
    largest = float(np.abs(again).max(initial=0))
    return [
        _drop(
            "swapped_captions", by_caption, "change of the reward with the caption of another clip; below 0 is right"
        ),
        _drop("blank_video", blank, "change of the reward with a grey clip; below 0 is right"),
        AuditCheck("repeated_run", largest, "largest change in a second run; 0 is right", largest <= REPEAT_TOLERANCE),
        AuditCheck("reversed_frames", _mean(reverse), "change of the reward with the frames in reverse order"),
        AuditCheck("half_size", _mean(small), "change of the reward at half the height and width; near 0 is right"),
        AuditCheck(
            "spread", float(plain[usable].std()), "standard deviation over clips; 0 means all clips are one", None
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


def _rewards(critic: RewardModel, videos: Sequence[VideoSource | str], captions: Sequence[str]) -> np.ndarray:
    return np.array([score.expected_reward for score in critic.score(videos, captions)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _drop(name: str, change: np.ndarray, meaning: str) -> AuditCheck:
    return AuditCheck(name, _mean(change), meaning, _mean(change) < 0)


_CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "blank": lambda frames: np.full_like(frames, 128),
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


def critic_report(rows: Sequence[Verdict], figures: Sequence[EvalRow], checks: Sequence[AuditCheck]) -> str:
    """The figures of a critic as Markdown, for its model card: agreement, confusion, sanity suite."""
    lines = ["| | accuracy | balanced accuracy | macro-F1 | calibration error | videos |", "|---|---|---|---|---|---|"]
    table = {row.metric: row for row in figures}
    for name in ("overall", *Dimension):
        if f"critic/{name}/accuracy" in table:
            metrics = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error")
            cells = [_cell(table.get(f"critic/{name}/{metric}")) for metric in metrics]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {table[f'critic/{name}/accuracy'].n} |")
    for dimension in Dimension:
        part = [row for row in rows if row.dimension == dimension]
        if part:
            counts = confusion([row.truth for row in part], [row.label for row in part]).astype(int)
            heads = " | ".join(f"critic: {label}" for label in Label)
            lines += ["", f"| {dimension.words} | {heads} |", "|---" * (len(Label) + 1) + "|"]
            lines += [f"| people: {label} | {' | '.join(map(str, counts[label.rank]))} |" for label in Label]
    if checks:
        lines += ["", "| sanity check | value | passed | meaning |", "|---|---|---|---|"]
        passed = {True: "yes", False: "**no**", None: ""}
        lines += [f"| {c.name} | {c.value:.4f} | {passed[c.passed]} | {c.meaning} |" for c in checks]
    return "\n".join(lines) + "\n"


def _cell(row: EvalRow | None) -> str:
    if row is None:
        return ""
    return f"{row.value:.3f}" if row.ci95 is None else f"{row.value:.3f} ({row.ci95[0]:.3f} to {row.ci95[1]:.3f})"
