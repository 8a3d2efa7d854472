"""Iterated LiFT: what each round starts from, what it writes, and that a killed run ends in the same LoRA."""

import gc
import shutil
from copy import copy
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import Idefics3ForConditionalGeneration

from lift_trl.alignment.iterate import iterate
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import CriticSource
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import find_revision
from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.mini.checkpoints import build_tiny_vlm
from lift_trl.records import CriticScore, Judgement
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import Artifact, read_json, read_rows, write_rows
from tests.alignment.conftest import moving_square
from tests.alignment.test_recipes import start, write
from tests.own_rubric import OWN


PROMPTS = ("a red circle moving left", "a blue square moving up")
SAMPLING = {"num_inference_steps": 2, "guidance_scale": 1.0}
# Plain gradient descent: two processes and one then agree to rounding.
TRAINING = {
    "max_steps": 3, "per_device_train_batch_size": 6, "learning_rate": 1.0, "optim": "sgd", "save_steps": 1,
    "logging_steps": 1, "report_to": "none", "num_frames": 9, "height": 32, "width": 32,
}  # fmt: skip
LORA_FILE = "adapter_model.safetensors"


class Dies(LiFTCritic):
    """A critic whose process is interrupted after two clips of the second round."""

    def score_batches(self, batches, *, with_reason=False):
        batches = list(batches)
        for number, scores in enumerate(super().score_batches(batches, with_reason=with_reason)):
            if number == 1 and "round_2" in str(batches[number][0][0]):
                raise KeyboardInterrupt
            yield scores


class Fashion:
    """A judge that likes what it is told to: folder -> label; one dimension differs from clip to clip."""

    def __init__(self, name, liked):
        self.name, self.liked = name, liked

    def score(self, videos, captions, *, with_reason=False):
        label = next((label for part, label in self.liked.items() if part in str(videos[0])), Label.NORMAL)
        worse = {Dimension.VIDEO_FIDELITY: Label.BAD}
        labels = [dict.fromkeys(Dimension, label) | (worse if n % 2 else {}) for n in range(len(videos))]
        return [
            CriticScore(str(n), self.name, tuple(Judgement(d, label[d]) for d in Dimension))
            for n, label in enumerate(labels)
        ]

    def source(self):
        return CriticSource(self.name, lambda: self)


class World:
    """Folders of a tiny base, a tiny critic, prompts and real clips."""

    def __init__(self, root: Path, base: Path) -> None:
        self.base, self.critic, self.real, self.prompts = base, root / "vlm", root / "real", root / "prompts.txt"
        build_tiny_vlm(self.critic, seed=7)  # of the first seeds, one whose labels differ between the clips
        self.prompts.write_text("\n".join(PROMPTS))
        for number in range(len(PROMPTS)):
            moving_square(self.real / f"{number}.mp4", 40 + number)
        rows = [{"file_name": f"{n}.mp4", "prompt": prompt, "is_real": True} for n, prompt in enumerate(PROMPTS)]
        write_rows(self.real / "metadata.jsonl", rows)

    def critic_source(self, critic_class=LiFTCritic, on_load=lambda: None) -> CriticSource:
        def load():
            on_load()
            return critic_class.from_pretrained(self.critic)

        return CriticSource(f"{self.critic}@{find_revision(str(self.critic))}", load)

    def iterate(
        self,
        folder,
        *,
        rounds=2,
        critic=None,
        learning_rate=1.0,
        guard=None,
        objective_of_own=None,
        lora=None,
        **options,
    ) -> Path:
        videos_per_prompt = options.pop("videos_per_prompt", 2)
        return iterate(
            self.base,
            critic or self.critic_source(),
            options.pop("prompts", self.prompts),
            RewardWeightedVideoConfig(
                str(folder), disable_tqdm=True, **{**TRAINING, "learning_rate": learning_rate, **options}
            ),
            rounds=rounds,
            peft_config=lora or LoraConfig(r=4, lora_alpha=16),
            sampling=Sampling(num_frames=9, height=32, width=32, batch_size=2, **SAMPLING),
            videos_per_prompt=videos_per_prompt,
            real=[self.real],
            critic_batch_size=2,
            guard=guard,
            objective=objective_of_own,
        )


def squared(rows, args):
    """A loss of one's own."""
    return rows.error.square()


def rows_of(folder):
    return list(read_rows(folder / "metadata.jsonl"))


def alive(kind) -> int:
    gc.collect()
    return sum(issubclass(type(thing), kind) for thing in gc.get_objects())


