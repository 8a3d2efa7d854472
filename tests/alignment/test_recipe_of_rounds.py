"""recipes/iterate.py: what its options reach."""

import json
from types import SimpleNamespace

import pytest
import torch

from lift_trl.judges.arguments import CriticArguments
from lift_trl.mini.checkpoints import build_tiny_vlm
from lift_trl.recipe_parser import RecipeParser
from lift_trl.store.manifest import Artifact
from recipes import iterate as recipe


SAMPLER = {
    "num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": "grey", "scheduler": "DDIMScheduler", "enlarge": 2,
    "pipeline_options": {"use_dynamic_cfg": True}, "first_block_cache": 0.3, "vae_tiling": False,
}  # fmt: skip
ARITHMETIC = {
    "num_frames": 9,
    "height": 32,
    "width": 32,
    "attention_kernel": "math",
    "tf32": False,
    "quantization": "int8",
}


def test_a_round_is_sampled_as_it_is_trained_and_judged_in_8_bits(pipeline_dir, tmp_path):
    build_tiny_vlm(tmp_path / "critic", seed=7)
    (tmp_path / "prompts.txt").write_text("a red circle moving left\na blue square moving up\n")
    settings = {
        "model_name_or_path": str(pipeline_dir), "prompts": str(tmp_path / "prompts.txt"), "rounds": 1,
        "critic": str(tmp_path / "critic"), "output_dir": str(tmp_path / "rounds"), "videos_per_prompt": 1, "max_steps": 1,
        "per_device_train_batch_size": 2, "report_to": "none", "save_strategy": "no", "sampling_batch_size": 2,
        "critic_quantization": "int8", **SAMPLER, **ARITHMETIC,
    }  # fmt: skip
    (config := tmp_path / "iterate.yaml").write_text(json.dumps(settings))
    recipe.main(*RecipeParser(recipe.ARGUMENTS).parse_args_and_config(["--config", str(config)]))
    made = Artifact.load(tmp_path / "rounds" / "round_1" / "generated").config
    wanted = {**SAMPLER, **ARITHMETIC, "batch_size": 2}
    assert {name: made[name] for name in wanted} == wanted
    assert Artifact.load(tmp_path / "rounds" / "round_1" / "scored").config["critic"].endswith(" in int8")


def test_a_critic_is_spread_by_one_process_only():
    alone, two = (SimpleNamespace(num_processes=n, device=torch.device("cpu")) for n in (1, 2))
    assert CriticArguments(critic_quantization="float8").critic_options(two) == {
        "device": two.device, "quantization": "float8"
    }  # fmt: skip
    spread = CriticArguments(critic_device_map="auto")
    assert spread.critic_options(alone) == {"device_map": "auto", "quantization": None}
    with pytest.raises(ValueError, match="critic_device_map spreads one process"):
        spread.critic_options(two)
