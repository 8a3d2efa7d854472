"""Rated clips from any documented form: a folder with `metadata.*`, published or tidy LiFT-HRA rows, scored rows.

Accepted columns, in a folder's metadata or in what `datasets.load_dataset` returns:

* `file_name` (folder) or `video` (dataset): the clip. A folder of Parquet files (published LiFT-HRA) and a dataset repo on
  the Hub (`user/name` or `user/name@revision`) are read as `load_dataset` reads them; of several splits, that named train.
* `prompt` or `caption`: its text.
* the rating, one of: label columns named as the dimensions (LiFT's, or those of the folder's own rubric: `store.rubrics`);
  `reward`; `annotations` (published LiFT-HRA, one row a clip); `dimension` and `label` (tidy LiFT-HRA, one row a
  rater, clip and dimension).
* `is_real: true` or `source: real`: a real clip, which needs no rating. Optional: `id`, `reasons`.
"""

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from huggingface_hub import constants

from ..records import RatedVideo, StoredVideo
from ..remote import is_remote, local_copy
from ..rubric import LIFT, Rubric
from .clip_rows import UnscoredError, is_unscored, rated_video, row_id, video_digest
from .disk.folders import files_below
from .rubrics.of_data import find_rubric
from .tables import TABLE_SUFFIXES, present, table_rows


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
#: Columns that mean something here. A name that differs in case or blanks would be passed over, so it is refused.
_COLUMNS = (
    *("file_name", "video", "prompt", "caption", "reward", "expected_reward", "is_real", "source", "id", "video_id"),
    *("dimension", "label", "annotations", "unscored"),
)


class RowError(NamedTuple):
    """
    A row that cannot be used: where it stands, and what is wrong with it and how to mend it.

    `is_unscored`: raters have not labelled all dimensions of the clip (yet), so that it has no reward.
    """

    where: str
    problem: str
    is_unscored: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class BadRowsError(ValueError):
    """Some rows cannot be used. `errors` lists them all; the message shows the first ten."""

    def __init__(self, errors: list[RowError]) -> None:
        self.errors = errors
        shown = "\n".join(f"  {error}" for error in errors[:10])
        more = f"\n  and {len(errors) - 10} more: `lift-trl validate` lists them all" if len(errors) > 10 else ""
        super().__init__(f"{len(errors)} bad rows; correct or delete them:\n{shown}{more}")


class CheckedRows(NamedTuple):
    """The clips that can be used, every row that cannot, and where the (first) row of each clip stands."""

    videos: list[RatedVideo]
    errors: list[RowError]
    places: list[str]


def load_rated_videos(
    data: "Dataset | DatasetDict | Path | str", *, rubric: Rubric | Path | str | None = None
) -> list[RatedVideo]:
    """
    The rated clips of `data`: a folder with metadata or Parquet files, a dataset repo, or what `load_dataset` returns.

    LiFT-HRA clips whose raters left a dimension out are unscored: they are left out, and counted in the log.

    Args:
        rubric: what the labels are of, or its YAML; by default what the folder or repo says (`store.rubrics`), or LiFT's.

    Raises:
        BadRowsError: naming each bad row, the reason and the remedy. Nothing is dropped silently.
        FileNotFoundError: if there is neither such a folder nor such a repo.
        ValueError: if `data` is a `DatasetDict` of several splits, or a folder or repo whose splits are not named train, or
            was made with another rubric.
    """
    checked = check_rated_videos(data, rubric=rubric)
    unscored = [error for error in checked.errors if error.is_unscored]
    if len(unscored) < len(checked.errors) or not checked.videos:
        raise BadRowsError(checked.errors)
    if unscored:
        logger.warning("%d clips lack labels and are left out, first %s", len(unscored), unscored[0])
    return checked.videos


def check_rated_videos(
    data: "Dataset | DatasetDict | Path | str", *, rubric: Rubric | Path | str | None = None
) -> CheckedRows:
    """As `load_rated_videos`, with the bad rows returned instead of raised. No clip is decoded."""
    opened = _opened(data, rubric)
    checked = _Checked(opened.rubric)
    tidy: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    num_unscored = 0
    for where, row in _stored_rows(opened):
        if isinstance(row, str):
            checked.errors.append(RowError(where, row))
            continue
        if is_unscored(row, opened.rubric):
            num_unscored += 1
            continue
        if row.get("dimension") is not None and row.get("label") is not None:
            # Not by `id`, which may be that of the rating.
            name = row_id({"video_id": row.get("video_id")}) or _source_key(row.get("video"))
            tidy.setdefault((name, str(row.get("prompt") or row.get("caption"))), []).append((where, row))
        else:
            checked.add(where, [row])
    for group in tidy.values():
        checked.add(group[0][0], [row for _, row in group])
    if num_unscored:
        logger.warning("%s: %d unscored clips are left out", opened.name, num_unscored)
    if not checked.videos and not checked.errors:
        checked.errors.append(RowError(opened.name, "holds no row."))
    return CheckedRows(list(checked.videos.values()), checked.errors, list(checked.places.values()))