@pytest.fixture(scope="module")
def world(tmp_path_factory, pipeline_dir):
    return World(tmp_path_factory.mktemp("world"), pipeline_dir)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """Two rounds without an interruption, and how many models of other stages were alive when a critic was loaded."""
    models = (CogVideoXTransformer3DModel, Idefics3ForConditionalGeneration)
    before, found = alive(models), []
    folder = tmp_path_factory.mktemp("iterated")
    last = world.iterate(folder, critic=world.critic_source(on_load=lambda: found.append(alive(models) - before)))
    assert last == folder / "round_2" / "lora" and found == [0, 0]
    return folder


def test_each_round_starts_from_the_lora_of_the_last(world, whole):
    first, second = (rows_of(whole / f"round_{number}" / "generated") for number in (1, 2))
    assert {row["adapter"] for row in first} == {None}
    assert {row["adapter"] for row in second} == {str(whole / "round_1" / "lora")}
    assert [row["prompt"] for row in first] == [row["prompt"] for row in second] == [p for p in PROMPTS for _ in "ab"]
    assert len({row["seed"] for row in first + second}) == len({row["id"] for row in first + second}) == 8
    loras = [load_file(whole / f"round_{number}" / "lora" / LORA_FILE) for number in (1, 2)]
    assert all((loras[1][name] != tensor).any() for name, tensor in loras[0].items())
    parents = Artifact.load(whole / "round_2" / "lora").parents
    first_lora = adapter_identity(whole / "round_1" / "lora")
    assert (parents["model"], parents["adapter"]) == (str(world.base), first_lora)
    critic = LiFTCritic.from_pretrained(world.critic).name
    assert Artifact.load(whole / "round_2" / "cache").parents["scored/critic"] == critic
    card = (whole / "round_2" / "lora" / "README.md").read_text()
    for role, parent in (("adapter", first_lora), ("scored/critic", critic)):
        assert f"| {role} | `{Path(parent).name}` |" in card
    pipe = CogVideoXPipeline.from_pretrained(world.base)
    pipe.load_lora_weights(whole / "round_2" / "lora")
    (name,) = [n for n in pipe.transformer.state_dict() if n.endswith("blocks.0.attn1.to_q.lora_B.default_0.weight")]
    assert torch.equal(
        pipe.transformer.state_dict()[name], loras[1]["base_model.model.transformer_blocks.0.attn1.to_q.lora_B.weight"]
    )


def test_rewards_are_the_critics_and_real_clips_are_in_each_round(world, whole):
    critic, rewards = LiFTCritic.from_pretrained(world.critic), set()
    for number in (1, 2):
        folder = whole / f"round_{number}"
        generated, scored = rows_of(folder / "generated"), rows_of(folder / "scored")
        clips = [folder / "generated" / row["file_name"] for row in generated]
        expected = critic.score(clips, [row["prompt"] for row in generated])
        rewards |= {row["reward"] for row in scored}
        assert [row["reward"] for row in scored] == pytest.approx([s.reward for s in expected])
        assert [row["expected_reward"] for row in scored] == pytest.approx([s.expected_reward for s in expected])
        assert {row["critic"] for row in scored} == {critic.name}
        cached = {row["id"]: row for row in rows_of(folder / "cache")}
        assert sum(row["is_real"] for row in cached.values()) == 2 and len(cached) == 6
        for row in scored:
            labels = {name: row[name] for name in cached[row["id"]]["labels"]}
            assert cached[row["id"]]["labels"] == labels and len(labels) == 3
        assert "4 sampled, 2 real; 9 frames of 32x32 px" in (folder / "lora" / "README.md").read_text()
    assert len(rewards) > 1


def killed_in_the_second_round(whole: Path, folder: Path) -> Path:
    """What a kill after the first optimiser step of the second round leaves of `whole`; returns that round's LoRA."""
    shutil.copytree(whole, folder)
    lora = folder / "round_2" / "lora"
    for path in [*lora.glob("*.*"), lora / "checkpoint-2", lora / "checkpoint-3"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return lora


def test_a_killed_run_ends_in_the_same_lora_and_keeps_what_was_finished(world, whole, tmp_path):
    """On another machine: run, base, critic and real clips lie in other folders by now."""
    folder = tmp_path / "killed"
    lora = killed_in_the_second_round(whole, folder)
    there, world = world, copy(world)
    world.base = shutil.copytree(there.base, tmp_path / "models" / there.base.name)
    world.critic = shutil.copytree(there.critic, tmp_path / "models" / "renamed")
    world.real = shutil.copytree(there.real, tmp_path / "models" / "real")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}

    def must_not_load():
        raise AssertionError("the critic was loaded again")

    world.iterate(folder, critic=world.critic_source(on_load=must_not_load))
    assert (lora / LORA_FILE).read_bytes() == (whole / "round_2" / "lora" / LORA_FILE).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == kept


