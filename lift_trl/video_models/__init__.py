"""Text-to-video families: one adapter file each, found by the pipeline class that a checkpoint names."""

from .cogvideox import CogVideoX
from .hunyuan_video import HunyuanVideo15
from .ltx import LTX
from .source import PipelineSource
from .wan import Wan


__all__ = ["LTX", "CogVideoX", "HunyuanVideo15", "PipelineSource", "Wan"]
