"""Can this model be a critic? What its configuration tells before the weights are loaded, and what one clip shows after."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import get_layer_types_and_kwargs

from ..protocols import CriticModel
from ..rubric import Rubric
from ..store.video_io import Clip
from .collator import append_answers
from .conversation import render_prompt
from .prefix import LabelTokens, ask, run_questions
from .settings import CriticSettings


logger = logging.getLogger(__name__)

#: How far (in nats, of float32) the two ways of scoring a label may lie apart.
TOLERANCE = 1e-2
#: Roundings of the largest logit by which they may differ beside that; nothing to speak of in float32.
NUM_ROUNDINGS = 4
#: Above so many tokens a frame, a warning: most are tiles of a picture that is small already.
MANY_TOKENS = 600
#: Attention that takes a mask of its own.
ATTENTION = ("sdpa", "eager")
#: Layers that keep every key, or use those of another layer.
LAYERS = frozenset({"full_attention", "dummy"})
#: What a forward that knows no shared prefix, or a processor that takes no eight pictures, ends in.
_FAILURES = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError)


def check_config(config: Any, attn_implementation: str | None = None) -> None:
    """
    Refuses a model by its configuration, before its weights are loaded.

    The three questions of a clip stand in one row behind its prefix. That takes a mask of its own, and every key kept.

    Args:
        attn_implementation: what the model will be loaded with; what the configuration says by default.

    Raises:
        ValueError: naming what the model has and what it needs.
    """
    if config.is_encoder_decoder:
        raise ValueError(
            f"model type {config.model_type!r} has an encoder for its text, so no prefix of a decoder can be shared. Use "
            "a chat model such as Qwen2.5-VL, InternVL or Idefics3."
        )
    text = config.get_text_config(decoder=True)
    # Private in transformers 5.24: _attn_implementation; when it goes,
    # `test_attention_without_a_mask_of_its_own_is_refused` fails.
    used = attn_implementation or text._attn_implementation
    if used is not None and used not in ATTENTION:
        raise ValueError(
            f"attn_implementation={used!r} takes no attention mask of its own, and the three questions of a clip share "
            "one row. Load the model with attn_implementation='sdpa'."
        )
    others = set(get_layer_types_and_kwargs(text)[0]) - LAYERS
    if others:
        raise ValueError(
            f"model type {config.model_type!r} has layers of {', '.join(sorted(others))}, which drop keys that the "
            "questions of a clip share. Use a model with full attention."
        )


def check_both_ways(
    model: Any, adapter: CriticModel, processor: Any, settings: CriticSettings, labels: Mapping[str, LabelTokens]
) -> None:
    """
    Scores one clip behind a shared prefix and in full forwards, one a label, and refuses a model whose figures differ.

    Raises:
        ValueError: naming the difference, or what the model's own code raised.
    """
    # Square, so that a picture of few tokens has rows and columns of them too.
    clip, caption = _sample(settings.num_frames, 256, 256), "A fox."
    was_training = model.training
    model.eval()
    try:
        # The shorter of two captions, so that the prefix is padded.
        pair = [
            ask(adapter, processor, clip, text, labels, settings.rubric)
            for text in (caption, f"{caption} A very long red ladder.")
        ]
        shared = run_questions(model, adapter, processor, [clip, clip], pair).logprobs[0]
        whole, bound = full_logprobs(model, adapter, processor, clip, caption, labels, settings.rubric)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        raise ValueError(
            f"model type {model.config.model_type!r} cannot score {settings.num_frames} frames behind a shared prefix "
            f"({type(error).__name__}: {error}). docs/add_a_critic.md lists the families that can."
        ) from error
    finally:
        model.train(was_training)
    difference = (shared - whole).abs().max().item()
    if not difference <= bound:  # nor is it if it is no number
        raise ValueError(
            f"model type {model.config.model_type!r} scores a clip otherwise behind a shared prefix than in forwards of "
            f"its own: {difference:.3g} nats apart, at most {bound:.2g} are sound. Its positions, mask or cache differ from "
            "what its adapter in lift_trl/critic_models says; docs/add_a_critic.md lists the families that work."
        )


@torch.no_grad()
def full_logprobs(
    model: Any,
    adapter: CriticModel,
    processor: Any,
    clip: Clip,
    caption: str,
    labels: Mapping[str, LabelTokens],
    rubric: Rubric,
) -> tuple[Tensor, float]:
    """
    Log-probability [D, L] of every label after every question of `rubric` in a forward of its own, at positions that the
    model finds itself; and how far another way may lie from it at the model's precision.
    """
    rows, bound = [], TOLERANCE
    for dimension in rubric.dimensions:
        prompt = render_prompt(adapter, processor, list(clip.frames), rubric.question(dimension, caption))
        inputs = dict(adapter.encode(processor, [prompt], [clip]))
        length = inputs["input_ids"].shape[1]
        for label in rubric.labels:
            answer = labels[label].label
            row = append_answers(inputs, [answer], pad_id=0)
            row = {n: v.to(model.device) for n, v in row.items() if n != "labels" and isinstance(v, Tensor)}
            logits = model(**row, use_cache=False).logits[0, length - 1 : -1]
            tokens = torch.tensor(answer, device=logits.device)
            rows.append(logits.float().log_softmax(dim=-1).gather(-1, tokens[:, None]).sum())
            rounding = torch.finfo(logits.dtype).eps * logits.abs().max().item()
            bound = max(bound, TOLERANCE + NUM_ROUNDINGS * rounding)
    return torch.stack(rows).view(len(rubric.dimensions), len(rubric.labels)), bound


def warn_of_tiles(adapter: CriticModel, processor: Any, num_frames: int) -> None:
    """Warns where the processor makes many pictures of a frame, which cost much and show little."""
    clip = _sample(num_frames, 480, 720)
    prompt = render_prompt(adapter, processor, list(clip.frames), "")
    count = adapter.encode(processor, [prompt], [clip])["input_ids"].shape[1] // num_frames
    if count > MANY_TOKENS:
        logger.warning(
            "%d tokens for each frame of 480 x 720 pixels. To see a frame as one picture, give processor_kwargs such as "
            "{'crop_to_patches': False} or {'do_image_splitting': False}, or a smaller size.",
            count,
        )


def _sample(num_frames: int, height: int, width: int) -> Clip:
    """Six seconds of noise."""
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    return Clip(frames, np.linspace(0, 6, num_frames), 8.0)
