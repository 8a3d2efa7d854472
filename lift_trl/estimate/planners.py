"""A recipe's YAML to the plan of its stage."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .critic_planners import (
    judging_part,
    plan_correction,
    plan_critic_evaluation,
    plan_critic_training,
    plan_scoring,
)
from .plan import Job, Plan
from .recipe import Recipe
from .video_planners import (
    generation_parts,
    plan_alignment,
    plan_cache,
    plan_generation,
    training_part,
    video_stages,
    videos_disk,
)


def read_plan(
    config: Path | str, job: Job, *, num_gpus: int = 1, stage: str | None = None, memory_gb: int | None = None
) -> Plan:
    """
    What the recipe of a YAML needs for `job`.

    Args:
        stage: one of `PLANNERS`; by default what the file's name begins with.
        memory_gb: in place of the YAML's own, where it has settings by memory.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    recipe = Recipe.read(config)
    if memory_gb is not None:
        recipe = replace(recipe, settings={**recipe.settings, "memory_gb": memory_gb})
    return plan_of(recipe, job, num_gpus=num_gpus, stage=stage)


def plan_of(recipe: Recipe, job: Job, *, num_gpus: int = 1, stage: str | None = None) -> Plan:
    """As `read_plan`, of a recipe that is read."""
    stage = stage or next((name for name in PLANNERS if recipe.path.stem.startswith(name)), recipe.path.stem)
    if stage not in PLANNERS:
        raise ValueError(f"{recipe.path}: stage {stage!r} is not counted; give --stage, one of {', '.join(PLANNERS)}.")
    return PLANNERS[stage](recipe, job, num_gpus)


def plan_iteration(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """All rounds: `job.videos` are sampled, scored and encoded in each, and `job.clips` rows trained on."""
    settings = recipe.settings
    stages, rounds = video_stages(settings, revision=settings.get("model_revision")), settings.get("rounds", 2)
    batch = settings.get("sampling_batch_size", 1)
    sampled = generation_parts(stages, {**settings, "batch_size": batch}, job)
    judges = [name for name in (recipe.require("critic"), settings.get("second_judge")) if name]
    scored = [judging_part(recipe, name, job, stages.size) for name in judges]
    encoded = plan_cache(recipe, replace(job, clips=job.videos), num_gpus)
    trained = training_part(stages, settings, job, num_gpus)
    once = [sampled[0], *sampled[1:], *scored, encoded.parts[-1], trained.parts[0]]
    parts = [replace(part, runs=part.runs * (1 if part.name == "text encoder" else rounds)) for part in once]
    disk = {name: size * rounds for name, size in {**videos_disk(stages, job), **encoded.disk, **trained.disk}.items()}
    notes = [f"{rounds} rounds; the real clips of a round are encoded once more, which is not counted", *trained.notes]
    return Plan("iterate", stages.name_or_path, parts, disk, notes)


#: Stage -> planner.
PLANNERS: dict[str, Callable[[Recipe, Job, int], Plan]] = {
    "align": plan_alignment,
    "cache": plan_cache,
    "generate": plan_generation,
    "score": plan_scoring,
    "train_critic": plan_critic_training,
    "evaluate_critic": plan_critic_evaluation,
    "correct": plan_correction,
    "iterate": plan_iteration,
}
