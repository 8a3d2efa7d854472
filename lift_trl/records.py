"""The data that flows between the stages: frozen records and the `datasets.Features` of what is published.

Frames F, latent frames F', latent channels C, text tokens L, embedding width D, batch B. Videos are mp4 paths or bytes.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from .rubric import LIFT, Rubric


if TYPE_CHECKING:
    from datasets import Features
    from torch import Tensor
#: An encoded video: a path, or the bytes of the file.
VideoSource = Path | bytes
# `content_id` of a folder, or a commit.
_PLACE = re.compile(r".*@(?=(?:[0-9a-f]{16}|[0-9a-f]{40})\b)", re.DOTALL)


@dataclass(frozen=True)
class StoredVideo:
    """
    The bytes of one clip inside a `datasets.Dataset`, read when asked for, so that memory stays flat.

    Attributes:
        dataset: with a column `video` that is not decoded.
        index: the clip's row.
    """

    dataset: Any
    index: int

    def read(self) -> bytes:
        """The file's bytes."""
        return bytes(self.dataset[self.index]["video"]["bytes"])


def content_id(*parts: object) -> str:
    """
    The first 16 hex digits of sha256 over `parts`: the id of a work unit, made of all that changes its bytes.

    >>> content_id("a fox", 7) == content_id("a fox", 7) != content_id("a fox", 8)
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def placeless(name: str) -> str:
    """
    What holds of a model's name wherever its folder lies: of `folder@hash` and `repo@commit` what follows the `@`.

    >>> placeless("/old/disk/critic@0123456789abcdef in int8")
    '0123456789abcdef in int8'
    >>> placeless("a name of one's own")
    "a name of one's own"
    """
    return _PLACE.sub("", name, count=1)


def same_weights(one: str, other: str) -> bool:
    """
    Whether two names are of one model, wherever its folder lies, in however many bits, and on whichever scale.

    >>> same_weights("/old/disk/critic@0123456789abcdef", "critic@0123456789abcdef in int8")
    True
    >>> same_weights("critic@0123456789abcdef", "critic@fedcba9876543210")
    False
    """
    first, second = (re.match(r"(?:[0-9a-f]{16}|[0-9a-f]{40})\b", placeless(name)) for name in (one, other))
    return one == other if first is None or second is None else first[0] == second[0]


def seed_from(*parts: object) -> int:
    """A seed in [0, 2**63) for a generator keyed on `parts`, for instance `(seed, optimiser step, row id)`."""
    return int(content_id(*parts), 16) >> 1


#: What a rated clip may be from.
SOURCES = ("synthetic", "real")


@dataclass(frozen=True)
class Annotation:
    """One row of tidy LiFT-HRA: one rater, one video, one dimension."""

    video_id: str
    video: VideoSource
    caption: str
    dimension: str
    label: str
    reason: str
    annotator: str
    source: str  # one of `SOURCES`
    created_at: str | None = None  # ISO 8601, UTC
    ui_version: str | None = None


@dataclass(frozen=True, slots=True)
class RatedVideo:
    """
    One clip for stage 3. Generated clips carry labels or a reward; real clips (`is_real`) carry neither.

    Attributes:
        id: 16 hex digits or the row's own id; the key of every join.
        labels: one label for each dimension, where the clip was rated so (several raters pooled by majority).
        scalar_reward: a reward in [0, 1] that was given without labels.
        expected_reward: a critic's, in [0, 1]: that of each label weighed by its probability.
        rubric: what dimensions and labels are of.
    """

    id: str
    video: VideoSource | StoredVideo
    prompt: str
    labels: Mapping[str, str] | None = None
    scalar_reward: float | None = None
    is_real: bool = False
    expected_reward: float | None = None
    rubric: Rubric = field(default=LIFT, repr=False)

    def reward(self, dimension_weights: Mapping[str, float] | None = None) -> float:
        """The clip's reward (equation 2), NaN for a real clip. `dimension_weights` act on labels only."""
        if self.labels is not None:
            return self.rubric.mean_reward(self.labels, dimension_weights)
        return math.nan if self.scalar_reward is None else self.scalar_reward


