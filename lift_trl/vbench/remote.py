"""VBench run by somebody else: command lines for a terminal, for docker and for HF Jobs, of the dimensions still to do."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .env import REQUIREMENTS, WORKER, VBenchEnvironment
from .run import VBenchJob


IMAGE = "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-devel"


def hand_commands(job: VBenchJob, pending: Mapping[str, str], environment: VBenchEnvironment) -> list[list[str]]:
    """One line for each of the `pending` dimensions (`vbench_run.pending_dimensions`), for a terminal of this machine."""
    prefix = ["env", f"VBENCH_CACHE_DIR={environment.cache.absolute()}"]
    return [[*prefix, *environment.worker(*job.options(name, key))] for name, key in pending.items()]


def docker_commands(job: VBenchJob, pending: Mapping[str, str], cache: Path, *, image: str = IMAGE) -> list[list[str]]:
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
    there = replace(job, videos=Path("/videos"), full_info=Path("/full_info.json"), output=Path("/output"))
    return [[*prefix, "bash", "-c", _inside(there, name, key, "/worker.py")] for name, key in pending.items()]


def hf_jobs_commands(
    job: VBenchJob,
    pending: Mapping[str, str],
    bucket: str,
    name: str,
    *,
    flavor: str = "a10g-large",
    image: str = IMAGE,
) -> list[list[str]]:
    """
    One `hf jobs run` a dimension, then the line that brings the results here. Clips and worker are synced to the Hub;
    weights and results stay in `bucket` (`user/name`), the latter under `output/{name}`. Asserted by tests as text; never
    run by this project.
    """
    volumes = {
        f"{job.videos.resolve()}": "/videos:ro",
        f"{job.full_info.resolve().parent}": "/info:ro",
        str(WORKER.parent): "/worker:ro",
        f"hf://buckets/{bucket}": "/bucket:rw",
    }
    mounts = [part for source, inside in volumes.items() for part in ("-v", f"{source}:{inside}")]
    prefix = ["hf", "jobs", "run", "--flavor", flavor, "--timeout", "12h", "--secrets", "HF_TOKEN"]
    prefix += ["-e", "VBENCH_CACHE_DIR=/bucket/cache", *mounts, image, "bash", "-c"]
    info = Path("/info") / job.full_info.name
    # VBench works on the job's own disk; the stamp is copied first, as a result without one does not count.
    there = replace(job, videos=Path("/videos"), full_info=info, output=Path("/tmp/output"))
    target = shlex.quote(f"/bucket/output/{name}")
    copies = [f"cp /tmp/output/*_{what}.json {target}" for what in ("stamp", "eval_results")]
    after = " && ".join([f"mkdir -p {target}", *copies])
    lines = [
        [*prefix, f"{_inside(there, dimension, key, '/worker/worker.py')} && {after}"]
        for dimension, key in pending.items()
    ]
    return [*lines, ["hf", "buckets", "sync", f"hf://buckets/{bucket}/output/{name}", str(job.output.absolute())]]


def _inside(job: VBenchJob, dimension: str, key: str, worker: str) -> str:
    """The shell line within a container: VBench's tools, its requirements, one dimension."""
    tools = "apt-get update -q && apt-get install -q -y git wget unzip libgl1 libglib2.0-0"
    options = shlex.join(job.options(dimension, key))
    return f"{tools} && pip install -q {shlex.join(REQUIREMENTS)} && python -I {worker} {options}"
