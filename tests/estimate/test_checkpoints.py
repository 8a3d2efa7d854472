"""The packaged configurations describe the published checkpoints."""

import json

import pytest
import torch

from lift_trl.estimate.weightless.configured import PACKAGED, ConfiguredSource


#: Billions of parameters of the denoiser. Source: the size that the Hub shows beside the published weights.
PUBLISHED = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 1.42,
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": 5.00,
    "Lightricks/LTX-Video": 1.92,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_denoiser_is_of_the_published_size(name):
    source = ConfiguredSource(name)
    config = json.loads((PACKAGED / name / "transformer" / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        network = source._class("transformer").from_config(config)
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e9
    assert size == pytest.approx(PUBLISHED[name], abs=0.005)
