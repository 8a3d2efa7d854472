"""Prompts, renderer and truth of the mini world."""

import collections
import math

import numpy as np
import pytest

from lift_trl.mini.shapes import (
    CLEAN,
    SCENES,
    DefectRates,
    FidelityDefect,
    MotionDefect,
    Scene,
    draw_clip,
    enlarge,
    parse_prompt,
    render,
    shape_coverage,
    shrink,
    wrong_attributes,
)
from lift_trl.rubric import Dimension, Label


def test_every_scene_has_its_own_prompt_that_parses_back():
    assert len({scene.prompt for scene in SCENES}) == 48
    assert [parse_prompt(scene.prompt) for scene in SCENES] == list(SCENES)
    assert parse_prompt(" A Red circle moving left. ") == Scene("red", "circle", "left")


@pytest.mark.parametrize("prompt", ["", "a red fox moving left", "a red circle", "the red circle moving left"])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="not of the mini world"):
        parse_prompt(prompt)


def test_same_seed_same_clip_other_seed_other_clip():
    first, again, other = (draw_clip(np.random.default_rng(seed), DefectRates()) for seed in (3, 3, 4))
    assert first.video.dtype == np.uint8 and first.video.shape == (9, 48, 48, 3)
    assert np.array_equal(first.video, again.video) and first.labels == again.labels
    assert not np.array_equal(first.video, other.video)


@pytest.mark.parametrize("scene", SCENES[::5])
def test_a_clean_shape_stays_whole_and_moves_as_its_caption_says(scene):
    video = render(np.random.default_rng(0), scene).astype(float)
    saturation = video.max(-1) - video.min(-1)
    assert np.ptp(saturation.sum((1, 2))) < 0.03 * saturation.sum((1, 2)).mean()
    steps = np.diff([np.average(np.arange(48), weights=s.sum(0)) for s in saturation])
    steps_down = np.diff([np.average(np.arange(48), weights=s.sum(1)) for s in saturation])
    along = {"left": -steps, "right": steps, "up": -steps_down, "down": steps_down}[scene.direction]
    assert 1.3 < along.min() and along.max() < 2.1 and np.ptp(along) < 0.2


def test_areas_of_the_shapes_are_those_of_their_formulas():
    centre = np.array([[23.3, 24.1]])
    areas = [shape_coverage(shape, centre, 12.0).sum() for shape in ("circle", "square", "triangle")]
    expected = [math.pi * 144, 4 * (0.95 * 12) ** 2, math.sqrt(3) * (1.25 * 12) ** 2]
    np.testing.assert_allclose(areas, expected, rtol=0.015)


def test_labels_follow_the_planted_defects():
    rng = np.random.default_rng(1)
    clips = [draw_clip(rng, DefectRates()) for _ in range(60)]
    for clip in clips:
        wrong = len(wrong_attributes(clip.caption, clip.shown))
        assert clip.labels[Dimension.SEMANTIC_CONSISTENCY].rank == max(0, 2 - wrong)
        assert (clip.labels[Dimension.MOTION_SMOOTHNESS] is Label.BAD) == (clip.motion is MotionDefect.JITTER)
        assert (clip.labels[Dimension.VIDEO_FIDELITY] is Label.GOOD) == (clip.fidelity is FidelityDefect.NONE)
    assert all(set(draw_clip(rng, CLEAN).labels.values()) == {Label.GOOD} for _ in range(20))


def test_defects_come_at_the_stated_rates():
    rng, num = np.random.default_rng(2), 1200
    rates = DefectRates()
    clips = [draw_clip(rng, rates) for _ in range(num)]
    for dimension, (small, large) in zip(Dimension, (rates.semantic, rates.motion, rates.fidelity)):
        counts = collections.Counter(clip.labels[dimension] for clip in clips)
        for label, rate in ((Label.NORMAL, small), (Label.BAD, large)):
            assert abs(counts[label] / num - rate) < 4 * math.sqrt(rate * (1 - rate) / num)


def test_static_has_the_stated_strength():
    clean, faint, strong = (
        render(np.random.default_rng(5), SCENES[0], fidelity=f)[:, :4].astype(float) / 255 for f in FidelityDefect
    )
    assert clean.std() < 1e-9
    assert 0.05 < faint.std() < 0.09 and 0.11 < strong.std() < 0.21


def test_shrinking_undoes_enlarging():
    video = draw_clip(np.random.default_rng(0), DefectRates()).video
    assert enlarge(video).shape == (9, 192, 192, 3)
    assert np.array_equal(shrink(enlarge(video)), video)
    with pytest.raises(ValueError, match="100 x 100"):
        shrink(np.zeros((9, 100, 100, 3), np.uint8))
