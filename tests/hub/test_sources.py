"""What is read of the Hub by name: pins of models, files that are not there, and a Hub that is down, which is neither."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import load_settings, read_model_type
from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import load_hra
from lift_trl.hub.lora.loading import find_lora
from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.hub.parents import hub_parent
from lift_trl.hub_source import find_file, pinned
from lift_trl.judges import judge_name
from lift_trl.rubric import LIFT
from lift_trl.store.manifest import Artifact, write_rows
from lift_trl.store.rubrics.of_data import find_rubric, write_rubric
from lift_trl.store.weights import weights_revision
from lift_trl.ui.clips import load_clips
from lift_trl.ui.compare.generation import component_sizes, critic_size
from lift_trl.video_models.files import CheckpointFiles
from tests.critic.tiny_models import build_vlm
from tests.feedback.conftest import write_clip
from tests.hub.fixtures import LocalHub
from tests.own_rubric import OWN


class Repo(NamedTuple):
    """Two states of a repository: `v1`, and a newer `main`."""

    name: str
    first: str
    second: str


def two_states(hub: LocalHub, name: str, folders: list[Path]) -> Repo:
    api = hub.api()
    api.delete_repo(name, missing_ok=True)
    api.create_repo(name)
    commits = [api.upload_folder(folder_path=folder, repo_id=name).oid for folder in folders]
    api.create_tag(name, tag="v1", revision=commits[0])
    return Repo(name, *commits)


@pytest.fixture
def base(hub: LocalHub, tmp_path: Path) -> Repo:
    """Something like a pipeline, of 1 and of 3 MB."""
    folders = []
    for number in (1, 3):
        folder = tmp_path / f"base-{number}"
        (folder / "transformer").mkdir(parents=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": f"P{number}"}))
        (folder / "transformer" / "config.json").write_text("{}")
        (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(bytes(1_000_000 * number))
        folders.append(folder)
    return two_states(hub, "dev/pinned-base", folders)


@pytest.fixture
def lora(hub: LocalHub, tmp_path: Path) -> Repo:
    folders = []
    for number in (1, 3):
        folder = tmp_path / f"lora-{number}"
        folder.mkdir()
        save_file(
            {"transformer.x.lora_A.weight": torch.full((2, 2), number)}, folder / "pytorch_lora_weights.safetensors"
        )
        folders.append(folder)
    return two_states(hub, "dev/pinned-lora", folders)


@pytest.fixture
def critic(hub: LocalHub, tmp_path: Path) -> Repo:
    first, second = tmp_path / "critic-1", tmp_path / "critic-3"
    build_vlm("idefics3", save_directory=first)
    shutil.copytree(first, second)
    weights = load_file(second / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, second / "model.safetensors", {"format": "pt"})
    return two_states(hub, "dev/pinned-critic", [first, second])


def test_a_pin_of_a_model_is_exactly_that_state(base: Repo, lora: Repo):
    for pin, commit, size in (("@v1", base.first, 1), (f"@{base.first}", base.first, 1), ("", base.second, 3)):
        files = CheckpointFiles(base.name + pin)
        assert (files.name, files.identity) == (base.name, f"{base.name}@{commit}")
        assert (files.folder("transformer") / "model_index.json").read_text() == f'{{"_class_name": "P{size}"}}'
        assert component_sizes(base.name + pin) == {"transformer": pytest.approx(size * 1e-3)}
    for pin, commit, value in (("@v1", lora.first, 1), ("", lora.second, 3)):
        found = find_lora(lora.name + pin)
        assert found.identity == adapter_identity(lora.name + pin) == f"{lora.name}@{commit}"
        assert load_file(found.file)["transformer.x.lora_A.weight"].unique() == value


def test_a_pin_of_a_critic_is_exactly_that_state(critic: Repo, tmp_path: Path):
    for pin, commit, number in (("@v1", critic.first, 1), ("", critic.second, 3)):
        name, load, _ = LiFTCritic.when_needed(critic.name + pin)
        one, other = load(), LiFTCritic.from_pretrained(critic.name + pin)
        assert name == one.name == other.name == f"{critic.name}@{commit}"
        expected = load_file(tmp_path / f"critic-{number}" / "model.safetensors")
        for found in (one, other):
            state = found.model.state_dict()
            assert all(torch.equal(state[key], value) for key, value in expected.items() if key in state)
        judged = judge_name("video_score2", model=critic.name + pin)
        assert judged.startswith(f"{critic.name}@{commit}+")
    assert critic_size(f"{critic.name}@v1") == critic_size(tmp_path / "critic-1")


def test_a_pin_says_one_thing_and_a_wrong_one_is_named(base: Repo, critic: Repo, tmp_path: Path, monkeypatch):
    assert pinned(f"{base.name}@v1", "v1") == (base.name, "v1")
    with pytest.raises(ValueError, match="dev/pinned-base@v1: its revision is given as 'v2' too"):
        CheckpointFiles(f"{base.name}@v1", "v2")
    monkeypatch.chdir(tmp_path)
    Path("a", "b@c").mkdir(parents=True)
    Path("a", "b@d.json").touch()
    assert (pinned("a/b@c"), pinned("a/b@d.json")) == (("a/b@c", None), ("a/b@d.json", None))
    message = "has no revision 'v2'. Write one of its branches, tags or commits after the @"
    for read in (lambda name: CheckpointFiles(name).identity, LiFTCritic.when_needed, load_settings, weights_revision):
        with pytest.raises(ValueError, match=re.escape(f"dev/pinned-base: {message}")):
            read(f"{base.name}@v2")
        with pytest.raises(
            ValueError, match="dev/nowhere: no folder, and no model of the Hub that this token may read"
        ):
            read("dev/nowhere")


def test_a_pin_of_ratings_is_exactly_that_state_and_says_one_thing(hub: LocalHub, tmp_path: Path):
    """Wherever ratings, a rubric or a cache are read by name; with another revision beside it neither is taken."""
    api, name = hub.api(), "dev/pinned-ratings"
    api.create_repo(name, repo_type="dataset")
    commits = []
    for number, caption in enumerate(("a fox", "a hen", "a cow")):
        folder = tmp_path / f"ratings-{number}"
        folder.mkdir()
        write_clip(folder / "clip.mp4", 40 * number)
        rating = {"file_name": "clip.mp4", "caption": caption, "annotator_id": "ada", "label": "Good", "reason": "so"}
        rows = [{**rating, "dimension": dimension} for dimension in LIFT.dimensions]
        write_rows(folder / "metadata.jsonl", rows)
        commits.append(api.upload_folder(folder_path=folder, repo_id=name, repo_type="dataset").oid)
    api.create_tag(name, tag="v1", revision=commits[0], repo_type="dataset")
    labels = {"missing_videos": "keep"}  # the builder of folders gives their names alone
    for pin, revision, caption, commit in (
        ("@v1", None, "a fox", commits[0]),
        ("@v1", "v1", "a fox", commits[0]),
        (f"@{commits[1]}", None, "a hen", commits[1]),
        ("", "v1", "a fox", commits[0]),
        ("", None, "a cow", commits[2]),
    ):
        assert set(load_hra(name + pin, revision=revision, **labels)["train"]["caption"]) == {caption}
        assert find_rubric(name + pin, revision=revision) == LIFT
        assert hub_parent(name + pin, repo_type="dataset", revision=revision) == f"datasets/{name}@{commit}"
    convert(f"{name}@v1", tmp_path / "hra", missing_videos="keep")
    assert Artifact.load(tmp_path / "hra").parents == {f"datasets/{name}": commits[0]}
    for read in (load_hra, find_rubric, CachedVideoDataset, hub_parent):
        with pytest.raises(ValueError, match=f"{name}@v1: its revision is given as 'main' too. Give one of them"):
            read(f"{name}@v1", revision="main")


@pytest.fixture
def down(hub: LocalHub, base: Repo, tmp_path: Path) -> Iterator[LocalHub]:
    """A Hub that is down; of `dev/pinned-base` and of the dataset `dev/seen` some files are in the cache."""
    write_rubric(OWN, tmp_path / "seen")
    hub.api().create_repo("dev/seen", repo_type="dataset", exist_ok=True)
    hub.api().upload_folder(folder_path=tmp_path / "seen", repo_id="dev/seen", repo_type="dataset")
    assert find_rubric("dev/seen") == OWN
    assert find_file(base.name, "model_index.json") and find_file(base.name, "artifact.yaml") is None
    hub.kill()
    yield hub
    hub.start()


def test_a_hub_that_is_down_is_no_missing_file(down: LocalHub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # half a minute a file in all
    reads = {
        "dev/unseen": (find_rubric, load_clips, CachedVideoDataset),
        "dev/pinned-base": (load_settings, read_model_type, LiFTCritic.when_needed, weights_revision, critic_size),
        "dev/unseen-model": (lambda name: CheckpointFiles(name).identity,),
    }
    for name, readers in reads.items():
        for read in readers:
            with pytest.raises(ConnectionError, match=f"{name}: the Hub cannot be asked for it .*not in the cache"):
                read(name)
    assert find_file("dev/pinned-base", "model_index.json").is_file()
    # Who works offline says that there is no more than what is in the cache.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_file("dev/pinned-base", "model_index.json").is_file()
    assert find_rubric("dev/seen") == OWN and read_model_type("dev/pinned-base") == ""
    with pytest.raises(ConnectionError, match=r"offline is set \(HF_HUB_OFFLINE\)"):
        load_clips("dev/unseen")
