"""What was shown to whom, so that only that is voted on: a journal beside the votes that a restart does not lose."""

import threading
from collections import defaultdict
from collections.abc import Set

from .vote_log import Row, VoteLog, vote_id


_SKIPPED, _TOLD = "skipped", "told"


class Shown:
    """
    Items on people's pages. It stays on this machine: what nobody voted on is nobody's business.

    Args:
        votes: the log of the votes; the journal lies in a folder `shown` beside it.
    """

    def __init__(self, votes: VoteLog) -> None:
        self._log = VoteLog(votes.folder.with_name("shown"))
        self._lock = threading.Lock()
        self._skipped: dict[str, set[str]] = defaultdict(set)
        for row in self._log.rows():
            if row.get("what") == _SKIPPED:
                self._skipped[row["item"]].add(row["person"])

    def show(self, person: str, item: str, **row: str) -> None:
        """Notes, before it is shown, that `item` goes to the page of `person`; `row` is kept with it."""
        self._note(person, item, None, **row)

    def get(self, person: str, item: str) -> Row | None:
        """What was noted when `item` was shown to `person`, `None` if it was not."""
        return self._log.get(vote_id(person, item, None))

    def skip(self, person: str, item: str) -> None:
        """
        Notes that `person` cannot see `item` and wants the next one.

        Raises:
            ValueError: if it was not shown to him.
        """
        if self.get(person, item) is None:
            raise ValueError("This is not open for you; reload the page.")
        self._note(person, item, _SKIPPED)
        with self._lock:
            self._skipped[item].add(person)

    def skipped(self, item: str) -> Set[str]:
        """Who could not see `item`."""
        return self._skipped.get(item, set())

    def tell(self, person: str, item: str) -> None:
        """Notes that `person` has seen the names."""
        self._note(person, item, _TOLD)

    def is_told(self, person: str, item: str) -> bool:
        """Whether `person` has seen the names."""
        return vote_id(person, item, _TOLD) in self._log

    def _note(self, person: str, item: str, what: str | None, **row: str) -> None:
        self._log.add([{"id": vote_id(person, item, what), "person": person, "item": item, "what": what, **row}])
