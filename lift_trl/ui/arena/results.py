"""The arena's results: shares with their intervals as a table, made anew only now and then."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...records import Comparison
from ...rubric import words
from ..page import notice_html, text_html
from .votes import Arena


#: Results are made anew at most so often that they take this share of the time.
_RESULTS_SHARE = 0.05


class Share(NamedTuple):
    """A share in [0, 1] with its 95 % interval, `None` where there is none."""

    value: float
    ci95: tuple[float, float] | None


class ResultRow(NamedTuple):
    """One line of the results: shares of the votes, and shares of the pairs by the majority of their voters."""

    dimension: str | None
    win: Share
    tie: Share
    loss: Share
    majority_win: float
    majority_loss: float
    num_votes: int
    num_pairs: int


Results = Callable[[list[Comparison]], Sequence[ResultRow]]


class ResultsCache:
    """The results as HTML. With thousands of votes their bootstrap takes seconds: it is not run for each new one."""

    def __init__(self, arena: Arena, results: Results) -> None:
        self._arena, self._results = arena, results
        self._lock = threading.Lock()
        self._num_votes, self._not_before_s, self._html = -1, 0.0, ""

    def html(self) -> str:
        """The newest results, or those of a moment ago."""
        with self._lock:
            start_s = time.monotonic()
            votes = self._arena.comparisons() if start_s >= self._not_before_s else []
            if len(votes) > self._num_votes:
                self._html = results_html(self._results(votes) if votes else [], self._arena.systems)
                self._num_votes = len(votes)
                end_s = time.monotonic()
                self._not_before_s = end_s + (end_s - start_s) / _RESULTS_SHARE
            return self._html


def results_html(rows: Sequence[ResultRow], systems: tuple[str, str]) -> str:
    """The results as a table, led by the second of `systems`: the first is the base by custom."""
    if not rows:
        return notice_html("No votes yet.")
    first, second = (text_html(system) for system in systems)
    head = (
        *(f"{second} better", "Tie", f"{first} better"),
        *(f"Pairs that most voters give to {second}", f"Pairs to {first}", "Votes"),
    )
    body = "".join(_result_html(row, head) for row in rows)
    note = (
        '<p class="lift-hint">Small figures, and the lines over and under a bar: 95 % intervals, by bootstrap over prompts. '
        "A pair whose voters are divided goes to nobody.</p>"
    )
    cells = "".join(f"<th>{cell}</th>" for cell in ("Question", *head))
    return (
        f'<div class="lift-scroll"><table class="lift-table lift-results"><tr>{cells}</tr>{body}</table></div>{note}'
    )


def _result_html(row: ResultRow, head: Sequence[str]) -> str:
    shares = (("win", row.win), ("tie", row.tie), ("loss", row.loss))
    bar = "".join(f'<i class="lift-{name}" style="width:{100 * share.value:.2f}%"></i>' for name, share in shares)
    bar += "".join(
        f'<u class="lift-ci-{name}" style="{side}:{100 * share.ci95[0]:.2f}%;'
        f'width:{100 * (share.ci95[1] - share.ci95[0]):.2f}%"></u>'
        for name, share, side in (("win", row.win, "left"), ("loss", row.loss, "right"))
        if share.ci95 is not None
    )
    title = "Overall" if row.dimension is None else words(row.dimension).capitalize()
    cells = [
        *(
            f'<span><b class="lift-of-{name}">{100 * share.value:.0f} %</b> {_interval(share)}</span>'
            for name, share in shares
        ),
        *(f"{share * row.num_pairs:.0f} of {row.num_pairs}" for share in (row.majority_win, row.majority_loss)),
        str(row.num_votes),
    ]
    line = "".join(f'<td data-head="{name}">{cell}</td>' for name, cell in zip(head, cells, strict=True))
    return (
        f'<tr class="lift-result"><td><b>{title}</b></td>{line}</tr><tr class="lift-bar-row"><td colspan="{1 + len(cells)}">'
        f'<div class="lift-split">{bar}</div></td></tr>'
    )


def _interval(share: Share) -> str:
    if share.ci95 is None:
        return ""
    return f"<small>{100 * share.ci95[0]:.0f} to {100 * share.ci95[1]:.0f} %</small>"
