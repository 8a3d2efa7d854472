"""Critics of five families on tensors of device "meta": scoring, and the losses of rows and of pairs with backward.

What the processor makes is made on the CPU, as in a run, and goes to the device whole. Qwen's positions and windows depend
on values (the sizes of the clips), which are remembered beside such tensors.
"""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from lift_trl.critic.collator import CriticCollator, FrameCache
from lift_trl.critic.pairs.loss import pair_losses, pair_margins
from lift_trl.critic.pairs.reading import Pair
from lift_trl.critic.prefix import ask, encode_questions, label_tokens, run_encoded
from lift_trl.critic.settings import CriticSettings
from lift_trl.records import RatedVideo
from lift_trl.store.video_io import Clip, write_video
from tests.critic.tiny_models import build_vlm
from tests.fake_device import DEVICE, fake_device
from tests.own_rubric import OWN


FAMILIES = ("idefics3", "internvl", "llava_llama", "qwen2_5_vl", "qwen3_vl")
CAPTION = "a red fox"
SETTINGS = CriticSettings(num_frames=4, rubric=OWN)


@pytest.fixture(params=FAMILIES)
def critic(request, tmp_path):
    """A model on the device, its processor and adapter."""
    model, processor = build_vlm(request.param, save_directory=tmp_path / "vlm")
    return model.to(DEVICE), processor, SETTINGS.adapter(model.config.model_type)


def test_scoring_stays_on_the_device(critic):
    model, processor, adapter = critic
    labels = label_tokens(adapter, processor, OWN)
    clip = Clip(np.zeros((4, 48, 64, 3), dtype=np.uint8), np.linspace(0, 6, 4), 8.0)
    questions = [ask(adapter, processor, clip, CAPTION, labels, OWN)] * 2
    encoded = encode_questions(adapter, processor, [clip] * 2, questions)
    with torch.no_grad(), fake_device():
        logprobs = run_encoded(model.eval(), adapter, encoded).logprobs
    assert logprobs.device == DEVICE and logprobs.shape == (2, len(OWN.dimensions), len(OWN.labels))


def to_device(value):
    if isinstance(value, dict):
        return {name: to_device(one) for name, one in value.items()}
    return value.to(DEVICE)


def test_the_losses_and_their_gradients_stay_on_the_device(critic, tmp_path):
    model, processor, adapter = critic
    write_video(tmp_path / "clip.mp4", np.zeros((9, 48, 64, 3), dtype=np.uint8), fps=8.0)
    video = RatedVideo("clip", tmp_path / "clip.mp4", CAPTION)
    row = {"video": tmp_path / "clip.mp4", "caption": CAPTION, "label": OWN.labels[1], "reason": "It moves."}
    rows = [{**row, "dimension": name, "pairs": [Pair(video, video, OWN.dimensions)]} for name in OWN.dimensions]
    batch = CriticCollator(adapter, processor, SETTINGS, FrameCache(4, 1e9))(rows)
    lora = LoraConfig(r=2, target_modules=adapter.lora_target_modules)
    tuned = get_peft_model(model.requires_grad_(False), lora).train()
    with fake_device():
        batch = to_device(batch)
        pairs = batch.pop("pairs")
        rewards = torch.tensor([OWN.rewards[label] for label in OWN.labels], device=DEVICE)
        margins = pair_margins(tuned, pairs, rewards)
        (tuned(**batch).loss + pair_losses(margins, 10.0).sum()).backward()
    trained = [weight for weight in tuned.parameters() if weight.requires_grad]
    assert margins.shape == (2,) and trained and {weight.grad.device for weight in trained} == {DEVICE}
