"""The trainer's pushes, over HTTP to the local Hub, read back by the real clients."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from diffusers import CogVideoXPipeline
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, snapshot_download

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.cache_stream import stream_cached_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.hub.lora.files import DIFFUSERS_LORA_FILE
from lift_trl.store.manifest import Artifact
from lift_trl.store.video_io import probe_video
from tests.alignment.conftest import SIZE, make_trainer
from tests.alignment.test_reward_weighted_trainer import sample
from tests.hub_push.test_push import run_snippet


@pytest.fixture(scope="session")
def base_repo(local_hub, pipeline_dir) -> str:
    """The tiny checkpoint as a model repo."""
    api = local_hub.api(local_hub.token)
    api.create_repo("dev/tiny-cogvideox", exist_ok=True)
    api.upload_folder(repo_id="dev/tiny-cogvideox", folder_path=pipeline_dir)
    terms = b"---\nlicense: other\nlicense_name: tiny-terms\nlicense_link: LICENSE\n---\n"
    api.upload_file(path_or_fileobj=terms, path_in_repo="README.md", repo_id="dev/tiny-cogvideox")
    return "dev/tiny-cogvideox"


def test_pushed_lora_loads_by_name_and_the_cards_snippet_runs(hub, tmp_path, base_repo, cached):
    trainer = make_trainer(
        base_repo, tmp_path / "out", cached, push_to_hub=True, hub_model_id="dev/tiny-lift", max_steps=3
    )
    trainer.train()
    trainer.push_to_hub()
    pipe = CogVideoXPipeline.from_pretrained(base_repo)
    pipe.transformer = trainer.model.get_base_model().eval()
    trained = sample(pipe)
    pipe = CogVideoXPipeline.from_pretrained(base_repo)
    pipe.load_lora_weights("dev/tiny-lift")
    assert torch.equal(sample(pipe), trained)

    card = ModelCard.load("dev/tiny-lift")
    assert card.data.base_model == base_repo and card.data.library_name == "diffusers"
    assert {"lift-trl", "lift-lora", "lora"} <= set(card.data.tags)
    assert (card.data.license, card.data.license_name) == ("other", "tiny-terms")
    assert card.data.license_link == f"{hub.endpoint}/{base_repo}/blob/main/LICENSE"
    assert "6 sampled, 2 real; 9 frames of 32x32 px at 8 fps" in card.text
    commit = HfApi().model_info(base_repo).sha
    assert f"| [base model]({hub.endpoint}/{base_repo}/tree/{commit}) | `{base_repo}@{commit}` |" in card.text
    assert f"| `clips` | `{cached.artifact.parents['clips']}` |" in card.text
    assert "Mean 0.5000." in card.text and "| 0.9000 | 2 |" in card.text
    assert base_repo in card.text and '"dev/tiny-lift"' in card.text
    run_snippet(card.content, tmp_path)
    assert probe_video(tmp_path / "fox.mp4").num_frames == 9

    # What it makes says what trained it, for a report, which asks no Hub.
    made = generate_videos(
        base_repo, plan_videos(["a fox"]), tmp_path / "made", adapter="dev/tiny-lift",
        sampling=Sampling(num_inference_steps=1, guidance_scale=1.0),
    )  # fmt: skip
    run = Artifact.load(made).config["training"]["adapter"]
    assert run == json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["objective"], run["max_steps"], run["learning_rate"]) == ("rwl", 3, trainer.args.learning_rate)


@pytest.mark.parametrize("private", [None, False])
def test_a_push_of_rated_rows_holds_model_and_card_alone(hub, tmp_path, base_repo, rated_videos, private, caplog):
    """No cache (prompts and ratings), no validation videos but those that the card may show, no pickled arguments."""
    repo = f"dev/tiny-rows-{private}"
    rows = [{"video": str(v.video), "prompt": v.prompt, "reward": 0.5} for v in rated_videos[:2]]
    trainer = make_trainer(
        base_repo, tmp_path / "out", datasets.Dataset.from_list(rows), **SIZE, max_steps=1, report_to="tensorboard",
        push_to_hub=True, hub_model_id=repo, hub_strategy="every_save", save_strategy="steps", save_steps=1,
        validation_prompts=["a fox", "a hare"], validation_num_inference_steps=1, validation_guidance_scale=1.0,
        validation_steps=1, hub_private_repo=private,
    )  # fmt: skip
    trainer.train()
    gone = [f"gallery/0{number}-base.mp4" for number in (1, 7)]  # of another run, or a report
    HfApi().create_commit(repo, [CommitOperationAdd(name, b"") for name in gone], commit_message="an earlier card's")
    for name in gone:
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"")
    trainer.push_to_hub()
    assert list((tmp_path / "out" / "_cache" / "train").glob("metadata.jsonl"))
    model = ["README.md", "adapter_config.json", "adapter_model.safetensors", DIFFUSERS_LORA_FILE, "run.json"]
    clips = [f"gallery/0{number}-{side}.mp4" for number in (0, 1) for side in ("base", "aligned")]
    if private is None:
        assert not set(clips) & set(HfApi().list_repo_files(repo)) and "hub_private_repo: true or false" in caplog.text
        assert "widget" not in ModelCard.load(repo).data.to_dict()
        clips = []
    assert sorted(set(HfApi().list_repo_files(repo)) - {".gitattributes"}) == sorted([*model, *clips])
    if private is None:
        return
    card = ModelCard.load(repo)
    card.validate()
    assert [(entry["output"]["url"], entry["text"]) for entry in card.data.widget] == [
        (name, f"{prompt} ({side} model)")
        for name, prompt, side in zip(clips, ["a fox", "a fox", "a hare", "a hare"], ["base", "this"] * 2, strict=True)
    ]
    assert "<Gallery />" in card.text
    folders = sorted((tmp_path / "out" / "validation").glob("*/"))
    made = [folder / name for folder in folders for name in ("base.mp4", "step-1.mp4")]
    for name, clip in zip(clips, made, strict=True):
        assert hub.read(repo, name) == clip.read_bytes()


def test_a_training_pushes_where_push_would(hub, tmp_path, base_repo, cached):
    """Told before training: a repository that others see, and one that holds something else; and again at the end."""
    api, push = HfApi(), {"push_to_hub": True, "hub_private_repo": True, "max_steps": 1}
    api.create_repo("dev/tiny-seen")
    with pytest.raises(ValueError, match="dev/tiny-seen is there and is public, but should be private"):
        make_trainer(base_repo, tmp_path / "out", cached, hub_model_id="dev/tiny-seen", **push)
    api.create_repo("dev/tiny-other", private=True)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="model.safetensors", repo_id="dev/tiny-other")
    with pytest.raises(ValueError, match="holds model.safetensors: no lora"):
        make_trainer(base_repo, tmp_path / "out", cached, hub_model_id="dev/tiny-other", **push)
    trainer = make_trainer(base_repo, tmp_path / "out", cached, hub_model_id="dev/tiny-late", **push)
    trainer.push_to_hub(license="mit", dataset_name="dev/clips", tags=["mine"], model_name="Foxes")
    card = ModelCard.load("dev/tiny-late")
    assert (card.data.license, card.data.datasets) == ("mit", ["dev/clips"])
    assert {"lift-lora", "mine"} <= set(card.data.tags) and "# Foxes" in card.text
    api.update_repo_settings("dev/tiny-late", private=False)
    hub.forget_requests()
    with pytest.raises(ValueError, match="is public, but should be private"):
        trainer.push_to_hub()
    assert hub.requests("POST", "/commit/") == []


def test_a_ready_cache_of_a_hub_id_needs_no_text_encoder(hub, tmp_path, pipeline_dir, cache_dir):
    repo = "dev/tiny-without-t5"
    HfApi().create_repo(repo)
    commit = HfApi().upload_folder(repo_id=repo, folder_path=pipeline_dir, ignore_patterns="text_encoder/*").oid
    shutil.copytree(cache_dir, tmp_path / "cache")
    artifact = Artifact.load(tmp_path / "cache")
    replace(artifact, parents={**artifact.parents, "model": f"{repo}@{commit}"}).save(tmp_path / "cache")
    trainer = make_trainer(repo, tmp_path / "out", CachedVideoDataset(tmp_path / "cache"))
    assert len(trainer.train_dataset) == 8


def test_a_whole_transformers_snippet_runs(hub, tmp_path, base_repo, cached):
    trainer = make_trainer(
        base_repo, tmp_path / "out", cached, peft_config=None, push_to_hub=True, hub_model_id="dev/tiny-full",
        max_steps=1,
    )  # fmt: skip
    trainer.push_to_hub()
    card = ModelCard.load("dev/tiny-full")
    assert 'from_pretrained("dev/tiny-full", subfolder="transformer"' in card.content
    run_snippet(card.content, tmp_path)
    assert probe_video(tmp_path / "fox.mp4").num_frames == 9


def test_every_save_pushes_the_lora_of_that_step(hub, tmp_path, base_repo, cached):
    trainer = make_trainer(
        base_repo, tmp_path / "out", cached, push_to_hub=True, hub_model_id="dev/tiny-every", hub_strategy="every_save",
        hub_always_push=True, save_strategy="steps", save_steps=1, max_steps=2,
    )  # fmt: skip
    trainer.train()
    trainer._finish_current_push()
    files = HfApi().list_repo_files("dev/tiny-every")
    assert {DIFFUSERS_LORA_FILE, "adapter_model.safetensors", "README.md"} <= set(files)
    assert not [name for name in files if name.startswith("checkpoint-")]
    folder = snapshot_download("dev/tiny-every")
    newest = (tmp_path / "out" / "checkpoint-2" / DIFFUSERS_LORA_FILE).read_bytes()
    with open(f"{folder}/{DIFFUSERS_LORA_FILE}", "rb") as file:
        assert file.read() == newest
    pipe = CogVideoXPipeline.from_pretrained(base_repo)
    pipe.load_lora_weights("dev/tiny-every")
    assert any("lora" in name for name, _ in pipe.transformer.named_parameters())


def test_a_hub_id_records_its_commit_and_fetches_only_what_it_needs(hub, tmp_path, base_repo, rated_videos):
    cache = cache_videos(base_repo, rated_videos[:2], tmp_path / "c", **SIZE)
    commit = HfApi().model_info(base_repo).sha
    assert CachedVideoDataset(cache).artifact.parents["model"] == f"{base_repo}@{commit}"


def test_a_pushed_cache_trains_and_streams(hub, tmp_path, pipeline_dir, cache_dir, cached):
    from datasets.distributed import split_dataset_by_node

    api = HfApi()
    api.create_repo("dev/tiny-cache", repo_type="dataset", exist_ok=True)
    api.upload_folder(repo_id="dev/tiny-cache", repo_type="dataset", folder_path=cache_dir)
    trainer = make_trainer(pipeline_dir, tmp_path, CachedVideoDataset("dev/tiny-cache"), max_steps=1)
    trainer.train()
    rows = {row["id"]: row for row in stream_cached_videos("dev/tiny-cache")}
    assert set(rows) == {video.id for video in cached.videos}
    assert all(row["text"] for row in rows.values())
    by_prompt = {row["prompt"]: row["text"] for row in rows.values()}
    assert all(row["text"] == by_prompt[row["prompt"]] for row in rows.values())
    for world_size in (2, 3):
        parts = [
            [row["id"] for row in split_dataset_by_node(stream_cached_videos("dev/tiny-cache"), rank, world_size)]
            for rank in range(world_size)
        ]
        assert sorted(sum(parts, [])) == sorted(rows), world_size


def test_a_mistyped_cache_is_no_riddle_of_the_hub(hub):
    with pytest.raises(FileNotFoundError, match="runs/missing: no finished cache here, and no such dataset repo"):
        CachedVideoDataset("runs/missing")


def test_a_push_on_a_folder_is_refused_before_anything_is_encoded(hub, tmp_path, pipeline_dir, cached, rated_videos):
    """The base of what is pushed is a folder of this machine, so that nobody else could load it."""
    rows = datasets.Dataset.from_list([{"video": str(rated_videos[0].video), "prompt": "a", "reward": 0.5}])
    push = {"push_to_hub": True, "hub_model_id": "dev/tiny-nowhere"}
    refused = r"tiny' is a folder of this machine.*hub_base_model: user/name"
    with pytest.raises(ValueError, match=refused):
        make_trainer(pipeline_dir, tmp_path / "raw", rows, **SIZE, **push)
    assert not (tmp_path / "raw" / "_cache").exists()
    with pytest.raises(ValueError, match="'dev/not-there' is no model on the Hub"):
        make_trainer(pipeline_dir, tmp_path / "out", cached, hub_base_model="dev/not-there", **push)
    in_memory = CogVideoXPipeline(**CogVideoXPipeline.from_pretrained(pipeline_dir).components)
    with pytest.raises(ValueError, match="base model '' was built in memory"):
        make_trainer(in_memory, tmp_path / "out", rows, peft_config=None, **SIZE, **push)
    late = make_trainer(pipeline_dir, tmp_path / "out", cached, hub_model_id="dev/tiny-nowhere")
    with pytest.raises(ValueError, match=refused):
        late.push_to_hub()
    assert not HfApi().repo_exists("dev/tiny-nowhere")


@pytest.mark.parametrize("lora", [True, False])
def test_a_local_base_is_pushed_under_its_name_on_the_hub(lora, hub, tmp_path, base_repo, pipeline_dir, cached):
    """The card's snippet loads the base from the Hub; the folder stands nowhere in what is pushed."""
    repo = f"dev/tiny-named-{lora}"
    options = {} if lora else {"peft_config": None}
    trainer = make_trainer(
        pipeline_dir, tmp_path / "out", cached, push_to_hub=True, hub_model_id=repo, hub_base_model=base_repo,
        hub_strategy="checkpoint", save_strategy="steps", save_steps=1, max_steps=1, **options,
    )  # fmt: skip
    trainer.train()
    trainer._finish_current_push()
    trainer.push_to_hub()
    folder = Path(snapshot_download(repo))
    card = ModelCard.load(repo)
    assert card.data.base_model == base_repo
    for file in ("", "last-checkpoint/"):
        assert str(pipeline_dir) not in (folder / f"{file}README.md").read_text(encoding="utf-8")
        if lora:
            config = json.loads((folder / f"{file}adapter_config.json").read_text(encoding="utf-8"))
            assert config["base_model_name_or_path"] == base_repo
    run_snippet(card.content, tmp_path)
    assert probe_video(tmp_path / "fox.mp4").num_frames == 9


def test_a_local_base_is_named_by_its_folder(tmp_path, cached, pipeline_dir):
    trainer = make_trainer(CogVideoXPipeline.from_pretrained(pipeline_dir), tmp_path, cached, max_steps=1)
    trainer.train()
    trainer.save_model()
    card = ModelCard.load(tmp_path / "README.md")
    assert "base_model" not in card.data.to_dict() and str(pipeline_dir) in card.text
