"""Rated clips from any documented form: a folder with `metadata.*`, published or tidy LiFT-HRA rows, scored rows.

Accepted columns, in a folder's metadata or in what `datasets.load_dataset` returns:

* `file_name` (folder) or `video` (dataset): the clip. A folder of Parquet files (published LiFT-HRA) and a dataset repo on
  the Hub (`user/name` or `user/name@revision`) are read as `load_dataset` reads them; of several splits, that named train.
* `prompt` or `caption`: its text.
* the rating, one of: the three label columns named as the dimensions; `reward`; `annotations` (published LiFT-HRA, one
  row a clip); `dimension` and `label` (tidy LiFT-HRA, one row a rater, clip and dimension).
* `is_real: true` or `source: real`: a real clip, which needs no rating. Optional: `id`, `reasons`.
"""

import csv
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..records import RatedVideo, StoredVideo, VideoSource, content_id
from ..rubric import Dimension, Label, majority_label, parse_label
from .video_io import describe


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


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


class _UnscoredError(ValueError):
    """Raters labelled some dimensions of a clip, but not all."""


class CheckedRows(NamedTuple):
    """The clips that can be used, every row that cannot, and where the (first) row of each clip stands."""

    videos: list[RatedVideo]
    errors: list[RowError]
    places: list[str]


def load_rated_videos(data: "Dataset | DatasetDict | Path | str") -> list[RatedVideo]:
    """
    The rated clips of `data`: a folder with metadata or Parquet files, a dataset repo, or what `load_dataset` returns.

    LiFT-HRA clips whose raters left a dimension out are unscored: they are left out, and counted in the log.

    Raises:
        BadRowsError: naming each bad row, the reason and the remedy. Nothing is dropped silently.
        FileNotFoundError: if there is neither such a folder nor such a repo.
        ValueError: if `data` is a `DatasetDict` of several splits, or a folder or repo whose splits are not named train.
    """
    checked = check_rated_videos(data)
    unscored = [error for error in checked.errors if error.is_unscored]
    if len(unscored) < len(checked.errors) or not checked.videos:
        raise BadRowsError(checked.errors)
    if unscored:
        logger.warning("%d clips lack labels and are left out, first %s", len(unscored), unscored[0])
    return checked.videos


def check_rated_videos(data: "Dataset | DatasetDict | Path | str") -> CheckedRows:
    """As `load_rated_videos`, with the bad rows returned instead of raised. No clip is decoded."""
    errors: list[RowError] = []
    tidy: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    videos: dict[str, tuple[str, RatedVideo]] = {}

    name, data = _opened(data)

    def add(where: str, rows: list[Mapping[str, Any]]) -> None:
        try:
            video = _rated_video(rows)
        except (ValueError, FileNotFoundError) as error:
            errors.append(RowError(where, str(error), isinstance(error, _UnscoredError)))
            return
        if video.id in videos:
            first = videos[video.id][0]
            problem = (
                f"id {video.id!r} is taken by {first}: delete a clip that stands twice, or rename one of two clips."
            )
            errors.append(RowError(where, problem))
            return
        videos[video.id] = (where, video)

    for index, (where, row) in enumerate(_rows(name, data)):
        if isinstance(row, str):
            errors.append(RowError(where, row))
            continue
        if row.get("unscored"):
            continue  # a critic could not score the clip and says why; such a clip has no reward and is not trained on
        video = row.get("video")
        if isinstance(video, Mapping) and video.get("bytes") and not isinstance(data, Path):
            # The bytes stay in the dataset's file, or memory would grow with it.
            row = {**row, "video": StoredVideo(data, index)}
        if row.get("dimension") is not None and row.get("label") is not None:
            # Not by `id`, which may be that of the rating.
            name = row.get("video_id") or _source_key(row.get("video"))
            tidy.setdefault((str(name), str(_text(row))), []).append((where, row))
        else:
            add(where, [row])
    for group in tidy.values():
        add(group[0][0], [row for _, row in group])
    if not videos and not errors:
        errors.append(RowError(name, "holds no row."))
    places = [where for where, _ in videos.values()]
    return CheckedRows([video for _, video in videos.values()], errors, places)


class _Opened(NamedTuple):
    """A folder with a metadata file, or a dataset whose clips are not decoded, and its name for messages."""

    name: str
    data: "Dataset | Path"


