"""Small files, small functions, no shared runs between recipes, plain text."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from statistics import median

from tests.structure.source import FOREIGN, PACKAGE, RECIPES, found_in, parse, python_files, relative, text_files


MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_SHARED_LINES = 5
MAX_FOLDER_FILES = 14
MAX_MEDIAN_LINES = 150

FILES = python_files("lift_trl", "recipes", "spaces")
#: Files of code under lift_trl/, those that a page loads among them.
CODE = sorted(
    path
    for path in PACKAGE.rglob("*")
    if path.suffix in {".py", ".js", ".css"} and FOREIGN.isdisjoint(path.relative_to(PACKAGE).parts)
)
# Written so that this file does not match itself.
PRIVATE_PATH = re.compile("/" + r"(root|work|Users|home/\w+)" + r"/[\w.]")


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which is meant to be long."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def significant_lines(text: str) -> list[str]:
    """The lines of a recipe that are neither blank, comment, nor import."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "import ", "from "))]


def longest_shared_run(a: list[str], b: list[str]) -> int:
    """
    Length of the longest run of equal consecutive lines.

    >>> longest_shared_run(["x", "y", "z"], ["q", "y", "z"])
    2
    """
    longest, row = 0, [0] * (len(b) + 1)
    for line in a:
        row = [0] + [row[j] + 1 if line == other else 0 for j, other in enumerate(b)]
        longest = max(longest, *row)
    return longest


def crowded(files: Iterable[Path]) -> dict[str, int]:
    """The folders with more files of code than one can look over, and how many they have."""
    counts = Counter(path.parent.as_posix() for path in files)
    return {folder: count for folder, count in counts.items() if count > MAX_FOLDER_FILES}


def repeats_its_folder(path: Path) -> bool:
    """
    Whether a file's name begins with its folder's: `ui/ui_page.py`, `objectives/objective_dpo.py`.

    TRL names a trainer's files `x_config.py` and `x_trainer.py`; `evaluate.load(folder)` reads `folder/folder.py`.
    """
    folder = path.parent.name
    names = {folder, folder.removesuffix("s")}
    evaluate_metric = path.parents[1].name == "metrics" and path.stem == folder
    trainer = path.stem in {f"{name}_{kind}" for name in names for kind in ("config", "trainer")}
    return not (evaluate_metric or trainer) and any(
        path.stem == name or path.stem.startswith(f"{name}_") for name in names
    )


def test_no_folder_is_crowded():
    assert crowded(CODE) == {}


def test_no_file_repeats_its_folders_name():
    assert [relative(path) for path in CODE if repeats_its_folder(path)] == []


def test_the_median_file_is_short():
    assert median(len(lines_of(path)) for path in CODE) < MAX_MEDIAN_LINES


def test_crowded_folders_and_repeated_names_are_found():
    full = [Path("a") / f"{i}.py" for i in range(MAX_FOLDER_FILES)]
    assert crowded(full) == {}
    assert crowded([*full, Path("a/page.js")]) == {"a": MAX_FOLDER_FILES + 1}
    for name in ("ui/ui_page.py", "x/objectives/objective_dpo.py", "x/lora/lora.py", "x/lora/lora_loading.py"):
        assert repeats_its_folder(PACKAGE / name), name
    for name in ("metrics/win_rate/win_rate.py", "critic/critic_config.py", "lora/loading.py", "metrics/x/y.py"):
        assert not repeats_its_folder(PACKAGE / name), name


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_files_are_short():
    assert {relative(path): n for path in FILES if (n := len(lines_of(path))) > MAX_FILE_LINES} == {}


def long_functions(path: Path) -> dict[str, int]:
    functions = [n for n in ast.walk(parse(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f.name: code_lines(f) for f in functions if code_lines(f) > MAX_FUNCTION_LINES}


def test_functions_are_short():
    assert found_in(FILES, long_functions) == {}


def test_source_is_ascii():
    assert found_in(FILES, lambda path: [n for n, line in enumerate(lines_of(path), 1) if not line.isascii()]) == {}


def test_recipes_share_no_long_run():
    lines = {path: significant_lines(path.read_text(encoding="utf-8")) for path in sorted(RECIPES.glob("*.py"))}
    shared = {(a.stem, b.stem): longest_shared_run(lines[a], lines[b]) for a, b in combinations(lines, 2)}
    assert {pair: run for pair, run in shared.items() if run > MAX_SHARED_LINES} == {}


def test_shared_runs_are_found():
    common = [f"line {i}" for i in range(6)]
    assert longest_shared_run(["a", *common, "b"], ["c", "d", *common]) == 6
    assert significant_lines("import x\n\n# why\nfrom y import z\nfit(trainer)\n") == ["fit(trainer)"]


def test_no_path_of_one_machine():
    suffixes = (".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".cff", ".json", ".jsonl", ".ipynb", "")
    found = [
        f"{relative(path)}:{number} {line.strip()[:80]}"
        for path in text_files(*suffixes)
        if path.stat().st_size < 1_000_000
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if PRIVATE_PATH.search(line)
    ]
    assert found == []
