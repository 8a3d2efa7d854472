"""The sentences of the mini world: reasons of the raters, questions of the VLM's pre-training, all else it may read."""

from collections.abc import Mapping
from types import MappingProxyType

from ..rubric import DEFINITIONS, QUESTIONS, Dimension, Label
from .shapes import COLOURS, DIRECTIONS, SCENES, SHAPES, FidelityDefect, MotionDefect, Scene


#: Ways to say that nothing is wrong with a dimension.
PRAISE: Mapping[Dimension, tuple[str, ...]] = MappingProxyType(
    {
        Dimension.SEMANTIC_CONSISTENCY: (
            "The colour, the shape and the direction match the caption.",
            "It shows what the caption says.",
        ),
        Dimension.MOTION_SMOOTHNESS: (
            "The object moves smoothly along a straight line.",
            "The motion is even.",
        ),
        Dimension.VIDEO_FIDELITY: (
            "The picture is clean and the shape is sharp.",
            "There is no static and the outline is clear.",
        ),
    }
)
#: Ways to name a fault of motion by its label.
UNEVEN: Mapping[Label, tuple[str, ...]] = MappingProxyType(
    {
        Label.NORMAL: ("The object leaves its line a little.", "The motion is slightly uneven, with a hop."),
        Label.BAD: ("The object jitters in every frame.", "The motion is erratic, it jumps about."),
    }
)
#: Ways to name static and a deformed shape by their label.
STATIC: Mapping[Label, tuple[str, ...]] = MappingProxyType(
    {
        Label.NORMAL: ("There is faint static over the picture.", "The picture is a little noisy."),
        Label.BAD: ("There is strong static over the picture.", "The picture is very noisy."),
    }
)
DEFORMED: Mapping[Label, tuple[str, ...]] = MappingProxyType(
    {
        Label.NORMAL: ("The shape is slightly deformed.", "The outline is a little blurred."),
        Label.BAD: ("The shape is badly deformed.", "The outline falls apart."),
    }
)
#: What is said of a clip without an object, for every dimension.
NOTHING = "No object can be seen."
#: What is said of the motion of a clip that is one picture. Its words are those of `NOTHING` and of the rubric.
STILL = "No motion can be seen."

MOTION_WORDS = {MotionDefect.NONE: "smooth", MotionDefect.HOP: "uneven", MotionDefect.JITTER: "erratic"}
FIDELITY_WORDS = {
    FidelityDefect.NONE: "clean",
    FidelityDefect.FAINT_STATIC: "noisy",
    FidelityDefect.STRONG_STATIC: "very noisy",
}
COUNT_WORDS = ("none", "one", "two", "three")


def describe_mismatch(caption: Scene, seen: Mapping[str, str], phrasing: int) -> str:
    """
    What is wrong with a video that shows the words `seen` instead of those of `caption`.

    >>> describe_mismatch(Scene("red", "circle", "left"), {"colour": "blue", "direction": "up"}, 0)
    'The colour is blue, not red. The direction is up, not left.'
    """
    parts = []
    for name, word in seen.items():
        asked = getattr(caption, name)
        if not word:
            parts.append(f"The {name} is not clear.")
        elif phrasing == 0:
            parts.append(f"The {name} is {word}, not {asked}.")
        else:
            parts.append(f"The {name} should be {asked} but is {word}.")
    return " ".join(parts)


def check_questions() -> Mapping[str, str]:
    """Questions of the pre-training by what they ask for; `{word}` or `{prompt}` is filled in."""
    return {
        "describe": "Describe the video.",
        "colour": "Is the colour {word}?",
        "shape": "Is the shape a {word}?",
        "direction": "Is the direction {word}?",
        "motion": "Is the motion {word}?",
        "fidelity": "Is the picture {word}?",
        "which_colour": "{prompt} Which colour is it?",
        "which_shape": "{prompt} Which shape is it?",
        "which_direction": "{prompt} Which direction is it?",
        "wrong": "{prompt} How many words of the caption are wrong?",
        "match_colour": "{prompt} Does the colour match the caption?",
        "match_shape": "{prompt} Does the shape match the caption?",
        "match_direction": "{prompt} Does the direction match the caption?",
    }


def sentences() -> list[str]:
    """Every text of this world and of the rubric: what the VLM's vocabulary is made of."""
    texts = [*QUESTIONS.values(), *Label, *check_questions().values(), NOTHING, *COUNT_WORDS]
    texts += [text for definitions in DEFINITIONS.values() for text in definitions.values()]
    texts += [text for table in (PRAISE, UNEVEN, STATIC, DEFORMED) for wordings in table.values() for text in wordings]
    texts += [scene.prompt for scene in SCENES] + [*COLOURS, *SHAPES, *DIRECTIONS, *MOTION_WORDS.values()]
    texts += [*FIDELITY_WORDS.values(), "yes, no, it is; User: Assistant: System:"]
    return texts + [
        describe_mismatch(SCENES[0], {"colour": word}, phrasing) for phrasing in (0, 1) for word in ("", "red")
    ]