def _opened(data: "Dataset | DatasetDict | Path | str") -> _Opened:
    """A folder with metadata as it is; any other, and a repo, as the dataset that it holds."""
    from datasets import DatasetDict, Video

    name = str(data) if isinstance(data, Path | str) else "dataset"
    if isinstance(data, Path | str):
        if isinstance(data, Path) or Path(data).exists() or not hub_dataset(data):
            folder = Path(data)
            if any((folder / name).is_file() for name in METADATA_NAMES) or not any(folder.rglob("*.parquet")):
                return _Opened(name, folder)
        splits = _load(name)
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
    return _Opened(name, data)


def hub_dataset(name: str) -> tuple[str, str | None] | None:
    """
    Repo and revision, if `name` can be a dataset on the Hub.

    >>> hub_dataset("user/clips"), hub_dataset("user/clips@v1"), hub_dataset("./clips")
    (('user/clips', None), ('user/clips', 'v1'), None)
    """
    found = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@(.+))?", name)
    return (found[1], found[2]) if found else None


def _load(name: str) -> "DatasetDict":
    """All splits of a folder of Parquet files or of a repo."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    if Path(name).exists():
        return load_dataset(name)
    repo, revision = hub_dataset(name) or (name, None)
    try:
        return load_dataset(repo, revision=revision)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(f"{name}: no such folder, and no such dataset on the Hub ({error}).") from error


def metadata_file(folder: Path | str) -> Path:
    """
    The metadata file of a folder of clips.

    Raises:
        FileNotFoundError: if there is none of `metadata.jsonl`, `metadata.csv`, `metadata.parquet`.
    """
    for name in METADATA_NAMES:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise FileNotFoundError(
        f"{folder}: no {' or '.join(METADATA_NAMES)}. Put one beside the clips, with file_name, prompt and either reward "
        f"or {', '.join(Dimension)}."
    )


def raw_rows(data: "Dataset | DatasetDict | Path | str") -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """
    (where, row) of a folder, a repo or a dataset, unchecked. `video` is a path, bytes, or both in a mapping (as `datasets`
    stores it). A line that cannot be read comes as text that says why.

    Raises:
        FileNotFoundError: if the folder has neither metadata nor Parquet files.
        ValueError: if `data` has several splits, as in `load_rated_videos`.
    """
    return _rows(*_opened(data))


def _rows(name: str, data: "Dataset | Path") -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """As `raw_rows`, of what was opened."""
    for where, row in _folder_rows(data) if isinstance(data, Path) else _dataset_rows(name, data):
        video = None if isinstance(row, str) else row.get("video")
        if isinstance(video, str | bytes | Path | Mapping | None):
            yield where, row
        else:
            yield where, f"the clip is {video!r:.80}, which is no path; write the name of its file as text."


def _dataset_rows(name: str, data: "Dataset") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """As `raw_rows`, of a dataset whose clips are not decoded."""
    from datasets import ClassLabel

    classes = {column: f for column, f in data.features.items() if isinstance(f, ClassLabel)}
    for number, row in enumerate(data, start=1):
        named = {
            column: feature.int2str(row[column]) for column, feature in classes.items() if row[column] is not None
        }
        yield f"{name}, row {number}", {**row, **named}


def _folder_rows(folder: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """As `raw_rows`, of a folder with a metadata file."""
    path = metadata_file(folder)
    for number, row in enumerate(_file_rows(path), start=1):
        if isinstance(row, Mapping):
            name = row.get("file_name") or row.get("video")
            row = {**row, "video": path.parent / name if name and isinstance(name, str) else name}
        yield f"{path}, row {number}", row


def _file_rows(path: Path) -> Iterable[Mapping[str, Any] | str]:
    if path.suffix == ".jsonl":
        # A file that people write: its last line may lack the newline, and every bad line is to be listed.
        return [_json_row(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def _json_row(line: str) -> Mapping[str, Any] | str:
    """The row of a line, or what is wrong with the line."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error}). Correct or delete the line."
    return row if isinstance(row, dict) else "not a JSON object. One line holds one row."


