"""Vision-language families that can be tuned into a critic, found by the `model_type` of a checkpoint's configuration."""

from collections.abc import Mapping
from typing import Any

from ..protocols import CriticModel
from .chat_vlm import ChatVLM, control_tokens
from .qwen_vl import QwenVL
from .vila import Vila


__all__ = ["CRITIC_MODELS", "ChatVLM", "QwenVL", "Vila", "control_tokens", "find_critic_model"]

#: `model_type` -> adapter. A family that is not listed is a plain chat VLM.
CRITIC_MODELS: Mapping[str, type[ChatVLM]] = {
    "qwen2_vl": QwenVL,
    "qwen2_5_vl": QwenVL,
    "qwen3_vl": QwenVL,
    "qwen3_vl_moe": QwenVL,
    "llava_llama": Vila,
}
#: Options of a family's processor that hold unless others are given: a frame is one picture. InternVL's would cut it into
#: up to twelve tiles and an overview; eight frames of 480 x 720 are then 14,429 tokens instead of 2,141.
PROCESSOR_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"internvl": {"crop_to_patches": False}}


def find_critic_model(
    model_type: str, *, native_video: bool | None = None, processor_kwargs: Mapping[str, Any] | None = None
) -> CriticModel:
    """
    The adapter of a family.

    Args:
        model_type: as in the checkpoint's `config.json`.
        native_video: give the frames to the model as one video with timestamps (`True`) or as images (`False`); what the
            family does best by default.
        processor_kwargs: options of the processor's call, such as `{"crop_to_patches": False}` for frames without tiles.

    >>> type(find_critic_model("qwen3_vl")).__name__, type(find_critic_model("idefics3")).__name__
    ('QwenVL', 'ChatVLM')

    Raises:
        ValueError: if native video is asked of a family that has none here.
    """
    options = {**PROCESSOR_DEFAULTS.get(model_type, {}), **(processor_kwargs or {})}
    return CRITIC_MODELS.get(model_type, ChatVLM)(native_video=native_video, processor_kwargs=options)
