"""Files that end before they say they do. MP4 and AVI list their frames; Matroska and GIF are told here, by their bytes."""

import io
import os
from pathlib import Path


_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_HEAD_BYTES = 4096


def ends_early(video: Path | str | bytes) -> bool:
    """
    Whether a Matroska (WebM) or GIF file is shorter than it says, which demuxers pass over; false for other formats.

    Source: RFC 8794 (EBML: sizes of elements), RFC 9559 (the segment holds all else), GIF89a (section 27: the trailer).
    """
    with io.BytesIO(video) if isinstance(video, bytes) else open(video, "rb") as file:
        head = file.read(_HEAD_BYTES)
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _HEAD_BYTES))
        tail = file.read()
    if head.startswith(b"GIF8"):
        return not tail.rstrip(b"\0").endswith(b";")
    end = _matroska_end(head)
    return end is not None and length < end


def _matroska_end(head: bytes) -> int | None:
    """The length in bytes that a Matroska file says it has; `None` for other files, and where it was written as it came."""
    if not head.startswith(_EBML):
        return None
    size, place = _ebml_size(head, len(_EBML))
    place += size or 0
    if head[place : place + len(_SEGMENT)] != _SEGMENT:
        return None
    size, place = _ebml_size(head, place + len(_SEGMENT))
    return None if size is None else place + size


def _ebml_size(head: bytes, place: int) -> tuple[int | None, int]:
    """The size that stands at `place` (`None`: unknown), and the place behind it. Its leading zeros say how long it is."""
    width = 9 - head[place].bit_length() if place < len(head) else 1
    largest = (1 << 7 * width) - 1
    size = int.from_bytes(head[place : place + width], "big") & largest
    return (None if size == largest else size), place + width
