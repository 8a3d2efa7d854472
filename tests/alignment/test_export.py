import pytest
import torch
from diffusers import CogVideoXPipeline
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from lift_trl.cli import main
from lift_trl.hub.lora.files import (
    COMFYUI_LORA_FILE,
    DIFFUSERS_LORA_FILE,
    PEFT_WEIGHTS_FILE,
    export_comfyui_lora,
    export_diffusers_lora,
)
from lift_trl.hub.lora.loading import export_merged_pipeline
from tests.alignment.conftest import make_trainer
from tests.alignment.test_reward_weighted_trainer import sample


@pytest.fixture(scope="module")
def lora_dir(tmp_path_factory, pipeline_dir, cache_dir):
    from lift_trl.alignment.data.video_dataset import CachedVideoDataset

    folder = tmp_path_factory.mktemp("lora")
    trainer = make_trainer(
        pipeline_dir, folder, CachedVideoDataset(cache_dir), peft_config=LoraConfig(r=4, lora_alpha=16), max_steps=4
    )
    trainer.train()
    trainer.save_model()
    return folder


def test_merged_pipeline_needs_no_lora(tmp_path, pipeline_dir, lora_dir):
    assert (
        main(
            [
                "export",
                str(lora_dir),
                "--format",
                "merged",
                "--base",
                str(pipeline_dir),
                "--output",
                str(tmp_path / "m"),
                "--dtype",
                "float32",
            ]
        )
        == 0
    )
    with_lora = CogVideoXPipeline.from_pretrained(pipeline_dir)
    with_lora.load_lora_weights(lora_dir)
    merged = CogVideoXPipeline.from_pretrained(tmp_path / "m")
    assert not [name for name, _ in merged.transformer.named_parameters() if "lora" in name]
    assert_close(sample(merged), sample(with_lora), rtol=1e-4, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_base_is_never_merged_in_place(pipeline_dir, lora_dir):
    before = {path: path.read_bytes() for path in pipeline_dir.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="is not empty; give a new folder"):
        export_merged_pipeline(lora_dir, str(pipeline_dir), pipeline_dir, dtype=torch.float32)
    assert {path: path.read_bytes() for path in pipeline_dir.rglob("*") if path.is_file()} == before


def test_comfyui_keys_rebuild_the_same_update(tmp_path, lora_dir):
    """alpha / rank * B @ A of each module equals what PEFT adds to its weight."""
    assert main(["export", str(lora_dir), "--format", "comfyui", "--output", str(tmp_path)]) == 0
    weights, peft = load_file(tmp_path / COMFYUI_LORA_FILE), load_file(lora_dir / PEFT_WEIGHTS_FILE)
    modules = [key.removesuffix(".alpha") for key in weights if key.endswith(".alpha")]
    assert len(modules) == len(peft) // 2 and len(weights) == 3 * len(modules)
    for module in modules:
        assert module.startswith("diffusion_model.transformer_blocks.")
        down, up = weights[f"{module}.lora_A.weight"], weights[f"{module}.lora_B.weight"]
        update = float(weights[f"{module}.alpha"]) / down.shape[0] * up @ down
        name = "base_model.model." + module.removeprefix("diffusion_model.")
        assert_close(update, 16 / 4 * peft[f"{name}.lora_B.weight"] @ peft[f"{name}.lora_A.weight"])


@pytest.mark.parametrize(
    "settings", [{"use_rslora": True}, {"alpha_pattern": {"to_q": 2}, "rank_pattern": {"to_v": 2}}]
)
def test_comfyui_scales_each_module_as_peft_does(tmp_path, settings):
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.to_q, self.to_v = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    config = LoraConfig(r=4, lora_alpha=16, target_modules=["to_q", "to_v"], init_lora_weights=False, **settings)
    model = get_peft_model(Attention(), config)
    model.save_pretrained(tmp_path)
    weights = load_file(export_comfyui_lora(tmp_path, tmp_path, module_name=str))
    for name in ("to_q", "to_v"):
        down, up, alpha = (
            weights[f"diffusion_model.{name}.{part}"] for part in ("lora_A.weight", "lora_B.weight", "alpha")
        )
        assert_close(
            alpha / down.shape[0] * up @ down,
            model.get_submodule(f"base_model.model.{name}").get_delta_weight("default"),
        )


def test_diffusers_file_can_be_made_again_from_the_adapter(tmp_path, pipeline_dir, lora_dir):
    assert (
        main(
            ["export", str(lora_dir), "--format", "diffusers", "--base", str(pipeline_dir), "--output", str(tmp_path)]
        )
        == 0
    )
    one, two = load_file(tmp_path / DIFFUSERS_LORA_FILE), load_file(lora_dir / DIFFUSERS_LORA_FILE)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_an_adapter_that_was_not_gathered_is_refused(tmp_path, lora_dir):
    """ZeRO-3 leaves empty placeholders where parameters were not gathered; they must never become a file."""
    weights = load_file(lora_dir / PEFT_WEIGHTS_FILE)
    weights[next(iter(weights))] = torch.empty(0)
    save_file(weights, tmp_path / PEFT_WEIGHTS_FILE)
    (tmp_path / "adapter_config.json").write_bytes((lora_dir / "adapter_config.json").read_bytes())
    with pytest.raises(ValueError, match="1 of 16 tensors are empty"):
        export_diffusers_lora(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [(["--format", "merged"], "needs --base"), (["--format", "merged", "--base", "BASE"], "needs --output")],
)
def test_what_is_missing_is_named(pipeline_dir, lora_dir, capsys, arguments, message):
    arguments = [str(pipeline_dir) if text == "BASE" else text for text in arguments]
    assert main(["export", str(lora_dir), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_without_an_adapter_is_named(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--format", "comfyui"]) == 1
    assert "adapter_model.safetensors: missing" in capsys.readouterr().err
