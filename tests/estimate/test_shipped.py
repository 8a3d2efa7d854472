"""A shipped YAML fits the card that its header names, overheads and DDP's buckets on eight cards included."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from lift_trl.alignment.data.clips import ClipSize
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.estimate.critic_planners import judging_part
from lift_trl.estimate.gpus import overheads
from lift_trl.estimate.plan import Job, Part
from lift_trl.estimate.planners import PLANNERS, read_plan
from lift_trl.estimate.recipe import Recipe
from lift_trl.estimate.stages.video import VideoStages
from lift_trl.estimate.video_planners import video_stages
from tests.structure.source import RECIPES, relative


YAMLS = sorted(
    path
    for path in (RECIPES / "configs").rglob("*.yaml")
    if path.parent.name not in ("mini", "accelerate") and path.stem.startswith(tuple(PLANNERS))
)
HEADER = re.compile(r"# Fits (a card|8 cards) of (\d+) GB")
#: What runs on no card of its own: a report, and the environment of VBench.
UNCOUNTED = {"evaluate"}
#: Of each family one; the others take minutes together.
QUICK = {("cogvideox-2b/align_rwl", 16), ("ltx-video/align_dpo", 24)}
#: The settings that a trainer's memory depends on; YAMLs with equal ones are counted once.
DECISIVE = ("model_name_or_path", "lora_r", "lora_target_modules", "use_peft", "optim", "by_memory", "clips_per_step")
#: Objectives without another policy to run beside the trained one.
PLAIN = ("rwl", "rs", "sft", "best_of_n", "exp")


def budgets(path: Path) -> list[int]:
    """GB of the cards that a YAML names."""
    text = path.read_text(encoding="utf-8")
    return sorted(yaml.safe_load(text).get("by_memory") or [int(size) for _, size in HEADER.findall(text)])


def cases():
    for path in YAMLS:
        for size in budgets(path):
            quick = (f"{path.parent.name}/{path.stem}", size) in QUICK
            yield pytest.param(path, size, marks=() if quick else pytest.mark.slow, id=f"{relative(path)}-{size}")


def decides(argument) -> object:
    """What a count hangs on, of an argument: the batches of all cards follow from those of one clip and of two."""
    if not isinstance(argument, RewardWeightedVideoConfig):
        return repr(argument)
    kind = (argument.objective, argument.optim, argument.quantization, argument.sync_ref_model)
    return kind, argument.activation_checkpointing, argument.gradient_accumulation_steps > 1


def once(count):
    found = {}

    def counted(stages, *args):
        key = stages, *map(decides, args)
        if key not in found:
            found[key] = count(stages, *args)
        return found[key]

    return counted


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """What YAMLs and cards have in common."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("steps", "sampling", "_encode_text"):
            patched.setattr(VideoStages, name, once(getattr(VideoStages, name)))
        yield


@cache
def parts(path: Path, size: int | None, stage: str | None) -> list[Part]:
    return read_plan(path, Job(), stage=stage, memory_gb=size).parts


@cache
def judged(critic: str, batch: int, size: ClipSize) -> Part:
    """A round's videos through a critic of one of the YAMLs."""
    recipe = Recipe(RECIPES / "configs" / "any" / "iterate.yaml", {"critic_batch_size": batch})
    return judging_part(recipe, critic, Job().videos, size)


@cache
def first_like(path: Path) -> Path:
    """A YAML that trains in the same way, as far as memory goes."""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    if own.get("objective") not in PLAIN:
        return path

    def same(other: Path) -> bool:
        settings = yaml.safe_load(other.read_text(encoding="utf-8"))
        return all(settings.get(key) == own.get(key) for key in DECISIVE) and settings.get("objective") in PLAIN

    return next((other for other in YAMLS if other.stem.startswith("align") and same(other)), path)


def test_every_stage_on_a_card_is_counted():
    stages = {path.stem for path in RECIPES.glob("*.py")}
    assert stages - UNCOUNTED == set(PLANNERS)


@pytest.mark.parametrize("path", YAMLS, ids=relative)
def test_it_names_a_card_and_starts_with_that_one(path):
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    ((_, header),) = HEADER.findall(path.read_text(encoding="utf-8"))
    assert int(header) == settings.get("memory_gb", int(header))
    assert "objective" not in settings or settings["clips_per_step"] == (32 if settings["objective"] == "dpo" else 64)
    for own in (settings.get("by_memory") or {}).values():  # the batch of the run can be made on eight cards too
        assert settings["clips_per_step"] % (8 * own["per_device_train_batch_size"]) == 0


@pytest.mark.parametrize("path, size", cases())
def test_it_fits(path, size):
    """Of `iterate` the training and its critic: its other stages are those of YAMLs of their own."""
    trains, iterates = path.stem.startswith(("align", "iterate")), path.stem.startswith("iterate")
    chosen = first_like(path) if trains else path
    found = parts(chosen, size if trains else None, "align" if iterates else None)
    if "# Fits 8 cards" in path.read_text(encoding="utf-8"):
        found = [part.sharded(8) for part in found]
    if iterates:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = [*found, judged(settings["critic"], settings["critic_batch_size"], video_stages(settings).size)]
    for count in (part.count for part in found):
        assert count.peak_bytes + sum(overheads(count, num_gpus=8).values()) <= size * 1e9
