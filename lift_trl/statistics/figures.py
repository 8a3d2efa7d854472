"""Figures of an evaluation as a table that people write: read with each value checked."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import EvalRow
from ..store.tables import table_rows


def read_figures(path: Path) -> list[EvalRow]:
    """
    Figures written by another stage, or by hand: a table (JSON lines, CSV) with the fields of `EvalRow`.

    Raises:
        ValueError: naming the line, if a field is missing or unknown, or no number where it must be one.
    """
    rows = []
    for number, row in enumerate(table_rows(path), start=1):
        try:
            rows.append(_figure(row))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return rows


def _figure(row: Mapping[str, Any] | str) -> EvalRow:
    if isinstance(row, str):
        raise ValueError(row)
    known = EvalRow.__dataclass_fields__
    if (unknown := row.keys() - known) or not row.keys() >= {"suite", "metric", "system", "n"}:
        raise ValueError(
            f"columns {', '.join(map(str, row))}{'' if unknown else ' only'}; a row has {', '.join(known)}."
        )
    if row.get("value") is None:
        raise ValueError("no value; fill it or delete the row.")
    given = row.get("ci95")
    if given is not None and not (isinstance(given, list) and len(given) == 2):
        raise ValueError(f"ci95 is {given!r}; write a list of its two ends, or leave it out.")
    ends = None if given is None else (_finite("ci95", given[0]), _finite("ci95", given[1]))
    n = _finite("n", row["n"])
    if not n.is_integer() or n < 0:
        raise ValueError(f"n is {row['n']!r}; write a whole number of prompts.")
    names = [row[name] for name in ("suite", "metric", "system")]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"suite, metric and system are {names}; write texts.")
    return EvalRow(row["suite"], row["metric"], row["system"], _finite("value", row["value"]), int(n), ends)


def _finite(name: str, value: Any) -> float:
    """`value` as a number; of a CSV it is a text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}; write a finite number.")
    return number
