"""Clips as a page shows them: from a folder or a dataset of the Hub, in pairs, under addresses that say nothing."""

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import snapshot_download
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..hub.playable import media_type
from ..hub_source import HubSource
from ..records import content_id
from ..remote import is_remote, local_copy
from ..store.rated_videos import METADATA_NAMES, BadRowsError, RowError, raw_rows
from ..store.video_io import VideoInfo, probe_video
from .identity import Identity


T = TypeVar("T")


@dataclass(frozen=True)
class GalleryClip:
    """
    One clip. `name` is its path within its source, `row` everything else that its row says, `revision` a hash of its bytes:
    the same clip in a later commit of its dataset keeps its votes, another clip under its name does not.
    """

    id: str
    name: str
    path: Path
    prompt: str
    seed: str
    system: str
    row: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    revision: str = ""


@dataclass(frozen=True)
class VideoPair:
    """Two clips of one prompt (and seed, where the rows name one)."""

    prompt: str
    seed: str
    first: GalleryClip
    second: GalleryClip

    @property
    def id(self) -> str:
        """Of the two clips that are shown: their systems and revisions are in it."""
        sides = ((clip.system, clip.id, clip.revision) for clip in (self.first, self.second))
        return content_id(self.prompt, self.seed, *(part for side in sides for part in side))

    @property
    def old_id(self) -> str:
        """What votes called the pair when its id left the systems out: two comparisons may share it."""
        return content_id(self.prompt, self.first.id, self.second.id)


def load_clips(
    source: str, *, system: str | None = None, token: str | None = None, cache_dir: Path | str | None = None
) -> list[GalleryClip]:
    """
    The clips of a folder or of a dataset repository, with their rows.

    Args:
        source: a folder, a URL, `user/name` or `user/name@revision`: `metadata.jsonl` (or .csv, .parquet) beside clips, or
            Parquet with the clips in it.
        system: what made the clips; the source's name by default. Votes name clips as `system/path`.
        cache_dir: where clips out of Parquet are kept, a temporary folder by default.

    Raises:
        BadRowsError: naming each row without a prompt or a clip, with a clip that is not this source's, or with the id of
            another clip.
        FileNotFoundError: if there is no metadata.
        ValueError: if `system` cannot be told from a path.
    """
    is_local = not is_remote(source) and Path(local_copy(source)).is_dir()
    folder = local_folder(source, token).absolute()
    cache = Path(cache_dir or tempfile.mkdtemp(prefix="lift_trl_clips_"))
    is_folder = is_local or is_remote(source)
    name = system or Path(folder if is_folder else HubSource.parse(source).repo_id).name
    if "/" in name:
        raise ValueError(f"system {name!r}: votes name clips as system/path; leave the slash out of the name.")
    clips: dict[str, GalleryClip] = {}
    errors: list[RowError] = []
    for where, row in raw_rows(folder):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            clip = _clip(folder, row, name, cache, is_local=is_local)
            # Rows of several raters may name one clip.
            if clips.setdefault(clip.id, clip) != clip:
                raise ValueError(f"id {clip.id!r} is that of {clips[clip.id].name}; give each clip an id of its own.")
        except (ValueError, FileNotFoundError) as error:
            errors.append(RowError(where, str(error)))
    if errors or not clips:
        raise BadRowsError(errors or [RowError(source, "holds no row.")])
    return list(clips.values())


def local_folder(source: str, token: str | None) -> Path:
    """A folder on this machine with what `source` holds: a folder, a URL (`lift_trl.remote`) or a dataset repository."""
    folder = Path(local_copy(source))
    return folder if is_remote(source) or folder.is_dir() else fetch(source, token)


def fetch(repo_id: str, token: str | None) -> Path:
    """
    The files of a dataset repository (`user/name`, `user/name@revision`), on this machine.

    Raises:
        ValueError: if there is no such repository or revision.
    """
    source = HubSource.parse(repo_id)
    with source.named():
        return Path(snapshot_download(source.repo_id, repo_type="dataset", revision=source.revision, token=token))


def _clip(folder: Path, row: Mapping[str, Any], system: str, cache: Path, *, is_local: bool) -> GalleryClip:
    video = row.get("video")
    if isinstance(video, Mapping):
        video = video.get("bytes") or video.get("path")
    prompt = str(row.get("prompt") or row.get("caption") or "").strip()
    if not video or not prompt:
        raise ValueError("no clip or no prompt; fill the columns file_name and prompt.")
    path = _stored(video, cache) if isinstance(video, bytes) else Path(os.path.normpath(folder / video))
    if not isinstance(video, bytes) and not path.is_relative_to(folder):
        _check_outside(path, str(video), is_local=is_local)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such clip. Correct file_name or delete the row.")
    name = path.name if isinstance(video, bytes) else os.path.relpath(path, folder)
    given = row.get("video_id") or row.get("id")
    rest = {key: value for key, value in row.items() if key != "video"}
    seed = "" if row.get("seed") is None else str(row["seed"])
    return GalleryClip(
        str(given or content_id(name, prompt)), name, path, prompt, seed, system, rest, _hash(path.read_bytes())
    )


