"""The documentation names only what exists, and all that must be named."""

import ast
import re
import textwrap
from pathlib import Path

import yaml

import lift_trl
from tests.structure.source import ROOT, cli_commands, found_in, relative, text_files


# Card templates are jinja: their links are made when a card is written.
PAGES = [page for page in text_files(".md") if "templates" not in page.parts]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)")
# `recipes/align.py`, `docs/cli.md`, `lift_trl/store/`: a path of the project in code font.
CODE_PATH = re.compile(r"`((?:lift_trl|recipes|docs|tests|benchmarks|spaces|dev|\.ci|\.github)/[\w./-]*)`")
CODE_PART = re.compile(r"`((?:lift_trl|recipes)/[\w/]+\.py)`(?: \(|, )`(\w+)`(?: and `(\w+)`)?\)")
COMMAND_LINE_PATH = re.compile(r"(?<![\w/.-])((?:recipes|benchmarks)/[\w./-]+\.(?:py|yaml|sh))")
PYTHON_BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"(?:^|`|&& )make ([a-z][a-z-]*)", re.MULTILINE)
CLI = re.compile(r"(?:^|`|\$ )lift-trl ([a-z][a-z-]*)", re.MULTILINE)


def pages_of_docs() -> list[Path]:
    return [page for page in PAGES if relative(page).startswith("docs/")]


def prose(page: Path) -> str:
    """A page without the parts that quote others' files, marked `<!-- not here -->` at the end of the line."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.endswith("<!-- not here -->"))


def dead_links(page: Path) -> list[str]:
    targets = [target.split("#")[0] for target in LINK.findall(prose(page))]
    local = [target for target in targets if target and not re.match(r"(https?|mailto):", target)]
    return [target for target in local if not (page.parent / target).exists()]


def test_links_lead_to_files():
    assert found_in(PAGES, dead_links) == {}


def dead_paths(page: Path) -> list[str]:
    text = prose(page)
    named = {*CODE_PATH.findall(text), *COMMAND_LINE_PATH.findall(text)}
    return sorted(path for path in named if not (ROOT / path).exists())


def test_named_paths_exist():
    assert found_in(PAGES, dead_paths) == {}


def test_named_parts_stand_in_the_file_that_is_named_with_them():
    """`path.py` (`name`), or (`path.py`, `name` and `other`): a function, a class or a method."""
    found = 0
    for page in PAGES:
        for path, first, second in CODE_PART.findall(prose(page)):
            tree = ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            names = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert {first, second} - {""} <= names, f"{relative(page)}: {path} has no {first} {second}"
            found += relative(page) == "docs/concepts.md"
    assert found > 20


def names_that_are_not_public(page: Path) -> set[str]:
    names: set[str] = set()
    for code in PYTHON_BLOCK.findall(prose(page)):
        for node in ast.walk(ast.parse(textwrap.dedent(code), filename=relative(page))):
            if isinstance(node, ast.ImportFrom) and node.module == "lift_trl":
                names |= {alias.name for alias in node.names}
    return names - set(lift_trl.__all__)


def test_python_examples_compile_and_import_public_names():
    assert found_in(PAGES, names_that_are_not_public) == {}


def test_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = {(relative(page), target) for page in PAGES for target in MAKE.findall(prose(page))}
    assert {(page, target) for page, target in named if target not in targets} == set()
    assert {"quickstart", "test"} <= {target for page, target in named if page == "README.md"}


def test_every_target_is_phony_and_described():
    makefile = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z][a-z-]*):.*## \w", makefile, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())
    assert described == phony >= {"install", "quickstart", "test", "test-all", "test-real", "quality", "docs", "clean"}


def test_every_command_is_documented_and_no_other():
    commands = cli_commands()
    assert commands, "cli/ defines no command"
    page = (ROOT / "docs" / "cli.md").read_text()
    headings = set(re.findall(r"^#+ .*`lift-trl ([a-z-]+)", page, re.MULTILINE))
    assert headings == set(commands)
    named = {(relative(p), command) for p in PAGES for command in CLI.findall(prose(p))}
    assert {(p, command) for p, command in named if command not in commands} == set()


def test_every_page_is_in_the_navigation():
    # mkdocs.yml may hold tags of its own plugins, which a safe loader does not know.
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0]
    listed = {value for entry in yaml.safe_load(nav) for value in leaves(entry)}
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in pages_of_docs()}


def leaves(entry: object) -> list[str]:
    if isinstance(entry, dict):
        return [leaf for value in entry.values() for leaf in leaves(value)]
    if isinstance(entry, list):
        return [leaf for value in entry for leaf in leaves(value)]
    return [str(entry)]
