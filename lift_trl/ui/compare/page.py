"""The comparison's page: base and aligned clip without names, a vote, then the names and the critic's verdicts."""

import random
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple
from urllib.parse import urlencode

import gradio as gr

from ..clips import ClipError, ClipShelf, leave_out_unplayed
from ..identity import SIGN_IN
from ..page import QUICK, answered, clip_player, header, html, notice_html, prompt_html, told
from ..verdict import verdicts_html
from .votes import BASE, BLIND, CHOICES, KEPT, Compare, Gallery, Make, Seconds, ShownPair


#: A prompt of so many characters stands whole in the field that it was picked in.
_SHORT = 60


def compare_page(
    compare: Compare,
    shelf: ClipShelf,
    *,
    why: str,
    gallery: Gallery | None,
    make: Make | None = None,
    seconds: Seconds = lambda *asked: None,
    prompts: Sequence[str] = (),
) -> gr.Blocks:
    """
    The page.

    Args:
        why: how clips are made here, or why they are not.
        gallery: clips made beforehand: all that there is where `make` is `None`, else there to look at without waiting.
            Without either the page only says why.
        make: makes clips on demand.
        seconds: tells how long that takes.
        prompts: to pick from, where clips are made on demand.

    Raises:
        ValueError: if browsers play no pair of one of the gallery's models; others that they do not play are left out.
    """
    if gallery is not None:
        for name in gallery.adapters:
            pairs = {key: (pair.first.path, pair.second.path) for key, pair in gallery.pairs.items() if key[0] == name}
            leave_out_unplayed(pairs, gallery.leave_out)
    with gr.Blocks(title="Base or aligned?", fill_width=True) as demo:
        kind = "" if make else "A gallery: these clips were made beforehand." if gallery else "No clips are shown yet."
        mode = f'<div id="lift-mode">{notice_html(f"{why} {kind}".strip())}</div>'
        header("Base or aligned?", "One prompt, one seed: a model before and after human feedback.", status=mode)
        if make is not None:
            _live_controls(demo, compare, shelf, make, seconds, gallery, prompts)
        elif gallery is not None:
            _gallery_controls(demo, compare, shelf, gallery)
    return demo


class _Stage(NamedTuple):
    """The part of the page that shows a pair and takes a vote."""

    prompt: gr.HTML
    player: gr.HTML
    link: gr.HTML
    pair: gr.Textbox
    form: gr.Column
    vote: gr.Radio
    said: gr.HTML
    verdict: gr.HTML


