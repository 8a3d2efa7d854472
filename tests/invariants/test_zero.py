"""DeepSpeed ZeRO-2 and ZeRO-3 on two CPU processes: the LoRA that they save is the one that DDP saves."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from lift_trl.hub.lora.files import DIFFUSERS_LORA_FILE
from tests.invariants.test_trajectories import finish, launch


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),  # the first run compiles DeepSpeed's communication kernel: minutes
    pytest.mark.skipif(
        find_spec("deepspeed") is None,
        reason="deepspeed is not installed (pip install --no-build-isolation deepspeed)",
    ),
]


@pytest.fixture(scope="module")
def extensions_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("extensions")


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_trains_and_saves_what_ddp_does(tmp_path, pipeline_dir, cache_dir, extensions_dir, monkeypatch, stage):
    options = {"per_device_train_batch_size": 2, "max_steps": 3, "optim": "adamw_torch", "max_grad_norm": 1.0}
    finish(launch("cpu_2.yaml", pipeline_dir, cache_dir, tmp_path / "ddp", **options))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    # A folder of its own: a killed compilation leaves a lock behind, on which every later one would wait for ever.
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(extensions_dir))
    zero = launch(
        f"zero{stage}.yaml", pipeline_dir, cache_dir, tmp_path / "zero", num_processes=2,
        save_strategy="steps", save_steps=2, **options,
    )  # fmt: skip
    log = finish(zero, timeout_s=1200)
    assert f"strategy: DeepSpeed ZeRO-{stage}, 2 process(es) on cpu" in log
    ddp, sharded = (load_file(tmp_path / name / DIFFUSERS_LORA_FILE) for name in ("ddp", "zero"))
    assert ddp.keys() == sharded.keys()
    for name, value in ddp.items():
        assert torch.allclose(sharded[name].float(), value, rtol=1e-3, atol=1e-5), name
    checkpoint = tmp_path / "zero" / "checkpoint-2"
    assert (checkpoint / DIFFUSERS_LORA_FILE).is_file()
