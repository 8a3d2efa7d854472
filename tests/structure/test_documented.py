"""Settings say in their docstrings what each field is, as TRL's do: name, type, default, text; `--help` says the same."""

import ast
import importlib
import inspect
import re
import types
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from lift_trl.documented import documented
from lift_trl.recipe_parser import RecipeParser
from tests.structure.source import name_of, parse, python_files, relative
from tests.structure.test_recipe_configs import SCRIPTS, load_recipe


ENTRY = re.compile(r"^    (\w+) \((.+)\):\n((?: {8}.+\n?)+)", re.MULTILINE)
OPTIONAL = re.compile(r"(.+), \*optional\*, defaults to `(.+)`")


def is_settings(name: str) -> bool:
    return name == "Sampling" or name.endswith(("Config", "Settings", "Arguments"))


def decorator(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


#: Every dataclass of settings, found by its name.
SETTINGS = [
    (name_of(path), node.name)
    for path in python_files("lift_trl")
    for node in parse(path).body
    if isinstance(node, ast.ClassDef) and is_settings(node.name) and "dataclass" in map(decorator, node.decorator_list)
]


def stated_type(hint: Any) -> str:
    """
    A type as it is written in a docstring.

    >>> stated_type(dict[str, float] | None)
    '`dict[str, float]` or `None`'
    """
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(stated_type, get_args(hint))))
    if get_origin(hint) is Literal:
        return "`str`"
    if hint is type(None):
        return "`None`"
    name = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
    return f"`{name.replace('typing.', '').replace('collections.abc.', '')}`"


def choices(hint: Any) -> list[str]:
    """What a `Literal` of strings allows."""
    return [c for part in (hint, *get_args(hint)) if get_origin(part) is Literal for c in get_args(part)]


def default_of(option: "Field[Any]") -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()


def faults(config: type) -> list[str]:
    """What of a class's own fields its docstring leaves out or states wrongly."""
    entries = {
        name: (head, " ".join(text.split())) for name, head, text in ENTRY.findall(inspect.getdoc(config) or "")
    }
    hints, own = get_type_hints(config), inspect.get_annotations(config)
    by_name = {option.name: option for option in fields(config)}
    options = [by_name[name] for name in own if name in by_name]
    if list(entries) != [option.name for option in options]:
        missing = {option.name for option in options} ^ set(entries)
        return [f"{config.__name__}: fields and entries differ: {sorted(missing) or 'their order'}"]
    found = []
    for option in options:
        head, text = entries[option.name]
        default = default_of(option)
        kind, said = OPTIONAL.fullmatch(head).groups() if default is not MISSING else (head, "")
        stated = getattr(inspect.getmodule(config), said, None) if said.isidentifier() and said.isupper() else MISSING
        stated = ast.literal_eval(said) if stated is MISSING and said else stated
        if kind != stated_type(hints[option.name]):
            found.append(f"{option.name}: type {kind}, is {stated_type(hints[option.name])}")
        if stated != default or type(stated) is not type(default) and not isinstance(default, int | float):
            found.append(f"{option.name}: default {said}, is {default!r}")
        if option.metadata.get("help", text) != text:
            found.append(f"{option.name}: --help says {option.metadata['help']!r}")
        found += [f"{option.name}: {c!r} is not described" for c in choices(hints[option.name]) if c not in text]
    return found


@pytest.mark.parametrize(("module", "name"), SETTINGS, ids=lambda value: value)
def test_every_field_is_described_with_its_type_and_default(module, name):
    assert faults(getattr(importlib.import_module(module), name)) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_help_of_a_recipe_describes_every_field(path):
    parser = RecipeParser(load_recipe(path).ARGUMENTS)
    assert [action.dest for action in parser._actions if not action.help] == []


@dataclass
class Planted:
    """
    Settings with one fault.

    Args:
        steps (`int`, *optional*, defaults to `50`):
            Steps of the sampler, of which
            there are some.
        kind (`str` or `None`, *optional*, defaults to `None`):
            fast or slow.
    """

    steps: int = 50
    kind: Literal["fast", "slow"] | None = None


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("`50`", "`51`", "steps: default 51, is 50"),
        ("`50`", '`"50"`', 'steps: default "50", is 50'),
        ("`int`, ", "`float`, ", "steps: type `float`, is `int`"),
        ("fast or slow", "slow", "kind: 'fast' is not described"),
        ("of which", "of", "steps: --help says 'Steps of the sampler, of which there are some.'"),
        ("kind (", "sort (", "Planted: fields and entries differ: ['kind', 'sort']"),
    ],
)
def test_faults_are_found(monkeypatch, old, new, fault):
    assert faults(documented(Planted)) == []
    monkeypatch.setattr(Planted, "__doc__", Planted.__doc__.replace(old, new))
    assert fault in faults(Planted)
