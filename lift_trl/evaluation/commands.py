"""The steps of an evaluation as functions of plain arguments, for `lift-trl eval` and recipes/evaluate.py."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..records import content_id
from ..store.manifest import write_text
from .report import save_report
from .report_inputs import ReportArguments, build_report, load_system, named_paths
from .vbench_check import CheckResult, check_videos
from .vbench_env import VBenchEnvironment, check_environment, default_cache, fetch_weights, make_environment
from .vbench_eval import FLICKERING, PROTOCOLS, PromptSet, Protocol, load_suite, select_dimensions
from .vbench_plan import Plan, link_file, link_videos, make_plan, write_full_info
from .vbench_run import DimensionRun, VBenchJob, docker_commands, hf_jobs_commands, run_vbench


Runner = Literal["venv", "python", "docker", "hf-jobs", "none"]
RUNNERS: tuple[Runner, ...] = ("venv", "python", "docker", "hf-jobs", "none")


@dataclass
class PlanArguments:
    """`lift-trl eval plan`: which clips VBench needs."""

    suite: str = field(
        metadata={"help": "VBench_full_info.json, LiFT's Vbench_full_info_opt.json, or a VBench folder."}
    )
    output: str = field(metadata={"help": "Folder of the plan."})
    prompts: PromptSet = field(default="original", metadata={"help": "original, lift_opt or vbench_longer."})
    longer_prompts: str | None = field(default=None, metadata={"help": "VBench's all_dimension_longer.txt."})
    dims: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={"help": "all, no-detectron, quality, semantic, custom6, or names of dimensions."},
    )
    samples: int = field(default=5, metadata={"help": "Clips a prompt. VBench's protocol is 5."})
    flicker_samples: int = field(
        default=25, metadata={"help": "Clips a prompt of temporal flickering (protocol: 25)."}
    )
    limit_per_dimension: int | None = field(
        default=None, metadata={"help": "Draw this many prompts of each dimension instead of all."}
    )
    base_seed: int = field(default=0, metadata={"help": "Of the draw and of every clip's own seed."})


def plan(args: PlanArguments) -> str:
    """Writes the plan; returns what to tell the user."""
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


@dataclass
class VBenchArguments:
    """Where and how VBench runs."""

    plan: str | None = field(default=None, metadata={"help": "Folder written by `lift-trl eval plan`."})
    dims: list[str] = field(default_factory=list, metadata={"help": "Run only these dimensions (of the plan's)."})
    runner: Runner = field(default="none", metadata={"help": "venv, python, docker, hf-jobs or none."})
    venv: str = field(default="runs/vbench_env", metadata={"help": "Environment made for runner=venv (about 6 GB)."})
    python: str | None = field(default=None, metadata={"help": "Interpreter that has vbench, for runner=python."})
    vbench_checkout: str | None = field(
        default=None, metadata={"help": "Git checkout of VBench; VBench-Long needs it."}
    )
    vbench_cache: str | None = field(default=None, metadata={"help": "Folder of VBench's weights."})
    vbench_dir: str = field(default="runs/vbench", metadata={"help": "Where links, results and logs go, by system."})
    fetch: bool = field(default=False, metadata={"help": "Download missing weights first, and record their sha256."})
    static_filter: bool = field(default=True, metadata={"help": "Flickering on static clips only (protocol; CUDA)."})
    device: str = field(default="cuda", metadata={"help": "cuda or cpu."})
    bucket: str | None = field(default=None, metadata={"help": "Hub bucket of results, for runner=hf-jobs."})
    video_frames: int = field(default=49, metadata={"help": "Frames that every clip must have; 0 to allow any."})

    def __post_init__(self) -> None:
        if self.runner not in RUNNERS:
            raise ValueError(f"runner={self.runner!r}; use one of {', '.join(RUNNERS)}.")
        if self.runner == "python" and self.python is None:
            raise ValueError("runner=python needs python, the interpreter of an environment that has vbench.")
        if self.runner == "hf-jobs" and self.bucket is None:
            raise ValueError("runner=hf-jobs needs bucket (user/name), where results and weights are kept.")

    @property
    def cache(self) -> Path:
        return Path(self.vbench_cache) if self.vbench_cache else default_cache()

    def environment(self) -> VBenchEnvironment:
        """The Python that runs VBench; made first for `runner=venv`."""
        python = make_environment(self.venv) if self.runner == "venv" else Path(self.python or sys.executable)
        return VBenchEnvironment(python, self.cache, Path(self.vbench_checkout) if self.vbench_checkout else None)


@dataclass
class CheckArguments:
    """`lift-trl eval check`: is everything there, before a GPU is rented?"""

    plan: str = field(metadata={"help": "Folder written by `lift-trl eval plan`."})
    videos: str = field(metadata={"help": "The generated/ folder, or a folder of clips under VBench's names."})
    video_frames: int = field(default=49, metadata={"help": "Frames that every clip must have; 0 to allow any."})
    python: str | None = field(default=None, metadata={"help": "Also check this interpreter's packages and weights."})
    vbench_checkout: str | None = field(default=None, metadata={"help": "Git checkout of VBench, if one is used."})
    vbench_cache: str | None = field(default=None, metadata={"help": "Folder of VBench's weights."})
    static_filter: bool = field(default=True, metadata={"help": "Flickering on static clips only (protocol; CUDA)."})


def check(args: CheckArguments) -> CheckResult:
    """The preflight of clips and, with `python`, of packages and weights."""
    made = Plan.load(args.plan)
    found = check_videos(made, args.videos, num_frames=args.video_frames or None)
    if args.python is None:
        return found
    cache = Path(args.vbench_cache) if args.vbench_cache else default_cache()
    checkout = Path(args.vbench_checkout) if args.vbench_checkout else None
    environment = VBenchEnvironment(Path(args.python), cache, checkout)
    more = check_environment(environment, made.dimensions, environment.probe(), static_filter=args.static_filter)
    return CheckResult(found.num_planned, found.num_found, (*found.problems, *more))


def planned_job(args: VBenchArguments, root: Path, videos: Path, protocol: Protocol) -> VBenchJob:
    """
    The job of a plan: its clips among `videos`, checked, as links under VBench's names below `root`.

    Raises:
        ValueError: if there is no plan, or clips are missing or broken.
    """
    if args.plan is None:
        raise ValueError(f"protocol {protocol} needs plan, a folder written by `lift-trl eval plan`.")
    made = Plan.load(args.plan)
    found = check_videos(made, videos, num_frames=args.video_frames or None)
    if not found.ok:
        raise ValueError(f"{videos}: VBench would give wrong figures.\n{found.summary()}")
    # A folder of links for each protocol: VBench-Long works within it.
    links = root / f"videos-{protocol}"
    link_videos(made, videos, links)
    write_full_info(made, root / "info" / "full_info.json")
    return _job(args, root, links, protocol, args.dims or made.dimensions)


def custom_job(args: VBenchArguments, root: Path, videos: Path) -> VBenchJob:
    """The job of any clips: each under `{id of its prompt}-{which clip of it}.mp4`, so that systems can be paired."""
    links = root / "videos-vbench-custom"
    links.mkdir(parents=True, exist_ok=True)
    for clip in load_system(videos):
        link_file(clip.video, links / f"{content_id(clip.prompt)}-{clip.key.rpartition('#')[2]}.mp4")
    write_text(root / "info" / "full_info.json", "[]")
    return _job(args, root, links, "vbench-custom", args.dims or ("custom6", FLICKERING))


def _job(args: VBenchArguments, root: Path, links: Path, protocol: Protocol, dimensions: Sequence[str]) -> VBenchJob:
    info = root / "info" / "full_info.json"
    return VBenchJob(links, info, root, select_dimensions(dimensions), protocol, args.device, args.static_filter)


def run(args: VBenchArguments, system: str, videos: Path, protocol: Protocol) -> list[DimensionRun]:
    """
    Runs VBench on the clips of one system, or writes the command lines that do (docker, hf-jobs), below
    `vbench_dir/system`. Finished dimensions are not redone.

    Raises:
        ValueError: if clips are missing or broken; nothing is run then.
    """
    root = Path(args.vbench_dir) / system
    is_custom = protocol == "vbench-custom"
    job = custom_job(args, root, videos) if is_custom else planned_job(args, root, videos, protocol)
    if args.runner in ("docker", "hf-jobs"):
        commands = (
            docker_commands(job, args.cache) if args.runner == "docker" else hf_jobs_commands(job, args.bucket or "")
        )
        lines = ["#!/usr/bin/env bash", "# Written by lift_trl, which has never run it.", *map(shlex.join, commands)]
        write_text(root / "commands.sh", "\n".join(lines) + "\n")
        return [DimensionRun(name, "not ready", message=f"run {root / 'commands.sh'}") for name in job.dimensions]
    if args.fetch:
        fetch_weights(job.dimensions, args.cache, static_filter=args.static_filter)
    return run_vbench(job, args.environment())


def evaluate(args: ReportArguments, vbench: VBenchArguments) -> Path:
    """
    VBench on every system (unless `runner` is none), then the report of all that is there; returns the page's path.

    Dimensions without a result are logged with the reason and left out; the report never has a total of a part.
    """
    if args.protocol not in PROTOCOLS:
        raise ValueError(f"protocol={args.protocol!r}; use one of {', '.join(PROTOCOLS)}.")
    results = list(args.vbench)
    if vbench.runner != "none":
        for name, folder in named_paths(args.systems).items():
            if any(found.status == "done" for found in run(vbench, name, folder, args.protocol)):
                results.append(f"{name}={Path(vbench.vbench_dir) / name}")
    return report(ReportArguments(**{**vars(args), "vbench": results}))


def report(args: ReportArguments) -> Path:
    """`lift-trl eval report`: the report of what the folders hold; returns the page's path."""
    return save_report(build_report(args), args.report_dir)
