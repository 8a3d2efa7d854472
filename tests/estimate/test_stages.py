"""Counted stages against runs in earnest, against the full depth, and against the figures of the real 2B."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lift_trl.alignment.data.clips import ClipSize
from lift_trl.alignment.objectives import OBJECTIVES
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.estimate.stages.video import VideoStages
from lift_trl.estimate.weightless.depth import at_batch
from lift_trl.video_models import open_pipeline
from tests.estimate.held import held_bytes
from tests.estimate.mid_size import LORA, SIZE, build_pipeline, run, save_configs, settings


SCRIPT = Path(__file__).with_name("mid_size.py")


def measured_bytes(batch: int, checkpointing: bool, **more: str) -> int:
    """In a process of its own, so that nothing else has memory to give back."""
    command = [sys.executable, str(SCRIPT), str(batch), str(checkpointing).lower(), json.dumps(more)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_peak_is_within_5_percent_of_a_measured_step(stages, tmp_path, batch, checkpointing):
    counted = stages.step_of(settings(tmp_path, batch, checkpointing), LoraConfig(**LORA), batch)
    assert counted.peak_bytes == pytest.approx(measured_bytes(batch, checkpointing), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind, checkpointing", [("int8", True), ("float8", False)])
def test_peak_on_a_base_in_8_bits_is_within_5_percent_of_a_measured_step(stages, tmp_path, kind, checkpointing):
    counted = stages.step_of(settings(tmp_path, 2, checkpointing, quantization=kind), LoraConfig(**LORA), 2)
    assert counted.peak_bytes == pytest.approx(measured_bytes(2, checkpointing, quantization=kind), rel=0.05)


@pytest.fixture(scope="module")
def tiny_stages(tiny):
    return VideoStages(str(tiny), SIZE)


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_a_base_in_8_bits_takes_what_is_counted(tiny_stages, tmp_path, kind):
    """Without checkpointing each layer leaves its weights in the type that it computes with until backward."""
    build_pipeline(num_layers=2, heads=1).save_pretrained(tmp_path / "files")
    source = open_pipeline(str(tmp_path / "files"))
    network = source.load("transformer", dtype=torch.float32, quantization=kind).transformer
    lora = LoraConfig(**LORA)
    whole, small = (
        tiny_stages.step_of(settings(tmp_path, 2, False, quantization=one), lora, 2) for one in (None, kind)
    )
    assert small.peak["weights"] == pytest.approx(held_bytes(network), rel=0.01)
    assert small.peak["weights"] < whole.peak["weights"] / 2
    assert small.peak["activations"] > whole.peak["activations"]
    assert small.matmul_flops == whole.matmul_flops


#: Forwards of a clip in a step: the trained policy's, and those of the reference or of the policy that sampled.
FORWARDS = {"sft": 1, "rwl": 1, "rs": 1, "best_of_n": 1, "exp": 1, "dpo": 2, "kto": 2, "nft": 2, "awm": 2}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_products_of_each_objective_are_those_of_a_real_step(tiny_stages, tmp_path, objective):
    own = {"objective": objective, "real_weight": 0.0}  # a real clip is one forward, a pair two
    counted = tiny_stages.step_of(settings(tmp_path, 2, False, **own), LoraConfig(**LORA), 2)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(build_pipeline(num_layers=2, heads=1), tmp_path, 2, False, tiny_stages.shapes, **own)
    by_kind = counter.get_flop_counts()["Global"]
    attention = by_kind.pop(torch.ops.aten.bmm) / 2  # two steps
    assert counted.matmul_flops + counted.conv_flops == sum(by_kind.values()) / 2
    # Of two products; a backward pass of four, flash's of five.
    forward = 2 * FORWARDS[objective]
    assert counted.attention_flops * (forward + 4) / (forward + 5) == pytest.approx(attention, rel=1e-9)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A pipeline that is run in earnest in little time, and its stages: its layers are counted in full and in part."""
    pipe = build_pipeline(num_layers=5, heads=2)
    return pipe, VideoStages(str(save_configs(pipe, tmp_path_factory.mktemp("checkpoint") / "narrow")), SIZE)


