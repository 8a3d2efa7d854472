"""Runs that must coincide: one trajectory, however it is cut into micro-batches, processes and sessions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from lift_trl.alignment.objectives import OBJECTIVES
from lift_trl.hub.lora.files import PEFT_WEIGHTS_FILE
from lift_trl.runtime import check_world
from tests.alignment.conftest import make_trainer, trainable
from tests.processes import Job, free_port, recipe


ROOT = Path(__file__).parents[2]
ACCELERATE = ROOT / "recipes" / "configs" / "accelerate"


def settings_of(pipeline_dir: Path, cache_dir: Path, output_dir: Path, **options) -> dict[str, object]:
    """Of a small LoRA with one learning rate."""
    return {
        "model_name_or_path": pipeline_dir, "cache": cache_dir, "output_dir": output_dir, "lora_r": 4, "lora_alpha": 16,
        "learning_rate": 0.01, "lr_scheduler_type": "constant", "report_to": "none", "logging_steps": 1, "max_steps": 4,
        "per_device_train_batch_size": 4, "save_strategy": "no", **options,
    }  # fmt: skip


def align(pipeline_dir: Path, cache_dir: Path, output_dir: Path, *, num_processes: int = 1, **options) -> Job:
    """`recipes/align.py` with [`settings_of`]; what it prints is in a file beside `output_dir`."""
    settings = settings_of(pipeline_dir, cache_dir, output_dir, **options)
    return Job(output_dir.with_suffix(".log"), recipe, "align", num_processes=num_processes, **settings)


def launch(
    config: str,
    pipeline_dir: Path,
    cache_dir: Path,
    output_dir: Path,
    *,
    num_processes: int = 0,
    launcher: Sequence[str] = (),
    **options,
) -> subprocess.Popen:
    """`accelerate launch recipes/align.py` with [`settings_of`]; `launcher` are further options of it."""
    settings = settings_of(pipeline_dir, cache_dir, output_dir, **options)
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / config)]
    if num_processes:
        command += ["--num_processes", str(num_processes), "--main_process_port", "0"]
    command += launcher
    return subprocess.Popen(
        [*command, str(ROOT / "recipes" / "align.py"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, timeout_s: float = 240) -> str:
    """The output of a launch that must succeed; nothing of it stays behind."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return output


def slow(case: str):
    """A case for `make test-all`."""
    return pytest.param(case, marks=pytest.mark.slow)


def assert_same_weights(one: dict, two: dict, **tolerance) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_close(two[name], value, **tolerance)


# SGD: Adam turns rounding errors of tiny gradients into whole steps.
@pytest.mark.parametrize("batch, accumulation", [(1, 8), (2, 4), (3, 3)])
def test_micro_batches_play_no_part(tmp_path, pipeline_dir, cached, batch, accumulation):
    """The last case is ragged: eight rows in micro-batches of 3, 3 and 2 are one mean over eight."""
    settings = {"optim": "sgd", "learning_rate": 1.0, "max_steps": 3, "max_grad_norm": 0.0}
    whole = make_trainer(pipeline_dir, tmp_path / "a", cached, per_device_train_batch_size=8, **settings)
    cut = make_trainer(
        pipeline_dir, tmp_path / "b", cached, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        **settings,
    )  # fmt: skip
    whole.train()
    cut.train()
    assert_same_weights(trainable(whole), trainable(cut), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name not in ("rwl", "sft", "rs")])
def test_micro_batches_play_no_part_in_any_objective(tmp_path, pipeline_dir, cached, objective):
    """All pairs or rows of an epoch in one batch, and in micro-batches of two."""
    settings = {"objective": objective, "optim": "sgd", "learning_rate": 1.0, "max_steps": 2, "max_grad_norm": 0.0}
    whole = make_trainer(pipeline_dir, tmp_path / "a", cached, per_device_train_batch_size=8, **settings)
    cut = make_trainer(
        pipeline_dir, tmp_path / "b", cached, per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings
    )
    start = trainable(whole)
    whole.train()
    cut.train()
    assert_same_weights(trainable(whole), trainable(cut), rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(value, start[name]) for name, value in trainable(whole).items())


