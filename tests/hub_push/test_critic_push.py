"""A critic that its trainer pushed comes back as it was taught, and its card works as it stands."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, snapshot_download
from peft import LoraConfig

from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings, load_settings
from lift_trl.hub.push import push
from lift_trl.rubric import Dimension
from tests.critic.rendered_clips import rated_squares
from tests.critic.tiny_models import build_vlm
from tests.hub.fixtures import LocalHub
from tests.hub_push.test_push import clip, run_snippet


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory):
    return rated_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the critics are tuned from."""
    folder = tmp_path_factory.mktemp("vlm")
    build_vlm("idefics3", save_directory=folder)
    return folder


@pytest.fixture(scope="module")
def base_repo(local_hub: LocalHub, base_dir: Path) -> str:
    """The same on the Hub."""
    api = local_hub.api()
    api.create_repo("dev/tiny-vlm", exist_ok=True)
    api.upload_folder(repo_id="dev/tiny-vlm", folder_path=base_dir)
    api.upload_file(path_or_fileobj=b"---\nlicense: gemma\n---\n", path_in_repo="README.md", repo_id="dev/tiny-vlm")
    return "dev/tiny-vlm"


def trainer_of(base: str, output_dir: Path, ratings, repo: str, *, lora: bool = True, **options) -> LiFTCriticTrainer:
    settings = {
        "push_to_hub": True,
        "num_frames": 4,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "report_to": "none",
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **options,
    }
    return LiFTCriticTrainer(
        base,
        LiFTCriticConfig(output_dir=str(output_dir), hub_model_id=repo, **settings),
        train_dataset=ratings,
        eval_dataset=ratings,
        peft_config=LoraConfig(r=4, lora_alpha=8) if lora else None,
    )


@pytest.mark.parametrize("lora", [True, False])
def test_every_save_leaves_a_critic_that_loads_with_its_settings(
    lora, hub: LocalHub, tmp_path: Path, ratings, base_repo
):
    repo = f"dev/critic-every-{lora}"
    trainer = trainer_of(
        base_repo, tmp_path / "out", ratings, repo, lora=lora, hub_always_push=True,
        hub_strategy="checkpoint" if lora else "every_save",
        save_strategy="steps", save_steps=1, with_reason=False,
    )  # fmt: skip
    trainer.train()
    trainer._finish_current_push()
    assert load_settings(repo) == CriticSettings(num_frames=4, with_reason=False)
    critic = LiFTCritic.from_pretrained(repo)
    assert critic.settings == trainer.critic_settings
    trainer.model.eval()
    here = LiFTCritic(trainer.model, trainer.processing_class, settings=trainer.critic_settings)
    videos, captions = ratings["video"][:1], ratings["caption"][:1]
    for mine, loaded in zip(here.score(videos, captions)[0].judgements, critic.score(videos, captions)[0].judgements):
        assert mine.probs == pytest.approx(loaded.probs, abs=1e-5)
    card = ModelCard.load(repo)
    assert card.data.library_name == "lift_trl" and "| num frames | 4 |" in card.text
    assert f'LiFTCritic.from_pretrained("{repo}")' in card.text
    names = HfApi().list_repo_files(repo)
    assert not [name for name in names if name.startswith("checkpoint-")]
    # Stock's pickle of the arguments holds the token; the state is for whoever resumes.
    assert not [name for name in names if name.endswith("training_args.bin")] and "trainer_state.json" not in names
    assert ("last-checkpoint/optimizer.pt" in names) is ("last-checkpoint/trainer_state.json" in names) is lora


def test_a_training_pushes_where_push_would(hub: LocalHub, tmp_path: Path, ratings, base_repo):
    hub.api().create_repo("dev/critic-seen")
    with pytest.raises(ValueError, match="dev/critic-seen is there and is public, but should be private"):
        trainer_of(base_repo, tmp_path / "out", ratings, "dev/critic-seen", hub_private_repo=True)
    hub.api().upload_file(path_or_fileobj=b"x", path_in_repo="model.safetensors", repo_id="dev/critic-seen")
    with pytest.raises(ValueError, match="holds model.safetensors: no critic"):
        trainer_of(base_repo, tmp_path / "out", ratings, "dev/critic-seen")


