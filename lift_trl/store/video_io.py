"""Video files to arrays and back, by PyAV: the only decoder of the project. Frames are uint8 [F, H, W, 3], RGB."""

import io
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from ..records import StoredVideo, VideoSource
from .cut_files import ends_early


class VideoInfo(NamedTuple):
    """What a video file holds: number of frames (decoded and counted), size in pixels, frames a second, seconds."""

    num_frames: int
    height: int
    width: int
    fps: float
    duration_s: float


class StoredForm(NamedTuple):
    """How a file holds its video: names of the container's family (`("mov", "mp4", ...)`), codec, pixels."""

    containers: tuple[str, ...]
    codec: str
    pixels: str


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


@dataclass
class _OpenVideo:
    """An open file: its name for messages, the demuxer, the video stream, its mean frame rate, and what makes RGB of it."""

    name: str
    container: InputContainer
    stream: VideoStream
    fps: float
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)
    size: tuple[int, int] | None = None

    def packets(self) -> Iterator[Packet]:
        """The compressed frames, and the empty packet that asks the decoder for the rest. `ValueError` if some are gone."""
        count, end, last = 0, 0, None
        for packet in self.container.demux(self.stream):
            if packet.dts is not None or packet.size:
                count, end, last = count + 1, max(end, packet.dts or 0), packet
                if not packet.size:
                    continue  # a frame that was left out; the decoder would take it for the end
            yield packet
        count -= bool(last and last.is_corrupt)  # cut in the middle
        # An AVI's header counts the places of frames, of which some may be empty.
        is_short = self.container.format.name == "avi" and end + 1 < self.stream.frames - 2
        if is_short or last and last.is_corrupt or count < len(self.stream.index_entries):
            named = max(self.stream.frames, len(self.stream.index_entries))
            raise ValueError(
                f"{self.name}: holds {count} of the {named} frames that its header names, so it is truncated. "
                "Fetch or encode it again, or leave the row out."
            )

    def decode(self, packets: Iterable[Packet]) -> Iterator[tuple[float, VideoFrame]]:
        """(time in seconds from the first frame, frame) of all packets, whatever was decoded before."""
        self.stream.codec_context.flush_buffers()
        self.stream.codec_context.skip_frame = "DEFAULT"
        start: float | None = None
        count = 0
        for frame in (frame for packet in packets for frame in self.frames(packet)):
            time_s = frame.time if frame.time is not None else count / self.fps
            start = time_s if start is None else start
            count += 1
            yield time_s - start, frame
        if count == 0:
            raise ValueError(
                f"{self.name}: holds no decodable frame: it is truncated or empty. Fetch or encode it again."
            )

    def frames(self, packet: Packet) -> Iterator[VideoFrame]:
        """The frames that `packet` completes, all of one size."""
        for frame in packet.decode():
            size = (frame.width, frame.height)
            self.size = self.size or size
            if size != self.size:
                raise ValueError(
                    f"{self.name}: its size changes from {self.size[0]}x{self.size[1]} to {size[0]}x{size[1]} px. Encode it "
                    "again at one size, or leave the row out."
                )
            yield frame

    def shape(self, frame: VideoFrame) -> tuple[int, int]:
        """Height and width of `frame` as it is shown."""
        width, height = self._square(frame)
        return (width, height) if _orientation(self.name, frame)[0] else (height, width)

    def upright(self, frame: VideoFrame) -> np.ndarray:
        """RGB of `frame` with square pixels, turned and mirrored as the container says: phones store what the sensor has."""
        width, height = self._square(frame)
        # A frame's own `to_ndarray(format="rgb24")` sets up a converter for each frame, which costs more than decoding it.
        rgb = self.reformatter.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC
        ).to_ndarray()
        transposed, right_to_left, upside_down = _orientation(self.name, frame)
        image = rgb.transpose(1, 0, 2) if transposed else rgb
        return image[:: -1 if upside_down else 1, :: -1 if right_to_left else 1]

    def _square(self, frame: VideoFrame) -> tuple[int, int]:
        """Width and height once its pixels are square: the shorter side of a pixel grows, so that nothing is lost."""
        aspect = self.stream.sample_aspect_ratio or 1
        return round(frame.width * max(aspect, 1)), round(frame.height * max(1 / aspect, 1))


class _Orientation(NamedTuple):
    """What to do with a stored picture: exchange rows and columns, then mirror columns, then rows."""

    transposed: bool
    right_to_left: bool
    upside_down: bool


