"""Which clips a browser plays (a page, a report, a card on the Hub), and a copy that it plays of those that it does not."""

import shlex
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ..store.video_io import StoredForm, read_video, stored_form, write_video


#: Container, by its media type -> codecs that Chromium, Firefox and Safari play in it.
#: Source: https://developer.mozilla.org/en-US/docs/Web/Media/Guides/Formats/Containers
_PLAYED = {"video/mp4": ("h264", "vp9", "av1"), "video/webm": ("vp8", "vp9", "av1")}
#: H.264 in other pixels than 8 bits of 4:2:0 is played by some of them.
_H264_PIXELS = ("yuv420p", "yuvj420p")
_DOCTYPE = b"webm"  # in the first bytes of a WebM; a Matroska that is none is not played by all


def media_type(path: Path) -> str:
    """
    `video/mp4` or `video/webm`, by what the file holds, whatever it is called.

    Raises:
        ValueError: if no browser, or not each, plays it: with a command that makes a copy that they play.
        FileNotFoundError: if it is gone.
    """
    kind, form = _stored(path, path.stat().st_mtime)
    if kind:
        return kind
    options = "-c:v libx264 -pix_fmt yuv420p -vf 'crop=trunc(iw/2)*2:trunc(ih/2)*2' -movflags +faststart"
    container = "mp4" if "mp4" in form.containers else form.containers[0]
    copy = path.with_name(f"{path.stem}.h264.mp4")
    raise ValueError(
        f"{path}: {form.codec} ({form.pixels}) in {container}, which browsers do not play. Name a copy in H.264: "
        f"ffmpeg -i {shlex.quote(str(path))} {options} {shlex.quote(str(copy))}"
    )


@lru_cache(maxsize=16384)
def _stored(path: Path, modified_s: float) -> tuple[str, StoredForm]:
    """What a browser takes the file for, `""` where it plays it not, and how it is stored."""
    form = stored_form(path)
    with open(path, "rb") as file:
        is_webm = _DOCTYPE in file.read(64)
    kind = "video/webm" if is_webm else "video/mp4" if "mp4" in form.containers else ""
    is_played = form.codec in _PLAYED.get(kind, ()) and (form.codec != "h264" or form.pixels in _H264_PIXELS)
    return kind if is_played else "", form


def mp4_of(path: Path) -> bytes:
    """
    An mp4 that browsers play: the file as it is, or a copy in H.264 (cropped to even sizes) of any other that decodes.

    Raises:
        FileNotFoundError, ValueError: naming the file, if it cannot be decoded.
    """
    kind, _ = _stored(path, path.stat().st_mtime)
    if kind == "video/mp4":
        return path.read_bytes()
    clip = read_video(path)
    _, height, width, _ = clip.frames.shape
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "clip.mp4"
        write_video(copy, clip.frames[:, : height // 2 * 2, : width // 2 * 2], fps=clip.fps)
        return copy.read_bytes()