def _check_outside(path: Path, given: str, *, is_local: bool) -> None:
    """
    A dataset must not name files of this machine. What a scored set on this machine names are the clips of the set that was
    scored, which have metadata beside them; anything else is nobody's to show.
    """
    if not is_local:
        raise ValueError(f"{given}: outside the dataset. Correct file_name.")
    if not any((folder / name).is_file() for folder in (path.parent, path.parent.parent) for name in METADATA_NAMES):
        raise ValueError(
            f"{given}: outside the folder, and in no folder of clips (no {METADATA_NAMES[0]} beside it). Move or link the "
            "clip into the folder."
        )


def _hash(video: bytes) -> str:
    return hashlib.sha256(video).hexdigest()[:32]


def _stored(video: bytes, cache: Path) -> Path:
    path = cache / f"{_hash(video)}.mp4"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_bytes(video)
        partial.replace(path)
    return path


def pair_clips(first: Sequence[GalleryClip], second: Sequence[GalleryClip]) -> list[VideoPair]:
    """
    Clips of the same prompt and seed; of rows without a seed, the n-th clip of a prompt with the n-th.

    Raises:
        ValueError: if no clip has a partner.
    """
    others: dict[tuple[str, str], list[GalleryClip]] = defaultdict(list)
    for clip in second:
        others[clip.prompt, clip.seed].append(clip)
    pairs = []
    for clip in first:
        partners = others[clip.prompt, clip.seed]
        if partners:
            other = partners.pop(0)
            pairs.append(VideoPair(clip.prompt, clip.seed, clip, other))
    if not pairs:
        raise ValueError(
            f"{first[0].system} and {second[0].system} have no prompt and seed in common; generate both from one list of "
            "prompts and seeds."
        )
    return pairs


class ClipError(ValueError):
    """A clip that no player would show; the message is for the owner, since it names the file."""


def check_clip(path: Path) -> VideoInfo:
    """
    What a clip holds.

    Raises:
        ClipError: if it is gone or no video, or no browser plays it.
    """
    try:
        media_type(path)
        return _shape(path, path.stat().st_mtime)
    except (ValueError, OSError) as error:
        raise ClipError(f"{path}: {error}") from error


@lru_cache(maxsize=4096)
def _shape(path: Path, modified_s: float) -> VideoInfo:
    """Size and speed of a clip; every frame is decoded for it, once."""
    return probe_video(path)


def leave_out_unplayed(items: Mapping[T, Sequence[Path]], leave_out: Callable[[T, str], None]) -> None:
    """
    Leaves out each item with a clip that browsers do not play, and says why: at the start, so that nobody waits for a form
    that never opens. Only the heads of the files are read.

    Args:
        items: what somebody would be asked about -> its clips.
        leave_out: takes an item and the reason, for the owner.

    Raises:
        ValueError: if none is left.
    """
    whys: dict[T, str] = {}
    for name, paths in items.items():
        try:
            for path in paths:
                media_type(path)
        except (ValueError, OSError) as error:
            whys[name] = str(error)
            leave_out(name, str(error))
    if items and len(whys) == len(items):
        raise ValueError(f"none of the {len(items)} can be shown to anybody. The first: {next(iter(whys.values()))}")


class ClipShelf:
    """
    Serves clips, and nothing else, under addresses that tell neither the system nor a path: `clips/<32 hex digits>.mp4`.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._paths: dict[str, Path] = {}

    def url(self, path: Path) -> str:
        """The address of a clip, relative to the page."""
        name = f"{self._identity.digest('clip', str(path))}.mp4"
        self._paths[name] = path
        return f"clips/{name}"

    @property
    def route(self) -> Route:
        """The route to mount; it knows the clips that `url` was asked for."""
        return Route("/clips/{name}", self._serve)

    async def _serve(self, request: Request) -> Response:
        path = self._paths.get(request.path_params["name"])
        if path is None or not path.is_file():
            return PlainTextResponse("no such clip", status_code=404)
        headers = {"cache-control": "private, max-age=86400", "x-content-type-options": "nosniff"}
        return FileResponse(path, media_type=media_type(path), headers=headers)
