"""The `>>>` examples of the docstrings are true."""

import doctest
from importlib import import_module

import pytest

from tests.structure.source import name_of, python_files, relative


FILES = [path for path in python_files("lift_trl") if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_examples(path):
    """Examples that need the Hub are marked `# doctest: +SKIP`; they are still parsed."""
    module = import_module(name_of(path))
    assert any(test.examples for test in doctest.DocTestFinder().find(module))
    assert doctest.testmod(module).failed == 0
