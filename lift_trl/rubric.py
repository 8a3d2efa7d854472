"""The vocabulary of LiFT: dimensions, labels, rewards, questions and the form of an answer. Standard library only.

Every other file takes these words from here. Source: arXiv 2412.04814 (section 3, equation 2) and the authors' repository
CodeGoat24/LiFT (question wordings, JSON keys).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Dimension(StrEnum):
    """What a rater judges in a video, in the order in which the project lists and asks them."""

    SEMANTIC_CONSISTENCY = "semantic_consistency"
    MOTION_SMOOTHNESS = "motion_smoothness"
    VIDEO_FIDELITY = "video_fidelity"

    @property
    def words(self) -> str:
        """The dimension's name for people: `"semantic consistency"`."""
        return self.value.replace("_", " ")


class Label(StrEnum):
    """A rater's or critic's verdict on one dimension, worst first."""

    BAD = "Bad"
    NORMAL = "Normal"
    GOOD = "Good"

    @property
    def rank(self) -> int:
        """0 for the worst label, 2 for the best."""
        return list(Label).index(self)


#: Reward of a label. Source: equation 2 of arXiv 2412.04814.
REWARDS: Mapping[Label, float] = MappingProxyType({Label.GOOD: 0.9, Label.NORMAL: 0.2, Label.BAD: 0.05})

#: The authors' JSON keys for the answers of their critics. Source: CodeGoat24/LiFT, LiFT-Critic/test.
OFFICIAL_NAMES: Mapping[str, Dimension] = MappingProxyType(
    {
        "semantic consistency": Dimension.SEMANTIC_CONSISTENCY,
        "motion issues": Dimension.MOTION_SMOOTHNESS,
        "fidelity issues": Dimension.VIDEO_FIDELITY,
    }
)

#: The authors' question for each dimension. Source: CodeGoat24/LiFT, LiFT-Critic/test/run_critic_13b.py.
QUESTIONS: Mapping[Dimension, str] = MappingProxyType(
    {
        Dimension.SEMANTIC_CONSISTENCY: (
            "Please identify the semantic consistency issues in this video, focusing on the alignment between the text "
            "and the visual content. Specifically, point out any discrepancies regarding the subject (e.g., person or "
            "animal), quantity, color, scene description, style, and other relevant aspects."
        ),
        Dimension.MOTION_SMOOTHNESS: (
            "Please identify the motion issues in this video, focusing on the continuity and smoothness of actions, as "
            "well as their coherence and adherence to the laws of physics."
        ),
        Dimension.VIDEO_FIDELITY: (
            "Please identify the fidelity issues in this video, assessing the realism of the content, including "
            "people, animals, and other objects. Highlight any problems such as missing limbs, deformed hands or "
            "faces, or other unrealistic elements."
        ),
    }
)

#: What each label means, shown to annotators. Source: arXiv 2412.04814, annotation guidelines (own wording).
DEFINITIONS: Mapping[Dimension, Mapping[Label, str]] = MappingProxyType(
    {
        Dimension.SEMANTIC_CONSISTENCY: MappingProxyType(
            {
                Label.GOOD: "The video matches the caption.",
                Label.NORMAL: "Small mismatches; the meaning of the caption is still clear.",
                Label.BAD: "Large mismatches between video and caption.",
            }
        ),
        Dimension.MOTION_SMOOTHNESS: MappingProxyType(
            {
                Label.GOOD: "Fluid, natural motion.",
                Label.NORMAL: "Slight irregularity or jitter.",
                Label.BAD: "Choppy or erratic motion, dropped frames.",
            }
        ),
        Dimension.VIDEO_FIDELITY: MappingProxyType(
            {
                Label.GOOD: "Clear and sharp, with few artefacts.",
                Label.NORMAL: "Some blur or colour errors.",
                Label.BAD: "Heavy blur, distortion or artefacts.",
            }
        ),
    }
)

# The dash of "Good-looking" does not stand by itself.
#: What tells one rubric from another: 16 hex digits over dimensions, labels and their rewards, questions and definitions.
RUBRIC_ID = hashlib.sha256(
    repr(
        [
            [(label.value, REWARDS[label]) for label in Label],
            [(d.value, QUESTIONS[d], [DEFINITIONS[d][label] for label in Label]) for d in Dimension],
        ]
    ).encode()
).hexdigest()[:16]

_ANSWER = re.compile(
    rf"[\W\d_]*({'|'.join(Label)})(?:\s*[.,:;\u2013\u2014]|\s*-(?=\s|$)|\s*[\n\r]|\s*$)(.*)", re.IGNORECASE | re.DOTALL
)


class UnparsableAnswerError(ValueError):
    """An answer that does not begin with a label. It never becomes a default label or reward."""


class Answer(NamedTuple):
    """A parsed answer: the label and the reason, which may be empty."""

    label: Label
    reason: str


