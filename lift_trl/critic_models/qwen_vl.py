"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: native video with the true time of each frame, and positions of three axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

from ..store.video_io import Clip
from .chat_vlm import PROCESSOR_OPTIONS, ChatVLM


class QwenVL(ChatVLM):
    """Frames are one video by default; `native_video=False` makes them images, as the paper's critics have them."""

    def __init__(self, *, native_video: bool | None = None, processor_kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__(processor_kwargs=processor_kwargs)
        self.native_video = native_video is not False

    def prompt(self, frames: Sequence[Any], question: str) -> list[dict[str, Any]]:
        """As `ChatVLM.prompt`, with one video in place of the images."""
        if not self.native_video:
            return super().prompt(frames, question)
        return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]

    def encode(self, processor: Any, texts: Sequence[str], clips: Sequence[Clip]) -> Mapping[str, Tensor]:
        """As `ChatVLM.encode`. The frames are sampled already; their metadata gives the model their true times."""
        if not self.native_video:
            return super().encode(processor, texts, clips)
        inputs = processor(
            text=list(texts),
            videos=[clip.frames for clip in clips],
            video_metadata=[_metadata(clip) for clip in clips],
            do_sample_frames=False,
            cap_pixels_per_frame=True,
            **PROCESSOR_OPTIONS,
            **self.processor_kwargs,
        )
        inputs.pop("video_metadata", None)
        if (
            "second_per_grid_ts" in inputs
        ):  # the processor's own divide the clip by its frames, not by the steps between
            steps = processor.video_processor.temporal_patch_size
            inputs["second_per_grid_ts"] = torch.tensor([steps * _interval_s(clip) for clip in clips])
        return inputs

    def position_shift(self, model: Any) -> Tensor | int:
        """[B, 1]: the three axes advance by less than one for each video token, and text goes on from there."""
        shift: Tensor = model.model.rope_deltas
        return shift


def _interval_s(clip: Clip) -> float:
    """Seconds from one sampled frame to the next, on average."""
    times = clip.times_s
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / clip.fps


def _metadata(clip: Clip) -> VideoMetadata:
    """Which frames of the file these are, and how fast it plays."""
    indices = [round(time_s * clip.fps) for time_s in clip.times_s.tolist()]
    _, height, width, _ = clip.frames.shape
    total = indices[-1] + 1
    return VideoMetadata(
        total_num_frames=total,
        fps=clip.fps,
        width=width,
        height=height,
        duration=total / clip.fps,
        frames_indices=indices,
    )
