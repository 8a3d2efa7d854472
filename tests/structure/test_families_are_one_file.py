"""Nothing of a family stands outside its own file, but for the mini world and examples in docstrings."""

import ast

import pytest

from tests.structure.source import PACKAGE, relative


FAMILY = "CogVideoX"
ADAPTERS = PACKAGE / "video_models"
#: The family's file, the table that names it, and the mini world, which is a tiny CogVideoX.
OWN = (ADAPTERS / "cogvideox.py", ADAPTERS / "source.py", ADAPTERS / "__init__.py", PACKAGE / "mini")
OTHERS = sorted(path for path in PACKAGE.rglob("*.py") if not {path, *path.parents} & set(OWN))


def words_of(path):
    """The code of a file without its docstrings and comments: names, attributes and texts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            yield getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("path", OTHERS, ids=relative)
def test_no_module_names_a_family(path):
    assert [word for word in words_of(path) if FAMILY in word] == []
