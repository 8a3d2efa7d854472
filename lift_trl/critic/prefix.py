"""A clip's frames and caption run through the model once; every question and label then grows from there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache

from ..protocols import CriticModel
from ..rubric import Rubric, format_answer
from ..store.video_io import Clip
from .conversation import answer_tokens, render_answer, render_prompt, shared_prefix
from .tree import Tree, additive, branch_logprobs, grow, lay_out, predicting_nodes, rows_at


class Questions(NamedTuple):
    """The questions about one clip in tokens: a rendered prompt, the tokens that follow the shared prefix, the tree."""

    prompt: str
    suffix: list[int]
    tree: Tree


class LabelTokens(NamedTuple):
    """What the critic writes for a label: the label's own tokens, and those up to where the reason begins."""

    label: list[int]
    rest: list[int]


@dataclass
class Branches:
    """
    A batch of clips after all their questions and labels have run. B clips, D questions, L labels, K keys.

    Attributes:
        logprobs: float32 [B, D, L], of every label after every question, both in the order of the rubric.
        cache: the keys and values of prefix and tree.
        visible: bool [B, S, K], which key each node of the tree sees.
        positions: i64 [B, S].
        logits_dtype: precision of the mask.
    """

    logprobs: Tensor
    trees: list[Tree]
    cache: DynamicCache = field(repr=False)
    visible: Tensor = field(repr=False)
    positions: Tensor = field(repr=False)


def label_tokens(adapter: CriticModel, processor: Any, rubric: Rubric) -> dict[str, LabelTokens]:
    """
    The tokens of each label of `rubric` as the chat template and the tokenizer write them at the start of an answer.

    Raises:
        ValueError: if two labels have the same tokens, or the tokens of one begin those of another.
    """
    tokenizer = processor.tokenizer
    prompt = render_prompt(adapter, processor, (), "")
    found: dict[str, LabelTokens] = {}
    for label in rubric.labels:
        answer = format_answer(label, "")
        text = render_answer(adapter, processor, (), "", answer)
        start = text.index(answer)
        whole = answer_tokens(tokenizer, prompt, text[: start + len(answer)])
        bare = answer_tokens(tokenizer, prompt, text[: start + len(label)])
        # Where the full stop merges into the label's last token, the two are scored together.
        size = len(bare) if whole[: len(bare)] == bare else len(whole)
        found[label] = LabelTokens(whole[:size], whole[size:])
    for one in found:
        for other in found:
            if one != other and found[other].label[: len(found[one].label)] == found[one].label:
                raise ValueError(
                    f"the tokenizer writes {one} as {found[one].label} and {other} as {found[other].label}: they cannot "
                    "be told apart. Use a tokenizer that knows the labels."
                )
    return found


def end_tokens(adapter: CriticModel, processor: Any, model: Any, rubric: Rubric) -> frozenset[int]:
    """Ids that end an answer: the template's end of turn, and what the model's generation settings name."""
    answer = format_answer(rubric.best, "")
    text = render_answer(adapter, processor, (), "", answer)
    start = text.index(answer) + len(answer)
    prompt = render_prompt(adapter, processor, (), "") + text[:start]
    tail = answer_tokens(processor.tokenizer, prompt, text[start:])
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*tail[:1], *ids, processor.tokenizer.eos_token_id) if i is not None)


def ask(
    adapter: CriticModel,
    processor: Any,
    clip: Clip,
    caption: str,
    labels: Mapping[str, LabelTokens],
    rubric: Rubric,
) -> Questions:
    """The questions of `rubric` about one clip, cut where they part."""
    asked = [rubric.question(dimension, caption) for dimension in rubric.dimensions]
    prompts = [render_prompt(adapter, processor, list(clip.frames), text) for text in asked]
    rows = processor.tokenizer(prompts, add_special_tokens=False)["input_ids"]
    size = shared_prefix(rows)
    suffixes = [row[size:] for row in rows]
    return Questions(prompts[0], suffixes[0], grow(suffixes, [labels[label].label for label in rubric.labels]))


