"""Who has answered what: an index over a log that reads each row once."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Set

from .vote_log import VoteLog


class Tally:
    """
    The people who have given all their answers on an item. Not safe for several threads: its owner locks.

    Args:
        person, item: columns of the log's rows. Rows without them are passed over.
        num_answers: rows that one person gives on one item.
    """

    def __init__(self, log: VoteLog, *, person: str, item: str, num_answers: int) -> None:
        self._log, self._person, self._item, self._num_answers = log, person, item, num_answers
        self._num_read = 0
        self._answers: Counter[tuple[str, str]] = Counter()
        self._people: dict[str, set[str]] = defaultdict(set)

    def people(self) -> Mapping[str, Set[str]]:
        """Item -> those who are done with it; an item that nobody is done with has no entry."""
        for row in self._log.rows(self._num_read):
            self._num_read += 1
            if self._person in row and self._item in row:
                item, person = row[self._item], row[self._person]
                self._answers[item, person] += 1
                if self._answers[item, person] == self._num_answers:
                    self._people[item].add(person)
        return self._people
