"""The project's own source as data: files, imports, string constants. Used by the tests of the structure."""

import ast
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar


Found = TypeVar("Found")


ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lift_trl"
RECIPES = ROOT / "recipes"
#: Folders that hold none of the project's own text.
FOREIGN = {
    *(".venv", ".git", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints"),
    *("site", "dist", "build", "runs", "__pycache__"),
}


class Import(NamedTuple):
    """One imported module (`a.b` for `import a.b`, `from a import b` and `from . import b` alike)."""

    module: str
    line: int
    type_checking: bool  # True under `if TYPE_CHECKING:`, where nothing is really imported


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def python_files(*folders: str) -> list[Path]:
    """The Python files under these folders of the project, sorted; a folder that does not exist yet has none."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if FOREIGN.isdisjoint(path.relative_to(ROOT).parts)
    )


def text_files(*suffixes: str) -> Iterator[Path]:
    """The project's own files with one of these endings, wherever they are; what is foreign is not even walked through."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - FOREIGN)
        yield from (Path(folder) / name for name in sorted(set(names) - FOREIGN) if Path(name).suffix in suffixes)


def name_of(path: Path) -> str:
    """`lift_trl/store/manifest.py` -> `lift_trl.store.manifest`; a package's `__init__.py` is the package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def found_in(files: Iterable[Path], look: Callable[[Path], Found]) -> dict[str, Found]:
    """
    What `look` finds in these files, by their names; those in which it finds nothing are left out.

    One test looks at all files: a test for each would cost more than the look, and the answer names the files either way.
    """
    return {relative(path): found for path in files if (found := look(path))}


@cache
def imports(path: Path) -> list[Import]:
    """Every import of a file, also those inside functions; `from a import b` counts as `a.b`."""
    found: list[Import] = []
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST, type_checking: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, type_checking)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, type_checking) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.extend(Import(f"{module}.{alias.name}", node.lineno, type_checking) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, type_checking)

    visit(parse(path), False)
    return found


def docstring_nodes(tree: ast.Module) -> set[int]:
    """The ids of the constants that are docstrings."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }


def string_constants(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of the code that is not a docstring, parts of f-strings included."""
    tree = parse(path)
    docstrings = docstring_nodes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def cli_commands() -> list[str]:
    """The commands of `lift-trl`, read from the `command("...", ...)` calls of cli/."""
    return sorted(
        node.args[0].value
        for path in (PACKAGE / "cli").glob("*.py")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "command"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )
