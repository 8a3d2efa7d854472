"""Every YAML in recipes/configs parses into the dataclasses of its recipe."""

import dataclasses
import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.recipe_parser import RecipeParser
from lift_trl.store.tables import read_yaml
from lift_trl.store.typed import field_types, typed
from tests.structure.source import RECIPES, found_in, relative


CONFIGS = RECIPES / "configs"
YAMLS = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "accelerate")
SCRIPTS = sorted(RECIPES.glob("*.py"))
ORIGIN = re.compile(r"#.*\[[PRO]\]")


def recipe_of(path: Path) -> Path:
    """`align_rwl.yaml` belongs to `align.py`: the longest script name that begins the YAML's."""
    fitting = [s for s in SCRIPTS if path.stem == s.stem or path.stem.startswith(s.stem + "_")]
    assert fitting, f"{relative(path)}: no recipe is called like it; there are {[s.stem for s in SCRIPTS]}"
    return max(fitting, key=lambda script: len(script.stem))


def load_recipe(path: Path) -> ModuleType:
    name = f"recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_config(arguments: tuple[type, ...], path: Path, options: Sequence[str] = ()) -> tuple[object, ...]:
    """What the recipe itself does with `--config path`, on a machine without a GPU."""
    args = ["--config", str(path), *options]
    if any(field.name == "use_cpu" for dataclass in arguments for field in dataclasses.fields(dataclass)):
        args += ["--use_cpu", "true"]  # bf16 is refused without it where there is no GPU
    return RecipeParser(arguments).parse_args_and_config(args)


@pytest.fixture(autouse=True)
def same_environment(monkeypatch, tmp_path):
    """TrainingArguments and an `env:` block write to os.environ; a YAML's relative paths mean the current folder."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_each_recipe_has_a_yaml():
    assert SCRIPTS and {recipe_of(path) for path in YAMLS} == set(SCRIPTS)


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_recipe_names_its_dataclasses(path):
    arguments = load_recipe(path).ARGUMENTS
    assert isinstance(arguments, tuple) and arguments and all(dataclasses.is_dataclass(a) for a in arguments)
    fields = [field.name for dataclass in arguments for field in dataclasses.fields(dataclass) if field.init]
    assert sorted(fields) == sorted(set(fields)), "two dataclasses of a recipe share a field name"


@pytest.mark.parametrize("path", YAMLS, ids=relative)
def test_yaml_parses_into_its_recipe(path):
    parsed = parse_config(load_recipe(recipe_of(path)).ARGUMENTS, path)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = {field.name: getattr(part, field.name) for part in parsed for field in dataclasses.fields(part)}
    assert set(given) - {"env"} <= set(values)
    kept = {name: values[name] for name, value in given.items() if isinstance(value, bool | int)}
    assert kept == {name: given[name] for name in kept}


@pytest.mark.parametrize("path", sorted({recipe_of(path): path for path in reversed(YAMLS)}.values()), ids=relative)
def test_unknown_key_is_refused(path, tmp_path):
    """In one YAML of each recipe."""
    wrong = tmp_path / path.name
    wrong.write_text(path.read_text(encoding="utf-8") + "\nlaerning_rate: 1.0\n")
    with pytest.raises(ValueError, match="laerning_rate"):
        parse_config(load_recipe(recipe_of(path)).ARGUMENTS, wrong)


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_a_value_that_is_no_choice_is_refused_with_those_that_are(path, tmp_path):
    """On the command line by argparse; in a YAML, argparse does not look."""
    arguments = load_recipe(path).ARGUMENTS
    base = yaml.safe_load(min(y for y in YAMLS if recipe_of(y) == path).read_text(encoding="utf-8"))
    chosen = [action for action in RecipeParser(arguments)._actions if action.choices is not None]
    for action in chosen:
        config = tmp_path / f"{action.dest}.yaml"
        config.write_text(yaml.safe_dump({**base, action.dest: "wrong"}))
        with pytest.raises(ValueError, match=f"{action.dest}='wrong'; use one of .*{list(action.choices)[-1]}"):
            parse_config(arguments, config)
    ours = {"objective", "loss_type", "quantization", "guard_action", "judge", "bad_rows", "runner", "protocol"}
    fields = {field.name: field.type for part in arguments for field in dataclasses.fields(part)}
    own = {name for name in ours.intersection(fields) if not (name == "judge" and path.stem == "evaluate")}
    assert own <= {action.dest for action in chosen}


#: A line of generate's YAML, and what is to be said of it.
OF_ANOTHER_TYPE = {
    "seed: 1.5": "seed: 1.5 is of another type; give a whole number",
    "num_frames: 49.5": "give a whole number or null",
    "videos_per_prompt: 2.0": "give a whole number",
    "batch_size: true": "batch_size: True",
    "batch_size: four": "batch_size: 'four'",
    "batch_size: '4.5'": "batch_size: '4.5'",
    "batch_size:": "batch_size: None",
    "guidance_scale: true": "give a number or null",
    "guidance_scale: [6]": r"guidance_scale: \[6\]",
    "vae_tiling: 3": "vae_tiling: 3 .*true or false",
    "tf32: nope": "tf32: 'nope'",
    "prompts: [a, b]": "prompts: .* give text, in quotes",
    "output_dir: 5": "output_dir: 5 .* in quotes",
    "scheduler: no": "scheduler: False .* in quotes",
    "adapter: 7": r"adapter: \[7\] .*a list, each entry text",
    "adapter: [a, 7]": "a list, each entry text",
    "pipeline_options: [1]": "a mapping or text",
}


def generate(folder: Path, text: str) -> object:
    """The sampler's and the recipe's own arguments of generate's YAML with the lines of `text`."""
    config = folder / "generate.yaml"
    given = {"model_name_or_path": "m", "prompts": "p", "output_dir": "o"}
    lines = [f"{name}: {value}" for name, value in given.items() if f"{name}:" not in text]
    config.write_text("\n".join([*lines, text]) + "\n")
    return parse_config(load_recipe(RECIPES / "generate.py").ARGUMENTS, config)[0]


