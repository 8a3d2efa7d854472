"""`recipes/video_model.sh` as it is started, killed and started again; what takes a GPU only notes that it was called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lift_trl.store.manifest import write_rows
from lift_trl.store.video_io import write_video
from tests.structure.source import RECIPES
from tests.vbench.suites import suite_file  # noqa: F401  (a fixture)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """`accelerate` and `python` that note their arguments; a `lift-trl` that is ours, but for the export of a LoRA."""
    folder = tmp_path / "bin"
    folder.mkdir()
    noting = f'echo "$@" >> {tmp_path}/calls; case "$*" in *"${{KILLED_AT:-nowhere}}"*) exit 137;; esac\n'
    ours = f'if [ "$1" = export ]; then {noting}\nelse exec {sys.executable} -m lift_trl.cli "$@"; fi\n'
    for name, text in {"accelerate": noting, "python": noting, "lift-trl": ours}.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}")
        (folder / name).chmod(0o755)
    return folder


def start(programs: Path, model: str, **environment: str) -> tuple[int, str, list[str]]:
    """The script's exit status, what it said, and the calls that it made meanwhile."""
    calls = programs.parent / "calls"
    calls.unlink(missing_ok=True)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(RECIPES / "video_model.sh"), model],
        cwd=programs.parent, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines() if calls.is_file() else []


@pytest.mark.parametrize("model", ["cogvideox-2", "mini"])
def test_a_model_that_lacks_a_yaml_is_told_before_anything_runs(model: str, programs: Path):
    status, said, calls = start(programs, model)
    assert (status, calls) == (1, []) and "missing" in said and "ltx-video" in said


def test_what_is_needed_at_the_end_is_asked_for_first_and_a_killed_run_goes_on(programs: Path, suite_file: Path):  # noqa: F811
    root = programs.parent
    status, said, calls = start(programs, "ltx-video")
    assert status != 0 and calls == [] and "runs/ltx-video/real" in said
    real = root / "runs" / "ltx-video" / "real"
    write_video(real / "0.mp4", np.full((9, 32, 48, 3), 90, np.uint8), fps=8)
    write_rows(real / "metadata.jsonl", [{"file_name": "0.mp4", "prompt": "a street", "is_real": True}])
    status, said, calls = start(programs, "ltx-video", VBENCH_SUITE="no.json")
    assert status != 0 and calls == [] and "no.json" in said

    suite = str(suite_file.rename(root / "suite.json").relative_to(root))
    status, said, before = start(programs, "ltx-video", VBENCH_SUITE=suite, KILLED_AT="align_rwl")
    assert status == 137 and "align_rwl" in before[-1], said
    plan, prompts = (root / "runs" / "ltx-video" / name for name in ("vbench_plan/metadata.jsonl", "prompts.txt"))
    first = json.loads(plan.read_text().splitlines()[0])
    prompts.write_text("a street of my own\n")
    status, said, calls = start(programs, "ltx-video", VBENCH_SUITE=suite)
    assert status == 0 and calls[: len(before)] == before, said
    assert "export" in calls[len(before) + 1] and calls[-1].endswith("ltx-video/evaluate.yaml")
    assert prompts.read_text() == "a street of my own\n" and json.loads(plan.read_text().splitlines()[0]) == first
