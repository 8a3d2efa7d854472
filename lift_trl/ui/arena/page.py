"""The arena's page: two clips side by side without names, a vote for each dimension and overall, and the results."""

from typing import Any

import gradio as gr

from ...rubric import Rubric, words
from ..clips import ClipError, ClipShelf, VideoPair, leave_out_unplayed
from ..identity import SIGN_IN
from ..page import (
    QUICK,
    answered,
    broken_html,
    clip_player,
    header,
    html,
    notice_html,
    preload_html,
    progress_html,
    prompt_html,
    told,
)
from .results import Results, ResultsCache
from .votes import Arena


_KEYS = (
    '<div class="lift-hint lift-keys"><kbd>1</kbd> A <kbd>2</kbd> tie <kbd>3</kbd> B &nbsp; <kbd>Enter</kbd> next, then '
    "submit &nbsp; <kbd>Space</kbd> play &nbsp; <kbd>,</kbd> <kbd>.</kbd> step</div>"
)
_KEPT = "You had voted on this pair before, in another tab perhaps. That vote stands; this one was not saved."


def arena_page(arena: Arena, shelf: ClipShelf, results: Results) -> gr.Blocks:
    """
    The page.

    Args:
        results: the lines of the results from all votes, shares for the second system (the aligned one).

    Raises:
        ValueError: if browsers play no pair; others that they do not play are left out.
    """
    pairs = {name: (pair.first.path, pair.second.path) for name, pair in arena.pairs.items()}
    leave_out_unplayed(pairs, arena.leave_out)
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

        @answered
        def show_results(request: gr.Request, profile: gr.OAuthProfile | None = None) -> str:
            is_owner = arena.identity.is_owner(request, profile)
            if not is_owner and arena.progress(arena.identity.voter(request, profile))[0] == 0:
                return notice_html("Results open once you have voted: they must not sway a first vote.")
            return (broken_html(arena.problems()) if is_owner else "") + cache.html()

        # One at a time: those who wait for it take no thread from those who vote.
        tab.select(show_results, None, table, **QUICK | {"concurrency_limit": 1})
    return demo


def _vote_tab(demo: gr.Blocks, arena: Arena, shelf: ClipShelf, status: gr.HTML) -> None:
    prompt, player = html(), html()
    pair_id = gr.Textbox(visible="hidden", elem_id="lift-pair", elem_classes="lift-item")
    with gr.Column(visible=False, elem_classes="lift-answers") as form:
        with gr.Group(elem_classes="lift-form"):
            radios = [_question(question, arena.rubric) for question in arena.questions]
        submit = gr.Button("Submit votes", variant="primary", elem_id="lift-submit")
        html(_KEYS)
    skip = gr.Button("A clip is broken? Skip this pair", elem_id="lift-skip", size="sm")

    @answered
    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        if arena.identity.require_login and profile is None:
            return _nothing(SIGN_IN, "", arena)
        return _next(arena, shelf, arena.identity.voter(request, profile))

    @answered
    def vote(request: gr.Request, profile: gr.OAuthProfile | None, pair: str, *given: str | None) -> list[Any]:
        choices = dict(zip(arena.questions, given, strict=True))
        with told(), arena.identity.sending(request, profile) as voter:
            is_new = arena.vote(voter, pair, choices)
        if not is_new and arena.votes_of(voter, pair) != choices:
            gr.Warning(_KEPT, title="Not saved")
        return _next(arena, shelf, voter)

    @answered
    def skip_pair(pair: str, request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        voter = arena.identity.voter(request, profile)
        with told():
            arena.skip(voter, pair)
        return _next(arena, shelf, voter)

    outputs = [prompt, player, pair_id, form, status, *radios]
    demo.load(load, None, outputs, **QUICK)
    submit.click(vote, [pair_id, *radios], outputs, **QUICK)
    skip.click(skip_pair, [pair_id], outputs, **QUICK)


def _next(arena: Arena, shelf: ClipShelf, voter: str) -> list[Any]:
    """What the tab shows `voter` next."""
    shown = _playable(arena, shelf, voter)
    progress = progress_html(*arena.progress(voter), "pairs compared")
    if shown is None:
        return _nothing("You have compared every pair. Thank you!", progress, arena)
    pair, video = shown
    video += _preload(arena, shelf, voter)
    return [prompt_html(pair.prompt), video, pair.id, gr.Column(visible=True), progress, *_cleared(arena)]


def _nothing(why: str, progress: str, arena: Arena) -> list[Any]:
    return ["", notice_html(why), "", gr.Column(visible=False), progress, *_cleared(arena)]


def _cleared(arena: Arena) -> list[gr.Radio]:
    return [gr.Radio(value=None)] * len(arena.questions)


def _playable(arena: Arena, shelf: ClipShelf, voter: str) -> tuple[VideoPair, str] | None:
    """The next pair of `voter` whose clips can be shown, with its player."""
    while (pair := arena.next_pair(voter)) is not None:
        left, right = arena.sides(voter, pair)
        try:
            return pair, clip_player([(left.path, "A"), (right.path, "B")], shelf)
        except ClipError as error:
            arena.leave_out(pair.id, str(error))
    return None


def _preload(arena: Arena, shelf: ClipShelf, voter: str) -> str:
    pair = arena.pair_after(voter)
    # By side, not by system: the order must not tell them apart.
    return "" if pair is None else preload_html([clip.path for clip in arena.sides(voter, pair)], shelf)


def _question(question: str | None, rubric: Rubric) -> gr.Radio:
    return gr.Radio(
        [("A better", "a"), ("Tie", "tie"), ("B better", "b")],
        label="Overall" if question is None else words(question).capitalize(),
        info="Which would you rather watch?" if question is None else rubric.definitions[question][rubric.best],
        elem_classes="lift-question",
        elem_id=f"lift-{question or 'overall'}",
    )
