"""What the released judges share: native values to a reward, clips read at the judge's own rate, and what is unscored."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from ..critic_models import control_tokens
from ..records import CriticScore, NativeScore, StoredVideo, VideoSource, content_id
from ..store.video_io import Clip, describe, read_video
from ..store.weights import weights_revision


logger = logging.getLogger(__name__)


class Scale(NamedTuple):
    """
    How a judge's native value becomes a reward in [0, 1].

    `linear` goes from 0 at `low` to 1 at `high` and is cut there; `normal` is the share of a normal distribution of mean
    `low` and standard deviation `high` that lies below the value. A mapping never changes under its name: scores keep the
    text of theirs.
    """

    kind: str
    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> "Scale":
        """
        The scale that `text` spells.

        >>> Scale.parse("linear:1:5").reward(4.0)
        0.75

        Raises:
            ValueError: for another text.
        """
        kind, *numbers = text.split(":")
        if kind not in ("linear", "normal") or len(numbers) != 2:
            raise ValueError(f"scale {text!r}; write linear:LOW:HIGH or normal:MEAN:STD, as in linear:1:5.")
        scale = cls(kind, *map(float, numbers))
        if not (math.isfinite(scale.low) and scale.high > (scale.low if kind == "linear" else 0)):
            raise ValueError(f"scale {text!r}: LOW must be below HIGH, and STD above 0.")
        return scale

    def __str__(self) -> str:
        return f"{self.kind}:{self.low:g}:{self.high:g}"

    def reward(self, value: float) -> float:
        """
        The reward of a native `value`.

        Raises:
            ValueError: if it is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"a native value of {value} has no reward.")
        if self.kind == "normal":
            return 0.5 * (1 + math.erf((value - self.low) / self.high / math.sqrt(2)))
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


class Verdict(NamedTuple):
    """A judge's native values by its own dimensions, what it wrote, if it writes, or why it says nothing in `unscored`."""

    values: Mapping[str, float]
    reason: str = ""
    unscored: str | None = None


class UnreadableAnswerError(ValueError):
    """A written answer without the values that were asked for. It never becomes a default."""


