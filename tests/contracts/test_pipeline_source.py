"""Parts of a checkpoint: all weights come from its files, and a pipeline in memory stays as it was."""

import shutil

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.video_models import open_pipeline
from tests.contracts.video_models import VIDEO_MODELS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    build_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny", seed=0)
    return next(tmp_path_factory.getbasetemp().glob("base*/tiny"))


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("change", ["lacks one", "another shape", "one left over"])
def test_a_part_that_is_not_all_in_its_file_is_refused(tmp_path, folder, component, change):
    """diffusers fills what is missing of a text encoder with random numbers, and says so in a report."""
    broken = shutil.copytree(folder, tmp_path / "broken")
    (file,) = (broken / component).glob("*.safetensors")
    weights = load_file(file)
    key = next(key for key in sorted(weights) if key.endswith("weight") and "shared" not in key)
    if change == "lacks one":
        del weights[key]
    else:
        weights[key if change == "another shape" else "other.weight"] = torch.ones(3)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="other.weight" if change == "one left over" else key.replace(".", r"\.")):
        open_pipeline(broken).load(component, "tokenizer", dtype=torch.float32)


def weights_of(pipe) -> dict:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_done_to_the_parts_is_not_done_to_the_callers_pipeline(folder, dtype):
    pipe = CogVideoXPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(desc="mine")
    before = weights_of(pipe)
    loaded = open_pipeline(pipe).load("transformer", "vae", dtype=dtype, private=True)
    assert loaded.text_encoder is None and loaded.transformer.dtype == loaded.vae.dtype == dtype
    loaded.transformer.add_adapter(LoraConfig(target_modules=["to_q"]))
    loaded.vae.enable_tiling()
    loaded.set_progress_bar_config(disable=True)
    loaded.scheduler.set_timesteps(3)
    after = weights_of(pipe)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert not pipe.vae.use_tiling and pipe._progress_bar_config == {"desc": "mine"}
    assert pipe.scheduler.num_inference_steps is None and pipe.text_encoder is not None


@pytest.mark.parametrize("family", VIDEO_MODELS)
def test_only_what_is_asked_for_is_read_from_the_files(family, tmp_path):
    """Wan's transformer is an optional part of its pipeline."""
    VIDEO_MODELS[family]().save_pretrained(tmp_path)
    source = open_pipeline(tmp_path)
    for wanted in source.adapter.networks[0], "vae":
        parts = source.load(wanted, dtype=torch.float32).components
        models = {name for name, part in parts.items() if isinstance(part, torch.nn.Module)}
        assert models == {wanted, *source.adapter.always_loaded} & models | {wanted}


def test_weights_are_shared_where_nothing_is_changed(folder):
    pipe = CogVideoXPipeline.from_pretrained(folder)
    shared = open_pipeline(pipe).load("vae", dtype=torch.float32).vae
    assert shared is not pipe.vae
    assert {p.data_ptr() for p in shared.parameters()} == {p.data_ptr() for p in pipe.vae.parameters()}


def test_a_pipeline_with_a_lora_on_is_another_model(folder):
    pipe = CogVideoXPipeline.from_pretrained(folder)
    plain = open_pipeline(pipe).fingerprint("transformer")
    assert plain == open_pipeline(folder).fingerprint("transformer")
    pipe.transformer.add_adapter(LoraConfig(target_modules=["to_q"], init_lora_weights=False))
    assert open_pipeline(pipe).fingerprint("transformer") != plain


def test_a_pipeline_with_another_scheduler_is_another_sampler(folder):
    """Its videos would be taken for finished ones of the checkpoint's own scheduler."""
    pipe = CogVideoXPipeline.from_pretrained(folder)
    own = open_pipeline(pipe).fingerprint("scheduler")
    assert own == open_pipeline(folder).fingerprint("scheduler")
    found = {own}
    for scheduler in (CogVideoXDPMScheduler, CogVideoXDDIMScheduler):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
        found.add(open_pipeline(pipe).fingerprint("scheduler"))
    assert len(found) == 3
