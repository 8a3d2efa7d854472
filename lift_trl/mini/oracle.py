"""A judge that reads pixels: what a clip shows, how it moves, how clean it is, and the label of each dimension.

It knows nothing of how a clip was made, so it judges samples of a model as it judges renderings. Its errors are measured on
renderings with known truth (`tests/mini/test_oracle.py`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rubric import Dimension, Label
from .shapes import COLOURS, DIRECTIONS, SHAPES, SIZE, STATIC_BLOCK, Floats, Scene, Video, shape_coverage, shrink


#: A pixel's saturation (largest minus smallest channel, of 1) at which it begins and is sure to be the object.
SATURATION = (0.15, 0.45)
#: Area in pixels that an object must have to be seen in a frame, and the frames in which it must be seen.
MIN_AREA = 120.0
MIN_FRAMES = 7
#: Pixels a frame below which an object is not moving.
MIN_SPEED = 0.5
#: Wobble (pixels) below which nothing moves at all: one picture, shown again and again.
FROZEN_WOBBLE = 0.02
#: Bounds of Good and of Normal: root mean square distance from the straight path (pixels), static (of 1), share of the
#: object's outline that fits no shape (1 - intersection over union).
WOBBLE = (0.70, 1.32)
STATIC = (0.025, 0.088)
MISFIT = (0.18, 0.24)

_PALETTE = np.asarray(list(COLOURS.values()), np.float32)
# Area of a shape over its radius squared.
_AREAS = {"circle": np.pi, "square": 4 * 0.95**2, "triangle": np.sqrt(3.0) * 1.25**2}


@dataclass(frozen=True)
class Observation:
    """
    What the judge sees in a clip.

    Args:
        visible_frames: frames with an object.
        colour, shape, direction: the words that fit best, empty where nothing is visible or nothing moves.
        wobble: root mean square distance from straight uniform motion, pixels.
        static: standard deviation of the ground's blocks, of 1.
        misfit: 1 - intersection over union with the best shape, in [0, 1].
    """

    visible_frames: int
    colour: str
    shape: str
    direction: str
    wobble: float
    static: float
    misfit: float

    @property
    def visible(self) -> bool:
        """Whether there is an object to judge."""
        return self.visible_frames >= MIN_FRAMES

    @property
    def frozen(self) -> bool:
        """Whether the clip is one picture over and over."""
        return self.visible and not self.direction and self.wobble < FROZEN_WOBBLE

    def wrong_attributes(self, caption: Scene) -> tuple[str, ...]:
        """Names of the attributes that do not match `caption`."""
        return tuple(name for name, word in caption._asdict().items() if word != getattr(self, name))

    def labels(self, caption: Scene) -> dict[Dimension, Label]:
        """The label of each dimension; all Bad where no object is visible, and motion Bad where there is none."""
        if not self.visible:
            return dict.fromkeys(Dimension, Label.BAD)
        wrong = len(self.wrong_attributes(caption))
        return {
            Dimension.SEMANTIC_CONSISTENCY: (Label.GOOD, Label.NORMAL, Label.BAD, Label.BAD)[wrong],
            Dimension.MOTION_SMOOTHNESS: Label.BAD if self.frozen else _grade(self.wobble, WOBBLE),
            Dimension.VIDEO_FIDELITY: min(
                _grade(self.static, STATIC), _grade(self.misfit, MISFIT), key=lambda label: label.rank
            ),
        }


def observe(video: Video) -> Observation:
    """
    What `video` (uint8 `[F, H, W, 3]`, at 48 pixels or a multiple) shows.

    Raises:
        ValueError: if the frames cannot be read back at 48 x 48 pixels.
    """
    frames: Floats = shrink(video).astype(np.float32) / np.float32(255)
    mask = _object_mask(frames)
    area = mask.sum((1, 2))
    seen = area >= MIN_AREA
    static = _static_level(frames.mean(-1), mask)
    if seen.sum() < MIN_FRAMES:
        return Observation(int(seen.sum()), "", "", "", 0.0, static, 1.0)
    time, frames, mask, area = np.flatnonzero(seen), frames[seen], mask[seen], area[seen]
    centres = _centroids(mask, area)
    velocity, wobble = _fit_path(time, centres)
    overlap = _overlaps(mask, area, centres).mean(1)
    shape, misfit = SHAPES[overlap.argmax()], float(1 - overlap.max())
    return Observation(int(seen.sum()), _colour(frames, mask), shape, _direction(velocity), wobble, static, misfit)


def judge(video: Video, caption: Scene) -> dict[Dimension, Label]:
    """The label of each dimension for `video` under `caption`."""
    return observe(video).labels(caption)


class FrameFit(NamedTuple):
    """Of F frames, each by itself: centroid (x, y) in pixels `[F, 2]`, index of the best shape `[F]`, misfit `[F]`."""

    centres: NDArray[np.float64]
    shape: NDArray[np.intp]
    misfit: Floats


def fit_frames(frames: Floats) -> FrameFit:
    """What each of the `frames` `[F, 48, 48, 3]` in [0, 1] shows by itself; each must show an object."""
    mask = _object_mask(frames)
    area = mask.sum((1, 2))
    centres = _centroids(mask, area)
    overlap = _overlaps(mask, area, centres)
    return FrameFit(centres, overlap.argmax(0), 1 - overlap.max(0))


def _object_mask(frames: Floats) -> Floats:
    """How surely each pixel is the object's, `[F, 48, 48]` in [0, 1]."""
    saturation = _blur(frames.max(-1) - frames.min(-1))
    return np.clip((saturation - SATURATION[0]) / (SATURATION[1] - SATURATION[0]), 0, 1)


