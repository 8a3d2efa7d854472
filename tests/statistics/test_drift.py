import math

import numpy as np
import pytest

from lift_trl.statistics.drift import (
    clip_statistics,
    distances,
    drift_alarms,
    drift_rows,
    flicker_formula,
    frame_statistics,
)


def noise(seed, num_frames=6, size=32):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8)


def still(frames):
    return np.repeat(frames[:1], len(frames), axis=0)


def blurred(frames):
    soft = frames.astype(float)
    for axis in (1, 2):
        soft = sum(np.roll(soft, shift, axis) for shift in (-2, -1, 0, 1, 2)) / 5
    return soft.astype(np.uint8)


def grey(frames):
    return np.repeat(frames.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)


def levels(change, num=8):
    base = {f"p{i}": frame_statistics(noise(i)) for i in range(num)}
    tuned = {f"p{i}": frame_statistics(change(noise(i), i)) for i in range(num)}
    return alarms_of({"base": base, "tuned": tuned}, {key: key for key in base})


def alarms_of(statistics, prompts):
    return {alarm.measure: alarm for alarm in drift_alarms(statistics, prompts, base="base")}


def test_values_of_simple_clips():
    black_white = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    black_white[1] = 255
    statistics = frame_statistics(black_white)
    assert (statistics.motion_energy, statistics.sharpness, statistics.saturation) == pytest.approx((1, 0, 0))
    assert statistics.brightness == pytest.approx(1 / 3) and statistics.steadiness == 0
    red = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    red[..., 0] = 200
    statistics = frame_statistics(red)
    assert (statistics.motion_energy, statistics.saturation, statistics.steadiness) == pytest.approx((0, 1, 1))
    assert statistics.thumbnail.shape == (4, 8, 8, 3)
    assert statistics.thumbnail[..., 0] == pytest.approx(200 / 255)


def test_flicker_formula_is_vbenchs():
    frames = np.stack([np.full((4, 4, 3), value, dtype=np.uint8) for value in (0, 51, 0)])
    assert flicker_formula(frames) == pytest.approx((255 - 51) / 255)


def test_an_unchanged_system_raises_no_alarm():
    alarms = levels(lambda frames, i: frames)
    assert {alarm.level for alarm in alarms.values()} == {"ok"} and len(alarms) == 5
    assert all(alarm.change.value == pytest.approx(0) for alarm in alarms.values())


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        (lambda frames, i: still(frames), "motion_energy"),
        (lambda frames, i: blurred(frames), "sharpness"),
        (lambda frames, i: grey(frames), "saturation"),
        (lambda frames, i: frames // 2, "brightness"),
        (lambda frames, i: noise(0), "diversity"),
    ],
)
def test_each_kind_of_reward_hacking_raises_its_alarm(change, measure):
    alarm = levels(change)[measure]
    assert alarm.level == "alarm" and alarm.change.ci95[1] < 0 and alarm.change.n == 8


def test_few_clips_are_watched_not_accused():
    # One of two clips stands still: the mean halves, but two prompts prove nothing.
    alarm = levels(lambda frames, i: still(frames) if i == 0 else frames, num=2)["motion_energy"]
    assert alarm.change.value < -0.4 and alarm.level == "watch"


def test_rows_and_errors(tmp_path, make_clip):
    clips = {p: clip_statistics(make_clip(tmp_path / f"{p}.mp4", seed)) for seed, p in enumerate("ab")}
    prompts = {"a": "a", "b": "b", "c": "c"}
    rows = {row.metric: row for row in drift_rows({"base": clips}, prompts)}
    assert set(rows) == {
        f"drift/{m}" for m in ("motion_energy", "sharpness", "saturation", "brightness", "steadiness", "diversity")
    }
    assert rows["drift/motion_energy"].n == 2 and 0 < rows["drift/motion_energy"].value < 0.1
    with pytest.raises(ValueError, match="share no clip"):
        drift_alarms({"base": clips, "tuned": {"c": clips["a"]}}, prompts, base="base")
    with pytest.raises(ValueError, match="at least two"):
        frame_statistics(noise(0, num_frames=1))


