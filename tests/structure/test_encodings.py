"""Text is read and written as UTF-8, whatever the locale says: each call names its encoding."""

import ast

import pytest

from tests.structure.source import found_in, parse, python_files


FILES = python_files("lift_trl", "recipes", "benchmarks", "spaces", "dev")
#: Text mode unless the mode says otherwise, and the position at which a call may give the encoding.
POSITIONS = {"read_text": 0, "write_text": 1, "open": 2}
_OTHERS = ("os", "av", "Image", "opened", "_opener")  # whose `open` is none of text: a zip file, a URL


def without_encoding(tree: ast.AST) -> list[int]:
    """Lines with a call that leaves the encoding to the locale."""
    lines = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        is_method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if is_method else getattr(call.func, "id", "")
        if name not in POSITIONS or name == "write_text" and not is_method:  # our own `write_text` is UTF-8
            continue
        if is_method and name == "open" and getattr(call.func.value, "id", "") in _OTHERS:
            continue
        mode = next((k.value for k in call.keywords if k.arg == "mode"), None)
        if name == "open":
            mode = mode or next(iter(call.args[0 if is_method else 1 :]), None)
        if isinstance(mode, ast.Constant) and "b" in str(mode.value):
            continue
        position = POSITIONS[name] - (is_method and name == "open")
        if len(call.args) <= position and not any(k.arg == "encoding" for k in call.keywords):
            lines.append(call.lineno)
    return lines


def test_no_text_depends_on_the_locale():
    assert found_in(FILES, lambda path: without_encoding(parse(path))) == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("path.read_text()", [1]),
        ("path.write_text(text)", [1]),
        ("open(path)", [1]),
        ("open(path, 'w')", [1]),
        ("path.open()", [1]),
        ("path.open('a')", [1]),
        ("open(path, encoding='utf-8')", []),
        ("open(path, 'rb')", []),
        ("path.open(mode='wb')", []),
        ("path.read_text('utf-8')", []),
        ("path.write_text(text, encoding='utf-8')", []),
        ("write_text(path, text)", []),
        ("av.open(path)", []),
    ],
)
def test_what_counts(line, found):
    assert without_encoding(ast.parse(line)) == found
