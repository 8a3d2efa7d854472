"""Runs VBench, one subprocess a dimension, so that one that fails does not lose the others; finished ones are not redone."""

import json
import logging
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..records import content_id
from ..store.manifest import write_text
from .check import Problem
from .env import VBenchEnvironment, check_environment, needed_weights, sha256
from .results import RUN_FILE as RUN_FILE
from .results import Planned, load_results
from .suite import DIMENSIONS, FLICKERING, Protocol


logger = logging.getLogger(__name__)

Status = Literal["done", "failed", "not ready"]
MODES = {"vbench": "vbench_standard", "vbench-long": "long_vbench_standard", "vbench-custom": "custom_input"}


@dataclass(frozen=True)
class DimensionRun:
    """What became of one dimension: `message` says why where it is not done."""

    dimension: str
    status: Status
    seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class VBenchJob:
    """
    What VBench is asked to do.

    Attributes:
        videos: a clean folder of clips under VBench's names (`vbench_plan.link_videos`).
        full_info: the JSON of the planned prompts (`vbench_plan.write_full_info`).
        output: where `{dimension}_eval_results.json`, its stamp and `run.json` go: a folder of this system and protocol.
        static_filter: measure temporal flickering on static clips only, as the leaderboard does (needs CUDA).
        planned: what each dimension is to be measured on, to tell results that are incomplete or estimates.
        stamps: how the clips were planned, for the report.
    """

    videos: Path
    full_info: Path
    output: Path
    dimensions: tuple[str, ...]
    protocol: Protocol = "vbench"
    device: str = "cuda"
    static_filter: bool = True
    planned: Mapping[str, Planned] = field(default_factory=dict)
    stamps: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol == "vbench-custom":
            refused = [name for name in self.dimensions if DIMENSIONS[name].auxiliary]
            if refused:
                raise ValueError(
                    f"{', '.join(refused)} need VBench's own prompts; use dims=custom6 with vbench-custom."
                )

    @property
    def filters_static(self) -> bool:
        """Whether the static filter runs: it knows VBench's own prompts only."""
        return self.static_filter and self.protocol != "vbench-custom"

    def keys(self) -> dict[str, str]:
        """What the result of each dimension is made of, as one id: mode, filter, prompts, names and bytes of its clips."""
        rows = json.loads(self.full_info.read_text(encoding="utf-8"))
        clips = {path.name: sha256(path) for path in sorted(self.videos.glob("*.mp4"))}
        keys = {}
        for name in self.dimensions:
            mine = [row for row in rows if name in row["dimension"]]
            prompts = {row["prompt_en"] for row in mine}
            is_custom = self.protocol == "vbench-custom"
            used = [clip for clip in clips.items() if is_custom or clip[0].rpartition("-")[0] in prompts]
            filters = self.filters_static and name == FLICKERING
            keys[name] = content_id(MODES[self.protocol], filters, json.dumps(mine, sort_keys=True), json.dumps(used))
        return keys

    def options(self, dimension: str, key: str) -> list[str]:
        """The worker's options for one dimension."""
        options = {
            "videos": self.videos.absolute(),
            "full_info": self.full_info.absolute(),
            "dimension": dimension,
            "output": self.output.absolute(),
            "mode": MODES[self.protocol],
            "device": self.device,
            "key": key,
        }
        listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        if self.filters_static and dimension == FLICKERING:
            listed.append("--static_filter")
        weights = [weight.path for weight in needed_weights([dimension], static_filter=self.filters_static)]
        return [*listed, "--weights", *weights] if weights else listed


def run_vbench(job: VBenchJob, environment: VBenchEnvironment) -> list[DimensionRun]:
    """
    Runs every dimension of `job` that has no result yet; logs go to `{output}/logs/{dimension}.log`.

    A dimension that misses packages or weights is not started, and says what it misses. A result appears whole or not at
    all, so a killed evaluation is resumed by the same call and ends with the same files.
    """
    pending = pending_dimensions(job)
    # Looking into the environment imports its torch, which takes seconds: not where nothing is left to do.
    problems = (
        check_environment(
            environment,
            tuple(pending),
            environment.probe(),
            static_filter=job.filters_static,
            long=job.protocol == "vbench-long",
        )
        if pending
        else []
    )
    runs = [
        _run_dimension(job, environment, name, pending[name], _blocking(problems, name))
        if name in pending
        else DimensionRun(name, "done")
        for name in job.dimensions
    ]
    write_run(job, runs)
    return runs


