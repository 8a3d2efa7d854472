"""Validation of a model that FSDP2 has sharded, and how long processes wait for one another."""

import os
import subprocess
import sys

import numpy as np

from lift_trl.alignment.sampling.validation import ValidationVideos
from lift_trl.store.video_io import read_video
from tests.alignment.validation_run import validating_trainer
from tests.invariants.test_trajectories import free_port


def run_two(command: list[str], timeout_s: float = 400) -> list[str]:
    """The output of two processes of one gloo world, both of which must succeed."""
    port = str(free_port())
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def test_a_sharded_model_samples_the_videos_of_a_whole_one(tmp_path, pipeline_dir, cache_dir, cached):
    """Its outermost weights are gathered only if the call goes through it: "mixed torch.Tensor and DTensor" otherwise."""
    outputs = run_two(
        ["-m", "tests.alignment.sharded_validation", *map(str, (pipeline_dir, cache_dir, tmp_path / "two"))]
    )
    assert all("timeout: 7 days" in output for output in outputs)
    trainer = validating_trainer(pipeline_dir, tmp_path / "one", cached)
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, ValidationVideos))
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    trainer.state.global_step = 1
    callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.mp4"))
    assert len(names) == 6
    frames = {name: [read_video(tmp_path / folder / name).frames for folder in ("one", "two")] for name in names}
    for one, two in frames.values():
        assert np.array_equal(one, two)
    base, step = (frames[name][0] for name in names[:2])
    assert not np.array_equal(base, step)


CODE = """
import tempfile
import torch
from accelerate.state import PartialState
from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.runtime import process_state
for start in (process_state, lambda: LiFTCriticConfig(tempfile.mkdtemp())):
    start()
    print("timeout:", torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    PartialState._reset_state()
"""


def test_processes_wait_for_one_another_for_days():
    """With the libraries' 10 or 30 minutes a job whose work is shared out unevenly aborts at its last barrier."""
    assert all(output.count("timeout: 7 days") == 2 for output in run_two(["-c", CODE]))
