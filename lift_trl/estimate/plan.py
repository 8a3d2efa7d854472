"""A recipe's YAML to what it needs: memory of a card, largest batch, disk, hours and price."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..alignment.clips import ClipSize
from ..alignment.generate import Sampling
from ..alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
from .configured import ConfiguredSource
from .depth import at_batch
from .gpus import Gpu, overheads
from .meter import Count
from .stages import VideoStages


# Several cards wait for one another a little.
_EFFICIENCY = 0.95
_BYTES_A_VALUE = 2  # of a cache


@dataclass(frozen=True)
class Job:
    """
    How much there is to do.

    Attributes:
        clips: rows of the training set; what is cached, scored or trained on.
        videos: videos to generate.
        prompts: different prompts among them.
    """

    clips: int = 1000
    videos: int = 1000
    prompts: int = 1000


@dataclass(frozen=True)
class Part:
    """
    Something that runs on a card by itself.

    Attributes:
        count: of one run.
        runs: how many runs the job takes, all cards together.
        linear_in: batches of one and of two, where the batch may be chosen.
    """

    name: str
    count: Count
    runs: float
    clips: int = 1
    linear_in: tuple[Count, Count] | None = None


@dataclass
class Plan:
    """
    What one stage needs.

    Attributes:
        parts: in the order in which they run; one is in memory at a time.
        disk: bytes by what they are.
        notes: what a user should know.
    """

    stage: str
    model: str
    parts: list[Part]
    disk: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def report(self, gpu: Gpu, num_gpus: int) -> dict[str, Any]:
        """Everything as plain values: GB of 1e9 bytes, TFLOP, seconds, hours of wall time, US dollars."""
        speed = num_gpus * (_EFFICIENCY if num_gpus > 1 else 1.0)
        rows = [_row(part, gpu, num_gpus, speed) for part in self.parts]
        hours = sum(row["hours"] for row in rows)
        return {
            "stage": self.stage,
            "model": self.model,
            "gpu": gpu.name,
            "num_gpus": num_gpus,
            "rates": gpu.source,
            "parts": rows,
            "fits": all(row["fits"] for row in rows),
            "peak_gb": max(row["total_gb"] for row in rows),
            "disk_gb": {name: size / 1e9 for name, size in self.disk.items()},
            "hours": hours,
            "price_usd": hours * num_gpus * gpu.price,
            "notes": self.notes,
        }


def _row(part: Part, gpu: Gpu, num_gpus: int, speed: float) -> dict[str, Any]:
    extra = overheads(part.count, num_gpus=num_gpus)
    total = part.count.peak_bytes + sum(extra.values())
    seconds = gpu.seconds(part.count)
    row = {
        "name": part.name,
        "memory_gb": {kind: size / 1e9 for kind, size in part.count.peak.items()},
        "overheads_gb": {name: size / 1e9 for name, size in extra.items()},
        "total_gb": total / 1e9,
        "fits": total <= gpu.memory_gb * 1e9,
        "tflop": part.count.flops / 1e12,
        "seconds": seconds,
        "clips": part.clips,
        "runs": part.runs,
        "hours": seconds * part.runs / speed / 3600,
    }
    if part.linear_in is not None:
        row["largest_batch"] = largest_batch(*part.linear_in, gpu, num_gpus=num_gpus)
    return row


def largest_batch(one: Count, two: Count, gpu: Gpu, *, num_gpus: int = 1) -> int:
    """The largest batch whose peak, overheads included, fits the card; 0 where not even one clip does."""

    def fits(batch: int) -> bool:
        count = at_batch(one, two, batch)
        return count.peak_bytes + sum(overheads(count, num_gpus=num_gpus).values()) <= gpu.memory_gb * 1e9

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def read_plan(
    config: Path | str, job: Job, *, num_gpus: int = 1, stage: str | None = None, memory_gb: int | None = None
) -> Plan:
    """
    What the recipe of a YAML needs for `job`.

    Args:
        stage: align, cache or generate; by default the word that the file's name begins with.
        memory_gb: in place of the YAML's own, where it has settings by memory.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    path = Path(config)
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if memory_gb is not None:
        settings["memory_gb"] = memory_gb
    stage = stage or path.stem.split("_")[0]
    if stage not in _PLANNERS:
        raise ValueError(f"{path}: stage {stage!r} is not counted; give --stage, one of {', '.join(_PLANNERS)}.")
    return _PLANNERS[stage](settings, job, num_gpus)


