"""Text-to-video families: one adapter file each, found by the pipeline class that a checkpoint names."""

from .cogvideox import CogVideoX
from .source import PipelineSource


__all__ = ["CogVideoX", "PipelineSource"]
