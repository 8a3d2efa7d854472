"""A critic whose weights are not loaded in full is refused, with the keys."""

import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torchao.utils import TorchAOBaseTensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings
from lift_trl.store.video_io import Clip
from tests.critic.tiny_models import build_vlm


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    build_vlm("idefics3", save_directory=folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, checkpoint):
    """A LoRA of other values than its start, as `LiFTCriticTrainer` leaves it."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=r".*text_model\..*(q_proj|v_proj)", init_lora_weights=False)
    get_peft_model(AutoModelForImageTextToText.from_pretrained(checkpoint), config).save_pretrained(str(folder))
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            shutil.copy(file, folder)
    CriticSettings(num_frames=2).save(folder, parents={})
    return folder


def rewritten(folder, file, change):
    """`folder` with the tensors of `file` changed."""
    weights = load_file(folder / file)
    save_file(change(weights, sorted(weights)), folder / file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, keys: {key: w[key] for key in keys[1:]}, r"1 of \d+ tensors .* not applied .*lora_A.weight"),
        (lambda w, keys: w | {keys[0].replace("layers.0", "layers.9"): w[keys[0]].clone()}, r"1 of .*layers\.9"),
        (lambda w, keys: w | {keys[0]: torch.ones(2, 3)}, r"is no adapter of .*vlm\d* \("),
    ],
    ids=["lacks one", "one left over", "another shape"],
)
def test_an_adapter_that_is_not_applied_in_full_is_refused(tmp_path, adapter, change, message):
    assert LiFTCritic.from_pretrained(adapter).settings.num_frames == 2
    folder = rewritten(shutil.copytree(adapter, tmp_path / "critic"), "adapter_model.safetensors", change)
    with pytest.raises(ValueError, match=message):
        LiFTCritic.from_pretrained(folder)


def test_an_adapter_is_merged_and_scores_as_beside_its_base(tmp_path, checkpoint, adapter):
    base = AutoModelForImageTextToText.from_pretrained(checkpoint)
    beside = LiFTCritic(
        PeftModel.from_pretrained(base, adapter).eval(),
        AutoProcessor.from_pretrained(adapter),
        settings=CriticSettings(num_frames=2),
    )
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    merged = LiFTCritic.from_pretrained(adapter)
    assert not any("lora" in name for name, _ in merged.model.named_modules())
    clip = Clip(np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), dtype=np.uint8), np.array([0.0, 0.5]), 8.0)
    figures = [critic.label_logprobs([clip], ["A red square."]) for critic in (merged, beside)]
    torch.testing.assert_close(*figures, atol=1e-4, rtol=1e-4)
    alone = LiFTCritic.from_pretrained(checkpoint).label_logprobs([clip], ["A red square."])
    assert (figures[0] - alone).abs().max() > 1e-2  # the adapter says something
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == files


def test_an_adapter_that_was_cut_is_named(tmp_path, adapter):
    file = shutil.copytree(adapter, tmp_path / "critic") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{file}: damaged"):
        LiFTCritic.from_pretrained(file.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, keys: {key: w[key] for key in keys[1:]}, r"1 not in the file: \w+"),
        (lambda w, keys: w | {"lora_A.weight": torch.ones(2)}, "1 left over: lora_A.weight"),
    ],
)
def test_a_whole_model_that_lacks_weights_or_has_others_is_refused(tmp_path, checkpoint, change, message):
    folder = rewritten(shutil.copytree(checkpoint, tmp_path / "critic"), "model.safetensors", change)
    with pytest.raises(ValueError, match=message):
        LiFTCritic.from_pretrained(folder)


def test_a_start_that_changes_the_base_is_refused_before_training(tmp_path):
    config = LoraConfig(r=2, init_lora_weights="pissa")
    args = LiFTCriticConfig(str(tmp_path), report_to="none")
    with pytest.raises(ValueError, match="init_lora_weights='pissa' changes the weights of the base"):
        LiFTCriticTrainer("nobody/loads-this", args, train_dataset=None, peft_config=config)


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_a_critic_in_8_bits_scores_nearly_the_same_under_another_name(checkpoint, adapter, kind):
    clip = Clip(np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), dtype=np.uint8), np.array([0.0, 0.5]), 8.0)
    for folder in (checkpoint, adapter):
        whole, small = LiFTCritic.from_pretrained(folder), LiFTCritic.from_pretrained(folder, quantization=kind)
        weights = [type(w).__name__ for w in small.model.parameters() if isinstance(w, TorchAOBaseTensor)]
        assert len(weights) >= 8
        figures = [critic.label_logprobs([clip], ["A red square."]) for critic in (whole, small)]
        assert 0 < (figures[0] - figures[1]).abs().max() < 0.5
        assert small.name == f"{whole.name} in {kind}"
        assert LiFTCritic.when_needed(str(folder), quantization=kind)[0] == small.name


def test_a_critic_is_placed_by_a_device_map(checkpoint):
    clip = Clip(np.random.default_rng(0).integers(0, 256, (8, 24, 40, 3), dtype=np.uint8), np.arange(8) / 8, 8.0)
    placed = LiFTCritic.from_pretrained(checkpoint, device_map={"": "cpu"})
    plain = LiFTCritic.from_pretrained(checkpoint)
    figures = [critic.label_logprobs([clip], ["A red square."]) for critic in (placed, plain)]
    assert torch.equal(*figures)
    with pytest.raises(ValueError, match="device='cpu' and device_map='auto': give one"):
        LiFTCritic.from_pretrained(checkpoint, device="cpu", device_map="auto")
    with pytest.raises(ValueError, match="device_map"):  # it reaches transformers
        LiFTCritic.from_pretrained(checkpoint, device_map="everywhere")
