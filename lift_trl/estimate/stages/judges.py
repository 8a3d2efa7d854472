"""What a released judge takes for a clip: its own code, run under the meter."""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...alignment.data.clips import ClipSize
from ...judges import judge_class
from ...judges.native import NativeJudge, UnreadableAnswerError
from ...judges.video_reward import RewardHead, VideoReward
from ...judges.written import WrittenJudge
from ...store.video_io import write_video
from ..weightless.configured import Depths, undrawn
from ..weightless.configured_vlm import ConfiguredVLM
from ..weightless.depth import FEW, MORE, at_full_depth
from ..weightless.meter import Count, Meter, linear, metering
from .critic import CAPTION


@dataclass(frozen=True)
class JudgedClip:
    """One clip through a judge, and the most tokens that it writes of it."""

    count: Count
    num_tokens: int


def count_judge(judge: str, size: ClipSize, *, model: str | None = None) -> JudgedClip:
    """
    A clip of `size` through a released judge; an answer is taken to be as long as it may be.

    Args:
        judge: one of `JUDGES`.
        model: folder or repo of its weights, the released ones by default.

    Raises:
        ValueError: if there is no such judge.
    """
    family = judge_class(judge)
    vlm = ConfiguredVLM(model or family.released)
    num_tokens = family.max_new_tokens if issubclass(family, WrittenJudge) else 0
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        frames = np.zeros((size.num_frames, size.height, size.width, 3), dtype=np.uint8)
        write_video(clip, frames, fps=size.fps)

        def counted(tokens: int) -> Callable[[Depths], Count]:
            return lambda depths: _judge(family, vlm, clip, tokens, depths)

        few = at_full_depth(counted(FEW), vlm.layers)
        if not num_tokens:
            return JudgedClip(few, 0)
        more = at_full_depth(counted(MORE), vlm.layers)
    further = (num_tokens - FEW) / (MORE - FEW)
    return JudgedClip(linear([(1.0 - further, few), (further, more)]), num_tokens)


def _judge(family: type[NativeJudge], vlm: ConfiguredVLM, clip: Path, num_tokens: int, depths: Depths) -> Count:
    with metering() as meter:
        judge = _empty_judge(family, vlm, meter, num_tokens, depths)
        built = meter.count()
        with suppress(UnreadableAnswerError):  # it has nothing to say
            judge.judge(clip, CAPTION)
        counted = meter.count()
    return replace(linear([(1.0, counted), (-1.0, built)]), peaks=counted.peaks)


def _empty_judge(
    family: type[NativeJudge], vlm: ConfiguredVLM, meter: Meter, num_tokens: int, depths: Depths
) -> NativeJudge:
    """The judge around a model that holds nothing, whose answers end after `num_tokens`."""
    if family is VideoReward:
        settings = json.loads((Path(vlm.folder) / "model_config.json").read_text(encoding="utf-8"))
        with meter.taking("weights"), undrawn(torch.bfloat16):
            head = RewardHead(vlm.config(depths), settings["model_config"]["output_dim"])
        return VideoReward(head.requires_grad_(False).eval(), vlm.processor, config=settings, name="counted")
    model = vlm.build(meter, torch.bfloat16, depths)
    model.generation_config.eos_token_id = None
    judge = family(model, vlm.processor, name="counted")
    assert isinstance(judge, WrittenJudge)
    judge.max_new_tokens = num_tokens
    return judge
