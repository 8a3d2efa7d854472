"""VBench results for others: `model-index` of a model card, and the zip that the leaderboard takes."""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..records import EvalRow
from .results import DimensionResult
from .score import IncompleteResultsError, aggregate
from .suite import DIMENSIONS


def model_index(rows: Sequence[EvalRow], *, model_name: str) -> list[dict[str, Any]]:
    """
    The `model-index` entry of a model card for the figures `rows` of one system, one dataset a suite.

    The protocol stands in the dataset's name, the interval and the number of prompts in each metric's name.

    Raises:
        ValueError: if `rows` are of several systems, or empty.
    """
    systems = sorted({row.system for row in rows})
    if len(systems) != 1:
        raise ValueError(f"rows of systems {systems}; a card holds the figures of one model.")
    results = []
    for suite in dict.fromkeys(row.suite for row in rows):
        metrics = [
            {"type": row.metric, "name": _metric_name(row), "value": round(row.value, 6)}
            for row in rows
            if row.suite == suite
        ]
        results.append(
            {
                "task": {"type": "text-to-video", "name": "Text-to-Video"},
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


def write_leaderboard_zip(results: Mapping[str, DimensionResult], path: Path | str) -> Path:
    """
    The zip that VBench's leaderboard takes: the result files at its top level, one a dimension, nothing else.

    The scores are those that VBench wrote, in its form `{dimension: [score, [per-video values]]}`.

    Raises:
        IncompleteResultsError: unless all 16 dimensions are there with all prompts and samples of VBench's protocol; the
            leaderboard would count 0 for the rest.
        ValueError: if the protocol is not VBench's own.
    """
    aggregate({name: result.reported for name, result in results.items()})
    less = [
        f"{r.dimension}: {', '.join(filter(None, (r.missing, r.estimate)))}"
        for r in results.values()
        if r.missing or r.estimate
    ]
    if less:
        raise IncompleteResultsError(f"VBench's leaderboard takes whole results only; less is {'; '.join(less)}.")
    protocols = {result.protocol for result in results.values()}
    if protocols != {"vbench"}:
        raise ValueError(f"protocol {sorted(protocols)}: VBench's leaderboard compares results of `vbench` only.")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.tmp")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in DIMENSIONS:
            # The official file as it is; a file that holds several dimensions is cut into one each.
            content = json.loads(Path(results[name].source).read_text(encoding="utf-8"))
            entry = zipfile.ZipInfo(f"{name}_eval_results.json", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, json.dumps({name: content[name]}))
    partial.replace(target)
    return target