@dataclass(frozen=True)
class VideoSample:
    """One generated video: a row of a `generated/` artefact, with all that made it."""

    id: str
    prompt: str
    video: str  # path within the artefact
    seed: int
    model: str  # "repo@revision"
    adapter: str | None
    num_frames: int
    height: int  # pixels
    width: int  # pixels
    fps: float  # frames a second
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True)
class Judgement:
    """
    A critic's verdict on one dimension.

    Attributes:
        label: the critic's label.
        probs: probability of each label (sum 1), or `None` where the critic cannot give them (a served model without
            log-probabilities).
        reason: the written reason, `""` where none was asked for.
        label_mass: probability that the critic gave to the labels together before normalisation, in [0, 1];
            low values mean that it is off format. `None` where unknown.
        rubric: what dimension and labels are of.
    """

    dimension: str
    label: str
    probs: Mapping[str, float] | None = None
    reason: str = ""
    label_mass: float | None = None
    rubric: Rubric = field(default=LIFT, repr=False)

    @property
    def reward(self) -> float:
        """Reward of the label (equation 2)."""
        return self.rubric.rewards[self.label]

    @property
    def expected_reward(self) -> float:
        """Sum of p(label) * reward(label); the label's reward where there are no probabilities."""
        if self.probs is None:
            return self.reward
        return sum(p * self.rubric.rewards[label] for label, p in self.probs.items())


@dataclass(frozen=True)
class CriticScore:
    """A critic's verdict on one video: one judgement for each dimension in rubric order, or unscored with the why."""

    id: str
    critic: str  # "repo@revision"
    judgements: tuple[Judgement, ...] = ()
    unscored: str | None = None

    def __post_init__(self) -> None:
        asked = self.rubric.dimensions
        if self.unscored is None and tuple(j.dimension for j in self.judgements) != asked:
            raise ValueError(f"score {self.id!r} needs one judgement for each of {', '.join(asked)}, in this order.")
        if len({judgement.rubric.id for judgement in self.judgements}) > 1:
            raise ValueError(f"score {self.id!r} has judgements of several rubrics.")

    def __getitem__(self, dimension: str) -> Judgement:
        return {judgement.dimension: judgement for judgement in self.judgements}[
            self.rubric.parse_dimension(dimension)
        ]

    @property
    def rubric(self) -> Rubric:
        """The rubric of its judgements; LiFT's where there is none."""
        return self.judgements[0].rubric if self.judgements else LIFT

    @property
    def labels(self) -> dict[str, str] | None:
        """The label of each dimension, `None` if unscored."""
        return None if self.unscored else {judgement.dimension: judgement.label for judgement in self.judgements}

    @property
    def reward(self) -> float:
        """Mean of the labels' rewards (equation 2; LiFT's in [0.05, 0.9]); NaN if unscored, and then never used."""
        return math.nan if self.unscored else self.rubric.mean_reward(self.labels or {})

    @property
    def dimension_rewards(self) -> dict[str, float]:
        """The expected reward of each dimension; none if unscored."""
        return {str(judgement.dimension): judgement.expected_reward for judgement in self.judgements}

    @property
    def expected_reward(self) -> float:
        """Mean of the expected rewards; NaN if unscored."""
        expected = {judgement.dimension: judgement.expected_reward for judgement in self.judgements}
        return math.nan if self.unscored else self.rubric.weighted_mean(expected)

    def columns(self) -> dict[str, Any]:
        """
        A row's columns: one for the label of each dimension, `reward`, `expected_reward`, `unscored` (the why, or none),
        `critic`, and `probs`, `label_mass`, `reasons` by dimension. An unscored video has no label and no reward.
        """
        if self.unscored is not None:
            return {"reward": None, "expected_reward": None, "unscored": self.unscored, "critic": self.critic}
        judged = {str(judgement.dimension): judgement for judgement in self.judgements}
        return {
            **{name: str(judgement.label) for name, judgement in judged.items()},
            "reward": self.reward,
            "expected_reward": self.expected_reward,
            "unscored": None,
            "critic": self.critic,
            "probs": {
                name: None if j.probs is None else {str(label): p for label, p in j.probs.items()}
                for name, j in judged.items()
            },
            "label_mass": {name: judgement.label_mass for name, judgement in judged.items()},
            "reasons": {name: judgement.reason for name, judgement in judged.items()},
        }