def _source_key(video: Any) -> str:
    if isinstance(video, Mapping):
        video = video.get("bytes") or video.get("path")
    return video_digest(video) if isinstance(video, bytes | StoredVideo) else str(video)


@dataclass
class _Checked:
    """The clips so far by their ids, with where each stands and which file it has."""

    rubric: Rubric
    videos: dict[str, RatedVideo] = field(default_factory=dict)
    errors: list[RowError] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)

    def add(self, where: str, rows: list[Mapping[str, Any]]) -> None:
        """The clip of `rows`, or what is wrong with it."""
        try:
            video = rated_video(rows, self.rubric)
        except (ValueError, FileNotFoundError) as error:
            self.errors.append(RowError(where, str(error), isinstance(error, UnscoredError)))
            return
        file = video.video.resolve() if isinstance(video.video, Path) else None
        if video.id in self.videos:
            first, what = self.places[video.id], f"id {video.id!r}"
        elif file in self.files:
            first, what = self.files[file], str(video.video)
        else:
            self.videos[video.id], self.places[video.id] = video, where
            if file is not None:
                self.files[file] = where
            return
        problem = f"{what} is taken by {first}: delete a clip that stands twice, or rename one of two clips."
        self.errors.append(RowError(where, problem))


class _Opened(NamedTuple):
    """
    A folder with a metadata file, or a dataset whose clips are not decoded, and its name for messages. `root`: the folder
    from which its paths count, and which somebody else's dataset must not leave; `None` for a dataset in memory. `rubric`:
    what its labels are of.
    """

    name: str
    data: "Dataset | Path"
    root: Path | None = None
    rubric: Rubric = LIFT


def _opened(data: "Dataset | DatasetDict | Path | str", given: Rubric | Path | str | None = None) -> _Opened:
    """A folder with metadata as it is; any other, and a repo, as the dataset that it holds."""
    from datasets import DatasetDict, Video

    name = str(data) if isinstance(data, Path | str) else "dataset"
    root = None
    if isinstance(data, Path | str):
        is_copy, data = is_remote(data), local_copy(data)
        if isinstance(data, Path) or Path(data).exists() or not hub_dataset(data):
            folder = Path(data)
            if any((folder / name).is_file() for name in METADATA_NAMES) or not holds_parquet(folder):
                return _Opened(name, folder, folder if is_copy else None, find_rubric(folder, given))
        repo, revision = (None, None) if Path(data).exists() else hub_dataset(str(data)) or (None, None)
        splits = load_splits(repo or data, revision=revision)
        given = find_rubric(data, given)
        root = Path(data) if Path(data).exists() else Path(constants.HF_HOME)
        if len(splits) > 1 and "train" not in splits:
            raise ValueError(
                f"{name}: has the splits {', '.join(splits)} and none named train; name a folder or repo that has one."
            )
        data = splits["train" if "train" in splits else next(iter(splits))]
    if isinstance(data, DatasetDict):
        if len(data) != 1:
            raise ValueError(
                f'the dataset has the splits {", ".join(data)}; pass one of them, as in dataset["{next(iter(data))}"].'
            )
        data = next(iter(data.values()))
    for column, feature in data.features.items():
        if isinstance(feature, Video):
            data = data.cast_column(column, Video(decode=False))
    return _Opened(name, data.with_format(None), root, find_rubric(data, given))


def hub_dataset(name: str) -> tuple[str, str | None] | None:
    """
    Repo and revision, if `name` can be a dataset on the Hub.

    >>> hub_dataset("user/clips"), hub_dataset("user/clips@v1"), hub_dataset("./clips")
    (('user/clips', None), ('user/clips', 'v1'), None)
    """
    found = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@(.+))?", name)
    return (found[1], found[2]) if found else None


def holds_parquet(folder: Path) -> bool:
    """Whether `folder` has a Parquet file at any depth."""
    return any(path.suffix == ".parquet" for path in files_below(folder))


