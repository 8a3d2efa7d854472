"""VBench's part of a report: figures, paired differences, what they were measured with, and what is not measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..records import EvalRow
from ..store.manifest import read_json
from .results import RUN_FILE, load_results
from .score import PairedDelta, paired_deltas, vbench_rows
from .suite import Protocol


class VBenchPart(NamedTuple):
    """`stamps` is system -> what its results were measured with (protocol, versions, device, plan)."""

    rows: list[EvalRow]
    deltas: list[PairedDelta]
    stamps: dict[str, dict[str, str]]
    notes: list[str]


def load_vbench(folders: Mapping[str, Path], base: str, protocol: Protocol) -> VBenchPart:
    """
    The results in `folders`, by system.

    Raises:
        ValueError: if results are of another protocol than `protocol`, or several systems are there without the base.
    """
    if len(folders) > 1 and base not in folders:
        raise ValueError(f"vbench names {', '.join(folders)} but not the base {base!r}; deltas need its results.")
    results, notes = {}, []
    for name, folder in folders.items():
        found, told = load_results(folder, protocol=protocol)
        notes += [f"VBench of {name}: {note}" for note in (*told, *_not_measured(folder))]
        if found:
            results[name] = found
    rows = [row for name, found in results.items() for row in vbench_rows(found, name)]
    deltas = [
        delta
        for name, found in results.items()
        if name != base and base in results
        for delta in paired_deltas(results[base], found, base_name=base, system=name)
    ]
    stamps = {
        name: {"protocol": protocol, **_run(folder).get("stamps", {}), "results": str(folder)}
        for name, folder in folders.items()
    }
    return VBenchPart(rows, deltas, stamps, notes)


def _run(folder: Path) -> Mapping[str, Any]:
    """What our runner says of a folder; nothing where VBench was run by hand."""
    file = folder / RUN_FILE
    return read_json(file) if file.is_file() else {}


def _not_measured(folder: Path) -> list[str]:
    """What a run of VBench left undone."""
    undone = [run["dimension"].replace("_", " ") for run in _run(folder).get("runs", []) if run["status"] != "done"]
    return [f"not measured: {', '.join(undone)}. {folder / RUN_FILE} says why."] if undone else []