def _stage(compare: Compare) -> _Stage:
    prompt, player = html(), html(elem_id="lift-stage")
    pair = gr.Textbox(visible="hidden", elem_id="lift-pair", elem_classes="lift-item")
    with gr.Column(visible=False, elem_classes="lift-answers") as form:
        with gr.Row(elem_id="lift-vote-row"):
            vote = gr.Radio(
                list(zip(("A", "no difference", "B"), CHOICES, strict=True)),
                label="Which is better?",
                elem_classes="lift-question",
                elem_id="lift-vote",
                scale=4,
            )
            submit = gr.Button("Vote", variant="primary", elem_id="lift-submit", scale=1, min_width=140)
        html(f'<div class="lift-hint">{BLIND}</div>')
        skip = gr.Button("Show them without a vote", elem_id="lift-tell", size="sm")
    said, verdict, link = html(elem_id="lift-said"), html(elem_id="lift-verdicts"), html()

    @answered
    def send(
        pair_id: str, choice: str | None, request: gr.Request, profile: gr.OAuthProfile | None = None
    ) -> list[Any]:
        with told(), compare.identity.sending(request, profile) as voter:
            is_new = compare.vote(voter, pair_id, choice)
        said = "Your vote is saved. Thank you!" if is_new else KEPT
        return [gr.Column(visible=False), notice_html(said), names_html(compare, voter, pair_id)]

    @answered
    def tell(pair_id: str, request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        voter = compare.identity.voter(request, profile)
        compare.tell(voter, pair_id)
        return [gr.Column(visible=False), "", names_html(compare, voter, pair_id)]

    submit.click(send, [pair, vote], [form, said, verdict], **QUICK)
    skip.click(tell, [pair], [form, said, verdict], **QUICK)
    return _Stage(prompt, player, link, pair, form, vote, said, verdict)


def names_html(compare: Compare, voter: str, pair_id: str) -> str:
    """Which clip is whose, and what the critic says of them, as they stand on the page of `voter`."""
    shown = compare.shown(pair_id)
    if shown is None:
        return notice_html("The page was started again meanwhile; show the pair again for its names.")
    sides = list(zip((BASE, shown.adapter), shown.clips.scores, strict=True))
    if compare.is_swapped(voter, pair_id):
        sides.reverse()
    return verdicts_html([(f"{side}: {name}", score) for side, (name, score) in zip("AB", sides, strict=True)])


class Wanted(NamedTuple):
    """What a visitor asks for: by the page's fields, or by a link."""

    adapter: str
    prompt: str
    seed: str

    @property
    def link_html(self) -> str:
        """A link that shows it to somebody else."""
        query = urlencode({"model": self.adapter, "prompt": self.prompt, "seed": self.seed})
        return (
            f'<div class="lift-hint lift-link"><a href="?{escape(query)}" target="_blank">Link to this pair</a></div>'
        )


def linked(request: gr.Request, adapters: Sequence[str]) -> Wanted:
    """What the page's address asks for; of an adapter that is not here the first."""
    name, prompt, seed = (str(request.query_params.get(field, "")) for field in ("model", "prompt", "seed"))
    return Wanted(name if name in adapters else adapters[0], prompt, seed)


def _fill(
    compare: Compare, shelf: ClipShelf, voter: str, shown: ShownPair | None, wanted: Wanted, *, prompt: str
) -> list[Any]:
    """Values for `_Stage`."""
    nothing: list[Any] = ["", "", gr.Column(visible=False), None, "", ""]
    if shown is None:
        return ["", notice_html("There is no such clip."), *nothing]
    paths = list(shown.clips.paths)
    if compare.is_swapped(voter, shown.clips.id):
        paths.reverse()
    try:
        player = clip_player(list(zip(paths, "AB", strict=True)), shelf)
    except ClipError as error:
        compare.leave_out(shown, str(error))
        return [prompt, notice_html("A clip of this pair cannot be shown; please choose another one."), *nothing]
    compare.show(voter, shown)
    is_open = compare.is_open(voter, shown.clips.id)
    told_html = "" if is_open else names_html(compare, voter, shown.clips.id)
    return [prompt, player, wanted.link_html, shown.clips.id, gr.Column(visible=is_open), None, "", told_html]


class _Fields(NamedTuple):
    """What a visitor who wants clips made fills in."""

    prompt: gr.Textbox
    picked: gr.Dropdown
    ready: gr.Dropdown
    adapter: gr.Dropdown
    seed: gr.Number
    dice: gr.Button
    start: gr.Button
    time: gr.HTML


def _fields(adapters: Sequence[str], prompts: Sequence[str], ready_prompts: Sequence[str]) -> _Fields:
    with gr.Row(equal_height=False, elem_id="lift-ask"):
        with gr.Column(scale=3, min_width=280):
            prompt = gr.Textbox(
                label="Prompt", lines=2, max_length=1000, elem_id="lift-prompt", value=prompts[0] if prompts else ""
            )
            picked = gr.Dropdown(
                list(prompts), label="Or pick one", value=None, visible=bool(prompts), elem_id="lift-pick"
            )
            ready = gr.Dropdown(
                list(ready_prompts),
                label="Or look at clips that are ready, without waiting",
                value=None,
                visible=bool(ready_prompts),
                elem_id="lift-ready",
            )
        with gr.Column(scale=1, min_width=200):
            adapter = gr.Dropdown(list(adapters), value=adapters[0], label="Aligned model", elem_id="lift-adapter")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="lift-seed")
            with gr.Row():
                dice = gr.Button("New seed", elem_id="lift-dice", min_width=90)
                start = gr.Button("Make the clips", variant="primary", elem_id="lift-make", min_width=130)
            time = html(elem_id="lift-time")
    return _Fields(prompt, picked, ready, adapter, seed, dice, start, time)


def time_html(seconds: float | None) -> str:
    """
    How long a visitor is going to wait.

    >>> time_html(41.3)
    '<div class="lift-hint">Takes about 41 s.</div>'
    """
    if seconds is None:
        text = "The first clips tell how long it takes."
    elif not seconds:
        text = "These clips are ready."
    else:
        text = f"Takes about {seconds / 60:.0f} minutes." if seconds >= 100 else f"Takes about {seconds:.0f} s."
    return f'<div class="lift-hint">{text}</div>'


