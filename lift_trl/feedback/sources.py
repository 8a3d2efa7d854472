"""Reads LiFT-HRA wherever it is and in whichever form: clips with all their ratings, and every bad row."""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import HfApi, snapshot_download

from ..hub_source import pinned
from ..records import SOURCES, Annotation, VideoSource, content_id
from ..remote import is_remote, local_copy
from ..rubric import LIFT, Rubric, folded
from ..store.clip_rows import row_caption, row_id, row_is_real
from ..store.rated_videos import METADATA_NAMES, RowError, holds_parquet, load_splits, raw_rows
from ..store.rubrics.of_data import check_same, find_rubric
from .authors_json import Rating, clip_id, is_authors_row, parse_rows, read_json, source_of
from .captions import Captioned, read_captions
from .clips import ClipFinder, default_cache_dir, store_bytes


logger = logging.getLogger(__name__)

MissingVideos = Literal["raise", "keep", "drop"]


@dataclass(frozen=True)
class HraClip:
    """One clip and every rater's ratings of it (none for a real clip without ratings). `where` its first row stands."""

    id: str
    video: VideoSource
    caption: str
    source: str
    annotations: tuple[Annotation, ...] = ()
    where: str = field(default="", compare=False)


class HraSource(NamedTuple):
    """Where LiFT-HRA is; the arguments of `load_hra`. The columns are those of a file of captions."""

    name_or_path: Path | str
    revision: str | None = None
    source: str | None = None
    video_dir: Path | str | None = None
    video_column: str | None = None
    caption_column: str | None = None
    rubric: Rubric | Path | str | None = None


@dataclass
class HraData:
    """What was read: the clips of each split, every bad row, the commit where it came from the Hub, and the rubric."""

    splits: dict[str, list[HraClip]] = field(default_factory=dict)
    errors: list[RowError] = field(default_factory=list)
    revision: str | None = None
    rubric: Rubric = LIFT


def read_hra(
    origin: HraSource,
    *,
    missing_videos: MissingVideos = "raise",
    fetch_videos: bool = True,
    cache_dir: Path | None = None,
) -> HraData:
    """
    All clips of `origin`, in the order of their first row. The arguments are those of `load_hra`.

    Raises:
        FileNotFoundError: if there is neither such a path nor such a repository.
        ValueError: if an argument has no legal value or the form is none of those that `load_hra` lists.
    """
    if missing_videos not in ("raise", "keep", "drop"):
        raise ValueError(f"missing_videos={missing_videos!r}; use 'raise', 'keep' or 'drop'.")
    if origin.source is not None and origin.source not in SOURCES:
        raise ValueError(f"source={origin.source!r}; use 'synthetic' or 'real'.")
    cache = default_cache_dir() if cache_dir is None else cache_dir
    here = local_copy(origin.name_or_path)
    repo, revision = pinned(here, origin.revision)
    is_copy, origin = is_remote(origin.name_or_path), origin._replace(name_or_path=repo, revision=revision)
    data = HraData()
    for split, rows, folder in _splits(origin, data, fetch_videos=fetch_videos):
        # A relative path counts from the dataset's folder, never from whatever folder we run in.
        elsewhere = Path(local_copy(origin.video_dir)).absolute() if origin.video_dir else None
        clips = elsewhere or folder
        finder = ClipFinder(clips, cache) if clips else None
        # A dataset from elsewhere must not name files of this machine.
        trusted = data.revision is None and not is_copy
        reader = _Reader(
            origin.source, missing_videos, finder, cache, data.errors, trusted, folder, elsewhere is not None
        )
        data.splits[split] = reader.read(rows)
        if reader.num_missing and missing_videos != "raise":
            logger.warning("%s: %d clips are missing (%s)", origin.name_or_path, reader.num_missing, missing_videos)
    if not any(data.splits.values()) and not data.errors:
        data.errors.append(RowError(str(origin.name_or_path), "holds no row."))
    return data