@pytest.mark.parametrize("objective", ["nft", pytest.param("awm", marks=pytest.mark.slow)])
def test_rounds_hold_to_the_last_lora_and_resume_with_their_old_policy(world, tmp_path, objective):
    """The old policy of round 2 starts as the LoRA of round 1, moves at every step, and is back after a kill."""
    critic = Fashion("critic", {"": Label.GOOD}).source()
    options = {
        "critic": critic, "objective": objective, "learning_rate": 1e-2, "optim": "adamw_torch", "sync_ref_model": True,
        "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.5,
    }  # fmt: skip
    last = world.iterate(tmp_path / "whole", **options)
    lora = killed_in_the_second_round(tmp_path / "whole", tmp_path / "killed")
    assert (lora / "checkpoint-1" / "old_policy" / "weights.safetensors").is_file()
    world.iterate(tmp_path / "killed", **options)
    assert (lora / LORA_FILE).read_bytes() == (last / LORA_FILE).read_bytes()
    start, end = (load_file(tmp_path / "whole" / f"round_{number}" / "lora" / LORA_FILE) for number in (1, 2))
    old = load_file(last / "checkpoint-1" / "old_policy" / "weights.safetensors")
    first = load_file(last / "checkpoint-1" / LORA_FILE)
    for name, tensor in old.items():
        assert_close(tensor, (start[name] + first[name]) / 2)
    assert any((end[name] != tensor).any() for name, tensor in start.items())
    assert Artifact.load(last).config["ref_model_mixup_alpha"] == 0.5


def test_what_one_process_left_in_the_second_round_two_finish(world, whole, tmp_path):
    """One process dies while the critic scores; two processes come to the same scores and, up to rounding, LoRA."""
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        world.iterate(folder, critic=world.critic_source(Dies))
    assert not (folder / "round_2" / "cache").exists()
    settings = {
        **TRAINING, **SAMPLING, "per_device_train_batch_size": 3, "model_name_or_path": world.base,
        "critic": world.critic, "prompts": world.prompts, "real": [str(world.real)], "videos_per_prompt": 2,
        "sampling_batch_size": 2, "critic_batch_size": 2, "lora_r": 4, "lora_alpha": 16, "rounds": 2,
        "output_dir": folder,
    }  # fmt: skip
    printed = start("iterate", write(tmp_path / "iterate.yaml", **settings), num_processes=2).finish()
    assert f"The LoRA of the last round is {folder / 'round_2' / 'lora'}" in printed
    mine, others = (rows_of(root / "round_2" / "scored") for root in (folder, whole))
    assert [row["reward"] for row in mine] == [row["reward"] for row in others]
    assert [row["expected_reward"] for row in mine] == pytest.approx([row["expected_reward"] for row in others])
    mine, others = (load_file(root / "round_2" / "lora" / LORA_FILE) for root in (folder, whole))
    for name, tensor in mine.items():
        assert_close(tensor, others[name], rtol=1e-3, atol=1e-6)


def test_other_settings_over_finished_rounds_are_refused(world, whole, tmp_path):
    with pytest.raises(ValueError, match=r"round_1/lora: was made with learning_rate=1.0, now learning_rate=2.0"):
        world.iterate(whole, learning_rate=2.0)
    with pytest.raises(ValueError, match="round_1/lora: was made with lr_scheduler_type=linear, now .*=constant"):
        world.iterate(whole, lr_scheduler_type="constant")
    with pytest.raises(ValueError, match=r"round_1/lora: was made with target_modules=None, now .*=\['to_q'\]"):
        world.iterate(whole, lora=LoraConfig(r=4, lora_alpha=16, target_modules=["to_q"]))
    with pytest.raises(ValueError, match="round_1/lora: was made with objective=rwl, now objective=squared"):
        world.iterate(whole, objective_of_own=squared)
    other = CriticSource("another@1", lambda: None)
    with pytest.raises(ValueError, match=r"round_1/scored: was made with critic=.*vlm@.*, now critic=another@1"):
        world.iterate(whole, critic=other)
    weights = shutil.copytree(whole, tmp_path / "changed") / "round_1" / "lora" / "pytorch_lora_weights.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match=r"round_2/generated: was made with adapter=.*lora@.*, now adapter=.*lora@"):
        world.iterate(tmp_path / "changed")


