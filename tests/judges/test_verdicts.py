"""Figures of a critic against hand-counted ones, and the audit against critics with known faults."""

import math
import re
from pathlib import Path

import av
import evaluate
import numpy as np
import pytest

import lift_trl.metrics.label_agreement.label_agreement as label_agreement
import lift_trl.metrics.lift_reward.lift_reward as lift_reward
from lift_trl.judges.audit import audit, swap_captions
from lift_trl.judges.verdicts import (
    Verdict,
    accuracy,
    balanced_accuracy,
    confusion,
    critic_report,
    evaluate_verdicts,
    macro_f1,
    verdicts,
)
from lift_trl.records import CriticScore, Judgement
from lift_trl.rubric import Dimension, Label
from lift_trl.store.video_io import read_video
from tests.critic.rendered_clips import COLOURS, write_square


BAD, NORMAL, GOOD = Label
SEMANTIC = Dimension.SEMANTIC_CONSISTENCY


def test_confusion_by_hand():
    truth = [GOOD, GOOD, GOOD, BAD, BAD, NORMAL]
    said = [GOOD, GOOD, BAD, BAD, GOOD, GOOD]
    table = confusion(truth, said)
    assert table.tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 2]]
    assert accuracy(table) == 3 / 6
    assert balanced_accuracy(table) == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)
    assert macro_f1(table) == pytest.approx((2 * 1 / 4 + 0 + 2 * 2 / 7) / 3)


def test_a_constant_critic_is_seen_through_by_balanced_accuracy():
    truth = [BAD] * 8 + [GOOD] * 2
    table = confusion(truth, [BAD] * 10)
    assert accuracy(table) == 0.8 and balanced_accuracy(table) == 0.5


def test_calibration_error_by_hand():
    # Bin 0.9-1.0: mean confidence 0.95, right half the time; bin 0.6-0.7: 0.65, always right. Weights 2/3 and 1/3.
    sure, less = (0.02, 0.03, 0.95), (0.65, 0.3, 0.05)
    rows = [
        Verdict(f"v{i}", SEMANTIC, truth, label, probs)
        for i, (truth, label, probs) in enumerate(((GOOD, GOOD, sure), (BAD, GOOD, sure), (BAD, BAD, less)))
    ]
    figures = {row.metric: row.value for row in evaluate_verdicts(rows, system="tiny")}
    assert figures["critic/overall/calibration_error"] == pytest.approx((2 * 0.45 + 0.35) / 3)


def test_figures_and_intervals_over_videos():
    rows = [Verdict(f"v{i}", d, GOOD, GOOD if i % 4 else BAD, (0.1, 0.1, 0.8)) for i in range(40) for d in Dimension]
    figures = {row.metric: row for row in evaluate_verdicts(rows, system="tiny")}
    overall = figures["critic/overall/accuracy"]
    assert overall.value == 0.75 and overall.n == 40
    # The three verdicts on a video agree, so the interval is that of 40 draws, not of 120.
    half_width = (overall.ci95[1] - overall.ci95[0]) / 2
    assert half_width == pytest.approx(1.96 * math.sqrt(0.75 * 0.25 / 40), rel=0.15)
    assert figures[f"critic/{SEMANTIC}/calibration_error"].value == pytest.approx(0.05)
    assert len(figures) == 16 and {row.suite for row in figures.values()} == {"critic"}


def test_ten_right_of_ten_are_not_sure_to_be_all():
    rows = [Verdict(f"v{i}", SEMANTIC, GOOD, GOOD, (0.1, 0.1, 0.8)) for i in range(10)]
    figures = {row.metric: row for row in evaluate_verdicts(rows, system="tiny")}
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        row = figures[f"critic/overall/{name}"]
        assert row.value == 1.0 and row.ci95 == pytest.approx((0.722, 1.0), abs=1e-3)


