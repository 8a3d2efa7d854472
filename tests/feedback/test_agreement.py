"""Histograms, counts and Krippendorff's alpha against values worked out by hand and published ones."""

from pathlib import Path

import pytest
from PIL import Image

from lift_trl.feedback.agreement import (
    UNNAMED,
    feedback_statistics,
    krippendorff_alpha,
    label_histogram,
    plot_labels,
)
from lift_trl.feedback.hra import tidy_dataset
from lift_trl.records import Annotation
from lift_trl.rubric import Dimension, Label


SEMANTIC, MOTION, FIDELITY = Dimension
BAD, NORMAL, GOOD = Label


def rating(
    video: str, label: Label, annotator: str = "x", dimension: Dimension = MOTION, caption: str = "a dog"
) -> Annotation:
    return Annotation(video, Path(f"{video}.mp4"), caption, dimension, label, "", annotator, "synthetic")


def alpha(*rows: Annotation) -> float | None:
    return krippendorff_alpha(tidy_dataset(rows), MOTION)


def test_histogram_counts_and_categories():
    rows = tidy_dataset(
        [
            rating("a", BAD),
            rating("a", BAD, "y"),
            rating("b", GOOD, "y", SEMANTIC, "a nurse"),
            rating("c", BAD, caption="a car"),
        ]
    )
    statistics = feedback_statistics(rows)
    assert label_histogram(rows)[MOTION] == {BAD: 3, NORMAL: 0, GOOD: 0}
    assert statistics.labels[SEMANTIC] == {BAD: 0, NORMAL: 0, GOOD: 1}
    assert statistics.labels_by_category["human"][SEMANTIC][GOOD] == 1
    assert statistics.labels_by_category["land animal"][MOTION][BAD] == 2
    assert statistics.labels_by_category["other"][MOTION][BAD] == 1
    assert statistics.annotators == {"x": 2, "y": 2}
    assert (statistics.num_videos, statistics.num_ratings) == (3, 4)


def test_alpha_of_perfect_and_of_opposite_raters():
    same = [rating(v, label, who) for v, label in (("a", BAD), ("b", GOOD), ("c", NORMAL)) for who in "xy"]
    assert alpha(*same) == pytest.approx(1.0)
    opposite = [rating("a", BAD), rating("a", GOOD, "y"), rating("b", GOOD), rating("b", BAD, "y")]
    # Two units, all pairs disagree: D_o = d, D_e = d * 2*2*2 / (4*3) = 2/3 d, so alpha = 1 - 3/2.
    assert alpha(*opposite) == pytest.approx(-0.5)


def test_alpha_is_ordinal():
    near = [rating("a", BAD), rating("a", NORMAL, "y"), *(rating(v, GOOD, w) for v in "bc" for w in "xy")]
    far = [rating("a", BAD), rating("a", GOOD, "y"), *(rating(v, GOOD, w) for v in "bc" for w in "xy")]
    assert alpha(*near) > 0.7 > 0.1 > alpha(*far)


def test_alpha_does_not_depend_on_order_missing_raters_or_repeats():
    rows = [
        rating("a", BAD),
        rating("a", NORMAL, "y"),
        rating("b", GOOD),
        rating("b", GOOD, "z"),
        rating("c", BAD, "z"),
    ]
    assert alpha(*rows) == pytest.approx(alpha(*rows[::-1]))
    assert alpha(*rows, rating("c", BAD, "z"), rating("d", GOOD, "q")) == pytest.approx(alpha(*rows))


def test_alpha_is_none_where_it_is_not_defined():
    assert alpha(rating("a", BAD), rating("b", GOOD, "y")) is None
    assert alpha(rating("a", GOOD), rating("a", GOOD, "y")) is None
    assert alpha() is None


def test_the_plot_is_a_picture_with_a_bar_a_label(tmp_path: Path):
    rows = tidy_dataset([rating("a", BAD), rating("b", GOOD, dimension=SEMANTIC), rating("b", NORMAL, "y", SEMANTIC)])
    figure = plot_labels(feedback_statistics(rows), tmp_path / "labels.png")
    left, right = figure.axes
    widths = {container.get_label(): [bar.get_width() for bar in container] for container in left.containers}
    assert widths == {"Bad": [0, 100, 0], "Normal": [50, 0, 0], "Good": [50, 0, 0]}
    assert [text.get_text() for text in left.get_yticklabels()][1] == "motion smoothness (1)"
    assert [text.get_text() for text in right.get_yticklabels()] == ["land animal (3)"]
    assert Image.open(tmp_path / "labels.png").size[0] >= 1000


def test_a_rater_who_rated_a_clip_twice_counts_once_with_the_lower_of_two_labels():
    others = [rating(v, label, who) for v, label in (("b", BAD), ("c", GOOD), ("d", NORMAL)) for who in "xy"]
    twice = [rating("a", GOOD), rating("a", BAD), rating("a", BAD, "y"), *others]
    assert (
        alpha(*twice) == pytest.approx(alpha(rating("a", BAD), rating("a", BAD, "y"), *others)) == pytest.approx(1.0)
    )
    assert alpha(rating("a", GOOD), rating("a", BAD, "y"), *others) < 0.9
    thrice = [rating("a", GOOD), rating("a", BAD), rating("a", GOOD), rating("a", GOOD, "y"), *others]
    assert alpha(*thrice) == pytest.approx(1.0)


def test_ratings_without_a_name_are_of_as_many_raters():
    """As one rater, the two of a clip would be pooled, and no clip would have two raters."""
    nameless = [rating(v, label, "") for v, pair in (("a", (BAD, BAD)), ("b", (GOOD, NORMAL))) for label in pair]
    named = [
        rating(v, label, who)
        for v, pair in (("a", (BAD, BAD)), ("b", (GOOD, NORMAL)))
        for label, who in zip(pair, "xy")
    ]
    assert alpha(*nameless) == pytest.approx(alpha(*named))
    mixed = [rating("a", BAD, ""), rating("a", BAD, "x"), rating("b", GOOD, "x"), rating("b", NORMAL, "")]
    assert alpha(*mixed) == pytest.approx(alpha(*named))
    assert feedback_statistics(tidy_dataset([*nameless, rating("a", BAD)])).annotators == {UNNAMED: 4, "x": 1}
