"""Private names of libraries: each use says of which version it is, and which test fails when it goes."""

import ast
import importlib
import inspect
import io
import re
import tokenize
from functools import cache
from pathlib import Path

from tests.structure.source import ROOT, found_in, name_of, parse, python_files


FILES = python_files("lift_trl", "recipes", "spaces", "benchmarks")
#: Documented, though they begin with an underscore: of NamedTuple, and what a metric of `evaluate` overrides.
DOCUMENTED = {"_asdict", "_replace", "_fields", "_info", "_compute"}
SAID = re.compile(r"[Pp]rivate in \w+(?: of Python)? \d[^:]*:([^.;]+)[.;].*?fails?\.?", re.DOTALL)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


@cache
def own_names() -> set[str]:
    """All names that the project's files define themselves."""
    found = set()
    for path in FILES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "view"):
                    found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
    return found


@cache
def own_methods() -> set[str]:
    classes = (node for path in FILES for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef))
    return {part.name for node in classes for part in node.body if isinstance(part, ast.FunctionDef)}


def attributes(tree: ast.Module) -> set[str]:
    """Private attributes that no file of ours defines; names of torch's operators (`aten._x`) are none."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own_names()
        if not (isinstance(node.value, ast.Name) and node.value.id == "aten")
    }


def imported(tree: ast.Module) -> set[str]:
    """Private modules and names that are imported from elsewhere."""
    words = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and not (node.module or "").startswith("lift_trl"):
            words |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
    return set(filter(is_private, words))


def overridden(path: Path, tree: ast.Module) -> set[str]:
    """Private names of a library's class that a class of ours defines anew, or passes on to."""
    if ROOT / "lift_trl" not in path.parents:
        return set()
    found = set()
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        kind = vars(importlib.import_module(name_of(path)))[node.name]
        ours, theirs = set(), set()
        for base in inspect.getmro(kind)[1:]:
            (ours if base.__module__.startswith("lift_trl") else theirs).update(filter(is_private, vars(base)))
        defined = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        assigned = [target for part in node.body if isinstance(part, ast.Assign) for target in part.targets]
        defined |= {target.id for target in assigned if isinstance(target, ast.Name)}
        found |= (defined & theirs) | set(filter(is_private, passed_on(node))) - ours
    return found


def passed_on(node: ast.ClassDef) -> set[str]:
    """Names of `super().name`."""
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Call)
        if isinstance(part.value.func, ast.Name) and part.value.func.id == "super"
    }


def replaced(tree: ast.Module) -> set[str]:
    """Private names as texts: `patch.object(nn.Module, "_apply", ...)`, `getattr(x, "_y")`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) > 1)
    names = [
        call.args[1] for call in calls if ast.unparse(call.func) in ("patch.object", "getattr", "setattr", "hasattr")
    ]
    return {n.value for n in names if isinstance(n, ast.Constant) and is_private(str(n.value))} - own_methods()


def comments(text: str) -> str:
    """All comments of a file, in order."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)


def explained(text: str) -> tuple[set[str], set[str]]:
    """The private names that the comments of a file explain, and the tests that they name."""
    names: set[str] = set()
    tests: set[str] = set()
    for found in SAID.finditer(comments(text) if "rivate" in text else ""):
        names |= set(re.findall(r"\b_\w+", found[1]))
        tests |= set(re.findall(r"`(test_\w+)`", found[0]))
    return names, tests


@cache
def all_tests() -> set[str]:
    return {
        node.name
        for path in python_files("tests")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def unexplained(path: Path) -> dict[str, set[str]]:
    """Names that are used and not explained, explained and not used, and tests that are not there, or are not named."""
    tree = parse(path)
    used = (attributes(tree) | imported(tree) | replaced(tree) | overridden(path, tree)) - DOCUMENTED
    names, tests = explained(path.read_text(encoding="utf-8"))
    # A name that a file of ours has too may be explained.
    known = used | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    faults = {"not explained": used - names, "not used": names - known, "no such test": tests - all_tests()}
    faults["without a test"] = set() if tests or not names else names
    faults["without a name"] = set() if names or not tests else tests
    return {fault: which for fault, which in faults.items() if which}


def test_private_names_are_explained():
    assert found_in(FILES, unexplained) == {}


def test_what_a_comment_must_say():
    text = "# Private in torch 2.14: _a, _b. When they go,\n# `test_x` fails.\nx._a\n# Private; torch 2.14. `test_y` fails."
    assert explained(text) == ({"_a", "_b"}, {"test_x"})
    assert attributes(ast.parse("part._hf_secret + self._files + aten._unique2")) == {"_hf_secret"}
    assert imported(ast.parse("from torch._dynamo import _config, public")) == {"_dynamo", "_config"}
    assert replaced(ast.parse("patch.object(nn.Module, '_apply', new)")) == {"_apply"}
    assert passed_on(ast.parse("class A(B):\n    def _save(self): super()._save()").body[0]) == {"_save"}