def test_products_are_those_of_a_real_step(narrow, tmp_path):
    pipe, stages = narrow
    args = settings(tmp_path, 1, True)
    counted = stages.step_of(args, LoraConfig(**LORA), 1)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run(pipe, tmp_path, 1, True, stages.shapes)  # two steps, of a copy
    by_kind = counter.get_flop_counts()["Global"]
    attention = by_kind.pop(torch.ops.aten.bmm) / 2
    # With checkpointing forward runs twice: 2 + 2 products, and 4 backward; flash computes the scores once more.
    assert counted.attention_flops * (2 + 2 + 4) / (2 + 2 + 5) == attention
    assert counted.matmul_flops + counted.conv_flops == sum(by_kind.values()) / 2


def test_few_layers_and_clips_tell_all(stages, tmp_path):
    """Six layers and a batch of three, extrapolated and in full, with accumulation and with a non-default objective."""
    args = settings(tmp_path, 3, False)
    args.gradient_accumulation_steps = 2
    lora = LoraConfig(**LORA)
    full = stages.step_of(args, lora, 3)
    found = at_batch(*stages.steps(args, lora), 3)
    assert found.peak_bytes == pytest.approx(full.peak_bytes, rel=0.01)
    assert found.flops == pytest.approx(full.flops, rel=1e-6)
    assert found.traffic_bytes == pytest.approx(full.traffic_bytes, rel=0.01)


@pytest.fixture(scope="module")
def plain(stages, tmp_path_factory):
    """A step of the default objective, of two rows."""
    return stages.step_of(settings(tmp_path_factory.mktemp("plain"), 2, False), LoraConfig(**LORA), 2)


@pytest.mark.parametrize("objective, rows, moves", [("dpo", 2, False), ("nft", 1, False), ("nft", 1, True)])
def test_passes_of_other_policies_are_counted(stages, plain, tmp_path, objective, rows, moves):
    """Attention is two products forward and five backward; another policy adds two, a pair is two clips."""
    args = settings(tmp_path, 2, False)
    args.objective, args.sync_ref_model = objective, moves
    counted = stages.step_of(args, LoraConfig(**LORA), 2)
    assert counted.attention_flops == pytest.approx(rows * (7 + 2) / 7 * plain.attention_flops)
    extra = counted.peak["trained weights"] / plain.peak["trained weights"]
    assert extra == pytest.approx(2.0 if moves else 1.0, rel=0.01)  # the old policy is a second LoRA


def test_sampling_scales_with_its_steps_and_not_with_its_peak(narrow):
    pipe, stages = narrow
    few, many = (stages.sampling(Sampling(9, 96, 128, num_inference_steps=n)) for n in (4, 10))
    assert few.peak_bytes == many.peak_bytes
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        pipe.set_progress_bar_config(disable=True)
        pipe("a fox", num_frames=9, height=96, width=128, num_inference_steps=4, max_sequence_length=6)
    text = stages.text.flops
    assert few.flops == pytest.approx(counter.get_total_flops() - 2 * text, rel=1e-3)


@pytest.fixture(scope="module")
def real_2b(tmp_path_factory):
    """Batches of one and of two of the shipped settings."""
    args = RewardWeightedVideoConfig(
        str(tmp_path_factory.mktemp("run")), bf16=True, activation_checkpointing=True, report_to=[]
    )
    stages = VideoStages("THUDM/CogVideoX-2b", ClipSize(49, 480, 720, 8.0))
    return stages, args, stages.steps(args, LoraConfig(r=128, lora_alpha=128))


def test_real_2b_has_the_known_figures(real_2b):
    """Counted once in full, at 49 x 480 x 720 with LoRA r = 128 and checkpointing."""
    _, _, (one, two) = real_2b
    peaks = [at_batch(one, two, batch).peak_bytes / 1e9 for batch in (1, 2, 4, 8)]
    assert peaks == pytest.approx([8.3, 12.4, 20.7, 37.2], abs=0.1)
    assert one.flops / 1e12 == pytest.approx(477.1, abs=0.1)


@pytest.mark.slow
def test_real_2b_in_full(real_2b):
    stages, args, (one, two) = real_2b
    full = stages.step_of(args, LoraConfig(r=128, lora_alpha=128), 2)
    assert two.peak_bytes == pytest.approx(full.peak_bytes, rel=0.01)
    assert two.flops == pytest.approx(full.flops, rel=1e-6)
