"""Who has answered what: an index over a log that reads each row once."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from .vote_log import Row, VoteLog


class Answer(NamedTuple):
    """What a row answers: a person, on an item of the page, one of its questions."""

    person: str
    item: str
    question: str


class Tally:
    """
    The people who have given all their answers on an item. Not safe for several threads: its owner locks.

    Args:
        read: what a row answers, `None` if it is about nothing that this page shows.
        num_answers: questions of one item.
    """

    def __init__(self, log: VoteLog, read: Callable[[Row], Answer | None], *, num_answers: int) -> None:
        self._log, self._read, self._num_answers = log, read, num_answers
        self._num_read = 0
        self._answers: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
        self._people: dict[str, set[str]] = defaultdict(set)

    def people(self) -> Mapping[str, Set[str]]:
        """Item -> those who are done with it; an item that nobody is done with has no entry."""
        for row in self._log.rows(self._num_read):
            self._num_read += 1
            answer = self._read(row)
            if answer is not None:
                given = self._answers[answer.item, answer.person]
                given.setdefault(answer.question, row)
                if len(given) == self._num_answers:
                    self._people[answer.item].add(answer.person)
        return self._people

    def given(self, person: str, item: str) -> Mapping[str, Row]:
        """The rows of `person` on `item`, by question; those of an earlier call of `people`."""
        return self._answers.get((item, person), {})

    def rows(self) -> list[Row]:
        """The rows that count, by item and person."""
        self.people()
        return [row for given in self._answers.values() for row in given.values()]
