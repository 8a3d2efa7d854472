"""Folders and files that are elsewhere (`hf://`, `s3://`, any URL of fsspec): a copy here, one for each state of theirs."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # it has no __all__

from .records import content_id


_URL = re.compile(r"([a-z0-9][a-z0-9+.-]+):(/+)")
# Another spelling of a path of this machine.
_HERE = ("file", "local")


def is_remote(source: Path | str) -> bool:
    """
    Whether `source` is elsewhere, so that only what it holds is copied and it must name nothing of this machine.

    >>> is_remote("s3://bucket/clips"), is_remote("file:///srv/clips"), is_remote("user/clips")
    (True, False, False)
    """
    found = _URL.match(str(source))
    return found is not None and found[1] not in _HERE


def local_copy(source: Path | str) -> Path | str:
    """
    `source` as it is where it is a path or a repo's name; of a URL the path of a copy, in `HF_HOME`. Of `file://` the path.

    It is copied once: what has changed there since (a size, a date, a hash) is copied again, beside the first copy.

    Args:
        source: a folder or a file, such as `hf://datasets/user/name/clips` or `s3://bucket/prompts.txt`.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if the protocol is unknown or needs a package, or a name there would leave the copy.

    >>> local_copy("user/clips")
    'user/clips'
    """
    found = _URL.match(str(source))
    if found is None:
        return source
    # A `Path` of a URL has lost all slashes but one.
    slashes, rest = found[2] if len(found[2]) > 1 else "//", str(source)[found.end() :]
    url = f"{found[1]}:{slashes}{rest}"
    if found[1] in _HERE:
        path = Path(rest if len(found[2]) == 2 else f"/{rest}")
        if not path.exists():
            raise FileNotFoundError(f"{url}: there is no {path}. Correct the name.")
        return path
    try:
        files, root = fsspec.url_to_fs(url)
    except ImportError as error:
        raise ValueError(
            f"{url}: {error}: pip install that package, or copy the data here and name its folder."
        ) from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}. Use hf://, s3:// or another one of fsspec, or name a folder.") from error
    if not files.exists(root):
        raise FileNotFoundError(f"{url}: there is no such folder or file, or you may not read it. Correct the name.")
    is_file = files.isfile(root)
    entries: Mapping[str, Any] = {root: files.info(root)} if is_file else files.find(root, detail=True)
    state = content_id(url, *(f"{name} {sorted(map(str, entry.items()))}" for name, entry in sorted(entries.items())))
    # The name stays: messages show it, and a file's ending says what it is.
    copy = Path(constants.HF_HOME) / "lift_trl" / state / (PurePosixPath(root).name or "root")
    copy.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(copy.parent / ".lock"):  # processes of one run ask at the same time
        if not copy.exists():
            _fetch(files, root, list(entries), copy, is_file=is_file)
    return copy


def _fetch(files: Any, root: str, names: list[str], copy: Path, *, is_file: bool) -> None:
    """Copies `names`, below `root`, to `copy`, all or nothing."""
    with TemporaryDirectory(dir=copy.parent) as partial:
        target = Path(partial) / copy.name
        if not is_file:
            target.mkdir()
        for name in names:
            inside = PurePosixPath(name).relative_to(root)
            if ".." in inside.parts:
                raise ValueError(f"{name}: its name leaves the folder; rename it, or copy the data here by hand.")
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            files.get_file(name, str(target if is_file else target / inside))
        target.replace(copy)