def load_splits(name: Path | str, *, revision: str | None = None) -> "DatasetDict":
    """
    All splits of a Parquet file, of a folder of such, or of a repo.

    Raises:
        FileNotFoundError: if there is no such repo.
        ValueError: if a file cannot be read.
    """
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        if Path(name).is_file():
            return load_dataset("parquet", data_files=str(name))
        return load_dataset(str(name), revision=revision)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(f"{name}: no such folder, and no such dataset on the Hub ({error}).") from error
    except FileNotFoundError:
        raise
    except (DatasetGenerationError, pa.ArrowInvalid, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno is not None:  # of the disk, not of what a file holds
            raise
        raise ValueError(
            f"{name}: a Parquet file of it cannot be read ({' '.join(str(cause).split())}). Write or fetch it again."
        ) from error


def metadata_file(folder: Path | str) -> Path:
    """
    The metadata file of a folder of clips.

    Raises:
        FileNotFoundError: if there is none of `metadata.jsonl`, `metadata.csv`, `metadata.parquet`.
        ValueError: if there are several.
    """
    tables = [path for path in sorted(Path(folder).glob("metadata.*")) if path.suffix in TABLE_SUFFIXES]
    if len(tables) > 1:
        names = " and ".join(path.name for path in tables)
        raise ValueError(f"{folder}: {names} stand side by side, and only one can hold; delete or rename the other.")
    if tables and tables[0].name in METADATA_NAMES:
        return tables[0]
    raise FileNotFoundError(
        f"{folder}: no {' or '.join(METADATA_NAMES)}. Put one beside the clips, with file_name, prompt and either reward "
        f"or {', '.join(LIFT.dimensions)}."
    )


def raw_rows(data: "Dataset | DatasetDict | Path | str") -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """
    (where, row) of a folder, a repo or a dataset, unchecked. `video` is a path, bytes, or both in a mapping (as `datasets`
    stores it). A line that cannot be read comes as text that says why.

    Raises:
        FileNotFoundError: if the folder has neither metadata nor Parquet files.
        ValueError: if `data` has several splits, as in `load_rated_videos`.
    """
    return _rows(_opened(data))


def stored_rows(
    data: "Dataset | DatasetDict | Path | str",
) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """As `raw_rows`, with `video` being one thing: a path, the bytes of a table's row, or a `StoredVideo` of a dataset's."""
    return _stored_rows(_opened(data))


def _stored_rows(opened: _Opened) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    for index, (where, row) in enumerate(_rows(opened)):
        if isinstance(row, Mapping) and isinstance(video := row.get("video"), Mapping):
            # The bytes stay in the dataset's file, or memory would grow with it.
            is_lazy = video.get("bytes") and not isinstance(opened.data, Path)
            stored = StoredVideo(opened.data, index) if is_lazy else video.get("bytes") or video.get("path")
            row = {**row, "video": stored}
        yield where, row


def _rows(opened: _Opened) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """As `raw_rows`, of what was opened."""
    name, data, root, rubric = opened
    columns = (*_COLUMNS, *rubric.dimensions)
    found = _folder_rows(data, columns) if isinstance(data, Path) else _dataset_rows(name, data, root, columns)
    for where, row in found:
        video = None if isinstance(row, str) else row.get("video")
        if isinstance(data, Path) and root is not None and isinstance(video, Path) and not _is_within(video, root):
            yield (
                where,
                f"{video}: outside of the folder, and only that was copied. Copy the clips beside its metadata.",
            )
        elif isinstance(video, str | bytes | Path | Mapping | None):
            yield where, row
        else:
            yield where, f"the clip is {video!r:.80}, which is no path; write the name of its file as text."


def _dataset_rows(
    name: str, data: "Dataset", root: Path | None, columns: Collection[str]
) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """As `raw_rows`, of a dataset whose clips are not decoded."""
    from datasets import ClassLabel

    if problem := _misnamed(data.column_names, columns):
        raise ValueError(f"{name}: {problem}")
    classes = {column: f for column, f in data.features.items() if isinstance(f, ClassLabel)}
    for number, row in enumerate(data, start=1):
        named = {
            column: feature.int2str(row[column]) for column, feature in classes.items() if row[column] is not None
        }
        yield f"{name}, row {number}", _rooted(present({**row, **named}), root)


def _rooted(row: dict[str, Any], root: Path | None) -> Mapping[str, Any] | str:
    """`row` with a clip that is no bytes by its path within `root`, never by a path of whatever folder we run in."""
    video = row.get("video")
    if root is None or not isinstance(video, Mapping) or video.get("bytes") or not video.get("path"):
        return row
    if not _is_within(path := root.absolute() / video["path"], root):
        return f"{video['path']}: outside of {root}, where a dataset has its clips. Correct the path."
    return {**row, "video": Path(os.path.normpath(path))}


def _is_within(path: Path, root: Path) -> bool:
    """Whether `path`, as it is written, stays in the folder `root`."""
    return Path(os.path.normpath(path.absolute())).is_relative_to(root.absolute())


def _folder_rows(folder: Path, columns: Collection[str]) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """As `raw_rows`, of a folder with a metadata file."""
    path = metadata_file(folder)
    for number, row in enumerate(table_rows(path), start=1):
        if isinstance(row, Mapping):
            if problem := _misnamed(row, columns):
                if path.suffix != ".jsonl":
                    raise ValueError(f"{path}: {problem}")
                yield f"{path}, row {number}", problem
                continue
            name = row.get("file_name") or row.get("video")
            if isinstance(name, Mapping) and not name.get("bytes"):  # as `datasets` writes a clip into a table
                name = name.get("path")
            row = {**row, "video": path.parent / name if name and isinstance(name, str) else name}
        yield f"{path}, row {number}", row


def _misnamed(names: Iterable[str], columns: Collection[str]) -> str | None:
    """What to say of a column of which the name is nearly one that has a meaning."""
    for name in names:
        meant = name.strip().lower().replace(" ", "_").replace("-", "_")
        if name not in columns and meant in columns:
            return f"the column {name!r} would not be read; rename it to {meant!r}."
    return None
