import math
from pathlib import Path

import pytest

import lift_trl.metrics as metrics
from lift_trl.metrics.bradley_terry.bradley_terry import BradleyTerry
from lift_trl.metrics.calibration.calibration import Calibration
from lift_trl.metrics.drift.drift import Drift
from lift_trl.metrics.judge_agreement.judge_agreement import JudgeAgreementMetric
from lift_trl.metrics.preference_accuracy.preference_accuracy import PreferenceAccuracy
from lift_trl.metrics.vbench_aggregate.vbench_aggregate import VBenchAggregate
from lift_trl.metrics.win_rate.win_rate import WinRateMetric
from lift_trl.store.video_io import write_video
from lift_trl.vbench.suite import DIMENSIONS
from tests.clips import clip


FOLDER = Path(metrics.__file__).parent


@pytest.fixture(params=["load", "class"])
def load(request):
    import evaluate

    classes = {
        "win_rate": WinRateMetric,
        "vbench_aggregate": VBenchAggregate,
        "preference_accuracy": PreferenceAccuracy,
        "bradley_terry": BradleyTerry,
        "judge_agreement": JudgeAgreementMetric,
        "drift": Drift,
        "calibration": Calibration,
    }
    return (
        (lambda name: evaluate.load(str(FOLDER / name))) if request.param == "load" else lambda name: classes[name]()
    )


def test_win_rate(load):
    metric = load("win_rate")
    metric.add_batch(predictions=["a", "a", "b"], references=["p", "p", "q"])
    metric.add_batch(predictions=["tie", "a"], references=["q", "r"])
    found = metric.compute()
    assert (found["win"], found["tie"], found["loss"], found["n"]) == pytest.approx((0.6, 0.2, 0.2, 3))
    assert found["win_low"] <= 0.6 <= found["win_high"]
    with pytest.raises(ValueError, match="left"):
        load("win_rate").compute(predictions=["left"], references=["p"])


def test_vbench_aggregate(load):
    found = load("vbench_aggregate").compute(predictions=[0.9] * 16, references=list(DIMENSIONS))
    assert found["total_score"] == pytest.approx(0.9682010625, abs=1e-10)
    with pytest.raises(ValueError, match="missing: scene"):
        load("vbench_aggregate").compute(predictions=[0.9] * 15, references=[d for d in DIMENSIONS if d != "scene"])


def test_preference_accuracy(load):
    found = load("preference_accuracy").compute(predictions=[0.5, 0.4, 0.1, 0.2], references=[1, -1, 0, 1])
    assert (found["without_ties"], found["num_pairs"], found["num_decided"]) == (pytest.approx(2 / 3), 4, 3)
    # At a tie threshold of 0.1 the third pair is a tie, as people say: three of four.
    assert found["with_ties"] == 0.75 and found["with_ties_low"] < 0.75 < found["with_ties_high"]
    assert math.isnan(load("preference_accuracy").compute(predictions=[0.5], references=[0])["without_ties"])


def test_bradley_terry(load):
    pairs = [["lora", "base", f"p{i}"] for i in range(40)]
    found = load("bradley_terry").compute(predictions=["a"] * 30 + ["b"] * 10, references=pairs)["strengths"]
    value, low, high = found["lora"]
    assert value == pytest.approx(math.log(3) / 2, abs=1e-3) and low < value < high
    assert found["base"][0] == pytest.approx(-value)
    with pytest.raises(ValueError, match="three texts"):
        load("bradley_terry").compute(predictions=["a"], references=[["lora", "base"]])


def test_judge_agreement(load):
    found = load("judge_agreement").compute(predictions=[1, 1, 0, 0], references=[[1, 1], [-1, -1, 1], [0], [1, 1, 0]])
    assert (found["with_ties"], found["without_ties"]) == (0.5, pytest.approx(1 / 3))
    assert found["kappa"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    with pytest.raises(ValueError, match="use 1, 0 and -1"):
        load("judge_agreement").compute(predictions=[2], references=[[1]])


def test_drift(load, tmp_path, make_clip):
    base = [str(make_clip(tmp_path / f"base{i}.mp4", seed=i)) for i in range(2)]
    still = []
    for i in range(2):
        write_video(tmp_path / f"still{i}.mp4", clip(i)[[0] * 9], fps=8)
        still.append(str(tmp_path / f"still{i}.mp4"))
    found = load("drift").compute(predictions=still, references=base)
    assert found["motion_energy"]["change"] < -0.9 and found["motion_energy"]["level"] == "watch"
    assert abs(found["brightness"]["change"]) < 0.2 and found["brightness"]["level"] == "ok"
    assert set(found) == {"motion_energy", "sharpness", "saturation", "brightness", "diversity"}


def test_calibration(load):
    found = load("calibration").compute(predictions=[0.95, 0.95, 0.45], references=[1, 0, 1])
    # |0.95 - 0.5| of two answers and |0.45 - 1| of one.
    assert found["calibration_error"] == pytest.approx((2 * 0.45 + 0.55) / 3)
    assert found["accuracy"] == [1.0, 0.5] and found["counts"] == [1, 2]
    with pytest.raises(ValueError, match="use"):
        load("calibration").compute(predictions=[1.5], references=[1])
