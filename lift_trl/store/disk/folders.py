"""The files of a folder, those behind its links too: large data often lies on another disk."""

from collections.abc import Iterator, Set
from pathlib import Path


def files_below(folder: Path, *, above: Set[Path] = frozenset()) -> Iterator[Path]:
    """
    All files under `folder` in the order of their paths, also of folders that links lead to; none of what is no folder.

    Args:
        above: where the folders around it really are; a link back to one of them ends there.
    """
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # the last of a disk's lost+found
        return
    here = folder.resolve()
    for path in entries if here not in above else ():
        if path.is_dir():
            yield from files_below(path, above=above | {here})
        elif path.is_file():
            yield path
