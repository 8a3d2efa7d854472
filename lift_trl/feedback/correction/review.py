"""The review queue of the correction: rows that a person decides, in a file that any editor or page can fill in.

`review_queue.jsonl` holds one row a line. A person fills in `decision` (a label, or `"drop"`), `reviewer`, and
`decision_reason` where the old reason no longer fits; `decided_at` is free. `decide` does the same from code. The labels are
those of `rubric.yaml` beside the queue, or LiFT's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...records import Annotation
from ...rubric import Rubric
from ...store.manifest import write_rows
from ...store.rubrics.of_data import find_rubric
from ...store.tables import numbered_rows


QUEUE_FILE = "review_queue.jsonl"
DROP = "drop"


@dataclass(frozen=True)
class Decision:
    """What a person decided on a row: a label with its reason, or to drop the row (`label=None`)."""

    label: str | None
    reason: str
    reviewer: str
    decided_at: str | None = None  # ISO 8601, UTC


def queue_row(
    row_id: str, row: Annotation, critic_label: str | None, critic_reason: str, *, why: str
) -> dict[str, Any]:
    """A line of the queue that waits for a decision."""
    return {
        "id": row_id,
        "why": why,
        "video": str(row.video),
        "caption": row.caption,
        "dimension": str(row.dimension),
        "annotator": row.annotator,
        "label": str(row.label),
        "reason": row.reason,
        "critic_label": critic_label and str(critic_label),
        "critic_reason": critic_reason,
        "decision": None,
        "decision_reason": None,
        "reviewer": None,
        "decided_at": None,
    }


def decide(queue: Path | str, decisions: Mapping[str, Decision]) -> int:
    """
    Writes decisions into a queue, by row id; the file is whole at any moment. Returns how many rows still wait.

    Raises:
        ValueError: if an id is not in the queue, or a decision is not complete (as `read_decisions`).
    """
    places, rubric = _rows(queue), find_rubric(queue)
    rows = {name: row for name, (_, row) in places.items()}
    unknown = [row_id for row_id in decisions if row_id not in rows]
    if unknown:
        raise ValueError(f"{queue}: no row {', '.join(unknown[:5])}; decide rows of this queue only.")
    for row_id, decision in decisions.items():
        rows[row_id] |= {
            "decision": DROP if decision.label is None else str(decision.label),
            "decision_reason": decision.reason or None,
            "reviewer": decision.reviewer,
            "decided_at": decision.decided_at,
        }
        _decision(rows[row_id], f"row {row_id}", rubric)
    write_rows(queue, rows.values())
    return sum(row["decision"] is None for row in rows.values())


def read_decisions(queue: Path | str) -> dict[str, Decision | None]:
    """
    The decision on each row of a queue, `None` where it still waits.

    Raises:
        ValueError: naming the line, if a decision is no label and not `"drop"`, names no reviewer, or changes the label
            without a new reason.
    """
    rubric = find_rubric(queue)
    return {name: _decision(row, where, rubric) for name, (where, row) in _rows(queue).items()}


def _rows(queue: Path | str) -> dict[str, tuple[str, dict[str, Any]]]:
    """(where it stands, row) by id of a queue, which people edit. Raises `ValueError` for an id that is missing or twice."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, row in numbered_rows(queue):
        where, name = f"{queue}, line {number}", row.get("id")
        if not isinstance(name, str):
            raise ValueError(f"{where}: the id is {name!r:.80}; a row of a queue keeps the id that it was given.")
        if name in rows:
            raise ValueError(f"{where}: id {name!r} stands in {rows[name][0]} too; delete one of the two.")
        rows[name] = where, row
    return rows


def _decision(row: Mapping[str, Any], where: str, rubric: Rubric) -> Decision | None:
    given = row.get("decision")
    if given is None or not str(given).strip():
        return None
    reviewer, reason = str(row.get("reviewer") or "").strip(), str(row.get("decision_reason") or "").strip()
    if not reviewer:
        raise ValueError(f"{where}: a decision without reviewer; say who decided.")
    if str(given).strip().lower() == DROP:
        return Decision(None, reason, reviewer, row.get("decided_at"))
    try:
        label = rubric.parse_label(str(given))
    except ValueError as error:
        raise ValueError(f"{where}: decision {error} Or {DROP!r}, to leave the row out.") from error
    reason = reason or (str(row.get("reason") or "").strip() if label == row["label"] else "")
    if not reason:
        raise ValueError(f"{where}: decided {label} without a reason; fill in decision_reason.")
    return Decision(label, reason, reviewer, row.get("decided_at"))
