"""Training that goes on from an earlier LoRA: where it starts, what it writes, and what does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.hub.push import push
from lift_trl.mini.checkpoints import build_tiny_pipeline
from tests.alignment.conftest import make_trainer, trainable
from tests.alignment.test_reward_weighted_trainer import sample


def sample_with(pipeline_dir, *, transformer=None, lora=None) -> torch.Tensor:
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    if transformer is not None:
        pipe.transformer = transformer.eval()
    if lora is not None:
        pipe.load_lora_weights(lora)
    return sample(pipe)


@pytest.fixture(scope="module")
def first(tmp_path_factory, pipeline_dir, cache_dir):
    """A LoRA of rank 4 and alpha 16 after four steps."""
    folder = tmp_path_factory.mktemp("first")
    trainer = make_trainer(pipeline_dir, folder, CachedVideoDataset(cache_dir), max_steps=4)
    trainer.train()
    trainer.save_model()
    return folder


def test_training_starts_where_the_adapter_ended_and_its_result_loads(tmp_path, pipeline_dir, cached, first):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, adapter=first, seed=7)
    base, start = sample_with(pipeline_dir), sample_with(pipeline_dir, lora=first)
    assert torch.equal(sample_with(pipeline_dir, transformer=trainer.model.get_base_model()), start)
    assert (start - base).abs().max() > 1e-3
    saved = load_file(first / "adapter_model.safetensors")
    assert {name.replace(".default.", "."): p for name, p in trainable(trainer).items()}.keys() == saved.keys()

    trainer.train()
    trainer.save_model()
    result = sample_with(pipeline_dir, transformer=trainer.model.get_base_model())
    assert torch.equal(sample_with(pipeline_dir, lora=tmp_path), result)
    assert (result - start).abs().max() > 1e-3
    assert f"| adapter | `{Path(adapter_identity(first)).name}` |" in (tmp_path / "README.md").read_text()
    assert "| adapter |" not in (first / "README.md").read_text()


def rewrite_header(path: Path, change) -> None:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(change(json.loads(data[8:end]))).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


def test_a_lora_that_is_saved_again_is_the_same_lora(tmp_path, first):
    """safetensors writes the metadata of a file in any order; clips are kept under the LoRA's identity."""

    def identity() -> str:
        return adapter_identity(again).rpartition("@")[2]

    def reversed_metadata(header: dict) -> dict:
        return {**header, "__metadata__": dict(reversed(header["__metadata__"].items()))}

    def another_scale(header: dict) -> dict:
        config = json.loads(header["__metadata__"]["lora_adapter_metadata"]) | {"transformer.lora_alpha": 99}
        return {**header, "__metadata__": {**header["__metadata__"], "lora_adapter_metadata": json.dumps(config)}}

    again = shutil.copytree(first, tmp_path / "again")
    file, saved = again / "pytorch_lora_weights.safetensors", identity()
    before = file.read_bytes()
    rewrite_header(file, reversed_metadata)
    assert file.read_bytes() != before and identity() == saved
    rewrite_header(file, another_scale)
    assert identity() != saved


def test_a_run_that_goes_on_resumes_to_the_same_weights(tmp_path, pipeline_dir, cached, first):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "adapter": first}
    whole = make_trainer(pipeline_dir, tmp_path / "whole", cached, **settings)
    whole.train()
    moved = {**settings, "adapter": shutil.copytree(first, tmp_path / "renamed")}
    resumed = make_trainer(pipeline_dir, tmp_path / "resumed", cached, **moved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, value in trainable(whole).items():
        assert torch.equal(trainable(resumed)[name], value), name


def test_the_adapter_may_be_a_repo(tmp_path, pipeline_dir, cached, first, hub):
    hub.api().create_repo("dev/tiny-base")
    push(first, "dev/first-lora", base_model="dev/tiny-base")
    hub.api().create_tag("dev/first-lora", tag="v1")
    weights = load_file(first / "adapter_model.safetensors")
    other = shutil.copytree(first, tmp_path / "other")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "adapter_model.safetensors")
    push(other, "dev/first-lora", base_model="dev/tiny-base")
    trainer = make_trainer(pipeline_dir, tmp_path, cached, adapter="dev/first-lora@v1")
    start = sample_with(pipeline_dir, transformer=trainer.model.get_base_model())
    assert torch.equal(start, sample_with(pipeline_dir, lora=first))


@pytest.mark.parametrize(
    ("peft_config", "message"),
    [
        (LoraConfig(r=8, lora_alpha=16), r"its LoRA has r=4, this run's has r=8.*give r=4"),
        (LoraConfig(r=4, lora_alpha=4), "its LoRA has lora_alpha=16, this run's has lora_alpha=4"),
        (
            LoraConfig(r=4, lora_alpha=16, target_modules=["to_q"]),
            r"12 tensors do not fit.*'to_k', 'to_out.0', 'to_q'",
        ),
        (None, "is a LoRA: give its peft_config, or set use_peft"),
    ],
)
def test_another_lora_is_refused(tmp_path, pipeline_dir, cached, first, peft_config, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(pipeline_dir, tmp_path, cached, adapter=first, peft_config=peft_config)


def test_a_lora_of_another_network_is_refused(tmp_path, pipeline_dir, cached, first):
    """Same VAE and text encoder, so that the cache fits, but a transformer of one block."""
    shutil.copytree(pipeline_dir, tmp_path / "other")
    build_tiny_pipeline(num_layers=1).transformer.save_pretrained(tmp_path / "other" / "transformer")
    with pytest.raises(
        ValueError, match=r"8 tensors do not fit .*other, first transformer_blocks.1.*trained on .*tiny"
    ):
        make_trainer(tmp_path / "other", tmp_path / "out", cached, adapter=first)


def test_a_base_of_another_name_is_warned_of(tmp_path, pipeline_dir, cached, first, caplog):
    other = tmp_path / "same_shapes"
    other.symlink_to(pipeline_dir)
    make_trainer(other, tmp_path / "out", cached, adapter=first)
    assert f"was trained on {pipeline_dir}, this run's base is {other}" in caplog.text


def test_a_folder_without_an_adapter_is_named(tmp_path, pipeline_dir, cached):
    with pytest.raises(FileNotFoundError, match=r"empty/adapter_model.safetensors: missing. Name a folder"):
        make_trainer(pipeline_dir, tmp_path / "out", cached, adapter=tmp_path / "empty")


def test_what_an_earlier_lora_says_is_read_at_the_start_and_not_at_each_save(tmp_path, pipeline_dir, cached, first):
    """A Hub that is down, or a folder that is gone, would take the checkpoint along, or what is known of the critics."""
    earlier = shutil.copytree(first, tmp_path / "earlier")
    run = json.loads((earlier / "run.json").read_text()) | {"critics": ["critic@0123456789abcdef"]}
    (earlier / "run.json").write_text(json.dumps(run))
    trainer = make_trainer(pipeline_dir, tmp_path / "lora", cached, adapter=earlier, objective="sft", max_steps=1)
    shutil.rmtree(earlier)
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "lora" / "run.json").read_text())["critics"] == ["critic@0123456789abcdef"]
