"""The blind comparison of two systems: random order and sides, one vote for each dimension and overall, with tie."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import gradio as gr

from ..records import Comparison
from ..rubric import DEFINITIONS, Dimension, Label
from .clips import ClipShelf, GalleryClip, VideoPair
from .identity import Identity
from .page import QUICK, clip_player, header, html, notice_html, progress_html, prompt_html, text_html, told
from .tally import Tally
from .vote_log import Row, VoteLog, vote_id


#: What a voter may choose, as records have it: "a" is the clip on the left.
CHOICES = ("a", "tie", "b")
QUESTIONS: tuple[Dimension | None, ...] = (*Dimension, None)
_MAX_OPEN = 10_000
#: Results are made anew at most so often that they take this share of the time.
_RESULTS_SHARE = 0.05
_KEYS = (
    '<div class="lift-hint lift-keys"><kbd>1</kbd> A <kbd>2</kbd> tie <kbd>3</kbd> B &nbsp; <kbd>Enter</kbd> next, then '
    "submit &nbsp; <kbd>Space</kbd> play &nbsp; <kbd>,</kbd> <kbd>.</kbd> step</div>"
)


class Share(NamedTuple):
    """A share in [0, 1] with its 95 % interval, `None` where there is none."""

    value: float
    ci95: tuple[float, float] | None


class ResultRow(NamedTuple):
    """One line of the results: shares of the votes, and shares of the pairs by the majority of their voters."""

    dimension: Dimension | None
    win: Share
    tie: Share
    loss: Share
    majority_win: float
    majority_loss: float
    num_votes: int
    num_pairs: int


Results = Callable[[list[Comparison]], Sequence[ResultRow]]


class Arena:
    """
    Which pair a voter sees next and on which sides, and what becomes of a vote. Holds no state that a restart loses.

    Args:
        pairs: the pairs to compare.
        log: where votes go.
    """

    def __init__(self, pairs: Sequence[VideoPair], log: VoteLog, identity: Identity) -> None:
        self.pairs = {pair.id: pair for pair in pairs}
        self.log, self.identity = log, identity
        self._lock = threading.Lock()
        self._tally = Tally(log, person="voter", item="pair", num_answers=len(QUESTIONS))
        self._open: OrderedDict[str, str] = OrderedDict()

    @property
    def systems(self) -> tuple[str, str]:
        """The names of the two systems, for the results only."""
        pair = next(iter(self.pairs.values()))
        return pair.first.system, pair.second.system

    def sides(self, voter: str, pair: VideoPair) -> tuple[GalleryClip, GalleryClip]:
        """The clips on the left and on the right; for a voter and a pair always the same."""
        return (pair.second, pair.first) if self.identity.coin(voter, pair.id) else (pair.first, pair.second)

    def next_pair(self, voter: str) -> VideoPair | None:
        """
        A pair that `voter` has not voted on, of those with the fewest votes a random one; `None` if there is none left.

        The same pair until the vote: a reload does not pass a pair over.
        """
        with self._lock:
            voted = self._tally.people()
            still = self._open.get(voter)
            if still is not None and voter not in voted.get(still, ()):
                return self.pairs[still]
            waiting = [pair_id for pair_id in self.pairs if voter not in voted.get(pair_id, ())]
            if not waiting:
                return None
            counts = Counter({pair_id: len(voters) for pair_id, voters in voted.items()})
            # Pairs that are being looked at count as voted on, so that voters who come together are spread.
            counts.update(pair for who, pair in self._open.items() if who not in voted.get(pair, ()))
            fewest = min(counts[pair_id] for pair_id in waiting)
            chosen = min(
                (pair_id for pair_id in waiting if counts[pair_id] == fewest),
                key=lambda pair_id: self.identity.digest(voter, pair_id),
            )
            self._open[voter] = chosen
            self._open.move_to_end(voter)
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
            return self.pairs[chosen]

    def num_voted(self, voter: str) -> int:
        """Pairs that `voter` has voted on."""
        with self._lock:
            voted = self._tally.people()
            return sum(voter in voted.get(pair_id, ()) for pair_id in self.pairs)

    def vote(self, voter: str, pair_id: str, choices: Mapping[Dimension | None, str | None]) -> bool:
        """
        Writes one row for each question; whether they are new (a second click is not).

        Raises:
            ValueError: if there is no such pair, or a choice is missing or unknown.
            OSError: if the disk refuses; nothing is counted then.
        """
        pair = self.pairs.get(pair_id)
        if pair is None:
            raise ValueError("This pair is not part of the comparison; reload the page.")
        wrong = [question for question in QUESTIONS if choices.get(question) not in CHOICES]
        if wrong:
            words = ", ".join("overall" if question is None else question.words for question in wrong)
            raise ValueError(f"Choose for each question: {words}.")
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
            for question in QUESTIONS
        ]
        return self.log.add(rows) > 0

    def comparisons(self) -> list[Comparison]:
        """All votes."""
        return [to_comparison(row) for row in self.log.rows()]


def to_comparison(row: Row) -> Comparison:
    """A row of the log as a record."""
    fields = {name: row[name] for name in Comparison.__dataclass_fields__}
    return Comparison(**{**fields, "dimension": None if row["dimension"] is None else Dimension(row["dimension"])})


def system_of(video: str) -> str:
    """The system of a comparison's video: names are `<system>/<path>`."""
    return video.split("/", 1)[0]


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


