"""Every shipped YAML that names cards fits them, overheads included. So far CogVideoX-2B's do."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from lift_trl.estimate.gpus import overheads
from lift_trl.estimate.meter import Count
from lift_trl.estimate.plan import Job, read_plan
from tests.structure.source import RECIPES, relative


STAGES = ("align", "cache", "generate", "iterate")
YAMLS = sorted(
    path
    for path in (RECIPES / "configs").rglob("*.yaml")
    if path.parent.name not in ("mini", "accelerate") and path.stem.split("_")[0] in STAGES
)
HEADER = re.compile(r"# Fits a card of (\d+) GB")
# The settings that a trainer's memory depends on; YAMLs with equal ones are counted once.
DECISIVE = ("model_name_or_path", "lora_r", "lora_target_modules", "use_peft", "beta", "optim")


def budgets(path: Path) -> list[int]:
    """GB of the cards that a YAML names."""
    text = path.read_text(encoding="utf-8")
    return sorted(yaml.safe_load(text).get("by_memory") or [int(size) for size in HEADER.findall(text)])


def cases():
    for path in YAMLS:
        for size in budgets(path):
            quick = path.stem == "align_rwl" and path.parent.name == "cogvideox-2b" and size == 16
            yield pytest.param(path, size, marks=() if quick else pytest.mark.slow, id=f"{relative(path)}-{size}")


@cache
def counts(path: Path, size: int | None, stage: str) -> list[Count]:
    return [part.count for part in read_plan(path, Job(), stage=stage, memory_gb=size).parts]


@cache
def first_like(path: Path) -> Path:
    """A YAML that trains in the same way, as far as memory goes."""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))

    def same(other: Path) -> bool:
        settings = yaml.safe_load(other.read_text(encoding="utf-8"))
        keys = (*DECISIVE, "by_memory", "clips_per_step")
        return all(settings.get(key) == own.get(key) for key in keys) and settings.get("objective") in (
            "rwl",
            "rs",
            "sft",
        )

    return next((other for other in YAMLS if other.stem.startswith("align") and same(other)), path)


@pytest.mark.parametrize(
    "stem", ["align_rwl", "align_rs", "align_sft", "iterate", "cache", "generate", "generate_vbench"]
)
def test_it_names_a_card(stem):
    assert budgets(RECIPES / "configs" / "cogvideox-2b" / f"{stem}.yaml")


@pytest.mark.parametrize("path, size", cases())
def test_it_fits(path, size):
    stage = path.stem.split("_")[0].replace("iterate", "align")
    chosen = first_like(path) if stage == "align" else path
    for count in counts(chosen, size if stage == "align" else None, stage):
        assert count.peak_bytes + sum(overheads(count, num_gpus=8).values()) <= size * 1e9
