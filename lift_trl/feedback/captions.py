"""Clips with captions and no ratings, as OpenVid, VIDGEN and many others publish them: a table, or one JSON file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..rubric import Rubric
from ..store.tables import TABLE_SUFFIXES, present, table_rows
from .authors_json import read_json


#: Names under which the clip and the caption stand in known datasets (OpenVid-1M: video, caption; VIDGEN-1M: vid, caption).
VIDEO_COLUMNS = ("video", "file_name", "vid", "video_path", "path", "videoid", "video_id")
CAPTION_COLUMNS = ("caption", "prompt", "text")
#: What only a table of ratings has.
_RATINGS = ("reward", "label", "annotations", "is_real")


class Captioned(NamedTuple):
    """A clip, as the file names it, and its caption."""

    video: str
    caption: str


def read_captions(
    path: Path, rubric: Rubric, video_column: str | None = None, caption_column: str | None = None
) -> Iterator[tuple[str, Captioned | str]]:
    """
    (where, clip and caption) of each row of a table, or of a JSON file with a list of rows or a mapping of clip to caption;
    (where, what is wrong) of a row that cannot be used.

    Args:
        rubric: whose dimensions name columns of labels.
        video_column, caption_column: names of the columns, found among `VIDEO_COLUMNS` and `CAPTION_COLUMNS` by default.

    Raises:
        ValueError: if the file is of another kind, a column is missing, or it holds ratings, which would be lost.
    """
    for number, row in enumerate(_rows(path), start=1):
        where = f"{path}, row {number}"
        if not isinstance(row, Mapping):
            yield where, row if isinstance(row, str) else f"{row!r:.60} is no row; a row names a clip and its caption."
            continue
        rated = next((column for column in (*_RATINGS, *rubric.dimensions) if row.get(column) is not None), None)
        if rated is not None:
            raise ValueError(
                f"{path}: holds ratings ({rated}), and a file of captions has none. Put the rows into metadata.jsonl or "
                ".csv in a folder of its own, and name that folder."
            )
        video = row.get(_column(path, row, video_column, VIDEO_COLUMNS, "video_column"))
        caption = row.get(_column(path, row, caption_column, CAPTION_COLUMNS, "caption_column"))
        if video is None or caption is None:
            yield where, "no clip or no caption; fill both columns or delete the row."
        elif not isinstance(caption, str) or not isinstance(video, str | int):
            yield (
                where,
                f"clip {video!r:.60} and caption {caption!r:.60} are not both text; correct or delete the row.",
            )
        else:
            yield where, Captioned(str(video).strip(), caption.strip())


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix.lower() in TABLE_SUFFIXES:
        yield from table_rows(path)
    elif path.suffix.lower() == ".json":
        content = read_json(path)
        if isinstance(content, Mapping):
            content = [{"video": video, "caption": caption} for video, caption in content.items()]
        if not isinstance(content, list):
            raise ValueError(
                f"{path}: holds {content!r:.60}; captions are a list of rows, or a mapping of clip to caption."
            )
        yield from (row if isinstance(row, str) else present(row) for row in content)
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