def _rated_video(rows: list[Mapping[str, Any]]) -> RatedVideo:
    """One clip from its row, or from its tidy rows. Raises `ValueError` that says what is wrong."""
    row = rows[0]
    video, prompt = _video(row), _text(row)
    if prompt is None or not str(prompt).strip():
        raise ValueError(f"{describe(video)}: no prompt; fill the column prompt (or caption).")
    is_real = _is_real(row)
    labels = None if is_real else _labels(rows)
    reward = None if is_real or labels else _reward(row, "reward")
    expected = None if is_real else _reward(row, "expected_reward")
    if not is_real and labels is None and reward is None:
        raise ValueError(
            f"{describe(video)}: no rating; give reward, or the labels {', '.join(Dimension)}, or set is_real: true."
        )
    digest = video_digest(video)
    given = row.get("video_id") or row.get("id")
    if any((other.get("video_id") or other.get("id")) != given for other in rows):
        given = None  # tidy rows with an id each: none of them is the clip's
    name = given or content_id(digest, prompt, is_real)
    return RatedVideo(str(name), video, str(prompt).strip(), labels, reward, is_real, expected)


def _text(row: Mapping[str, Any]) -> Any:
    return row.get("prompt") if row.get("prompt") is not None else row.get("caption")


def _source_key(video: Any) -> str:
    if isinstance(video, Mapping):
        video = video.get("bytes") or video.get("path")
    return video_digest(video) if isinstance(video, bytes | StoredVideo) else str(video)


def _video(row: Mapping[str, Any]) -> VideoSource | StoredVideo:
    video = row.get("video")
    if isinstance(video, Mapping):
        video = video.get("bytes") or video.get("path")
    if not video:
        raise ValueError("no clip; fill the column file_name (folder) or video (dataset).")
    if isinstance(video, bytes | StoredVideo):
        return video
    if not Path(video).is_file():
        raise FileNotFoundError(f"{video}: no such video file. Correct the path or leave the row out.")
    return Path(video)


def video_digest(video: VideoSource | StoredVideo) -> str:
    """sha256 of the file's bytes, in hexadecimal."""
    if isinstance(video, StoredVideo):
        video = video.read()
    if isinstance(video, bytes):
        return hashlib.sha256(video).hexdigest()
    with open(video, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_real(row: Mapping[str, Any]) -> bool:
    value = row.get("is_real")
    if value is None:
        return row.get("source") == "real"
    if isinstance(value, str):
        if value.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"is_real={value!r}; use true or false.")
        return value.lower() in ("true", "1")
    return bool(value)


def _labels(rows: list[Mapping[str, Any]]) -> dict[Dimension, Label] | None:
    """The label of each dimension, several raters pooled by majority; `None` where the row has no label at all."""
    given: dict[Dimension, list[Label]] = {}
    annotations = rows[0].get("annotations")
    if rows[0].get("dimension") is not None:
        annotations = rows
    if annotations is not None:
        if not isinstance(annotations, list) or not all(isinstance(rating, Mapping) for rating in annotations):
            raise ValueError(
                f"annotations are {annotations!r:.80}; give a list of {{dimension, label, reason, annotator}}."
            )
        for rating in annotations:
            given.setdefault(_dimension(rating.get("dimension")), []).append(parse_label(str(rating.get("label"))))
    else:
        for dimension in Dimension:
            if rows[0].get(dimension) is not None:
                given[dimension] = [parse_label(str(rows[0][dimension]))]
    if not given:
        return None
    missing = [dimension.value for dimension in Dimension if dimension not in given]
    if missing:
        kind = ValueError if annotations is None else _UnscoredError
        raise kind(f"no label for {', '.join(missing)}; a clip needs all three, or give reward instead.")
    return {dimension: majority_label(given[dimension]) for dimension in Dimension}


def _dimension(name: Any) -> Dimension:
    if name not in list(Dimension):
        raise ValueError(f"dimension {name!r} is unknown; use one of {', '.join(Dimension)}.")
    return Dimension(name)


def _reward(row: Mapping[str, Any], column: str) -> float | None:
    """The reward in `column`, in [0, 1]."""
    value = row.get(column)
    if value is None:
        return None
    try:
        reward = float(value)
    except (TypeError, ValueError):
        reward = None
    if reward is None or isinstance(value, bool):
        raise ValueError(f"{column} {value!r} is no number; give a number in [0, 1].")
    if math.isnan(reward) or not 0 <= reward <= 1:
        raise ValueError(f"{column} {reward} is not in [0, 1]; score the clip again or leave the row out.")
    return reward
