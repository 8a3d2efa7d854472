"""What can be measured of a clip, and the scales on which the mini world's VLM learns to tell it.

The scales know nothing of a rater's bounds: where raters draw the line is for the critic to learn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np

from ...rubric import Dimension
from ...store.manifest import METADATA_FILE, read_rows
from ...store.video_io import read_video
from ..oracle import Observation, observe
from ..shapes import (
    ATTRIBUTES,
    COLOURS,
    DIRECTIONS,
    SCENES,
    SHAPES,
    FidelityDefect,
    Floats,
    MotionDefect,
    Scene,
    Video,
    render,
    shrink,
    wrong_attributes,
)


#: Upper bounds of wobble (pixels) and what is said up to each; the last word has none. Likewise of what is wrong with the
#: picture: static (of 0.1) or misfit (of 0.25), whichever is more. A rater's bounds lie elsewhere.
WOBBLE_WORDS = (
    (0.25, "smooth"),
    (0.5, "even"),
    (0.75, "slightly"),
    (1.0, "uneven"),
    (1.5, "jumps"),
    (np.inf, "erratic"),
)
FLAW_WORDS = ((0.2, "clean"), (0.5, "clear"), (0.75, "faint"), (1.0, "noisy"), (1.4, "deformed"), (np.inf, "badly"))
_WOBBLE_STEPS = ((0.6, MotionDefect.NONE), (1.5, MotionDefect.HOP), (np.inf, MotionDefect.JITTER))
_STATIC_STEPS = (
    (0.04, FidelityDefect.NONE),
    (0.12, FidelityDefect.FAINT_STATIC),
    (np.inf, FidelityDefect.STRONG_STATIC),
)
#: What a clip is measured against, see `measure`: wobble in pixels, static and misfit of 1.
WOBBLE_GRID = np.arange(0.15, 2.5, 0.1)
STATIC_GRID = np.arange(0.01, 0.16, 0.01)
MISFIT_GRID = np.arange(0.05, 0.40, 0.03)
NUM_MEASURES: Mapping[Dimension, int] = MappingProxyType(
    {
        Dimension.SEMANTIC_CONSISTENCY: 2 * len(ATTRIBUTES),
        Dimension.MOTION_SMOOTHNESS: len(WOBBLE_GRID),
        Dimension.VIDEO_FIDELITY: len(STATIC_GRID) + len(MISFIT_GRID),
    }
)
T = TypeVar("T")


class SeenClip(NamedTuple):
    """A clip, the scene that it shows, and what can be measured of it."""

    video: Video
    shown: Scene
    seen: Observation

    @property
    def motion(self) -> MotionDefect:
        """The word's own defect: small ones count as none."""
        return up_to(_WOBBLE_STEPS, self.seen.wobble)

    @property
    def fidelity(self) -> FidelityDefect:
        """Likewise, of static."""
        return up_to(_STATIC_STEPS, self.seen.static)

    @property
    def flaw(self) -> float:
        """How bad the picture is."""
        return max(self.seen.static / 0.1, self.seen.misfit / 0.25)


def draw_clips(rng: np.random.Generator, num: int) -> list[SeenClip]:
    """Clips with every defect about as often as none, from hardly visible to full size."""
    clips = []
    for _ in range(num):
        scene = SCENES[rng.integers(len(SCENES))]
        motion = list(MotionDefect)[rng.choice(3, p=(0.3, 0.3, 0.4))]
        fidelity = list(FidelityDefect)[rng.choice(3, p=(0.4, 0.3, 0.3))]
        strength = 1.0 if rng.random() < 0.4 else rng.uniform(0.05, 1.0)
        deformed = rng.uniform(0.1, 0.5) if rng.random() < 0.3 else 0.0
        static = rng.uniform(0.3, 1.2)
        video = render(
            rng, scene, motion, fidelity, motion_strength=strength, static_strength=static, deformed=deformed
        )
        clips.append(SeenClip(video, scene, observe(video)))
    return clips


def read_samples(folder: Path) -> list[SeenClip]:
    """
    Samples of the base model (a folder of recipes/generate.py) with what their pixels show; no prompt and no rating is read.

    Clips without an object that moves are left out.
    """
    clips = []
    for row in read_rows(folder / METADATA_FILE):
        video = shrink(read_video(folder / row["file_name"]).frames)
        seen = observe(video)
        if seen.direction:
            clips.append(SeenClip(video, Scene(seen.colour, seen.shape, seen.direction), seen))
    return clips


def measure(clip: SeenClip, dimension: Dimension, caption: Scene) -> Floats:
    """
    What there is to measure for a question of the rubric, as shares in [0, 1] that a linear head can tell.

    Which words of the caption are wrong and whether that is at least one, two, three; which of `WOBBLE_GRID` the wobble
    exceeds; which of `STATIC_GRID` the static and which of `MISFIT_GRID` the misfit. The grids are even and finer than
    any rater's bounds, and know nothing of them.
    """
    if dimension is Dimension.SEMANTIC_CONSISTENCY:
        wrong = wrong_attributes(caption, clip.shown)
        found = [*(name in wrong for name in ATTRIBUTES), *(len(wrong) > count for count in range(len(ATTRIBUTES)))]
    elif dimension is Dimension.MOTION_SMOOTHNESS:
        found = list(clip.seen.wobble > WOBBLE_GRID)
    else:
        found = [*(clip.seen.static > STATIC_GRID), *(clip.seen.misfit > MISFIT_GRID)]
    return np.asarray(found, np.float32)


def attribute_classes(clip: SeenClip) -> tuple[int, ...]:
    """Index of the colour, shape and direction that the clip shows, of the word for its wobble and of that for its flaws."""
    return (
        list(COLOURS).index(clip.shown.colour),
        SHAPES.index(clip.shown.shape),
        list(DIRECTIONS).index(clip.shown.direction),
        [word for _, word in WOBBLE_WORDS].index(up_to(WOBBLE_WORDS, clip.seen.wobble)),
        [word for _, word in FLAW_WORDS].index(up_to(FLAW_WORDS, clip.flaw)),
    )


def up_to(steps: Sequence[tuple[float, T]], value: float) -> T:
    """What stands beside the first bound that is above `value`."""
    return next(said for bound, said in steps if value < bound)