def test_settings_that_an_earlier_version_did_not_write_down_are_not_compared(world, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "rounds")
    for number in (1, 2):
        artifact = Artifact.load(folder / f"round_{number}" / "lora")
        for name in ("target_modules", "optim"):
            del artifact.config[name]
        artifact.save(folder / f"round_{number}" / "lora")
    assert world.iterate(folder) == folder / "round_2" / "lora"


def test_rounds_of_an_objective_of_ones_own(world, tmp_path):
    world.iterate(tmp_path, rounds=1, objective_of_own=squared)
    assert Artifact.load(tmp_path / "round_1" / "lora").config["objective"] == "squared"
    assert read_json(tmp_path / "round_1" / "lora" / "run.json")["objective"] == "squared"


def test_as_many_other_prompts_or_real_clips_over_finished_rounds_are_refused(world, whole, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join([*PROMPTS[:-1], "a green square moving up"]))
    with pytest.raises(ValueError, match="round_1/generated: was made of other prompts, seeds or real clips"):
        world.iterate(whole, prompts=prompts)
    other = copy(world)
    other.real = shutil.copytree(world.real, tmp_path / "real")
    moving_square(other.real / "1.mp4", 77)
    with pytest.raises(ValueError, match="round_1/cache: was made of other prompts, seeds or real clips"):
        other.iterate(whole)


def test_another_base_of_the_same_name_is_refused(world, whole, tmp_path):
    other = copy(world)
    other.base = shutil.copytree(world.base, tmp_path / "models" / world.base.name)
    weights = next((other.base / "transformer").glob("*.safetensors"))
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match="videos of another model, adapter or settings"):
        other.iterate(shutil.copytree(whole, tmp_path / "rounds"))


def test_what_does_not_apply_is_refused(world, tmp_path):
    write_rows(tmp_path / "plan.jsonl", [{"prompt": "a red circle moving left", "seed": 5}])
    with pytest.raises(ValueError, match="would be the same videos in each round"):
        world.iterate(tmp_path / "a", prompts=tmp_path / "plan.jsonl")
    with pytest.raises(ValueError, match="rounds=0; give 1 or more"):
        world.iterate(tmp_path / "b", rounds=0)
    with pytest.raises(ValueError, match="rounds find their own"):
        world.iterate(tmp_path / "c", resume_from_checkpoint="x")
    with pytest.raises(ValueError, match="there is a LoRA a round"):
        world.iterate(tmp_path / "d", push_to_hub=True)
    with pytest.raises(ValueError, match="fps=12.0: the rounds' own videos have 8 frames a second"):
        world.iterate(tmp_path / "e", fps=12.0)
    with pytest.raises(ValueError, match="eval_strategy=steps: rounds hold no clips out"):
        world.iterate(tmp_path / "f", eval_strategy="steps")
    for objective in ("dpo", "nft", "awm"):
        with pytest.raises(ValueError, match=f"'{objective}' compares videos of one prompt, and videos_per_prompt=1"):
            world.iterate(tmp_path / "g", objective=objective, videos_per_prompt=1)
    assert not any((tmp_path / name).exists() for name in "abcdefg")


class Strict(Fashion):
    """A critic that was taught a rubric of one's own; it likes every second clip."""

    def score(self, videos, captions, *, with_reason=False):
        labels = [OWN.best if n % 2 else "Poor" for n in range(len(videos))]
        judgements = [tuple(Judgement(d, label, rubric=OWN) for d in OWN.dimensions) for label in labels]
        return [CriticScore(str(n), self.name, judged) for n, judged in enumerate(judgements)]


def test_what_a_round_leaves_says_which_rubric_it_was_rated_by(world, tmp_path):
    critic = CriticSource("strict@1", lambda: Strict("strict@1", {}), OWN)
    lora = world.iterate(tmp_path, rounds=1, critic=critic, max_steps=1)
    folders = [lora.parent / name for name in ("scored", "cache", "lora")]
    assert [Artifact.load(folder).rubric for folder in folders] == [OWN] * 3
    assert read_json(lora / "run.json")["rubric"] == OWN.id
    assert f"| rubric | `{OWN.id}` (colour match, steadiness) |" in (lora / "README.md").read_text()
