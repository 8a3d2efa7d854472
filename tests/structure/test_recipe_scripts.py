"""The lines of `recipes/*.sh`: each names a recipe or a command with options that exist, and a YAML of that recipe."""

import re
import shlex
import subprocess
import sys

import pytest

from lift_trl.cli import _parser, main
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe, parse_config, recipe_of, same_environment  # noqa: F401


ROOT = RECIPES.parent
VARIABLES = {
    "$RECIPES": "recipes",
    "$ACCELERATE": "recipes/configs/accelerate/single_gpu.yaml",
    "$VIDEO": "recipes/configs/$MODEL",
    "$CRITIC": "recipes/configs/qwen2.5-vl-7b",
    "$MINI": "recipes/configs/mini",
    "$VBENCH_SUITE": "Vbench_full_info_opt.json",
    "$1": "base",
}
#: Folders of YAMLs that recipes/video_model.sh takes.
MODELS = sorted(path.parent.name for path in (RECIPES / "configs").glob("*/generate_vbench.yaml"))


def lines(script: str, beginning: str, model: str = "cogvideox-2b") -> list[list[str]]:
    """The words of each command of a script that begins so, with the variables filled in."""
    text = (RECIPES / script).read_text()
    for name, value in {**VARIABLES, "$MODEL": model}.items():
        text = text.replace(name, value)
    commands = [part.strip(" ;{}") for line in text.splitlines() for part in re.split(r"(?<=\{)\s|;", line)]
    return [shlex.split(line, comments=True) for line in commands if line.strip().startswith(beginning)]


def recipe_calls(script: str, model: str = "cogvideox-2b") -> list[list[str]]:
    """`recipes/x.py` and its options, of each line that starts one."""
    starts = ("accelerate launch", 'one "recipes', 'two "recipes', 'python "recipes')
    calls = [call for beginning in starts for call in lines(script, beginning, model)]
    calls = [call for call in calls if any(word.endswith(".py") for word in call)]
    places = [next(i for i, word in enumerate(call) if word.endswith(".py")) for call in calls]
    return [call[place:] for call, place in zip(calls, places, strict=True)]


@pytest.mark.parametrize(
    "script, number, model", [("mini.sh", 15, ""), *(("video_model.sh", 12, model) for model in MODELS)]
)
def test_every_recipe_line_parses_with_its_yaml(script, number, model):
    assert len(MODELS) >= 6
    calls = recipe_calls(script, model)
    assert len(calls) == number
    for recipe, flag, yaml, *options in calls:
        assert flag == "--config" and recipe_of(ROOT / yaml) == ROOT / recipe
        parse_config(load_recipe(ROOT / recipe).ARGUMENTS, ROOT / yaml, options)


@pytest.mark.parametrize("script", ["mini.sh", "video_model.sh"])
def test_every_command_line_parses(script):
    calls = lines(script, "lift-trl")
    assert len(calls) >= 3
    for call in calls:
        args = _parser().parse_args(call[1:])
        assert callable(args.run)


@pytest.mark.parametrize("model", MODELS)
def test_what_a_line_reads_an_earlier_line_writes(model):
    """Every folder below runs/ that a YAML reads is written by an earlier line, but for what the user brings."""
    script = "video_model.sh"  # the other one is run by `make quickstart`
    written = {f"runs/{model}/real"}
    written |= {word for call in lines(script, "lift-trl", model) for word in call if word.startswith("runs/")}
    for recipe, _, yaml, *options in recipe_calls(script, model):
        given = dict(zip(options[::2], options[1::2], strict=True))
        settings = {}
        for line in (ROOT / yaml).read_text().splitlines():
            if match := re.match(r"(\w+):\s*(.+?)(\s+#.*)?$", line):
                settings[match[1]] = match[2]
        settings |= {name.removeprefix("--"): value for name, value in given.items()}
        output = settings.pop("output_dir", None) or settings.get("report_dir")
        read = {folder for value in settings.values() for folder in re.findall(r"runs/[\w./-]+", value)}
        own = {settings.get(name) for name in ("report_dir", "venv", "vbench_dir", "judge_dir")}
        missing = {f for f in read - own if not any(f == w or f.startswith(w + "/") for w in written)}
        assert not missing, (recipe, missing)
        written.add(output)


@pytest.mark.parametrize("script", sorted(path.name for path in RECIPES.glob("*.sh")))
def test_the_shell_can_read_it(script):
    subprocess.run(["bash", "-n", str(RECIPES / script)], check=True)


@pytest.mark.parametrize(
    "line, number",
    [
        ("mini.sh", 20),
        ("video_model.sh", 12),
        ("launch/slurm.sh align.py", 1),
        ("launch/slurm_array.sh 1 score.py", 2),
    ],
)
def test_copied_recipes_run_under_any_name_from_any_place(line, number, tmp_path):
    """Stand-ins for the programs note their words; each file that is named must be there, seen from where they start."""
    assert main(["recipes", str(tmp_path / "my copies")]) == 0
    note = 'printf "%s\\n" "$@" | grep -E "[.](py|yaml)$" >> "$CALLS"'
    programs = dict.fromkeys(("python", "accelerate", "lift-trl"), note)
    programs |= {"sbatch": "bash; echo 7", "scontrol": "echo node", "srun": 'shift; exec "$@"'}
    for name, text in programs.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\nexit 0\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "SLURM_ARRAY_TASK_ID": "0"}
    env |= {"SLURM_GPUS_ON_NODE": "1", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "node", "SLURM_NODEID": "0"}
    place = tmp_path / "a place"
    place.mkdir()
    words = [word if word == "1" else f"../my copies/{word}" for word in line.split()]
    subprocess.run(["bash", *words], env=env, cwd=place, check=True, capture_output=True)
    called = (tmp_path / "calls").read_text().splitlines()
    assert sum(name.endswith(".py") for name in called) == number
    assert all((place / name).is_file() and name.startswith("../my copies/") for name in called), called


@pytest.mark.parametrize("recipe", sorted({call[0] for call in recipe_calls("video_model.sh")}))
def test_help_names_every_option(recipe):
    module = load_recipe(ROOT / recipe)
    from lift_trl.recipe_parser import RecipeParser

    text = RecipeParser(module.ARGUMENTS).format_help()
    assert all(f"--{name}" in text for dataclass in module.ARGUMENTS[:1] for name in dataclass.__dataclass_fields__)
    assert sys.modules[module.__name__] is module
