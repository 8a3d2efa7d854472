"""Votes and ratings that survive a crash, a restart and a failing Hub: on the disk first, on the Hub later.

    folder/3f2a...c1.jsonl    a segment: rows of one process, append-only, flushed to the disk before they are acknowledged
    folder/.gitignore         that neither git nor a push takes the folder along

A segment is uploaded whole, under its own name, so an upload that is repeated (after an error, or because the answer was
lost) replaces the same rows and never adds them again. A row has an id made of who, what and which dimension, and counts
once: a double click or a reload is no second vote.
"""

import json
import logging
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import RepoFile

from ..hub.private import keep_private
from ..records import content_id
from ..store.manifest import read_log
from ..store.votes import VOTES_DIR


logger = logging.getLogger(__name__)

Row = Mapping[str, Any]

#: The Hub limits commits to a repository (128 an hour); one a minute at most stays well below.
COMMIT_INTERVAL_S = 60.0
MAX_BACKOFF_S = 600.0
MAX_SEGMENT_ROWS = 5000


def vote_id(voter: str, item: str, dimension: str | None) -> str:
    """The id of what `voter` says of `item` in `dimension`: there is one such row, ever."""
    return content_id("vote", voter, item, dimension or "")


class VoteLog:
    """
    An append-only log of rows with an `id`, kept in `folder` and copied to a dataset repository.

    Args:
        folder: on a disk that outlives the process; nothing else may be in it.
        repo_id: dataset repository, made (private) with the first commit; `None` keeps the rows on this machine only.
        directory: of the segments in the repository.
        card: README of the repository, written once.
        token: must be allowed to write to `repo_id`; the machine's own by default.
        interval_s: seconds between commits, while there is something to commit.

    >>> import tempfile
    >>> log = VoteLog(tempfile.mkdtemp())
    >>> log.add([{"id": vote_id("ada", "pair 1", None), "choice": "a"}] * 2)
    1
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        repo_id: str | None = None,
        directory: str = VOTES_DIR,
        card: str = "",
        token: str | None = None,
        interval_s: float = COMMIT_INTERVAL_S,
    ) -> None:
        self.folder = Path(folder)
        self.repo_id = repo_id
        self.directory = directory
        self.interval_s = interval_s
        self._card = card
        self._api = HfApi(token=token)
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._segments: dict[str, list[Row]] = {}
        self._on_hub: dict[str, int] = {}  # rows of each segment that the Hub holds
        self._foreign: set[str] = set()  # ids that only segments of other machines hold, on the Hub
        self._joined = False
        keep_private(self.folder)
        for path in sorted(self.folder.glob("*.jsonl")):
            self._segments[path.stem] = [row for row in read_log(path) if self._is_new(row)]
        self._segment = ""
        self._wake = threading.Event()
        self._stop = threading.Event()
        # One worker: commits never overlap. Its futures carry whatever went wrong, so the loop outlives every error.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="vote_log")
        self._thread = threading.Thread(target=self._run, name="vote_log", daemon=True)
        if repo_id is not None:
            self._report(self._worker.submit(self._commit).exception())
            self._thread.start()

    def add(self, rows: Sequence[Row]) -> int:
        """
        Writes the rows whose ids are new, and returns their number. When it returns, they are on the disk.

        Raises:
            OSError: if the disk refuses; then none of the rows counts, and the same call may be repeated.
        """
        with self._lock:
            fresh: dict[str, Row] = {}
            for row in rows:
                if row["id"] not in self._rows:
                    fresh.setdefault(row["id"], row)
            new = list(fresh.values())
            if new:
                if len(self._segments.get(self._segment, ())) >= MAX_SEGMENT_ROWS or not self._segment:
                    self._segment = uuid.uuid4().hex
                segment = self._segment
                self._segment = ""  # after an error the file may end in half a row: nothing is appended to it any more
                _append_durably(self.folder / f"{segment}.jsonl", _json_lines(new))
                self._segment = segment
                self._segments.setdefault(self._segment, []).extend(new)
                self._rows |= fresh
        self._wake.set()
        return len(new)

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._rows

    def get(self, row_id: str) -> Row | None:
        """The row of that id, `None` if there is none."""
        return self._rows.get(row_id)

    def rows(self, since: int = 0) -> list[Row]:
        """
        All rows, each id once: of this disk, and of the Hub as far as it could be read.

        Args:
            since: leaves out the first so many: whoever read n rows goes on with `rows(n)`.
        """
        with self._lock:
            return list(islice(self._rows.values(), since, None))

    @property
    def num_pending(self) -> int:
        """Rows that are on the disk only; 0 where no repository was named."""
        if self.repo_id is None:
            return 0
        with self._lock:
            return sum(len(rows) - self._on_hub.get(name, 0) for name, rows in self._segments.items())

    def flush(self) -> None:
        """
        Commits what is pending, now.

        Raises:
            HTTPError: (of `huggingface_hub.errors`) if the Hub refuses or cannot be reached. The rows stay on the disk
                and are sent with the next commit.
        """
        if self.repo_id is not None:
            self._worker.submit(self._commit).result()

    def close(self) -> None:
        """Commits what is pending once, if the Hub lets it, and stops."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake.set()
        if self.repo_id is not None:
            self._report(self._worker.submit(self._commit).exception())
        self._worker.shutdown()

    def __enter__(self) -> "VoteLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- the Hub -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = self.interval_s
        while self._wake.wait():
            self._wake.clear()
            # Rows that come in close together make one commit; a failing Hub is asked less and less often.
            if self._stop.wait(wait_s):
                return
            failed = self._report(self._worker.submit(self._commit).exception())
            wait_s = min(2 * wait_s, MAX_BACKOFF_S) if failed else self.interval_s
            if failed:
                self._wake.set()

    def _report(self, error: BaseException | None) -> bool:
        """Logs a failed commit; whether it failed."""
        if error is not None:
            logger.warning(
                "%d rows wait in %s: the commit to %s failed (%s: %s). They are sent again.",
                *(self.num_pending, self.folder, self.repo_id, type(error).__name__, error),
            )
        return error is not None

    def _commit(self) -> None:
        if not self._joined:
            self._join()
        with self._lock:
            changed = {n: list(rows) for n, rows in self._segments.items() if len(rows) > self._on_hub.get(n, 0)}
        uploads = {name: self._upload(rows) for name, rows in changed.items()}
        if any(uploads.values()):
            operations = [
                CommitOperationAdd(f"{self.directory}/{name}.jsonl", text) for name, text in uploads.items() if text
            ]
            self._api.create_commit(
                str(self.repo_id),
                operations,
                repo_type="dataset",
                commit_message=f"Add rows ({sum(len(rows) for rows in changed.values())} in {len(changed)} segments)",
            )
        with self._lock:
            self._on_hub |= {name: len(rows) for name, rows in changed.items()}

    def _upload(self, rows: Sequence[Row]) -> bytes:
        """The segment as the Hub gets it: without rows that another segment there holds already."""
        return _json_lines([row for row in rows if row["id"] not in self._foreign])

    def _join(self) -> None:
        """Makes the repository, or takes over what it holds: a new machine knows the votes of the old one."""
        repo = str(self.repo_id)
        self._api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        entries = self._api.list_repo_tree(repo, repo_type="dataset", recursive=True)
        sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
        if "README.md" not in sizes and self._card:
            readme = CommitOperationAdd("README.md", self._card.encode())
            self._api.create_commit(repo, [readme], repo_type="dataset", commit_message="Add the card")
        with self._lock:
            own = {name: list(rows) for name, rows in self._segments.items()}
        foreign: dict[str, Row] = {}
        already: set[str] = set()
        for path in (path for path in sizes if path.startswith(f"{self.directory}/") and path.endswith(".jsonl")):
            rows = own.get(Path(path).stem)
            if rows is not None and sizes[path] == len(_json_lines(rows)):
                self._on_hub[Path(path).stem] = len(rows)
                already |= {row["id"] for row in rows}
                continue
            found = read_log(self._api.hf_hub_download(repo, path, repo_type="dataset"))
            if rows is None:
                foreign |= {row["id"]: row for row in found}
            else:
                already |= {row["id"] for row in found}
        with self._lock:
            self._rows |= {row_id: row for row_id, row in foreign.items() if row_id not in self._rows}
            # What a segment of ours holds on the Hub stays there, even if another machine wrote it too.
            self._foreign = foreign.keys() - already
        self._joined = True

    def _is_new(self, row: Row) -> bool:
        """Takes `row` into the index; false if its id is there already."""
        return self._rows.setdefault(row["id"], row) is row


def _json_lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _append_durably(path: Path, data: bytes) -> None:
    """
    Appends `data` so that it survives kill -9 and a power cut. If the disk refuses, what was written is taken back; should
    it refuse that too, the file ends in a part of `data`.
    """
    is_new = not path.exists()
    with open(path, "ab", buffering=0) as file:
        start = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise
    if is_new:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