def test_clips_of_one_prompt_are_not_independent():
    """Two prompts with eight clips each are two units, not sixteen: nothing is sure."""
    base = {f"{p}#{i}": frame_statistics(noise(10 * p + i)) for p in range(2) for i in range(8)}
    tuned = {key: frame_statistics(still(noise(i))) for i, key in enumerate(base)}
    prompts = {key: key[0] for key in base}
    found = alarms_of({"base": base, "tuned": tuned}, prompts)
    assert found["motion_energy"].change.n == 2 and found["motion_energy"].level == "watch"
    assert {row.n for row in drift_rows({"base": base}, prompts)} == {2}
    # One more clip of a prompt weighs as a clip, as in the mean that is shown.
    assert found["motion_energy"].base_value == pytest.approx(np.mean([c.motion_energy for c in base.values()]))


def test_diversity_is_between_prompts_only():
    black, white = np.zeros((2, 8, 8, 3), np.uint8), np.full((2, 8, 8, 3), 255, np.uint8)
    clips = {"p#0": frame_statistics(black), "p#1": frame_statistics(black), "q#0": frame_statistics(white)}
    rows = {row.metric: row.value for row in drift_rows({"base": clips}, {key: key[0] for key in clips})}
    assert rows["drift/diversity"] == pytest.approx(1)
    one = dict.fromkeys(clips, "p")
    assert "drift/diversity" not in {row.metric for row in drift_rows({"base": clips}, one)}
    alarms = alarms_of({"base": clips, "tuned": clips}, one)
    assert "diversity" not in alarms and alarms["brightness"].change.ci95 is None


def test_distances_are_those_of_the_differences():
    thumbnails = [np.random.default_rng(i).random((4, 8, 8, 3)).astype(np.float32) for i in range(5)]
    expected = [[np.sqrt(np.mean((a - b) ** 2)) for b in thumbnails] for a in thumbnails]
    assert distances(thumbnails) == pytest.approx(np.array(expected), abs=1e-6)


def test_a_base_of_zero_has_no_relative_change():
    """Colour where the base is grey, motion where it stands still: to be looked at, not `ok` at +nan%."""
    base = {f"p{i}": frame_statistics(still(grey(noise(i)))) for i in range(8)}
    tuned = {f"p{i}": frame_statistics(still(noise(i))) for i in range(8)}
    found = alarms_of({"base": base, "tuned": tuned}, {key: key for key in base})
    assert math.isnan(found["saturation"].change.value) and found["saturation"].level == "watch"
    assert found["motion_energy"].change.value == 0 and found["motion_energy"].level == "ok"


def test_a_change_whose_interval_reaches_the_limit_is_to_be_watched():
    """Motion falls by 25 % on average, by 5 to 45 % on a prompt: other prompts may reach the limit of 30 %."""
    rng = np.random.default_rng(0)
    one = frame_statistics(rng.integers(0, 255, (3, 8, 8, 3), dtype=np.uint8))
    falls = np.linspace(0.05, 0.45, 9)
    base = {str(i): one._replace(motion_energy=0.5) for i in range(9)}
    tuned = {str(i): one._replace(motion_energy=0.5 * (1 - fall)) for i, fall in enumerate(falls)}
    prompts = {str(i): str(i) for i in range(9)}

    def level(system):
        alarms = drift_alarms({"base": base, "t": system}, prompts, base="base")
        return next((a.level, a.change) for a in alarms if a.measure == "motion_energy")

    found, change = level(tuned)
    assert found == "watch" and change.value == pytest.approx(-0.25) and change.ci95[0] < -0.3 < change.ci95[1]
    assert level({k: c._replace(motion_energy=0.5 * 0.75) for k, c in base.items()})[0] == "ok"
    assert level({k: c._replace(motion_energy=0.5 * 0.65) for k, c in base.items()})[0] == "alarm"
