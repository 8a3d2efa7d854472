"""How recipes start: their PEP 723 heads, `recipes/launch/`, and what a report needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from packaging.requirements import Requirement

from tests.structure.source import RECIPES


ROOT = RECIPES.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL = sorted(RECIPES.glob("*.py"))
#: PEP 723's own expression.
BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


@pytest.mark.parametrize("recipe", ALL, ids=lambda path: path.name)
def test_a_recipe_names_what_it_needs(recipe: Path):
    (block,) = BLOCK.finditer(recipe.read_text())
    assert block["type"] == "script"
    head = tomllib.loads(
        "\n".join(line.removeprefix("# ").removeprefix("#") for line in block["content"].splitlines())
    )
    (needed,) = map(Requirement, head["dependencies"])
    assert head["requires-python"] == PROJECT["requires-python"]
    assert needed.name == PROJECT["name"] and needed.extras <= set(PROJECT["optional-dependencies"])


def test_a_report_and_its_help_need_no_torch():
    program = "import lift_trl.report.commands, lift_trl.cli, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def stand_ins(folder: Path) -> dict[str, str]:
    """SLURM's commands for a job on two machines, of which this is the second, and a launcher that prints its words."""
    programs = {
        "scontrol": 'echo "node-a\nnode-b"',
        "srun": 'shift\nSLURM_NODEID=1 exec "$@"',
        "accelerate": 'printf "%s\\n" "$@"',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "SLURM_GPUS_ON_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node-[a-b]"}


def test_slurm_starts_a_launcher_of_its_own_rank_on_each_machine(tmp_path: Path):
    options = ["--config", "a file.yaml", "--learning_rate", "3e-5"]
    command = ["bash", str(RECIPES / "launch" / "slurm.sh"), "recipes/align.py", *options]
    done = subprocess.run(command, env=stand_ins(tmp_path), capture_output=True, text=True, check=True, cwd=ROOT)
    launch, *words = done.stdout.splitlines()
    args = launch_command_parser().parse_args(words)
    assert launch == "launch" and Path(ROOT / args.config_file).is_file()
    assert (args.num_machines, args.num_processes, args.machine_rank, args.main_process_ip) == (2, 8, 1, "node-a")
    assert (args.training_script, args.training_script_args) == ("recipes/align.py", options)


def test_the_hub_takes_the_line_of_a_job(tmp_path: Path):
    env = {
        "PATH": stand_ins(tmp_path)["PATH"],
        "JOB_OPTIONS": "--dry-run",
        "HF_TOKEN": "hf_none",
        "HF_HOME": str(tmp_path),
    }
    # Nothing is sent: the client only resolves what it would send.
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    words = ["l4x4", "dev/lift", "recipes/score.py", "--config", "/configs/x y.yaml", "--output_dir", "/data/scored"]
    command = ["bash", str(RECIPES / "launch" / "hf_jobs.sh"), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=ROOT)
    for part in (
        "flavor    l4x4",
        "hf://buckets/dev/lift:/data",
        "UV_FIND_LINKS=/data/dist",
        "/configs/x y.yaml",
        "score.py",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    "locale, value", [("C.UTF-8", "it's $HOME"), ("C.UTF-8", "two\nlines"), ("C", "clips/f\u00fcr \\ `x`")]
)
def test_an_array_of_jobs_and_one_that_finishes(tmp_path: Path, locale: str, value: str):
    """SLURM's part is played by a script that runs each line at once, the last task of the array not at all."""
    sbatch = r"""
    job="$CALLS.sh"
    for word in "$@"; do case "$word" in
        --array=0-*) last="${word#--array=0-}" ;;
        --wrap=*) printf '#!/bin/sh\n%s\n' "${word#--wrap=}" > "$job" ;;  # as SLURM's manual says
        --dependency=*) [ "$word" = --dependency=afterany:77 ] || exit 3 ;;
    esac; done
    printf '%s\n' "$*" >> "$CALLS"
    [[ "$*" == *--wrap=* ]] || cat > "$job"
    chmod +x "$job"
    if [ -z "${last:-}" ]; then "$job" >&2; else
        for ((task = 0; task < last; task++)); do SLURM_ARRAY_TASK_ID="$task" "$job" >&2; done
    fi
    echo "77;cluster"
    """
    env = {
        **stand_ins(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "SBATCH_OPTIONS": "--partition gpu",
        "LC_ALL": locale,
    }
    for name, text in {"sbatch": sbatch, "python": 'printf "<%s>" "$@" >> "$CALLS"; echo >> "$CALLS"'}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    words = ["recipes/score.py", "--videos", "a folder", "--critic", value]
    command = ["bash", str(RECIPES / "launch" / "slurm_array.sh"), "3", *words]
    subprocess.run(command, env=env, check=True, cwd=ROOT, capture_output=True)
    asked = "".join(f"<{word}>" for word in words)
    first, *calls = (tmp_path / "calls").read_text().replace(asked, "ASKED").splitlines()
    assert "--partition gpu --array=0-2" in first and "--requeue" in first and "--gpus=1" in first
    assert calls[:2] == [f"ASKED<--shard><{number}/3>" for number in range(2)]
    assert "--dependency=afterany:77" in calls[2] and calls[3] == "ASKED"


@pytest.mark.parametrize("script", sorted(RECIPES.rglob("*.sh")), ids=lambda path: path.name)
def test_an_empty_array_is_no_unbound_variable_to_an_old_bash(script: Path):
    """Of bash before 4.4 (its CHANGES, 4.4, 1.x: `${a[@]}` of an empty array under `set -u`); macOS has 3.2."""
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    arrays = {name for line in lines for name in re.findall(r"read -ra (\w+)", line)}
    for name in arrays:
        used = [line for line in lines if f"{name}[@]" in line]
        guarded = f'${{{name}[@]+"${{{name}[@]}}"}}'
        assert used and all(f"{name}[@]" not in line.replace(guarded, "") for line in used)