def test_without_probabilities_there_is_no_calibration_and_nothing_to_evaluate_is_an_error():
    figures = evaluate_verdicts([Verdict("v", SEMANTIC, GOOD, GOOD, None)], system="served")
    assert {row.metric.split("/")[-1] for row in figures} == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert all(row.ci95 is None for row in figures)
    with pytest.raises(ValueError, match="no verdict"):
        evaluate_verdicts([], system="served")


def test_verdicts_are_read_from_scored_rows_and_unscored_clips_give_none():
    whole = {
        "id": "a",
        "unscored": None,
        "reward": 0.9,
        SEMANTIC.value: "Good",
        "probs": {SEMANTIC.value: {"Bad": 0.1, "Normal": 0.2, "Good": 0.7}},
    }
    truth = {"a": {SEMANTIC: BAD}, "b": {SEMANTIC: BAD}, "real": {SEMANTIC: GOOD}}
    others = [{"id": "b", "unscored": "truncated", "reward": None}, {"id": "real", "is_real": True}]
    rows = verdicts([whole, *others], truth)
    assert rows == [Verdict("a", SEMANTIC, BAD, GOOD, (0.1, 0.2, 0.7))]
    with pytest.raises(ValueError, match="'c' has no rating"):
        verdicts([{**whole, "id": "c"}], truth)


def test_the_report_shows_every_figure(squares):
    rows = [Verdict(f"v{i}", SEMANTIC, GOOD, GOOD if i else BAD, (0.1, 0.1, 0.8)) for i in range(4)]
    text = critic_report(rows, evaluate_verdicts(rows, system="x"), audit(ColourJudge(reads_caption=False), *squares))
    assert (
        f"| {SEMANTIC.words} | critic: Bad |" in text
        and "| overall | 0.750 (" in text
        and "| people: Good | 1 | 0 | 3 |" in text
    )
    assert re.search(r"\| swapped_captions \| .* \| \*\*no\*\* \|", text)


class ColourJudge:
    """Looks for the caption's colour in the clip. Its faults can be switched on."""

    def __init__(self, *, reads_caption=True, looks=True, repeats=True):
        self.reads_caption, self.looks, self.repeats, self.runs = reads_caption, looks, repeats, 0

    def score(self, videos, captions, *, with_reason=False):
        self.runs += 1
        scores = []
        for video, caption in zip(videos, captions, strict=True):
            try:
                pixels = read_video(video).frames.reshape(-1, 3).astype(int)
            except (ValueError, FileNotFoundError) as error:
                scores.append(CriticScore("", "judge", unscored=str(error)))
                continue
            wanted = COLOURS[caption] if self.reads_caption else pixels[pixels.sum(axis=1).argmax()]
            found = (np.abs(pixels - wanted).max(axis=1) < 60).mean() if self.looks else 0.1
            p = min(0.99, 0.02 + 5 * found + (0 if self.repeats else 0.01 * self.runs))
            probs = {BAD: 1 - p, NORMAL: 0.0, GOOD: p}
            scores.append(CriticScore("", "judge", tuple(Judgement(d, GOOD, probs) for d in Dimension)))
        return scores


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    return [write_square(folder / f"{c}.mp4", c) for c in COLOURS if c != "white"], [
        c for c in COLOURS if c != "white"
    ]


def results(critic, squares):
    return {check.name: check for check in audit(critic, *squares)}


def test_a_sound_critic_passes(squares):
    checks = results(ColourJudge(), squares)
    assert all(check.passed is not False for check in checks.values())
    assert checks["swapped_captions"].value < -0.1 and checks["blank_video"].value < -0.1
    assert checks["repeated_run"].value == 0 and checks["unscored"].value == 0
    assert abs(checks["reversed_frames"].value) < 0.02
    # At 16 rows a square is 6 pixels wide and H.264 smears its colour: this judge does mind the size.
    assert abs(checks["half_size"].value) < 0.2 < abs(checks["swapped_captions"].value)


