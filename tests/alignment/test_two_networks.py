"""Wan2.2-A14B: a LoRA says which network it is of, goes on that one everywhere, and generate takes one of each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.sampling.generate import generate_videos, read_prompts
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.cli import main
from lift_trl.hub.lora.files import COMFYUI_LORA_FILE, DIFFUSERS_LORA_FILE, lora_network
from lift_trl.hub.lora.loading import find_lora, load_lora
from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.mini.checkpoints import build_tiny_vlm
from lift_trl.recipe_parser import RecipeParser
from lift_trl.store.manifest import Artifact, read_rows
from lift_trl.store.video_io import read_video, write_video
from lift_trl.video_models import StoredPipeline, open_pipeline
from recipes import generate as recipe
from recipes import iterate as rounds
from tests.alignment.conftest import lora_metadata, make_trainer
from tests.alignment.test_families import SIZE, own_call, rated
from tests.contracts.video_models import build_wan


NETWORKS = ("transformer", "transformer_2")
SAMPLING = Sampling(**SIZE, num_inference_steps=4, guidance_scale=3.0, batch_size=2)


@pytest.fixture(scope="module")
def a14b(tmp_path_factory) -> Path:
    """The folder of a tiny model with two networks, and of a LoRA of each (`high`, `low`) after one long step."""
    folder = tmp_path_factory.mktemp("a14b")
    build_wan(experts=True).save_pretrained(folder / "model")
    cache = cache_videos(folder / "model", rated(folder / "clips", fps=16, num=2), folder / "cache", **SIZE)
    for network, name in zip(NETWORKS, ("high", "low"), strict=True):
        source = StoredPipeline(folder / "model", network=network)
        options = {"max_steps": 1, "learning_rate": 0.3}
        trainer = make_trainer(source, folder / name, CachedVideoDataset(cache), **options)
        trainer.train()
        trainer.save_model()
    (folder / "prompts.txt").write_text("a red circle moving left\na blue square moving up\n")
    return folder


def own_frames(a14b, videos, loras, tmp_path) -> list[np.ndarray]:
    """What the pipeline's own call makes with the LoRAs that diffusers itself put on the named networks, as stored."""
    pipe = WanPipeline.from_pretrained(a14b / "model")
    pipe.set_progress_bar_config(disable=True)
    for network, folder in loras.items():
        options = {"load_into_transformer_2": True} if network == "transformer_2" else {}
        pipe.load_lora_weights(folder, weight_name=DIFFUSERS_LORA_FILE, **options)
    negative = open_pipeline(pipe).adapter.negative_prompt
    stored = []
    for clip in own_call(pipe, "wan-2.2", videos, negative_prompt=[negative] * len(videos), guidance_scale=3.0):
        write_video(tmp_path / "own.mp4", (clip * 255).round().clip(0, 255).astype(np.uint8), fps=16)
        stored.append(read_video(tmp_path / "own.mp4").frames)
    return stored


def made_frames(folder, videos) -> list[np.ndarray]:
    return [read_video(folder / "videos" / f"{video.id}.mp4").frames for video in videos]


def run_recipe(a14b, output, *words, adapter=None):
    """`recipes/generate.py`, with `adapter` in its YAML."""
    settings = {
        "model_name_or_path": str(a14b / "model"), "prompts": str(a14b / "prompts.txt"), "output_dir": str(output),
        "seed": 3, **SIZE, "num_inference_steps": 4, "guidance_scale": 3.0, "batch_size": 2, "adapter": adapter,
    }  # fmt: skip
    (config := output.with_suffix(".yaml")).write_text(json.dumps(settings))
    recipe.main(*RecipeParser(recipe.ARGUMENTS).parse_args_and_config(["--config", str(config), *words]))
    return output


def test_each_alone_and_both_are_the_pipelines_own_videos(a14b, tmp_path):
    high, low = str(a14b / "high"), str(a14b / "low")
    videos = read_prompts(a14b / "prompts.txt", seed=3)
    made = {
        (): run_recipe(a14b, tmp_path / "base"),
        ("transformer",): run_recipe(a14b, tmp_path / "high", "--adapter", high),
        ("transformer_2",): run_recipe(a14b, tmp_path / "low", adapter=low),
        NETWORKS: run_recipe(a14b, tmp_path / "both", adapter=[low, high]),
    }
    frames = {}
    for networks, folder in made.items():
        loras = {network: {"transformer": high, "transformer_2": low}[network] for network in networks}
        frames[networks] = made_frames(folder, videos)
        for ours, own in zip(frames[networks], own_frames(a14b, videos, loras, tmp_path), strict=True):
            assert np.array_equal(ours, own), networks
        assert {row["adapter"] for row in read_rows(folder / "metadata.jsonl")} == {", ".join(loras.values()) or None}
    assert len({clips[1].tobytes() for clips in frames.values()}) == 4
    parents = Artifact.load(tmp_path / "both").parents
    assert (parents["adapter"], parents["adapter_2"]) == (adapter_identity(high), adapter_identity(low))
    assert Artifact.load(tmp_path / "low").parents["adapter"] == adapter_identity(low)
    # The order of the names is no setting, the second LoRA is one.
    run_recipe(a14b, tmp_path / "both", "--adapter", high, low)
    for other in ((), ("--adapter", high), ("--adapter", low)):
        with pytest.raises(ValueError, match="another model, adapter or settings"):
            run_recipe(a14b, tmp_path / "both", *other)


