"""Objectives in the trainer: what it computes of the other policies, which parameters train, what a pair costs."""

import logging
import math
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch.testing import assert_close

from lift_trl.alignment.data.video_dataset import CachedVideoDataset, collate
from lift_trl.alignment.objectives import OBJECTIVES, Objective
from lift_trl.alignment.objectives.parts.weights import likelihood
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.training.policies import OLD
from lift_trl.store.manifest import METADATA_FILE, Artifact, read_rows, write_rows
from tests.alignment.conftest import make_trainer, trainable
from tests.alignment.test_objective_goldens import stir
from tests.own_rubric import OWN


def whole_batch(trainer):
    return collate(trainer.train_dataset.__getitems__(range(len(trainer.train_dataset))))


def step_rows(trainer, batch=None):
    batch = batch or whole_batch(trainer)
    return trainer._step_rows(trainer.model, batch, trainer._draw(batch, (42, 0), (0.0, 1.0), True))


@pytest.fixture(scope="module")
def earlier_lora(tmp_path_factory, pipeline_dir, cache_dir):
    """A LoRA that has moved away from the base."""
    folder = tmp_path_factory.mktemp("earlier") / "lora"
    trainer = make_trainer(pipeline_dir, folder, CachedVideoDataset(cache_dir))
    stir(trainer)
    trainer.save_model()
    return folder


def test_the_reference_is_the_base_and_the_old_policy_the_lora_that_the_run_started_from(
    tmp_path, pipeline_dir, cached, earlier_lora
):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, objective="nft", kl_coef=0.5, adapter=earlier_lora)
    at_start = step_rows(trainer)
    assert_close(at_start.old.error, at_start.error, rtol=1e-5, atol=0)
    assert at_start.old.distance.max() < 1e-9 < at_start.reference.distance.min()
    with torch.no_grad():
        for parameter in trainable(trainer).values():
            assert parameter.dtype == torch.float32
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.mul_(-1.5)
                assert f".{OLD}." not in name
    rows, batch = step_rows(trainer), whole_batch(trainer)
    assert_close(rows.old.error, at_start.old.error, rtol=1e-6, atol=0)
    base = make_trainer(pipeline_dir, tmp_path / "base", cached, objective="nft")
    untouched = step_rows(base, batch)
    assert_close(rows.reference.error, untouched.error, rtol=1e-5, atol=0)
    assert rows.error.requires_grad and rows.old.distance.requires_grad and not rows.reference.error.requires_grad


def test_a_fresh_run_holds_no_second_lora_and_no_objective_a_second_model(
    tmp_path, pipeline_dir, cached, earlier_lora
):
    def parameters(**options):
        model = make_trainer(pipeline_dir, tmp_path, cached, **options).model
        networks = [m for m in model.modules() if isinstance(m, CogVideoXTransformer3DModel)]
        assert len(networks) == 1
        return sum(p.numel() for p in model.parameters()), sum(
            p.numel() for p in model.parameters() if p.requires_grad
        )

    plain, lora = parameters(objective="rwl")
    for objective in ("dpo", "kto", "nft", "awm"):
        assert parameters(objective=objective) == (plain, lora)
    assert parameters(objective="nft", adapter=earlier_lora) == (plain + lora, lora)
    assert parameters(objective="dpo", sync_ref_model=True) == (plain + lora, lora)


def test_a_reference_keeps_nothing_for_the_backward_pass(tmp_path, pipeline_dir, cached):
    """At the same number of clips DPO holds at most 1.1 of what RWL holds for its backward pass."""

    def held(objective):
        trainer = make_trainer(pipeline_dir, tmp_path, cached, objective=objective, real_weight=0.0)
        batch, sizes = whole_batch(trainer), {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = trainer.compute_loss(trainer.model.train(), batch)
        loss.backward()
        return sum(sizes.values()), len(batch["id"])

    (rwl, clips), (dpo, in_pairs) = held("rwl"), held("dpo")
    assert clips == in_pairs == 6 and dpo <= 1.1 * rwl


@pytest.mark.parametrize("objective, expected", [("dpo", 2 / 100 * math.log(2)), ("kto", 2 / 100)])
def test_the_first_loss_is_that_of_the_reference(tmp_path, pipeline_dir, cached, objective, expected):
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, objective=objective, real_weight=0.0, max_steps=1,
        per_device_train_batch_size=6,
    )  # fmt: skip
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["loss"] == pytest.approx(expected, rel=1e-3)
    assert line["kl"] == line["kl_fraction"] == 0 and line["rewards/chosen"] == line["rewards/rejected"] == 0


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("objective", ["dpo", "kto", "nft", "awm"])
def test_the_lora_learns_and_nothing_else_moves(tmp_path, pipeline_dir, cached, earlier_lora, objective, precision):
    """In bf16 autocast keeps casts of weights: a forward pass without gradient must not leave its own behind."""
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, objective=objective, bf16=precision == "bf16", adapter=earlier_lora,
        sync_ref_model=True, ref_model_sync_steps=0, max_steps=2,
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name and f".{OLD}." not in name), name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    line = trainer.state.log_history[0]
    assert line["kl" if objective in ("dpo", "kto") else "kl_old"] >= 0 and "rewards/chosen" in line


