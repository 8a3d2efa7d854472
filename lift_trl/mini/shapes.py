"""Prompts and clips of the mini world: one coloured shape moves over a grey ground, with defects of known kind.

The generator knows the truth of each clip, so a clip carries its three labels. Units are pixels and frames; x grows to the
right and y downwards. A clip is 9 frames of 48 x 48 pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rubric import Dimension, Label


Floats = NDArray[np.float32]
Video = NDArray[np.uint8]  # [F, H, W, 3]

NUM_FRAMES = 9
SIZE = 48
#: Side of a block of static, in pixels.
STATIC_BLOCK = 4
#: Clips are stored this many times enlarged, so that H.264 does not decide their ratings.
ENLARGEMENT = 4

#: Colour of each colour word, RGB in [0, 1].
COLOURS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (0.90, 0.16, 0.16),
        "green": (0.16, 0.78, 0.24),
        "blue": (0.20, 0.38, 0.95),
        "yellow": (0.95, 0.84, 0.16),
    }
)
SHAPES = ("circle", "square", "triangle")
#: Unit vector (x, y) of each direction word.
DIRECTIONS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
)

#: Ranges of a shape's radius, its speed, a sideways hop and the jitter of a frame (pixels), of the standard deviation of
#: static and of the ground's grey (of 1).
RADIUS = (11.0, 12.6)
SPEED = (1.45, 1.95)
HOP = (4.0, 4.8)
JITTER = (3.6, 5.0)
FAINT_STATIC = (0.065, 0.080)
STRONG_STATIC = (0.16, 0.20)
GROUND = (0.08, 0.22)
_TILT = (np.sqrt(3.0) / 2, 0.5)  # normal of an upright triangle's sloping sides


class Scene(NamedTuple):
    """What a clip shows, or what a caption says."""

    colour: str
    shape: str
    direction: str

    @property
    def prompt(self) -> str:
        """
        The caption of the scene.

        >>> Scene("red", "circle", "left").prompt
        'a red circle moving left'
        """
        return f"a {self.colour} {self.shape} moving {self.direction}"


#: Every scene, in a fixed order: 4 colours x 3 shapes x 4 directions = 48.
SCENES = tuple(Scene(*words) for words in product(COLOURS, SHAPES, DIRECTIONS))
ATTRIBUTES = Scene._fields


class MotionDefect(StrEnum):
    """How the path departs from a straight line at constant speed."""

    NONE = "none"
    HOP = "hop"
    JITTER = "jitter"


class FidelityDefect(StrEnum):
    """Grey static over the whole picture."""

    NONE = "none"
    FAINT_STATIC = "faint static"
    STRONG_STATIC = "strong static"


_MOTION_LABELS = {MotionDefect.NONE: Label.GOOD, MotionDefect.HOP: Label.NORMAL, MotionDefect.JITTER: Label.BAD}
_FIDELITY_LABELS = {
    FidelityDefect.NONE: Label.GOOD,
    FidelityDefect.FAINT_STATIC: Label.NORMAL,
    FidelityDefect.STRONG_STATIC: Label.BAD,
}


@dataclass(frozen=True)
class DefectRates:
    """Shares of clips with a small and with a large defect, drawn in each dimension by itself."""

    semantic: tuple[float, float] = (0.20, 0.12)
    motion: tuple[float, float] = (0.20, 0.15)
    fidelity: tuple[float, float] = (0.20, 0.15)


#: No defect at all: what stands in for real videos.
CLEAN = DefectRates((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True)
class Clip:
    """
    A rendered clip and its truth.

    Args:
        video: uint8 `[9, 48, 48, 3]`.
        caption: the scene that the prompt asks for.
        shown: the scene that the video shows.
        motion, fidelity: the planted defects.
    """

    video: Video
    caption: Scene
    shown: Scene
    motion: MotionDefect
    fidelity: FidelityDefect

    @property
    def labels(self) -> dict[Dimension, Label]:
        """The true label of each dimension; one wrong attribute is Normal, more are Bad."""
        wrong = len(wrong_attributes(self.caption, self.shown))
        return {
            Dimension.SEMANTIC_CONSISTENCY: (Label.GOOD, Label.NORMAL, Label.BAD, Label.BAD)[wrong],
            Dimension.MOTION_SMOOTHNESS: _MOTION_LABELS[self.motion],
            Dimension.VIDEO_FIDELITY: _FIDELITY_LABELS[self.fidelity],
        }


def wrong_attributes(caption: Scene, shown: Scene) -> tuple[str, ...]:
    """
    Names of the attributes in which the video departs from the caption.

    >>> wrong_attributes(Scene("red", "circle", "left"), Scene("red", "square", "up"))
    ('shape', 'direction')
    """
    return tuple(name for name, a, b in zip(ATTRIBUTES, caption, shown, strict=True) if a != b)


def parse_prompt(prompt: str) -> Scene:
    """
    The scene that a caption of this world names.

    >>> parse_prompt("a red circle moving left")
    Scene(colour='red', shape='circle', direction='left')

    Raises:
        ValueError: if the text is not a caption of this world.
    """
    words = prompt.strip().rstrip(".").lower().split()
    if len(words) == 5:
        scene = Scene(words[1], words[2], words[4])
        if scene in SCENES and scene.prompt == " ".join(words):
            return scene
    raise ValueError(f"prompt {prompt!r} is not of the mini world; write it as {SCENES[0].prompt!r}.")


def draw_clip(rng: np.random.Generator, rates: DefectRates, caption: Scene | None = None) -> Clip:
    """A rendered clip of `caption` (any scene for `None`) with defects drawn at `rates`."""
    if caption is None:
        caption = SCENES[rng.integers(len(SCENES))]
    shown = _with_wrong_attributes(rng, caption, num_wrong=_draw_num_wrong(rng, rates.semantic))
    motion = list(MotionDefect)[_draw_level(rng, rates.motion)]
    fidelity = list(FidelityDefect)[_draw_level(rng, rates.fidelity)]
    return Clip(render(rng, shown, motion, fidelity), caption, shown, motion, fidelity)


def render(
    rng: np.random.Generator,
    scene: Scene,
    motion: MotionDefect = MotionDefect.NONE,
    fidelity: FidelityDefect = FidelityDefect.NONE,
    *,
    motion_strength: float = 1.0,
    static_strength: float = 1.0,
    deformed: float = 0.0,
) -> Video:
    """
    A video of `scene`, uint8 `[9, 48, 48, 3]`, with the given defects; size, speed, ground and path are drawn.

    Args:
        motion_strength, static_strength: factors of the defects' sizes.
        deformed: share of another shape that is blended in, in [0, 1].
    """
    radius = rng.uniform(*RADIUS)
    centres = _draw_path(rng, scene, radius, motion, motion_strength)
    coverage = shape_coverage(scene.shape, centres, radius)[..., None]
    if deformed:
        other = str(rng.choice([shape for shape in SHAPES if shape != scene.shape]))
        coverage = (1 - deformed) * coverage + deformed * shape_coverage(other, centres, radius)[..., None]
    colour = np.clip(np.asarray(COLOURS[scene.colour], np.float32) * rng.uniform(0.94, 1.04), 0, 1)
    frames = coverage * colour + (1 - coverage) * np.float32(rng.uniform(*GROUND))
    if fidelity is not FidelityDefect.NONE:
        amplitude = rng.uniform(*(FAINT_STATIC if fidelity is FidelityDefect.FAINT_STATIC else STRONG_STATIC))
        amplitude *= static_strength
        cells = SIZE // STATIC_BLOCK
        static = rng.uniform(-1, 1, (NUM_FRAMES, cells, cells, 1)) * amplitude * np.sqrt(3.0)
        frames = frames + static.repeat(STATIC_BLOCK, 1).repeat(STATIC_BLOCK, 2)
    return np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)


def shape_coverage(shape: str, centres: NDArray[np.floating], radius: float | NDArray[np.floating]) -> Floats:
    """
    Share of each pixel that the shape covers, float32 `[N, 48, 48]` in [0, 1].

    Args:
        shape: one of `SHAPES`. Their areas differ on purpose: equal areas hide the shape from a small model.
        centres: centroid (x, y) in pixels, `[N, 2]`; the middle of the first pixel is at 0.
        radius: a circle's radius; a square's half side is 0.95 and a triangle's half base 1.25 times as long.
    """
    grid = np.arange(SIZE, dtype=np.float32)
    x = grid[None, None, :] - centres[:, 0, None, None].astype(np.float32)
    y = grid[None, :, None] - centres[:, 1, None, None].astype(np.float32)
    size = np.asarray(radius, np.float32).reshape(-1, 1, 1)
    if shape == "circle":
        distance = np.sqrt(x * x + y * y) - size
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.95 * size
    else:
        distance = np.maximum(y, np.abs(x) * _TILT[0] - y * _TILT[1]) - 1.25 / np.sqrt(3.0) * size
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


def enlarge(video: Video, factor: int = ENLARGEMENT) -> Video:
    """The video with each pixel repeated `factor` times along height and width."""
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def shrink(video: Video, size: int = SIZE) -> Video:
    """
    The video at `size` x `size` pixels: the mean of the pixels over each area.

    Raises:
        ValueError: if the frames are not square or `size` does not divide their side.
    """
    frames, height, width, channels = video.shape
    if height != width or height % size:
        raise ValueError(f"frames of {height} x {width} pixels cannot be read back at {size}; use a square multiple.")
    cells = video.reshape(frames, size, height // size, size, width // size, channels)
    return np.round(cells.mean(axis=(2, 4))).astype(np.uint8)


def _draw_level(rng: np.random.Generator, rates: tuple[float, float]) -> int:
    """0 for no defect, 1 for a small one, 2 for a large one."""
    return int(rng.choice(3, p=(1 - sum(rates), *rates)))


def _draw_num_wrong(rng: np.random.Generator, rates: tuple[float, float]) -> int:
    """How many attributes of a clip are wrong; of the Bad ones a fifth has three."""
    level = _draw_level(rng, rates)
    return level if level < 2 else int(rng.choice((2, 3), p=(0.8, 0.2)))


def _with_wrong_attributes(rng: np.random.Generator, caption: Scene, num_wrong: int) -> Scene:
    """`caption` with other words for `num_wrong` attributes; shape is hit twice as often as each of the others."""
    words = caption._asdict()
    choices = {"colour": tuple(COLOURS), "shape": SHAPES, "direction": tuple(DIRECTIONS)}
    for name in rng.choice(ATTRIBUTES, size=num_wrong, replace=False, p=(0.25, 0.5, 0.25)):
        words[name] = rng.choice([word for word in choices[name] if word != words[name]])
    return Scene(**{name: str(word) for name, word in words.items()})


def _draw_path(
    rng: np.random.Generator, scene: Scene, radius: float, motion: MotionDefect, strength: float
) -> NDArray[np.float64]:
    """Centroid (x, y) in each frame, `[9, 2]`: a straight run across the picture, and the motion defect on top."""
    low, high = _room(scene.shape, radius)
    heading = np.asarray(DIRECTIONS[scene.direction])
    time = np.arange(NUM_FRAMES) - (NUM_FRAMES - 1) / 2
    speed = rng.uniform(*SPEED)
    reach = np.abs(heading) * speed * (NUM_FRAMES - 1) / 2
    middle = rng.uniform(np.minimum(low + reach, (low + high) / 2), np.maximum(high - reach, (low + high) / 2))
    path = middle + time[:, None] * speed * heading
    if motion is MotionDefect.HOP:
        across = np.abs(heading[::-1])
        towards_middle = np.where((low + high) / 2 > middle, 1.0, -1.0)
        path[rng.integers(3, 7) :] += across * towards_middle * rng.uniform(*HOP) * strength
    elif motion is MotionDefect.JITTER:
        angle = rng.uniform(0, 2 * np.pi, NUM_FRAMES)
        path += np.stack((np.cos(angle), np.sin(angle)), -1) * rng.uniform(*JITTER, (NUM_FRAMES, 1)) * strength
    return path


def _room(shape: str, radius: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest centroid (x, y) at which the whole shape is in the picture."""
    inner = 1.25 / np.sqrt(3.0)
    before, after = {
        "circle": ((1.0, 1.0), (1.0, 1.0)),
        "square": ((0.95, 0.95), (0.95, 0.95)),
        "triangle": ((1.25, 2 * inner), (1.25, inner)),
    }[shape]
    return np.asarray(before) * radius - 0.5, SIZE - 0.5 - np.asarray(after) * radius
