"""VBench's steps as functions of plain arguments: plan, check, run, for `lift-trl eval` and recipes/evaluate.py."""

import logging
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..documented import documented
from ..records import content_id
from ..store.disk.outputs import check_new_folder, check_writable
from ..store.manifest import check_kind, write_text
from ..store.system_clips import load_system
from .check import CheckResult, check_videos
from .env import VBenchEnvironment, check_environment, default_cache, fetch_weights, make_environment
from .plan import PLAN_KIND, Plan, link_file, link_videos, make_plan, write_full_info
from .remote import docker_commands, hand_commands, hf_jobs_commands
from .results import Planned
from .run import DimensionRun, VBenchJob, pending_dimensions, run_vbench, write_run
from .suite import (
    FLICKER_SAMPLES,
    FLICKERING,
    SAMPLES_READ,
    PromptSet,
    Protocol,
    load_suite,
    select_dimensions,
)


logger = logging.getLogger(__name__)

Runner = Literal["venv", "python", "docker", "hf-jobs", "none"]
_INFO = "info/full_info.json"
RUNNERS: tuple[Runner, ...] = ("venv", "python", "docker", "hf-jobs", "none")


@documented
@dataclass
class PlanArguments:
    """
    `lift-trl eval plan`: which clips VBench needs.

    Args:
        suite (`str`):
            VBench_full_info.json, LiFT's Vbench_full_info_opt.json, or a VBench folder.
        output (`str`):
            Folder of the plan.
        prompts (`str`, *optional*, defaults to `"original"`):
            original, lift_opt or vbench_longer.
        longer_prompts (`str` or `None`, *optional*, defaults to `None`):
            VBench's all_dimension_longer.txt.
        dims (`list[str]`, *optional*, defaults to `["all"]`):
            all, no-detectron, quality, semantic, custom6, or names of dimensions.
        samples (`int`, *optional*, defaults to `5`):
            Clips a prompt. VBench's protocol is 5.
        flicker_samples (`int`, *optional*, defaults to `25`):
            Clips a prompt of temporal flickering (protocol: 25).
        limit_per_dimension (`int` or `None`, *optional*, defaults to `None`):
            Draw this many prompts of each dimension instead of all.
        base_seed (`int`, *optional*, defaults to `0`):
            Of the draw and of every clip's own seed.
    """

    suite: str
    output: str
    prompts: PromptSet = "original"
    longer_prompts: str | None = None
    dims: list[str] = field(default_factory=lambda: ["all"])
    samples: int = SAMPLES_READ
    flicker_samples: int = FLICKER_SAMPLES
    limit_per_dimension: int | None = None
    base_seed: int = 0


def plan(args: PlanArguments) -> str:
    """Writes the plan; returns what to tell the user."""
    check_writable(args.output)
    check_kind(args.output, PLAN_KIND)
    suite = load_suite(args.suite, prompt_set=args.prompts, longer_prompts=args.longer_prompts)
    made = make_plan(
        suite,
        dimensions=args.dims,
        samples=args.samples,
        flicker_samples=args.flicker_samples,
        limit_per_dimension=args.limit_per_dimension,
        seed=args.base_seed,
    )
    made.save(args.output)
    prompts = len({video.prompt_en for video in made.videos})
    lines = [f"{len(made.videos)} clips of {prompts} prompts for {len(made.dimensions)} dimensions: {args.output}"]
    return "\n".join([*lines, *(f"  note: {note}" for note in suite.notes)])


