"""Figures of one system in the form of a model card: its `model-index`."""

import re
from collections.abc import Sequence
from typing import Any

from ..records import EvalRow


def model_index(
    rows: Sequence[EvalRow], *, model_name: str, task: tuple[str, str] = ("text-to-video", "Text-to-Video")
) -> list[dict[str, Any]]:
    """
    The `model-index` entry of a model card for the figures `rows` of one system, one dataset a suite.

    The suite (a protocol of VBench, for instance) stands in the dataset's name, the interval and the number of prompts in
    each metric's name.

    Args:
        task: type and name of what the model was measured at, by the Hub's names.

    Raises:
        ValueError: if `rows` are of several systems, or empty.
    """
    systems = sorted({row.system for row in rows})
    if len(systems) != 1:
        raise ValueError(f"rows of systems {systems}; a card holds the figures of one model.")
    kind, name = task
    results = []
    for suite in dict.fromkeys(row.suite for row in rows):
        metrics = [
            {"type": row.metric, "name": _metric_name(row), "value": round(row.value, 6)}
            for row in rows
            if row.suite == suite
        ]
        results.append(
            {
                "task": {"type": kind, "name": name},
                "dataset": {"type": re.sub(r"[^a-z0-9-]", "-", suite), "name": suite},
                "metrics": metrics,
            }
        )
    return [{"name": model_name, "results": results}]


def _metric_name(row: EvalRow) -> str:
    name = row.metric.removeprefix(f"{row.suite}/").replace("_", " ")
    if row.ci95 is None:
        return f"{name} (n={row.n})"
    return f"{name} (95% interval {row.ci95[0]:.4f} to {row.ci95[1]:.4f}, n={row.n})"