def test_the_trainers_card_is_a_critics_and_works(hub: LocalHub, tmp_path: Path, ratings, base_repo):
    repo = "dev/critic-pushed"
    trainer = trainer_of(base_repo, tmp_path / "out", ratings, repo, max_steps=1)
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub(dataset_name="dev/ratings", tags="mine")
    card = ModelCard.load(repo)
    assert card.data.base_model == base_repo and card.data.library_name == "lift_trl"
    assert card.data.license == "gemma" and card.data.base_model_relation == "adapter"
    assert card.data.pipeline_tag == "video-text-to-text" and card.data.datasets == ["dev/ratings"]
    assert {"lift-critic", "mine"} <= set(card.data.tags)
    accuracy = trainer.state.log_history[-1]["eval_accuracy"]
    assert f"| eval_accuracy | {accuracy:.4f} |" in card.text and f"# {repo}" in card.text
    assert "| `ratings` |" in card.text  # a hash: nothing says where they are
    clip(tmp_path / "fox.mp4")
    assert all(dimension.value in run_snippet(card.content, tmp_path) for dimension in Dimension)


def test_a_push_on_a_folder_is_refused_before_training(hub: LocalHub, tmp_path: Path, ratings, base_dir):
    """The base of the LoRA is a folder of this machine, so that nobody else could load it; a whole model needs none."""
    repo, refused = "dev/critic-nowhere", rf"{base_dir.name}' is a folder of this machine.*hub_base_model: user/name"
    with pytest.raises(ValueError, match=refused):
        trainer_of(str(base_dir), tmp_path, ratings, repo)
    with pytest.raises(ValueError, match="'dev/not-there' is no model on the Hub"):
        trainer_of(str(base_dir), tmp_path, ratings, repo, hub_base_model="dev/not-there")
    late = trainer_of(str(base_dir), tmp_path, ratings, repo, push_to_hub=False)
    with pytest.raises(ValueError, match=refused):
        late.push_to_hub()
    assert not hub.api().repo_exists(repo)
    trainer_of(str(base_dir), tmp_path, ratings, repo, lora=False).push_to_hub()
    assert LiFTCritic.from_pretrained(repo).settings.num_frames == 4


@pytest.mark.parametrize("lora", [True, False])
def test_a_local_base_is_pushed_under_its_name_on_the_hub(
    lora, hub: LocalHub, tmp_path: Path, ratings, base_dir, base_repo
):
    repo = f"dev/critic-named-{lora}"
    trainer = trainer_of(
        str(base_dir), tmp_path / "out", ratings, repo, lora=lora, hub_base_model=base_repo, hub_strategy="every_save",
        save_strategy="steps", save_steps=1, max_steps=1,
    )  # fmt: skip
    trainer.train()
    trainer._finish_current_push()
    commits = [hub.api().model_info(repo).sha]
    trainer.push_to_hub()
    commits.append(push(tmp_path / "out", repo).commit)  # and as `lift-trl push` writes the card
    for commit in commits:
        folder = Path(snapshot_download(repo, revision=commit))
        card = ModelCard.load(folder / "README.md")
        assert card.data.base_model == base_repo and str(base_dir) not in card.content
        if lora:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            assert config["base_model_name_or_path"] == base_repo


def test_an_adapter_without_its_settings_is_refused(hub: LocalHub, tmp_path: Path, ratings, base_repo):
    trainer = trainer_of(base_repo, tmp_path / "out", ratings, "dev/critic-bare", max_steps=1)
    trainer.save_model(str(tmp_path / "saved"), _internal_call=True)  # as into a checkpoint
    assert not (tmp_path / "saved" / "trainer_state.json").exists()  # written last, it says that a checkpoint is whole
    (tmp_path / "saved" / "artifact.yaml").unlink()
    with pytest.raises(ValueError, match=r"adapter.*no artifact.yaml"):
        load_settings(str(tmp_path / "saved"))
    hub.api().create_repo("dev/critic-lost")
    hub.api().upload_folder(repo_id="dev/critic-lost", folder_path=tmp_path / "saved")
    with pytest.raises(ValueError, match=r"adapter.*no artifact.yaml"):
        LiFTCritic.from_pretrained("dev/critic-lost")
    assert load_settings(base_repo) == CriticSettings()
