"""A second judge: VideoScore-like regression heads on a vision-language model, as a `RewardModel`.

A critic that was trained with the reward that it also measures cannot tell reward hacking; a judge of another family can.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoProcessor
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.idefics2.modeling_idefics2 import Idefics2PreTrainedModel

from ..hub_source import pinned
from ..records import CriticScore, Judgement, VideoSource, content_id
from ..rubric import Dimension, Label
from ..store.video_io import describe, sample_frames
from ..store.weights import load_whole, weights_revision
from . import VIDEO_SCORE_ASPECTS


if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

#: The output that answers each of the project's dimensions.
ASPECT_OF = {
    Dimension.SEMANTIC_CONSISTENCY: "TA",
    Dimension.MOTION_SMOOTHNESS: "TC",
    Dimension.VIDEO_FIDELITY: "VQ",
}
#: VideoScore's scale is 1 (worst) to 4 (like a real video); 2 is average, 3 good. A label begins half a point lower.
NORMAL_FROM, GOOD_FROM = 1.5, 2.5

# VideoScore was trained with the wording of its own repository; `prompt_template` takes it. This one asks the same.
PROMPT = (
    "Rate the AI-generated video below on five dimensions, each from 1.0 (worst) to 4.0 (like a real video): "
    + ", ".join(VIDEO_SCORE_ASPECTS.values())
    + '. The text prompt is "{prompt}". The frames of the video are:\n'
)


class Idefics2ForVideoRegression(GenericForSequenceClassification, Idefics2PreTrainedModel):
    """Idefics2 with a linear head on the last token: the class of VideoScore and VideoScore-v1.1, whose weights it loads."""


class AspectScores(NamedTuple):
    """The head's outputs for one video, as `VIDEO_SCORE_ASPECTS`; NaN and the why where it could not be scored."""

    values: tuple[float, ...]
    unscored: str | None = None

    @property
    def by_name(self) -> dict[str, float]:
        """The outputs by the names of `VIDEO_SCORE_ASPECTS`."""
        return dict(zip(VIDEO_SCORE_ASPECTS, self.values, strict=True))

    @property
    def labels(self) -> dict[Dimension, Label]:
        """The labels of the three outputs that answer the project's dimensions."""
        return {dimension: to_label(self.by_name[name]) for dimension, name in ASPECT_OF.items()}


class RegressionJudge:
    """
    A model with regression heads as a reward model: its scores become labels by `NORMAL_FROM` and `GOOD_FROM`.

    Args:
        model: outputs `logits` [B, 5].
        processor: takes `text` and `images`.
        name: `repo@revision`, for the stamp.
        num_frames: frames a video, uniformly spread (VideoScore: 16, v1.1: 48).
        prompt_template: text with `{prompt}`; one image token a frame is appended.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        processor: "ProcessorMixin",
        *,
        name: str,
        num_frames: int = 16,
        prompt_template: str = PROMPT,
    ) -> None:
        self.model = model.eval()
        self.processor: Any = processor
        self.name = name
        self.num_frames = num_frames
        self.prompt_template = prompt_template

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        num_frames: int = 16,
        prompt_template: str = PROMPT,
    ) -> "RegressionJudge":
        """
        Loads a regression model: Idefics2 by the class above, any other family by `AutoModelForSequenceClassification`.

        Raises:
            ValueError: if the head has another number of outputs than `VIDEO_SCORE_ASPECTS`, or the checkpoint lacks
                weights (a head that was never trained) or has others.
        """
        name, revision = pinned(name, revision)
        config = AutoConfig.from_pretrained(name, revision=revision)
        family = Idefics2ForVideoRegression if config.model_type == "idefics2" else AutoModelForSequenceClassification
        model: Any = load_whole(family, name, revision=revision or "main", dtype=dtype)
        if model.config.num_labels != len(VIDEO_SCORE_ASPECTS):
            raise ValueError(
                f"{name} has {model.config.num_labels} outputs; VideoScore has {len(VIDEO_SCORE_ASPECTS)}: "
                f"{list(VIDEO_SCORE_ASPECTS)}."
            )
        processor = AutoProcessor.from_pretrained(name, revision=revision)
        stamp = f"{name}@{weights_revision(name, revision)}"
        return cls(model.to(device), processor, name=stamp, num_frames=num_frames, prompt_template=prompt_template)

    @torch.no_grad()
    def regress(self, video: VideoSource | str, caption: str) -> AspectScores:
        """The five scores of `video`; a video that cannot be decoded comes back with the why."""
        try:
            frames = sample_frames(video, self.num_frames).frames
        except (ValueError, FileNotFoundError) as error:
            return AspectScores((math.nan,) * len(VIDEO_SCORE_ASPECTS), str(error))
        images = [Image.fromarray(frame) for frame in frames]
        text = self.prompt_template.format(prompt=caption) + "<image> " * len(images)
        inputs = self.processor(text=text, images=images, return_tensors="pt").to(self.model.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        logits = self.model(**inputs).logits[0].float()
        return AspectScores(tuple(logits.tolist()))

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """
        One score for each video, labels by thresholds; `with_reason` gives the raw scores as the reason.

        Raises:
            ValueError: if there are not as many captions as videos.
        """
        if len(videos) != len(captions):
            raise ValueError(f"{len(videos)} videos and {len(captions)} captions; give one caption a video.")
        scores = []
        for video, caption in zip(videos, captions):
            key = content_id(describe(video), caption)
            aspects = self.regress(video, caption)
            if aspects.unscored:
                scores.append(CriticScore(key, self.name, unscored=aspects.unscored))
                continue
            raw = {d: aspects.by_name[name] for d, name in ASPECT_OF.items()}
            judgements = tuple(
                Judgement(d, aspects.labels[d], reason=f"{raw[d]:.2f} of 4" if with_reason else "") for d in Dimension
            )
            scores.append(CriticScore(key, self.name, judgements))
        return scores


def to_label(value: float) -> Label:
    """
    The label of a score on VideoScore's scale from 1 to 4.

    >>> [to_label(value).rank for value in (1.2, 1.9, 3.1)]
    [0, 1, 2]
    """
    return Label.BAD if value < NORMAL_FROM else Label.NORMAL if value < GOOD_FROM else Label.GOOD
