"""Small rendered clips on disk and ratings of them, for tests of the critic."""

from pathlib import Path

import numpy as np
from datasets import Dataset

from lift_trl.rubric import Dimension, Label
from lift_trl.store.video_io import write_video


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}


def write_square(path: Path, colour: str, *, num_frames: int = 9, seed: int = 0) -> Path:
    """A square of `colour` that moves over a noisy ground."""
    generator = np.random.default_rng(seed)
    frames = generator.integers(0, 60, (num_frames, 32, 48, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = 2 + 3 * index
        frame[10:22, left : left + 12] = COLOURS[colour]
    write_video(path, frames, fps=8)
    return path


def rated_squares(folder: Path, *, captions: int = 4) -> Dataset:
    """Tidy rows: every colour with a caption that is right (all Good) or wrong (semantic consistency Bad)."""
    rows = []
    for number, colour in enumerate(list(COLOURS)[:captions]):
        for right in (True, False):
            caption = f"A {colour if right else 'pink'} square moves right."
            path = write_square(folder / f"{colour}-{right}.mp4", colour, seed=number)
            for dimension in Dimension:
                wrong = dimension is Dimension.SEMANTIC_CONSISTENCY and not right
                rows.append(
                    {
                        "video_id": path.stem,
                        "video": str(path),
                        "caption": caption,
                        "dimension": dimension.value,
                        "label": (Label.BAD if wrong else Label.GOOD).value,
                        "reason": "The colour is not pink." if wrong else "There is nothing wrong.",
                    }
                )
    return Dataset.from_list(rows)
