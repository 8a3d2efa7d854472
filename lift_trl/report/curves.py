"""Training curves of a report: a Trainer's log, and what a guard watched. A run that diverged is one to look at."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..store.manifest import STATE_FILE, read_json
from .data import Curve


#: What a guard writes (`recipes/iterate.py`, `recipes/align.py`).
GUARD_FILE = "guard.json"
# By what docs/objectives.md tells an objective that fails.
_HEALTH = (
    *("kl_fraction", "kl_old_fraction"),
    *("rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected"),
)
_WANTED = ("loss", "loss_unweighted", "reward_mean", "eval_loss", "mean_token_accuracy", *_HEALTH)


def load_curves(name: str, path: Path) -> list[Curve]:
    """
    The losses, rewards, accuracies and an objective's health in a Trainer's `trainer_state.json`, or the two curves of a
    guard's `guard.json`; of a folder those that it holds. What is infinite becomes NaN, a gap in the curve.

    Raises:
        ValueError: naming the file, if it is neither, or a value of it is no number.
    """
    if path.is_dir() and (path / GUARD_FILE).is_file():
        state = path / STATE_FILE
        return load_curves(name, path / GUARD_FILE) + (load_curves(name, state) if state.is_file() else [])
    file = path / STATE_FILE if path.is_dir() else path
    content = read_json(file)
    try:
        return _guard_curves(name, content) if file.name == GUARD_FILE else _log_curves(name, content["log_history"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: no training log as a Trainer writes it ({STATE_FILE}), and no {GUARD_FILE} ({error!r}). Name the "
            "output_dir of the training."
        ) from error


def _log_curves(name: str, history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    curves = []
    for key in _WANTED:
        rows = [row for row in history if key in row]
        if len(rows) > 1:
            steps, values = (tuple(_number(row[column]) for row in rows) for column in ("step", key))
            curves.append(Curve(key.replace("_", " ").replace("/", ": "), name, steps, values))
    return curves


def _guard_curves(name: str, watched: Mapping[str, Any]) -> list[Curve]:
    """Whether the judge that gave no reward agrees that the rounds (or steps) get better."""
    checks, unit = watched["checks"], watched["unit"]
    numbers = tuple(_number(check["number"]) for check in checks)
    return [
        Curve(
            f"mean reward by {unit}", f"{name}: {who}", numbers, tuple(_number(check[key]) for check in checks), unit
        )
        for key, who in (("reward", "the critic that rewards"), ("judge", "a judge that does not"))
    ]


def _number(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else math.nan


def gap_notes(curves: Sequence[Curve]) -> list[str]:
    """Which curves have values that are no finite numbers: where a run diverged, or ran over the range of fp16."""
    return [
        f"{curve.name}: {curve.group} is infinite or NaN at {gaps.count(True)} of {len(gaps)} {curve.unit}s, first at "
        f"{curve.unit} {curve.steps[gaps.index(True)]:g}; the curve has gaps there."
        for curve in curves
        if True in (gaps := [not math.isfinite(value) for value in curve.values])
    ]
