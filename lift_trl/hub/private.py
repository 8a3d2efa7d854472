"""Folders that stay on this machine: what people said, under their names. Neither git nor a push takes them along."""

from pathlib import Path


#: Where a page on a laptop keeps its rows, below the folder that it was started in.
SPACE_DATA = "space_data"
_MARK = ".gitignore"
_TEXT = (
    "# Votes, names of people, clips that may not be public: `git add` and `lift-trl push` leave this folder out.\n*\n"
)


def keep_private(folder: Path) -> None:
    """Makes `folder`, and marks it as one that stays here."""
    if not is_private(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / _MARK, "ab") as mark:  # after the user's own lines, if there are any
            mark.write(b"\n" * bool(mark.tell()) + _TEXT.encode())


def is_private(folder: Path) -> bool:
    """Whether `folder` is marked. A `.gitignore` of the user's own is no mark: what git leaves out may be to be pushed."""
    mark = folder / _MARK
    return mark.is_file() and _TEXT.encode() in mark.read_bytes()
