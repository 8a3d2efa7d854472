"""The precision of a run is chosen before the plugins that read it are built."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from accelerate.state import AcceleratorState

from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.training.precision import base_dtype, in_mixed_precision, with_precision
from lift_trl.rubric import Dimension
from lift_trl.video_models import open_pipeline
from tests.alignment.conftest import make_trainer


def settings(folder, **options) -> RewardWeightedVideoConfig:
    weights = {name.value: index + 1.0 for index, name in enumerate(Dimension)}
    return RewardWeightedVideoConfig(
        str(folder), report_to="none", warmup_steps=0.25, lr_scheduler_type="cosine_with_min_lr", max_steps=8,
        lr_scheduler_kwargs={"min_lr_rate": 0.5}, dimension_weights=weights, **options,
    )  # fmt: skip


def test_settings_in_another_precision_are_otherwise_the_same(tmp_path):
    given = settings(tmp_path)
    before = given.to_dict()
    chosen = in_mixed_precision(given, torch.bfloat16)
    assert given.to_dict() == before and given.mixed_precision == "no"
    assert (chosen.bf16, chosen.fp16, chosen.mixed_precision, base_dtype(chosen)) == (
        True,
        False,
        "bf16",
        torch.bfloat16,
    )
    assert {name: value for name, value in chosen.to_dict().items() if before[name] != value} == {"bf16": True}


@dataclass
class OnAGPU:
    """What `with_precision` reads of settings that name no precision, on an accelerator."""

    mixed_precision: str = "no"
    device: torch.device = torch.device("cuda")
    fp16: bool = False
    bf16: bool = False


def test_the_base_trains_in_its_familys_precision_on_an_accelerator(pipeline_dir):
    family = open_pipeline(pipeline_dir).adapter.dtype
    chosen = with_precision(OnAGPU(), family, "tiny")
    assert family == torch.float16 and (chosen.fp16, chosen.bf16) == (True, False)


def test_what_is_asked_for_stands(tmp_path, caplog):
    given = settings(tmp_path)
    assert with_precision(given, torch.float16, "tiny") is given and base_dtype(given) == torch.float32  # a CPU
    asked = settings(tmp_path, bf16=True)
    assert with_precision(asked, torch.float16, "tiny") is asked
    assert "tiny was released in torch.float16; training it in torch.bfloat16 may lose quality" in caplog.text


def test_the_states_precision_is_the_chosen_one(tmp_path, pipeline_dir, cached):
    chosen = make_trainer(pipeline_dir, tmp_path, cached, bf16=True)
    assert chosen.accelerator.mixed_precision == AcceleratorState().mixed_precision == "bf16"
    assert {p.dtype for p in chosen.model.parameters() if not p.requires_grad} == {torch.bfloat16}


CODE = """
import sys
import torch
from lift_trl.alignment.training.precision import in_mixed_precision
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
args = RewardWeightedVideoConfig(sys.argv[1], report_to="none")
print("before:", args.deepspeed_plugin.deepspeed_config.get("bf16"))
print("after:", in_mixed_precision(args, torch.bfloat16).deepspeed_plugin.deepspeed_config["bf16"])
"""


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not installed (see tests/invariants/test_zero.py)"
)
def test_deepspeeds_plugin_knows_the_chosen_precision(tmp_path, monkeypatch):
    """Chosen after the plugin was built, ZeRO ran without autocast: "mat1 and mat2 must have the same dtype"."""
    for name, value in {"USE_DEEPSPEED": "true", "DEEPSPEED_ZERO_STAGE": "2"}.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    run = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "before: {'enabled': False}" in run.stdout and "after: {'enabled': True}" in run.stdout
