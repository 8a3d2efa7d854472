"""Clips are read as a player shows them: frames equal to those of the `ffmpeg` program where it is installed."""

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from lift_trl.store.video_io import num_frames_at, probe_video, read_video, sample_frames, write_video
from tests.store.test_video_io import encode, hide_frames


FFMPEG = shutil.which("ffmpeg")


def shown_by_ffmpeg(path: Path, height: int, width: int) -> np.ndarray | None:
    """The frames as ffmpeg decodes them, with square pixels; `None` where it is not installed."""
    if FFMPEG is None:
        return None
    command = [FFMPEG, "-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-vf", f"scale={width}:{height}"]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def check(path: Path, num_frames: int, height: int, width: int, tolerance: float = 0.0) -> np.ndarray:
    """All readers agree on `path`, and with ffmpeg up to `tolerance` (mean grey levels). Returns its frames."""
    clip = read_video(path)
    assert clip.frames.shape == (num_frames, height, width, 3)
    info = probe_video(path.read_bytes())
    assert (info.num_frames, info.height, info.width) == (num_frames, height, width)
    for count in (1, 5):
        places = np.linspace(0, num_frames - 1, count, dtype=int)
        np.testing.assert_array_equal(sample_frames(path, count).frames, clip.frames[places])
    available = num_frames_at(path, 8)
    assert len(read_video(path, num_frames=available, fps=8).frames) == available
    with pytest.raises(ValueError, match=f"has {available} frames at 8 fps"):
        read_video(path, num_frames=available + 1, fps=8)
    shown = shown_by_ffmpeg(path, height, width)
    if shown is not None:
        assert len(shown) == num_frames
        assert np.abs(shown.astype(int) - clip.frames).mean() <= tolerance
    return clip.frames


def write(path: Path, parts: list[tuple[list[np.ndarray], dict[str, object]]], rate: int = 10) -> Path:
    """A file with one video stream for each of `parts`: its frames, and attributes of the stream."""
    with av.open(str(path), "w") as container:
        streams = []
        for frames, attributes in parts:
            stream = container.add_stream(attributes.pop("codec", "libx264"), rate=rate)
            stream.height, stream.width = frames[0].shape[:2]
            for name, value in attributes.items():
                setattr(stream, name, value)
            streams.append(stream)
        for stream, (frames, _) in zip(streams, parts):
            for frame in frames:
                container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return path


def still(grey: int, count: int = 6, height: int = 32, width: int = 48) -> list[np.ndarray]:
    return [np.full((height, width, 3), grey, np.uint8)] * count


