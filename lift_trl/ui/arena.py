"""The blind comparison of two systems: random order and sides, one vote for each dimension and overall, with tie."""

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
from .vote_log import Row, VoteLog, vote_id


#: What a voter may choose, as records have it: "a" is the clip on the left.
CHOICES = ("a", "tie", "b")
QUESTIONS: tuple[Dimension | None, ...] = (*Dimension, None)
#: Votes that each pair is to get. Source: the paper's user study (appendix B.6): six votes a pair.
VOTES_PER_PAIR = 6
_MAX_OPEN = 10_000
_KEYS = (
    '<div class="lift-hint lift-keys"><kbd>1</kbd> A <kbd>2</kbd> tie <kbd>3</kbd> B, next question &nbsp; '
    "<kbd>Space</kbd> play &nbsp; <kbd>,</kbd> <kbd>.</kbd> step &nbsp; <kbd>Enter</kbd> submit at the last</div>"
)


class ResultRow(NamedTuple):
    """One line of the results: shares in [0, 1], 95 % interval of the win share, shares of the pairs by majority."""

    dimension: Dimension | None
    win: float
    win_ci95: tuple[float, float] | None
    tie: float
    loss: float
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
        votes_per_pair: pairs with fewer voters come first.
    """

    def __init__(
        self, pairs: Sequence[VideoPair], log: VoteLog, identity: Identity, *, votes_per_pair: int = VOTES_PER_PAIR
    ) -> None:
        self.pairs = {pair.id: pair for pair in pairs}
        self.log, self.identity, self.votes_per_pair = log, identity, votes_per_pair
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
        still = self._open.get(voter)
        if still is not None and not self._voted(voter, still):
            return self.pairs[still]
        waiting = [pair_id for pair_id in self.pairs if not self._voted(voter, pair_id)]
        if not waiting:
            return None
        counts = Counter(row["pair"] for row in self.log.rows() if row["dimension"] is None)
        # Pairs that are being looked at count as voted on, so that voters who come together are spread.
        counts.update(pair for who, pair in self._open.items() if not self._voted(who, pair))
        chosen = min(
            waiting, key=lambda p: (counts[p] >= self.votes_per_pair, counts[p], self.identity.digest(voter, p))
        )
        self._open[voter] = chosen
        self._open.move_to_end(voter)
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        return self.pairs[chosen]

    def num_voted(self, voter: str) -> int:
        """Pairs that `voter` has voted on."""
        return sum(self._voted(voter, pair_id) for pair_id in self.pairs)

    def _voted(self, voter: str, pair_id: str) -> bool:
        return vote_id(voter, pair_id, None) in self.log

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


def arena_page(arena: Arena, shelf: ClipShelf, results: Results) -> gr.Blocks:
    """
    The page.

    Args:
        results: the lines of the results from all votes, shares for the first system.
    """
    with gr.Blocks(title="Video arena", fill_width=True) as demo:
        header(
            "Which video is better?",
            "Two systems, one prompt. Sides are random and names hidden; each vote counts once.",
        )
        with gr.Tab("Vote"):
            _vote_tab(demo, arena, shelf)
        with gr.Tab("Results") as tab:
            table = html()
        cached: dict[int, str] = {}

        def show_results() -> str:
            votes = arena.comparisons()
            if len(votes) not in cached:
                cached.clear()
                cached[len(votes)] = results_html(results(votes) if votes else [], arena.systems)
            return cached[len(votes)]

        tab.select(show_results, None, table, **QUICK)
    return demo


def _vote_tab(demo: gr.Blocks, arena: Arena, shelf: ClipShelf) -> None:
    prompt, player = html(), html()
    pair_id = gr.Textbox(visible="hidden", elem_id="lift-pair")
    with gr.Column(visible=False) as form:
        with gr.Group(elem_classes="lift-form"):
            radios = [_question(question) for question in QUESTIONS]
        submit = gr.Button("Submit votes", variant="primary", elem_id="lift-submit")
    status = html(elem_classes="lift-status")
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
    """The results: win, tie and loss shares of the first system against the second."""
    if not rows:
        return notice_html("No votes yet.")
    first, second = (text_html(system) for system in systems)
    legend = (
        f'<p class="lift-hint"><span class="lift-label lift-win">{first}</span> against '
        f'<span class="lift-label lift-loss">{second}</span></p>'
    )
    note = (
        '<p class="lift-hint">In brackets the 95 % interval, by bootstrap over prompts. Majority: of the voters of each '
        "pair; equal counts are a tie.</p>"
    )
    return legend + "".join(_result_html(row, first, second) for row in rows) + note


def _result_html(row: ResultRow, first: str, second: str) -> str:
    bar = "".join(
        f'<i class="lift-{name}" style="width:{100 * share:.2f}%"></i>'
        for name, share in (("win", row.win), ("tie", row.tie), ("loss", row.loss))
    )
    interval = "" if row.win_ci95 is None else f" [{100 * row.win_ci95[0]:.0f}, {100 * row.win_ci95[1]:.0f}]"
    title = "Overall" if row.dimension is None else row.dimension.words.capitalize()
    facts = (
        f"{first} wins {100 * row.win:.0f} %{interval}",
        f"tie {100 * row.tie:.0f} %",
        f"{second} wins {100 * row.loss:.0f} %",
        f"pairs by majority {100 * row.majority_win:.0f} : {100 * row.majority_loss:.0f} %",
        f"{row.num_votes} votes on {row.num_pairs} pairs",
    )
    words = "".join(f"<span>{fact}</span>" for fact in facts)
    return f'<div class="lift-result"><b>{title}</b><div class="lift-split">{bar}</div><div>{words}</div></div>'
