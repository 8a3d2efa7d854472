import math
from pathlib import Path
from uuid import uuid4

import pytest

import lift_trl.metrics as metrics
from lift_trl.metrics.preference_accuracy.preference_accuracy import PreferenceAccuracy
from lift_trl.metrics.vbench_aggregate.vbench_aggregate import VBenchAggregate
from lift_trl.metrics.win_rate.win_rate import WinRateMetric
from lift_trl.vbench.suite import DIMENSIONS


FOLDER = Path(metrics.__file__).parent


@pytest.fixture(params=["load", "class"])
def load(request):
    import evaluate

    classes = {
        "win_rate": WinRateMetric,
        "vbench_aggregate": VBenchAggregate,
        "preference_accuracy": PreferenceAccuracy,
    }
    if request.param == "load":
        return lambda name: evaluate.load(str(FOLDER / name))
    return lambda name: classes[name](experiment_id=uuid4().hex)  # else one waits a second for another's lock


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
