"""Pairs as training data: which question a choice answers, the loss beside an independent one, and a training end to end."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.pairs.loss import find_tokens, pair_losses, pair_margins, written_labels
from lift_trl.critic.pairs.reading import Pair, read_pairs
from lift_trl.critic.prefix import LabelTokens
from lift_trl.critic.trained_weights import check_pairs_fit
from lift_trl.records import RatedVideo
from lift_trl.rubric import LIFT, Dimension
from lift_trl.runtime import last_checkpoint
from lift_trl.store.manifest import write_rows
from lift_trl.store.video_io import sample_frames
from tests.critic.rendered_clips import rated_squares
from tests.critic.test_critic_trainer import config, lora
from tests.critic.tiny_models import build_vlm
from tests.own_rubric import OWN


BETA, WEIGHT = 7.0, 0.3
MOTION = Dimension.MOTION_SMOOTHNESS


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Ratings of eight clips, and the folder of the clips."""
    folder = tmp_path_factory.mktemp("squares")
    return rated_squares(folder), folder


@pytest.fixture(scope="module", params=["idefics3", "qwen2_5_vl"])
def checkpoint(request, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp(request.param)
    build_vlm(request.param, save_directory=folder)
    return str(folder)


def pair(folder: Path, first: str, second: str, *dimensions: str) -> Pair:
    clips = [RatedVideo(name, folder / f"{name}.mp4", "A square moves right.") for name in (first, second)]
    return Pair(*clips, dimensions or LIFT.dimensions)


def some_pairs(folder: Path) -> list[Pair]:
    """Overall, one question, overall with the first pair's clips on other sides."""
    return [
        pair(folder, "red-True", "green-False"),
        pair(folder, "blue-True", "red-True", MOTION),
        pair(folder, "green-False", "white-True"),
    ]


def expected_rewards(critic: LiFTCritic, clip: Path, caption: str) -> dict[str, float]:
    """By dimension, as scoring finds them behind a shared prefix."""
    logprobs = critic.label_logprobs([sample_frames(clip, critic.settings.num_frames)], [caption])[0]
    rewards = torch.tensor([LIFT.rewards[label] for label in LIFT.labels])
    return dict(zip(LIFT.dimensions, (logprobs.softmax(dim=-1) @ rewards).tolist(), strict=True))


def reference(critic: LiFTCritic, compared: Pair) -> float:
    chosen, rejected = (
        expected_rewards(critic, Path(side.video), side.prompt) for side in (compared.chosen, compared.rejected)
    )
    return sum(chosen[d] - rejected[d] for d in compared.dimensions) / len(compared.dimensions)


def make(checkpoint, squares, folder, pairs, **options):
    args = config(folder, **{"pair_beta": BETA, "pair_weight": WEIGHT, **options})
    return LiFTCriticTrainer(checkpoint, args, train_dataset=squares[0], peft_config=lora(), pairs=pairs)


def in_batch(trainer, pairs):
    return trainer.data_collator([{**trainer.train_dataset[0], "pairs": pairs}])["pairs"]


@pytest.fixture
def launched(monkeypatch):
    """A function that puts accelerate's state as a launch on GPUs leaves it; the state is a fresh one afterwards."""
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)

    def launch(kind: DistributedType) -> Accelerator:
        accelerator = Accelerator(cpu=True)
        if kind == DistributedType.FSDP:
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        else:
            accelerator.state.deepspeed_plugins = DeepSpeedPlugin()
        accelerator.state.distributed_type = PartialState().distributed_type = kind
        return accelerator

    yield launch
    AcceleratorState._reset_state(reset_partial_state=True)


def test_pairs_are_refused_where_weights_are_spread(checkpoint, squares, tmp_path, launched):
    args = config(tmp_path)
    assert args.device.type == "cpu"  # who asks first resets the state
    launched(DistributedType.FSDP)
    with pytest.raises(ValueError, match=r"pairs: with weights spread over processes \(FSDP\).*Train a LoRA with DDP"):
        LiFTCriticTrainer(checkpoint, args, train_dataset=squares[0], peft_config=lora(), pairs=some_pairs(squares[1]))
    without = LiFTCriticTrainer(checkpoint, args, train_dataset=squares[0], peft_config=lora())
    assert without.is_fsdp_enabled


