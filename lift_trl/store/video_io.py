"""Video files to arrays and back, by PyAV: the only decoder of the project. Frames are uint8 [F, H, W, 3], RGB."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

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


class _OpenVideo(NamedTuple):
    """An open file: its name for messages, the demuxer, the video stream, its mean frame rate, and what makes RGB of it."""

    name: str
    container: InputContainer
    stream: VideoStream
    fps: float
    reformatter: VideoReformatter

    def packets(self) -> Iterator[Packet]:
        """The compressed frames, and the empty packet that asks the decoder for the rest."""
        return self.container.demux(self.stream)

    def decode(self, packets: Iterable[Packet]) -> Iterator[tuple[float, VideoFrame]]:
        """(time in seconds from the first frame, frame) of all packets, whatever was decoded before."""
        self.stream.codec_context.flush_buffers()
        self.stream.codec_context.skip_frame = "DEFAULT"
        start: float | None = None
        count = 0
        for frame in (frame for packet in packets for frame in packet.decode()):
            time_s = frame.time if frame.time is not None else count / self.fps
            start = time_s if start is None else start
            count += 1
            yield time_s - start, frame
        self.check_whole(count)

    def check_whole(self, count: int) -> None:
        """Raises `ValueError` if `count` frames are too few for this file."""
        # An edit list may hide a frame or two; a file cut short lacks more than that.
        if count < self.stream.frames - 2:
            raise ValueError(
                f"{self.name}: holds {count} of the {self.stream.frames} frames that its header names, so it is "
                "truncated. Fetch or encode it again, or leave the row out."
            )
        if count == 0:
            raise ValueError(f"{self.name}: holds no decodable frame. Fetch or encode it again.")

    def upright(self, frame: VideoFrame) -> np.ndarray:
        """RGB of `frame`, turned as the container says: a phone stores what its sensor has, however it was held."""
        # A frame's own `to_ndarray(format="rgb24")` sets up a converter for each frame, which costs more than decoding it.
        rgb = self.reformatter.reformat(frame, format="rgb24").to_ndarray()
        return np.rot90(rgb, round(frame.rotation / 90))


@contextmanager
def _opened(
    video: VideoSource | StoredVideo | str, *, threads: Literal["AUTO", "SLICE"] = "AUTO"
) -> Iterator[_OpenVideo]:
    """Opens `video` for the body; what cannot be decoded there becomes a `ValueError` that names the file."""
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
            stream.thread_type = threads
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            if fps <= 0:
                raise ValueError(f"{name}: the file states no frame rate. Encode it again, as H.264 in mp4.")
            yield _OpenVideo(name, container, stream, fps, VideoReformatter())
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
    with _opened(video) as file:
        for time_s, frame in file.decode(file.packets()):  # noqa: B007 (the last time is used below)
            count, height, width = count + 1, frame.height, frame.width
            if round(frame.rotation / 90) % 2:
                height, width = width, height
    return VideoInfo(count, height, width, file.fps, time_s + 1 / file.fps)


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
    with _opened(video) as file:
        step_s = 1 / (fps or file.fps)
        shown: tuple[float, VideoFrame] | None = None
        for time_s, frame in file.decode(file.packets()):
            if num_frames is None:
                images.append(file.upright(frame))
                times.append(time_s)
                continue
            # A frame is shown until the next one begins; half a millisecond forgives rounded time stamps.
            while shown and len(images) < num_frames and len(images) * step_s < time_s - 5e-4:
                _append(file, images, times, shown)
            shown = (time_s, frame)
            if len(images) == num_frames:
                break
        if shown and num_frames is not None:
            end_s = shown[0] + 1 / file.fps
            while len(images) < num_frames and len(images) * step_s < end_s - 5e-4:
                _append(file, images, times, shown)
    if num_frames is not None and len(images) < num_frames:
        raise ValueError(
            f"{describe(video)}: has {len(images)} frames at {1 / step_s:g} fps, {num_frames} were asked for. "
            f"Ask for fewer frames or leave the clip out."
        )
    return Clip(np.stack(images), np.asarray(times), file.fps)


def _append(file: _OpenVideo, images: list[np.ndarray], times: list[float], shown: tuple[float, VideoFrame]) -> None:
    """Adds `shown` to the sample; a frame that is shown twice is converted once."""
    if times and times[-1] == shown[0]:
        images.append(images[-1])
    else:
        images.append(file.upright(shown[1]))
    times.append(shown[0])


def sample_frames(video: VideoSource | StoredVideo | str, num_frames: int) -> Clip:
    """
    `num_frames` frames spread uniformly over the whole of `video`, first and last included (`linspace`, truncated).

    A clip with fewer frames repeats some of them. Only what is sampled is kept, so a long clip takes no more memory.

    Raises:
        FileNotFoundError, ValueError: naming the file and the remedy, as `read_video`.

    Source: CodeGoat24/LiFT, llava/mm_utils.py (8 uniform frames).
    """
    # With threads that decode whole frames, the decoder would run ahead of what it is told to leave out.
    with _opened(video, threads="SLICE") as file:
        packets = list(file.packets())
        shown = _decode_few(file, packets, num_frames) or _decode_all(file, packets, num_frames)
        images = np.stack([file.upright(frame) for _, frame in shown])
    return Clip(images, np.asarray([time_s for time_s, _ in shown]), file.fps)


def _uniform(count: int, num_frames: int) -> list[int]:
    """Places of `num_frames` frames among `count`, first and last included."""
    return np.linspace(0, count - 1, num_frames, dtype=int).tolist()


def _decode_few(file: _OpenVideo, packets: Sequence[Packet], num_frames: int) -> list[tuple[float, VideoFrame]] | None:
    """
    The sampled frames, found by time stamp; `None` where time stamps do not tell which frames those are.

    In H.264, what is neither sampled nor serves another frame is left out (about 20 of 49 frames of x264): nothing is
    predicted from such a frame, so the others come out the same. Other codecs promise less and are decoded in full.
    """
    context = file.stream.codec_context
    leaves_out = context.name == "h264"
    given = [packet.pts for packet in packets if packet.size > 0 and not packet.is_discard]
    file.check_whole(len(given))
    stamps = sorted({stamp for stamp in given if stamp is not None})
    # AVI numbers frames that are decoded out of order as they are decoded, not as they are shown.
    if len(stamps) < len(given) or (context.has_b_frames and stamps == given):
        return None
    wanted = [stamps[place] for place in _uniform(len(stamps), num_frames)]
    found: dict[int | None, VideoFrame] = {}
    count = 0
    for packet in packets:
        if leaves_out:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        for frame in packet.decode():
            count += 1
            if frame.pts in wanted:
                found[frame.pts] = frame
    if not found.keys() >= set(wanted) or not (leaves_out or count == len(stamps)):
        return None
    start_s = found[wanted[0]].time
    return [(found[stamp].time - start_s, found[stamp]) for stamp in wanted]


def _decode_all(file: _OpenVideo, packets: Sequence[Packet], num_frames: int) -> list[tuple[float, VideoFrame]]:
    """The sampled frames by their places: one pass to count the frames, one to take them."""
    count = sum(1 for _ in file.decode(packets))
    places = _uniform(count, num_frames)
    found = {place: shown for place, shown in enumerate(file.decode(packets)) if place in places}
    return [found[place] for place in places]


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