def test_dpo_prefers_the_preferred_after_some_steps(tmp_path, pipeline_dir, cached):
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, objective="dpo", real_weight=0.0, max_steps=12, caption_dropout=0.0
    )
    trainer.train()
    last = trainer.state.log_history[-2]
    assert last["rewards/accuracies"] == 1 and last["rewards/margins"] > 0.01 and last["kl"] > 0
    assert last["loss"] < 2 / 100 * math.log(2)


def test_real_clips_weigh_as_much_beside_pairs_in_small_steps(tmp_path, pipeline_dir, cached):
    """Two rows of a pair would halve its weight beside a step's real clip: lambda would be 2 in steps of one."""
    trainer = make_trainer(pipeline_dir, tmp_path, cached, objective="dpo", real_weight=0.7, caption_dropout=0.0)
    dataset = trainer.train_dataset
    assert {len(dataset.__getitems__([i])) for i in range(len(dataset))} == {1, 2}

    def mean_loss(size):
        losses = []
        for start in range(0, len(dataset), size):
            units = range(start, min(start + size, len(dataset)))
            batches, units_of_step = trainer.get_batch_samples(iter([collate(dataset.__getitems__(units))]), 1, "cpu")
            with torch.no_grad():
                loss = trainer.compute_loss(trainer.model.train(), batches[0], num_items_in_batch=units_of_step)
            losses.append(float(loss) * len(units))
        return sum(losses) / len(dataset)

    assert mean_loss(1) == pytest.approx(mean_loss(len(dataset)), rel=1e-5)


def test_both_clips_of_a_pair_share_their_draws_and_a_clip_is_read_once(
    tmp_path, pipeline_dir, cache_dir, monkeypatch
):
    dataset = CachedVideoDataset(cache_dir)
    dataset.videos = [v if v.is_real else type(v)(**{**vars_of(v), "prompt": "one"}) for v in dataset.videos]
    trainer = make_trainer(pipeline_dir, tmp_path, dataset, objective="dpo", min_reward_gap=0.3)
    units = trainer.train_dataset._units
    assert len(units) - 2 == len({tuple(sorted(pair)) for pair in units[:-2].tolist()}) > 6  # clips in several pairs
    reads = []
    monkeypatch.setattr(
        CachedVideoDataset,
        "_file",
        lambda self, shard, _own=CachedVideoDataset._file: Watched(_own(self, shard), reads),
    )
    batch = whole_batch(trainer)
    assert len(reads) == len(set(reads)) and reads
    rewards = batch["reward"]
    for row, (partner, preference) in enumerate(zip(batch["partner"].tolist(), batch["preference"].tolist())):
        if batch["is_real"][row]:
            assert (partner, preference) == (row, 0)
        else:
            assert batch["partner"][partner] == row and batch["draw_id"][partner] == batch["draw_id"][row]
            assert (rewards[row] - rewards[partner]) * preference > 0.3
    draws = trainer._draw(batch, (1,), (0.0, 1.0), True)
    for row, partner in enumerate(batch["partner"].tolist()):
        assert all(torch.equal(draw[row], draw[partner]) for draw in draws)
    other = next(row for row in range(2, len(rewards)) if batch["id"][row] == batch["id"][0])
    assert not torch.equal(draws.noise[0], draws.noise[other])  # the same clip in another pair


def vars_of(video):
    return {name: getattr(video, name) for name in type(video).__slots__}


class Watched:
    """A Parquet file that tells which row groups were read."""

    def __init__(self, file, reads):
        self.file, self.reads = file, reads

    def read_row_group(self, group, columns, use_threads):
        self.reads.append((id(self.file), group, tuple(columns)))
        return self.file.read_row_group(group, columns=columns, use_threads=use_threads)