@dataclass(frozen=True)
class NativeScore:
    """
    A judge's verdict on one video in its own terms, or unscored with the why. It has no labels.

    Attributes:
        aspects: the native value of each of the judge's own dimensions, on its own scale.
        dimension_rewards: what each maps to, in [0, 1].
    """

    id: str
    critic: str  # "repo@revision+scale"
    aspects: Mapping[str, float] = field(default_factory=dict)
    dimension_rewards: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    unscored: str | None = None

    @property
    def reward(self) -> float:
        """Mean of `dimension_rewards`, in [0, 1]; NaN if unscored, and then never used."""
        found = self.dimension_rewards.values()
        return math.nan if self.unscored else sum(found) / len(found)

    @property
    def expected_reward(self) -> float:
        """The reward: such a judge gives no probabilities."""
        return self.reward

    def columns(self) -> dict[str, Any]:
        """A row's columns: `aspects` by name, `reward`, `expected_reward`, `reason`, `unscored` and `critic`; no label."""
        if self.unscored is not None:
            return {"reward": None, "expected_reward": None, "unscored": self.unscored, "critic": self.critic}
        found = {"aspects": dict(self.aspects), "reward": self.reward, "expected_reward": self.expected_reward}
        found["reason"] = self.reason
        return {**found, "unscored": None, "critic": self.critic}


@dataclass(frozen=True)
class Comparison:
    """One vote on a pair of videos of one prompt."""

    id: str
    prompt: str
    video_a: str
    video_b: str
    choice: str  # "a", "b" or "tie"
    dimension: str | None  # None = overall
    voter: str  # salted hash
    created_at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class EvalRow:
    """One figure of an evaluation. `metric` is namespaced by `suite`, as in `vbench/motion_smoothness`."""

    suite: str
    metric: str
    system: str
    value: float
    n: int
    ci95: tuple[float, float] | None = None


class TextCondition(dict[str, "Tensor"]):
    """
    Embedded prompts as the tensors that a family's network takes, first axis B: embeddings [B, L, D], and masks [B, L] where
    the family has any. Names are those of the pipeline's call (`prompt_embeds`, ...). Of one prompt: without B.
    """


class LatentPosterior(NamedTuple):
    """The VAE's posterior in the network's scale and layout, first axis B."""

    mean: "Tensor"
    logvar: "Tensor"


class NoisySample(NamedTuple):
    """`x_t` and `target` like the latents, `timesteps` [B] as the network takes them. `target` is what it predicts."""

    x_t: "Tensor"
    timesteps: "Tensor"
    target: "Tensor"


class TrainBatch(TypedDict):
    """
    What the collator gives the trainer. N rows; `reward` is NaN where `is_real`, `dimension_reward` is [N, D].

    `counts` (bool [N]) is false for a row that is only there so that all processes have equally many. `preference` is 1, -1
    or 0; `partner` (i64 [N]) the row that this one is paired with, its own number where it has none; `draw_id` what its
    random draws are keyed on: its `id`, or that of its pair.
    """

    latent_mean: "Tensor"
    latent_logvar: "Tensor"
    text: TextCondition
    weight: "Tensor"
    advantage: "Tensor"
    preference: "Tensor"
    partner: "Tensor"
    reward: "Tensor"
    dimension_reward: "Tensor"
    is_real: "Tensor"
    counts: "Tensor"
    id: list[str]
    draw_id: list[str]


def hra_features() -> "Features":
    """The columns of a published LiFT-HRA: one row a clip, every rater's raw label and reason in `annotations`."""
    from datasets import Features, List, Value, Video

    annotation: dict[str, Any] = {
        name: Value("string") for name in ("dimension", "label", "reason", "annotator", "created_at", "ui_version")
    }
    return Features(
        {
            "id": Value("string"),
            "video": Video(decode=False),
            "caption": Value("string"),
            "source": Value("string"),
            "annotations": List(annotation),
        }
    )