def question(dimension: Dimension, caption: str) -> str:
    """
    The text that a critic is asked about one video: caption first, then the question of `dimension`.

    >>> question(Dimension.MOTION_SMOOTHNESS, "A fox runs.")[:45]
    'A fox runs. Please identify the motion issues'
    """
    return f"{caption.strip()} {QUESTIONS[dimension]}"


def format_answer(label: Label, reason: str) -> str:
    """
    The answer that a critic is trained to give: label first, then the reason.

    >>> format_answer(Label.NORMAL, "The waiter's hand flickers.")
    "Normal. The waiter's hand flickers."
    """
    return f"{label}. {reason.strip()}".strip()


def parse_answer(text: str) -> Answer:
    """
    The label and reason of a written answer.

    After leading non-letters the text must begin with a label (any case), followed by one of `. , : ;`, a line break, a dash
    that no letter follows, or the end.

    >>> parse_answer("bad: two heads.")
    Answer(label=<Label.BAD: 'Bad'>, reason='two heads.')
    >>> parse_answer("1. Normal - it hops.").reason
    'it hops.'

    Raises:
        UnparsableAnswerError: for any other text. There is no default: `"Good-looking panda"`, `"Normal movements are
            missing"`, `"Bad The hand"`, `"**Bad** it"`, `"Label: Good"` and `""` all raise.
    """
    match = _ANSWER.fullmatch(text)
    if match is None:
        raise UnparsableAnswerError(
            f"answer {text[:80]!r} does not begin with one of {', '.join(Label)} followed by '.', ',', ':', ';', a dash, a "
            "line break or the end. Correct the row or leave it out; it gets no reward."
        )
    label, reason = match.groups()
    return Answer(parse_label(label), reason.strip())


def folded(text: str) -> str:
    """
    `text` with one space wherever it has white space: captions that differ in nothing else are one.

    >>> folded("A  fox\\nruns. ")
    'A fox runs.'
    """
    return " ".join(text.split())


def parse_label(text: str) -> Label:
    """
    The label that `text` spells, in any case.

    >>> parse_label(" good ")
    <Label.GOOD: 'Good'>

    Raises:
        UnparsableAnswerError: if `text` is no label.
    """
    for label in Label:
        if text.strip().lower() == label.lower():
            return label
    raise UnparsableAnswerError(f"label {text[:80]!r} is unknown; use one of {', '.join(Label)}.")


def majority_label(labels: Iterable[Label]) -> Label:
    """
    The label that most raters gave; ties go to the lower label.

    >>> majority_label([Label.GOOD, Label.BAD])
    <Label.BAD: 'Bad'>

    Raises:
        ValueError: if there is no label.
    """
    votes = list(labels)
    if not votes:
        raise ValueError("majority_label needs at least one label; a video without ratings is unscored.")
    return max(Label, key=lambda label: (votes.count(label), -label.rank))


def mean_reward(
    labels: Mapping[Dimension, Label], dimension_weights: Mapping[Dimension, float] | None = None
) -> float:
    """
    Reward of a video: the mean over the three dimensions of the label's reward, in [0.05, 0.9].

    Args:
        labels: one label for each dimension.
        dimension_weights: non-negative weights of the dimensions, of any positive sum; equal (the paper) by default.

    >>> good, bad = Label.GOOD, Label.BAD
    >>> round(mean_reward(dict(zip(Dimension, (good, good, bad)))), 4)
    0.6167

    Raises:
        ValueError: if a dimension has no label (an unscored dimension makes the video unscored, it is never 0).

    Source: equation 2 of arXiv 2412.04814.
    """
    missing = [dimension.value for dimension in Dimension if dimension not in labels]
    if missing:
        raise ValueError(f"no label for {', '.join(missing)}; a video needs all of {', '.join(Dimension)}.")
    return weighted_mean({d: REWARDS[labels[d]] for d in Dimension}, dimension_weights)


def weighted_mean(values: Mapping[Dimension, float], dimension_weights: Mapping[Dimension, float] | None) -> float:
    """
    Mean of one value for each dimension, weighted by `dimension_weights` (equal where `None`).

    Raises:
        ValueError: as `check_dimension_weights`.
    """
    weights = check_dimension_weights(dimension_weights)
    return sum(weights[d] * values[d] for d in Dimension) / sum(weights.values())


def check_dimension_weights(dimension_weights: Mapping[Dimension, float] | None) -> dict[Dimension, float]:
    """
    `dimension_weights` with every dimension named once, or equal weights for `None`.

    Raises:
        ValueError: if a dimension is missing or unknown, a weight is negative, or all are 0.
    """
    if dimension_weights is None:
        return dict.fromkeys(Dimension, 1.0)
    weights = dict(dimension_weights)
    if set(weights) != set(Dimension):
        raise ValueError(f"dimension_weights names {sorted(weights)}; give one weight for each of {list(Dimension)}.")
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"dimension_weights={weights}; weights must be >= 0 and not all 0.")
    return {dimension: float(weights[dimension]) for dimension in Dimension}
