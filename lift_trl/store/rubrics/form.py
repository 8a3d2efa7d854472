"""A rubric as plain data: in a YAML of its own, and in an artefact's `artifact.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...rubric import Rubric
from ..tables import read_yaml


def read_rubric(path: Path | str) -> Rubric:
    """
    The rubric of a YAML: `labels` (label: reward) and `dimensions` (name: question, definitions).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and what is missing, unknown or out of range.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such rubric; name a YAML with labels and dimensions (docs/rubric.md).")
    content = read_yaml(path)
    try:
        return rubric_from_plain(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rubric_from_plain(content: Any) -> Rubric:
    """
    The rubric of plain data. Labels may stand in any order: rewards order them.

    >>> asked = {"question": "Is the sign right?", "definitions": {"No": "It is not.", "Yes": "It is."}}
    >>> rubric_from_plain({"labels": {"Yes": 1, "No": 0}, "dimensions": {"text": asked}}).labels
    ('No', 'Yes')

    Raises:
        ValueError: naming what is missing, unknown or of another kind.
    """
    _check_keys("a rubric", content, ("labels", "dimensions"))
    labels, dimensions = content["labels"], content["dimensions"]
    if not isinstance(labels, Mapping) or not isinstance(dimensions, Mapping):
        raise ValueError(
            "labels are a mapping of label to reward, dimensions one of name to question and definitions."
        )
    for name, asked in dimensions.items():
        _check_keys(f"dimension {name!r}", asked, ("question", "definitions"))
    for label, reward in labels.items():
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            raise ValueError(f"label {label!r} has the reward {reward!r}; give a number in [0, 1].")
    return Rubric(
        {label: float(reward) for label, reward in sorted(labels.items(), key=lambda item: float(item[1]))},
        {name: asked["question"] for name, asked in dimensions.items()},
        {name: asked["definitions"] for name, asked in dimensions.items()},
    )


def rubric_to_plain(rubric: Rubric) -> dict[str, Any]:
    """Plain data for JSON and YAML."""
    dimensions = {
        str(name): {
            "question": text,
            "definitions": {str(label): rubric.definitions[name][label] for label in rubric.labels},
        }
        for name, text in rubric.questions.items()
    }
    return {"labels": {str(label): reward for label, reward in rubric.rewards.items()}, "dimensions": dimensions}


def _check_keys(what: str, content: Any, names: tuple[str, ...]) -> None:
    """Raises `ValueError` unless `content` is a mapping of exactly these names."""
    if not isinstance(content, Mapping) or set(content) != set(names):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else repr(content)[:80]
        raise ValueError(f"{what} has {' and '.join(names)}, and nothing else; here it has {found or 'nothing'}.")