def _orientation(name: str, frame: VideoFrame) -> _Orientation:
    """
    How the container says to show `frame`.

    Source: FFmpeg, libavutil/display.h: (x, y) goes to (a x + c y, b x + d y) by the matrix (a, b, u, c, d, v, x, y, w).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return _Orientation(False, False, False)
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    # As there, a degree more or less is none.
    a, b, c, d = (0 if 60 * abs(value) < max(map(abs, (a, b, c, d))) else value for value in (a, b, c, d))
    if bool(a or d) == bool(b or c):
        raise ValueError(
            f"{name}: the picture is turned by {frame.rotation} degrees, which is no quarter turn. Encode it again upright."
        )
    return _Orientation(True, c < 0, b < 0) if b else _Orientation(False, a < 0, d < 0)


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
    if ends_early(video):
        raise ValueError(f"{name}: ends before its last frame, so it is truncated. Fetch or encode it again.")
    try:
        with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video), mode="r") as container:
            stream = _shown_stream(name, container)
            stream.thread_type = threads
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            if fps <= 0:
                raise ValueError(f"{name}: the file states no frame rate. Encode it again, as H.264 in mp4.")
            yield _OpenVideo(name, container, stream, fps)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name}: cannot be decoded ({error.strerror}). The file is truncated or no video: "
            "fetch or encode it again, or leave the row out."
        ) from error


def _shown_stream(name: str, container: InputContainer) -> VideoStream:
    """The stream that a player shows: no cover picture; the default one, and of several the largest."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not streams:
        raise ValueError(f"{name}: the file holds no video stream. Give an mp4 (H.264) or leave the row out.")
    return max(streams, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height))


def probe_video(video: VideoSource | StoredVideo | str) -> VideoInfo:
    """
    What `video` holds. Every frame is decoded, since headers of truncated files lie.

    Raises:
        FileNotFoundError, ValueError: naming the file and the remedy, as `read_video`.
    """
    count, time_s, height, width = 0, 0.0, 0, 0
    with _opened(video) as file:
        for time_s, frame in file.decode(file.packets()):  # noqa: B007 (the last time is used below)
            count, (height, width) = count + 1, file.shape(frame)
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
        rate = fps or file.fps
        shown: tuple[float, VideoFrame] | None = None
        for time_s, frame in file.decode(file.packets()):
            if num_frames is None:
                images.append(file.upright(frame))
                times.append(time_s)
                continue
            if shown:  # until the next one begins
                for _ in range(len(images), min(num_frames, _num_begun(time_s, rate))):
                    _append(file, images, times, shown)
            shown = (time_s, frame)
            if len(images) == num_frames:
                break
        if shown and num_frames is not None:
            for _ in range(len(images), min(num_frames, _num_begun(shown[0] + 1 / file.fps, rate))):
                _append(file, images, times, shown)
    if num_frames is not None and len(images) < num_frames:
        raise ValueError(
            f"{describe(video)}: has {len(images)} frames at {rate:g} fps, {num_frames} were asked for. "
            f"Ask for fewer frames or leave the clip out."
        )
    return Clip(np.stack(images), np.asarray(times), file.fps)


def num_frames_at(video: VideoSource | StoredVideo | str, fps: float) -> int:
    """
    How many frames `read_video` finds at `fps` frames a second, told by the time stamps: nothing is decoded.

    Raises:
        FileNotFoundError, ValueError: naming the file and the remedy, as `read_video`.
    """
    with _opened(video) as file:
        stamps = [packet.pts for packet in file.packets() if packet.size and not packet.is_discard]
        given = [stamp for stamp in stamps if stamp is not None]
        if given and len(given) == len(stamps) and file.stream.time_base:
            return _num_begun(float((max(given) - min(given)) * file.stream.time_base) + 1 / file.fps, fps)
    return _num_begun(probe_video(video).duration_s, fps)


def mean_fps(video: VideoSource | StoredVideo | str) -> float:
    """The mean frames a second of `video`; nothing is decoded. Raises as `read_video`."""
    with _opened(video) as file:
        return file.fps


def stored_form(video: VideoSource | StoredVideo | str) -> StoredForm:
    """How `video` is stored; nothing is decoded. Raises as `read_video`."""
    with _opened(video) as file:
        names, codec = file.container.format.name.split(","), file.stream.codec_context
        return StoredForm(tuple(names), codec.codec.canonical_name, str(codec.pix_fmt))


def _num_begun(time_s: float, fps: float) -> int:
    """How many frames begin before `time_s` at `fps` frames a second; half a millisecond forgives rounded time stamps."""
    return max(0, math.ceil((time_s - 5e-4) * fps))


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
        for frame in file.frames(packet):
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
