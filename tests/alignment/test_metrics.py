"""What is logged, and to whom."""

import sys
from types import ModuleType

import pytest
import torch
from accelerate import Accelerator

from lift_trl.alignment.sampling.trackers import log_videos
from lift_trl.alignment.training.metrics import LossMetrics
from lift_trl.rubric import LIFT, Dimension


NAN = float("nan")


def test_means_are_over_the_rows_that_count():
    """Two sampled rows, a real one, and one that only fills the batch."""
    batch = {
        "weight": torch.tensor([2.0, 1.0, 1.0, 50.0]),
        "reward": torch.tensor([0.9, 0.2, NAN, 0.9]),
        "dimension_reward": torch.tensor([[0.9, 0.9, 0.9], [0.2, 0.05, NAN], [NAN] * 3, [0.9] * 3]),
        "is_real": torch.tensor([False, False, True, False]),
        "counts": torch.tensor([True, True, True, False]),
    }
    health = {"kl": torch.tensor([0.1, 0.3, 9.0, 9.0]), "rewards/chosen": torch.tensor([5.0, NAN, NAN, 7.0])}
    health["reference_error"] = torch.tensor([1.0, 3.0, 9.0, 9.0])
    metrics = LossMetrics(Accelerator(cpu=True), LIFT.dimensions)
    metrics.add("train", batch, torch.tensor([1.0, 2.0, 6.0, 99.0]), torch.tensor([0, 3, 3, 1]), health)
    semantic, motion, fidelity = (f"reward/{dimension}" for dimension in Dimension)
    expected = {
        "loss_unweighted": 3.0, "real_fraction": 1 / 3, "effective_sample_fraction": 16 / 6 / 3, "reward_mean": 0.55,
        semantic: 0.55, motion: 0.475, fidelity: 0.9, "loss_timestep/q1": 1.0, "loss_timestep/q4": 4.0,
        "kl": 0.2, "kl_fraction": 0.1, "rewards/chosen": 5.0,
    }  # fmt: skip
    assert metrics.pop("train") == pytest.approx(expected)
    assert metrics.pop("train") == {}


@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_trackers_get_videos_at_the_trainers_step(tmp_path, monkeypatch, tracker):
    """Both count calls of their own, and wandb drops a `step` behind its count."""
    logged = []
    module = ModuleType(tracker)
    module.Video = lambda path, format: (path, format)
    module.log = logged.append
    monkeypatch.setitem(sys.modules, tracker, module)
    log_videos({"validation/00": tmp_path / "a.mp4"}, step=3, report_to=[tracker], logging_dir=tmp_path)
    assert logged == [{"validation/00": (str(tmp_path / "a.mp4"), "mp4"), "train/global_step": 3}]
