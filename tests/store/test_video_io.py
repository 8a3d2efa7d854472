import struct

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from lift_trl.store.video_io import probe_video, read_video, sample_frames, write_video


def grey(levels, size=32):
    return np.stack([np.full((size, size, 3), level, dtype=np.uint8) for level in levels])


def test_round_trip_keeps_pixels_length_and_rate(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[None, None, :, None], (9, 48, 64, 3)).copy()
    write_video(tmp_path / "a.mp4", ramp, fps=8)
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames.shape == ramp.shape and clip.frames.dtype == np.uint8 and clip.fps == 8
    assert np.abs(clip.frames.astype(int) - ramp).mean() < 3
    assert np.allclose(clip.times_s, np.arange(9) / 8, atol=1e-3)
    info = probe_video((tmp_path / "a.mp4").read_bytes())
    assert (info.num_frames, info.height, info.width, info.fps, info.duration_s) == (9, 48, 64, 8.0, 1.125)


def test_the_same_frames_give_the_same_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=8)
    write_video(tmp_path / "b.mp4", frames, fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_the_file_can_start_before_it_has_arrived(tmp_path):
    write_video(tmp_path / "a.mp4", grey(range(0, 90, 10)), fps=8)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart


@pytest.mark.parametrize("source_fps, fps", [(30, 8), (8, 8), (8, 16), (24, 8)])
def test_sampling_by_time_shows_what_was_on_screen(tmp_path, source_fps, fps):
    count = 2 * source_fps
    levels = np.linspace(20, 235, count).astype(int)
    write_video(tmp_path / "a.mp4", grey(levels), fps=source_fps)
    clip = read_video(tmp_path / "a.mp4", num_frames=fps + 1, fps=fps)
    shown = clip.frames.mean(axis=(1, 2, 3))
    expected = [levels[int(k / fps * source_fps + 1e-6)] for k in range(fps + 1)]
    assert np.abs(shown - expected).max() <= 2.5


def test_a_clip_that_is_too_short_says_how_long_it_is(tmp_path):
    write_video(tmp_path / "a.mp4", grey(range(10)), fps=8)
    with pytest.raises(ValueError, match=r"a\.mp4: has 5 frames at 4 fps, 9 were asked for"):
        read_video(tmp_path / "a.mp4", num_frames=9, fps=4)


def test_uniform_frames_include_the_first_and_the_last(tmp_path):
    levels = np.linspace(0, 250, 49).astype(int)
    write_video(tmp_path / "a.mp4", grey(levels), fps=8)
    clip = sample_frames(tmp_path / "a.mp4", 8)
    assert np.abs(clip.frames.mean(axis=(1, 2, 3)) - levels[np.linspace(0, 48, 8, dtype=int)]).max() < 3
    assert clip.times_s[0] == 0 and clip.times_s[-1] == pytest.approx(6.0)


def encode(path, *, codec="libx264", num_frames=49, stamps=None, **options):
    """A moving square on noise, as `options` of the encoder say."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for index in range(num_frames):
            image = generator.integers(0, 60, (64, 96, 3), dtype=np.uint8)
            image[20:40, index : index + 20] = (220, 40, 40)
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            if stamps:
                frame.pts = stamps[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def hide_frames(path, count):
    """Moves the beginning of an mp4's edit list `count` frames on."""
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 16
    (start,) = struct.unpack_from(">i", data, place)
    struct.pack_into(">i", data, place, start + int(count / 30 / tick))
    path.write_bytes(data)
    return path


CLIPS = {
    "b_frames": lambda folder: encode(folder / "a.mp4", bf="5", **{"x264-params": "b-pyramid=normal:ref=6"}),
    "open_gop": lambda folder: encode(folder / "a.mkv", **{"x264-params": "open-gop=1:keyint=12:bframes=4"}),
    "fields": lambda folder: encode(folder / "a.ts", **{"x264-params": "tff=1:bframes=3"}),
    "no_b_frames": lambda folder: encode(folder / "a.mp4", bf="0"),
    "uneven_times": lambda folder: encode(folder / "a.mp4", stamps=[i * i // 7 + i for i in range(49)]),
    "hidden_frames": lambda folder: hide_frames(encode(folder / "a.mp4"), 2),
    "wrong_stamps": lambda folder: encode(folder / "a.avi", bf="3"),
    "no_stamps": lambda folder: encode(folder / "a.h264", bf="3"),
    "vp9": lambda folder: encode(folder / "a.webm", codec="libvpx-vp9", **{"cpu-used": "8"}),
    "hevc": lambda folder: encode(folder / "a.mp4", codec="libx265", **{"x265-params": "log-level=none:bframes=4"}),
    "one_frame": lambda folder: encode(folder / "a.mp4", num_frames=1),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_sampled_frames_are_those_of_a_full_decode(clip, tmp_path):
    path = CLIPS[clip](tmp_path)
    whole = read_video(path)
    assert len(whole.frames) == {"hidden_frames": 47, "one_frame": 1}.get(clip, 49)
    for num_frames in (1, 2, 8, 30):
        index = np.linspace(0, len(whole.frames) - 1, num_frames, dtype=int)
        sampled = sample_frames(path, num_frames)
        np.testing.assert_array_equal(sampled.frames, whole.frames[index])
        np.testing.assert_allclose(sampled.times_s, whole.times_s[index])
        assert sampled.fps == whole.fps


def test_what_is_neither_sampled_nor_serves_another_frame_is_not_decoded(tmp_path):
    """Its bytes are wiped out: a full decode stumbles over them, sampling does not."""
    path = encode(tmp_path / "a.mp4", bf="3")
    before = sample_frames(path, 8)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    sampled = [sorted(packet.pts for packet in packets)[i] for i in np.linspace(0, 48, 8, dtype=int)]
    # The first byte of a slice, behind the four of its length, says whether another frame refers to it.
    idle = [p for p in packets if data[p.pos + 4] >> 5 == 0 and p.pts not in sampled]
    assert len(idle) > 10
    for packet in idle:
        data[packet.pos + 5 : packet.pos + packet.size] = bytes(packet.size - 5)
    path.write_bytes(data)
    np.testing.assert_array_equal(sample_frames(path, 8).frames, before.frames)
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_video(path)


@pytest.mark.parametrize(
    "frames, message",
    [
        (np.zeros((3, 32, 32, 3)), r"float64 \(3, 32, 32, 3\); give uint8"),
        (np.zeros((3, 3, 32, 32), dtype=np.uint8), "give uint8"),
        (np.zeros((3, 31, 32, 3), dtype=np.uint8), "32x31 px; H.264 in yuv420p needs even sizes"),
        (np.zeros((0, 32, 32, 3), dtype=np.uint8), "F >= 1"),
    ],
)
def test_what_cannot_be_written_is_refused_not_guessed(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 40, 900, 0.5, 0.9])
def test_truncated_files_are_errors_that_name_the_file(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "whole.mp4", noise, fps=8)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ValueError, match=r"cut\.mp4: .*(truncated|no video)"):
        read_video(tmp_path / "cut.mp4")
    with pytest.raises(ValueError, match=r"cut\.mp4: .*(truncated|no video)"):
        sample_frames(tmp_path / "cut.mp4", 8)


def test_missing_files_and_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.mp4: no such video file"):
        read_video(tmp_path / "gone.mp4")
    (tmp_path / "notes.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"notes\.mp4: cannot be decoded"):
        probe_video(tmp_path / "notes.mp4")


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_upright_whichever_way_the_camera_was_held(tmp_path, rotation):
    """A phone stores the picture as the sensor has it, and how far to turn it in the container."""
    upright = np.zeros((4, 32, 64, 3), dtype=np.uint8)
    upright[:, :16, :32] = 255  # top left
    turns = rotation // 90
    plain = tmp_path / "plain.mp4"
    write_video(plain, np.rot90(upright, turns, axes=(1, 2)), fps=8)
    data = bytearray(plain.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 36  # version and flags, then 36 bytes, then nine numbers of 4
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    data[matrix : matrix + 20] = struct.pack(">5i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16)
    video = bytes(data)
    info = probe_video(video)
    assert (info.height, info.width) == (32, 64)
    for clip in (read_video(video), read_video(video, num_frames=3, fps=8), sample_frames(video, 2)):
        assert np.abs(clip.frames.astype(int) - upright[0]).max() < 40