class RefusedClipsError(ValueError):
    """The processor takes some clips of a batch not, as too narrow ones. `reasons`: why, by their places in it."""

    def __init__(self, reasons: dict[int, str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(f"clip {place + 1}: {reason}" for place, reason in reasons.items()))


def encode_batch(
    adapter: CriticModel, processor: Any, prompts: Sequence[str], clips: Sequence[Clip]
) -> dict[str, Any]:
    """
    The model's inputs for a batch.

    Raises:
        RefusedClipsError: if the processor refuses clips that the others stand beside.
    """
    try:
        return dict(adapter.encode(processor, prompts, clips))
    except ValueError:
        reasons = {}
        for place, (prompt, clip) in enumerate(zip(prompts, clips)):
            try:
                adapter.encode(processor, [prompt], [clip])
            except ValueError as error:
                reasons[place] = f"the critic's processor refuses the clip: {error}"
        if not reasons:
            raise
        raise RefusedClipsError(reasons) from None


def run_questions(
    model: Any, adapter: CriticModel, processor: Any, clips: Sequence[Clip], questions: Sequence[Questions]
) -> Branches:
    """As `run_encoded`, of what `encode_questions` gives."""
    return run_encoded(model, adapter, encode_questions(adapter, processor, clips, questions))


class Encoded(NamedTuple):
    """A batch in tensors, not yet on the model's device: its inputs, which tokens are the prefix, the clips' trees."""

    inputs: dict[str, Tensor]
    prefix_mask: Tensor
    trees: list[Tree]


def encode_questions(
    adapter: CriticModel, processor: Any, clips: Sequence[Clip], questions: Sequence[Questions]
) -> Encoded:
    """
    The part of a batch's work that needs no model.

    Raises:
        ValueError: if the chat template puts the question before the frames, or the processor refuses a clip.
    """
    encoded = encode_batch(adapter, processor, [q.prompt for q in questions], clips)
    inputs, prefix_mask = cut_prefix(encoded, questions)
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    return Encoded(tensors, prefix_mask, [q.tree for q in questions])


@torch.no_grad()
def run_encoded(model: Any, adapter: CriticModel, encoded: Encoded) -> Branches:
    """
    Runs a batch: one pass over frames and captions (the vision tower sees each clip once), one over all that follows.

    Not in inference mode: what FSDP gathers in it cannot be trained after an evaluation.
    """
    inputs = {name: value.to(model.device) for name, value in encoded.inputs.items()}
    prefix_mask, trees = encoded.prefix_mask.to(model.device), encoded.trees
    cache = model(**inputs, use_cache=True, logits_to_keep=1).cache

    # The family's adapter knows the modules of the model that PEFT put its layers into.
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    layout = lay_out(trees, prefix_mask)
    positions = layout.depths + prefix_mask.sum(dim=1, keepdim=True) + adapter.position_shift(bare)
    places = predicting_nodes(trees)
    output = model(
        input_ids=layout.input_ids,
        attention_mask=additive(layout.visible, model.dtype),
        position_ids=positions,
        cache=cache,
        use_cache=True,
        logits_to_keep=torch.tensor(places, device=model.device),
    )
    logprobs = branch_logprobs(trees, places, rows_at(places, output.logits, num_nodes=layout.input_ids.shape[1]))
    return Branches(logprobs, trees, output.cache, layout.visible, positions)


def cut_prefix(inputs: dict[str, Any], questions: Sequence[Questions]) -> tuple[dict[str, Any], Tensor]:
    """`inputs` [B, L] of the first question without its tokens, and the bool mask [B, P] of what is left."""
    input_ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    lengths = []
    for row, (_, suffix, _) in enumerate(questions):
        tokens = input_ids[row][mask[row]].tolist()
        if tokens[len(tokens) - len(suffix) :] != suffix:
            raise ValueError(
                "the chat template puts frames after the question, so the questions of a clip share nothing. Use a "
                "template that keeps the order of a message: frames, caption, question."
            )
        lengths.append(len(tokens) - len(suffix))
    longest = max(lengths)
    places = torch.arange(longest)
    prefix_mask = places < torch.tensor(lengths)[:, None]
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == input_ids.shape:
            inputs[name] = value[:, :longest].clone()
    inputs["attention_mask"] = prefix_mask.long()
    return inputs, prefix_mask