def test_so_are_pairs_with_deepspeed(launched):
    """Which is not installed here, so that no Trainer starts with it; accelerate's own state is enough."""
    accelerator = launched(DistributedType.DEEPSPEED)
    assert accelerator.state.deepspeed_plugin.zero_stage == 2
    with pytest.raises(ValueError, match=r"weights spread over processes \(DEEPSPEED\)"):
        check_pairs_fit(accelerator.distributed_type)
    check_pairs_fit(DistributedType.MULTI_GPU)


REWARDS = torch.tensor([LIFT.rewards[label] for label in LIFT.labels])


def test_margins_are_those_of_scoring_and_swapped_pairs_negate(checkpoint, squares, tmp_path):
    pairs = some_pairs(squares[1])
    trainer = make(checkpoint, squares, tmp_path, pairs)
    batch = in_batch(trainer, pairs)
    # 3 + 3, 1 + 1 and 3 + 3 questions.
    assert batch["signs"].shape == (3, 14) and batch["tokens"][:, 3].max() == 14 * 3 - 1
    margins = pair_margins(trainer.model.eval(), batch, REWARDS)
    critic = trainer._make_critic()
    wanted = [reference(critic, one) for one in pairs]
    # What a tiny Qwen sees moves its answers little.
    assert len({round(value, 5) for value in wanted}) == 3 and min(map(abs, wanted)) > 2e-5
    assert margins.tolist() == pytest.approx(wanted, rel=1e-3, abs=2e-6)
    swapped = [Pair(one.rejected, one.chosen, one.dimensions) for one in pairs]
    assert pair_margins(trainer.model, in_batch(trainer, swapped), REWARDS).tolist() == pytest.approx(
        [-value for value in wanted], rel=1e-3, abs=2e-6
    )


def test_the_loss_is_bradley_and_terrys_and_pulls_the_preferred_clip_up():
    margins = torch.tensor([-0.3, 0.0, 0.2], requires_grad=True)
    losses = pair_losses(margins, BETA)
    wanted = [math.log(1 + math.exp(-BETA * margin)) for margin in margins.tolist()]
    assert losses.tolist() == pytest.approx(wanted, rel=1e-6)
    losses.sum().backward()
    slopes = [-BETA / (1 + math.exp(BETA * margin)) for margin in margins.tolist()]
    assert margins.grad.tolist() == pytest.approx(slopes, rel=1e-5)


def test_a_step_adds_the_pairs_loss_per_rated_row(checkpoint, squares, tmp_path):
    """Of a batch of five rows, of which two have pairs: the sum over the pairs by five, not their mean."""
    pairs = some_pairs(squares[1])
    trainer = make(checkpoint, squares, tmp_path, pairs)
    rows = [trainer.train_dataset[n] for n in (0, 1, 2, 3, 4)]
    assert [len(row["pairs"]) for row in rows] == [1, 1, 1, 0, 0]
    rows[1]["pairs"] = []
    (batch,), num_items = trainer.get_batch_samples(iter([trainer.data_collator(rows)]), 1, torch.device("cpu"))
    trainer.model.train()
    both = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=num_items)
    ratings = {name: value for name, value in batch.items() if name != "pairs"}
    trainer.model.eval()
    alone = trainer.compute_loss(trainer.model, ratings, num_items_in_batch=num_items)
    critic = trainer._make_critic()
    losses = [math.log(1 + math.exp(-BETA * reference(critic, pairs[n]))) for n in (0, 2)]
    assert (both - alone).item() == pytest.approx(WEIGHT * sum(losses) / 5, abs=1e-4)


