"""Tiny judges in the released layout: weights by a formula, LoRA unmerged, names as transformers 4.45 wrote them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.critic.tiny_models import QWEN_TEMPLATE, _text_config, build_tokenizer
from tests.critic.tiny_vila import fill, wave


NORM = {"VQ_mean": 0.3, "VQ_std": 2.0, "MQ_mean": -0.2, "MQ_std": 0.5, "TA_mean": 0.1, "TA_std": 1.5}
HIDDEN = 32


def build_qwen2_vl(vocab_size: int | None = None) -> tuple[Any, Any]:
    tokenizer = build_tokenizer("qwen")
    pieces = (("image_token", "image_pad"), ("video_token", "video_pad"), ("vision_start_token", "vision_start"))
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(f"<|{piece}|>") for name, piece in pieces}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    text = _text_config(tokenizer, rope_parameters=rope, max_position_embeddings=8192)
    text["vocab_size"] = vocab_size or text["vocab_size"]
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **ids)
    )
    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=QWEN_TEMPLATE
    )
    return fill(model), processor


def write_video_reward(folder: Path, outputs: int = 3) -> Path:
    """`KwaiVGI/VideoReward` in small, with its base beside it. Its head has one output, or one for each token."""
    base = folder / "Qwen2-VL-2B-Instruct"
    model, processor = build_qwen2_vl()
    model.save_pretrained(base)
    processor.save_pretrained(base)
    model, _ = build_qwen2_vl(len(processor.tokenizer) + 3)
    checkpoint = folder / "VideoReward" / "checkpoint-120"
    checkpoint.mkdir(parents=True)
    weights = released_weights(model)
    weights["base_model.model.rm_head.weight"] = weights["base_model.model.rm_head.weight"][:outputs].clone()
    torch.save(weights, checkpoint / "model.pth")
    config = {
        "data_config": {"fps": 2.0, "max_frame_pixels": 130000},
        "model_config": {"model_name_or_path": str(base), "output_dim": outputs},
        "peft_lora_config": {"lora_r": 4, "lora_alpha": 8},
        "inference_config": NORM,
    }
    (folder / "VideoReward" / "model_config.json").write_text(json.dumps(config))
    return folder / "VideoReward"


def released_weights(model: Any) -> dict[str, torch.Tensor]:
    """The names of transformers 4.45 under PEFT 0.10: the language model's linears have a LoRA that is not merged."""
    weights = {}
    for index, (name, value) in enumerate(sorted(model.state_dict().items())):
        old = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        old = f"base_model.model.{old}"
        if "_proj.weight" in name and "language_model" in name:
            stem = old.removesuffix(".weight")
            weights[f"{stem}.base_layer.weight"] = value
            weights[f"{stem}.lora_A.default.weight"] = wave(torch.Size([4, value.shape[1]]), index, 0.1)
            weights[f"{stem}.lora_B.default.weight"] = wave(torch.Size([value.shape[0], 4]), index + 0.3, 0.1)
        elif "_proj.bias" in name and "language_model" in name:
            weights[f"{old.removesuffix('.bias')}.base_layer.bias"] = value
        else:
            weights[old] = value
    weights["base_model.model.rm_head.weight"] = wave(torch.Size([3, HIDDEN]), 0.7, 0.5)
    return weights
