"""VBench results as the zip that the leaderboard takes."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from .results import DimensionResult
from .score import IncompleteResultsError, aggregate
from .suite import DIMENSIONS


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
