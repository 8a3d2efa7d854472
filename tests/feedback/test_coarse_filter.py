"""Each rule of the coarse filter finds what it is for, and leaves good rows alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lift_trl.feedback.correction.coarse_filter import Rule, clip_problem, find_drop
from lift_trl.mini.language import DEFORMED, NOTHING, PRAISE, STATIC, UNEVEN, describe_mismatch
from lift_trl.mini.shapes import SCENES
from lift_trl.records import Annotation
from lift_trl.rubric import Dimension, Label
from tests.feedback.conftest import write_clip


BAD, NORMAL, GOOD = Label
CAPTION = "A majestic crane stands gracefully in a shallow, tranquil wetland."


def rule(label: Label, reason: str, caption: str = CAPTION) -> Rule | None:
    row = Annotation("a", Path("a.mp4"), caption, Dimension.MOTION_SMOOTHNESS, label, reason, "x", "synthetic")
    drop = find_drop(row, min_caption_words=3)
    return drop and drop.rule


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        # Answers of the authors' critics and rows of their data.
        (GOOD, "There are no obvious problems."),
        (GOOD, "Basically correct."),
        (GOOD, "No obvious problems."),
        (BAD, "The crane's eyes in the video were not generated."),
        (BAD, "The video does not show the panda wearing a futuristic spacesuit as mentioned in the caption."),
        (BAD, "The panda's limbs are missing in the video, and there are issues with the facial generation."),
        (NORMAL, "The panda's movements in the video are basically normal, with slight coordination issues."),
        (BAD, "The majesty is not nodding."),
        (GOOD, "There is no blur, no flicker and nothing is deformed."),
        (GOOD, "Smooth, with a slight blur at the end."),
        (BAD, "The motion is smooth but a wing is missing."),
        (BAD, "The shape should be square but is circle."),
        (BAD, "The crane."),
        (BAD, "\u9e64\u7684\u773c\u775b\u6ca1\u6709\u751f\u6210"),
        # Denied, wanted or small faults, and praise of what is not there.
        (GOOD, "No deformed hands or missing limbs."),
        (GOOD, "Hands are visible, never distorted, with nothing missing."),
        (GOOD, "I didn\u2019t see a deformed hand."),
        (GOOD, "The background is blurred."),
        (GOOD, "The camera does not move."),
        (GOOD, "The sun disappears behind the crane."),
        (GOOD, "The tranquil wetland shows, hard to find anything wrong."),
        (BAD, "Smooth motion is absent"),
        (BAD, "The crane moves against natural laws."),
        (BAD, "Consistent flashing."),
        (BAD, "No natural motion."),
        (BAD, "No motion."),
        (BAD, "The face is smooth."),
        (NORMAL, "No major problems."),
        (BAD, "It blinks too often."),
        # Short, misspelt, in another language, and words that are not in every list.
        (BAD, "No dog."),
        (BAD, "three ears"),
        (BAD, "neck broken"),
        (BAD, "Creepy."),
        (BAD, "distored fce"),
        (BAD, "Le chien manque."),
        (BAD, "It has three ears"),
        (BAD, "Its neck is broken off"),
        (BAD, "There is no dog in here"),
        (BAD, "Il manque une patte au chien"),
        (BAD, "Es fehlt ein Bein hier"),
        (BAD, "El perro no tiene cola"),
        (GOOD, "Great"),
        (GOOD, "None."),
        # What a fault's word may praise.
        (GOOD, "Unnatural blue light suits the scene."),
        (GOOD, "Missing roof, as the caption asks."),
        (GOOD, "The distorted reflection works."),
        (GOOD, "Erratic dance moves are fun."),
    ],
)
def test_good_rows_pass(label: Label, reason: str):
    assert rule(label, reason) is None


@pytest.mark.parametrize(
    ("label", "reason", "broken"),
    [
        (BAD, "", Rule.EMPTY_REASON),
        (GOOD, " ... 1 !", Rule.EMPTY_REASON),
        (BAD, "I had pasta for lunch", Rule.OFF_TOPIC_REASON),
        (GOOD, "asdf qwer zxcv yuio", Rule.OFF_TOPIC_REASON),
        (BAD, "My grandma bakes cookies often", Rule.OFF_TOPIC_REASON),
        (BAD, "There are no obvious problems.", Rule.REASON_CONTRADICTS_LABEL),
        (NORMAL, "Perfect, smooth motion.", Rule.REASON_CONTRADICTS_LABEL),
        (GOOD, "The crane's left wing is missing.", Rule.REASON_CONTRADICTS_LABEL),
        (GOOD, "The face is deformed and the legs flicker.", Rule.REASON_CONTRADICTS_LABEL),
    ],
)
def test_bad_reasons_are_found(label: Label, reason: str, broken: Rule):
    assert rule(label, reason) is broken


@pytest.mark.parametrize(
    ("caption", "broken"),
    [
        ("A crane", Rule.CAPTION_TOO_SHORT),
        ("", Rule.CAPTION_TOO_SHORT),
        ("A [subject] runs in a park", Rule.AMBIGUOUS_CAPTION),
        ("A {animal} runs in a park", Rule.AMBIGUOUS_CAPTION),
        ("Someone does something somewhere", Rule.AMBIGUOUS_CAPTION),
        ("\u72d7", Rule.CAPTION_TOO_SHORT),
        ("\u4e00\u53ea\u72d7\u5728\u8349\u5730\u4e0a\u5954\u8dd1", None),
        ("\u72ac\u304c\u8d70\u308b", None),
        ("\u0e2b\u0e21\u0e32\u0e27\u0e34\u0e48\u0e07", None),
        ("A shop whose sign says [OPEN]", None),
        ('A sign reads "TODO" in red', None),
        ("[Scene 1] A dog runs", None),
        ("A man <3 his dog", None),
        ("What is this?? A dog", None),
        ("[your subject here] dances well", Rule.AMBIGUOUS_CAPTION),
        ("A {subject_1} runs fast", Rule.AMBIGUOUS_CAPTION),
        ("[ ] a dog runs", Rule.AMBIGUOUS_CAPTION),
        ("TODO: describe the clip", Rule.AMBIGUOUS_CAPTION),
        ("A woman cooks something", None),
        ("a red circle moving left", None),
        ("A woman holds something small and round in her hand while the evening light falls on the table.", None),
    ],
)
def test_captions(caption: str, broken: Rule | None):
    assert rule(BAD, "The crane's wing is missing.", caption) is broken


def test_a_short_word_of_the_caption_is_on_topic():
    assert rule(BAD, "Barks at cat, wakes everybody", "A cat on a wall") is None
    assert rule(BAD, "Barks at cow, wakes everybody", "A cat on a wall") is Rule.OFF_TOPIC_REASON
    # What stands in every text is none.
    assert rule(BAD, "Grandma and cookies for lunch", "A cat and a wall for all") is Rule.OFF_TOPIC_REASON


def test_a_fault_that_the_caption_asks_for_is_none():
    assert rule(GOOD, "The distorted mirror stands there.", "A distorted mirror in a dark room") is None
    assert rule(GOOD, "The distorted mirror stands there.", "A mirror in a dark room") is Rule.REASON_CONTRADICTS_LABEL


NOUNS = ("hands", "face", "crane", "legs", "wings", "water", "motion", "video")
FAULTS = ("missing", "deformed", "distorted", "jittering", "wrong", "artifacts", "unnatural", "choppy")
PRAISES = ("smooth", "perfect", "natural", "fluid", "flawless", "excellent")
DENIALS = (
    "no",
    "not",
    "without",
    "never",
    "nothing",
    "neither",
    "hardly",
    "isn't",
    "doesn't",
    "free",
    "lacks",
    "absent",
)


@given(
    words=st.lists(st.sampled_from([word for word in NOUNS + FAULTS + PRAISES if word != "artifacts"]), max_size=7),
    denial=st.sampled_from(DENIALS),
    place=st.integers(0, 7),
    label=st.sampled_from(list(Label)),
)
def test_a_reason_with_a_denial_in_it_never_contradicts(words: list[str], denial: str, place: int, label: Label):
    """What is denied is for people to read. A plain 'no problems' or 'no artifacts' is all that a rule understands."""
    assert rule(label, " ".join([*words[:place], denial, *words[place:]])) is not Rule.REASON_CONTRADICTS_LABEL


@given(
    words=st.lists(st.sampled_from(PRAISES + ("motion", "video", "the")), max_size=6), other=st.sampled_from(NOUNS[:6])
)
def test_praise_of_one_thing_only_is_no_contradiction(words: list[str], other: str):
    for label in (BAD, NORMAL):
        assert rule(label, " ".join([*words, other])) is not Rule.REASON_CONTRADICTS_LABEL


@given(
    words=st.lists(st.sampled_from(NOUNS), min_size=1, max_size=5),
    faults=st.lists(st.sampled_from(FAULTS), min_size=1),
)
def test_a_plain_fault_is_found_among_any_things(words: list[str], faults: list[str]):
    assert rule(GOOD, " ".join([*words, *faults])) is Rule.REASON_CONTRADICTS_LABEL
    assert rule(BAD, " ".join([*words, *faults])) is None


def test_unreadable_clips(tmp_path: Path):
    clip = write_clip(tmp_path / "a.mp4")

    def problem(path: Path) -> str | None:
        return clip_problem(Annotation("a", path, CAPTION, Dimension.VIDEO_FIDELITY, BAD, "", "x", "synthetic"))

    assert problem(clip) is None
    assert "no such video file" in str(problem(tmp_path / "b.mp4"))
    clip.write_bytes(clip.read_bytes()[:600])
    row = Annotation("a", clip, CAPTION, Dimension.VIDEO_FIDELITY, BAD, "Blurred.", "x", "synthetic")
    drop = find_drop(row, min_caption_words=3, clip_problem=problem(clip))
    assert drop is not None and drop.rule is Rule.UNREADABLE_CLIP and "a.mp4" in drop.detail


def test_reasons_of_the_rule_based_raters_pass():
    caption = SCENES[0].prompt
    for phrasing in (0, 1):
        for praise in PRAISE.values():
            assert rule(GOOD, praise[phrasing], caption) is None
        for label in (NORMAL, BAD):
            mismatch = describe_mismatch(SCENES[0], {"colour": "blue", "shape": "square", "direction": ""}, phrasing)
            for reason in (UNEVEN[label][phrasing], STATIC[label][phrasing], DEFORMED[label][phrasing], mismatch):
                assert rule(label, reason, caption) is None, reason
    assert rule(BAD, NOTHING, caption) is None
