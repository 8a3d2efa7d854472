"""Critics are counted by their own code: products equal to those of a run in earnest, few layers to all, kinds of memory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trl.trainer.utils
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lift_trl.alignment.data.clips import ClipSize
from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.pairs.reading import Pair
from lift_trl.critic.settings import CriticSettings
from lift_trl.estimate.critic_planners import judging_part
from lift_trl.estimate.recipe import Recipe
from lift_trl.estimate.stages.critic import CAPTION, CriticStages
from lift_trl.estimate.stages.judges import count_judge
from lift_trl.estimate.weightless.configured import PACKAGED
from lift_trl.estimate.weightless.configured_vlm import ConfiguredVLM
from lift_trl.estimate.weightless.depth import at_batch
from lift_trl.estimate.weightless.meter import metering
from lift_trl.records import RatedVideo
from lift_trl.rubric import QUESTIONS, Label
from tests.critic.tiny_models import build_vlm
from tests.estimate.held import held_bytes, is_in_8_bits
from tests.own_rubric import OWN


SETTINGS = CriticSettings(num_frames=4)
VLMS = sorted(path.parent for path in PACKAGED.glob("*/*/tokenizer.json"))


def saved(family: str, folder) -> ConfiguredVLM:
    """A tiny checkpoint of a family, of which only the files without weights count."""
    build_vlm(family, save_directory=folder)
    return ConfiguredVLM(str(folder))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "llava_llama"])
def test_products_of_scoring_are_those_of_a_real_batch(family, tmp_path):
    model, processor = build_vlm(family, save_directory=tmp_path)
    stages = CriticStages(ConfiguredVLM(str(tmp_path)), SETTINGS, 48, 64)
    critic = LiFTCritic(model, processor, settings=SETTINGS)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        critic.label_logprobs([stages._clip] * 3, [CAPTION] * 3)
    counted = at_batch(*(stages.scoring(batch, reason_tokens=0) for batch in (1, 2)), 3)
    assert counted.flops == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_a_reason_costs_its_tokens_and_a_lora_what_is_not_merged(tmp_path):
    stages = CriticStages(saved("qwen3_vl", tmp_path), SETTINGS, 48, 64)
    none, some, more = (stages.scoring(2, reason_tokens=number).flops for number in (0, 20, 40))
    assert none < some < more and more - some == pytest.approx((some - none) * 20 / 20, rel=0.1)
    merged, beside = (
        replace(stages, lora=LoraConfig(r=8), quantization=kind).scoring(2, reason_tokens=0) for kind in (None, "int8")
    )
    assert merged.flops == none and "LoRA" not in merged.peak
    assert beside.flops > none and beside.peak["LoRA"] > 0


@pytest.mark.parametrize(
    "family, special", [("qwen2_5_vl", "fullatt_block_indexes"), ("qwen3_vl", "deepstack_visual_indexes")]
)
def test_few_layers_tell_all(family, special, tmp_path):
    """Of a tower some of whose layers do more than the others."""
    saved(family, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 7, "layer_types": ["full_attention"] * 7}
    config["vision_config"] |= {"depth": 9, special: [2, 4, 8]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    vlm = ConfiguredVLM(str(tmp_path))
    assert sorted(vlm.layers.values()) == [3, 6, 7]
    stages = CriticStages(vlm, SETTINGS, 64, 96)
    full, found = stages._score(1, 0, vlm.layers), stages.scoring(1, reason_tokens=0)
    assert found.flops == pytest.approx(full.flops, rel=0.01)
    assert found.peak_bytes == pytest.approx(full.peak_bytes, rel=0.01)


def test_a_step_of_training_is_counted_by_kind(tmp_path):
    vlm = saved("internvl", tmp_path / "base")
    stages = CriticStages(vlm, SETTINGS, 48, 64)
    args = LiFTCriticConfig(
        str(tmp_path / "run"), bf16=True, num_frames=4, gradient_accumulation_steps=2, report_to=[], save_strategy="no"
    )
    one, two = (stages.step(args, LoraConfig(r=8), torch.bfloat16, batch) for batch in (1, 2))
    model, _ = build_vlm("internvl")
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert 2 * weights <= one.peak["weights"] <= 3 * weights  # in blocks of 512 bytes
    assert 2 * one.peak["trained weights"] <= one.peak["optimiser"] <= 3 * one.peak["trained weights"]
    assert two.flops == pytest.approx(2 * one.flops, rel=0.02)
    assert two.peak["weights"] == one.peak["weights"] and two.peak_bytes > one.peak_bytes


@pytest.mark.parametrize("family, pairs", [("internvl", 0), ("internvl", 2), ("idefics3", 0), ("smolvlm", 0)])
def test_products_of_a_step_are_those_of_a_real_one_pairs_included(family, pairs, tmp_path, monkeypatch):
    """Of a rubric of two dimensions: a pair that is compared overall is four prompts, each as often as labels begin."""
    stages = CriticStages(saved(family, tmp_path / "base"), CriticSettings(4, rubric=OWN), 48, 64)
    args = LiFTCriticConfig(
        str(tmp_path / "run"), per_device_train_batch_size=3, max_steps=1, report_to=[], save_strategy="no", num_frames=4,
        use_cpu=True, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    counted = stages.step_of(args, LoraConfig(r=8), torch.float32, 3, pairs=pairs)
    rows, video = stages._write_ratings(tmp_path, 3), RatedVideo("clip", tmp_path / "clip.mp4", CAPTION)
    model, processor = build_vlm(family, save_directory=tmp_path / "whole")
    trainer = LiFTCriticTrainer(
        model, args, train_dataset=rows, pairs=[Pair(video, video, OWN.dimensions)] * (3 * pairs),
        processing_class=processor, peft_config=LoraConfig(r=8), rubric=OWN,
    )  # fmt: skip
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", lambda device: True)  # as TRL does on a GPU
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trainer.train()
    real = counter.get_flop_counts()["Global"]
    attention = real.pop(torch.ops.aten.bmm)
    assert counted.matmul_flops + counted.conv_flops == sum(real.values())
    # Flash computes the scores once more in backward, which the tower has not.
    assert attention < counted.attention_flops < attention * (2 + 5) / (2 + 4)


@pytest.mark.parametrize("kind", ["int8", "float8"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_a_critic_in_8_bits_takes_what_is_counted(family, kind, tmp_path):
    stages = CriticStages(saved(family, tmp_path), SETTINGS, 48, 64, quantization=kind)
    critic = LiFTCritic.from_pretrained(tmp_path, quantization=kind, dtype=torch.bfloat16)
    assert sum(map(is_in_8_bits, critic.model.parameters())) >= 8
    with metering() as meter:
        model = stages.vlm.build(meter, torch.bfloat16, quantization=kind)
        assert held_bytes(model) == held_bytes(critic.model)
        assert meter.count().peak["weights"] == pytest.approx(held_bytes(critic.model), rel=0.01)
    counted = stages.scoring(1, reason_tokens=0).peak
    assert counted["weights"] == pytest.approx(held_bytes(critic.model), rel=0.01)
    assert counted["activations"] > 0


@pytest.mark.parametrize("folder", VLMS, ids=lambda path: path.name)
def test_a_packaged_vlm_knows_the_rubric(folder):
    """Its tokenizer takes each word for a token; one that it lacks would be taken for another."""
    tokenizer = ConfiguredVLM(str(folder)).processor.tokenizer
    for text in (*QUESTIONS.values(), *Label):
        words = text.replace("{prompt}", "").replace("{caption}", "")
        assert tokenizer.unk_token_id not in tokenizer(words, add_special_tokens=False)["input_ids"], text


#: Billions of parameters, as the Hub counts those of the published weights.
PUBLISHED = {
    "Qwen2.5-VL-7B-Instruct": 8.292,
    "Qwen3-VL-8B-Instruct": 8.767,
    "InternVL3-14B-hf": 15.12,
    "InternVL3-38B-hf": 38.39,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_packaged_vlm_is_of_the_published_size(name):
    (folder,) = (path for path in VLMS if path.name == name)
    with torch.device("meta"):
        model = ConfiguredVLM(str(folder)).empty()
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(
        PUBLISHED[name], abs=0.006
    )


@pytest.mark.parametrize(
    "judge, weights_gb",
    [("video_reward", 4.42), pytest.param("unified_reward", 17.53, marks=pytest.mark.slow)],
)
def test_a_released_judge_is_counted_by_its_own_code(judge, weights_gb):
    """Weights in 16 bits (VideoReward has no head for words); who writes, pays for each token."""
    clip = count_judge(judge, ClipSize(9, 64, 96, 8.0))
    assert clip.count.peak["weights"] / 1e9 == pytest.approx(weights_gb, abs=0.02)
    assert clip.num_tokens == (0 if judge == "video_reward" else 256)
    larger = count_judge(judge, ClipSize(25, 64, 96, 8.0))
    rounds = judging_part(Recipe(Path("iterate.yaml"), {}), judge, 12, ClipSize(9, 64, 96, 8.0))
    assert (rounds.count, rounds.runs) == (clip.count, 12)
    assert larger.count.flops > clip.count.flops > clip.num_tokens * clip.count.peak["weights"] * 0.8
