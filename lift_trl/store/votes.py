"""Votes on pairs of clips as the pages write them: a folder of JSON-lines segments, or one such file."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..remote import local_copy
from .tables import numbered_rows


#: Folder of the votes, in a page's `DATA_DIR` and in its dataset repository.
VOTES_DIR = "votes"
#: What every vote has; a report asks for the voter too.
VOTE_COLUMNS = ("id", "prompt", "video_a", "video_b", "choice", "dimension")
_TEXTS = ("prompt", "video_a", "video_b")
#: Names of the files that a page appends to (`ui.vote_log`); all others are people's.
_SEGMENT = re.compile(r"[0-9a-f]{32}")
_SIGNS = {"a": 1, "b": -1, "tie": 0}

_Clip = TypeVar("_Clip", str, tuple[str, str])


class VoteRow(NamedTuple):
    """One vote and its place, `file, line 3`."""

    where: str
    row: Mapping[str, Any]

    @property
    def sign(self) -> int:
        """1 for `video_a`, -1 for `video_b`, 0 for neither; raises `ValueError`, naming the row, for another choice."""
        if self.row["choice"] not in _SIGNS:
            raise ValueError(f"{self.where}: choice {self.row['choice']!r}; use a, b or tie.")
        return _SIGNS[self.row["choice"]]


def read_votes(source: Path | str, columns: tuple[str, ...] = VOTE_COLUMNS) -> Iterator[VoteRow]:
    """
    The votes of `source`, each id once: a segment that was sent twice, or by two machines, adds nothing.

    Args:
        source: a file of votes, or a folder with such files in it, in its `votes/` or below: a page's `DATA_DIR`, or a
            snapshot of its `VOTES_REPO`.
        columns: what each row must have.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file and line, if a column is missing or holds what it cannot, or an id stands for two votes.
    """
    path = Path(local_copy(source))
    folder = path / VOTES_DIR if (path / VOTES_DIR).is_dir() else path  # beside it a page notes what it has shown
    files = sorted(folder.glob("**/*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{path}: no votes (*.jsonl). Name a file of votes, or the folder of the arena's.")
    seen: dict[str, VoteRow] = {}
    for file in files:
        for number, row in numbered_rows(file, is_log=_SEGMENT.fullmatch(file.stem) is not None):
            vote = VoteRow(f"{file}, line {number}", row)
            if missing := [name for name in columns if name not in row]:
                raise ValueError(f"{vote.where}: no {', '.join(missing)}; a vote has {', '.join(columns)}.")
            for name in (*columns, "voter"):
                if isinstance(row.get(name), list | dict) or name in _TEXTS and not isinstance(row[name], str):
                    raise ValueError(f"{vote.where}: {name} is {row[name]!r:.80}; write one text.")
            first = seen.setdefault(row["id"], vote)
            if _what(first) != _what(vote):
                raise ValueError(
                    f"{vote.where}: id {row['id']!r} is that of another vote in {first.where}. Give each vote its own."
                )
            if first is vote:
                yield vote


def tally(choices: Iterable[tuple[_Clip, _Clip, int]]) -> dict[tuple[_Clip, _Clip], int]:
    """
    Each pair of two clips once, and how many more chose its first clip than its second, on whichever sides they stood.

    >>> tally([("x", "y", 1), ("y", "x", 1), ("x", "z", -1), ("x", "x", 1)])
    {('x', 'y'): 0, ('x', 'z'): -1}
    """
    balance: dict[tuple[_Clip, _Clip], int] = {}
    for first, second, sign in choices:
        if first != second:
            pair, sign = ((first, second), sign) if first < second else ((second, first), -sign)
            balance[pair] = balance.get(pair, 0) + sign
    return balance


def _what(vote: VoteRow) -> tuple[Any, ...]:
    """Who answered which question on which clips; a vote that was sent again may stand on other sides, later."""
    row = vote.row
    return row.get("voter"), row["dimension"], row["prompt"], frozenset((row["video_a"], row["video_b"]))
