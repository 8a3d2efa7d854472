"""Plans of the stages in which a video model is sampled and judged beside its training: align with a guard, iterate."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..alignment.guard import VIDEOS_PER_PROMPT
from ..alignment.sampling.settings import Sampling
from .plan import Job, Part, Plan
from .recipe import Recipe
from .stages.video import VideoStages
from .video_planners import (
    cache_plan,
    generation_parts,
    sampler_arguments,
    training_part,
    training_runs,
    training_settings,
    video_stages,
    videos_disk,
)


def plan_align(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """The trainer's steps over all epochs, the validation videos in between, and what a guard's judges say of them."""
    recipe.require("model_name_or_path")
    settings = recipe.settings
    stages = video_stages(settings, revision=settings.get("model_revision"))
    plan = training_part(stages, settings, job, num_gpus)
    (step,) = plan.parts
    videos = _validation_videos(settings, job, num_gpus)
    if not videos:
        return plan
    plan.parts.append(_validation_part(stages, settings, step, videos))
    if judge := settings.get("second_judge"):
        from .critic_planners import judging_part  # late, as in `spared_imports`: TRL takes a while

        held = {kind: step.count.peak.get(kind, 0.0) for kind in ("weights", "trained weights", "optimiser")}
        for name in (recipe.require("critic"), judge):
            part = judging_part(recipe, name, videos, stages.size).beside(held)
            plan.parts.append(replace(part, name=f"{part.name}, beside the training", alone=True))
    return plan


def _validation_videos(settings: Mapping[str, Any], job: Job, num_gpus: int) -> int:
    """How many are sampled: of the base, every `validation_steps` and at the end."""
    args, _ = training_settings(settings)
    runs, _ = training_runs(args, job, num_gpus)
    steps = math.ceil(runs / (num_gpus * args.gradient_accumulation_steps))
    times = 2 if args.validation_steps is None else 1 + math.ceil(steps / args.validation_steps)
    return times * len(args.validation_prompts or ())


def _validation_part(stages: VideoStages, settings: Mapping[str, Any], step: Part, videos: int) -> Part:
    """A whole transformer that is trained is in memory once, and counted here both in float32 and as it is loaded."""
    args, _ = training_settings(settings)
    sampling = Sampling(
        *(stages.size.num_frames, stages.size.height, stages.size.width, args.validation_num_inference_steps),
        guidance_scale=args.validation_guidance_scale,
        quantization=args.quantization,
    )
    held = {kind: step.count.peak.get(kind, 0.0) for kind in ("trained weights", "optimiser")}
    return Part("validation videos", stages.sampling(sampling), videos).beside(held)


def plan_iterate(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """
    All rounds: `job.videos` are sampled, scored and encoded in each, and `job.clips` rows trained on, as from the second
    round on. A guard samples clips of its own, of the start and after each round, which critic and second judge score.
    """
    from .critic_planners import judging_part

    settings, judge = recipe.settings, recipe.settings.get("second_judge")
    stages, rounds = video_stages(settings, revision=settings.get("model_revision")), settings.get("rounds", 2)
    args, _ = training_settings(settings)
    sampling = sampler_arguments(settings).sampling(args, batch_size=settings.get("sampling_batch_size", 1))
    guarded = (rounds + 1) * VIDEOS_PER_PROMPT * job.prompts if judge else 0
    made = replace(job, videos=rounds * job.videos + guarded)
    text, sampled = generation_parts(stages, sampling, made)
    judges = [(recipe.require("critic"), made.videos), *([(judge, guarded)] if judge else [])]
    scored = [judging_part(recipe, name, videos, stages.size) for name, videos in judges]
    encoded = cache_plan(stages, replace(job, clips=job.videos))
    trained = training_part(stages, _of_later_rounds(settings, rounds), job, num_gpus)
    each = [encoded.parts[-1], *trained.parts]
    if videos := _validation_videos(settings, job, num_gpus):
        each.append(_validation_part(stages, settings, trained.parts[0], videos))
    # Whoever samples embeds the prompts, and so does each cache.
    embedded = replace(text, runs=text.runs * (2 * rounds + (rounds + 1 if judge else 0)))
    parts = [embedded, sampled, *scored, *(replace(part, runs=part.runs * rounds) for part in each)]
    disk = {name: size * rounds for name, size in {**encoded.disk, **trained.disk}.items()}
    notes = [f"{rounds} rounds; the real clips of a round are encoded once more, which is not counted", *trained.notes]
    if judge:
        notes.append(f"the guard's {guarded} videos among those sampled and scored; nothing stops a run early")
    return Plan("iterate", stages.name_or_path, parts, {**videos_disk(stages, made), **disk}, notes)


def _of_later_rounds(settings: Mapping[str, Any], rounds: int) -> Mapping[str, Any]:
    """From the second round on there is an earlier LoRA to go on from."""
    return {**settings, "adapter": "the round before"} if rounds > 1 else settings
