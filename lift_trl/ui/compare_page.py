"""The comparison's page: base and aligned clip without names, a vote, then the names and the critic's verdicts."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from .clips import ClipShelf
from .compare import BASE, BLIND, CHOICES, KEPT, Compare, Gallery, Make, ShownPair
from .identity import SIGN_IN
from .page import QUICK, ClipError, answered, clip_player, header, html, notice_html, prompt_html, told
from .verdict import verdicts_html


#: A prompt of so many characters stands whole in the field that it was picked in.
_SHORT = 60


def compare_page(
    compare: Compare,
    shelf: ClipShelf,
    *,
    why: str,
    gallery: Gallery | None,
    make: Make | None,
    prompts: Sequence[str] = (),
) -> gr.Blocks:
    """
    The page.

    Args:
        why: how clips are made here, or why they are not.
        gallery: clips made beforehand, shown where `make` is `None`. Without either the page only says why.
        make: makes clips on demand.
        prompts: to pick from, where clips are made on demand.
    """
    with gr.Blocks(title="Base or aligned?", fill_width=True) as demo:
        kind = "" if make else "A gallery: these clips were made beforehand." if gallery else "No clips are shown yet."
        mode = f'<div id="lift-mode">{notice_html(f"{why} {kind}".strip())}</div>'
        header("Base or aligned?", "One prompt, one seed: a model before and after human feedback.", status=mode)
        if make is not None:
            _live_controls(compare, shelf, make, prompts)
        elif gallery is not None:
            _gallery_controls(demo, compare, shelf, gallery)
    return demo


class _Stage(NamedTuple):
    """The part of the page that shows a pair and takes a vote."""

    prompt: gr.HTML
    player: gr.HTML
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
    said, verdict = html(elem_id="lift-said"), html(elem_id="lift-verdicts")

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
    return _Stage(prompt, player, pair, form, vote, said, verdict)


def names_html(compare: Compare, voter: str, pair_id: str) -> str:
    """Which clip is whose, and what the critic says of them, as they stand on the page of `voter`."""
    shown = compare.shown(pair_id)
    if shown is None:
        return notice_html("The page was started again meanwhile; show the pair again for its names.")
    sides = list(zip((BASE, shown.adapter), shown.clips.scores, strict=True))
    if compare.is_swapped(voter, pair_id):
        sides.reverse()
    return verdicts_html([(f"{side}: {name}", score) for side, (name, score) in zip("AB", sides, strict=True)])


def _fill(compare: Compare, shelf: ClipShelf, voter: str, shown: ShownPair | None, *, prompt: str) -> list[Any]:
    """Values for `_Stage`."""
    nothing: list[Any] = ["", gr.Column(visible=False), None, "", ""]
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
    return [prompt, player, shown.clips.id, gr.Column(visible=is_open), None, "", told_html]


def _live_controls(compare: Compare, shelf: ClipShelf, make: Make, prompts: Sequence[str]) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            prompt = gr.Textbox(
                label="Prompt", lines=2, max_length=1000, elem_id="lift-prompt", value=prompts[0] if prompts else ""
            )
            picked = gr.Dropdown(
                list(prompts), label="Or pick one", value=None, visible=bool(prompts), elem_id="lift-pick"
            )
        with gr.Column(scale=1, min_width=200):
            adapter = gr.Dropdown(
                compare.adapters, value=compare.adapters[0], label="Aligned model", elem_id="lift-adapter"
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="lift-seed")
            with gr.Row():
                dice = gr.Button("New seed", elem_id="lift-dice")
                start = gr.Button("Make the clips", variant="primary", elem_id="lift-make")
    stage = _stage(compare)

    @answered
    def run(
        text: str, number: float | None, name: str, request: gr.Request, profile: gr.OAuthProfile | None = None
    ) -> list[Any]:
        with told():
            if compare.identity.require_login and profile is None:
                raise ValueError(SIGN_IN)
            clips = make(text, int(number or 0), name)
        given, made = text.strip(), str(int(number or 0))
        shown = ShownPair(given, name, clips, (f"{BASE}/{made}", f"{name}/{made}"))
        voter = compare.identity.voter(request, profile)
        return _fill(compare, shelf, voter, shown, prompt=prompt_html(given))

    picked.input(lambda text: text, picked, prompt, **QUICK)
    dice.click(lambda: random.randrange(2**31), None, seed, **QUICK)
    # One at a time: the models are there once.
    start.click(
        run,
        [prompt, seed, adapter],
        list(stage),
        api_visibility="private",
        concurrency_limit=1,
        show_progress_on=stage.player,
    )


def _gallery_controls(demo: gr.Blocks, compare: Compare, shelf: ClipShelf, gallery: Gallery) -> None:
    first = compare.adapters[0]
    with gr.Row(elem_id="lift-pickers"):
        prompt = gr.Dropdown(gallery.prompts(first), label="Prompt", scale=4, min_width=280, elem_id="lift-prompt")
        seed = gr.Dropdown([], label="Seed", scale=1, min_width=90, elem_id="lift-seed")
        adapter = gr.Dropdown(
            compare.adapters, value=first, label="Aligned model", scale=1, min_width=150, elem_id="lift-adapter"
        )
    stage = _stage(compare)

    @answered
    def change(
        name: str,
        text: str | None,
        number: str | None,
        request: gr.Request,
        profile: gr.OAuthProfile | None = None,
    ) -> list[Any]:
        prompts = gallery.prompts(name)
        text = text if text in prompts else prompts[0]
        seeds = gallery.seeds(name, text)
        number = number if number in seeds else seeds[0]
        whole = prompt_html(text) if len(text) > _SHORT else ""
        voter = compare.identity.voter(request, profile)
        shown = _fill(compare, shelf, voter, gallery.get(name, text, number), prompt=whole)
        return [gr.Dropdown(prompts, value=text), gr.Dropdown(seeds, value=number), *shown]

    outputs = [prompt, seed, *stage]
    demo.load(change, [adapter, prompt, seed], outputs, **QUICK)
    for field in (adapter, prompt, seed):
        field.input(change, [adapter, prompt, seed], outputs, **QUICK)