def arena_page(arena: Arena, shelf: ClipShelf, results: Results) -> gr.Blocks:
    """
    The page.

    Args:
        results: the lines of the results from all votes, shares for the second system (the aligned one).
    """
    with gr.Blocks(title="Video arena", fill_width=True) as demo:
        status = header(
            "Which video is better?",
            "Two systems, one prompt. Sides are random, names hidden.",
        )
        with gr.Tab("Vote"):
            _vote_tab(demo, arena, shelf, status)
        with gr.Tab("Results") as tab:
            table = html()
        cache = ResultsCache(arena, results)

        def show_results() -> str:
            return cache.html()

        # One at a time: those who wait for it take no thread from those who vote.
        tab.select(show_results, None, table, **QUICK | {"concurrency_limit": 1})
    return demo


def _vote_tab(demo: gr.Blocks, arena: Arena, shelf: ClipShelf, status: gr.HTML) -> None:
    prompt, player = html(), html()
    pair_id = gr.Textbox(visible="hidden", elem_id="lift-pair")
    with gr.Column(visible=False) as form:
        with gr.Group(elem_classes="lift-form"):
            radios = [_question(question) for question in QUESTIONS]
        submit = gr.Button("Submit votes", variant="primary", elem_id="lift-submit")
        html(_KEYS)

    def show(voter: str) -> list[Any]:
        pair = arena.next_pair(voter)
        progress = progress_html(arena.num_voted(voter), len(arena.pairs), "pairs compared")
        cleared = [gr.Radio(value=None)] * len(radios)
        if pair is None:
            done = notice_html("You have compared every pair. Thank you!")
            return ["", done, "", gr.Column(visible=False), progress, *cleared]
        left, right = arena.sides(voter, pair)
        video = clip_player([(left.path, "A"), (right.path, "B")], shelf)
        return [prompt_html(pair.prompt), video, pair.id, gr.Column(visible=True), progress, *cleared]

    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        return show(arena.identity.voter(request, profile))

    def vote(
        pair: str,
        first: str | None,
        second: str | None,
        third: str | None,
        overall: str | None,
        request: gr.Request,
        profile: gr.OAuthProfile | None = None,
    ) -> list[Any]:
        voter = arena.identity.voter(request, profile)
        with told():
            arena.vote(voter, pair, dict(zip(QUESTIONS, (first, second, third, overall), strict=True)))
        return show(voter)

    outputs = [prompt, player, pair_id, form, status, *radios]
    demo.load(load, None, outputs, **QUICK)
    submit.click(vote, [pair_id, *radios], outputs, **QUICK)


def _question(question: Dimension | None) -> gr.Radio:
    return gr.Radio(
        [("A better", "a"), ("Tie", "tie"), ("B better", "b")],
        label="Overall" if question is None else question.words.capitalize(),
        info="Which would you rather watch?" if question is None else DEFINITIONS[question][Label.GOOD],
        elem_classes="lift-question",
        elem_id=f"lift-{question or 'overall'}",
    )


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
    title = "Overall" if row.dimension is None else row.dimension.words.capitalize()
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
