"""Tables and texts that people write: read as UTF-8, each row with its header, and with one meaning of missing."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml


TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
#: Endings of a text with one prompt a line.
_TEXT_SUFFIXES = ("", ".txt")
#: How pandas, Python and SQL write a missing value as text.
_MISSING = ("nan", "NaN", "NaT", "<NA>", "None", "null", "NULL")
#: What a person says, of which such a word may be all.
_SPOKEN = ("reason", "reasons")


def text_lines(path: Path | str) -> Iterator[str]:
    """
    The lines of a text file with their ends, without a byte order mark.

    Raises:
        ValueError: naming file, line and remedy if the file is not UTF-8.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            yield _text(path, number, line)


def _text(path: Path | str, number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        if "\0" in text:
            raise UnicodeDecodeError("utf-8", line, line.index(0), line.index(0) + 1, "")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: byte {line[error.start]:#04x} is not UTF-8, so this is another encoding (UTF-16, "
            "cp1252). Save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')."
        ) from error
    return text


def numbered_rows(path: Path | str, *, is_log: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    The rows of a JSON-lines file with the numbers of their lines, without blank ones. The last line needs no end.

    Args:
        is_log: whether processes append to it (a part of a manifest, a segment of votes): then a last line without an end
            that is no row is the half that a killed process left, and is passed over.

    Raises:
        ValueError: naming file and line, if any other line is no JSON object or no UTF-8.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = _json_row(_text(path, number, line))
                if isinstance(row, str):
                    raise ValueError(f"{path}, line {number}: {row}")
            except ValueError:
                if is_log and not line.endswith(b"\n"):
                    return
                raise
            yield number, row


_MERGE = "tag:yaml.org,2002:merge"


class _EachKeyOnce(yaml.SafeLoader):
    """YAML whose mappings have each key once; of two PyYAML takes the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As PyYAML's, before `<<` is written out, of which there may be several."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"line {line}: {key.value} stands in line {lines[name]} too"
                raise yaml.constructor.ConstructorError(problem=where)
            lines[name] = line
        return node


def read_yaml(path: Path | str) -> Any:
    """
    What a YAML holds that people wrote.

    Raises:
        FileNotFoundError, ValueError: naming the file, and where it is no UTF-8 or no YAML, or a key stands twice.
    """
    text = "".join(text_lines(path))
    try:
        return yaml.load(text, _EachKeyOnce)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is no YAML ({' '.join(str(error).split())}). Correct it.") from error


def table_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    """
    The rows of a table in one of `TABLE_SUFFIXES`, as `present` leaves them; what is wrong with a row in place of it.

    Raises:
        ValueError: naming file and remedy if it is of another kind, no row of it can be read, or two columns share a name.
    """
    rows: Iterable[Mapping[str, Any] | str]
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        rows = (_json_row(line) for line in text_lines(path) if line.strip())
    elif suffix in (".csv", ".tsv"):
        rows = _separated_rows(path, "," if suffix == ".csv" else "\t")
    elif suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        raise ValueError(f"{path}: tables are read from {', '.join(TABLE_SUFFIXES)}; convert the file to one of them.")
    return (row if isinstance(row, str) else present(row) for row in rows)


def prompt_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """
    (where, row) of each prompt of a table with a column `prompt`, or of a text with one a line, where each counts once.

    Raises:
        ValueError: naming file and row if a row has no prompt, or the file is neither: what no prompt is would be sampled.
    """
    suffix = path.suffix.lower()
    if suffix in _TEXT_SUFFIXES:
        texts = dict.fromkeys(line.strip() for line in text_lines(path))
        yield from ((str(path), {"prompt": text}) for text in texts if text)
        return
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(
            f"{path}: prompts are read from a text with one a line (.txt) or a table with a column prompt "
            f"({', '.join(TABLE_SUFFIXES)}); convert or rename the file."
        )
    for number, row in enumerate(table_rows(path), start=1):
        where = f"{path}, row {number}"
        if isinstance(row, str):
            raise ValueError(f"{where}: {row}")
        prompt = row.get("prompt")
        if not isinstance(prompt, str):
            raise ValueError(f"{where}: no prompt; fill the column prompt, or delete the row.")
        yield where, {**row, "prompt": prompt.strip()}


def present(value: Any, *, is_spoken: bool = False) -> Any:
    """
    `value`, and what it holds, with `None` for each value that is missing: NaN, blank text, or a word for them.

    >>> present({"prompt": "nan", "reward": float("nan"), "reasons": {"motion_smoothness": "None"}, "is_real": False})
    {'prompt': None, 'reward': None, 'reasons': {'motion_smoothness': 'None'}, 'is_real': False}
    """
    if isinstance(value, Mapping):
        return {name: present(entry, is_spoken=is_spoken or name in _SPOKEN) for name, entry in value.items()}
    if isinstance(value, list):
        return [present(entry, is_spoken=is_spoken) for entry in value]
    if isinstance(value, str):
        text = value.strip()
        return None if not text or text in _MISSING and not is_spoken else value
    return None if isinstance(value, float | Decimal) and math.isnan(value) else value


def _json_row(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return f"not JSON ({error}). Correct or delete the line."
    except ValueError as error:
        return str(error)
    return row if isinstance(row, dict) else "not a JSON object. One line holds one row."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} stands twice in the row; delete one.")
    return row


def _separated_rows(path: Path, separator: str) -> Iterator[Mapping[str, Any] | str]:
    """The rows below the header. Blank lines, and those of empty cells only, are none."""
    # A space before a quote is no part of the text.
    reader = csv.reader(text_lines(path), delimiter=separator, skipinitialspace=True, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield f"line {reader.line_num}: {error}. Double each quotation mark within quotes, and close them."
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(path, [cell.strip() for cell in cells], separator)
        elif len(cells) != len(header):
            yield (
                f"{len(cells)} cells, {len(header)} columns; put a text that holds {separator!r}, such as the caption, "
                "in quotes."
            )
        else:
            yield dict(zip(header, cells))


def _header(path: Path, names: list[str], separator: str) -> list[str]:
    """`names`, where each has one meaning. Columns without a name are passed over."""
    other = next((mark for mark in ",;\t|" if mark != separator and mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise ValueError(
            f"{path}: the header is one cell, {names[0]!r:.80}. Its cells are parted by {other!r}; save the table with "
            f"{separator!r} between them."
        )
    twice = next((name for name, count in Counter(names).items() if count > 1 and name), None)
    if twice is not None:
        raise ValueError(f"{path}: two columns are named {twice!r}; rename or delete one.")
    return names


def _parquet_rows(path: Path) -> list[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Mapping[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what the file holds
            raise
        why = " ".join(str(error).split())
        raise ValueError(f"{path}: no readable Parquet file ({why}). Write or fetch it again.") from error
    return rows
