"""`recipes/correct.py` killed by SIGKILL inside every fit and every labelling, against a run that nobody disturbed."""

import hashlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from lift_trl.feedback.correction.loop import CORRECTED, STEPS
from lift_trl.feedback.correction.review import QUEUE_FILE, Decision, decide
from lift_trl.feedback.hra import load_hra
from lift_trl.mini.world import World, build_world
from lift_trl.recipe_parser import RecipeParser
from lift_trl.rubric import Label
from lift_trl.store.manifest import ARTIFACT_FILE, METADATA_FILE, read_rows, write_rows
from recipes import correct as recipe
from tests.structure.source import RECIPES


pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NUM_STEPS = 6


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Eight clips, one rating each; two without a reason, which the filter drops and the last step judges."""
    world = build_world(tmp_path / "world", num_rated=8, num_real=1, trained=False)
    rows = []
    for number, row in enumerate(read_rows(world.rated / METADATA_FILE)):
        rating = {
            **row["annotations"][number % 3],
            "reason": "" if number < 2 else row["annotations"][number % 3]["reason"],
        }
        rows.append({"file_name": row["file_name"], "caption": row["prompt"], **rating})
    write_rows(world.rated / METADATA_FILE, rows)
    return world


def start(world: World, folder: Path) -> ForkProcess:
    """The recipe in a process of its own (forked, which saves the imports), with a checkpoint after every step of a fit."""
    child = multiprocessing.get_context("fork").Process(target=call, args=(world, folder))
    child.start()
    return child


def call(world: World, folder: Path) -> None:
    """What runs there; the log gets what it prints."""
    options = {
        "config": RECIPES / "configs" / "mini" / "correct.yaml",
        "hra": world.rated,
        "model_name_or_path": world.vlm,
        "output_dir": folder,
        "max_steps": NUM_STEPS,
        "save_steps": 1,
        "save_total_limit": NUM_STEPS,
        "per_device_train_batch_size": 4,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with open(folder.with_suffix(".log"), "a", buffering=1) as sys.stdout:
        recipe.main(*RecipeParser(recipe.ARGUMENTS).parse_args_and_config(words))


def finish(child: ForkProcess, folder: Path) -> None:
    """Waits for the end of a call and answers its queue: the rater is right."""
    child.join()
    assert child.exitcode == 0
    for queue in folder.glob(f"*/{QUEUE_FILE}"):
        rows = list(read_rows(queue))
        decide(queue, {row["id"]: Decision(Label(row["label"]), "I saw the shape again.", "ann") for row in rows})


def kill_when(child: ForkProcess, begun: Callable[[], bool], end: Path) -> None:
    """Kills the process when something has begun, and makes sure that it had not come to write `end`."""
    while not begun():
        assert child.is_alive(), "what was to be killed never began"
        time.sleep(0.002)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not end.exists(), f"killed too late: {end} is there"


def kill_twice(world: World, folder: Path, step: str) -> None:
    """Kills the step's fit after its first checkpoint, before the critic is saved; then its labelling."""
    critic, labels = folder / step / "critic", folder / step / "labels.jsonl"
    kill_when(start(world, folder), (critic / "checkpoint-1" / "trainer_state.json").exists, critic / ARTIFACT_FILE)
    log = folder.with_suffix(".log")
    kill_when(start(world, folder), lambda: f"{step}: labelling" in log.read_text(), labels)


def result(folder: Path) -> tuple[list[dict[str, object]], dict[str, str]]:
    """The corrected rows, and digests of what each step said and of each critic."""
    rows = [{**row, "video": Path(row["video"]["path"]).read_bytes()} for row in load_hra(folder / CORRECTED)["train"]]
    files = [
        folder / step / name for step in STEPS[1:] for name in ("labels.jsonl", "critic/adapter_model.safetensors")
    ]
    files.append(folder / "provenance.jsonl")
    return rows, {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_killed_in_every_fit_and_every_labelling(world: World, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    while not (whole / CORRECTED / ARTIFACT_FILE).is_file():
        finish(start(world, whole), whole)
    for step in STEPS[1:]:
        kill_twice(world, killed, step)
        finish(start(world, killed), killed)
        assert (killed / step / "labels.jsonl").is_file()
    finish(start(world, killed), killed)
    rows, digests = result(killed)
    assert (rows, digests) == result(whole)
    assert len(rows) == 8  # those of the filter came back
