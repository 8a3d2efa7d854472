"""Types of numbers: each family, and critics, in the half precision of their weights, as on a GPU, computed on the CPU.

Products of two types are refused by the CPU as by a GPU, so a tensor that some line leaves in float32 is found here: where a
run has autocast (losses, on a float32 LoRA) under the CPU's own, and without it where a run has none (encoding, sampling,
scoring).
"""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F

from lift_trl.alignment.data.clips import scaled
from lift_trl.alignment.objectives import per_sample_loss
from lift_trl.alignment.training.draws import draw_rows
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings
from lift_trl.store.video_io import Clip
from lift_trl.video_models import open_pipeline
from tests.contracts.video_models import VIDEO_MODELS
from tests.critic.tiny_models import build_vlm
from tests.own_rubric import OWN


FRAMES, HEIGHT, WIDTH = 9, 32, 64


def layer_norm(rows, shape, weight=None, bias=None, eps=1e-5, *, own=F.layer_norm):
    """As under a GPU's autocast, in float32; the CPU's has no rule for norms, and refuses two types."""
    if torch.is_autocast_enabled("cpu"):
        rows, weight, bias = (one if one is None else one.float() for one in (rows, weight, bias))
    return own(rows, shape, weight, bias, eps)


@pytest.mark.parametrize("family", VIDEO_MODELS)
def test_a_family_mixes_no_types(family, monkeypatch):
    monkeypatch.setattr(F, "layer_norm", layer_norm)
    source = open_pipeline(VIDEO_MODELS[family]())
    model, dtype = source.adapter, source.adapter.dtype
    pipe = source.load(*source._component_names(), dtype=dtype, private=True)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        text = model.encode_text(pipe, ["a red fox"])
        posterior = model.encode_video(pipe, scaled(torch.zeros(1, FRAMES, 3, HEIGHT, WIDTH, dtype=torch.uint8)))
        model.prepare_sampling(pipe, model.guidance_scale)
        video = pipe(
            num_inference_steps=2,
            generator=[torch.Generator().manual_seed(0)],
            output_type="pt",
            **model.pipeline_text(text, text if model.guidance_scale > 1 else None),
            **model.sampling_arguments(FRAMES, HEIGHT, WIDTH, model.guidance_scale),
        ).frames
    assert dtype in (torch.float16, torch.bfloat16) and video.isfinite().all()
    network = getattr(pipe, model.networks[0]).requires_grad_(False)
    tuned = get_peft_model(network, LoraConfig(r=2, target_modules=list(model.lora_target_modules))).train()
    draws = draw_rows(["a"], posterior.mean.shape[1:], key=(0,), num_timesteps=1000, caption_dropout=0.0)
    noisy = model.corrupt(pipe.scheduler, draws.posterior_noise, draws.noise, draws.timesteps)
    with torch.autocast("cpu", dtype):
        loss = per_sample_loss(model.predict(tuned, noisy, text), noisy.target).mean()
    loss.backward()
    trained = [weight for weight in tuned.parameters() if weight.requires_grad]
    assert loss.dtype == torch.float32 and {weight.grad.dtype for weight in trained} == {torch.float32}


@pytest.mark.parametrize("family", ["idefics3", "internvl", "llava_llama", "qwen2_5_vl", "qwen3_vl"])
def test_a_critic_mixes_no_types(family, tmp_path):
    model, processor = build_vlm(family, save_directory=tmp_path)
    settings = CriticSettings(num_frames=4, rubric=OWN)
    critic = LiFTCritic(model.to(torch.bfloat16), processor, settings=settings, max_reason_tokens=2)
    clip = Clip(np.zeros((4, 48, 64, 3), dtype=np.uint8), np.linspace(0, 6, 4), 8.0)
    assert critic.label_logprobs([clip] * 2, ["a red fox"] * 2).isfinite().all()


def test_two_types_in_a_product_are_refused():
    """So the tests above can fail."""
    with pytest.raises(RuntimeError, match="same dtype|Half|BFloat16"):
        torch.nn.Linear(4, 4, dtype=torch.bfloat16)(torch.zeros(1, 4))
