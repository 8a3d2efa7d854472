"""The correction mode: rows on which critic and rater disagree, one at a time, with the critic's answer filled in."""

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ...records import content_id
from ...rubric import LIFT, Rubric, words
from ...store.manifest import read_rows, write_rows
from ...store.rubrics.of_data import find_rubric, write_rubric
from ..clips import fetch
from ..vote_log import Row, VoteLog, vote_id
from .ratings import checked_reason


class ReviewDecision(NamedTuple):
    """What a person decided on a row: a label with its reason, or to drop the row (`label=None`)."""

    row_id: str
    label: str | None
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
        rubric: what the labels are of.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        log: VoteLog,
        decide: Callable[[Sequence[ReviewDecision]], None],
        *,
        rubric: Rubric = LIFT,
    ) -> None:
        self.rubric = rubric
        self.rows = {str(row["id"]): row for row in rows}
        self.log, self._decide = log, decide
        self._lock = threading.Lock()
        waiting = {row_id for row_id, row in self.rows.items() if not row.get("decision")}
        # Decisions of a process that was killed before it could change the file.
        late = [to_decision(row) for row in log.rows() if row.get("row_id") in waiting and self._is_about(row)]
        if late:
            decide(late)
        self._done = self.rows.keys() - waiting | {decision.row_id for decision in late}

    def _is_about(self, decision: Row) -> bool:
        """Whether a decision of the log was made on a row as it stands here; another queue may have the same ids."""
        return decision.get("content") in (None, _content(self.rows[decision["row_id"]]))

    def next_row(self) -> Row | None:
        """The first row that waits, `None` if there is none."""
        return next((row for row_id, row in self.rows.items() if row_id not in self._done), None)

    @property
    def num_done(self) -> int:
        """Rows that are decided."""
        return len(self._done)

    def suggestion(self, row: Row) -> tuple[str | None, str]:
        """What the form shows at first: the critic's label and reason."""
        label = row.get("critic_label")
        return (self.rubric.parse_label(str(label)), self.reason_of(row, str(label))) if label else (None, "")

    @staticmethod
    def reason_of(row: Row, label: str) -> str:
        """The reason that was given for `label`: the critic's for its own, the rater's for theirs, else none."""
        reasons = {str(row["label"]): row["reason"]}
        if row.get("critic_label"):
            reasons[str(row["critic_label"])] = row.get("critic_reason") or reasons.get(str(row["critic_label"]))
        return str(reasons.get(label) or "")

    def decide(self, row_id: str, reviewer: str, label: str | None, reason: str, *, drop: bool = False) -> bool:
        """
        Writes a decision, to the log first. Of two reviewers of one row the first one's stands; whether it is this one.

        Raises:
            ValueError: if there is no such row, no label, no reason where nobody has given one for this label, or the
                reason that was given for another label.
        """
        if row_id not in self.rows:
            raise ValueError("This row is not in the queue; reload the page.")
        row = self.rows[row_id]
        chosen: str | None = None
        if not drop:
            if label is None:
                raise ValueError("Choose a label, or drop the row.")
            chosen = self.rubric.parse_label(label)
            reason = self._checked(row, chosen, reason)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        decision = ReviewDecision(row_id, chosen, reason.strip(), reviewer, now)
        content = _content(row)
        written = {"id": vote_id("review", row_id, content), **decision._asdict(), "label": chosen and str(chosen)}
        written["content"] = content
        with self._lock:
            is_first = row_id not in self._done and self.log.add([written]) > 0
            if is_first:
                self._decide([decision])
            self._done = self._done | {row_id}
        return is_first

    def refill(self, row_id: str, label: str | None, reason: str) -> str:
        """What the reason's box holds once `label` is chosen: what a person typed stays, what was filled in does not."""
        row = self.rows.get(row_id)
        if row is None or label is None:
            return reason
        filled = {_folded(self.reason_of(row, other)) for other in self.rubric.labels}
        return self.reason_of(row, label) if _folded(reason) in filled | {""} else reason

    def _checked(self, row: Row, label: str, reason: str) -> str:
        dimension = self.rubric.parse_dimension(row["dimension"])
        if not reason.strip() and label == row["label"]:
            reason = str(row.get("reason") or "")
        if not reason.strip():
            raise ValueError(f"Say why {words(dimension)} is {label}.")
        others = {_folded(self.reason_of(row, other)) for other in self.rubric.labels if other != label}
        if _folded(reason) != _folded(self.reason_of(row, label)) and _folded(reason) in others:
            raise ValueError(f"That reason was given for another label; say why {words(dimension)} is {label}.")
        return checked_reason(label, reason, dimension, self.rubric)[0]


def _folded(text: str) -> str:
    return " ".join(text.split())


def _content(row: Row) -> str:
    """What a person saw of a row when he decided."""
    return content_id(*(row.get(name) for name in ("caption", "label", "reason", "critic_label", "critic_reason")))


def to_decision(row: Mapping[str, Any]) -> ReviewDecision:
    """A row of the log as a decision."""
    return ReviewDecision(row["row_id"], row["label"], row["reason"], row["reviewer"], row["decided_at"])


def clip_path(row: Row, queue: Path) -> Path:
    """The clip of a queue's row; relative paths count from the queue's folder."""
    return queue.parent / str(row["video"])


def find_queue(source: str, *, token: str | None = None) -> tuple[Path, bool]:
    """
    A queue's file on this machine, its clips with it, and whether it is its owner's own.

    Args:
        source: a file, or `user/dataset/path/to/review_queue.jsonl` on the Hub, as `share_queue` prepares it.

    Raises:
        ValueError: if there is no such file, or a row of the Hub's names a clip outside the dataset.
    """
    if Path(source).is_file():
        return Path(source), True
    owner, _, rest = source.partition("/")
    name, _, inside = rest.partition("/")
    if not inside:
        raise ValueError(f"QUEUE={source}: no such file; for one of the Hub write user/dataset/review_queue.jsonl.")
    folder = fetch(f"{owner}/{name}", token)
    queue = Path(os.path.normpath(folder / inside))
    if not queue.is_relative_to(folder) or not queue.is_file():
        raise ValueError(f"QUEUE={source}: {owner}/{name} has no file {inside}; name one that is there.")
    for row in read_rows(queue):
        # A dataset must not name files of this machine.
        if not Path(os.path.normpath(clip_path(row, queue))).is_relative_to(folder):
            raise ValueError(f"{source}: row {row['id']} names {row['video']}, outside the dataset; use share_queue.")
    return queue, False


def share_queue(queue: Path | str, folder: Path | str) -> Path:
    """Copies a queue with its clips to `folder`, which can be pushed to the Hub as a dataset; returns the queue there."""
    source, clips = Path(queue), Path(folder) / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in read_rows(source):
        path = clip_path(row, source)
        name = f"{content_id(str(path))}{path.suffix}"
        if not (clips / name).is_file():
            shutil.copyfile(path, clips / name)
        rows.append({**row, "video": f"clips/{name}"})
    if (rubric := find_rubric(source)) != LIFT:
        write_rubric(rubric, folder)
    write_rows(Path(folder) / source.name, rows)
    return Path(folder) / source.name
