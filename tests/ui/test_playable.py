"""Clips that we decode and browsers do not play: nobody is asked about them, and reports and cards show a copy."""

import asyncio
import base64
import logging
import re
from pathlib import Path

import av
import numpy as np
import pytest
from huggingface_hub import ModelCard
from starlette.requests import Request

from lift_trl.hub.gallery import Pair, save_gallery
from lift_trl.hub.playable import media_type, mp4_of
from lift_trl.report.data import ClipRow, Report
from lift_trl.report.page import save_report
from lift_trl.store.manifest import write_rows
from lift_trl.store.video_io import probe_video, read_video
from lift_trl.ui.annotate.page import annotate_page
from lift_trl.ui.annotate.ratings import AnnotationQueue
from lift_trl.ui.arena.page import arena_page
from lift_trl.ui.arena.votes import Arena
from lift_trl.ui.clips import ClipError, ClipShelf, check_clip, load_clips, pair_clips
from lift_trl.ui.compare.page import compare_page
from lift_trl.ui.compare.votes import Compare, Gallery
from lift_trl.ui.identity import Identity
from lift_trl.ui.vote_log import VoteLog


#: File -> encoder, pixels, and what browsers take it for.
FORMS = {
    "h264.mp4": ("libx264", "yuv420p", "video/mp4"),
    "h264.mov": ("libx264", "yuv420p", "video/mp4"),
    "vp9.mp4": ("libvpx-vp9", "yuv420p", "video/mp4"),
    "av1.mp4": ("libsvtav1", "yuv420p", "video/mp4"),
    "vp8.webm": ("libvpx", "yuv420p", "video/webm"),
    "vp9.webm": ("libvpx-vp9", "yuv420p", "video/webm"),
    "mp4v.mp4": ("mpeg4", "yuv420p", None),
    "hevc.mp4": ("libx265", "yuv420p", None),
    "mpeg4.avi": ("mpeg4", "yuv420p", None),
    "prores.mov": ("prores_ks", "yuv422p10le", None),
    "anim.gif": ("gif", "rgb8", None),
    "h264_444.mp4": ("libx264", "yuv444p", None),  # by some
    "vp9.mkv": ("libvpx-vp9", "yuv420p", None),  # by some
}