# ---- where the rows are ------------------------------------------------------------------------------------------------

# A row as (where, clip as the row gives it, problem): either of the last two.
_Row = tuple[str, HraClip | None, str | None]


def _splits(
    origin: HraSource, data: HraData, *, fetch_videos: bool
) -> Iterator[tuple[str, Iterable[_Row], Path | None]]:
    """(split, rows, folder from which paths count) of a local path or a repository."""
    path: Path | None = Path(origin.name_or_path).absolute()
    if path is None or not path.exists():
        path, data.revision = _fetch(origin, fetch_videos=fetch_videos)
    rubric = data.rubric = find_rubric(path or str(origin.name_or_path), origin.rubric, revision=data.revision)
    if path is None:
        for split, rows in load_splits(origin.name_or_path, revision=data.revision).items():
            yield split, _table_rows(raw_rows(rows), None, rubric), None
        return
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    if path.is_dir() and any((path / name).is_file() for name in METADATA_NAMES):
        yield "train", _table_rows(raw_rows(path), folder, rubric), folder
    elif files and all(file.suffix.lower() == ".json" for file in files):
        yield "train", (row for file in files for row in _json_rows(file, origin, rubric)), folder
    elif path.is_file() and path.suffix.lower() != ".parquet":
        yield "train", _caption_rows(read_captions(path, rubric, origin.video_column, origin.caption_column)), folder
    elif path.is_file() or holds_parquet(path):
        for split, rows in load_splits(path).items():
            yield split, _table_rows(raw_rows(rows), folder, rubric), folder
    else:
        raise ValueError(f"{path}: no {', '.join(METADATA_NAMES)}, no Parquet and no JSON file in this folder.")


def _fetch(origin: HraSource, *, fetch_videos: bool) -> tuple[Path | None, str | None]:
    """
    (local snapshot, commit) of a repository in the authors' form, (`None`, commit) of one that `load_dataset` reads.

    Raises:
        FileNotFoundError: if the name cannot be one of a repository.
    """
    name = str(origin.name_or_path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name}: no such file or folder, and no name of a repository (user/name).")
    info = HfApi().dataset_info(name, revision=origin.revision)
    files = [sibling.rfilename for sibling in info.siblings or []]
    annotations = [
        file for file in files if file.endswith(".json") and "/" not in file and file != "dataset_infos.json"
    ]
    if not annotations or any(file.endswith(".parquet") for file in files):
        return None, info.sha
    wanted = [*annotations, "videos/*", "*.zip"] if fetch_videos else annotations
    return Path(snapshot_download(name, repo_type="dataset", revision=info.sha, allow_patterns=wanted)), info.sha


# ---- rows of each form ---------------------------------------------------------------------------------------------------


def _json_rows(path: Path, origin: HraSource, rubric: Rubric) -> Iterator[_Row]:
    content = read_json(path)
    if isinstance(content, list) and any(is_authors_row(row) for row in content):
        check_same(rubric, LIFT, f"the rubric given and LiFT's, of which the answers in {path} are,")
        for where, ratings in parse_rows(path, content):
            if isinstance(ratings, str):
                yield where, None, ratings
            else:
                yield where, _rated_clip(ratings, annotator=path.stem), None
    else:
        yield from _caption_rows(read_captions(path, rubric, origin.video_column, origin.caption_column))


def _rated_clip(ratings: list[Rating], annotator: str) -> HraClip:
    """The ratings of one JSON row; the file's name stands for its raters, whom the authors do not name."""
    first = ratings[0]
    source, video = source_of(first.video_id), Path(first.reference)
    rows = tuple(
        Annotation(
            first.video_id,
            video,
            first.caption,
            r.dimension,
            r.label,
            r.reason,
            annotator,
            source,
        )
        for r in ratings
    )
    return HraClip(first.video_id, video, first.caption, source, rows)


