"""The correction mode: rows on which critic and rater disagree, one at a time, with the critic's answer filled in."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..rubric import Dimension, Label, parse_label
from .annotation import checked_reason
from .vote_log import Row, VoteLog, vote_id


class ReviewDecision(NamedTuple):
    """What a person decided on a row: a label with its reason, or to drop the row (`label=None`)."""

    row_id: str
    label: Label | None
    reason: str
    reviewer: str
    decided_at: str


class ReviewQueue:
    """
    Rows of a review queue (`feedback.review`) that wait for a person. A decision is durable before the queue's file changes.

    Args:
        rows: lines of the queue: `id, video, caption, dimension, label, reason, annotator, critic_label, why`, and
            `critic_reason` where there is one.
        log: where decisions go.
        decide: writes decisions into the queue's file.
    """

    def __init__(self, rows: Sequence[Row], log: VoteLog, decide: Callable[[Sequence[ReviewDecision]], None]) -> None:
        self.rows = {str(row["id"]): row for row in rows}
        self.log, self._decide = log, decide
        waiting = {row_id for row_id, row in self.rows.items() if not row.get("decision")}
        # Decisions of a process that was killed before it could change the file.
        late = [to_decision(row) for row in log.rows() if row.get("row_id") in waiting]
        if late:
            decide(late)
        self._done = self.rows.keys() - waiting | {decision.row_id for decision in late}

    def next_row(self) -> Row | None:
        """The first row that waits, `None` if there is none."""
        return next((row for row_id, row in self.rows.items() if row_id not in self._done), None)

    @property
    def num_done(self) -> int:
        """Rows that are decided."""
        return len(self._done)

    def suggestion(self, row: Row) -> tuple[Label | None, str]:
        """What the form shows at first: the critic's label and reason."""
        label = row.get("critic_label")
        return (parse_label(str(label)) if label else None), str(row.get("critic_reason") or "")

    def decide(self, row_id: str, reviewer: str, label: str | None, reason: str, *, drop: bool = False) -> None:
        """
        Writes a decision, to the log first. Of two reviewers of one row the first one's stands.

        Raises:
            ValueError: if there is no such row, no label, or no reason where one is needed.
        """
        if row_id not in self.rows:
            raise ValueError("This row is not in the queue; reload the page.")
        row = self.rows[row_id]
        chosen: Label | None = None
        if not drop:
            if label is None:
                raise ValueError("Choose a label, or drop the row.")
            chosen = parse_label(label)
            if not reason.strip() and chosen == row["label"]:
                reason = str(row["reason"])
            reason, _ = checked_reason(chosen, reason, Dimension(row["dimension"]))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        decision = ReviewDecision(row_id, chosen, reason.strip(), reviewer, now)
        written = {"id": vote_id("review", row_id, None), **decision._asdict(), "label": chosen and chosen.value}
        if self.log.add([written]):
            self._decide([decision])
        self._done = self._done | {row_id}


def to_decision(row: Mapping[str, Any]) -> ReviewDecision:
    """A row of the log as a decision."""
    label = row["label"]
    return ReviewDecision(
        row["row_id"], None if label is None else parse_label(label), row["reason"], row["reviewer"], row["decided_at"]
    )


def clip_path(row: Row, queue: Path) -> Path:
    """The clip of a queue's row; relative paths count from the queue's folder."""
    return queue.parent / str(row["video"])