def test_two_of_one_network_and_one_of_a_network_that_is_not_there_are_refused(a14b, tmp_path):
    (again := tmp_path / "again").mkdir()
    shutil.copy(a14b / "low" / DIFFUSERS_LORA_FILE, again)  # which says it by itself
    videos = read_prompts(a14b / "prompts.txt", seed=3)
    with pytest.raises(ValueError, match="low/.* and .*again/.* are both LoRAs of transformer_2. Name one a network"):
        generate_videos(a14b / "model", videos, tmp_path / "out", sampling=SAMPLING, adapter=[a14b / "low", again])
    one = build_wan()  # whose network has the same layers
    with pytest.raises(ValueError, match="is a LoRA of transformer_2, and this pipeline has transformer only"):
        generate_videos(one, videos, tmp_path / "out", sampling=SAMPLING, adapter=a14b / "low")
    with pytest.raises(ValueError, match="is a LoRA of transformer_2, and this pipeline has transformer only"):
        load_lora(one, find_lora(a14b / "low"), name="lift")
    assert not one.transformer._hf_peft_config_loaded and not list(tmp_path.rglob("*.mp4"))


def test_a_lora_that_names_no_network_is_never_guessed(a14b, tmp_path):
    """Of another trainer, or of this one before files named it: then `run.json` does."""
    file, metadata = a14b / "low" / DIFFUSERS_LORA_FILE, lora_metadata(a14b / "low" / DIFFUSERS_LORA_FILE)
    save_file(load_file(file), tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(metadata)})
    pipe = WanPipeline.from_pretrained(a14b / "model")
    with pytest.raises(
        ValueError, match=r"of transformer or of transformer_2, and this .* with a run.json of {\"netw"
    ):
        load_lora(pipe, find_lora(tmp_path), name="lift")
    shutil.copy(a14b / "low" / "run.json", tmp_path)
    assert load_lora(pipe, find_lora(tmp_path), name="lift") == "transformer_2"
    assert pipe.get_list_adapters() == {"transformer_2": ["lift"]}
    (tmp_path / "run.json").unlink()
    assert load_lora(build_wan(), find_lora(tmp_path), name="lift") == "transformer"


def test_training_goes_on_from_a_lora_of_its_own_network_only(a14b, tmp_path):
    cache, source = CachedVideoDataset(a14b / "cache"), StoredPipeline(a14b / "model", network="transformer_2")
    with pytest.raises(ValueError, match="high: is a LoRA of transformer, and this run trains transformer_2"):
        make_trainer(source, tmp_path, cache, adapter=a14b / "high")
    make_trainer(source, tmp_path, cache, adapter=a14b / "low")


@pytest.mark.parametrize(("name", "network"), [("high", "transformer"), ("low", "transformer_2")])
def test_what_is_exported_is_of_the_same_network(a14b, tmp_path, name, network):
    lora = str(a14b / name)
    for kind, file in (("diffusers", DIFFUSERS_LORA_FILE), ("comfyui", COMFYUI_LORA_FILE)):
        assert main(["export", lora, "--format", kind, "--output", str(tmp_path / kind)]) == 0
        assert lora_network(tmp_path / kind / file) == network
    words = ["--format", "merged", "--base", str(a14b / "model"), "--output", str(tmp_path / "merged")]
    assert main(["export", lora, *words, "--dtype", "float32"]) == 0
    merged, base = (WanPipeline.from_pretrained(path) for path in (tmp_path / "merged", a14b / "model"))
    for part in NETWORKS:
        pairs = zip(getattr(merged, part).parameters(), getattr(base, part).parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == (part != network)
    card = (a14b / name / "README.md").read_text()
    assert f'"{DIFFUSERS_LORA_FILE}"{", load_into_transformer_2=True" if name == "low" else ""})' in card


def test_the_card_of_a_whole_network_names_it(a14b, tmp_path):
    source = StoredPipeline(a14b / "model", network="transformer_2")
    trainer = make_trainer(source, tmp_path, CachedVideoDataset(a14b / "cache"), peft_config=None, max_steps=1)
    trainer.create_model_card()
    assert "pipe.transformer_2 = type(pipe.transformer_2).from_pretrained" in (tmp_path / "README.md").read_text()


def test_rounds_train_the_network_that_is_named(a14b, tmp_path):
    build_tiny_vlm(tmp_path / "critic", seed=7)
    settings = {
        "model_name_or_path": str(a14b / "model"), "prompts": str(a14b / "prompts.txt"), "critic": str(tmp_path / "critic"),
        "output_dir": str(tmp_path / "rounds"), **SIZE, "num_inference_steps": 2, "guidance_scale": 1.0, "rounds": 2,
        "videos_per_prompt": 1, "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 0.3, "report_to": "none",
        "save_strategy": "no",
    }  # fmt: skip
    (config := tmp_path / "iterate.yaml").write_text(json.dumps(settings))

    def run(*words):
        rounds.main(*RecipeParser(rounds.ARGUMENTS).parse_args_and_config(["--config", str(config), *words]))

    with pytest.raises(ValueError, match=r"has two networks.*Give network: transformer"):
        run()
    run("--network", "transformer_2")
    first, second = (tmp_path / "rounds" / f"round_{number}" for number in (1, 2))
    assert [lora_network(folder / "lora" / DIFFUSERS_LORA_FILE) for folder in (first, second)] == ["transformer_2"] * 2
    assert {row["adapter"] for row in read_rows(second / "generated" / "metadata.jsonl")} == {str(first / "lora")}
