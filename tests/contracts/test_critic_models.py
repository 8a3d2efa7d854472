"""What every critic model family must do, on a tiny random model of the real classes."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from lift_trl.critic.conversation import render_prompt
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.store.video_io import Clip
from tests.contracts.critic_models import FAMILIES, Family


CAPTIONS = ["A fox.", "Two red squirrels carry a very long ladder across a bridge.", "Rain"]


@cache
def critic_of(family: Family) -> LiFTCritic:
    return LiFTCritic(*family.build(), settings=family.settings, name="tiny")


def make_clip(seed: int, height: int = 32, width: int = 48, seconds: float = 2.0) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (4, height, width, 3), dtype=np.uint8)
    return Clip(frames, np.linspace(0, seconds, 4), 8.0)


CLIPS = [make_clip(0), make_clip(1, seconds=5.0), make_clip(2, 48, 48)]


def separate_logprobs(critic: LiFTCritic, clip: Clip, caption: str) -> torch.Tensor:
    """[3, 3]: every label after every question in a full forward of its own, at positions that the model finds itself."""
    table = []
    for dimension in Dimension:
        prompt = render_prompt(critic.adapter, critic.processor, list(clip.frames), LIFT.question(dimension, caption))
        inputs = dict(critic.adapter.encode(critic.processor, [prompt], [clip]))
        length = inputs["input_ids"].shape[1]
        for label in Label:
            tokens = torch.tensor([critic._labels[label].label])
            full = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1)}
            full["attention_mask"] = torch.ones_like(full["input_ids"])
            if "mm_token_type_ids" in full:
                types = inputs["mm_token_type_ids"]
                full["mm_token_type_ids"] = torch.cat([types, torch.zeros_like(tokens)], dim=1)
            with torch.inference_mode():
                logits = critic.model(**full, use_cache=False).logits[0, length - 1 : -1].float()
            table.append(logits.log_softmax(-1).gather(-1, tokens.T).sum())
    return torch.stack(table).view(3, 3)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_shared_prefix_equals_separate_forwards(family):
    critic = critic_of(family)
    assert max(len(tokens.label) for tokens in critic._labels.values()) > 1, "the tokenizer must split some label"
    together = critic.label_logprobs(CLIPS, CAPTIONS)
    for row, (clip, caption) in enumerate(zip(CLIPS, CAPTIONS)):
        torch.testing.assert_close(together[row], separate_logprobs(critic, clip, caption), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_batch_equals_one_at_a_time_in_any_order(family):
    critic = critic_of(family)
    together = critic.label_logprobs(CLIPS, CAPTIONS)
    alone = torch.cat([critic.label_logprobs([clip], [caption]) for clip, caption in zip(CLIPS, CAPTIONS)])
    backwards = critic.label_logprobs(CLIPS[::-1], CAPTIONS[::-1]).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(together, backwards, atol=1e-4, rtol=0)
    assert torch.equal(together, critic.label_logprobs(CLIPS, CAPTIONS))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_videos_of_a_batch_are_independent_prompts(family):
    """A change of one video moves its own scores and nobody else's (UniRL 332: all videos went to every prompt)."""
    critic = critic_of(family)
    before = critic.label_logprobs(CLIPS, CAPTIONS)
    after = critic.label_logprobs([CLIPS[0], make_clip(7), CLIPS[2]], CAPTIONS)
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]], atol=1e-4, rtol=0)
    assert (before[1] - after[1]).abs().max() > 1e-3
    recaptioned = critic.label_logprobs(CLIPS, [CAPTIONS[0], "Something else", CAPTIONS[2]])
    torch.testing.assert_close(before[[0, 2]], recaptioned[[0, 2]], atol=1e-4, rtol=0)
    assert (before[1] - recaptioned[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_order_of_frames_matters(family):
    critic = critic_of(family)
    turned = CLIPS[0]._replace(frames=CLIPS[0].frames[::-1].copy())
    difference = critic.label_logprobs([CLIPS[0]], ["A fox."]) - critic.label_logprobs([turned], ["A fox."])
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_reasons_equal_those_of_generate_after_the_chosen_label(family):
    critic = critic_of(family)
    critic.max_reason_tokens = 12
    labels = list(Label)
    for clip, caption, verdicts in zip(CLIPS, CAPTIONS, critic._judge(critic._encode(CLIPS, CAPTIONS), True)):
        for verdict in verdicts:
            text = LIFT.question(verdict.dimension, caption)
            prompt = render_prompt(critic.adapter, critic.processor, list(clip.frames), text)
            inputs = dict(critic.adapter.encode(critic.processor, [prompt], [clip]))
            opening = critic._labels[labels[labels.index(verdict.label)]]
            tokens = torch.tensor([[*opening.label, *opening.rest]])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if "mm_token_type_ids" in inputs:
                types = inputs["mm_token_type_ids"]
                inputs["mm_token_type_ids"] = torch.cat([types, torch.zeros_like(tokens)], dim=1)
            written = critic.model.generate(**inputs, do_sample=False, max_new_tokens=12)
            new = written[0, inputs["input_ids"].shape[1] :]
            assert verdict.reason == critic.processor.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_lora_targets_are_the_linear_layers_of_the_language_model(family):
    critic = critic_of(family)
    pattern = critic.adapter.lora_target_modules
    linears = {name for name, module in critic.model.named_modules() if isinstance(module, nn.Linear)}
    targets = {name for name in linears if re.fullmatch(pattern, name)}
    decoder = critic.model.get_decoder()
    inside = {name for name, module in critic.model.named_modules() if any(module is m for m in decoder.modules())}
    assert targets == linears & inside and targets
    assert not any("visual" in name or "vision" in name or "connector" in name for name in targets)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.native_video], ids=str)
def test_native_video_tells_the_true_time(family):
    """The same frames over 1 s and over 20 s are different videos."""
    critic = critic_of(family)
    short, long = (make_clip(0, seconds=s) for s in (1.0, 20.0))
    prompt = render_prompt(critic.adapter, critic.processor, list(short.frames), "A fox.")
    inputs = critic.adapter.encode(critic.processor, [prompt, prompt], [short, long])
    if family.model_type == "qwen2_5_vl":
        # Two frames a grid step; each of the 4 frames is a third of the clip after the one before.
        np.testing.assert_allclose(inputs["second_per_grid_ts"], [2 * 1 / 3, 2 * 20 / 3], rtol=1e-6)
    else:
        text = critic.processor.tokenizer.batch_decode(inputs["input_ids"])
        assert re.findall(r"<[\d.]+ seconds>", text[0]) == ["<0.2 seconds>", "<0.8 seconds>"]
        assert re.findall(r"<[\d.]+ seconds>", text[1]) == ["<3.3 seconds>", "<16.7 seconds>"]
    difference = critic.label_logprobs([short], ["A fox."]) - critic.label_logprobs([long], ["A fox."])
    assert difference.abs().max() > 1e-4
