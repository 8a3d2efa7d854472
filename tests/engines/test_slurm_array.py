"""An array of SLURM jobs with a real pipeline: one of them is preempted, and the last makes the folder complete."""

import os
import subprocess
import sys

import pytest

from lift_trl.alignment.sampling.generate import generate_videos, read_prompts
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.store.manifest import METADATA_FILE
from tests.alignment.conftest import pipeline_dir  # noqa: F401  (fixture)
from tests.engines.mortal import files_of
from tests.structure.source import RECIPES, ROOT


#: SLURM's part: runs the tasks of the array one after the other, and kills the second once it has a row.
SBATCH = """#!{python}
import os, pathlib, subprocess, sys, time

words = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
script = pathlib.Path({out!r}).with_name("job.sh")
script.write_text(sys.stdin.read())
script.chmod(0o755)
command = [str(script)]
if "array" not in words:
    sys.exit(subprocess.run(command).returncode)
for task in range(int(words["array"].partition("-")[2]) + 1):
    job = subprocess.Popen(command, env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}}, stdout=sys.stderr)
    part = pathlib.Path({out!r}, ".parts", "rank1.jsonl")
    while task == 1 and job.poll() is None and not (part.is_file() and part.stat().st_size):
        time.sleep(0.02)
    if task == 1:
        job.kill()
    print(task, job.wait(), file=sys.stderr)
print("77;cluster")
"""


@pytest.mark.slow
def test_an_array_of_jobs_makes_the_videos_of_one_process(pipeline_dir, tmp_path):  # noqa: F811
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("a red circle moving left\na blue square moving up\n")
    sampling = Sampling(num_inference_steps=40, guidance_scale=3.0, batch_size=2)
    videos = read_prompts(prompts, videos_per_prompt=8, seed=3)
    whole = generate_videos(pipeline_dir, videos, tmp_path / "whole", sampling=sampling)
    for name, text in {"sbatch": SBATCH.format(python=sys.executable, out=str(out)), "python": ""}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text or f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
        path.chmod(0o755)
    recipe = ["recipes/generate.py", f"--model_name_or_path={pipeline_dir}", f"--prompts={prompts}", "--seed=3"]
    recipe += ["--videos_per_prompt=8", "--batch_size=2", "--num_inference_steps=40", "--guidance_scale=3"]
    command = ["bash", str(RECIPES / "launch" / "slurm_array.sh"), "3", *recipe, f"--output_dir={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    ended = [line for line in ran.stderr.splitlines() if line in ("0 0", "1 -9", "2 0")]
    assert ended == ["0 0", "1 -9", "2 0"] and (out / METADATA_FILE).is_file()
    assert files_of(out) == files_of(whole)
