"""The lines of `recipes/*.sh`: each names a recipe or a command with options that exist, and a YAML of that recipe."""

import re
import shlex
import subprocess
import sys

import pytest

from lift_trl.cli import _parser
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe, parse_config, recipe_of, same_environment  # noqa: F401


ROOT = RECIPES.parent
VARIABLES = {
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
    starts = ("accelerate launch", "one recipes", "two recipes", "python recipes")
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


@pytest.mark.parametrize("recipe", sorted({call[0] for call in recipe_calls("video_model.sh")}))
def test_help_names_every_option(recipe):
    module = load_recipe(ROOT / recipe)
    from lift_trl.recipe_parser import RecipeParser

    text = RecipeParser(module.ARGUMENTS).format_help()
    assert all(f"--{name}" in text for dataclass in module.ARGUMENTS[:1] for name in dataclass.__dataclass_fields__)
    assert sys.modules[module.__name__] is module
