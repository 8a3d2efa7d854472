"""The direction of imports: a module imports from lower levels only, and each library has its place."""

import ast
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.structure.source import PACKAGE, ROOT, Import, found_in, imports, name_of, parse, python_files, relative


# A module may import from a level with a smaller number, and from its own package. The stages (40) never import one
# another: they meet on disk.
LEVELS = {
    "lift_trl": 0,  # __version__; the public names are looked up lazily
    "lift_trl.rubric": 0,
    "lift_trl.documented": 0,
    "lift_trl.published": 10,
    "lift_trl.records": 10,
    "lift_trl.protocols": 11,
    "lift_trl.prefetch": 12,
    "lift_trl.hub_source": 12,
    "lift_trl.remote": 12,
    "lift_trl.kernels": 12,
    "lift_trl.importing": 12,
    "lift_trl.store": 20,
    "lift_trl.critic_models": 30,
    "lift_trl.video_models": 30,
    "lift_trl.hub": 30,
    "lift_trl.statistics": 30,
    "lift_trl.judges": 32,
    "lift_trl.runtime": 35,
    "lift_trl.engines": 36,
    "lift_trl.feedback": 40,
    "lift_trl.critic": 40,
    "lift_trl.alignment": 40,
    "lift_trl.vbench": 40,
    "lift_trl.report": 42,  # reads what VBench and the judges left
    "lift_trl.metrics": 43,
    "lift_trl.mini": 40,
    "lift_trl.ui": 40,
    "lift_trl.serving": 40,
    "lift_trl.reward_source": 45,  # of two stages: who scores is a critic or a judge
    "lift_trl.estimate": 45,  # runs the code of the stages
    "lift_trl.cli": 50,
    "lift_trl.recipe_parser": 50,
}

# Where in lift_trl a library may be imported (prefixes of module names).
PLACES = {
    "gradio": ("lift_trl.ui",),
    "vbench": ("lift_trl.vbench",),
    "evaluate": ("lift_trl.metrics",),
    "choix": ("lift_trl.statistics",),
    "krippendorff": ("lift_trl.feedback",),
    "trl": ("lift_trl.critic", "lift_trl.recipe_parser", "lift_trl.estimate"),
    "diffusers": ("lift_trl.video_models", "lift_trl.alignment", "lift_trl.hub", "lift_trl.mini", "lift_trl.estimate"),
    "av": ("lift_trl.store.video_io",),
    "torchao": ("lift_trl.store.quantization",),
    "ray": ("lift_trl.engines.ray",),
    "fastapi": ("lift_trl.serving",),
    "uvicorn": ("lift_trl.serving",),
}
#: Trackers of the user's choice: imported only where the run reports to them, so no extra of ours installs them.
TRACKERS = {"wandb", "trackio"}
#: Training tools that ask a served critic: `recipes/served` runs inside them.
HOSTS = {"unirl", "flow_factory"}
NOWHERE = ("torchcodec", "decord", "torchvision.io", "moviepy", "cv2", "imageio")

FILES = python_files("lift_trl")


def under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def unit(module: str) -> str:
    """`lift_trl.store.manifest.Manifest` -> `lift_trl.store`: the part of the package that has a level."""
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in LEVELS else parts[0]


def broken_layers(path: Path, found: list[Import]) -> list[str]:
    here = unit(name_of(path))
    broken = []
    for module, line, _ in found:
        if not under(module, "lift_trl") or module == "lift_trl.__version__":
            continue
        there = unit(module)
        if there == "lift_trl":
            broken.append(f"{relative(path)}:{line} imports {module}; import it from the module that defines it")
        elif there != here and LEVELS[there] >= LEVELS[here]:
            broken.append(f"{relative(path)}:{line} ({here}, {LEVELS[here]}) imports {module} ({LEVELS[there]})")
    return broken


def test_every_module_has_a_level():
    units = {f"lift_trl.{path.relative_to(PACKAGE).parts[0].removesuffix('.py')}" for path in FILES}
    assert units - set(LEVELS) - {"lift_trl.__init__"} == set()


def test_imports_come_from_lower_levels():
    files = [path for path in FILES if path != PACKAGE / "__init__.py"]
    assert found_in(files, lambda path: broken_layers(path, imports(path))) == {}


