"""A checkpoint of which a file is cut off or missing is passed over, and refused where it is named."""

import json
import shutil

import pytest
import torch

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.hub.lora.origin import RUN_FILE
from lift_trl.runtime import fit, last_checkpoint
from tests.alignment.conftest import make_trainer, trainable


SETTINGS = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, pipeline_dir, cache_dir):
    """Checkpoints 1, 2 and 3 of a run."""
    folder = tmp_path_factory.mktemp("run") / "out"
    make_trainer(pipeline_dir, folder, CachedVideoDataset(cache_dir), **SETTINGS).train()
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "optimizer.pt", "scheduler.pt"),
        *("rng_state.pth", "trainer_state.json", "run.json", "adapter_config.json"),
    ],
)
def test_a_file_that_a_full_disk_cut_off(tmp_path, run_dir, name, caplog):
    run = shutil.copytree(run_dir, tmp_path / "run")
    file = run / "checkpoint-3" / name
    file.write_bytes(file.read_bytes()[:-2])
    assert last_checkpoint(run) == str(run / "checkpoint-2")
    assert f"{file} is missing or cut off: its checkpoint is passed over" in caplog.text


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_a_file_that_is_missing(tmp_path, run_dir, name):
    run = shutil.copytree(run_dir, tmp_path / "run")
    (run / "checkpoint-3" / name).unlink()
    assert last_checkpoint(run) == str(run / "checkpoint-2")


def test_a_broken_checkpoint_that_is_named_is_refused_and_the_run_goes_on_from_the_one_before(
    tmp_path, run_dir, pipeline_dir, cached
):
    run = shutil.copytree(run_dir, tmp_path / "run")
    weights = run / "checkpoint-3" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{weights}: missing or cut off"):
        make_trainer(pipeline_dir, run, cached, **SETTINGS).train(resume_from_checkpoint=str(weights.parent))
    whole = make_trainer(pipeline_dir, run_dir, cached, **SETTINGS)
    whole.train(resume_from_checkpoint=str(run_dir / "checkpoint-3"))
    for resume in (True, None):
        trainer = make_trainer(pipeline_dir, shutil.copytree(run, tmp_path / str(resume)), cached, **SETTINGS)
        trainer.train(resume_from_checkpoint=True) if resume else fit(trainer)
        assert trainer.state.global_step == 3
        for key, value in trainable(whole).items():
            assert torch.equal(trainable(trainer)[key], value), key


def test_a_run_is_resumed_with_as_many_clips_a_step_only(tmp_path, run_dir, pipeline_dir, cached):
    """However they are shared out; a checkpoint of an earlier version does not say how many."""
    run = shutil.copytree(run_dir, tmp_path / "run")
    checkpoint, settings = str(run / "checkpoint-2"), {**SETTINGS, "per_device_train_batch_size": 1}
    said = json.loads((run / "checkpoint-2" / RUN_FILE).read_text())
    clips = said["clips_per_step"]
    assert clips == make_trainer(pipeline_dir, run, cached, **SETTINGS).args.per_device_train_batch_size > 1
    with pytest.raises(ValueError, match=f"clips_per_step={clips} there, {clips + 1} here"):
        make_trainer(pipeline_dir, run, cached, **settings, clips_per_step=clips + 1).train(checkpoint)
    make_trainer(pipeline_dir, run, cached, **settings, clips_per_step=clips).train(checkpoint)
    del said["clips_per_step"]
    (run / "checkpoint-2" / RUN_FILE).write_text(json.dumps(said))
    make_trainer(pipeline_dir, run, cached, **SETTINGS).train(checkpoint)


def test_there_must_be_something_to_resume(tmp_path, pipeline_dir, cached):
    with pytest.raises(ValueError, match="no whole checkpoint. Leave resume_from_checkpoint out"):
        make_trainer(pipeline_dir, tmp_path, cached).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text("{}")
    with pytest.raises(ValueError, match="no run.json, so it is no checkpoint of this trainer"):
        make_trainer(pipeline_dir, tmp_path, cached).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
