"""The blind comparison of two systems: which pair a voter sees next and on which sides, and what becomes of a vote."""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from datetime import UTC, datetime

from ...records import Comparison
from ...rubric import LIFT, Rubric, words
from ..clips import GalleryClip, VideoPair
from ..identity import Identity
from ..shown import Shown
from ..tally import Answer, Tally
from ..vote_log import Row, VoteLog, vote_id


logger = logging.getLogger(__name__)

#: What a voter may choose, as records have it: "a" is the clip on the left.
CHOICES = ("a", "tie", "b")
_MAX_OPEN = 10_000


class Arena:
    """
    Which pair a voter sees next and on which sides, and what becomes of a vote. Holds no state that a restart loses.

    Args:
        pairs: the pairs to compare, all of the same two systems.
        log: where votes go. Which pair was shown to whom is kept in a folder `shown` beside it.
        rubric: of which each dimension is asked for.

    Attributes:
        questions: the dimensions, and `None` for the overall vote.

    Raises:
        ValueError: if both systems have one name: nobody could tell whose vote it was.
    """

    def __init__(self, pairs: Sequence[VideoPair], log: VoteLog, identity: Identity, *, rubric: Rubric = LIFT) -> None:
        self.rubric = rubric
        self.questions: tuple[str | None, ...] = (*rubric.dimensions, None)
        self.pairs = {pair.id: pair for pair in pairs}
        self.systems = (pairs[0].first.system, pairs[0].second.system)
        if self.systems[0] == self.systems[1]:
            raise ValueError(f"both systems are called {self.systems[0]!r}; name them: FIRST=a=..., SECOND=b=...")
        #: Pairs that cannot be shown, and why.
        self.broken: dict[str, str] = {}
        self.log, self.identity = log, identity
        self._old = {pair.old_id: pair for pair in pairs}
        self._shown = Shown(log)
        self._lock = threading.Lock()
        self._tally = Tally(log, self._answer, num_answers=len(self.questions))
        self._open: OrderedDict[str, list[str]] = OrderedDict()

    def sides(self, voter: str, pair: VideoPair) -> tuple[GalleryClip, GalleryClip]:
        """The clips on the left and on the right; for a voter and a pair always the same."""
        return (pair.second, pair.first) if self.identity.coin(voter, pair.id) else (pair.first, pair.second)

    def next_pair(self, voter: str) -> VideoPair | None:
        """
        A pair that `voter` has not voted on, of those with the fewest votes a random one; `None` if there is none left.

        The same pair until the vote: a reload does not pass a pair over.
        """
        queue = self._queue(voter, 1)
        if not queue:
            return None
        self._shown.show(voter, queue[0])
        return self.pairs[queue[0]]

    def pair_after(self, voter: str) -> VideoPair | None:
        """The pair that `voter` is going to see after the next one, so that its clips can be fetched in time."""
        queue = self._queue(voter, 2)
        return self.pairs[queue[1]] if len(queue) > 1 else None

    def skip(self, voter: str, pair_id: str) -> None:
        """
        Passes a pair over that `voter` cannot see: he gets the next one, and the owner a note.

        Raises:
            ValueError: if it was not shown to him.
        """
        self._shown.skip(voter, pair_id)

    def leave_out(self, pair_id: str, why: str) -> None:
        """Shows a pair to nobody any more, for the owner to look into, until the next start."""
        if pair_id not in self.broken:
            logger.warning("a pair is left out: %s", why)
        self.broken[pair_id] = why

    def problems(self) -> list[str]:
        """What the owner should look into: pairs that cannot be shown, and pairs that visitors could not see."""
        skipped = [(pair, len(self._shown.skipped(name))) for name, pair in self.pairs.items()]
        told = [
            f"{p.first.path}, {p.second.path}: {n} visitor{'s' if n != 1 else ''} found it broken"
            for p, n in skipped
            if n
        ]
        return [*self.broken.values(), *told]

    def _queue(self, voter: str, number: int) -> list[str]:
        """The next pairs of `voter`, so many if there are; those that he has seen keep their place."""
        with self._lock:
            voted = self._tally.people()
            queue = [name for name in self._open.get(voter, ()) if self._is_waiting(voter, name, voted)]
            while len(queue) < number and (chosen := self._choose(voter, voted, queue)) is not None:
                queue.append(chosen)
            self._open[voter] = queue
            self._open.move_to_end(voter)
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
            return queue

    def _is_waiting(self, voter: str, pair_id: str, voted: Mapping[str, Set[str]]) -> bool:
        is_done = voter in voted.get(pair_id, ()) or voter in self._shown.skipped(pair_id)
        return pair_id not in self.broken and not is_done

    def _choose(self, voter: str, voted: Mapping[str, Set[str]], queue: Sequence[str]) -> str | None:
        waiting = [name for name in self.pairs if name not in queue and self._is_waiting(voter, name, voted)]
        counts = Counter({pair_id: len(voters) for pair_id, voters in voted.items()})
        # Pairs that are being looked at count as voted on, so that voters who come together are spread.
        counts.update(name for who, names in self._open.items() for name in names if who not in voted.get(name, ()))
        fewest = min((counts[name] for name in waiting), default=0)
        candidates = [name for name in waiting if counts[name] == fewest]
        return min(candidates, key=lambda name: self.identity.digest(voter, name), default=None)

    def progress(self, voter: str) -> tuple[int, int]:
        """Pairs that `voter` has voted on, and pairs in all; those that cannot be shown are in neither."""
        with self._lock:
            voted = self._tally.people()
            shown = self.pairs.keys() - self.broken.keys()
            return sum(voter in voted.get(pair_id, ()) for pair_id in shown), len(shown)

    def vote(self, voter: str, pair_id: str, choices: Mapping[str | None, str | None]) -> bool:
        """
        Writes one row for each question; whether they are new. A second vote changes nothing: the first one stands.

        Raises:
            ValueError: if there is no such pair, it was not shown to `voter`, or a choice is missing or unknown.
            OSError: if the disk refuses; nothing is counted then.
        """
        pair = self.pairs.get(pair_id)
        if pair is None:
            raise ValueError("This pair is not part of the comparison; reload the page.")
        if self._shown.get(voter, pair_id) is None:
            raise ValueError("This pair is not open for you; reload the page.")
        wrong = [question for question in self.questions if choices.get(question) not in CHOICES]
        if wrong:
            missing = ", ".join("overall" if question is None else words(question) for question in wrong)
            raise ValueError(f"Choose for each question: {missing}.")
        if self.votes_of(voter, pair_id):
            return False
        left, right = self.sides(voter, pair)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [
            {
                **asdict(
                    Comparison(
                        id=vote_id(voter, pair_id, question),
                        prompt=pair.prompt,
                        video_a=f"{left.system}/{left.name}",
                        video_b=f"{right.system}/{right.name}",
                        choice=str(choices[question]),
                        dimension=question,
                        voter=voter,
                        created_at=now,
                    )
                ),
                "pair": pair_id,
            }
            for question in self.questions
        ]
        return self.log.add(rows) > 0

    def votes_of(self, voter: str, pair_id: str) -> dict[str | None, str]:
        """What `voter` has said of a pair, by question; empty until all questions are answered."""
        with self._lock:
            if voter not in self._tally.people().get(pair_id, ()):
                return {}
            given = self._tally.given(voter, pair_id)
            return {question: given[question or ""]["choice"] for question in self.questions}

    def comparisons(self) -> list[Comparison]:
        """All votes on these pairs; the log may hold those of other comparisons too."""
        with self._lock:
            return [to_comparison(row) for row in self._tally.rows()]

    def _answer(self, row: Row) -> Answer | None:
        """What a row of the log is about, `None` if it is about clips that are not shown here."""
        question = row.get("dimension") or ""
        if row.get("choice") not in CHOICES or question not in (*self.rubric.dimensions, ""):
            return None
        pair = self.pairs.get(str(row.get("pair")))
        old = self._old.get(str(row.get("pair")))
        if pair is None and old is not None:
            # Such an id leaves the systems out, but the row names them.
            names = {f"{clip.system}/{clip.name}" for clip in (old.first, old.second)}
            pair = old if {row.get("video_a"), row.get("video_b")} == names else None
        return None if pair is None else Answer(str(row["voter"]), pair.id, question)


def to_comparison(row: Row) -> Comparison:
    """A row of the log as a record."""
    return Comparison(**{name: row[name] for name in Comparison.__dataclass_fields__})


def system_of(video: str) -> str:
    """The system of a comparison's video: names are `<system>/<path>`."""
    return video.split("/", 1)[0]