def smooth(count: int = 6, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Colours without edges, so that ways to interpolate them hardly differ."""
    y, x, t = np.mgrid[:height, :width, :count] / np.array([height, width, count])[:, None, None, None]
    return list((np.stack([x, y, (x + t) / 2], -1) * 220 + 15).astype(np.uint8).transpose(2, 0, 1, 3))


# ---- edit lists and holes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [1, 7, 30])
def test_frames_that_an_edit_list_hides_are_no_missing_ones(tmp_path, hidden):
    path = encode(tmp_path / "a.mp4", bf="2")
    whole = read_video(path).frames
    frames = check(hide_frames(path, hidden), 49 - hidden, 64, 96)
    np.testing.assert_array_equal(frames, whole[hidden:])


@pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
def test_a_copy_that_begins_between_key_frames(tmp_path):
    source, path = encode(tmp_path / "src.mp4", num_frames=90, g="60", bf="2"), tmp_path / "trim.mp4"
    subprocess.run([FFMPEG, "-v", "error", "-ss", "1", "-i", source, "-t", "1.2", "-c", "copy", path], check=True)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 60  # so many does the header count
    check(path, 38, 64, 96)


def test_an_edit_that_starts_late_shifts_nothing(tmp_path):
    """An empty edit in front, as for sound that starts first."""
    path = encode(tmp_path / "a.mkv", stamps=[15 + index for index in range(20)], num_frames=20)
    clip = read_video(path)
    assert clip.times_s[0] == 0 and clip.times_s[-1] == pytest.approx(19 / 30, abs=2e-3)
    check(path, 20, 64, 96)


def test_an_avi_with_empty_places_is_whole(tmp_path):
    """AVI has no time stamps: a slow part is written as places without a frame, which the header counts."""
    stamps = [*range(0, 60, 6), *range(60, 90)]
    path = encode(tmp_path / "vfr.avi", codec="mpeg4", num_frames=40, stamps=stamps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 90
    check(path, 40, 64, 96, tolerance=0.01)
    np.testing.assert_allclose(read_video(path).times_s, np.array(stamps) / 30, atol=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi", "a.gif", "fragments.mp4"])
@pytest.mark.parametrize("keep", [0.5, 0.9, -1])
def test_files_that_were_really_cut_are_refused(tmp_path, name, keep):
    codec = {"webm": "libvpx-vp9", "gif": "gif", "avi": "mpeg4"}.get(name.split(".")[1], "libx264")
    pixels = {"gif": "rgb8"}.get(codec, "yuv420p")
    movflags = {"fragments.mp4": "frag_keyframe+empty_moov", "a.mp4": "faststart", "a.mov": "faststart"}.get(name)
    noise = np.random.default_rng(0).integers(0, 255, (20, 32, 48, 3), dtype=np.uint8)
    whole = tmp_path / f"whole-{name}"
    with av.open(str(whole), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=10, options={"g": "8"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
        for image in noise:
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    assert probe_video(whole).num_frames == 20
    data = whole.read_bytes()
    # Behind the last frame stands an index, which no reader needs.
    end = data.rindex({"a.avi": b"idx1", "fragments.mp4": b"mfra"}.get(name, b""))
    (tmp_path / name).write_bytes(data[: int(len(data) * keep) if keep > 0 else end - 20])
    for read in (probe_video, read_video, lambda path: sample_frames(path, 4)):
        with pytest.raises(ValueError, match=rf"{name}: .*truncated"):
            read(tmp_path / name)


# ---- which stream, which way up, which shape ------------------------------------------------------------------------------


def test_a_cover_picture_is_no_clip(tmp_path):
    cover = (still(200, count=1, height=64, width=64), {"codec": "png", "pix_fmt": "rgb24", "disposition": 1024})
    film = (still(90), {"pix_fmt": "yuv420p"})
    for order, parts in (("first", [cover, film]), ("last", [film, cover])):
        parts = [(frames, dict(attributes)) for frames, attributes in parts]
        frames = check(write(tmp_path / f"{order}.mp4", parts), 6, 32, 48)
        assert abs(int(frames.mean()) - 90) < 3
    alone = write(tmp_path / "song.mp4", [(cover[0], dict(cover[1]))])
    with pytest.raises(ValueError, match=r"song\.mp4: the file holds no video stream"):
        probe_video(alone)


@pytest.mark.parametrize(("dispositions", "shown"), [((0, 1), 90), ((1, 0), 200), ((0, 0), 200), ((1, 1), 200)])
def test_of_several_streams_the_default_one_is_shown_and_else_the_largest(tmp_path, dispositions, shown):
    large, small = still(200, height=64, width=80), still(90)
    parts = [
        (frames, {"pix_fmt": "yuv420p", "disposition": disposition})
        for frames, disposition in zip((large, small), dispositions)
    ]
    path = write(tmp_path / "two.mkv", parts)
    size = (64, 80) if shown == 200 else (32, 48)
    assert abs(int(check(path, 6, *size).mean()) - shown) < 3


#: Matrices (a, b, c, d) of the container, and what they do to a picture of which the top left is marked.
ORIENTATIONS = {
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (-1, 0, 0, -1): lambda image: image[::-1, ::-1],
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].transpose(1, 0, 2),
}


def set_matrix(path: Path, matrix: tuple[float, ...]) -> Path:
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 36  # version and flags, then 36 bytes, then nine numbers of 4
    a, b, c, d = (int(value * 65536) for value in matrix)
    struct.pack_into(">5i", data, place, a, b, 0, c, d)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_all_eight_ways_to_hold_and_mirror_a_picture(tmp_path, matrix):
    stored = np.full((32, 48, 3), 30, np.uint8)
    stored[:8, :24] = 220  # neither a turn nor a mirror leaves this in its place
    path = write(tmp_path / "a.mp4", [([stored] * 3, {"pix_fmt": "yuv420p"})])
    expected = ORIENTATIONS[matrix](stored)
    frames = check(set_matrix(path, matrix), 3, *expected.shape[:2])
    assert np.abs(frames.astype(int) - expected).max() < 40


def test_a_turn_that_is_no_quarter_is_refused_by_name(tmp_path):
    path = write(tmp_path / "a.mp4", [(still(90), {"pix_fmt": "yuv420p"})])
    with pytest.raises(ValueError, match=r"a\.mp4: the picture is turned by .* no quarter turn"):
        probe_video(set_matrix(path, (0.866, 0.5, -0.5, 0.866)))


@pytest.mark.parametrize(
    ("aspect", "turned", "size"),
    [(Fraction(4, 3), False, (32, 64)), (Fraction(8, 9), False, (36, 48)), (Fraction(4, 3), True, (64, 32))],
)
def test_pixels_that_are_not_square_are_shown_so(tmp_path, aspect, turned, size):
    """A disc of a camera with oblong pixels is round again."""
    height, width = size[::-1] if turned else size
    y, x = np.mgrid[:32, :48]
    disc = ((y + 0.5) * height / 32 - height / 2) ** 2 + ((x + 0.5) * width / 48 - width / 2) ** 2 < 10**2
    image = np.where(disc[..., None], 220, 20).astype(np.uint8).repeat(3, axis=2)
    path = write(tmp_path / "a.mp4", [([image] * 3, {"pix_fmt": "yuv420p", "sample_aspect_ratio": aspect})])
    if turned:
        set_matrix(path, (0, 1, -1, 0))
    frame = check(path, 3, *size, tolerance=2.0)[0, :, :, 0] > 120
    tall, wide = int(frame.any(axis=1).sum()), int(frame.any(axis=0).sum())
    assert abs(tall - wide) <= 2 and abs(tall - 20) <= 2  # 15 wide or 22 tall as it is stored


def test_a_size_that_changes_in_the_middle_is_named(tmp_path):
    whole = b""
    for number, (height, width) in enumerate(((32, 48), (48, 32))):
        frames = still(90, height=height, width=width)
        whole += write(tmp_path / f"{number}.h264", [(frames, {"pix_fmt": "yuv420p"})]).read_bytes()
    (tmp_path / "a.h264").write_bytes(whole)
    message = r"a\.h264: its size changes from 48x32 to 32x48 px. Encode it again"
    for read in (probe_video, read_video, lambda path: sample_frames(path, 8)):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a.h264")


# ---- colour ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size", "tolerance"),
    [
        ("plain.mp4", "libx264", "yuv420p", (32, 48), 0),
        ("full.mp4", "libx264", "yuvj420p", (32, 48), 0),
        ("422.mp4", "libx264", "yuv422p", (32, 48), 0),
        ("odd.mkv", "ffv1", "yuv420p", (33, 47), 0.01),
        ("ten_bits.mp4", "libx265", "yuv420p10le", (64, 96), 1.5),
        ("transparent.webm", "libvpx-vp9", "yuva420p", (32, 48), 0),
        ("rgb.mov", "qtrle", "argb", (32, 48), 0),
        ("grey.mkv", "ffv1", "gray", (32, 48), 0),
    ],
)
def test_colours_are_those_of_ffmpeg(tmp_path, name, codec, pixels, size, tolerance):
    frames = smooth(6, *size)
    options = {"options": {"x265-params": "log-level=none"}} if codec == "libx265" else {}
    path = write(tmp_path / name, [(frames, {"codec": codec, "pix_fmt": pixels, **options})])
    found = check(path, 6, *size, tolerance=tolerance)
    if pixels != "gray":
        assert np.abs(found.astype(int) - frames).mean() < 6


@pytest.mark.parametrize("colorspace", [1, 5])  # BT.709 and BT.601
@pytest.mark.parametrize("full_range", [False, True])
def test_the_colour_matrix_is_that_of_the_file(tmp_path, colorspace, full_range):
    frames = smooth(4, 32, 48)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = 2 if full_range else 1
        for image in frames:
            frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=colorspace, dst_color_range=2 if full_range else 1
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = check(path, 4, 32, 48)
    assert np.abs(found.astype(int) - frames).mean() < 3


def test_a_clip_without_a_frame_is_named(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), fps=8)
    path = hide_frames(tmp_path / "a.mp4", 20)
    with pytest.raises(ValueError, match=r"a\.mp4: "):
        probe_video(path)
