"""The clips of a LoRA's card: what the base makes of a prompt and what the tuned model makes of it, side by side."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard

from ..store.manifest import write_text
from .playable import mp4_of


#: Folder of the clips beside the card, in the repository too.
GALLERY = "gallery"
#: Pairs on a card.
MAX_PAIRS = 8
_OWN_CLIP = re.compile(r"\d\d-(base|aligned)\.mp4")
_TAG = "<Gallery />"
#: What the validation of a training leaves beside the model: `NN-key/base.mp4`, `NN-key/step-N.mp4`, `NN-key/prompt.txt`.
VALIDATION, PROMPT_FILE = "validation", "prompt.txt"


class Pair(NamedTuple):
    """One prompt's clips from the same noise."""

    prompt: str
    base: Path
    aligned: Path


def validation_pairs(folder: Path) -> list[Pair]:
    """
    The base's and the last step's clips of each validation prompt of the training in `folder`.

    A prompt without a clip of the last step is one that the run was resumed without: its clips are of another model.
    """
    steps = {int(path.stem.removeprefix("step-")) for path in (folder / VALIDATION).glob("*/step-*.mp4")}
    pairs = []
    for aligned in sorted((folder / VALIDATION).glob(f"*/step-{max(steps, default=0)}.mp4")):
        base, prompt = (aligned.with_name(name) for name in ("base.mp4", PROMPT_FILE))
        if base.is_file() and prompt.is_file():
            pairs.append(Pair(prompt.read_text(encoding="utf-8"), base, aligned))
    return pairs


def gallery_files(pairs: Sequence[Pair]) -> dict[str, Path]:
    """Name in the repository -> clip, for `add_gallery`."""
    return {
        f"{GALLERY}/{number:02d}-{side}.mp4": clip
        for number, pair in enumerate(pairs[:MAX_PAIRS])
        for side, clip in (("base", pair.base), ("aligned", pair.aligned))
    }


def add_gallery(card: ModelCard, pairs: Sequence[Pair]) -> None:
    """Names the clips of `gallery_files(pairs)` in the card's front matter, and shows them below its first paragraph."""
    prompts = [pair.prompt for pair in pairs[:MAX_PAIRS] for _ in range(2)]
    data: Any = card.data  # the client declares only the fields that most cards have
    data.widget = [_entry(name, prompt) for name, prompt in zip(gallery_files(pairs), prompts, strict=True)]
    if _TAG not in card.text:
        head, separator, rest = card.text.partition("\n## ")
        card.text = f"{head.rstrip()}\n\n{_TAG}\n{separator}{rest}"


def with_gallery(readme: str, pairs: Sequence[Pair]) -> str:
    """`readme`, a model's card, with `add_gallery`."""
    card = ModelCard(readme)
    add_gallery(card, pairs)
    return str(card)


def _entry(name: str, prompt: str) -> Mapping[str, Any]:
    side = "base model" if name.endswith("-base.mp4") else "this model"
    return {"text": f"{prompt} ({side})", "output": {"url": name}}


def save_gallery(card_file: Path, card: ModelCard, pairs: Sequence[Pair]) -> None:
    """
    Copies the clips, in a form that browsers play, to beside `card_file`, names them in `card` and writes it; then clips of
    an earlier card go, and nothing else of what lies there. Killed at any moment, it leaves a card whose clips are there.
    """
    clips = gallery_files(pairs)
    (card_file.parent / GALLERY).mkdir(exist_ok=True)
    for name, clip in clips.items():
        partial = card_file.parent / f"{name}.tmp"
        partial.write_bytes(mp4_of(clip))
        partial.replace(card_file.parent / name)
    add_gallery(card, pairs)
    write_text(card_file, str(card))
    for path in (card_file.parent / GALLERY).iterdir():
        if _OWN_CLIP.fullmatch(path.name) and f"{GALLERY}/{path.name}" not in clips:
            path.unlink()
