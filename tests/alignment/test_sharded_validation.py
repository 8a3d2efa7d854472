"""Validation of a model that FSDP2 has sharded, and how long processes wait for one another."""

from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from lift_trl.alignment.sampling.validation import ValidationVideos
from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.runtime import process_state
from lift_trl.store.video_io import read_video
from tests.alignment import sharded_validation
from tests.alignment.validation_run import validating_trainer
from tests.processes import Job


def test_a_sharded_model_samples_the_videos_of_a_whole_one(tmp_path, pipeline_dir, cache_dir, cached):
    """Its outermost weights are gathered only if the call goes through it: "mixed torch.Tensor and DTensor" otherwise."""
    job = Job(tmp_path / "log", sharded_validation.main, pipeline_dir, cache_dir, tmp_path / "two", num_processes=2)
    assert job.finish(400).count("timeout: 7 days") == 2
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


def print_timeouts(folder: Path) -> None:
    """Of the groups of processes that the recipes and the critic's settings open."""
    for start in (process_state, lambda: LiFTCriticConfig(str(folder))):
        start()
        print("timeout:", torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        PartialState._reset_state()


def test_processes_wait_for_one_another_for_days(tmp_path):
    """With the libraries' 10 or 30 minutes a job whose work is shared out unevenly aborts at its last barrier."""
    output = Job(tmp_path / "log", print_timeouts, tmp_path / "critic", num_processes=2).finish()
    assert output.count("timeout: 7 days") == 4
