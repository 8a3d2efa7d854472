"""What a critic may learn with beside the paper's settings: its eyes, a trained critic to go on from, equal labels."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.examples import Example, balanced_examples
from lift_trl.critic.lift_critic import LiFTCritic
from tests.critic.rendered_clips import rated_squares
from tests.critic.test_critic_trainer import config, lora
from tests.critic.tiny_models import build_vlm
from tests.own_rubric import OWN


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    return rated_squares(tmp_path_factory.mktemp("squares"), captions=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("idefics3")
    build_vlm("idefics3", save_directory=folder)
    return str(folder)


def is_seeing(name: str) -> bool:
    return "vision_model" in name or "connector" in name


def test_tower_and_projector_learn_at_their_own_rate(checkpoint, ratings, tmp_path):
    args = config(tmp_path, vision_learning_rate=3e-3, lr_scheduler_type="constant", max_steps=2)
    trainer = LiFTCriticTrainer(checkpoint, args, train_dataset=ratings, peft_config=lora())
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    names = {id(value): name for name, value in trainer.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates == {n: 3e-3 if is_seeing(n) else 1e-2 for n, v in trainer.model.named_parameters() if v.requires_grad}
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(before[name], value)}
    assert all("lora_" in name for name in moved)
    for part in ("vision_model", "connector", "text_model"):
        assert any(part in name for name in moved), part
    trainer.save_model()
    critic = LiFTCritic.from_pretrained(tmp_path)
    clip, caption = Path(ratings[0]["video"]), ratings[0]["caption"]
    with trainer.model.disable_adapter():
        untuned = trainer._make_critic().score([clip], [caption])[0]
    loaded = critic.score([clip], [caption])[0].expected_reward
    assert loaded == pytest.approx(trainer._make_critic().score([clip], [caption])[0].expected_reward, abs=1e-6)
    assert abs(loaded - untuned.expected_reward) > 1e-4


def test_the_rate_of_the_tower_needs_a_lora(checkpoint, ratings, tmp_path):
    with pytest.raises(ValueError, match="there is none: use_peft: true"):
        LiFTCriticTrainer(checkpoint, config(tmp_path, vision_learning_rate=1e-4), train_dataset=ratings)
    with pytest.raises(ValueError, match="vision_learning_rate=0.0; give a rate above 0"):
        config(tmp_path, vision_learning_rate=0.0)


def test_a_trained_critic_goes_on_from_where_it_stood(checkpoint, ratings, tmp_path):
    first = LiFTCriticTrainer(checkpoint, config(tmp_path / "a"), train_dataset=ratings, peft_config=LoraConfig(r=3))
    first.train()
    first.save_model()
    weights = {n: v.detach().clone() for n, v in first.model.named_parameters() if "lora_" in n}
    second = LiFTCriticTrainer(checkpoint, config(tmp_path / "b"), train_dataset=ratings, adapter=tmp_path / "a")
    found = {n: v for n, v in second.model.named_parameters() if v.requires_grad}
    assert found.keys() == weights.keys() and any(
        value.abs().sum() > 0 for n, value in weights.items() if "lora_B" in n
    )
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    second.train()
    assert any(not torch.equal(found[name], weights[name]) for name in weights)
    second.save_model()
    assert str(tmp_path / "a") in second._parents

    for options, message in (
        ({"peft_config": lora()}, "brings its own LoRA"),
        ({"rubric": OWN}, "that of the critic .* differ"),
    ):
        with pytest.raises(ValueError, match=message):
            LiFTCriticTrainer(checkpoint, config(tmp_path), train_dataset=ratings, adapter=tmp_path / "a", **options)
    with pytest.raises(ValueError, match=f"of {checkpoint}, and the model is other"):
        LiFTCriticTrainer("other", config(tmp_path), train_dataset=ratings, adapter=tmp_path / "a")
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    third = LiFTCriticTrainer(str(moved), config(tmp_path / "c"), train_dataset=ratings, adapter=tmp_path / "a")
    assert third.model.peft_config["default"].base_model_name_or_path == str(moved)
    base = load_file(moved / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in base.items()}, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"of {checkpoint}, and the model is {moved}"):
        LiFTCriticTrainer(str(moved), config(tmp_path / "d"), train_dataset=ratings, adapter=tmp_path / "a")


def test_rare_labels_stand_as_often_as_frequent_ones():
    counts = {
        ("motion", "Bad"): 7,
        ("motion", "Normal"): 3,
        ("motion", "Good"): 1,
        ("colour", "Bad"): 2,
        ("colour", "Good"): 4,
    }
    examples = [
        Example(n, f"{d}-{label}-{n}", "a clip", d, label, "so")
        for (d, label), many in counts.items()
        for n in range(many)
    ]
    balanced = balanced_examples(examples, seed=3)
    found = Counter((example.dimension, example.label) for example in balanced)
    assert found == {key: 7 if key[0] == "motion" else 4 for key in counts}
    times = Counter(example.clip for example in balanced)
    assert set(times) == {example.clip for example in examples}
    assert sorted(times[f"motion-Normal-{n}"] for n in range(3)) == [2, 2, 3]
    assert balanced == balanced_examples(examples, seed=3) != balanced_examples(examples, seed=4)


def test_balanced_labels_reach_the_training_rows(checkpoint, ratings, tmp_path):
    args = config(tmp_path, balanced_labels=True)
    wrong = next(n for n, row in enumerate(ratings) if row["label"] == "Bad")
    fewer = ratings.select([n for n in range(len(ratings)) if n != wrong])
    trainer = LiFTCriticTrainer(checkpoint, args, train_dataset=fewer, peft_config=lora())
    rows = Counter((row["dimension"], row["label"]) for row in trainer.train_dataset)
    semantic = {label: count for (dimension, label), count in rows.items() if dimension == "semantic_consistency"}
    assert semantic == {"Good": 2, "Bad": 2} and len(trainer.train_dataset) == len(ratings)
