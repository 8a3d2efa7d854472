"""Plans of the stages on text-to-video models."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..alignment.data.clips import ClipSize
from ..alignment.objectives import OBJECTIVES
from ..alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig, accumulation
from ..alignment.sampling.arguments import SamplerArguments
from ..alignment.sampling.settings import Sampling
from .plan import Job, Part, Plan
from .recipe import Recipe
from .stages.video import VideoStages
from .weightless.configured import ConfiguredSource
from .weightless.depth import at_batch


_BYTES_A_VALUE = 2  # of a cache
# Assumed: x264 at the quality of `write_video`.
_BITS_A_PIXEL = 0.3


def training_part(stages: VideoStages, settings: Mapping[str, Any], job: Job, num_gpus: int) -> Plan:
    """The trainer's steps alone."""
    args, lora = training_settings(settings)
    if lora.adapter is not None and not (args.sync_ref_model and args.ref_model_sync_steps):
        # The policy that sampled is a second LoRA then, as where it moves (not in the one step that is counted).
        args.sync_ref_model, args.ref_model_sync_steps = "old" in OBJECTIVES[args.objective].needs(args), 2
    peft_config = lora.lora_config()
    batch = args.per_device_train_batch_size
    runs, made = training_runs(args, job, num_gpus)
    one, two = stages.steps(args, peft_config)
    count = at_batch(one, two, batch)
    trained = count.peak.get("trained weights", 0.0)
    plan = Plan("align", stages.name_or_path, [Part("training step", count, runs, batch, (one, two))])
    plan.disk = {"a checkpoint (weights and optimiser)": 3 * trained + (trained if peft_config else 0.0)}
    plan.notes = [made]
    if args.quantization:
        plan.notes.append(
            f"the base's linear layers are in {args.quantization}; what they compute with, in 16 bits, is an activation"
        )
    return plan


def training_runs(args: RewardWeightedVideoConfig, job: Job, num_gpus: int) -> tuple[float, str]:
    """Micro-batches of a training, all cards together, and in words what a step is made of; `args` accumulate as there."""
    batch = args.per_device_train_batch_size
    unit = "pairs (a row of --clips each)" if args.objective == "dpo" else "clips"
    clips = args.clips_per_step or batch * num_gpus * args.gradient_accumulation_steps
    args.gradient_accumulation_steps = times = max(1, clips // (batch * num_gpus))
    made = f"{clips} {unit} a step: {batch} on each of {num_gpus} cards, accumulated {times} times"
    try:
        accumulation(clips, batch, num_gpus)
    except ValueError as error:
        made = f"the run will not start on {num_gpus} cards: {error}"
    rows = args.max_steps * clips if args.max_steps > 0 else job.clips * args.num_train_epochs
    return rows / batch, made


def plan_cache(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """Each prompt through the text encoder, each clip through the VAE."""
    recipe.require("model_name_or_path")
    return cache_plan(video_stages(recipe.settings), job)


def cache_plan(stages: VideoStages, job: Job) -> Plan:
    """Of one checkpoint at one size of clip."""
    parts = [Part("text encoder", stages.text, job.prompts), Part("VAE encoder", stages.video, job.clips)]
    plan = Plan("cache", stages.name_or_path, parts, notes=["decoding of the files, on the CPU, is not counted"])
    latents, text = stages.shapes
    posterior = 2 * math.prod(latents.shape) * _BYTES_A_VALUE
    embedded = sum(math.prod(one.shape) * one.dtype.itemsize for one in text.values())
    plan.disk = {"posteriors": posterior * job.clips, "text, at most": embedded * job.prompts}
    return plan


def plan_generate(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """Each prompt through the text encoder, then the videos, batch by batch."""
    recipe.require("model_name_or_path")
    stages = video_stages(recipe.settings)
    names = {one.name for one in fields(Sampling)} - {"pipeline_options"}
    own = {name: value for name, value in recipe.settings.items() if name in names}
    sampling = Sampling(**own, pipeline_options=sampler_arguments(recipe.settings).options)
    parts, notes = generation_parts(stages, sampling, job), ["writing of the files, on the CPU, is not counted"]
    return Plan("generate", stages.name_or_path, parts, videos_disk(stages, job), notes)


def videos_disk(stages: VideoStages, job: Job) -> dict[str, float]:
    """Bytes of the videos, which no count tells."""
    pixels = stages.size.num_frames * stages.size.height * stages.size.width
    return {f"videos ({_BITS_A_PIXEL} bit a pixel, assumed)": job.videos * pixels * _BITS_A_PIXEL / 8}


def sampler_arguments(settings: Mapping[str, Any]) -> SamplerArguments:
    """As the recipes read them."""
    names = {one.name for one in fields(SamplerArguments)}
    return SamplerArguments(**{name: value for name, value in settings.items() if name in names})


def generation_parts(stages: VideoStages, sampling: Sampling, job: Job) -> list[Part]:
    """The prompts' embeddings, and the videos."""
    return [
        Part("text encoder", stages.text, job.prompts),
        Part("sampling", stages.sampling(sampling), job.videos / sampling.batch_size, sampling.batch_size),
    ]


def video_stages(settings: Mapping[str, Any], *, revision: str | None = None) -> VideoStages:
    """The checkpoint of a YAML at its size of clips."""
    name = settings["model_name_or_path"]
    model = ConfiguredSource(name, revision=revision).adapter
    size = ClipSize.of(model, *(settings.get(key) for key in ("num_frames", "height", "width", "fps")))
    return VideoStages(name, size, revision, settings.get("network"))


def training_settings(settings: Mapping[str, Any]) -> tuple[RewardWeightedVideoConfig, LoraArguments]:
    """As the recipe reads them; half precision is bfloat16, which takes as many bytes as float16 and runs on a CPU."""
    names = {one.name for one in fields(RewardWeightedVideoConfig) if one.init}
    given = {name: value for name, value in settings.items() if name in names}
    given |= {"fp16": False, "bf16": True, "use_cpu": True, "report_to": []}
    if settings.get("clips_per_step") is not None:  # it follows, from the number of cards too
        given.pop("gradient_accumulation_steps", None)
    lora = {one.name: settings[one.name] for one in fields(LoraArguments) if one.name in settings}
    return RewardWeightedVideoConfig(**given), LoraArguments(**lora)
