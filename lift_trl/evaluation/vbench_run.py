"""Runs VBench, one subprocess a dimension, so that one that fails does not lose the others; finished ones are not redone."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..store.manifest import write_text
from .vbench_check import Problem
from .vbench_env import REQUIREMENTS, WORKER, VBenchEnvironment, check_environment
from .vbench_eval import DIMENSIONS, FLICKERING, Protocol
from .vbench_results import RUN_FILE as RUN_FILE


logger = logging.getLogger(__name__)

Status = Literal["done", "failed", "not ready"]
MODES = {"vbench": "vbench_standard", "vbench-long": "long_vbench_standard", "vbench-custom": "custom_input"}
IMAGE = "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-devel"


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
        output: where `{dimension}_eval_results.json` and `run.json` go.
        static_filter: measure temporal flickering on static clips only, as the leaderboard does (needs CUDA).
    """

    videos: Path
    full_info: Path
    output: Path
    dimensions: tuple[str, ...]
    protocol: Protocol = "vbench"
    device: str = "cuda"
    static_filter: bool = True

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

    def options(self, dimension: str, output: Path | str, *, videos: Path | str | None = None) -> list[str]:
        """The worker's options for one dimension."""
        options = {
            "videos": videos or self.videos,
            "full_info": self.full_info,
            "dimension": dimension,
            "output": output,
            "mode": MODES[self.protocol],
            "device": self.device,
        }
        listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [*listed, "--static_filter"] if self.filters_static and dimension == FLICKERING else listed


def run_vbench(job: VBenchJob, environment: VBenchEnvironment) -> list[DimensionRun]:
    """
    Runs every dimension of `job` that has no result yet; logs go to `{output}/logs/{dimension}.log`.

    A dimension that misses packages or weights is not started, and says what it misses. A result appears whole or not at
    all, so a killed evaluation is resumed by the same call and ends with the same files.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    pending = [name for name in job.dimensions if not result_path(job.output, name).is_file()]
    # Looking into the environment imports its torch, which takes seconds: not where nothing is left to do.
    stamp = environment.probe() if pending else {}
    is_long = job.protocol == "vbench-long"
    problems = (
        check_environment(environment, pending, stamp, static_filter=job.filters_static, long=is_long)
        if pending
        else []
    )
    runs = [_run_dimension(job, environment, name, _blocking(problems, name), stamp) for name in job.dimensions]
    content = {"protocol": job.protocol, "static_filter": job.filters_static, "runs": [asdict(run) for run in runs]}
    write_text(job.output / RUN_FILE, json.dumps(content, indent=1))
    return runs


def _blocking(problems: Sequence[Problem], dimension: str) -> list[Problem]:
    return [p for p in problems if p.fatal and (p.where == dimension or p.where.startswith("vbench"))]


def result_path(output: Path, dimension: str) -> Path:
    """Where the result of `dimension` stands."""
    return output / f"{dimension}_eval_results.json"


def _run_dimension(
    job: VBenchJob, environment: VBenchEnvironment, dimension: str, blocking: list[Problem], stamp: Mapping[str, Any]
) -> DimensionRun:
    if result_path(job.output, dimension).is_file():
        return DimensionRun(dimension, "done")
    if blocking:
        message = "; ".join(problem.message for problem in blocking)
        logger.warning("%s is not ready: %s", dimension, message)
        return DimensionRun(dimension, "not ready", message=message)
    work = job.output / ".work" / dimension
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    log = job.output / "logs" / f"{dimension}.log"
    log.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    with open(log, "wb") as file:
        command = environment.worker(*job.options(dimension, work))
        code = subprocess.run(command, env=environment.variables(), stdout=file, stderr=subprocess.STDOUT).returncode
    seconds = time.monotonic() - started
    result = result_path(work, dimension)
    if code or not result.is_file():
        lines = log.read_text(errors="replace").strip().splitlines()
        message = f"exit code {code}: {lines[-1] if lines else 'no output'} (all of it in {log})"
        logger.warning("%s failed: %s", dimension, message)
        return DimensionRun(dimension, "failed", seconds, message)
    # The result last: it is what says that the dimension is done.
    write_text(job.output / f"{dimension}_stamp.json", json.dumps({"protocol": job.protocol, **stamp}, indent=1))
    os.replace(result, job.output / result.name)
    shutil.rmtree(work)
    logger.info("%s done in %.0f s", dimension, seconds)
    return DimensionRun(dimension, "done", seconds)


def docker_commands(job: VBenchJob, cache: Path, *, image: str = IMAGE) -> list[list[str]]:
    """
    One `docker run` a dimension, over the same files. Asserted by tests as text; never run by this project.

    The image needs a CUDA driver on the host; the requirements are installed when the container starts.
    """
    mounts = {
        f"{job.videos.resolve()}": "/videos:ro",
        f"{job.full_info.resolve()}": "/full_info.json:ro",
        f"{job.output.resolve()}": "/output",
        f"{cache.resolve()}": "/cache",
        str(WORKER): "/worker.py:ro",
    }
    volumes = [part for host, inside in mounts.items() for part in ("-v", f"{host}:{inside}")]
    prefix = ["docker", "run", "--rm", "--gpus", "all", "-e", "VBENCH_CACHE_DIR=/cache", *volumes, image]
    return [[*prefix, "bash", "-c", _inside(job, dimension)] for dimension in job.dimensions]


def hf_jobs_commands(
    job: VBenchJob, bucket: str, *, flavor: str = "a10g-large", image: str = IMAGE
) -> list[list[str]]:
    """
    One `hf jobs run` a dimension. Clips and worker are synced to the Hub; results and weights stay in `bucket`
    (`user/name`). Asserted by tests as text; never run by this project.
    """
    volumes = {
        f"{job.videos.resolve()}": "/videos:ro",
        f"{job.full_info.resolve().parent}": "/info:ro",
        str(WORKER.parent): "/worker:ro",
        f"hf://buckets/{bucket}": "/bucket:rw",
    }
    mounts = [part for source, inside in volumes.items() for part in ("-v", f"{source}:{inside}")]
    common = ["hf", "jobs", "run", "--flavor", flavor, "--timeout", "12h", "--secrets", "HF_TOKEN"]
    env = ["-e", "VBENCH_CACHE_DIR=/bucket/cache"]
    paths = {"worker": "/worker/vbench_worker.py", "info": f"/info/{job.full_info.name}", "output": "/bucket/output"}
    return [[*common, *env, *mounts, image, "bash", "-c", _inside(job, name, **paths)] for name in job.dimensions]


def _inside(
    job: VBenchJob,
    dimension: str,
    *,
    worker: str = "/worker.py",
    info: str = "/full_info.json",
    output: str = "/output",
) -> str:
    """The shell line within a container: VBench's tools, its requirements, one dimension."""
    inside = VBenchJob(
        Path("/videos"), Path(info), Path(output), job.dimensions, job.protocol, job.device, job.static_filter
    )
    options = shlex.join(inside.options(dimension, output))
    tools = "apt-get update -q && apt-get install -q -y git wget unzip libgl1 libglib2.0-0"
    return f"{tools} && pip install -q {shlex.join(REQUIREMENTS)} && python -I {worker} {options}"