def _grade(value: float, bounds: tuple[float, float]) -> Label:
    return Label.GOOD if value < bounds[0] else Label.NORMAL if value < bounds[1] else Label.BAD


def _blur(images: Floats) -> Floats:
    """Mean over 3 x 3 pixels, `[F, H, W]`; static on an object must not make holes in it."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _static_level(grey: Floats, mask: Floats) -> float:
    """
    Standard deviation of the ground's block means, mean over the frames.

    Only deviations above the median count (twice): the ground is dark, so black cuts off those below.
    """
    cells = SIZE // STATIC_BLOCK
    blocks = grey.reshape(-1, cells, STATIC_BLOCK, cells, STATIC_BLOCK).mean((2, 4))
    covered = mask.reshape(-1, cells, STATIC_BLOCK, cells, STATIC_BLOCK).max((2, 4)) > 0.05
    levels = [block[~hidden] for block, hidden in zip(blocks, covered, strict=True)]
    above = [np.clip(level - np.median(level), 0, None) for level in levels if level.size >= 8]
    return float(np.mean([np.sqrt(2 * np.mean(a * a)) for a in above])) if above else 0.0


def _centroids(mask: Floats, area: Floats) -> NDArray[np.float64]:
    """Centroid (x, y) of the object in each frame, `[F, 2]`."""
    grid = np.arange(SIZE)
    return np.stack(((mask.sum(1) * grid).sum(1), (mask.sum(2) * grid).sum(1)), -1) / area[:, None]


def _fit_path(time: NDArray[np.intp], centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Velocity (x, y) of the best straight uniform motion and the root mean square distance from it, in pixels."""
    design = np.stack((np.ones(len(time)), time), -1)
    solution, *_ = np.linalg.lstsq(design, centres, rcond=None)
    residual = centres - design @ solution
    return solution[1], float(np.sqrt((residual**2).sum(-1).mean()))


def _direction(velocity: NDArray[np.float64]) -> str:
    """The direction word nearest to `velocity`, empty below the least speed."""
    along = {word: float(velocity @ np.asarray(unit)) for word, unit in DIRECTIONS.items()}
    best = max(along, key=along.__getitem__)
    return best if along[best] >= MIN_SPEED else ""


def _overlaps(mask: Floats, area: Floats, centres: NDArray[np.float64]) -> Floats:
    """Intersection over union of the object with each shape of the same area and place, `[3, F]`."""
    overlaps = []
    for shape in SHAPES:
        ideal = shape_coverage(shape, centres, np.sqrt(area / _AREAS[shape]))
        overlaps.append(np.minimum(mask, ideal).sum((1, 2)) / np.maximum(mask, ideal).sum((1, 2)))
    return np.stack(overlaps)


def _colour(frames: Floats, mask: Floats) -> str:
    """The colour word nearest to the object's mean colour, over all frames."""
    mean = (frames * mask[..., None]).sum((0, 1, 2)) / mask.sum()
    return list(COLOURS)[int(np.argmin(((_PALETTE - mean) ** 2).sum(-1)))]
