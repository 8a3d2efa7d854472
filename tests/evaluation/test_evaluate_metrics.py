from pathlib import Path

import pytest

import lift_trl.evaluation.metrics as metrics
from lift_trl.evaluation.metrics.vbench_aggregate.vbench_aggregate import VBenchAggregate
from lift_trl.evaluation.metrics.win_rate.win_rate import WinRateMetric
from lift_trl.evaluation.vbench_eval import DIMENSIONS


FOLDER = Path(metrics.__file__).parent


@pytest.fixture(params=["load", "class"])
def load(request):
    import evaluate

    classes = {"win_rate": WinRateMetric, "vbench_aggregate": VBenchAggregate}
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
