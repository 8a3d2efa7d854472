"""The rule-based raters: stated error rates, reasons that fit their labels, repeatable."""

import math

import numpy as np
import pytest

from lift_trl.mini.annotator import RATERS, first_reason, pooled_labels, rate_clip
from lift_trl.mini.language import DEFORMED, NOTHING, PRAISE, STATIC, STILL, UNEVEN
from lift_trl.mini.oracle import Observation
from lift_trl.mini.shapes import SCENES, DefectRates, draw_clip, enlarge
from lift_trl.rubric import Dimension, Label


CAPTION = SCENES[0]  # a red circle moving left
GOOD = Observation(9, "red", "circle", "left", wobble=0.1, static=0.0, misfit=0.02)
POOR = Observation(9, "blue", "circle", "up", wobble=1.0, static=0.12, misfit=0.02)


@pytest.mark.parametrize("rater", RATERS, ids=lambda rater: rater.name)
@pytest.mark.parametrize("seen", [GOOD, POOR], ids=["good", "poor"])
def test_raters_err_as_often_as_stated(rater, seen):
    num = 700
    truth = seen.labels(CAPTION)
    ratings = [r for i in range(num) for r in rater.rate_observation(f"clip-{i}", seen, CAPTION)]
    wrong = np.mean([rating.label != truth[rating.dimension] for rating in ratings])
    deviation = math.sqrt(rater.error_rate * (1 - rater.error_rate) / len(ratings))
    assert abs(wrong - rater.error_rate) < 4 * deviation


def test_errors_are_neighbouring_labels():
    labels = [r.label for i in range(400) for r in RATERS[2].rate_observation(str(i), GOOD, CAPTION)]
    assert set(labels) == {Label.GOOD, Label.NORMAL}


def test_reasons_fit_the_label_even_in_error():
    for seen in (GOOD, POOR):
        for index in range(300):
            for rating in RATERS[2].rate_observation(str(index), seen, CAPTION):
                _check_reason(rating)


def _check_reason(rating):
    if rating.label is Label.GOOD:
        assert rating.reason in PRAISE[rating.dimension]
    elif rating.dimension is Dimension.SEMANTIC_CONSISTENCY:
        faults = rating.reason.count(", not ")
        assert faults == 1 if rating.label is Label.NORMAL else faults in (2, 3)
    elif rating.dimension is Dimension.MOTION_SMOOTHNESS:
        assert rating.reason in UNEVEN[rating.label]
    else:
        assert rating.reason in STATIC[rating.label] + DEFORMED[rating.label]


def test_reasons_name_what_is_wrong():
    reasons = {r.dimension: r.reason for r in RATERS[0].rate_observation("a", POOR, CAPTION)}
    assert reasons[Dimension.SEMANTIC_CONSISTENCY] == "The colour is blue, not red. The direction is up, not left."
    deformed = Observation(9, "red", "circle", "left", wobble=0.1, static=0.0, misfit=0.5)
    reasons = {r.dimension: r.reason for r in RATERS[0].rate_observation("a", deformed, CAPTION)}
    assert reasons[Dimension.VIDEO_FIDELITY] == DEFORMED[Label.BAD][0]
    still = Observation(9, "red", "circle", "", wobble=0.001, static=0.0, misfit=0.02)
    assert still.frozen and not GOOD.frozen
    reasons = {r.dimension: r.reason for r in RATERS[0].rate_observation("a", still, CAPTION)}
    assert reasons[Dimension.MOTION_SMOOTHNESS] == STILL
    nothing = Observation(2, "", "", "", wobble=0.0, static=0.0, misfit=1.0)
    assert {r.reason for r in RATERS[0].rate_observation("a", nothing, CAPTION)} == {NOTHING}


def test_the_same_clip_gets_the_same_ratings_and_others_their_own():
    clip = draw_clip(np.random.default_rng(0), DefectRates())
    video = enlarge(clip.video)
    ratings = rate_clip("a", video, clip.caption.prompt)
    assert ratings == rate_clip("a", video, clip.caption.prompt)
    assert len(ratings) == len(RATERS) * 3 and {r.annotator for r in ratings} == {rater.name for rater in RATERS}
    labels = [tuple(r.label for r in rate_clip(str(i), video, clip.caption.prompt)) for i in range(60)]
    assert len(set(labels)) > 1


def test_majority_of_the_raters_is_the_truth_nearly_always():
    truth = POOR.labels(CAPTION)
    pooled = []
    for index in range(300):
        ratings = [r for rater in RATERS for r in rater.rate_observation(str(index), POOR, CAPTION)]
        labels = pooled_labels(ratings)
        pooled += [labels[d] == truth[d] for d in Dimension]
        assert first_reason(ratings, Dimension.VIDEO_FIDELITY, labels[Dimension.VIDEO_FIDELITY])
    assert np.mean(pooled) > 0.98


def test_foreign_prompts_are_refused():
    with pytest.raises(ValueError, match="not of the mini world"):
        RATERS[0].rate("a", np.zeros((9, 48, 48, 3), np.uint8), "a fox")
