"""dev/mutations.py plants bugs by the text that they replace: it must stand where the table says, once."""

import sys

import pytest

from tests.structure.source import ROOT
from tests.structure.test_recipe_configs import load_recipe


@pytest.fixture(scope="module")
def mutations():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))  # as a script it changes it
        return load_recipe(ROOT / "dev" / "mutations.py").MUTATIONS


def test_each_bug_has_its_place_and_its_tests(mutations):
    misplaced = [m.name for m in mutations if (ROOT / m.file).read_text(encoding="utf-8").count(m.old) != 1]
    assert misplaced == []
    words = {word.partition("::")[0] for m in mutations for word in m.tests.split() if word.startswith("tests/")}
    assert [word for word in words if not (ROOT / word).exists()] == []
    assert len({m.name for m in mutations}) == len(mutations) > 40
