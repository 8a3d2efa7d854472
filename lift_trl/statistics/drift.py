"""Drift alarms: has tuning made the clips still, soft, pale or all alike? Plain pixel statistics. NOT VBench.

Reward hacking of video models shows as clips without motion, a painted look or one composition for every prompt, while
the reward rises. These figures need no model and compare a tuned system with its base on the same prompts.

F frames, H height, W width, V videos, P prompts, R resamples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..records import EvalRow, VideoSource
from ..store.manifest import METADATA_FILE, read_rows
from ..store.video_io import read_video
from .intervals import Estimate, bootstrap_mean, interval, resample_counts


SUITE = "drift"
NOT_VBENCH = "Pixel statistics of this project, not VBench metrics."
#: Rec. 601 luma.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_THUMBNAIL = 8
_THUMBNAIL_FRAMES = 4

Level = Literal["ok", "watch", "alarm"]


class DriftMeasure(NamedTuple):
    """A statistic: what it is in words, and the relative change (either way, or downwards only) that is a warning."""

    title: str
    unit: str
    lower: float
    upper: float | None

    def share_of_limit(self, change: float) -> float:
        """How far a relative change went towards the limit on its side; 1 is there, and below 0 it has none."""
        limit = self.lower if change < 0 or self.upper is None else self.upper
        return change / limit


DIVERSITY = "diversity"
#: Thresholds are ours: changes of this size are plain to the eye on clips of 480 x 720 pixels.
MEASURES: Mapping[str, DriftMeasure] = {
    "motion_energy": DriftMeasure("motion energy", "mean change of luma between frames, 0 to 1", -0.30, None),
    "sharpness": DriftMeasure("sharpness", "mean absolute Laplacian of luma, 0 to 1", -0.25, 0.50),
    "saturation": DriftMeasure("saturation", "mean HSV saturation, 0 to 1", -0.25, 0.25),
    "brightness": DriftMeasure("brightness", "mean luma, 0 to 1", -0.25, 0.25),
    DIVERSITY: DriftMeasure("diversity", "mean distance between clips of different prompts", -0.20, None),
}


class ClipStatistics(NamedTuple):
    """The statistics of one clip; `thumbnail` is [4, 8, 8, 3] in [0, 1]. `steadiness` is VBench's flicker formula."""

    motion_energy: float
    sharpness: float
    saturation: float
    brightness: float
    steadiness: float
    thumbnail: np.ndarray


@dataclass(frozen=True)
class DriftAlarm:
    """
    One statistic of `system` against `base`, paired by prompt.

    Attributes:
        change: relative change of the mean, with its paired interval over prompts; NaN where the base's mean is 0 and the
            system's is not.
        level: `alarm` if the change is beyond the limit and its interval excludes 0, over 8 prompts or more; `watch` if it
            is beyond the limit only, if its interval reaches the limit, or `change` is NaN.
    """

    measure: str
    system: str
    base: str
    base_value: float
    value: float
    change: Estimate
    level: Level

    @property
    def change_in_short(self) -> str:
        """The relative change; the two means where there is none."""
        if math.isnan(self.change.value):
            return f"from {self.base_value:.2g} to {self.value:.2g}"
        return _signed_percent(self.change.value)

    @property
    def change_in_words(self) -> str:
        """The relative change with its interval; the two means where there is no relative change."""
        bounds = " to ".join(map(_signed_percent, self.change.ci95 or ()))
        return f"{self.change_in_short} ({bounds})" if bounds else self.change_in_short


def _signed_percent(value: float) -> str:
    # Adding 0 turns a rounded -0 into 0.
    return f"{round(value, 2) + 0.0:+.0%}"


def clip_statistics(video: VideoSource | str) -> ClipStatistics:
    """
    Statistics of all frames of `video`.

    Raises:
        FileNotFoundError, ValueError: if it cannot be decoded or has one frame only.
    """
    return frame_statistics(read_video(video).frames)


