"""Drift alarms: has tuning made the clips still, soft, pale or all alike? Plain pixel statistics. NOT VBench.

Reward hacking of video models shows as clips without motion, a painted look or one composition for every prompt, while
the reward rises. These figures need no model and compare a tuned system with its base on the same prompts.

F frames, H height, W width, V videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..records import EvalRow, VideoSource
from ..store.video_io import read_video
from .intervals import NUM_RESAMPLES, Estimate, bootstrap_mean, interval, resample_counts


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


#: Thresholds are ours: changes of this size are plain to the eye on CogVideoX clips.
MEASURES: Mapping[str, DriftMeasure] = {
    "motion_energy": DriftMeasure("motion energy", "mean change of luma between frames, 0 to 1", -0.30, None),
    "sharpness": DriftMeasure("sharpness", "mean absolute Laplacian of luma, 0 to 1", -0.25, 0.50),
    "saturation": DriftMeasure("saturation", "mean HSV saturation, 0 to 1", -0.25, 0.25),
    "brightness": DriftMeasure("brightness", "mean luma, 0 to 1", -0.25, 0.25),
    "diversity": DriftMeasure("diversity", "mean distance between clips of different prompts", -0.20, None),
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
        change: relative change of the mean, with its paired interval over prompts.
        level: `alarm` if the change is beyond the threshold and sure (its interval excludes 0, over 8 prompts or more);
            `watch` if it is only beyond the threshold.
    """

    measure: str
    system: str
    base: str
    base_value: float
    value: float
    change: Estimate
    level: Level


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
        high, low = rgb.max(-1), rgb.min(-1)
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
    flat = np.stack([t.reshape(-1) for t in thumbnails])
    return np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))


def drift_rows(statistics: Mapping[str, Mapping[str, ClipStatistics]]) -> list[EvalRow]:
    """
    One row a system and statistic, means with intervals over prompts.

    Args:
        statistics: system -> prompt -> statistics of its clip.
    """
    rows = []
    for system, clips in statistics.items():
        for name in (*[m for m in MEASURES if m != "diversity"], "steadiness"):
            estimate = bootstrap_mean([float(getattr(clip, name)) for clip in clips.values()])
            rows.append(EvalRow(SUITE, f"{SUITE}/{name}", system, estimate.value, estimate.n, estimate.ci95))
        if len(clips) > 1:
            value = _mean_distance(distances([c.thumbnail for c in clips.values()]), np.ones((1, len(clips))))[0]
            rows.append(EvalRow(SUITE, f"{SUITE}/diversity", system, float(value), len(clips)))
    return rows


def drift_alarms(
    statistics: Mapping[str, Mapping[str, ClipStatistics]], *, base: str, seed: int = 0
) -> list[DriftAlarm]:
    """
    Every other system against `base`, one alarm (of level `ok`, `watch` or `alarm`) a statistic.

    Args:
        statistics: system -> prompt -> statistics of its clip; only prompts of both systems are compared.

    Raises:
        ValueError: if `base` is unknown or a system shares no prompt with it.
    """
    if base not in statistics:
        raise ValueError(f"base={base!r} has no clips; systems are {', '.join(statistics)}.")
    alarms = []
    for system in statistics:
        if system == base:
            continue
        prompts = [prompt for prompt in statistics[base] if prompt in statistics[system]]
        if not prompts:
            raise ValueError(f"{system} and {base} share no prompt; compare clips of the same prompts.")
        pair = tuple([statistics[name][prompt] for prompt in prompts] for name in (base, system))
        draws = resample_counts([0] * len(prompts), seed=seed, num_resamples=NUM_RESAMPLES)
        for name in MEASURES:
            if name != "diversity":
                alarms.append(_alarm(name, base, system, _means(name, pair), draws))
            elif len(prompts) > 1:
                alarms.append(_alarm(name, base, system, _diversities(pair), draws))
    return alarms


_Statistic = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _means(name: str, pair: tuple[list[ClipStatistics], ...]) -> _Statistic:
    values = np.array([[float(getattr(clip, name)) for clip in side] for side in pair])
    return lambda draws: (draws @ values[0] / draws.sum(1), draws @ values[1] / draws.sum(1))


def _diversities(pair: tuple[list[ClipStatistics], ...]) -> _Statistic:
    matrices = [distances([clip.thumbnail for clip in side]) for side in pair]
    return lambda draws: (_mean_distance(matrices[0], draws), _mean_distance(matrices[1], draws))


def _mean_distance(matrix: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean distance between different videos, weighted by how often each was drawn: [R]. NaN if one alone was drawn."""
    pairs = draws.sum(1) ** 2 - (draws**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("ri,ij,rj->r", draws, matrix, draws) / pairs


def _alarm(name: str, base: str, system: str, statistic: _Statistic, draws: np.ndarray) -> DriftAlarm:
    base_value, value = (float(side[0]) for side in statistic(np.ones((1, draws.shape[1]))))
    change = value / base_value - 1 if base_value else float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        many = np.divide(*reversed(statistic(draws))) - 1
    many = many[np.isfinite(many)]
    ci95 = interval(many) if draws.shape[1] > 1 and len(many) else None
    estimate = Estimate(change, ci95, draws.shape[1])
    lower, upper = MEASURES[name].lower, MEASURES[name].upper
    beyond = change < lower or (upper is not None and change > upper)
    level: Level = "ok" if not beyond else "alarm" if estimate.is_sure else "watch"
    return DriftAlarm(name, system, base, base_value, value, estimate, level)
