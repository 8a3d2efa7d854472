"""What raters and critics are asked and may answer: LiFT's rubric, one's own, and the form of an answer.

Standard library only. Every other file takes these words from here. Source: arXiv 2412.04814 (section 3, equation 2) and the
authors' repository CodeGoat24/LiFT (question wordings, JSON keys).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple


#: Rewards are sums of a few decimals: what differs by less differs by rounding.
REWARD_MARGIN = 1e-6


class Dimension(StrEnum):
    """What LiFT's raters judge in a video, in the order in which the project lists and asks them."""

    SEMANTIC_CONSISTENCY = "semantic_consistency"
    MOTION_SMOOTHNESS = "motion_smoothness"
    VIDEO_FIDELITY = "video_fidelity"

    @property
    def words(self) -> str:
        """The dimension's name for people: `"semantic consistency"`."""
        return words(self)


class Label(StrEnum):
    """LiFT's verdicts on one dimension, worst first."""

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

#: Columns of rows that hold something else than a dimension's label.
RESERVED = frozenset(
    "adapter annotations annotator aspects caption created_at critic dimension expected_reward file_name fps "
    "guidance_scale height id is_real key label label_mass labels model num_frames num_inference_steps overall probs prompt "
    "reason reasons reward scoring seed source ui_version unscored video video_id width".split()
)


class UnparsableAnswerError(ValueError):
    """An answer that does not begin with a label. It never becomes a default label or reward."""


class Answer(NamedTuple):
    """A parsed answer: the label and the reason, which may be empty."""

    label: str
    reason: str


