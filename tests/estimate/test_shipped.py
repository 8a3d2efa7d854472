"""A shipped YAML fits the card that its header names, overheads and DDP's buckets on eight cards included."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from lift_trl.estimate.gpus import overheads
from lift_trl.estimate.plan import Job
from lift_trl.estimate.planners import PLANNERS, read_plan
from lift_trl.estimate.weightless.meter import Count
from tests.structure.source import RECIPES, relative


YAMLS = sorted(
    path
    for path in (RECIPES / "configs").rglob("*.yaml")
    if path.parent.name not in ("mini", "accelerate") and path.stem.startswith(tuple(PLANNERS))
)
HEADER = re.compile(r"# Fits a card of (\d+) GB")
#: Of each family one; the others take minutes together.
QUICK = {("cogvideox-2b/align_rwl", 16), ("ltx-video/align_dpo", 24)}
#: Folders whose YAMLs all name a card.
FAMILIES = ("cogvideox-2b", "cogvideox-5b", "ltx-video", "wan2.1-1.3b")
#: The settings that a trainer's memory depends on; YAMLs with equal ones are counted once.
DECISIVE = ("model_name_or_path", "lora_r", "lora_target_modules", "use_peft", "optim", "by_memory", "clips_per_step")
#: Objectives without another policy to run beside the trained one.
PLAIN = ("rwl", "rs", "sft", "best_of_n", "exp")


def budgets(path: Path) -> list[int]:
    """GB of the cards that a YAML names."""
    text = path.read_text(encoding="utf-8")
    return sorted(yaml.safe_load(text).get("by_memory") or [int(size) for size in HEADER.findall(text)])


def cases():
    for path in YAMLS:
        for size in budgets(path):
            quick = (f"{path.parent.name}/{path.stem}", size) in QUICK
            yield pytest.param(path, size, marks=() if quick else pytest.mark.slow, id=f"{relative(path)}-{size}")


@cache
def counts(path: Path, size: int | None, stage: str | None) -> list[Count]:
    return [part.count for part in read_plan(path, Job(), stage=stage, memory_gb=size).parts]


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


@pytest.mark.parametrize("path", [p for p in YAMLS if p.parent.name in FAMILIES or budgets(p)], ids=relative)
def test_it_names_a_card_and_starts_with_that_one(path):
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    (header,) = HEADER.findall(path.read_text(encoding="utf-8"))
    assert int(header) == settings.get("memory_gb", int(header))
    assert "objective" not in settings or settings["clips_per_step"] == (32 if settings["objective"] == "dpo" else 64)
    for own in (settings.get("by_memory") or {}).values():  # the batch of the run can be made on eight cards too
        assert settings["clips_per_step"] % (8 * own["per_device_train_batch_size"]) == 0


@pytest.mark.parametrize("path, size", cases())
def test_it_fits(path, size):
    """Of `iterate` the training: its other stages are those of YAMLs of their own."""
    trains = path.stem.startswith(("align", "iterate"))
    chosen = first_like(path) if trains else path
    stage = "align" if path.stem.startswith("iterate") else None
    for count in counts(chosen, size if trains else None, stage):
        assert count.peak_bytes + sum(overheads(count, num_gpus=8).values()) <= size * 1e9