@pytest.mark.parametrize(
    ("fault", "name"),
    [("reads_caption", "swapped_captions"), ("looks", "blank_video"), ("repeats", "repeated_run")],
)
def test_each_fault_is_found(fault, name, squares):
    assert results(ColourJudge(**{fault: False}), squares)[name].passed is False


@pytest.mark.parametrize(("run", "lost"), [(0, {0}), (1, {1, 2}), (1, {0, 1, 2})])
def test_a_clip_that_only_one_of_two_runs_scores_does_not_repeat(run, lost, squares):
    class Failing(ColourJudge):
        def score(self, videos, captions, *, with_reason=False):
            scores = super().score(videos, captions)
            gone = CriticScore("", "judge", unscored="out of memory")
            return [gone if self.runs == run + 1 and i in lost else score for i, score in enumerate(scores)]

    check = results(Failing(), squares)["repeated_run"]
    assert check.passed is False and check.value == 1.0


class Scripted:
    """A critic whose rewards of motion (the last in `plain`) depend on what was done to a clip: a table of its faults."""

    def __init__(self, **rewards):
        self.rewards = rewards

    def score(self, videos, captions, *, with_reason=False):
        scores = []
        for index, (video, caption) in enumerate(zip(videos, captions, strict=True)):
            kind = next(
                (k for k in ("blank", "frozen", "shuffled", "half") if Path(video).name.startswith(k)), "plain"
            )
            by_dimension = [self.rewards.get(kind, self.rewards["plain"])(index, d) for d in Dimension]
            swapped = -0.3 if Path(video).stem != caption and kind == "plain" else 0.0
            probs = [{BAD: 1 - p, NORMAL: 0.0, GOOD: p} for p in (max(0.0, value + swapped) for value in by_dimension)]
            scores.append(CriticScore("", "x", tuple(Judgement(d, GOOD, p) for d, p in zip(Dimension, probs))))
        return scores


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    names = [f"{colour}{i}" for i in range(4) for colour in COLOURS]
    return [write_square(folder / f"{n}.mp4", n.rstrip("0123456789"), num_frames=4) for n in names], names


def fair(index, dimension):
    return 0.5 + 0.02 * (index % 10)


def test_a_critic_that_pays_about_as_much_for_a_blank_clip_fails(many):
    """A little less on average, as -0.014 on 19 clips: not surely less, and above half of the real clips."""
    noise = np.random.default_rng(0).normal(-0.01, 0.1, 16)
    found = results(Scripted(plain=fair, blank=lambda i, d: fair(i, d) + noise[i]), many)
    assert -0.05 < found["blank_video"].value < 0 and found["blank_video"].ci95[1] > 0
    assert found["blank_video"].passed is False and found["swapped_captions"].passed
    sure = results(Scripted(plain=fair, blank=lambda i, d: 0.54), many)
    assert sure["blank_video"].ci95[1] < 0 and sure["blank_video"].passed is False  # less, and more than a tenth earn
    assert results(Scripted(plain=fair, blank=lambda i, d: 0.4), many)["blank_video"].passed


def test_a_blank_clip_must_be_low_in_every_dimension(many):
    """Paid in full for the motion of a grey clip, and for nothing else."""
    found = results(Scripted(plain=fair, blank=lambda i, d: 0.9 if d is Dimension.MOTION_SMOOTHNESS else 0.0), many)
    assert found["blank_video"].ci95[1] < 0 and found["blank_video"].passed is False
    shares = {d: found[f"blank_video/{d}"] for d in Dimension}
    assert shares[Dimension.MOTION_SMOOTHNESS].value == 1 and shares[Dimension.MOTION_SMOOTHNESS].passed is False
    assert all(shares[d].passed and shares[d].value == 0 for d in Dimension if d is not Dimension.MOTION_SMOOTHNESS)