class AspectJudge(ABC):
    """
    A judge with dimensions of its own, a `RewardModel`: what such judges refuse, and what of theirs is no score.

    Args:
        name: what the scores say of their origin.
        question: text with `{prompt}`.

    Raises:
        ValueError: if the question has no `{prompt}`.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, question: str) -> None:
        if "{prompt}" not in question:
            raise ValueError("the judge's question has no {prompt}; write it where the clip's prompt belongs.")
        self.model, self.processor = model, processor
        self.name, self.question = name, question
        self._control_tokens = control_tokens(processor.tokenizer)

    @abstractmethod
    def judge(self, video: VideoSource | StoredVideo | str, prompt: str) -> Verdict:
        """What it says of one clip. Raises `ValueError` or `FileNotFoundError` with the reason where it says nothing."""

    @abstractmethod
    def to_score(self, unit: str, verdict: Verdict, *, with_reason: bool) -> CriticScore | NativeScore:
        """The score of the clip `unit` by a verdict, which may be that it is unscored."""

    def verdict(self, video: VideoSource | StoredVideo | str, caption: str) -> Verdict:
        """As `judge`; where it says nothing, or something that is not finite, the why is in `unscored`."""
        prompt = caption.strip()
        try:
            control = [token for token in self._control_tokens if token in prompt]
            if not prompt or control:
                raise ValueError(f"the caption holds {control[0]!r}" if control else "the caption is empty")
            verdict = self.judge(video, prompt)
            if not all(math.isfinite(value) for value in verdict.values.values()):
                raise ValueError(f"the judge's values are not finite: {dict(verdict.values)}")
        except (ValueError, FileNotFoundError) as error:
            logger.warning("unscored: %s", error)
            return Verdict({}, unscored=str(error))
        return verdict

    def score(
        self, videos: Sequence[VideoSource | StoredVideo | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore | NativeScore]:
        """
        One score for each video; what cannot be read, and an answer that cannot, comes back as unscored with the why.

        Raises:
            ValueError: if `videos` and `captions` differ in number.
        """
        if len(videos) != len(captions):
            raise ValueError(f"{len(videos)} videos and {len(captions)} captions; give one caption for each video.")
        scores = []
        for video, caption in zip(videos, captions):
            unit = content_id(video if isinstance(video, bytes) else describe(video), caption.strip())
            scores.append(self.to_score(unit, self.verdict(video, caption), with_reason=with_reason))
        return scores


class NativeJudge(AspectJudge):
    """
    A judge whose reward is the mean over its dimensions, each mapped to [0, 1].

    Args:
        name: what the scores say of their origin, as `name_of` makes it.
        scale: how native values map to [0, 1]; `default_scale` where `None`.

    Attributes:
        released: the Hub's repository of its weights.
        aspects: its dimensions.
        prompt_file: its question, in `prompts/`.
    """

    released: ClassVar[str]
    aspects: ClassVar[tuple[str, ...]]
    default_scale: ClassVar[Scale]
    prompt_file: ClassVar[str]

    def __init__(self, model: Any, processor: Any, *, name: str, scale: Scale | None = None) -> None:
        question = (files(__package__) / "prompts" / self.prompt_file).read_text(encoding="utf-8")
        super().__init__(model, processor, name=name, question=question)
        self.scale = scale or self.default_scale

    @classmethod
    def name_of(cls, name: str, revision: str | None = None, scale: Scale | None = None) -> str:
        """What the scores say of their origin, weights and scale: `"repo@revision+linear:1:5"`."""
        return f"{name}@{weights_revision(name, revision)}+{scale or cls.default_scale}"

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls, name: str, *, revision: str | None, scale: Scale | None, device: torch.device | str
    ) -> "NativeJudge":
        """The judge from a folder or repo: bfloat16 on an accelerator, float32 on a CPU."""

    def to_score(self, unit: str, verdict: Verdict, *, with_reason: bool) -> NativeScore:
        """As `AspectJudge.to_score`."""
        if verdict.unscored is not None:
            return NativeScore(unit, self.name, unscored=verdict.unscored)
        values = {aspect: verdict.values[aspect] for aspect in self.aspects}
        rewards = {aspect: self.scale.reward(value) for aspect, value in values.items()}
        return NativeScore(unit, self.name, values, rewards, verdict.reason if with_reason else "")


def load_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on an accelerator, float32 on a CPU."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def frames_at(video: VideoSource | StoredVideo | str, fps: float) -> Clip:
    """
    Frames spread over the whole clip, an even number, about `fps` of them for each second and at least 4 where it has them.

    Source: `smart_nframes` of qwen-vl-utils and of KwaiVGI/VideoAlign, vision_process.py.
    """
    clip = read_video(video)
    total = len(clip.frames)
    most = min(768, total) // 2 * 2
    count = min(max(total / clip.fps * fps, 4), most)
    count = min(round(count / 2) * 2, total)
    if count < 2:
        raise ValueError(f"{describe(video)}: has {total} frames, and this judge needs 2.")
    return pick(clip, torch.linspace(0, total - 1, count).round().long().tolist())


def pick(clip: Clip, indices: Sequence[int]) -> Clip:
    """The frames at `indices`."""
    return Clip(clip.frames[list(indices)], clip.times_s[list(indices)], clip.fps)


def fit(clip: Clip, *, factor: int, min_pixels: int, max_pixels: int) -> Clip:
    """`clip` (bicubic, antialiased) at about its own shape, with sides that `factor` divides and pixels in the bounds."""
    height, width = clip.frames.shape[1:3]
    height, width = smart_resize(height, width, factor, min_pixels, max_pixels)
    pixels = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    sized = resize(pixels, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return clip._replace(frames=np.ascontiguousarray(sized.permute(0, 2, 3, 1).numpy()))