def test_the_rule_rejects_a_stage_that_imports_a_stage_and_an_upward_import():
    stage = PACKAGE / "alignment" / "score.py"
    store = PACKAGE / "store" / "manifest.py"
    for path, module in (
        (stage, "lift_trl.critic.lift_critic"),
        (stage, "lift_trl.CriticScore"),
        (store, "lift_trl.hub.cards"),
        (store, "lift_trl.cli"),
    ):
        assert len(broken_layers(path, [Import(module, 1, False)])) == 1, module
    for path, module in (
        (stage, "lift_trl.alignment.data.cache"),
        (stage, "lift_trl.hub"),
        (store, "lift_trl.records"),
    ):
        assert broken_layers(path, [Import(module, 1, False)]) == [], module


def test_rubric_needs_the_standard_library_only():
    foreign = [i for i in imports(PACKAGE / "rubric.py") if i.module.split(".")[0] not in sys.stdlib_module_names]
    assert foreign == []


@pytest.mark.parametrize("name", ["__init__.py", "rubric.py", "records.py", "protocols.py"])
def test_torch_is_not_imported_below_the_store(name):
    heavy = ("torch", "transformers", "diffusers", "accelerate", "peft", "trl")
    found = [i for i in imports(PACKAGE / name) if not i.type_checking and i.module.split(".")[0] in heavy]
    assert found == []


def misplaced(path: Path) -> list[str]:
    here = name_of(path)
    return [
        f"line {line} imports {module}"
        for module, line, _ in imports(path)
        for library, places in {**PLACES, **dict.fromkeys(NOWHERE, ())}.items()
        if under(module, library) and not any(under(here, place) for place in places)
    ]


def test_libraries_stay_in_their_places():
    assert found_in(FILES, misplaced) == {}


def decoders(path: Path) -> list[Import]:
    return [i for i in imports(path) if any(under(i.module, library) for library in NOWHERE)]


def test_forbidden_decoders_are_nowhere():
    assert found_in(python_files("recipes", "benchmarks", "spaces", "tests"), decoders) == {}


def test_every_imported_library_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["ui"]]
    requirements += project["optional-dependencies"]["eval"] + project["optional-dependencies"]["trackers"]
    requirements += project["optional-dependencies"]["serve"] + project["optional-dependencies"]["quantization"]
    requirements += project["optional-dependencies"]["ray"]
    declared = {canonicalize_name(Requirement(r).name) for r in requirements}
    owners = packages_distributions()
    own = {*sys.stdlib_module_names, *TRACKERS, *HOSTS, "lift_trl"}
    undeclared = {
        f"{relative(path)} imports {library}"
        for path in python_files("lift_trl", "recipes")
        for library in {i.module.split(".")[0] for i in imports(path)} - own
        if declared.isdisjoint(canonicalize_name(owner) for owner in owners.get(library, [library]))
    }
    assert undeclared == set()


@cache
def names_in(module: str) -> set[str]:
    """What a module of ours defines or imports at its top, and the modules of a package."""
    file = ROOT.joinpath(*module.split("."))
    package = {path.stem for path in file.glob("*.py")} | {path.parent.name for path in file.glob("*/__init__.py")}
    path = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    found = set(package)
    for node in (n for top in parse(path).body for n in ([top, *top.body] if isinstance(top, ast.If) else [top])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def missing(path: Path) -> list[str]:
    ours = [i.module.rpartition(".") for i in imports(path) if i.module.startswith("lift_trl.")]
    return [f"{module}.{name}" for module, _, name in ours if module != "lift_trl" and name not in names_in(module)]


def test_what_is_imported_of_the_package_is_there():
    """No test runs all of these files, so a name that moved away would show at their next use only."""
    assert found_in(python_files("recipes", "benchmarks", "spaces", "dev"), missing) == {}


def test_a_name_that_is_not_there_is_found():
    known = names_in("lift_trl.estimate.weightless.configured")
    assert {"ConfiguredSource", "PACKAGED", "_find", "torch"} <= known and "default_dtype" not in known
    assert {"source", "HeldPipeline"} <= names_in("lift_trl.video_models")
