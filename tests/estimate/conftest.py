"""A mid-size CogVideoX as configuration files, and its stages."""

from pathlib import Path

import pytest
import torch

from lift_trl.estimate.stages.video import VideoStages
from lift_trl.estimate.weightless.meter import Meter
from tests.estimate.mid_size import SIZE, build_pipeline, save_configs


@pytest.fixture(scope="session")
def mid_size(tmp_path_factory) -> Path:
    """Six layers of 768, as `mid_size.py` runs it."""
    return save_configs(build_pipeline(), tmp_path_factory.mktemp("checkpoint") / "mid")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Two layers of 64, so that no depth but its own is counted."""
    return save_configs(build_pipeline(num_layers=2, heads=1), tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def stages(mid_size) -> VideoStages:
    return VideoStages(str(mid_size), SIZE)


#: What a device computes of tensors of one type only, while FakeTensorMode takes any.
PRODUCTS = {
    getattr(torch.ops.aten, name)
    for name in (
        *("addmm", "baddbmm", "bmm", "convolution", "mm", "_scaled_dot_product_flash_attention"),
        *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention_for_cpu"),
    )
}


@pytest.fixture(autouse=True)
def one_type_a_product(monkeypatch):
    """Whatever is counted fails at the line that multiplies tensors of two types under the GPU's list of autocast."""
    count = Meter.__torch_dispatch__

    def checked(meter, func, types, args=(), kwargs=None):
        found = {one.dtype for one in args if isinstance(one, torch.Tensor)}
        if func.overloadpacket in PRODUCTS and len(found) > 1:
            raise TypeError(f"{func} of {', '.join(sorted(map(str, found)))}")
        return count(meter, func, types, args, kwargs)

    monkeypatch.setattr(Meter, "__torch_dispatch__", checked)