def encode(path: Path, shade: int = 0, *, size: tuple[int, int] = (64, 48)) -> Path:
    """Nine frames in the form that the name stands for."""
    encoder, pixels, _ = FORMS[path.name.split("-")[-1]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=8)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        for number in range(9):
            frame = np.full((size[1], size[0], 3), shade + 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("forms")
    return {name: encode(root / name) for name in FORMS}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_known_by_what_the_file_holds(name: str, forms: dict[str, Path], tmp_path: Path):
    """Whatever the file is called: clips out of Parquet are all called .mp4."""
    renamed = tmp_path / "a clip.mp4"
    renamed.write_bytes(forms[name].read_bytes())
    if FORMS[name][2] is not None:
        assert media_type(renamed) == FORMS[name][2] and check_clip(renamed).num_frames == 9
        return
    with pytest.raises(
        ValueError, match="which browsers do not play. Name a copy in H.264: ffmpeg -i '.*a clip.mp4' -c:v"
    ):
        media_type(renamed)
    with pytest.raises(ClipError, match="browsers do not play"):
        check_clip(renamed)


def test_a_browser_plays_what_is_taken_and_no_other(forms: dict[str, Path], chromium: str):
    """The independent word on it, but for two forms that Chromium plays and others do not."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for name, path in forms.items():
            kind = FORMS[name][2] or "video/mp4"
            page.set_content(
                f'<video src="data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"></video>'
            )
            page.wait_for_function("v => (v = document.querySelector('video')).error || v.readyState > 1")
            plays = page.evaluate("document.querySelector('video').error === null")
            assert plays == (FORMS[name][2] is not None) or name in ("h264_444.mp4", "vp9.mkv"), name
        browser.close()


@pytest.mark.parametrize("name", ["mp4v.mp4", "anim.gif", "vp8.webm", "h264_444.mp4"])
def test_a_copy_shows_the_same_frames(name: str, forms: dict[str, Path], tmp_path: Path):
    (copy := tmp_path / "copy.mp4").write_bytes(mp4_of(forms[name]))
    assert media_type(copy) == "video/mp4" and probe_video(copy).fps == pytest.approx(probe_video(forms[name]).fps)
    there, here = (read_video(path).frames for path in (forms[name], copy))
    shades = [frames.mean(axis=(1, 2, 3)) for frames in (there, here)]  # a GIF dithers
    assert there.shape == here.shape == (9, 48, 64, 3) and abs(shades[0] - shades[1]).max() < 5 and shades[1][8] > 140


def test_what_plays_stays_as_it_is_and_odd_sizes_are_cropped(forms: dict[str, Path], tmp_path: Path):
    assert mp4_of(forms["h264.mp4"]) == forms["h264.mp4"].read_bytes()
    (copy := tmp_path / "copy.mp4").write_bytes(mp4_of(encode(tmp_path / "odd-anim.gif", size=(63, 47))))
    assert probe_video(copy)[:3] == (9, 46, 62)


def system(root: Path, names: list[str], shade: int) -> Path:
    rows = []
    for number, name in enumerate(names):
        encode(root / f"{number}-{name}", shade + number)
        rows.append(
            {"file_name": f"{number}-{name}", "id": f"c{number}", "prompt": f"prompt {number}", "seed": number}
        )
    write_rows(root / "metadata.jsonl", rows)
    return root


def test_nobody_is_asked_about_a_clip_that_no_browser_plays(tmp_path: Path, caplog):
    """The second of three pairs: the owner is told at the start which, and how to mend it."""
    good = system(tmp_path / "base", ["h264.mp4", "h264.mp4", "vp9.webm"], 10)
    lift = system(tmp_path / "lift", ["h264.mp4", "mp4v.mp4", "h264.mp4"], 30)
    identity, bad = Identity(b"salt"), lift / "1-mp4v.mp4"
    shelf = ClipShelf(identity)
    pairs = pair_clips(load_clips(str(good)), load_clips(str(lift)))
    arena = Arena(pairs, VoteLog(tmp_path / "a" / "votes"), identity)
    queue = AnnotationQueue(load_clips(str(lift)), VoteLog(tmp_path / "q" / "votes"), identity)
    gallery = Gallery.load({"base": str(good), "lift": str(lift)}, {})
    with caplog.at_level(logging.WARNING):
        arena_page(arena, shelf, lambda votes: [])
        annotate_page(queue, shelf, lambda rows, dimension: None)
        compare_page(Compare(["lift"], VoteLog(tmp_path / "c" / "votes"), identity), shelf, why="", gallery=gallery)
    told = [record.getMessage() for record in caplog.records if str(bad) in record.getMessage()]
    assert len(told) == 3 and all(f"ffmpeg -i {bad} -c:v libx264" in line for line in told)
    assert arena.broken.keys() == {pairs[1].id} and queue.broken.keys() == {"c1"}
    assert arena.progress("ada") == (0, 2) and queue.progress("ada").total == 2
    assert gallery.prompts("lift") == ["prompt 0", "prompt 2"]


def test_a_page_with_nothing_to_show_does_not_start(tmp_path: Path):
    clips = system(tmp_path / "base", ["mpeg4.avi", "mpeg4.avi"], 10)
    queue = AnnotationQueue(load_clips(str(clips)), VoteLog(tmp_path / "votes"), Identity(b"salt"))
    with pytest.raises(ValueError, match="none of the 2 can be shown to anybody. The first: .*mpeg4 .yuv420p. in avi"):
        annotate_page(queue, ClipShelf(Identity(b"salt")), lambda rows, dimension: None)


def test_a_clip_is_served_as_what_it_is(forms: dict[str, Path]):
    """Firefox goes by the type that the server names."""
    shelf = ClipShelf(Identity(b"salt"))
    for name in ("h264.mp4", "vp8.webm"):
        address = shelf.url(forms[name]).removeprefix("clips/")
        answer = asyncio.run(shelf._serve(Request({"type": "http", "path_params": {"name": address}})))
        assert answer.headers["content-type"] == FORMS[name][2]


def test_reports_and_cards_hold_a_copy_that_plays(forms: dict[str, Path], tmp_path: Path):
    row = ClipRow("a fox", {"base": forms["h264.mp4"], "rwl": forms["mp4v.mp4"]})
    save_report(Report("t", "base", clips=(row,)), tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    shown = [base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([\w+/=]+)", page)]
    save_gallery(
        tmp_path / "README.md", ModelCard("---\nlicense: other\n---\n# x\n"), [Pair("a fox", *row.clips.values())]
    )
    shown += [(tmp_path / "gallery" / f"00-{side}.mp4").read_bytes() for side in ("base", "aligned")]
    assert len(shown) == 4 and shown[0] == shown[2] == forms["h264.mp4"].read_bytes() and shown[1] == shown[3]
    (tmp_path / "copy.mp4").write_bytes(shown[1])
    assert media_type(tmp_path / "copy.mp4") == "video/mp4"
