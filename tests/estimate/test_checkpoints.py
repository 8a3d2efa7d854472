"""The packaged configurations describe the published checkpoints."""

import json

import pytest
import torch

from lift_trl.estimate.weightless.configured import PACKAGED, ConfiguredSource


#: Billions of parameters. Source: the size that the Hub shows beside the published weights; of HunyuanVideo 1.5 the model
#: card's, and its VAE's file, 5.04 GB in float32.
PUBLISHED = {
    ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "transformer"): "1.42",
    ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "transformer"): "5.00",
    ("Lightricks/LTX-Video", "transformer"): "1.92",
    ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", "transformer"): "8.3",
    ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", "vae"): "1.26",
}


@pytest.mark.parametrize("name, component", PUBLISHED)
def test_a_part_is_of_the_published_size(name, component):
    source = ConfiguredSource(name)
    config = json.loads((PACKAGED / name / component / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        network = source._class(component).from_config(config)
    published = PUBLISHED[name, component]
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e9
    assert f"{size:.{len(published) - 2}f}" == published
