"""The comparison demo: base and aligned clip of one prompt and seed side by side, the critic's verdicts, a vote."""

import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from ..records import Comparison, CriticScore
from ..store.manifest import METADATA_FILE, read_rows
from .clips import ClipShelf, GalleryClip, VideoPair, fetch, load_clips, pair_clips
from .generation import ComparedClips
from .identity import Identity
from .page import QUICK, clip_player, header, html, notice_html, prompt_html, told
from .verdict import score_of, verdicts_html
from .vote_log import Row, VoteLog, vote_id


BASE = "base"
#: What a visitor may say: the base's clip is "a".
CHOICES = ("a", "tie", "b")
#: A prompt of so many characters stands whole in the field that it was picked in.
_SHORT = 60
_MAX_SHOWN = 5000

#: (prompt, seed, adapter) -> clips. May take minutes.
Make = Callable[[str, int, str], ComparedClips]


class Shown(NamedTuple):
    """A pair that is on somebody's page."""

    prompt: str
    seed: str
    adapter: str


class Compare:
    """What the page shows and keeps: pairs that were shown, so that only these can be voted on, and the votes."""

    def __init__(self, adapters: Sequence[str], log: VoteLog, identity: Identity) -> None:
        self.adapters, self.log, self.identity = list(adapters), log, identity
        self._lock = threading.Lock()
        self._shown: OrderedDict[str, Shown] = OrderedDict()

    def show(self, pair_id: str, shown: Shown) -> None:
        """Notes a pair that goes to a page."""
        with self._lock:
            self._shown[pair_id] = shown
            self._shown.move_to_end(pair_id)
            while len(self._shown) > _MAX_SHOWN:
                self._shown.popitem(last=False)

    def vote(self, voter: str, pair_id: str, choice: str | None) -> bool:
        """
        Writes a vote; whether it is new (a second click is not).

        Raises:
            ValueError: if the pair was never shown, or the choice is none of `CHOICES`.
        """
        pair = self._shown.get(pair_id)
        if pair is None:
            raise ValueError("This pair is no longer on the page; show it again, then vote.")
        if choice not in CHOICES:
            raise ValueError("Choose one of the three answers.")
        row = Comparison(
            id=vote_id(voter, pair_id, None),
            prompt=pair.prompt,
            video_a=f"{BASE}/{pair.seed}",
            video_b=f"{pair.adapter}/{pair.seed}",
            choice=choice,
            dimension=None,
            voter=voter,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return self.log.add([{**asdict(row), "pair": pair_id}]) > 0


class Gallery:
    """
    Pairs of clips that were made beforehand: the base's against each adapter's, by prompt and seed.

    Args:
        base: the base's clips.
        aligned: adapter -> its clips.
        scores: clip id -> scored row, for clips whose own row carries no verdict.
    """

    def __init__(
        self,
        base: Sequence[GalleryClip],
        aligned: Mapping[str, Sequence[GalleryClip]],
        scores: Mapping[str, Row] | None = None,
    ) -> None:
        self._scores = scores or {}
        self.adapters = list(aligned)
        self.pairs: dict[tuple[str, str, str], VideoPair] = {}
        for name, clips in aligned.items():
            seen: Counter[tuple[str, str]] = Counter()
            for pair in pair_clips(base, clips):
                seen[pair.prompt, pair.seed] += 1
                number = seen[pair.prompt, pair.seed]
                # Clips may share prompt and seed (made with other settings), or have no seed: they are numbered.
                seed = pair.seed if pair.seed and number == 1 else f"{pair.seed} #{number}".strip()
                self.pairs[name, pair.prompt, seed] = pair

    @classmethod
    def load(cls, sources: Mapping[str, str], scores: Mapping[str, str], *, token: str | None = None) -> "Gallery":
        """
        A gallery from folders or dataset repositories: name -> clips (`base` among them), name -> scored rows.

        Raises:
            ValueError: if no source is called `base`, or there is no other.
        """
        if BASE not in sources or len(sources) < 2:
            raise ValueError(f"GALLERY names {', '.join(sources)}; name `{BASE}=...` and one or more others.")
        clips = {name: load_clips(source, system=name, token=token) for name, source in sources.items()}
        folders = [scored if Path(scored).is_dir() else fetch(scored, token) for scored in scores.values()]
        rows = [row for folder in folders for row in read_rows(Path(folder) / METADATA_FILE)]
        return cls(clips.pop(BASE), clips, {str(row["id"]): row for row in rows})

    def prompts(self, adapter: str) -> list[str]:
        """Prompts that there are clips of."""
        return list(dict.fromkeys(prompt for name, prompt, _ in self.pairs if name == adapter))

    def seeds(self, adapter: str, prompt: str) -> list[str]:
        """Seeds of a prompt."""
        return [seed for name, other, seed in self.pairs if (name, other) == (adapter, prompt)]

    def get(self, adapter: str, prompt: str, seed: str) -> ComparedClips | None:
        """The clips, `None` if there are none."""
        pair = self.pairs.get((adapter, prompt, seed))
        if pair is None:
            return None
        scores = (self._score(pair.first), self._score(pair.second))
        return ComparedClips(pair.id, (pair.first.path, pair.second.path), scores)

    def _score(self, clip: GalleryClip) -> CriticScore | None:
        return score_of(clip.row) or (score_of(self._scores[clip.id]) if clip.id in self._scores else None)


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
            _live_controls(demo, compare, shelf, make, prompts)
        elif gallery is not None:
            _gallery_controls(demo, compare, shelf, gallery)
    return demo


class _Stage(NamedTuple):
    """The part of the page that shows a pair and takes a vote."""

    prompt: gr.HTML
    player: gr.HTML
    verdict: gr.HTML
    pair: gr.Textbox
    form: gr.Column
    vote: gr.Radio
    said: gr.HTML


def _stage(compare: Compare) -> _Stage:
    prompt, player, verdict = html(), html(), html(elem_id="lift-verdicts")
    pair = gr.Textbox(visible="hidden", elem_id="lift-pair")
    with gr.Column(visible=False) as form:
        with gr.Row(elem_id="lift-vote-row"):
            vote = gr.Radio([], label="Which is better?", elem_classes="lift-question", elem_id="lift-vote", scale=4)
            submit = gr.Button("Vote", variant="primary", elem_id="lift-submit", scale=1, min_width=140)
    said = html(elem_id="lift-said")

    def send(pair_id: str, choice: str | None, request: gr.Request, profile: gr.OAuthProfile | None = None) -> str:
        with told():
            is_new = compare.vote(compare.identity.voter(request, profile), pair_id, choice)
        return notice_html("Your vote is saved. Thank you!" if is_new else "You have voted on this pair already.")

    submit.click(send, [pair, vote], said, **QUICK)
    return _Stage(prompt, player, verdict, pair, form, vote, said)


def _fill(compare: Compare, shelf: ClipShelf, shown: Shown, clips: ComparedClips | None, *, prompt: str) -> list[Any]:
    """Values for `_Stage`."""
    if clips is None:
        return ["", notice_html("There is no such clip."), "", "", gr.Column(visible=False), None, ""]
    compare.show(clips.id, shown)
    names = (BASE, shown.adapter)
    player = clip_player(list(zip(clips.paths, names)), shelf)
    verdict = verdicts_html(list(zip(names, clips.scores)))
    answers = gr.Radio(list(zip((BASE, "no difference", shown.adapter), CHOICES)), value=None)
    return [prompt, player, verdict, clips.id, gr.Column(visible=True), answers, ""]


def _live_controls(demo: gr.Blocks, compare: Compare, shelf: ClipShelf, make: Make, prompts: Sequence[str]) -> None:
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

    def run(text: str, number: float | None, name: str) -> list[Any]:
        with told():
            clips = make(text, int(number or 0), name)
        shown = Shown(text.strip(), str(int(number or 0)), name)
        return _fill(compare, shelf, shown, clips, prompt=prompt_html(shown.prompt))

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

    def change(name: str, text: str | None, number: str | None) -> list[Any]:
        prompts = gallery.prompts(name)
        text = text if text in prompts else prompts[0]
        seeds = gallery.seeds(name, text)
        number = number if number in seeds else seeds[0]
        whole = prompt_html(text) if len(text) > _SHORT else ""
        shown = _fill(compare, shelf, Shown(text, number, name), gallery.get(name, text, number), prompt=whole)
        return [gr.Dropdown(prompts, value=text), gr.Dropdown(seeds, value=number), *shown]

    outputs = [prompt, seed, *stage]
    demo.load(change, [adapter, prompt, seed], outputs, **QUICK)
    for field in (adapter, prompt, seed):
        field.input(change, [adapter, prompt, seed], outputs, **QUICK)