def pending_dimensions(job: VBenchJob) -> dict[str, str]:
    """
    The dimensions that have no result yet, each with the key that its result will be stamped with. A result of other
    clips, prompts or settings is moved to `{output}/stale`.
    """
    pending = {}
    for name, key in job.keys().items():
        result, stamp = result_path(job.output, name), stamp_path(job.output, name)
        if not result.is_file():
            pending[name] = key
        elif not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8"))["key"] != key:
            logger.warning("%s was measured on other clips, prompts or settings; measuring again", result)
            set_aside(job, name)
            pending[name] = key
    return pending


def set_aside(job: VBenchJob, dimension: str) -> None:
    """Moves a result that does not count to `{output}/stale`, and its stamp."""
    stale = job.output / "stale"
    stale.mkdir(exist_ok=True)
    for path in (result_path(job.output, dimension), stamp_path(job.output, dimension)):
        if path.is_file():
            path.replace(stale / path.name)


def write_run(job: VBenchJob, runs: Sequence[DimensionRun]) -> None:
    """Writes `run.json`: protocol, plan, what became of each dimension, and the stamps that a report shows."""
    content = {
        "protocol": job.protocol,
        "planned": dict(job.planned),
        "stamps": {**job.stamps, "static_filter": str(job.filters_static), **dict(_measured_stamps(job))},
        "runs": [asdict(run) for run in runs],
    }
    write_text(job.output / RUN_FILE, json.dumps(content, indent=1))


def _measured_stamps(job: VBenchJob) -> Iterator[tuple[str, str]]:
    """What the stamps of the results say, in the order of the dimensions: the same after a kill as without."""
    paths = [stamp_path(job.output, name) for name in job.dimensions if result_path(job.output, name).is_file()]
    found: list[dict[str, Any]] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for key in ("vbench", "torch", "gpu"):
        values = dict.fromkeys(stamp[key] or "none" for stamp in found)
        if values:
            yield key, ", ".join(values)
    weights = {f"{path} {digest[:16]}": None for stamp in found for path, digest in stamp["weights"].items()}
    if weights:
        yield "weights_sha256", ", ".join(weights)


def _blocking(problems: Sequence[Problem], dimension: str) -> list[Problem]:
    return [p for p in problems if p.fatal and (p.where == dimension or p.where.startswith("vbench"))]


def result_path(output: Path, dimension: str) -> Path:
    """Where the result of `dimension` stands."""
    return output / f"{dimension}_eval_results.json"


def stamp_path(output: Path, dimension: str) -> Path:
    """Where it stands what that result was made of."""
    return output / f"{dimension}_stamp.json"


def _run_dimension(
    job: VBenchJob, environment: VBenchEnvironment, dimension: str, key: str, blocking: list[Problem]
) -> DimensionRun:
    if blocking:
        message = "; ".join(problem.message for problem in blocking)
        logger.warning("%s is not ready: %s", dimension, message)
        return DimensionRun(dimension, "not ready", message=message)
    log = job.output / "logs" / f"{dimension}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open(log, "wb") as file:
        command = environment.worker(*job.options(dimension, key))
        code = subprocess.run(command, env=environment.variables(), stdout=file, stderr=subprocess.STDOUT).returncode
    seconds = time.monotonic() - started
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        message = f"exit code {code}: {lines[-1] if lines else 'no output'} (all of it in {log})"
    else:
        message = _unusable(job, dimension)
    if message:
        logger.warning("%s failed: %s", dimension, message)
        return DimensionRun(dimension, "failed", seconds, message)
    logger.info("%s done in %.0f s", dimension, seconds)
    return DimensionRun(dimension, "done", seconds)


def _unusable(job: VBenchJob, dimension: str) -> str:
    """Why the result that VBench wrote is none (it is set aside then), empty if it is one."""
    results, notes = load_results(result_path(job.output, dimension), protocol=job.protocol)
    if results:
        return ""
    set_aside(job, dimension)
    return notes[0]
