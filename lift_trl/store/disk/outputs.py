"""Where a command writes: tried before the work, and never in the place of what is somebody's own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..manifest import write_text


def check_writable(folder: Path | str) -> None:
    """
    Raises `ValueError` if nothing can be written into `folder`, which need not be there yet: before any work, not after.
    """
    path = Path(folder).absolute()
    try:
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        with TemporaryDirectory(prefix=".lift_trl_", dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error.strerror}). Name another folder.") from error


def check_new_folder(folder: Path | str) -> None:
    """
    Raises `FileExistsError` if `folder` exists and holds something: what a command writes never takes its place.

    Raises:
        ValueError: as `check_writable`.
    """
    path = Path(folder)
    check_writable(path)
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty; give a new folder, or delete this one first. Nothing was written."
        )


@contextmanager
def new_folder(folder: Path | str) -> Iterator[Path]:
    """
    A folder to fill, which takes the place of `folder` when the body is done: that appears whole or not at all.

    Raises:
        FileExistsError, ValueError: as `check_new_folder`.
    """
    check_new_folder(folder)
    target = Path(folder).resolve()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    yield partial
    if target.is_dir():
        target.rmdir()
    partial.replace(target)


def claim_folder(folder: Path | str, marker: str, text: str = "") -> None:
    """
    Takes a new folder by a file `marker` that holds `text`; one that has such a file is ours already, for instance a killed
    command's.

    Raises:
        FileExistsError: if it has none and holds something, or one with another text.
        ValueError: as `check_writable`.
    """
    check_writable(folder)
    path = Path(folder) / marker
    if not path.is_file():
        check_new_folder(folder)
        write_text(path, text)
    elif (found := path.read_text(encoding="utf-8")) != text:
        raise FileExistsError(f"{folder}: holds what was made with {found}, not {text}. Name a new folder.")


def check_new_file(path: Path | str) -> None:
    """Raises `FileExistsError` if `path` is there."""
    if Path(path).exists():
        raise FileExistsError(f"{path} is there. Name a new one, or delete this one first. Nothing was written.")


def write_new_text(path: Path | str, text: str) -> None:
    """
    As `write_text`, where no other text stands: the same command may write the same again.

    Raises:
        FileExistsError: if the file is there with another text.
    """
    target = Path(path)
    if not target.is_file() or target.read_bytes() != text.encode():
        check_new_file(target)
    write_text(target, text)