@pytest.mark.parametrize("objective", ["dpo", "kto", "nft", "awm"])
def test_resumed_training_with_a_moving_old_policy_is_bit_identical(tmp_path, pipeline_dir, cached, objective):
    """The old policy has moved twice before the checkpoint and moves again after it."""
    settings = {
        "objective": objective, "max_steps": 6, "save_strategy": "steps", "save_steps": 4, "per_device_train_batch_size": 2,
        "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.7,
    }  # fmt: skip
    whole = make_trainer(pipeline_dir, tmp_path / "a", cached, **settings)
    whole.train()
    resumed = make_trainer(pipeline_dir, tmp_path / "b", cached, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    names = [name for name, _ in whole.model.named_parameters() if "lora_" in name]
    states = [dict(trainer.model.named_parameters()) for trainer in (whole, resumed)]
    assert any(".old." in name for name in names)
    for name in names:
        assert torch.equal(states[0][name], states[1][name]), name
    moved = [name for name in names if ".old." in name and "lora_B" in name]
    for name in moved:
        trained = states[0][name.replace(".old.", ".default.")]
        assert not torch.equal(states[0][name], trained) and states[0][name].abs().max() > 0


@pytest.mark.parametrize("objective", ["rwl", "best_of_n", "exp"])
def test_resumed_training_is_bit_identical(tmp_path, pipeline_dir, cached, objective):
    settings = {
        "objective": objective, "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2,
    }  # fmt: skip
    whole = make_trainer(pipeline_dir, tmp_path / "a", cached, **settings)
    whole.train()
    resumed = make_trainer(pipeline_dir, tmp_path / "b", cached, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert_same_weights(trainable(whole), trainable(resumed), rtol=0, atol=0)
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (whole, resumed)]
    assert losses[0] == losses[1]


def test_two_processes_equal_one(tmp_path, pipeline_dir, cache_dir):
    """
    Eight rows in steps of six and two: one process of the two repeats rows, which may not count. Two are started by
    `accelerate launch`, each with its own seed of `hash()`.
    """
    settings = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "save_strategy": "steps", "save_steps": 2}
    pair = {**settings, "per_device_train_batch_size": 3}
    two = launch("cpu_2.yaml", pipeline_dir, cache_dir, tmp_path / "two", **pair)
    one = align(pipeline_dir, cache_dir, tmp_path / "one", **settings, per_device_train_batch_size=6)
    log = finish(two)
    one.finish()
    assert "strategy: DDP (gloo), 2 process(es) on cpu" in log
    logged = [
        [
            {name: value for name, value in line.items() if "loss" in name or "reward" in name or "fraction" in name}
            for line in json.loads((tmp_path / run / "trainer_state.json").read_text())["log_history"]
        ]
        for run in ("one", "two")
    ]
    assert len(logged[0]) == 5 and logged[0][0]["loss_unweighted"] > 0
    for alone, together in zip(*logged, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    shutil.copytree(tmp_path / "two" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    log = align(pipeline_dir, cache_dir, tmp_path / "resumed", num_processes=2, **pair).finish()
    assert "resuming from" in log
    assert_same_weights(
        load_file(tmp_path / "two" / PEFT_WEIGHTS_FILE),
        load_file(tmp_path / "resumed" / PEFT_WEIGHTS_FILE),
        rtol=0,
        atol=0,
    )
    assert_same_weights(
        load_file(tmp_path / "one" / PEFT_WEIGHTS_FILE),
        load_file(tmp_path / "two" / PEFT_WEIGHTS_FILE),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("objective", [slow(name) for name in ("dpo", "kto", "nft", "awm", "exp", "best_of_n")])
def test_two_processes_equal_one_in_every_objective(tmp_path, pipeline_dir, cache_dir, objective):
    """
    With a moving reference. Three pairs and two real clips in steps of four and one unit: a process repeats units of one
    and of two rows. Rows are eight, in steps of six and two, or of `best_of_n` five.
    """
    settings = {
        "objective": objective, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "max_steps": 3,
        "sync_ref_model": True, "ref_model_sync_steps": 1,
    }  # fmt: skip
    size = 2 if objective == "dpo" else 3
    runs = {"two": (2, size), "one": (1, 2 * size)}
    for name, (number, batch) in runs.items():
        job = align(
            pipeline_dir,
            cache_dir,
            tmp_path / name,
            num_processes=number,
            per_device_train_batch_size=batch,
            **settings,
        )
        job.finish()
    logs = [json.loads((tmp_path / run / "trainer_state.json").read_text())["log_history"] for run in ("one", "two")]
    for alone, together in zip(*logs, strict=True):
        assert together.keys() == alone.keys()
        for name in alone.keys() & {"loss", "kl", "kl_old", "rewards/chosen", "rewards/margins", "real_fraction"}:
            # Rewards are beta times a difference of two errors, which float32 knows to some 1e-7.
            close = pytest.approx(alone[name], rel=1e-4, abs=1e-4 if "/" in name else 1e-9)
            assert together[name] == close, name
    assert_same_weights(
        load_file(tmp_path / "one" / PEFT_WEIGHTS_FILE),
        load_file(tmp_path / "two" / PEFT_WEIGHTS_FILE),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.slow
def test_two_machines_equal_one_process(tmp_path, pipeline_dir, cache_dir):
    """Two launchers on localhost, as on two machines: each starts one process of the same job."""
    settings, port = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0}, free_port()
    nodes = [
        launch(
            "multi_node.yaml", pipeline_dir, cache_dir, tmp_path / "two", per_device_train_batch_size=2, **settings,
            launcher=["--num_processes=2", f"--main_process_port={port}", f"--machine_rank={rank}"],
        )
        for rank in (0, 1)
    ]  # fmt: skip
    logs = [finish(node) for node in nodes]
    align(pipeline_dir, cache_dir, tmp_path / "one", **settings).finish()
    assert "strategy: DDP (gloo), 2 process(es) on cpu" in logs[0]
    assert_same_weights(
        load_file(tmp_path / "one" / PEFT_WEIGHTS_FILE),
        load_file(tmp_path / "two" / PEFT_WEIGHTS_FILE),
        rtol=1e-5,
        atol=1e-7,
    )


def test_validation_is_shared_by_the_processes(tmp_path, pipeline_dir, cache_dir):
    """Three prompts on two processes: every video is there once, and both processes sample equally often."""
    prompts = ["a red circle moving left", "a blue square moving up", "a green triangle moving down"]
    job = align(
        pipeline_dir, cache_dir, tmp_path / "out", num_processes=2, max_steps=1, validation_prompts=prompts,
        validation_num_inference_steps=1, validation_guidance_scale=1.0,
    )  # fmt: skip
    job.finish()
    folders = sorted((tmp_path / "out" / "validation").iterdir())
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [
        ["base.mp4", "prompt.txt", "step-1.mp4"]
    ] * 3


@pytest.mark.parametrize(
    "objective", ["rwl", *(slow(name) for name in OBJECTIVES if name not in ("rwl", "sft", "rs"))]
)
def test_a_killed_launch_resumes_bit_for_bit(tmp_path, pipeline_dir, cache_dir, objective):
    """kill -9 after the first checkpoint; the same command again ends where the uninterrupted run ends."""
    options = {
        "objective": objective, "max_steps": 12, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2,
        "sync_ref_model": True, "ref_model_sync_steps": 3,
    }  # fmt: skip
    align(pipeline_dir, cache_dir, tmp_path / "whole", **options).finish()
    killed = align(pipeline_dir, cache_dir, tmp_path / "killed", **options)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("checkpoint-*/trainer_state.json")):
        assert killed.running() and time.monotonic() < deadline
        time.sleep(0.01)
    assert killed.kill() == [-signal.SIGKILL]
    assert not (tmp_path / "killed" / PEFT_WEIGHTS_FILE).exists()
    log = align(pipeline_dir, cache_dir, tmp_path / "killed", **options).finish()
    assert "resuming from" in log
    one, two = (load_file(tmp_path / name / PEFT_WEIGHTS_FILE) for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_processes_that_do_not_find_each_other_stop(monkeypatch):
    """What `accelerate launch --cpu --num_processes 2` can become: WORLD_SIZE 2 seen by a lone process."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="the launcher started 2 processes, but this one sees 1"):
        check_world(1)