def _caption_rows(rows: Iterable[tuple[str, Captioned | str]]) -> Iterator[_Row]:
    """Clips with captions and no rating: real ones."""
    for where, row in rows:
        if isinstance(row, str):
            yield where, None, row
        else:
            path = Path(row.video)
            name = clip_id(path.name if path.is_absolute() else row.video)
            yield where, HraClip(name, path, row.caption, "real"), None


def _table_rows(
    rows: Iterable[tuple[str, Mapping[str, Any] | str]], root: Path | None, rubric: Rubric
) -> Iterator[_Row]:
    for where, row in rows:
        try:
            yield (where, None, row) if isinstance(row, str) else (where, _table_clip(row, root, rubric), None)
        except ValueError as error:
            yield where, None, str(error)


def _table_clip(row: Mapping[str, Any], root: Path | None, rubric: Rubric) -> HraClip:
    """One row of a table in `root`: a clip with `annotations`, with a label column a dimension, or one tidy rating."""
    encoded = row.get("video")
    video = (encoded.get("bytes") or encoded.get("path")) if isinstance(encoded, Mapping) else encoded
    caption = row_caption(row)
    if not video:
        raise ValueError("no clip; fill the column file_name (folder) or video (dataset).")
    if caption is None:
        raise ValueError("no caption; fill the column caption (or prompt).")
    source = "real" if row_is_real(row) else str(row.get("source") or "synthetic").strip().lower()
    if source not in SOURCES:
        raise ValueError(f"source {row.get('source')!r} is unknown; use 'synthetic' or 'real'.")
    video = video if isinstance(video, bytes) else Path(video)
    is_tidy = row.get("dimension") is not None
    given = row_id({"video_id": row.get("video_id")} if is_tidy else row)
    content = video if isinstance(video, bytes) else row.get("file_name") or _inside(video, root) or video.name
    name = given or content_id(content, caption)
    given_ratings = row.get("annotations")
    ratings = [row] if is_tidy else _wide_ratings(row, rubric) if given_ratings is None else given_ratings
    if not isinstance(ratings, list) or not all(isinstance(rating, Mapping) for rating in ratings):
        raise ValueError(f"annotations are {ratings!r:.80}; give a list of {{dimension, label, reason, annotator}}.")
    clip = HraClip(name, video, caption, source)
    annotations = tuple(_annotation(clip, {**rating}, rubric) for rating in ratings)
    if not annotations and source != "real":
        raise ValueError(
            f"no rating; give annotations, or the labels {', '.join(rubric.dimensions)}, or is_real: true."
        )
    return replace(clip, annotations=annotations)


def _annotation(clip: HraClip, rating: Mapping[str, Any], rubric: Rubric) -> Annotation:
    dimension = rubric.parse_dimension(rating.get("dimension"))
    label, reason = rubric.parse_label(str(rating.get("label"))), str(rating.get("reason") or "")
    annotator = row_id({"id": rating.get("annotator")}) or ""
    times = [None if value is None else str(value) for value in (rating.get("created_at"), rating.get("ui_version"))]
    return Annotation(clip.id, clip.video, clip.caption, dimension, label, reason, annotator, clip.source, *times)


def _wide_ratings(row: Mapping[str, Any], rubric: Rubric) -> list[dict[str, Any]]:
    """The ratings of a row with one label column a dimension, and `reasons` as a mapping (or its JSON)."""
    labels = {dimension: row[dimension] for dimension in rubric.dimensions if row.get(dimension) is not None}
    reasons = row.get("reasons") if labels else None
    if isinstance(reasons, str):
        try:
            reasons = json.loads(reasons)
        except json.JSONDecodeError:
            pass  # refused below
    if not isinstance(reasons, Mapping | None):
        raise ValueError(f"reasons {row.get('reasons')!r:.80} is no mapping of dimension to text, nor its JSON.")
    return [
        {**row, "dimension": dimension, "label": label, "reason": (reasons or {}).get(dimension)}
        for dimension, label in labels.items()
    ]


