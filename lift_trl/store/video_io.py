"""Video files to arrays and back, by PyAV: the only decoder of the project. Frames are uint8 [F, H, W, 3], RGB."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame

from ..records import StoredVideo, VideoSource


class VideoInfo(NamedTuple):
    """What a video file holds: number of frames (decoded and counted), size in pixels, frames a second, seconds."""

    num_frames: int
    height: int
    width: int
    fps: float
    duration_s: float


class Clip(NamedTuple):
    """Decoded frames (uint8 [F, H, W, 3]), the time of each in seconds, and the file's frames a second."""

    frames: np.ndarray
    times_s: np.ndarray
    fps: float


def describe(video: VideoSource | StoredVideo | str) -> str:
    """The name of a video for messages: its path, or its size where it is bytes."""
    if isinstance(video, StoredVideo):
        return f"row {video.index + 1} of the dataset"
    return f"<{len(video)} bytes of video>" if isinstance(video, bytes) else str(video)


@contextmanager
def _frames(video: VideoSource | StoredVideo | str) -> Iterator[tuple[Iterator[tuple[float, VideoFrame]], float]]:
    """Opens `video`; yields an iterator over (time in seconds from the first frame, frame) and the mean frame rate."""
    name = describe(video)
    if isinstance(video, StoredVideo):
        video = video.read()
    if not isinstance(video, bytes) and not Path(video).is_file():
        raise FileNotFoundError(f"{name}: no such video file. Correct the path or leave the row out.")
    try:
        with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video), mode="r") as container:
            if not container.streams.video:
                raise ValueError(f"{name}: the file holds no video stream. Give an mp4 (H.264) or leave the row out.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            if fps <= 0:
                raise ValueError(f"{name}: the file states no frame rate. Encode it again, as H.264 in mp4.")

            def decode() -> Iterator[tuple[float, VideoFrame]]:
                start: float | None = None
                count = 0
                for count, frame in enumerate(container.decode(stream), start=1):
                    time_s = frame.time if frame.time is not None else (count - 1) / fps
                    start = time_s if start is None else start
                    yield time_s - start, frame
                # An edit list may hide a frame or two; a file cut short lacks more than that.
                if count < stream.frames - 2:
                    raise ValueError(
                        f"{name}: holds {count} of the {stream.frames} frames that its header names, so it is "
                        "truncated. Fetch or encode it again, or leave the row out."
                    )

            yield decode(), fps
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name}: cannot be decoded ({error.strerror}). The file is truncated or no video: "
            "fetch or encode it again, or leave the row out."
        ) from error


def probe_video(video: VideoSource | StoredVideo | str) -> VideoInfo:
    """
    What `video` holds. Every frame is decoded, since headers of truncated files lie.

    Raises:
        FileNotFoundError, ValueError: naming the file and the remedy, as `read_video`.
    """
    count, time_s, height, width = 0, 0.0, 0, 0
    with _frames(video) as (frames, fps):
        for time_s, frame in frames:  # noqa: B007 (the last time is used below)
            count, height, width = count + 1, frame.height, frame.width
    if count == 0:
        raise ValueError(f"{describe(video)}: holds no decodable frame. Fetch or encode it again.")
    return VideoInfo(count, height, width, fps, time_s + 1 / fps)


def read_video(
    video: VideoSource | StoredVideo | str, *, num_frames: int | None = None, fps: float | None = None
) -> Clip:
    """
    The frames of `video`: all of them, or `num_frames` frames sampled by time at `fps` frames a second.

    Sampling takes, at each time k / fps from the first frame, the frame shown then; so a 30 fps file gives a clip of
    true speed at 8 fps. Only the frames asked for are kept in memory.

    Args:
        num_frames: how many frames to sample from the start; `None` takes all of the file as it is.
        fps: frames a second to sample at; the file's own rate by default. Needs `num_frames`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated or no video, or is shorter than `num_frames` at `fps`.
    """
    images: list[np.ndarray] = []
    times: list[float] = []
    with _frames(video) as (frames, file_fps):
        step_s = 1 / (fps or file_fps)
        shown: tuple[float, VideoFrame] | None = None
        for time_s, frame in frames:
            if num_frames is None:
                images.append(frame.to_ndarray(format="rgb24"))
                times.append(time_s)
                continue
            # A frame is shown until the next one begins; half a millisecond forgives rounded time stamps.
            while shown and len(images) < num_frames and len(images) * step_s < time_s - 5e-4:
                _append(images, times, shown)
            shown = (time_s, frame)
            if len(images) == num_frames:
                break
        if shown and num_frames is not None:
            end_s = shown[0] + 1 / file_fps
            while len(images) < num_frames and len(images) * step_s < end_s - 5e-4:
                _append(images, times, shown)
    if not images:
        raise ValueError(f"{describe(video)}: holds no decodable frame. Fetch or encode it again.")
    if num_frames is not None and len(images) < num_frames:
        raise ValueError(
            f"{describe(video)}: has {len(images)} frames at {1 / step_s:g} fps, {num_frames} were asked for. "
            f"Ask for fewer frames or leave the clip out."
        )
    return Clip(np.stack(images), np.asarray(times), file_fps)


def _append(images: list[np.ndarray], times: list[float], shown: tuple[float, VideoFrame]) -> None:
    """Adds `shown` to the sample; a frame that is shown twice is converted once."""
    if times and times[-1] == shown[0]:
        images.append(images[-1])
    else:
        images.append(shown[1].to_ndarray(format="rgb24"))
    times.append(shown[0])


def sample_frames(video: VideoSource | StoredVideo | str, num_frames: int) -> Clip:
    """
    `num_frames` frames spread uniformly over the whole of `video`, first and last included (`linspace`, truncated).

    A clip with fewer frames repeats some of them.

    Source: CodeGoat24/LiFT, llava/mm_utils.py (8 uniform frames).
    """
    with _frames(video) as (frames, fps):
        # Kept as decoded (YUV, half the size of RGB); only what is sampled is converted.
        shown = list(frames)
    if not shown:
        raise ValueError(f"{describe(video)}: holds no decodable frame. Fetch or encode it again.")
    index = np.linspace(0, len(shown) - 1, num_frames, dtype=int)
    images = np.stack([shown[i][1].to_ndarray(format="rgb24") for i in index])
    return Clip(images, np.asarray([shown[i][0] for i in index]), fps)


def write_video(path: Path | str, frames: np.ndarray | Sequence[np.ndarray], *, fps: float, crf: int = 18) -> None:
    """
    Writes `frames` (uint8 [F, H, W, 3], H and W even) as H.264, yuv420p, faststart; the file appears whole or not at all.

    Args:
        fps: frames a second.
        crf: x264's quality, 0 (lossless) to 51; 18 is visually lossless.

    Raises:
        ValueError: for another dtype or shape (floats and [F, 3, H, W] are refused rather than guessed at).
    """
    video = np.asarray(frames)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or len(video) == 0:
        raise ValueError(f"{path}: frames are {video.dtype} {video.shape}; give uint8 [F, H, W, 3] with F >= 1.")
    _, height, width, _ = video.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"{path}: {width}x{height} px; H.264 in yuv420p needs even sizes. Enlarge or crop the frames."
        )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            # One encoder thread and no macroblock tree: the same frames give the same bytes.
            stream.options = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
            for image in video:
                container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(stream.encode())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
