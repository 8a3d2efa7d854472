"""The content of files as a hash, each file read once by a process."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path


# A hash and a path: some 300 bytes each.
_REMEMBERED = 1 << 18


def file_digest(path: Path | str) -> str:
    """
    sha256 of the file's bytes, in hexadecimal; remembered until the file is changed, replaced or touched.

    A start asks for the hash of every clip two or three times, and for that of a text encoder of 10 GB as often.
    """
    found = os.stat(path)
    return _digest(os.fspath(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=_REMEMBERED)
def _digest(path: str, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