# ---- rows to clips -------------------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """Joins the rows of a clip, finds its file in `root` or `is_elsewhere`, and notes what is wrong."""

    source: str | None
    missing_videos: MissingVideos
    finder: ClipFinder | None
    cache_dir: Path
    errors: list[RowError]
    trust_paths: bool
    root: Path | None
    is_elsewhere: bool
    num_missing: int = 0
    owners: dict[Path, str] = field(default_factory=dict)

    def read(self, rows: Iterable[_Row]) -> list[HraClip]:
        joined: dict[str, HraClip] = {}
        places: dict[str, str] = {}
        for where, clip, problem in rows:
            if clip is None:
                self.errors.append(RowError(where, str(problem)))
                continue
            # Bytes go to the disk at once: a dataset of clips is larger than the memory.
            if isinstance(clip.video, bytes):
                clip = _with(clip, video=store_bytes(clip.video, self.cache_dir))
            known = joined.setdefault(clip.id, clip)
            first = places.setdefault(clip.id, where)
            if known is clip:
                continue
            if (folded(known.caption), known.video) != (folded(clip.caption), clip.video):
                problem = f"clip {clip.id!r} has another caption or file in {first}; one id names one clip."
                self.errors.append(RowError(where, problem))
            elif not clip.annotations:
                self.errors.append(RowError(where, f"clip {clip.id!r} stands in {first} already; delete one of them."))
            else:
                clip = _with(clip, caption=known.caption)  # one text for all, though white space tells them apart
                joined[clip.id] = replace(known, annotations=known.annotations + clip.annotations)
        found = [self._found(replace(clip, where=places[name])) for name, clip in joined.items()]
        return [clip for clip in found if clip is not None]

    def _found(self, clip: HraClip) -> HraClip | None:
        """`clip` with its file and source; `None` where it is missing and not kept."""
        clip = clip if self.source is None else _with(clip, source=self.source)
        reference = Path(str(clip.video))
        try:
            path = self._file(reference)
        except ValueError as error:
            self.errors.append(RowError(clip.where, str(error)))
            return None
        if path is not None:
            owner = self.owners.setdefault(path.resolve(), clip.where)
            if owner != clip.where and not self._is_stored(path):
                problem = (
                    f"{reference}: is the clip of {owner} already ({path}); one file is one clip. Correct the path."
                )
                self.errors.append(RowError(clip.where, problem))
                return None
            return _with(clip, video=path)
        self.num_missing += 1
        if self.missing_videos == "raise":
            remedy = "Fetch it, give the folder of the clips (video_dir), or pass missing_videos='keep' or 'drop'."
            self.errors.append(RowError(clip.where, f"{reference}: no such clip. {remedy}"))
        return clip if self.missing_videos == "keep" else None

    def _file(self, reference: Path) -> Path | None:
        """The file that a row names, `None` if there is none."""
        if reference.is_absolute():
            inner = _inside(reference, self.root)
            is_moved = self.is_elsewhere and inner is not None
            if (self.trust_paths and not is_moved or self._is_stored(reference)) and reference.is_file():
                return reference
            if inner is None:
                return None
            reference = inner
        return self.finder.find(reference.as_posix()) if self.finder else None

    def _is_stored(self, path: Path) -> bool:
        """Whether `path` is that of bytes which this reader, or an earlier one, put into the cache."""
        return Path(os.path.normpath(path)).is_relative_to(self.cache_dir)


def _inside(path: Path, folder: Path | None) -> Path | None:
    """The path that `path` has from `folder`; `None` where it is none of `folder`."""
    return path.relative_to(folder) if folder and path.is_relative_to(folder) else None


def _with(clip: HraClip, **changes: Any) -> HraClip:
    """`clip` and its annotations with changed `video`, `source` or `caption`."""
    return replace(clip, **changes, annotations=tuple(replace(row, **changes) for row in clip.annotations))