def test_a_drop_that_is_not_sure_is_no_proof_that_captions_are_read(many):
    videos, names = many
    unsure = np.linspace(-0.3, 0.25, 16)

    class Ignores(Scripted):
        def score(self, videos, captions, *, with_reason=False):
            swapped = list(captions) != names
            self.rewards["plain"] = (lambda i, d: fair(i, d) + unsure[i]) if swapped else fair
            return super().score(videos, [Path(v).stem for v in videos])

    found = results(Ignores(plain=fair, blank=lambda i, d: 0.1), many)["swapped_captions"]
    assert found.value < 0 < found.ci95[1] and found.passed is False


@pytest.mark.parametrize(("change", "passed"), [(-0.3, True), (0.0, None), (0.2, False)])
def test_what_a_frozen_clip_and_shuffled_frames_earn_for_their_motion(change, passed, many):
    def moved(i, d):
        return fair(i, d) + (change if d is Dimension.MOTION_SMOOTHNESS else 0.3)

    found = results(Scripted(plain=fair, blank=lambda i, d: 0.1, frozen=moved, shuffled=moved), many)
    for name in ("frozen_video", "shuffled_frames"):
        assert found[name].passed is passed and found[name].value == pytest.approx(change * 0.85)


def test_a_broken_clip_is_left_out_and_counted(squares, tmp_path):
    videos, captions = squares
    checks = results(ColourJudge(), ([*videos, tmp_path / "none.mp4"], [*captions, "red"]))
    assert checks["unscored"].value == 0.25 and checks["swapped_captions"].passed
    with pytest.raises(ValueError, match="no clip could be scored"):
        audit(ColourJudge(), [tmp_path / "none.mp4"] * 2, ["red", "blue"])


def test_a_clip_of_odd_size_is_audited(squares, tmp_path):
    """As 853x480, which H.264 has no even chroma for; other codecs do."""
    pixels = read_video(squares[0][0]).frames[:, :31, :47]
    with av.open(str(tmp_path / "odd.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = 31, 47, "bgr0"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    checks = results(ColourJudge(), ([tmp_path / "odd.avi", *squares[0][1:]], squares[1]))
    assert checks["unscored"].value == 0 and checks["blank_video"].passed


def test_equal_captions_cannot_be_swapped():
    with pytest.raises(ValueError, match="equal"):
        swap_captions(["a", "a"])


def test_evaluate_loads_the_metric_modules_by_path():
    agreement = evaluate.load(str(Path(label_agreement.__file__).parent))
    result = agreement.compute(predictions=[GOOD, "bad", NORMAL], references=[GOOD, GOOD, NORMAL])
    assert result["accuracy"] == pytest.approx(2 / 3) and result["confusion"] == [[0, 0, 0], [0, 1, 0], [1, 0, 1]]
    reward = evaluate.load(str(Path(lift_reward.__file__).parent))
    answers = [[f"{GOOD}. Fine.", f"{BAD}: torn.", f"{NORMAL}"], ["", f"{GOOD}.", f"{GOOD}."]]
    result = reward.compute(predictions=answers)
    assert result["reward"] == pytest.approx((0.9 + 0.05 + 0.2) / 3) and result["num_unscored"] == 1


def test_a_calibration_error_outside_its_own_bootstrap_has_no_interval():
    """Right as often as it says: the resamples are all further off, since the error of a bin is never negative."""
    probs = ((0.25, 0.25, 0.5), (0.1, 0.2, 0.7))
    rows = []
    for number in range(40):
        chosen = probs[number % 2]
        right = number % 4 < 2 if number % 2 == 0 else number % 20 not in (1, 3, 5)
        truth = Label.GOOD if right else Label.BAD
        rows.append(Verdict(str(number), Dimension.VIDEO_FIDELITY, truth, Label.GOOD, chosen))
    figures = {row.metric: row for row in evaluate_verdicts(rows, system="tiny")}
    error = figures["critic/overall/calibration_error"]
    assert error.value < 0.03 and error.ci95 is None
    assert figures["critic/overall/accuracy"].ci95 is not None
