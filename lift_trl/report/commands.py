"""A report, and an evaluation that ends in one: `lift-trl eval report` and recipes/evaluate.py."""

import logging
from pathlib import Path

from ..store.disk.outputs import check_new_file, check_writable
from ..store.manifest import check_kind, read_json
from ..vbench.commands import VBenchArguments, make_job, run
from ..vbench.export import write_leaderboard_zip
from ..vbench.results import load_results
from ..vbench.score import IncompleteResultsError
from ..vbench.suite import PROTOCOLS
from .inputs import ReportArguments, build_report, named_paths
from .model_index import MODEL_INDEX_FILE
from .page import save_report


logger = logging.getLogger(__name__)


def evaluate(args: ReportArguments, vbench: VBenchArguments) -> Path:
    """
    VBench on every system that `args.vbench` has no results of, then the report of all that is there; returns the page's
    path. With `runner=none` the links and command lines are made where there is a plan.

    Dimensions without a result are logged with the reason and left out; the report never has a total of a part.
    """
    if args.protocol not in PROTOCOLS:
        raise ValueError(f"protocol={args.protocol!r}; use one of {', '.join(PROTOCOLS)}.")
    _check_folder(Path(args.report_dir))
    results, systems = named_paths(args.vbench), named_paths(args.systems)
    if vbench.runner == "none" and vbench.plan is None:
        return report(args)
    # All that can be wrong with the clips of any system is found before the first runs for days.
    jobs = {
        name: make_job(vbench, name, folder, args.protocol) for name, folder in systems.items() if name not in results
    }
    for name, job in jobs.items():
        if any(found.status == "done" for found in run(vbench, job, f"{name}/{args.protocol}")):
            results[name] = job.output
    return report(ReportArguments(**{**vars(args), "vbench": [f"{name}={path}" for name, path in results.items()]}))


def report(args: ReportArguments) -> Path:
    """
    `lift-trl eval report`: the report of what the folders hold; returns the page's path. Beside it, for each system with
    whole VBench results, the leaderboard's zip.
    """
    _check_folder(Path(args.report_dir))
    page = save_report(build_report(args), args.report_dir)
    for name, folder in named_paths(args.vbench).items():
        _export(args, name, folder)
    return page


def _check_folder(folder: Path) -> None:
    """Raises `FileExistsError` where a report would take the place of something else than a report."""
    check_writable(folder)
    check_kind(folder, "report")
    first = folder / "report.json"
    if not first.is_file() or "schema" not in read_json(first):
        for name in ("report.json", "report.md", "report.html", MODEL_INDEX_FILE):
            check_new_file(folder / name)


def _export(args: ReportArguments, name: str, folder: Path) -> None:
    archive = Path(args.report_dir) / f"{name}_vbench_leaderboard.zip"
    archive.unlink(missing_ok=True)
    if args.protocol == "vbench":
        results, _ = load_results(folder, protocol=args.protocol)
        try:
            write_leaderboard_zip(results, archive)
        except IncompleteResultsError as error:
            logger.info("no zip of %s for VBench's leaderboard: %s", name, error)
