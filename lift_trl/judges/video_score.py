"""A second judge: VideoScore-like regression heads on a vision-language model, as a `RewardModel`.

A critic that was trained with the reward that it also measures cannot tell reward hacking; a judge of another family can.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoProcessor
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.idefics2.modeling_idefics2 import Idefics2PreTrainedModel

from ..hub_source import pinned
from ..records import CriticScore, Judgement, StoredVideo, VideoSource
from ..rubric import Dimension, Label
from ..store.video_io import sample_frames
from ..store.weights import load_whole, weights_revision
from . import VIDEO_SCORE_ASPECTS
from .native import AspectJudge, Verdict


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

# VideoScore was trained with the wording of its own repository; `question` takes it. This one asks the same.
QUESTION = (
    "Rate the AI-generated video below on five dimensions, each from 1.0 (worst) to 4.0 (like a real video): "
    + ", ".join(VIDEO_SCORE_ASPECTS.values())
    + '. The text prompt is "{prompt}". The frames of the video are:\n'
)


class Idefics2ForVideoRegression(GenericForSequenceClassification, Idefics2PreTrainedModel):
    """Idefics2 with a linear head on the last token: the class of VideoScore and VideoScore-v1.1, whose weights it loads."""


class RegressionJudge(AspectJudge):
    """
    A model with regression heads as a reward model: its scores become labels by `NORMAL_FROM` and `GOOD_FROM`.

    Args:
        model: outputs `logits` [B, 5].
        processor: takes `text` and `images`.
        name: `repo@revision`, for the stamp.
        num_frames: frames a video, uniformly spread (VideoScore: 16, v1.1: 48).
        question: text with `{prompt}`; one image token a frame is appended.

    Raises:
        ValueError: if the question has no `{prompt}`, or a token that is more than text.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        processor: "ProcessorMixin",
        *,
        name: str,
        num_frames: int = 16,
        question: str = QUESTION,
    ) -> None:
        super().__init__(model.eval(), processor, name=name, question=question)
        self.num_frames = num_frames
        if control := [token for token in self._control_tokens if token in question]:
            raise ValueError(
                f"the judge's question holds {control[0]!r}: leave it out, frames are put behind the text."
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        num_frames: int = 16,
        question: str = QUESTION,
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
        return cls(model.to(device), processor, name=stamp, num_frames=num_frames, question=question)

    @torch.no_grad()
    def judge(self, video: VideoSource | StoredVideo | str, prompt: str) -> Verdict:
        """The head's outputs, by the names of `VIDEO_SCORE_ASPECTS`."""
        images = [Image.fromarray(frame) for frame in sample_frames(video, self.num_frames).frames]
        text = self.question.replace("{prompt}", prompt) + "<image> " * len(images)
        inputs = self.processor(text=text, images=images, return_tensors="pt").to(self.model.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        logits = self.model(**inputs).logits[0].float()
        return Verdict(dict(zip(VIDEO_SCORE_ASPECTS, logits.tolist(), strict=True)))

    def to_score(self, unit: str, verdict: Verdict, *, with_reason: bool) -> CriticScore:
        """As `AspectJudge.to_score`, labels by thresholds; `with_reason` gives the raw scores as the reason."""
        if verdict.unscored is not None:
            return CriticScore(unit, self.name, unscored=verdict.unscored)
        judgements = tuple(
            Judgement(d, label, reason=f"{verdict.values[ASPECT_OF[d]]:.2f} of 4" if with_reason else "")
            for d, label in labels_of(verdict.values).items()
        )
        return CriticScore(unit, self.name, judgements)


def labels_of(values: Mapping[str, float]) -> dict[Dimension, Label]:
    """The labels of the three outputs (by their names) that answer the project's dimensions; raises as `to_label`."""
    return {dimension: to_label(values[ASPECT_OF[dimension]]) for dimension in Dimension}


def to_label(value: float) -> Label:
    """
    The label of a score on VideoScore's scale from 1 to 4.

    >>> [to_label(value).rank for value in (1.2, 1.9, 3.1)]
    [0, 1, 2]

    Raises:
        ValueError: if it is not finite: no threshold is below or above it.
    """
    if not math.isfinite(value):
        raise ValueError(f"a score of {value} has no label.")
    return Label.BAD if value < NORMAL_FROM else Label.NORMAL if value < GOOD_FROM else Label.GOOD