def _live_controls(
    demo: gr.Blocks,
    compare: Compare,
    shelf: ClipShelf,
    make: Make,
    seconds: Seconds,
    gallery: Gallery | None,
    prompts: Sequence[str],
) -> None:
    fields = _fields(compare.adapters, prompts, gallery.prompts(gallery.adapters[0]) if gallery else [])
    stage = _stage(compare)

    @answered
    def run(
        text: str, number: float | None, name: str, request: gr.Request, profile: gr.OAuthProfile | None = None
    ) -> list[Any]:
        with told():
            if compare.identity.require_login and profile is None:
                raise ValueError(SIGN_IN)
            clips = make(text, int(number or 0), name)
        wanted = Wanted(name, text.strip(), str(int(number or 0)))
        shown = ShownPair(wanted.prompt, name, clips, (f"{BASE}/{wanted.seed}", f"{name}/{wanted.seed}"))
        voter = compare.identity.voter(request, profile)
        return _fill(compare, shelf, voter, shown, wanted, prompt=prompt_html(wanted.prompt))

    @answered
    def wait(text: str, number: float | None, name: str) -> str:
        return time_html(seconds(text, int(number or 0), name))

    asked = [fields.prompt, fields.seed, fields.adapter]
    _ready_clips(demo, compare, shelf, gallery, fields, stage)
    fields.picked.input(lambda text: text, fields.picked, fields.prompt, **QUICK)
    fields.dice.click(lambda: random.randrange(2**31), None, fields.seed, **QUICK)
    # One at a time: the models are there once.
    options: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "show_progress_on": stage.player}
    made = fields.start.click(run, asked, list(stage), **options)
    for event in (
        demo.load,
        fields.prompt.blur,
        fields.picked.input,
        fields.seed.change,
        fields.adapter.change,
        made.then,
    ):
        event(wait, asked, fields.time, **QUICK)


def _ready_clips(
    demo: gr.Blocks, compare: Compare, shelf: ClipShelf, gallery: Gallery | None, fields: _Fields, stage: _Stage
) -> None:
    """What is there without waiting: the clips of a prompt that a visitor picks, and those that a link names."""

    @answered
    def look(text: str, name: str, request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        assert gallery is not None
        name = name if name in gallery.adapters else gallery.adapters[0]
        wanted = Wanted(name, text, next(iter(gallery.seeds(name, text)), ""))
        voter = compare.identity.voter(request, profile)
        return _fill(compare, shelf, voter, gallery.get(*wanted), wanted, prompt=prompt_html(text))

    @answered
    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        wanted = linked(request, compare.adapters)
        if not wanted.prompt:
            return [gr.skip()] * (3 + len(stage))  # a visitor may be typing already
        shown = gallery.get(*wanted) if gallery else None
        voter = compare.identity.voter(request, profile)
        there = _fill(compare, shelf, voter, shown, wanted, prompt=prompt_html(wanted.prompt)) if shown else None
        seed = int(wanted.seed) if wanted.seed.isdecimal() else 0
        return [wanted.prompt, seed, wanted.adapter, *(there or [gr.skip()] * len(stage))]

    demo.load(load, None, [fields.prompt, fields.seed, fields.adapter, *stage], **QUICK)
    fields.ready.input(look, [fields.ready, fields.adapter], list(stage), **QUICK)


def _gallery_controls(demo: gr.Blocks, compare: Compare, shelf: ClipShelf, gallery: Gallery) -> None:
    first = compare.adapters[0]
    with gr.Row(elem_id="lift-pickers"):
        prompt = gr.Dropdown(gallery.prompts(first), label="Prompt", scale=4, min_width=280, elem_id="lift-prompt")
        seed = gr.Dropdown([], label="Seed", scale=1, min_width=90, elem_id="lift-seed")
        adapter = gr.Dropdown(
            compare.adapters, value=first, label="Aligned model", scale=1, min_width=150, elem_id="lift-adapter"
        )
    stage = _stage(compare)

    def show(wanted: Wanted, voter: str) -> list[Any]:
        name, text, number = wanted
        prompts = gallery.prompts(name)
        text = text if text in prompts else prompts[0]
        seeds = gallery.seeds(name, text)
        number = number if number in seeds else seeds[0]
        whole = prompt_html(text) if len(text) > _SHORT else ""
        wanted = Wanted(name, text, number)
        shown = _fill(compare, shelf, voter, gallery.get(*wanted), wanted, prompt=whole)
        return [gr.Dropdown(prompts, value=text), gr.Dropdown(seeds, value=number), name, *shown]

    @answered
    def change(
        name: str,
        text: str | None,
        number: str | None,
        request: gr.Request,
        profile: gr.OAuthProfile | None = None,
    ) -> list[Any]:
        return show(Wanted(name, text or "", number or ""), compare.identity.voter(request, profile))

    @answered
    def load(request: gr.Request, profile: gr.OAuthProfile | None = None) -> list[Any]:
        return show(linked(request, compare.adapters), compare.identity.voter(request, profile))

    outputs = [prompt, seed, adapter, *stage]
    demo.load(load, None, outputs, **QUICK)
    for field in (adapter, prompt, seed):
        field.input(change, [adapter, prompt, seed], outputs, **QUICK)
