"""The vocabulary: rewards of the paper, pooling, and an answer parser that never invents a label."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lift_trl.rubric import (
    DEFINITIONS,
    LIFT,
    OFFICIAL_NAMES,
    QUESTIONS,
    REWARDS,
    Answer,
    Dimension,
    Label,
    UnparsableAnswerError,
    folded,
    format_answer,
)


SEMANTIC, MOTION, FIDELITY = Dimension
BAD, NORMAL, GOOD = Label
labels = st.sampled_from(list(Label))
label_sets = st.fixed_dictionaries(dict.fromkeys(Dimension, labels))


def starts_with_label(text: str) -> bool:
    """The rule of an answer, written a second time. Letters of any script count, so that no word goes before the label."""
    start = next((n for n, c in enumerate(text) if c.isalnum() and not c.isdecimal()), None)
    if start is None or (found := re.match("[A-Za-z]+", text[start:])) is None:
        return False
    word = found.group()
    after = text[start + len(word) :]
    rest = after.lstrip()
    broken = any(c in "\n\r" for c in after[: len(after) - len(rest)])
    dashed = rest[:1] in ("\u2013", "\u2014") or rest[:1] == "-" and rest[1:2].strip() == ""
    ends = rest == "" or rest[0] in ".,:;" or broken or dashed
    return word.lower() in ("good", "normal", "bad") and ends


# Texts near the border: label words, their look-alikes, marks and spaces in any order.
pieces = st.sampled_from(
    ["Good", "good", "BAD", "Bad", "normal", "Normal", "Goodness", "Badge", "Normally", "Not", "not", "a", "**", "\n"]
    + [
        "-",
        ".",
        ",",
        ":",
        ";",
        " ",
        "  ",
        '"',
        "1.",
        "",
        "The video is",
        "\u00e9",
        "\u212a",
        "\u017f",
        "Go",
        "od",
        "!",
        "?",
    ]
)
near_answers = st.lists(pieces, max_size=6).map("".join)


@given(st.one_of(st.text(), near_answers))
def test_an_answer_is_parsed_if_and_only_if_it_begins_with_a_label(text: str):
    try:
        answer = LIFT.parse_answer(text)
    except UnparsableAnswerError:
        assert not starts_with_label(text)
    else:
        assert starts_with_label(text)
        assert answer.label.lower() == re.search("[A-Za-z]+", text).group().lower()  # type: ignore[union-attr]


@given(labels, st.text(), st.sampled_from(".,:;"), st.sampled_from([str.lower, str.upper, str.title]))
def test_label_mark_and_reason_come_back(label: Label, reason: str, mark: str, case):
    assert LIFT.parse_answer(f"{case(label)}{mark} {reason}") == Answer(label, reason.strip())


@given(labels, st.text())
def test_a_formatted_answer_is_parsed_to_itself(label: Label, reason: str):
    assert LIFT.parse_answer(format_answer(label, reason)) == (label, reason.strip())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "I cannot answer.",
        "Good-looking panda",
        "Normal movements are missing",
        "Not good.",
        "The video is Good.",
        "Goodness. Fine.",
        "Badlands, at dusk.",
        "Normally, it moves.",
        "Good!",
        "Good Bad.",
        "Bad The hand is missing.",
        "Good -looking panda",
        "**Bad** the hand",  # what closes is no sign that the rule knows
        '"Good" it is',
        "(Good) as ever",
        "Label: Good",
        "Rating: Bad.",
        "Good/Bad",
        "Bonne. Rien.",
        "Gut. Nichts.",
        "Good's",
        "\u4e0dgood.",  # "not good" in Chinese
        "\u00e9Good.",
    ],
)
def test_texts_that_the_authors_script_rewards_are_refused(text: str):
    with pytest.raises(UnparsableAnswerError, match="does not begin with one of Bad, Normal, Good"):
        LIFT.parse_answer(text)


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        ("Bad\nThe hand is missing.", BAD, "The hand is missing."),
        ("Bad \r\n\r\nThe hand.", BAD, "The hand."),
        ("Bad - the hand.", BAD, "the hand."),
        ("Normal- it hops", NORMAL, "it hops"),
        ("Good \u2013 fine", GOOD, "fine"),
        ("Good\u2014fine", GOOD, "fine"),
        ("Good -", GOOD, ""),
        ("1. Bad. Two heads.", BAD, "Two heads."),
        ("**Bad.** Two heads.", BAD, "** Two heads."),
        ("- Normal: hops", NORMAL, "hops"),
        ("Bad\n- no hand\n- no foot", BAD, "no hand\n- no foot"),
        ('"Good. Fine."', GOOD, 'Fine."'),
    ],
)
def test_a_line_break_or_a_dash_may_follow_the_label(text: str, label: Label, reason: str):
    assert LIFT.parse_answer(text) == (label, reason)


def test_captions_that_differ_in_white_space_are_one():
    assert folded(" A  fox\n\truns.") == folded("A fox runs.") == "A fox runs." != folded("A foxruns.")


def test_words_of_other_labels_in_the_reason_do_not_count():
    assert LIFT.parse_answer("Good. Shot in the Badlands, all Normal.") == (GOOD, "Shot in the Badlands, all Normal.")
    assert LIFT.parse_answer("** Bad: Good start.") == (BAD, "Good start.")
    assert LIFT.parse_answer("normal") == (NORMAL, "")


def test_rewards_are_those_of_equation_2_and_cannot_be_changed():
    assert dict(REWARDS) == {GOOD: 0.9, NORMAL: 0.2, BAD: 0.05}
    with pytest.raises(TypeError):
        REWARDS[GOOD] = 1.0  # type: ignore[index]


def test_order_of_dimensions_and_labels():
    assert list(Dimension) == ["semantic_consistency", "motion_smoothness", "video_fidelity"]
    assert [label.rank for label in (BAD, NORMAL, GOOD)] == [0, 1, 2] and MOTION.words == "motion smoothness"
    assert set(QUESTIONS) == set(DEFINITIONS) == set(OFFICIAL_NAMES.values()) == set(Dimension)
    assert all(set(texts) == set(Label) for texts in DEFINITIONS.values())


def test_question_holds_the_caption_first():
    assert LIFT.question(FIDELITY, " A fox. ") == f"A fox. {QUESTIONS[FIDELITY]}"
    assert QUESTIONS[MOTION].startswith("Please identify the motion issues in this video, focusing on the continuity")


@pytest.mark.parametrize(
    ("votes", "majority"),
    [
        ([GOOD], GOOD),
        ([GOOD, GOOD, BAD], GOOD),
        ([GOOD, BAD], BAD),
        ([GOOD, NORMAL], NORMAL),
        ([GOOD, NORMAL, BAD], BAD),
        ([GOOD, GOOD, NORMAL, NORMAL, BAD], NORMAL),
    ],
)
def test_majority_goes_to_the_lower_label_in_a_tie(votes: list[Label], majority: Label):
    assert LIFT.majority_label(votes) is majority
    assert LIFT.majority_label(votes[::-1]) is majority


def test_no_vote_is_no_label():
    with pytest.raises(ValueError, match="unscored"):
        LIFT.majority_label([])
    with pytest.raises(UnparsableAnswerError, match="'fine' is unknown"):
        LIFT.parse_label("fine")


@given(label_sets)
def test_mean_reward_is_the_mean_of_the_three(labels_of):
    assert LIFT.mean_reward(labels_of) == pytest.approx(sum(REWARDS[label] for label in labels_of.values()) / 3)
    assert 0.05 <= LIFT.mean_reward(labels_of) <= 0.9


def test_mean_reward_of_the_authors_demo_clips():
    # Their rounded rewards of the demo clips, 13B critic: 0.62 and 0.10.
    assert LIFT.mean_reward({SEMANTIC: GOOD, MOTION: GOOD, FIDELITY: BAD}) == pytest.approx(0.6166667)
    assert LIFT.mean_reward({SEMANTIC: BAD, MOTION: NORMAL, FIDELITY: BAD}) == pytest.approx(0.1)


def test_dimension_weights():
    labels_of = {SEMANTIC: GOOD, MOTION: BAD, FIDELITY: NORMAL}
    assert LIFT.mean_reward(labels_of, {SEMANTIC: 2, MOTION: 0, FIDELITY: 2}) == pytest.approx(0.55)
    assert LIFT.weighted_mean({SEMANTIC: 1.0, MOTION: 0.0, FIDELITY: 0.0}, None) == pytest.approx(1 / 3)
    for weights, message in (
        ({SEMANTIC: 1}, "one weight for each"),
        ({SEMANTIC: 1, MOTION: 1, FIDELITY: -1}, ">= 0"),
        (dict.fromkeys(Dimension, 0), "not all 0"),
    ):
        with pytest.raises(ValueError, match=message):
            LIFT.check_dimension_weights(weights)


def test_a_dimension_without_label_is_an_error_and_not_zero():
    with pytest.raises(ValueError, match="no label for motion_smoothness"):
        LIFT.mean_reward({SEMANTIC: GOOD, FIDELITY: GOOD})