def test_labels_of_several_tokens_share_rows_where_they_begin_alike():
    labels = {"a": LabelTokens([1, 2], []), "b": LabelTokens([1, 3], []), "c": LabelTokens([4, 5, 6], []),
              "d": LabelTokens([7], [])}  # fmt: skip
    assert written_labels(labels) == [[4, 5, 6], [1, 2]]
    # Two questions: rows 0 and 2 hold c, rows 1 and 3 hold a.
    found = find_tokens(labels, [10, 10, 20, 21]).tolist()
    assert found[:8] == [
        [1, 9, 1, 0], [1, 10, 2, 0], [1, 9, 1, 1], [1, 10, 3, 1], [0, 9, 4, 2], [0, 10, 5, 2], [0, 11, 6, 2], [0, 9, 7, 3],
    ]  # fmt: skip
    assert found[8:10] == [[3, 20, 1, 4], [3, 21, 2, 4]] and found[-1] == [2, 19, 7, 7]


def write_csv(folder: Path, rows: list[tuple[str, ...]], *columns: str) -> Path:
    with open(folder / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path_A", "path_B", "prompt", *columns), *rows])
    return folder / "pairs.csv"


def test_a_csv_is_read_by_the_benchmarks_columns_and_by_dimensions(squares):
    clips, prompt = ("red-True.mp4", "blue-True.mp4"), "A square moves right."
    path = write_csv(
        squares[1], [(*clips, prompt, "7", "A", "B", "same")], "fps_A", "Overall", "MQ", "semantic_consistency"
    )
    overall, motion = read_pairs(path)
    assert (overall.chosen.video.name, overall.dimensions) == ("red-True.mp4", LIFT.dimensions)
    assert (motion.chosen.video.name, motion.dimensions) == ("blue-True.mp4", (MOTION,))
    # A rubric without motion_smoothness has no question for MQ; overall is the mean over its own dimensions.
    (own,) = read_pairs(path, rubric=OWN)
    assert own.dimensions == OWN.dimensions
    with pytest.raises(ValueError, match="no pair in which one clip is preferred"):
        read_pairs(write_csv(squares[1], [(*clips, prompt, "same")], "TA"))


def vote(dimension, choice="a", number=0):
    return {
        "id": f"{dimension}-{number}", "prompt": "A square moves right.", "video_a": "one/red-True.mp4",
        "video_b": "one/blue-True.mp4", "choice": choice, "dimension": dimension,
    }  # fmt: skip


def test_votes_on_another_rubrics_questions_are_refused_by_name(squares, tmp_path):
    write_rows(tmp_path / "a.jsonl", [vote(None, "b"), vote(MOTION), vote("video_fidelity", "tie")])
    systems = {"one": squares[1]}
    overall, motion = read_pairs(tmp_path, systems)
    assert overall.chosen.video.name == "blue-True.mp4" and motion.chosen.video.name == "red-True.mp4"
    assert (overall.dimensions, motion.dimensions) == (LIFT.dimensions, (MOTION,))
    with pytest.raises(
        ValueError, match="votes on motion_smoothness, video_fidelity, and the critic's dimensions are"
    ):
        read_pairs(tmp_path, systems, OWN)


def liked(folder: Path) -> list[Pair]:
    """Whatever the random model thinks: clips of two colours are liked better than those of the others."""
    return [pair(folder, f"{a}-True", f"{b}-True") for a in ("red", "white") for b in ("blue", "green")]


def pair_accuracy(trainer, pairs) -> float:
    critic = trainer._make_critic()
    return sum(reference(critic, one) > 0 for one in pairs) / len(pairs)


def test_votes_to_a_critic_that_orders_the_pairs(squares, tmp_path):
    """The side that a clip stood on says nothing, and the ratings that are learned beside the votes call all clips Good."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    votes = []
    for number, one in enumerate(liked(squares[1])):
        sides = [f"s/{side.video.name}" for side in (one.chosen, one.rejected)]
        given = dict(zip(("video_a", "video_b"), sides[::-1] if number % 2 else sides, strict=True))
        votes.append({**vote(None, "b" if number % 2 else "a", number), **given})
    write_rows(tmp_path / "votes" / "a.jsonl", votes)
    pairs = read_pairs(tmp_path / "votes", {"s": squares[1]})
    good = squares[0].filter(lambda row: row["label"] == "Good").select(range(4))
    trainer = make(
        str(tmp_path / "vlm"), (good, squares[1]), tmp_path / "out", pairs, max_steps=20, pair_weight=10.0,
        logging_steps=1, lr_scheduler_type="constant", learning_rate=5e-3,
    )  # fmt: skip
    before = pair_accuracy(trainer, pairs)
    trainer.train()
    assert before <= 0.75 and pair_accuracy(trainer, pairs) == 1
    log = [line for line in trainer.state.log_history if "pair_loss" in line]
    assert len(log) == 20 and log[-1]["pair_loss"] < log[0]["pair_loss"] / 2 and log[-1]["pair_accuracy"] == 1
    trainer.save_model()
    assert "pairs" in trainer._parents


def test_a_resumed_training_ends_as_an_uninterrupted_one(checkpoint, squares, tmp_path):
    options = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps", "per_device_train_batch_size": 5}
    pairs = liked(squares[1])
    whole = make(checkpoint, squares, tmp_path / "a", pairs, **options)
    whole.train()
    resumed = make(checkpoint, squares, tmp_path / "b", pairs, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert last_checkpoint(tmp_path / "b") == str(tmp_path / "b" / "checkpoint-4")
    for name, value in whole.model.state_dict().items():
        if "lora_B" in name:
            assert value.abs().max() > 0
        torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_two_processes_train_as_one_whichever_has_a_pair(squares, tmp_path):
    """Three pairs go with the first of 24 rows, so most batches of a process hold none."""
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    rows = {}
    for row in squares[0]:
        clip = rows.setdefault(row["video"], {"file_name": row["video"], "prompt": row["caption"], "reasons": {}})
        clip[row["dimension"]], clip["reasons"][row["dimension"]] = row["label"], row["reason"]
    write_rows(squares[1] / "metadata.jsonl", list(rows.values()))
    choices = [(a.chosen.video.name, a.rejected.video.name, "A square moves right.") for a in some_pairs(squares[1])]
    path = write_csv(squares[1], [(*sides, answer) for sides, answer in zip(choices, "ABA", strict=True)], "Overall")
    root, tuned = Path(__file__).resolve().parents[2], []
    for processes in (1, 2):
        words = {
            "model_name_or_path": tmp_path / "vlm", "use_peft": True, "dtype": "float32", "lora_r": 4, "lora_dropout": 0,
            "hra": squares[1], "preferences": path, "output_dir": tmp_path / str(processes), "max_steps": 3,
            "per_device_train_batch_size": 8 // processes, "learning_rate": 1e-2, "warmup_steps": 0, "report_to": "none",
            "gradient_checkpointing": False, "logging_steps": 1, "pair_weight": 5.0, "save_strategy": "no",
        }  # fmt: skip
        config = root / "recipes" / "configs" / "accelerate" / ("cpu.yaml" if processes == 1 else "cpu_2.yaml")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
        run = subprocess.run(
            [*command, root / "recipes" / "train_critic.py", *(w for n, v in words.items() for w in (f"--{n}", str(v)))],
            env={**env, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        log = json.loads((tmp_path / str(processes) / "trainer_state.json").read_text())["log_history"]
        figures = [
            [line.get(name) for line in log if "loss" in line] for name in ("loss", "pair_loss", "pair_accuracy")
        ]
        tuned.append((figures, load_file(tmp_path / str(processes) / "adapter_model.safetensors")))
    assert any(value is not None for value in tuned[0][0][1])
    for one, two in zip(tuned[0][0], tuned[1][0], strict=True):
        assert [value is None for value in one] == [value is None for value in two]
        assert [value for value in one if value] == pytest.approx([value for value in two if value], abs=2e-3)
    for name, value in tuned[0][1].items():
        torch.testing.assert_close(value, tuned[1][1][name], atol=2e-4, rtol=0)
