"""Export: what is written loads as what it was, and names no folder of the machine that made it."""

import json

import pytest
import torch
from diffusers import CogVideoXPipeline
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from lift_trl.mini.checkpoints import build_tiny_pipeline, build_tiny_vlm
from lift_trl.mini.train import export_weights
from lift_trl.mini.wan import build_tiny_wan_pipeline


def test_exported_weights_are_as_precise_as_they_must_be_and_portable(tmp_path, monkeypatch):
    pipeline = build_tiny_pipeline(tmp_path / "a", num_layers=1)
    model, _ = build_tiny_vlm(tmp_path / "b")
    size = export_weights.export_weights(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert 4_500_000 < size < 8_000_000
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    loaded = CogVideoXPipeline.from_pretrained(tmp_path / "out" / "video_model", dtype=torch.float32)
    for name, weight in loaded.transformer.state_dict().items():
        assert torch.equal(weight, pipeline.transformer.state_dict()[name].half().float())
    config = json.loads((tmp_path / "out" / "vlm" / "config.json").read_text())
    assert config["dtype"] == "float32"
    vlm = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "vlm", dtype=torch.float32)
    assert torch.equal(vlm.lm_head.weight, model.lm_head.weight)
    # A second family has a folder of its own, and the first one's stays.
    build_tiny_wan_pipeline(tmp_path / "c", num_layers=1)
    both = export_weights.export_weights(tmp_path / "c", None, tmp_path / "out")
    assert size + 1_000_000 < both < size + 4_000_000
    weights = load_file(tmp_path / "out" / "wan_video_model" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert weights["blocks.0.attn1.to_q.weight"].dtype == torch.float16
    assert weights["blocks.0.scale_shift_table"].dtype == torch.float32
    assert (tmp_path / "out" / "video_model" / "model_index.json").is_file()
    monkeypatch.setattr(export_weights, "MAX_BYTES", 1_000_000)
    with pytest.raises(ValueError, match="more than 1000000"):
        export_weights.export_weights(None, None, tmp_path / "out")