def test_full_training_has_no_reference(tmp_path, pipeline_dir, cached):
    for objective in ("dpo", "kto", "nft", "awm"):
        with pytest.raises(ValueError, match=f"objective='{objective}' compares with the model without its LoRA"):
            make_trainer(pipeline_dir, tmp_path, cached, objective=objective, peft_config=None)
    trainer = make_trainer(
        pipeline_dir, tmp_path, cached, objective="dpo", reference_free=True, peft_config=None, max_steps=1
    )
    trainer.train()
    assert "rewards/margins" in trainer.state.log_history[0] and "kl" not in trainer.state.log_history[0]


def test_an_objective_of_ones_own_is_a_function(tmp_path, pipeline_dir, cached):
    def squared(rows, args):
        return rows.error.square() * args.real_weight

    trainer = make_trainer(pipeline_dir, tmp_path, cached, objective_of_own=squared, real_weight=0.25)
    batch = whole_batch(trainer)
    error = step_rows(trainer, batch).error
    sampled, real = error[:6].square().mean() * 0.25, error[6:].mean()
    assert_close(trainer.compute_loss(trainer.model.train(), batch), sampled + 0.25 * real)
    assert trainer._run()["objective"] == "squared"
    mine = Objective("mine", "only the first clip", likelihood, OBJECTIVES["rs"].select)
    assert len(make_trainer(pipeline_dir, tmp_path, cached, objective_of_own=mine).train_dataset) == 4


#: Settings that each objective is given, and what its card says beside them: `beta` also where it is the objective's own.
CARDS = {
    "sft": ({}, {}), "rs": ({}, {}), "rwl": ({"normalize_rewards": True}, {}), "best_of_n": ({"keep_per_prompt": 2}, {}),
    "exp": ({"reward_temperature": 0.3}, {}), "dpo": ({"beta": 70.0, "loss_type": "ipo"}, {"min_reward_gap": 0.05}),
    "kto": ({"undesirable_weight": 0.3}, {"beta": 100.0}), "nft": ({"advantage_clip": 3.0}, {"beta": 0.02}),
    "awm": ({"kl_coef": 0.1}, {"beta": 0.25}),
}  # fmt: skip


def test_a_card_names_its_objective_and_the_constants_that_it_had(tmp_path, pipeline_dir, cached):
    assert CARDS.keys() == OBJECTIVES.keys()
    for objective, (given, own) in CARDS.items():
        trainer = make_trainer(pipeline_dir, tmp_path / objective, cached, objective=objective, **given)
        trainer.create_model_card()
        lines = (tmp_path / objective / "README.md").read_text().splitlines()
        facts = dict(
            line.strip("| ").split(" | ", 1) for line in lines if line.startswith(("| objective", "| constants"))
        )
        assert facts["objective"] == f"`{objective}` ({OBJECTIVES[objective].words})"
        said = dict(item.split(" = ") for item in facts.get("constants", "").split(", ") if item)
        assert said.items() >= {name: str(value) for name, value in (given | own).items()}.items()
        assert said.keys() <= set(OBJECTIVES[objective].options)


def test_settings_that_the_objective_does_not_read_are_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        RewardWeightedVideoConfig(str(tmp_path), objective="kto", beta=3.0, min_reward_gap=0.2, loss_type="ipo")
    assert "objective=kto does not read loss_type, min_reward_gap: leave out" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        RewardWeightedVideoConfig(str(tmp_path), objective="dpo", beta=3.0, min_reward_gap=0.2, loss_type="ipo")
    assert "does not read" not in caplog.text


def test_clips_that_only_a_judge_rated_are_told_of_with_the_rubrics_best_reward(
    tmp_path, pipeline_dir, cache_dir, caplog
):
    folder = shutil.copytree(cache_dir, tmp_path / "cache")
    rows = [
        {**row, "labels": None, "reward": None if row["is_real"] else 0.4} for row in read_rows(folder / METADATA_FILE)
    ]
    rows[next(i for i, row in enumerate(rows) if not row["is_real"])]["reward"] = 1.0
    write_rows(folder / METADATA_FILE, rows)
    artifact = Artifact.load(folder)
    replace(artifact, rubric=OWN).save(folder)
    with caplog.at_level(logging.WARNING):
        make_trainer(pipeline_dir, tmp_path / "kto", CachedVideoDataset(folder), objective="kto")
    assert (
        "train, kto: " in caplog.text and "from 1 on they count as best in all dimensions, which 1 do" in caplog.text
    )
