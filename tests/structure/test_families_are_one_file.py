"""Nothing of a family stands outside its own file, but for the mini world and examples in docstrings."""

import ast

from tests.structure.source import PACKAGE, docstring_nodes, found_in, parse


FAMILY = "CogVideoX"
ADAPTERS = PACKAGE / "video_models"
#: The family's file, the table that names it, and the mini world, which is a tiny CogVideoX.
OWN = (ADAPTERS / "cogvideox.py", ADAPTERS / "source.py", ADAPTERS / "__init__.py", PACKAGE / "mini")
OTHERS = sorted(path for path in PACKAGE.rglob("*.py") if not {path, *path.parents} & set(OWN))


def words_of(path):
    """The code of a file without its docstrings and comments: names, attributes and texts."""
    tree = parse(path)
    docstrings = docstring_nodes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.alias):
            yield getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_no_module_names_a_family():
    assert found_in(OTHERS, lambda path: [word for word in words_of(path) if FAMILY in word]) == {}
