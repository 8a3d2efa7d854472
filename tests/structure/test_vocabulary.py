"""One vocabulary: labels, rewards, questions and dimension names stand in rubric.py and nowhere else."""

import ast
import re
import subprocess
from pathlib import Path

from lift_trl.rubric import OFFICIAL_NAMES, QUESTIONS, REWARDS, Dimension, Label
from tests.structure.source import PACKAGE, ROOT, found_in, parse, python_files, relative, string_constants


LABEL = re.compile(rf"({'|'.join(Label)})(\W.*)?", re.DOTALL)
#: VBench's own metric is called like one of the dimensions.
VBENCH = "lift_trl/vbench/suite.py"
FILES = [path for path in python_files("lift_trl", "recipes", "spaces") if path != PACKAGE / "rubric.py"]


def is_vocabulary(text: str) -> bool:
    names = [*Dimension, *OFFICIAL_NAMES]
    openings = [question[:28] for question in QUESTIONS.values()]
    return bool(LABEL.fullmatch(text)) or any(word in text for word in [*names, *openings])


def holds_rewards(node: ast.AST) -> bool:
    """Whether one literal collection spells out the rewards."""
    if not isinstance(node, ast.Dict | ast.List | ast.Tuple | ast.Set):
        return False
    numbers = {child.value for child in ast.walk(node) if isinstance(child, ast.Constant)}
    return set(REWARDS.values()) <= numbers


def spelled(path: Path) -> list[str]:
    found = [f"line {line} {text[:60]!r}" for line, text in string_constants(path) if is_vocabulary(text)]
    if relative(path) == VBENCH:
        found = [hit for hit in found if Dimension.MOTION_SMOOTHNESS not in hit]
    return found


def test_no_other_file_spells_the_vocabulary():
    assert found_in(FILES, spelled) == {}, "take these words from lift_trl.rubric"


def test_no_other_file_spells_the_rewards():
    found = found_in(FILES, lambda path: [node.lineno for node in ast.walk(parse(path)) if holds_rewards(node)])
    assert found == {}, "take the rewards from lift_trl.rubric.REWARDS"


def test_the_rules_see_the_vocabulary():
    assert len(spelled(PACKAGE / "rubric.py")) >= len(Label) + len(Dimension) + len(QUESTIONS)
    assert any(holds_rewards(node) for node in ast.walk(ast.parse("REWARDS = {'a': 0.9, 'b': 0.2, 'c': 0.05}")))
    assert is_vocabulary("Bad. Two heads.") and not is_vocabulary("Badlands") and not is_vocabulary("all are good")


def test_mini_is_not_a_mode():
    command = ["grep", "-rnwI", "--exclude-dir=__pycache__", "mini", "lift_trl"]
    hits = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    outside = [hit for hit in hits if not hit.startswith(("lift_trl/mini/", "lift_trl/cli/"))]
    assert outside == []
