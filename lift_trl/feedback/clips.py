"""Where the clips of a dataset are: loose files, members of zip files, bytes of Parquet rows. Each ends as one file."""

import hashlib
import os
import shutil
import stat
import unicodedata
import zlib
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from huggingface_hub import constants

from ..records import content_id
from ..store.disk.folders import files_below


VIDEO_SUFFIXES = (".mp4", ".m4v", ".webm", ".mkv", ".mov", ".avi", ".mpg", ".mpeg", ".ts", ".gif")

# Of a member's flags. Source: PKWARE's APPNOTE, 4.4.4, bit 0.
_ENCRYPTED = 0x1
_UNPACK = "Unpack it beside the file that names the clips, and move the archive away."


def default_cache_dir() -> Path:
    """Where extracted clips are kept: `lift_trl` in the Hugging Face home (environment variable `HF_HOME`)."""
    return Path(constants.HF_HOME).absolute() / "lift_trl"


def store_bytes(data: bytes, cache_dir: Path, suffix: str = ".mp4") -> Path:
    """The file in `cache_dir` that holds `data`, named by its sha256; written where it is not there yet."""
    digest = hashlib.sha256(data).hexdigest()
    path = cache_dir / "clips" / digest[:2] / f"{digest}{suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        partial.write_bytes(data)
        partial.replace(path)
    return path


def extract_zip(archive: Path, cache_dir: Path) -> Path:
    """
    The folder in `cache_dir` with the videos of `archive`, extracted once and named by the archive's table of contents.

    Raises:
        ValueError: if the file is no zip, or a member would be written outside of the folder or is a link. Nothing is
            extracted then.
    """
    try:
        with ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            for member in members:
                _check_member(archive, member)
            videos = [member for member in members if PurePosixPath(member.filename).suffix.lower() in VIDEO_SUFFIXES]
            name = content_id(*(part for m in videos for part in (m.filename, m.CRC, m.file_size)))
            folder = cache_dir / "zips" / name
            if not folder.is_dir():
                partial = folder.with_name(f".{name}.{os.getpid()}.tmp")
                partial.mkdir(parents=True, exist_ok=True)
                for member in videos:
                    file.extract(member, partial)
                _move_into_place(partial, folder)
            return folder
    except (BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive}: no readable zip file ({error}). Fetch it again.") from error
    except NotImplementedError as error:
        raise ValueError(f"{archive}: is packed in a way that is not read here ({error}). {_UNPACK}") from error


def _check_member(archive: Path, member: ZipInfo) -> None:
    """Raises `ValueError` for a member that is a link, has a password, or whose path leaves the folder, on any system."""
    name = member.filename
    windows = PureWindowsPath(name)
    outside = PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts
    link = stat.S_ISLNK(member.external_attr >> 16)
    if outside or link:
        why = "is a symbolic link" if link else "leaves the folder"
        raise ValueError(f"{archive}: member {name!r} {why}. Do not trust this archive; nothing was extracted.")
    if member.flag_bits & _ENCRYPTED:
        raise ValueError(f"{archive}: member {name!r} needs a password. {_UNPACK}")


def _move_into_place(partial: Path, folder: Path) -> None:
    """Renames, or drops the copy where another process was first."""
    try:
        partial.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)


class ClipFinder:
    """
    Finds the clip that a row names, among the files under a folder or else the members of the zip files there.

    A path counts from the folder, from its `videos`, or from where the folder is (`clips/a.mp4` in the folder `clips`), with
    or without its suffix; it is never looked for elsewhere. A bare name may stand in any subfolder, if only one file has
    it. Only files found under the folder can be named, so no row reaches outside of it.
    """

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self._folder = folder.absolute()
        self._cache_dir = cache_dir

    @cached_property
    def _loose(self) -> "_Files":
        return _Files([self._folder])

    @cached_property
    def _zipped(self) -> "_Files":
        archives = [path for path in files_below(self._folder) if path.suffix.lower() == ".zip"]
        return _Files([extract_zip(path, self._cache_dir) for path in archives])

    def find(self, reference: str) -> Path | None:
        """
        The file of a clip, `None` if there is none.

        Raises:
            ValueError: if several files have that name.
        """
        path = PurePosixPath(unicodedata.normalize("NFC", reference))
        is_within = len(path.parts) > 1 and path.parts[0] in ("videos", self._folder.name)
        inner = PurePosixPath(*path.parts[1:]) if is_within else path
        # The top of a zip is no place of the folder, so a bare name is as good there as further down.
        in_zips = [inner] if len(inner.parts) > 1 else []
        bare = None if len(inner.parts) > 1 else inner
        return self._loose.find([path, inner, "videos" / path], bare) or self._zipped.find(in_zips, bare)


class _Files:
    """The video files under `folders`, by path and by name, each with and without suffix."""

    def __init__(self, folders: list[Path]) -> None:
        self._by_path: dict[str, list[Path]] = {}
        self._by_name: dict[str, list[Path]] = {}
        for folder in folders:
            for path in files_below(folder):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    _add(self._by_path, path.relative_to(folder), path)
                    _add(self._by_name, Path(path.name), path)

    def find(self, paths: list[PurePosixPath], bare: PurePosixPath | None) -> Path | None:
        """The file at the first of `paths` where there is one, or else the one that is named `bare`."""
        for path in paths:
            if found := _only(self._by_path, path):
                return found
        return None if bare is None else _only(self._by_name, bare)


def _add(files: dict[str, list[Path]], key: Path, path: Path) -> None:
    """Notes `path` under its name, and under what stands before its suffix, unless that reads as another video's name."""
    short = key.with_suffix("")
    for name in [key, *([] if short.suffix.lower() in VIDEO_SUFFIXES else [short])]:
        files.setdefault(unicodedata.normalize("NFC", name.as_posix()), []).append(path)


def _only(files: dict[str, list[Path]], key: PurePosixPath) -> Path | None:
    paths = files.get(key.as_posix(), [])
    if len({path.resolve() for path in paths}) > 1:  # a link beside what it leads to is the same file
        raise ValueError(
            f"{key}: {len(paths)} files have this name, as {paths[0]} and {paths[1]}. Give the path, or rename one of them."
        )
    return paths[0] if paths else None