def frame_statistics(frames: np.ndarray) -> ClipStatistics:
    """
    Statistics of `frames` (uint8 [F, H, W, 3]).

    Raises:
        ValueError: if there are fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frames; motion needs at least two. Leave stills out.")
    motion, sharpness, saturation, luma_mean = [], [], [], []
    previous: np.ndarray | None = None
    # Frame by frame: a float copy of a whole clip would be four times its size.
    for frame in frames:
        rgb = frame.astype(np.float32) / 255
        luma = rgb @ _LUMA
        # Of whole planes: numpy reduces an axis of three values more than ten times as slowly.
        planes = rgb[..., 0], rgb[..., 1], rgb[..., 2]
        high, low = reduce(np.maximum, planes), reduce(np.minimum, planes)
        saturation.append(float(np.mean((high - low) / np.maximum(high, 1e-6))))
        laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
        sharpness.append(float(np.abs(laplacian).mean()))
        luma_mean.append(float(luma.mean()))
        if previous is not None:
            motion.append(float(np.abs(luma - previous).mean()))
        previous = luma
    return ClipStatistics(
        motion_energy=float(np.mean(motion)),
        sharpness=float(np.mean(sharpness)),
        saturation=float(np.mean(saturation)),
        brightness=float(np.mean(luma_mean)),
        steadiness=flicker_formula(frames),
        thumbnail=thumbnail(frames),
    )


def flicker_formula(frames: np.ndarray) -> float:
    """
    (255 - mean absolute difference of adjacent frames) / 255 of `frames` (uint8 [F, H, W, 3]), in [0, 1].

    The formula of VBench's temporal flickering. VBench's score is its mean over *static* clips only; of moving clips it
    mostly says how little they move.

    Source: vbench/temporal_flickering.py.
    """
    pairs = zip(frames[:-1], frames[1:])
    differences = [np.abs(a.astype(np.int16) - b.astype(np.int16)).mean() for a, b in pairs]
    return float((255 - np.mean(differences)) / 255)


def thumbnail(frames: np.ndarray) -> np.ndarray:
    """Four frames of `frames`, each averaged over an 8 x 8 grid of cells: float [4, 8, 8, 3] in [0, 1]."""
    chosen = frames[np.linspace(0, len(frames) - 1, _THUMBNAIL_FRAMES, dtype=int)].astype(np.float32) / 255
    rows = np.array_split(chosen, _THUMBNAIL, axis=1)
    cells = [[cell.mean((1, 2)) for cell in np.array_split(row, _THUMBNAIL, axis=2)] for row in rows]
    return np.stack([np.stack(row, axis=1) for row in cells], axis=1)


def distances(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Root mean square distance between each two of V thumbnails: [V, V]."""
    flat = np.stack([t.reshape(-1) for t in thumbnails]).astype(np.float64)
    squares = (flat**2).sum(1)
    # By the binomial formula: the differences of thousands of clips would not fit into memory.
    between = np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0) / flat.shape[1]
    np.fill_diagonal(between, 0)
    return np.sqrt(between)


def drift_rows(
    statistics: Mapping[str, Mapping[str, ClipStatistics]], prompts: Mapping[str, str], *, seed: int = 0
) -> list[EvalRow]:
    """
    One row a system and statistic, means with intervals over prompts. Clips of one prompt have no diversity.

    Args:
        statistics: system -> clip key -> statistics of the clip.
        prompts: the prompt of each clip key.
    """
    rows = []
    for system, clips in statistics.items():
        side, names = list(clips.values()), [prompts[key] for key in clips]
        for name in (*[m for m in MEASURES if m != DIVERSITY], "steadiness"):
            estimate = bootstrap_mean([float(getattr(clip, name)) for clip in side], names, seed=seed)
            rows.append(EvalRow(SUITE, f"{SUITE}/{name}", system, estimate.value, estimate.n, estimate.ci95))
        member = _member(names)
        if len(member) > 1:
            draws = resample_counts([0] * len(member), seed=seed)
            spread = _diversity(side, member)
            value = float(spread(np.ones((1, len(member))))[0])
            rows.append(EvalRow(SUITE, f"{SUITE}/{DIVERSITY}", system, value, len(member), _interval(spread(draws))))
    return rows