@dataclass(frozen=True)
class Rubric:
    """
    What raters and critics are asked of a clip, and the labels that they may give.

    LiFT's is `LIFT`; one's own stands in a YAML (`store.rubrics.form.read_rubric`). What is made with a rubric carries it: a
    record in its field `rubric`, an artefact in its `artifact.yaml`.

    Args:
        rewards: of each label, in [0, 1], worst first.
        questions: of each dimension, what a critic is asked, in the order in which they are listed and asked.
        definitions: of each dimension, what each label means to a rater.

    Raises:
        ValueError: naming what is missing, unknown or out of range.
    """

    rewards: Mapping[str, float]
    questions: Mapping[str, str]
    definitions: Mapping[str, Mapping[str, str]]

    def __post_init__(self) -> None:
        self._check_labels()
        if not self.questions:
            raise ValueError("a rubric needs at least one dimension.")
        for name, text in self.questions.items():
            if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
                raise ValueError(
                    f"dimension {name!r}: it becomes a column of rows, so write it in small letters, digits and _, but "
                    f"not as one of {', '.join(sorted(RESERVED))}."
                )
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"dimension {name!r} has the question {text!r}; give a text.")
        for name in self.questions:
            meanings = self.definitions.get(name)
            if not isinstance(meanings, Mapping) or set(meanings) != set(self.labels):
                raise ValueError(
                    f"dimension {name!r}: give a definition of each of {', '.join(self.labels)}, and no other."
                )
            if not all(isinstance(text, str) and text.strip() for text in meanings.values()):
                raise ValueError(f"dimension {name!r}: a definition is no text.")

    def _check_labels(self) -> None:
        if len(self.rewards) < 2:
            raise ValueError(f"a rubric needs two labels or more, each with its reward, and has {dict(self.rewards)}.")
        for label, reward in self.rewards.items():
            if not isinstance(label, str) or not re.fullmatch(r"[^\W\d_]+(?: [^\W\d_]+)*", label):
                raise ValueError(
                    f"label {label!r}: write it in letters, as an answer begins with it. YAML reads yes and no as true and "
                    "false; put them in quotes."
                )
            if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0 <= reward <= 1:
                raise ValueError(f"label {label!r} has the reward {reward!r}; give a number in [0, 1].")
            for other in self.rewards:
                if other is not label and str(other).lower().startswith(label.lower()):
                    raise ValueError(f"label {other!r} begins with label {label!r}, so no answer tells them apart.")
        values = list(self.rewards.values())
        if values != sorted(set(values)):
            raise ValueError(f"rewards {dict(self.rewards)} are not worst first, or two labels have the same.")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions, in the order in which they are listed and asked."""
        return tuple(self.questions)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, worst first."""
        return tuple(self.rewards)

    @property
    def best(self) -> str:
        """The label of the highest reward."""
        return self.labels[-1]

    @property
    def worst(self) -> str:
        """The label of the lowest reward."""
        return self.labels[0]

    @cached_property
    def id(self) -> str:
        """What tells one rubric from another: 16 hex digits over all that it holds."""
        labels = [(str(label), reward) for label, reward in self.rewards.items()]
        asked = [
            (str(d), text, [self.definitions[d][label] for label in self.labels]) for d, text in self.questions.items()
        ]
        return hashlib.sha256(repr([labels, asked]).encode()).hexdigest()[:16]

    def rank(self, label: str) -> int:
        """0 for the worst label."""
        return self.labels.index(label)

    def question(self, dimension: str, caption: str) -> str:
        """
        The text that a critic is asked about one video: caption first, then the question of `dimension`.

        >>> LIFT.question(Dimension.MOTION_SMOOTHNESS, "A fox runs.")[:45]
        'A fox runs. Please identify the motion issues'
        """
        return f"{caption.strip()} {self.questions[dimension]}"

    def parse_answer(self, text: str) -> Answer:
        """
        The label and reason of a written answer.

        After leading non-letters the text must begin with a label (any case), followed by one of `. , : ;`, a line break, a
        dash that no letter follows, or the end.

        >>> LIFT.parse_answer("bad: two heads.")
        Answer(label=<Label.BAD: 'Bad'>, reason='two heads.')
        >>> LIFT.parse_answer("1. Normal - it hops.").reason
        'it hops.'

        Raises:
            UnparsableAnswerError: for any other text. There is no default: `"Good-looking panda"`, `"Normal movements are
                missing"`, `"Bad The hand"`, `"**Bad** it"`, `"Label: Good"` and `""` all raise.
        """
        match = self._answer.fullmatch(text)
        if match is None:
            raise UnparsableAnswerError(
                f"answer {text[:80]!r} does not begin with one of {', '.join(self.labels)} followed by '.', ',', ':', ';', "
                "a dash, a line break or the end. Correct the row or leave it out; it gets no reward."
            )
        label, reason = match.groups()
        return Answer(self.parse_label(label), reason.strip())

    @cached_property
    def _answer(self) -> re.Pattern[str]:
        # The dash of "Good-looking" does not stand by itself.
        end = r"(?:\s*[.,:;\u2013\u2014]|\s*-(?=\s|$)|\s*[\n\r]|\s*$)"
        return re.compile(rf"[\W\d_]*({'|'.join(self.labels)}){end}(.*)", re.IGNORECASE | re.DOTALL)

    def parse_label(self, text: str) -> str:
        """
        The label that `text` spells, in any case.

        >>> LIFT.parse_label(" good ")
        <Label.GOOD: 'Good'>

        Raises:
            UnparsableAnswerError: if `text` is no label.
        """
        for label in self.labels:
            if text.strip().lower() == label.lower():
                return label
        raise UnparsableAnswerError(f"label {text[:80]!r} is unknown; use one of {', '.join(self.labels)}.")

    def parse_dimension(self, name: Any) -> str:
        """
        The dimension called `name`.

        Raises:
            ValueError: if there is none.
        """
        for dimension in self.dimensions:
            if name == dimension:
                return dimension
        raise ValueError(f"dimension {name!r} is unknown; use one of {', '.join(self.dimensions)}.")

    def majority_label(self, labels: Iterable[str]) -> str:
        """
        The label that most raters gave; ties go to the lower label.

        >>> LIFT.majority_label([Label.GOOD, Label.BAD])
        <Label.BAD: 'Bad'>

        Raises:
            ValueError: if there is no label.
        """
        votes = list(labels)
        if not votes:
            raise ValueError("majority_label needs at least one label; a video without ratings is unscored.")
        return max(self.labels, key=votes.count)  # the first of several, which is the worst

    def mean_reward(self, labels: Mapping[str, str], dimension_weights: Mapping[str, float] | None = None) -> float:
        """
        Reward of a video: the mean over the dimensions of the label's reward.

        Args:
            labels: one label for each dimension.
            dimension_weights: non-negative weights of the dimensions, of any positive sum; equal (the paper) by default.

        >>> good, bad = Label.GOOD, Label.BAD
        >>> round(LIFT.mean_reward(dict(zip(Dimension, (good, good, bad)))), 4)
        0.6167

        Raises:
            ValueError: if a dimension has no label (an unscored dimension makes the video unscored, it is never 0).

        Source: equation 2 of arXiv 2412.04814.
        """
        missing = [dimension for dimension in self.dimensions if dimension not in labels]
        if missing:
            raise ValueError(f"no label for {', '.join(missing)}; a video needs all of {', '.join(self.dimensions)}.")
        return self.weighted_mean({d: self.rewards[labels[d]] for d in self.dimensions}, dimension_weights)

    def weighted_mean(
        self, values: Mapping[str, float], dimension_weights: Mapping[str, float] | None = None
    ) -> float:
        """
        Mean of one value for each dimension, weighted by `dimension_weights` (equal where `None`).

        Raises:
            ValueError: as `check_dimension_weights`.
        """
        weights = self.check_dimension_weights(dimension_weights)
        return sum(weights[d] * values[d] for d in self.dimensions) / sum(weights.values())

    def check_dimension_weights(self, dimension_weights: Mapping[str, float] | None) -> dict[str, float]:
        """
        `dimension_weights` with every dimension named once, or equal weights for `None`.

        Raises:
            ValueError: if a dimension is missing or unknown, a weight is negative, or all are 0.
        """
        if dimension_weights is None:
            return dict.fromkeys(self.dimensions, 1.0)
        weights = dict(dimension_weights)
        if set(weights) != set(self.dimensions):
            wanted = [str(dimension) for dimension in self.dimensions]
            raise ValueError(f"dimension_weights names {sorted(weights)}; give one weight for each of {wanted}.")
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"dimension_weights={weights}; weights must be >= 0 and not all 0.")
        return {dimension: float(weights[dimension]) for dimension in self.dimensions}


#: The rubric of the paper, and of all that says nothing of another.
LIFT = Rubric(
    {label: REWARDS[label] for label in Label},
    {dimension: QUESTIONS[dimension] for dimension in Dimension},
    {dimension: {label: DEFINITIONS[dimension][label] for label in Label} for dimension in Dimension},
)


def words(dimension: str) -> str:
    """A dimension's name for people: `"semantic consistency"`."""
    return dimension.replace("_", " ")


def format_answer(label: str, reason: str) -> str:
    """
    The answer that a critic is trained to give: label first, then the reason.

    >>> format_answer(Label.NORMAL, "The waiter's hand flickers.")
    "Normal. The waiter's hand flickers."
    """
    return f"{label}. {reason.strip()}".strip()


def folded(text: str) -> str:
    """
    `text` with one space wherever it has white space: captions that differ in nothing else are one.

    >>> folded("A  fox\\nruns. ")
    'A fox runs.'
    """
    return " ".join(text.split())
