"""Small clips for the tests that need some."""

from pathlib import Path

import numpy as np
import pytest


def clip(seed: int, num_frames: int = 9, size: int = 32) -> np.ndarray:
    """A square that moves over noise: uint8 [F, H, W, 3]."""
    generator = np.random.default_rng(seed)
    frames = np.repeat(generator.integers(0, 120, (1, size, size, 3), dtype=np.uint8), num_frames, axis=0)
    for i, frame in enumerate(frames):
        frame[4:12, i : i + 8] = 255
    return frames


@pytest.fixture
def make_clip():
    def write(path: Path, seed: int = 0, num_frames: int = 9, size: int = 32) -> Path:
        from lift_trl.store.video_io import write_video

        write_video(path, clip(seed, num_frames, size), fps=8)
        return path

    return write