@documented
@dataclass
class VBenchArguments:
    """
    Where and how VBench runs.

    Args:
        plan (`str` or `None`, *optional*, defaults to `None`):
            Folder written by `lift-trl eval plan`.
        dims (`list[str]`, *optional*, defaults to `[]`):
            Run only these dimensions (of the plan's).
        runner (`str`, *optional*, defaults to `"none"`):
            venv, python, docker, hf-jobs or none.
        venv (`str`, *optional*, defaults to `"runs/vbench_env"`):
            Environment made for runner=venv (about 6 GB).
        python (`str` or `None`, *optional*, defaults to `None`):
            Interpreter that has vbench; for runner=venv the one that makes it (Python 3.9 to 3.11).
        vbench_checkout (`str` or `None`, *optional*, defaults to `None`):
            Git checkout of VBench; VBench-Long needs it.
        vbench_cache (`str` or `None`, *optional*, defaults to `None`):
            Folder of VBench's weights.
        vbench_dir (`str`, *optional*, defaults to `"runs/vbench"`):
            Where links, results and logs go, by system and protocol.
        fetch (`bool`, *optional*, defaults to `False`):
            Download missing weights first, and record their sha256.
        static_filter (`bool`, *optional*, defaults to `True`):
            Flickering on static clips only (protocol; CUDA).
        device (`str`, *optional*, defaults to `"cuda"`):
            cuda or cpu.
        bucket (`str` or `None`, *optional*, defaults to `None`):
            Hub bucket of results, for runner=hf-jobs.
        video_frames (`int`, *optional*, defaults to `49`):
            Frames that every clip must have; 0 to allow any.
    """

    plan: str | None = None
    dims: list[str] = field(default_factory=list)
    runner: Runner = "none"
    venv: str = "runs/vbench_env"
    python: str | None = None
    vbench_checkout: str | None = None
    vbench_cache: str | None = None
    vbench_dir: str = "runs/vbench"
    fetch: bool = False
    static_filter: bool = True
    device: str = "cuda"
    bucket: str | None = None
    video_frames: int = 49

    def __post_init__(self) -> None:
        if self.runner not in RUNNERS:
            raise ValueError(f"runner={self.runner!r}; use one of {', '.join(RUNNERS)}.")
        if self.runner == "python" and self.python is None:
            raise ValueError("runner=python needs python, the interpreter of an environment that has vbench.")
        if self.runner == "hf-jobs" and self.bucket is None:
            raise ValueError("runner=hf-jobs needs bucket (user/name), where results and weights are kept.")
        if self.runner in ("docker", "hf-jobs") and self.vbench_checkout is not None:
            raise ValueError(
                f"runner={self.runner} installs vbench's wheel; leave vbench_checkout out, or use venv or python."
            )
        if self.runner == "none" and self.fetch and self.plan is None:
            raise ValueError("fetch=true needs a runner, or a plan that says which dimensions need weights.")
        if self.runner == "hf-jobs" and self.fetch:
            raise ValueError(
                "runner=hf-jobs keeps the weights in the bucket, where VBench itself fetches them; use fetch=false."
            )

    @property
    def cache(self) -> Path:
        return Path(self.vbench_cache) if self.vbench_cache else default_cache()

    def environment(self) -> VBenchEnvironment:
        """The Python that runs VBench; made first for `runner=venv`."""
        python = Path(self.python or ("python" if self.runner == "none" else sys.executable))
        if self.runner == "venv":
            python = make_environment(self.venv, python=python)
        checkout = Path(self.vbench_checkout).absolute() if self.vbench_checkout else None
        return VBenchEnvironment(python, self.cache, checkout)


@documented
@dataclass
class CheckArguments:
    """
    `lift-trl eval check`: is everything there, before a GPU is rented?

    Args:
        plan (`str`):
            Folder written by `lift-trl eval plan`.
        videos (`str`):
            The generated/ folder, or a folder of clips under VBench's names.
        video_frames (`int`, *optional*, defaults to `49`):
            Frames that every clip must have; 0 to allow any.
        python (`str` or `None`, *optional*, defaults to `None`):
            Also check this interpreter's packages and weights.
        vbench_checkout (`str` or `None`, *optional*, defaults to `None`):
            Git checkout of VBench, if one is used.
        vbench_cache (`str` or `None`, *optional*, defaults to `None`):
            Folder of VBench's weights.
        static_filter (`bool`, *optional*, defaults to `True`):
            Flickering on static clips only (protocol; CUDA).
        protocol (`str`, *optional*, defaults to `"vbench"`):
            vbench, vbench-long with its own packages, or vbench-custom.
    """

    plan: str
    videos: str
    video_frames: int = 49
    python: str | None = None
    vbench_checkout: str | None = None
    vbench_cache: str | None = None
    static_filter: bool = True
    protocol: Protocol = "vbench"


def check(args: CheckArguments) -> CheckResult:
    """The preflight of clips and, with `python`, of packages and weights."""
    made = Plan.load(args.plan)
    found = check_videos(made, args.videos, num_frames=args.video_frames or None)
    if args.python is None:
        return found
    cache = Path(args.vbench_cache) if args.vbench_cache else default_cache()
    checkout = Path(args.vbench_checkout) if args.vbench_checkout else None
    environment = VBenchEnvironment(Path(args.python), cache, checkout)
    more = check_environment(
        environment,
        made.dimensions,
        environment.probe(),
        static_filter=args.static_filter,
        long=args.protocol == "vbench-long",
    )
    return CheckResult(found.num_planned, found.num_found, (*found.problems, *more))


def make_job(args: VBenchArguments, system: str, videos: Path, protocol: Protocol) -> VBenchJob:
    """
    What VBench is to do with the clips of one system: they are checked, and linked under its names into a fresh folder
    below `vbench_dir/system/protocol`, where the prompts that it reads and its results stand too.

    Raises:
        ValueError: if there is no plan, clips are missing or broken, or the runner cannot do the protocol.
    """
    if protocol == "vbench-long" and args.runner in ("docker", "hf-jobs"):
        raise ValueError(
            f"runner={args.runner} cannot run vbench-long, which needs a git checkout; use venv or python."
        )
    root = Path(args.vbench_dir) / system / protocol
    if (root / "videos").resolve() in (videos.resolve(), *videos.resolve().parents):
        raise ValueError(f"{videos}: is where the links of this evaluation go; give the folder that they lead to.")
    return custom_job(args, root, videos) if protocol == "vbench-custom" else planned_job(args, root, videos, protocol)


