from pathlib import Path

import numpy as np
import pytest
import torch

from lift_trl.alignment.data.clips import ClipSize, check_clips, load_clip
from lift_trl.store.video_io import write_video
from lift_trl.video_models import open_pipeline
from tests.alignment.conftest import moving_square


@pytest.fixture
def model(pipeline_dir):
    return open_pipeline(pipeline_dir).adapter


def test_range_and_shape(tmp_path, model):
    clip = load_clip(moving_square(tmp_path / "a.mp4", 0), ClipSize(9, 32, 32, 8.0), model)
    assert clip.shape == (9, 3, 32, 32) and clip.dtype == torch.float32
    assert -1 <= clip.min() < -0.2 and 0.2 < clip.max() <= 1


def test_a_30_fps_clip_keeps_its_speed(tmp_path, model):
    """Frame k of the sample is what the file shows at k / 8 s: grey level = file frame number."""
    frames = np.stack([np.full((32, 32, 3), 2 * i, dtype=np.uint8) for i in range(60)])
    write_video(tmp_path / "fast.mp4", frames, fps=30)
    clip = load_clip(tmp_path / "fast.mp4", ClipSize(9, 32, 32, 8.0), model)
    level = ((clip.mean(dim=(1, 2, 3)) + 1) * 127.5 / 2).round().int().tolist()
    assert level == [int(k / 8 * 30) for k in range(9)]


def test_crops_the_centre_and_never_stretches(tmp_path, model):
    """A disc stays round when a 96x48 clip becomes 32x32."""
    frames = np.zeros((9, 48, 96, 3), dtype=np.uint8)
    y, x = np.mgrid[:48, :96]
    frames[:, (y - 24) ** 2 + (x - 48) ** 2 < 15**2] = 255
    write_video(tmp_path / "wide.mp4", frames, fps=8)
    clip = load_clip(tmp_path / "wide.mp4", ClipSize(9, 32, 32, 8.0), model)
    disc = clip[0, 0] > 0
    assert abs(int(disc.any(dim=0).sum()) - int(disc.any(dim=1).sum())) <= 1
    assert abs(int(disc.any(dim=0).sum()) - 20) <= 2


def test_a_short_clip_names_the_file_and_the_longest_legal_length(tmp_path, model):
    path = moving_square(tmp_path / "short.mp4", 0, num_frames=20)
    with pytest.raises(ValueError, match=r"short\.mp4: has 20 frames at 8 fps, 49 were asked.*num_frames=17"):
        load_clip(path, ClipSize(49, 32, 32, 8.0), model)


def test_missing_and_truncated_files_are_named(tmp_path, model):
    size = ClipSize(9, 32, 32, 8.0)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such video file"):
        load_clip(tmp_path / "gone.mp4", size, model)
    whole = moving_square(tmp_path / "whole.mp4", 0, num_frames=30, size=64).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match=r"cut\.mp4: .*truncated"):
        load_clip(tmp_path / "cut.mp4", size, model)


def test_all_clips_that_are_too_short_are_listed_at_once(tmp_path, model):
    """24 frames at 30 fps are 7 at 8 fps; what read_video finds is what the time stamps tell."""
    good = moving_square(tmp_path / "good.mp4", 0, num_frames=9, fps=8)
    short = moving_square(tmp_path / "short.mp4", 0, num_frames=8, fps=8)
    fast = moving_square(tmp_path / "fast.mp4", 0, num_frames=24, fps=30)
    videos = [good, short, good.read_bytes(), fast, tmp_path / "gone.mp4"]
    with pytest.raises(ValueError) as caught:
        check_clips(videos, ClipSize(9, 32, 32, 8.0), model)
    first, *listed = str(caught.value).split("\n  ")
    assert first.startswith("3 clips cannot be used")
    assert [Path(line.split(": ")[0]).name for line in listed] == ["short.mp4", "fast.mp4", "gone.mp4"]
    assert "has 8 frames at 8 fps, 9 were asked for" in listed[0] and "num_frames=1." in listed[0]
    assert "has 7 frames at 8 fps" in listed[1]
    check_clips([good, good.read_bytes()], ClipSize(9, 32, 32, 8.0), model)