def drift_alarms(
    statistics: Mapping[str, Mapping[str, ClipStatistics]], prompts: Mapping[str, str], *, base: str, seed: int = 0
) -> list[DriftAlarm]:
    """
    Every other system against `base`, one alarm (of level `ok`, `watch` or `alarm`) a statistic.

    Args:
        statistics: system -> clip key -> statistics of the clip; only clips of both systems are compared.
        prompts: the prompt of each clip key; the clips of one prompt are resampled together.

    Raises:
        ValueError: if `base` is unknown or a system shares no clip key with it.
    """
    if base not in statistics:
        raise ValueError(f"base={base!r} has no clips; systems are {', '.join(statistics)}.")
    alarms = []
    for system in statistics:
        if system == base:
            continue
        keys = [key for key in statistics[base] if key in statistics[system]]
        if not keys:
            raise ValueError(f"{system} and {base} share no clip; compare clips of the same prompts and seeds.")
        sides = [[statistics[name][key] for key in keys] for name in (base, system)]
        member = _member([prompts[key] for key in keys])
        draws = resample_counts([0] * len(member), seed=seed)
        for name in MEASURES:
            if name != DIVERSITY:
                alarms.append(_alarm(name, base, system, [_mean(name, side, member) for side in sides], draws))
            elif len(member) > 1:
                alarms.append(_alarm(name, base, system, [_diversity(side, member) for side in sides], draws))
    return alarms


def alarms_in_words(base: Path, system: Path) -> list[str]:
    """The alarms of the clips of one `generated/` folder against those of another with the same prompts and seeds."""
    statistics: dict[str, dict[str, ClipStatistics]] = {}
    prompts: dict[str, str] = {}
    for name, folder in (("base", base), ("system", system)):
        rows = list(read_rows(folder / METADATA_FILE))
        statistics[name] = {row["id"]: clip_statistics(folder / row["file_name"]) for row in rows}
        prompts |= {row["id"]: row["prompt"] for row in rows}
    found = drift_alarms(statistics, prompts, base="base")
    alarms = [alarm for alarm in found if alarm.level == "alarm"]
    return [f"{MEASURES[alarm.measure].title} changed by {alarm.change_in_words}" for alarm in alarms]


#: Draws of P prompts in R resamples [R, P] -> the statistic of each resample [R].
_Statistic = Callable[[np.ndarray], np.ndarray]


def _member(prompts: Sequence[str]) -> np.ndarray:
    """1 where a clip is of a prompt: [P, V]."""
    names, index = np.unique(prompts, return_inverse=True)
    return np.eye(len(names))[:, index]


def _mean(name: str, clips: Sequence[ClipStatistics], member: np.ndarray) -> _Statistic:
    sums = member @ [float(getattr(clip, name)) for clip in clips]
    return lambda draws: (draws @ sums) / (draws @ member.sum(1))


def _diversity(clips: Sequence[ClipStatistics], member: np.ndarray) -> _Statistic:
    """Mean distance between clips of different prompts; NaN of a resample that drew one prompt only."""
    different = 1 - np.eye(len(member))
    sums = member @ distances([clip.thumbnail for clip in clips]) @ member.T * different
    pairs = np.outer(member.sum(1), member.sum(1)) * different

    def of_draws(draws: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ((draws @ sums) * draws).sum(1) / ((draws @ pairs) * draws).sum(1)

    return of_draws


def _alarm(name: str, base: str, system: str, statistics: Sequence[_Statistic], draws: np.ndarray) -> DriftAlarm:
    base_value, value = (float(of(np.ones((1, draws.shape[1])))[0]) for of in statistics)
    change = _relative(base_value, value)
    with np.errstate(invalid="ignore", divide="ignore"):
        many = statistics[1](draws) / statistics[0](draws) - 1
    num_prompts = draws.shape[1]
    estimate = Estimate(change, _interval(many) if num_prompts > 1 and math.isfinite(change) else None, num_prompts)
    lower, upper = MEASURES[name].lower, MEASURES[name].upper
    beyond = [not (x >= lower and (upper is None or x <= upper)) for x in (change, *(estimate.ci95 or ()))]
    level: Level = "ok"
    if any(beyond):
        level = "alarm" if beyond[0] and estimate.excludes_zero else "watch"
    return DriftAlarm(name, system, base, base_value, value, estimate, level)


def _relative(base_value: float, value: float) -> float:
    """The relative change; NaN where the base has none of it and the system has: no threshold applies, so look."""
    if base_value == 0:
        return 0.0 if value == 0 else math.nan
    return value / base_value - 1


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    """The central 95 % of the resamples that have a value, if any has."""
    finite = values[np.isfinite(values)]
    return interval(finite) if len(finite) else None