def planned_job(args: VBenchArguments, root: Path, videos: Path, protocol: Protocol) -> VBenchJob:
    """The job of a plan: see `make_job`."""
    if args.plan is None:
        raise ValueError(f"protocol {protocol} needs plan, a folder written by `lift-trl eval plan`.")
    made = Plan.load(args.plan)
    found = check_videos(made, videos, num_frames=args.video_frames or None)
    if not found.ok:
        raise ValueError(f"{videos}: VBench would give wrong figures.\n{found.summary()}")
    links = _emptied(root)
    write_full_info(made, root / _INFO)
    link_videos(made, videos, links)
    dimensions = select_dimensions(args.dims) if args.dims else made.dimensions
    planned = {}
    for name in dimensions:
        counts = Counter(video.prompt_en for video in made.videos if name in video.dimensions)
        if not counts:
            raise ValueError(f"{args.plan}: no clip is planned for {name}; plan again with it in --dims.")
        planned[name] = _planned(counts)
    shown = ("prompts", "samples", "flicker_samples", "limit_per_dimension", "seed", "suite_sha256")
    stamps = {name: "none" if made.config[name] is None else str(made.config[name]) for name in shown}
    return _job(args, root, protocol, planned, stamps)


def custom_job(args: VBenchArguments, root: Path, videos: Path) -> VBenchJob:
    """The job of any clips: each under `{id of its prompt}-{which clip of it}.mp4`, so that systems can be paired."""
    clips = load_system(videos)
    links = _emptied(root)
    write_text(root / _INFO, "[]")
    links.mkdir(parents=True)
    for clip in clips:
        link_file(clip.video, links / f"{content_id(clip.prompt)}-{clip.key.rpartition('#')[2]}.mp4")
    counts = Counter(clip.prompt for clip in clips)
    everything = Planned(len(counts), min(counts.values()), len(clips))
    dimensions = select_dimensions(args.dims or ("custom6", FLICKERING))
    stamps = {"prompts": "your own", "samples": str(everything.samples)}
    return _job(args, root, "vbench-custom", dict.fromkeys(dimensions, everything), stamps)


def _emptied(root: Path) -> Path:
    """The folder of a job's links, without those of an earlier job; `FileExistsError` if it is somebody's own."""
    links = root / "videos"
    if (root / _INFO).is_file():
        shutil.rmtree(links, ignore_errors=True)
    check_new_folder(links)
    return links


def _planned(counts: Mapping[str, int]) -> Planned:
    """Of the clips a prompt; standard mode measures the first five."""
    return Planned(len(counts), min(counts.values()), sum(min(count, SAMPLES_READ) for count in counts.values()))


def _job(
    args: VBenchArguments, root: Path, protocol: Protocol, planned: Mapping[str, Planned], stamps: Mapping[str, str]
) -> VBenchJob:
    return VBenchJob(
        root / "videos",
        root / _INFO,
        root,
        tuple(planned),
        protocol,
        args.device,
        args.static_filter,
        planned,
        stamps,
    )


def run(args: VBenchArguments, job: VBenchJob, name: str) -> list[DimensionRun]:
    """
    Runs VBench on `job`, or writes the command lines that do (runner none, docker, hf-jobs) to `commands.sh` beside its
    results. Finished dimensions are not redone.

    Args:
        name: tells the job from others in the bucket of HF Jobs.
    """
    if args.fetch:
        fetch_weights(job.dimensions, args.cache, static_filter=job.filters_static)
    if args.runner in ("venv", "python"):
        return run_vbench(job, args.environment())
    pending = pending_dimensions(job)
    script = job.output / "commands.sh"
    if args.runner == "docker":
        commands = docker_commands(job, pending, args.cache)
    elif args.runner == "hf-jobs":
        commands = hf_jobs_commands(job, pending, args.bucket or "", name)
    else:
        commands = hand_commands(job, pending, args.environment())
    lines = ["#!/usr/bin/env bash", "# Written by lift_trl, which has never run it.", *map(shlex.join, commands)]
    write_text(script, "\n".join(lines) + "\n")
    if pending:
        logger.info("to measure %s, run `bash %s`, then this line again", ", ".join(pending), script)
    undone = {dimension: DimensionRun(dimension, "not ready", message=f"run {script}") for dimension in pending}
    runs = [undone.get(dimension, DimensionRun(dimension, "done")) for dimension in job.dimensions]
    write_run(job, runs)
    return runs
