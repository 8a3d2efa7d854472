"""A video file to what a VAE takes: time-based frames, resized and centre-cropped, never stretched."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...protocols import VideoModel
from ...records import StoredVideo, VideoSource
from ...store.video_io import describe, mean_fps, num_frames_at, read_video


# 24 frames a second may be read at 25, and 23.976 at 24; 15 not at 16.
_MIN_RATE = 0.95


@dataclass(frozen=True)
class ClipSize:
    """Frames, pixels and frames a second of every clip of a cache. Part of the cache's keys."""

    num_frames: int
    height: int
    width: int
    fps: float

    @classmethod
    def of(
        cls, model: VideoModel, num_frames: int | None, height: int | None, width: int | None, fps: float | None
    ) -> "ClipSize":
        """What is given, the rest as `model` was trained; raises `ValueError` if the family cannot encode such clips."""
        given = (num_frames, height, width)
        sizes = zip(given, model.default_size, strict=True)
        frames, rows, columns = (own if value is None else value for value, own in sizes)
        model.check_size(frames, rows, columns)
        fps = model.fps if fps is None else fps
        model.check_fps(fps)
        return cls(frames, rows, columns, fps)


def load_clip(video: VideoSource | StoredVideo, size: ClipSize, model: VideoModel) -> Tensor:
    """As `read_clip`, in float32 in [-1, 1]."""
    return scaled(read_clip(video, size, model))


def scaled(images: Tensor) -> Tensor:
    """uint8 `images` in float32 in [-1, 1], on their device."""
    return images.float() / 127.5 - 1.0


def read_clip(video: VideoSource | StoredVideo, size: ClipSize, model: VideoModel) -> Tensor:
    """
    `video` as uint8 [F, 3, H, W], sampled by time at `size.fps`, resized to cover and centre-cropped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file if it cannot be decoded, is too short (names the longest legal length), or has fewer
            frames a second than `size.fps`.
    """
    # Imported late: whoever has a size in hand need not have a clip.
    from torchvision.transforms.v2 import functional as F

    if problem := _too_slow(video, size):
        raise ValueError(problem)
    try:
        frames = read_video(video, num_frames=size.num_frames, fps=size.fps).frames
    except ValueError as error:
        raise ValueError(_problem(video, size, model) or str(error)) from error
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)
    height, width = images.shape[-2:]
    scale = max(size.height / height, size.width / width)
    covering = [max(size.height, round(height * scale)), max(size.width, round(width * scale))]
    images = F.resize(images, covering, interpolation=F.InterpolationMode.BICUBIC, antialias=True)
    return F.center_crop(images, [size.height, size.width])


def check_clips(videos: Iterable[VideoSource | StoredVideo], size: ClipSize, model: VideoModel) -> None:
    """
    Reads the time stamps of all `videos`, a matter of milliseconds each; nothing is decoded.

    Raises:
        ValueError: naming every clip that `read_clip` would refuse for its length (with the longest legal one) or its frame
            rate, and every one that cannot be read.
    """
    found = [_problem(video, size, model) for video in videos]
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise ValueError(
            f"{len(problems)} clips cannot be used; leave them out, or ask for fewer frames:\n  "
            + "\n  ".join(problems)
        )


def _problem(video: VideoSource | StoredVideo, size: ClipSize, model: VideoModel) -> str | None:
    """Why `video` gives no clip of `size`, as far as its time stamps tell."""
    try:
        if problem := _too_slow(video, size):
            return problem
        available = num_frames_at(video, size.fps)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    if available >= size.num_frames:
        return None
    short = f"{describe(video)}: has {available} frames at {size.fps:g} fps, {size.num_frames} were asked for."
    return short + _longest_legal(available, size, model)


def _too_slow(video: VideoSource | StoredVideo, size: ClipSize) -> str | None:
    """A complaint about a file of fewer frames a second than are read: some would stand twice or thrice."""
    rate = mean_fps(video)
    if size.num_frames == 1 or rate >= _MIN_RATE * size.fps:
        return None
    return (
        f"{describe(video)}: has {rate:g} frames a second, and {size.fps:g} are read: frames would stand twice, and motion "
        f"would stutter. Give --fps {rate:g} to train at the clip's own rate, or leave the clip out."
    )


def _longest_legal(available: int, size: ClipSize, model: VideoModel) -> str:
    """A hint with the longest clip length up to `available` frames that `model` takes; empty where there is none."""
    for num_frames in range(available, 0, -1):
        try:
            model.check_size(num_frames, size.height, size.width)
        except ValueError:
            continue
        return f" The longest legal length is num_frames={num_frames}."
    return ""
