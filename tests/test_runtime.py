"""Processes leave as they came: no process group outlives a recipe."""

import ast

import pytest
import torch

from lift_trl.runtime import last_checkpoint, leaving_processes, process_state
from tests.processes import Job
from tests.structure.source import RECIPES


def leave_a_group(error: Exception | None) -> None:
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    try:
        with leaving_processes():
            if error is not None:
                raise error
    finally:
        print("open:", torch.distributed.is_initialized())


@pytest.mark.parametrize("error, code, still_open", [(None, 0, False), (KeyError("body"), 1, True)])
def test_a_body_that_ends_well_leaves_the_process_group(tmp_path, error, code, still_open):
    job = Job(tmp_path / "log", leave_a_group, error)
    assert job.wait() == [code], job.output
    assert f"open: {still_open}" in job.output
    assert ("KeyError: 'body'" in job.output) == bool(code)


def test_a_checkpoint_that_a_full_disk_cut_off_is_passed_over(tmp_path):
    process_state()  # accelerate's logger asks for it
    for step, state in ((2, "{}"), (9, '{"global_step": 9}'), (10, ""), (11, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.py")), ids=lambda path: path.name)
def test_every_recipe_leaves_the_process_group(recipe):
    last = ast.parse(recipe.read_text()).body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    (block,) = last.body
    assert isinstance(block, ast.With) and ast.unparse(block.items[0]) == "leaving_processes()"