@pytest.mark.parametrize("line", OF_ANOTHER_TYPE)
def test_a_value_of_another_type_is_refused_with_the_file(line, tmp_path):
    with pytest.raises(ValueError, match=f"generate.yaml: .*{OF_ANOTHER_TYPE[line]}"):
        generate(tmp_path, line)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("guidance_scale: 6", 6), ("guidance_scale: 6.5", 6.5), ("guidance_scale: 65e-1", 6.5), ("seed: '7'", 7),
        ("tf32: 'yes'", True), ("tf32: false", False), ("num_frames:", None), ("num_frames: null", None),
        ("adapter: runs/lora", ["runs/lora"]), ("adapter: [a, b]", ["a", "b"]),
        ("pipeline_options: {a: 1}", {"a": 1}), ("scheduler: 'no'", "no"),
    ],
)  # fmt: skip
def test_what_argparse_makes_of_a_value_stays(line, value, tmp_path):
    found = getattr(generate(tmp_path, line), line.split(":")[0])
    assert found == value and type(found) is type(value)


def test_numbers_as_pyyaml_reads_them_reach_a_trainer(tmp_path):
    """`1e-4` is text to PyYAML 6, and an integer may stand for a number."""
    config = tmp_path / "align.yaml"
    config.write_text(
        "model_name_or_path: m\ncache: c\noutput_dir: o\nlearning_rate: 1e-4\nmax_grad_norm: 1\nsave_steps: 5\n"
        "dimension_weights: {motion_smoothness: 2}\nlr_scheduler_type: cosine\nreport_to: none\nlora_r: '8'\n"
    )
    _, lora, training = parse_config(load_recipe(RECIPES / "align.py").ARGUMENTS, config)
    assert (training.learning_rate, training.max_grad_norm, training.save_steps, lora.lora_r) == (1e-4, 1, 5, 8)
    config.write_text(config.read_text().replace("{motion_smoothness: 2}", "{motion_smoothness: true}"))
    with pytest.raises(ValueError, match="dimension_weights: .* give a mapping or text"):
        parse_config(load_recipe(RECIPES / "align.py").ARGUMENTS, config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsdp", True), ("fsdp", ["full_shard", "auto_wrap"]), ("fsdp", "full_shard auto_wrap"), ("debug", [""]),
        ("resume_from_checkpoint", False), ("bf16", None), ("push_to_hub", None), ("include_for_metrics", None),
    ],
)  # fmt: skip
def test_what_transformers_takes_beside_its_annotations_stays(name, value):
    assert typed(name, value, field_types(RewardWeightedVideoConfig)[name]) == value


def test_a_yaml_may_merge_several_anchors(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b, x: 3}\n1: d\n'1': e\n")
    given = read_yaml(tmp_path / "a.yaml")
    assert given["c"] == {"x": 3, "y": 2} and given[1] == "d" and given["1"] == "e"


@pytest.mark.parametrize("text", ["seed: 1\nheight: 32\nseed: 2", "pipeline_options: {a: [{b: 1, c: 2, b: 3}]}"])
def test_a_key_that_stands_twice_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match=r"generate.yaml: is no YAML \(line [46]: (seed|b) stands in line 4 too\)"):
        generate(tmp_path, text)


def unmarked(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"\w+:\s*[-\d.]", line) and not ORIGIN.search(line)]


def test_every_number_names_its_origin():
    """[P]aper, [R]eference repository or [O]urs."""
    assert found_in((path for path in YAMLS if path.parent.name != "mini"), unmarked) == {}


@pytest.mark.parametrize(
    ("recipe", "option", "given"),
    [
        ("train_critic", "processor_kwargs", {"crop_to_patches": False, "max_patches": 3}),
        ("align", "dimension_weights", {"motion_smoothness": 2.5}),
    ],
)
def test_a_mapping_may_be_json_on_the_command_line(recipe, option, given):
    arguments = load_recipe(RECIPES / f"{recipe}.py").ARGUMENTS
    path = min(y for y in YAMLS if recipe_of(y).stem == recipe and y.parent.name == "mini")
    parsed = parse_config(arguments, path, [f"--{option}", json.dumps(given)])
    assert [getattr(part, option) for part in parsed if hasattr(part, option)] == [given]
    with pytest.raises(ValueError, match="Expecting"):
        parse_config(arguments, path, [f"--{option}", "{half"])


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_one_value_for_a_list_is_a_list_of_one(path, tmp_path):
    """`videos: /folder` in a YAML means what `--videos /folder` does."""
    arguments = load_recipe(path).ARGUMENTS
    ours = [part for part in arguments if not part.__module__.startswith(("trl", "transformers"))]
    own = {name for part in ours for name in part.__annotations__} - {"label_names"}  # which is refused
    actions = RecipeParser(arguments)._actions
    lists = [action.dest for action in actions if action.nargs in ("+", "*") and action.dest in own]
    base = yaml.safe_load(min(y for y in YAMLS if recipe_of(y) == path).read_text(encoding="utf-8"))
    for name in lists:
        parsed = []
        for number, value in enumerate(("one=word", ["one=word"])):
            config = tmp_path / f"{name}{number}.yaml"
            config.write_text(yaml.safe_dump({**base, name: value}))
            parsed.append([getattr(part, name) for part in parse_config(arguments, config) if hasattr(part, name)])
        assert parsed[0] == parsed[1] == [["one=word"]], name
    assert lists or path.stem not in ("cache", "iterate", "evaluate", "align")
