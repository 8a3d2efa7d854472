"""A recipe's YAML to the plan of its stage."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ..importing import importing
from ..judges import JUDGES
from .plan import Job, Plan
from .recipe import PLANNERS, Recipe
from .uncounted import uncounted


# Recipes without a plan, and what to do instead.
_UNCOUNTED = {
    "evaluate": "what recipes/evaluate.py runs is not counted: VBench's models have an environment of their own. A second "
    f"judge is counted by recipes/score.py, --judge {', '.join(JUDGES)}, and the videos by recipes/generate.py."
}


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
    stage = stage or recipe.stage
    if stage in _UNCOUNTED:
        raise ValueError(f"{recipe.path}: {_UNCOUNTED[stage]}")
    if stage not in PLANNERS:
        raise ValueError(f"{recipe.path}: stage {stage!r} is not counted; give --stage, one of {', '.join(PLANNERS)}.")
    with importing():  # of this stage alone: each planner takes seconds
        module = import_module(f".{PLANNERS[stage]}", __package__)
    planner: Callable[[Recipe, Job, int], Plan] = getattr(module, f"plan_{stage}")
    plan = planner(recipe, job, num_gpus)
    return replace(plan, notes=[*plan.notes, *uncounted(stage, recipe.settings)])
