"""A LoRA that is not applied in full is refused, with its keys, and the pipeline stays as it was."""

import json
import shutil

import pytest
import torch
from diffusers import CogVideoXPipeline
from safetensors.torch import load_file, save_file

from lift_trl.hub.lora.files import DIFFUSERS_LORA_FILE, export_diffusers_lora
from lift_trl.hub.lora.loading import FoundLora, find_lora, load_lora
from lift_trl.hub.push import push
from tests.alignment.conftest import lora_metadata
from tests.hub.test_lora_options import base, predict, trained  # noqa: F401  (fixture)


KEY = "transformer.transformer_blocks.1.attn1.to_q.lora_A.weight"


@pytest.fixture(scope="module")
def lora(tmp_path_factory, base):  # noqa: F811
    folder = tmp_path_factory.mktemp("lora")
    trained(base).save_pretrained(str(folder), save_embedding_layers=False)
    export_diffusers_lora(folder, folder)
    return folder


def changed(lora, folder, change) -> FoundLora:
    """`lora` with its tensors changed, its metadata kept."""
    file = lora / DIFFUSERS_LORA_FILE
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(lora_metadata(file))}
    save_file(change(load_file(file)), folder / DIFFUSERS_LORA_FILE, metadata=metadata)
    return find_lora(folder)


def without_prefix(weights):
    return {key.removeprefix("transformer."): tensor for key, tensor in weights.items()}


def one_of_another_shape(weights):
    return weights | {KEY: torch.ones(4, 6)}


def one_left_over(weights):
    return weights | {KEY.replace("blocks.1", "blocks.7"): weights[KEY].clone()}


def one_of_the_text_encoder(weights):
    return weights | {KEY.replace("transformer.", "text_encoder.", 1): weights[KEY].clone()}


def one_without_its_other_half(weights):
    return {key: tensor for key, tensor in weights.items() if key != KEY}


def with_a_foreign_dora(weights):
    return weights | {KEY.replace("lora_A.weight", "dora_scale"): torch.ones(32, 1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_prefix,
            r"16 of 16 tensors are none of a transformer's LoRA .*transformer_blocks.0.attn1.* and 13 more",
        ),
        (one_of_another_shape, r"1 of 16 tensors fit no layer .*blocks.1.attn1.to_q.lora_A.weight"),
        (one_left_over, r"1 of 17 tensors fit no layer .*blocks.7.attn1.to_q.lora_A.weight.*another model"),
        (one_of_the_text_encoder, r"1 of 17 tensors are none of a transformer's LoRA .*text_encoder"),
        (one_without_its_other_half, r"1 of 15 tensors were not applied .*blocks.1.attn1.to_q.lora_A.weight"),
        (with_a_foreign_dora, r"1 of 17 tensors are DoRA's .*to_q.dora_scale"),
        (lambda weights: {}, "0 of 0 tensors are none of a transformer's LoRA"),
    ],
)
def test_what_is_not_applied_in_full_is_refused(tmp_path, base, lora, change, message):  # noqa: F811
    pipe = CogVideoXPipeline.from_pretrained(base)
    before, names = predict(pipe.transformer), list(pipe.transformer.state_dict())
    with pytest.raises(ValueError, match=message):
        load_lora(pipe, changed(lora, tmp_path, change), name="lift")
    assert torch.equal(predict(pipe.transformer), before) and list(pipe.transformer.state_dict()) == names


def test_a_file_that_was_cut_is_named(tmp_path, base, lora):  # noqa: F811
    file = shutil.copytree(lora, tmp_path / "cut") / DIFFUSERS_LORA_FILE
    found = find_lora(file.parent)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{file}: damaged"):
        load_lora(CogVideoXPipeline.from_pretrained(base), found, name="lift")


def test_what_only_peft_reads_is_no_lora_of_a_pipeline(tmp_path, lora):
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(lora / name, tmp_path)
    with pytest.raises(FileNotFoundError, match="only adapter_model.safetensors.*lift-trl export --format diffusers"):
        find_lora(tmp_path)


def test_a_lora_of_another_name_is_found_and_two_are_not_guessed(tmp_path, base, lora):  # noqa: F811
    shutil.copy(lora / DIFFUSERS_LORA_FILE, tmp_path / "someone.safetensors")
    pipe = CogVideoXPipeline.from_pretrained(base)
    load_lora(pipe, find_lora(tmp_path), name="lift")
    assert torch.equal(predict(pipe.transformer), predict(trained(base).get_base_model()))
    shutil.copy(lora / DIFFUSERS_LORA_FILE, tmp_path / "another.safetensors")
    with pytest.raises(ValueError, match="holds another.safetensors, someone.safetensors"):
        find_lora(tmp_path)


def test_a_lora_that_changes_nothing_is_said_to(tmp_path, base, lora, caplog):  # noqa: F811
    def untrained(weights):
        return {key: tensor * 0 if "lora_B" in key else tensor for key, tensor in weights.items()}

    load_lora(CogVideoXPipeline.from_pretrained(base), changed(lora, tmp_path, untrained), name="lift")
    assert "changes nothing" in caplog.text


def test_a_second_lora_stands_beside_the_first_at_its_scale(base, lora):  # noqa: F811
    one = CogVideoXPipeline.from_pretrained(base)
    load_lora(one, find_lora(lora), name="one")
    one.set_adapters(["one"], [0.5])
    half = predict(one.transformer)
    load_lora(one, find_lora(lora), name="two")
    assert one.get_active_adapters() == ["one", "two"]
    one.transformer.set_adapter(["one"])
    assert torch.equal(predict(one.transformer), half)


def test_a_repo_is_read_at_the_commit_that_its_identity_names(base, lora, hub):  # noqa: F811
    (lora / "README.md").write_text("# lora\n")
    push(lora, "dev/counted-lora")
    found = find_lora("dev/counted-lora")
    assert found.file.parent.name == found.identity.removeprefix("dev/counted-lora@")
    pipe = CogVideoXPipeline.from_pretrained(base)
    load_lora(pipe, found, name="lift")
    assert torch.equal(predict(pipe.transformer), predict(trained(base).get_base_model()))