def plan_alignment(settings: Mapping[str, Any], job: Job, num_gpus: int) -> Plan:
    """The trainer's steps over all epochs."""
    args, lora = _training(settings)
    stages = _video_stages(settings, revision=settings.get("model_revision"))
    peft_config = lora.lora_config()
    one, two = stages.steps(args, peft_config)
    batch = args.per_device_train_batch_size
    count = at_batch(one, two, batch)
    steps = job.clips / batch * args.num_train_epochs
    if args.max_steps > 0:
        steps = args.max_steps * args.gradient_accumulation_steps
    trained = count.peak.get("trained weights", 0.0)
    plan = Plan("align", stages.name_or_path, [Part("training step", count, steps, batch, (one, two))])
    plan.disk = {"a checkpoint (weights and optimiser)": 3 * trained + (trained if peft_config else 0.0)}
    clips_per_step = args.clips_per_step or batch * num_gpus * args.gradient_accumulation_steps
    times = clips_per_step // (batch * num_gpus)
    plan.notes = [f"{clips_per_step} clips a step: {batch} on each of {num_gpus} cards, accumulated {times} times"]
    return plan


def plan_cache(settings: Mapping[str, Any], job: Job, num_gpus: int) -> Plan:
    """Each prompt through the text encoder, each clip through the VAE."""
    stages = _video_stages(settings)
    parts = [Part("text encoder", stages.text, job.prompts), Part("VAE encoder", stages.video, job.clips)]
    plan = Plan("cache", stages.name_or_path, parts, notes=["decoding of the files, on the CPU, is not counted"])
    latents, text = stages.shapes
    posterior = 2 * math.prod(latents.shape) * _BYTES_A_VALUE
    embedded = sum(math.prod(one.shape) * one.dtype.itemsize for one in text.values())
    plan.disk = {"posteriors": posterior * job.clips, "text, at most": embedded * job.prompts}
    return plan


def plan_generation(settings: Mapping[str, Any], job: Job, num_gpus: int) -> Plan:
    """Each prompt through the text encoder, then the videos, batch by batch."""
    names = {one.name for one in fields(Sampling)}
    stages = _video_stages(settings)
    sampling = Sampling(**{name: value for name, value in settings.items() if name in names})
    parts = [
        Part("text encoder", stages.text, job.prompts),
        Part("sampling", stages.sampling(sampling), job.videos / sampling.batch_size, sampling.batch_size),
    ]
    return Plan("generate", stages.name_or_path, parts, notes=["writing of the files, on the CPU, is not counted"])


def _video_stages(settings: Mapping[str, Any], *, revision: str | None = None) -> VideoStages:
    name = settings["model_name_or_path"]
    model = ConfiguredSource(name, revision=revision).adapter
    size = ClipSize.of(model, *(settings.get(key) for key in ("num_frames", "height", "width", "fps")))
    return VideoStages(name, size, revision, settings.get("network"))


def _training(settings: Mapping[str, Any]) -> tuple[RewardWeightedVideoConfig, LoraArguments]:
    """As the recipe reads them; half precision is bfloat16, which takes as many bytes as float16 and runs on a CPU."""
    names = {one.name for one in fields(RewardWeightedVideoConfig) if one.init}
    given = {name: value for name, value in settings.items() if name in names}
    given |= {"fp16": False, "bf16": True, "report_to": []}
    lora = {one.name: settings[one.name] for one in fields(LoraArguments) if one.name in settings}
    return RewardWeightedVideoConfig(**given), LoraArguments(**lora)


_PLANNERS = {"align": plan_alignment, "cache": plan_cache, "generate": plan_generation}
