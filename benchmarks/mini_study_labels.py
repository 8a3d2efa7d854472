"""What `benchmarks.mini_study` makes of a judge's labels: noise, and controls in which they say nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lift_trl.rubric import LIFT, Dimension, Label


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the labels and rewards of other rows."""
    order = np.random.default_rng(0).permutation(len(rows))
    names = [*(d.value for d in Dimension), "reward"]
    return [{**row, **{name: rows[i][name] for name in names}} for row, i in zip(rows, order, strict=True)]


def equal(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without labels whose reward is that of all rows together: SFT that weighs as much as RWL beside the real term."""
    reward = float(np.mean([row["reward"] for row in rows]))
    kept = [{name: value for name, value in row.items() if name not in list(Dimension)} for row in rows]
    return [{**row, "reward": reward} for row in kept]


def noisy(rows: list[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """Rows in which each label is a neighbouring one by the chance `rate`."""
    rng, ranked = np.random.default_rng(1), sorted(Label, key=lambda label: label.rank)
    noisy = []
    for row in rows:
        labels = {d: Label(row[d.value]) for d in Dimension}
        for dimension, label in labels.items():
            if rng.random() < rate:
                near = [other for other in ranked if abs(other.rank - label.rank) == 1]
                labels[dimension] = near[rng.integers(len(near))]
        reward = LIFT.mean_reward(labels)
        noisy.append({**row, **{d.value: label.value for d, label in labels.items()}, "reward": reward})
    return noisy


def expected(rewards: Sequence[float], objective: str) -> float:
    """Mean reward of p'(x|z) proportional to p(x|z) r(x, z), the samples of a perfect fit (RS: of the best only)."""
    r = np.asarray(rewards)
    weights = r if objective == "rwl" else (r == r.max()).astype(float)
    return float((weights * r).sum() / weights.sum())
