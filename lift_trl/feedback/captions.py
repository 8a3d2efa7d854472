"""Clips with captions and no ratings, as OpenVid, VIDGEN and many others publish them: a table, or one JSON file."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .authors_json import read_json


#: Names under which the clip and the caption stand in known datasets (OpenVid-1M: video, caption; VIDGEN-1M: vid, caption).
VIDEO_COLUMNS = ("video", "file_name", "vid", "video_path", "path", "videoid", "video_id")
CAPTION_COLUMNS = ("caption", "prompt", "text")


def read_captions(
    path: Path, video_column: str | None = None, caption_column: str | None = None
) -> Iterator[tuple[str, str | None, str | None]]:
    """
    (where, clip, caption) of each row of a CSV, TSV, JSON or JSON-lines file. A JSON file holds a list of rows, or one
    mapping of clip to caption.

    Args:
        video_column, caption_column: names of the columns, found among `VIDEO_COLUMNS` and `CAPTION_COLUMNS` by default.

    Raises:
        ValueError: if the file is of another kind or a column is missing.
    """
    for number, row in enumerate(_rows(path), start=1):
        if not isinstance(row, Mapping):
            raise ValueError(f"{path}, row {number}: {row!r:.60} is no row; a row names a clip and its caption.")
        video = row[_column(path, row, video_column, VIDEO_COLUMNS, "video_column")]
        caption = row[_column(path, row, caption_column, CAPTION_COLUMNS, "caption_column")]
        yield f"{path}, row {number}", video and str(video), caption and str(caption)


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            try:
                if line.strip():
                    yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error}). Correct or delete the line.") from error
    elif path.suffix in (".csv", ".tsv"):
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, Mapping):
            content = [{"video": video, "caption": caption} for video, caption in content.items()]
        yield from content
    else:
        raise ValueError(
            f"{path}: captions are read from .csv, .tsv, .json or .jsonl; convert the file to one of them."
        )


def _column(path: Path, row: Mapping[str, Any], given: str | None, known: tuple[str, ...], argument: str) -> str:
    """The name of a column."""
    names = [name for name in ((given,) if given else known) if name in row]
    if not names:
        wanted, found = given or " or ".join(known), ", ".join(map(str, row))
        raise ValueError(f"{path}: no column {wanted} among {found}; name it by {argument}.")
    return names[0]
