"""Text-to-video families: one adapter file each, found by the pipeline class that a checkpoint names."""

from pathlib import Path

from diffusers import DiffusionPipeline

from .cogvideox import CogVideoX
from .held import HeldPipeline
from .hunyuan_video import HunyuanVideo15
from .ltx import LTX
from .source import PipelineSource
from .stored import StoredPipeline
from .wan import Wan


__all__ = [
    "LTX",
    "CogVideoX",
    "HeldPipeline",
    "HunyuanVideo15",
    "PipelineSource",
    "StoredPipeline",
    "Wan",
    "open_pipeline",
]


def open_pipeline(model: str | Path | DiffusionPipeline | PipelineSource) -> PipelineSource:
    """
    Where the parts of `model` come from: a folder, a Hub id, a pipeline in memory, or a source, which stays as it is.

    Raises:
        ValueError: as `PipelineSource`.
    """
    if isinstance(model, PipelineSource):
        return model
    return HeldPipeline(model) if isinstance(model, DiffusionPipeline) else StoredPipeline(model)
