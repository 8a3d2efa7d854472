"""A mid-size CogVideoX as configuration files, and its stages."""

from pathlib import Path

import pytest

from lift_trl.estimate.stages.video import VideoStages
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
