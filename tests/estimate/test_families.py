"""Families of text-to-video models are counted by their adapters alone."""

import pytest
from peft import LoraConfig

from lift_trl.alignment.data.clips import ClipSize
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.estimate.stages.video import VideoStages
from tests.contracts.video_models import VIDEO_MODELS
from tests.estimate.mid_size import save_configs, settings


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_each_family_is_counted(name, tmp_path):
    pipe = VIDEO_MODELS[name]()
    folder = save_configs(pipe, tmp_path / "checkpoint")
    model = VideoStages(str(folder), ClipSize(9, 32, 32, 8.0)).source().adapter
    stages = VideoStages(str(folder), ClipSize.of(model, 9, 32, 32, None))
    weights = sum(p.numel() * 2 for p in pipe.transformer.parameters())
    step = stages.step_of(settings(tmp_path, 2, True), LoraConfig(r=4), 2)
    assert step.peak["weights"] >= weights / 2 and step.peak["optimiser"] > 0 and step.attention_flops > 0
    sampled = stages.sampling(Sampling(9, 32, 32, num_inference_steps=3))
    assert sampled.peak_bytes > 0 and sampled.flops > 0 and stages.text.flops > 0


@pytest.mark.parametrize("name", ["cogvideox-2b", "hunyuan-1.5"])
def test_a_further_layer_in_8_bits_keeps_what_one_in_16_does(name, tmp_path):
    """In autocast: a layer that gave back the float32 of the norm before it would make its block's output float32 too."""
    folder = save_configs(VIDEO_MODELS[name](), tmp_path / "checkpoint")
    model = VideoStages(str(folder), ClipSize(9, 32, 32, 8.0)).source().adapter
    stages = VideoStages(str(folder), ClipSize.of(model, 9, 32, 32, None))

    def of_a_layer(quantization):
        args = settings(tmp_path, 1, True, quantization=quantization, bf16=True, use_cpu=True)
        few, more = (stages.step_of(args, LoraConfig(r=4), 1, {("transformer", "num_layers"): n}) for n in (2, 4))
        return more.peaks["run"]["activations"] - few.peaks["run"]["activations"]

    assert of_a_layer("int8") == of_a_layer(None)
