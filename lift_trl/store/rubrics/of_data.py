"""Which rubric data was made with: that of its `artifact.yaml`, of a `rubric.yaml` beside it, or LiFT's."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ...hub_source import find_file, pinned
from ...remote import local_copy
from ...rubric import LIFT, Rubric
from ..manifest import ARTIFACT_FILE, Artifact, write_text
from .form import read_rubric, rubric_to_plain


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

#: Beside the metadata of a folder of clips: the rubric that its labels are of. Without one they are LiFT's.
RUBRIC_FILE = "rubric.yaml"


def write_rubric(rubric: Rubric, folder: Path | str) -> None:
    """Puts `rubric.yaml` beside the metadata of `folder`."""
    write_text(
        Path(folder) / RUBRIC_FILE, yaml.safe_dump(rubric_to_plain(rubric), sort_keys=False, allow_unicode=True)
    )


def find_rubric(
    data: "Dataset | DatasetDict | Path | str",
    given: Path | str | Rubric | None = None,
    *,
    revision: str | None = None,
) -> Rubric:
    """
    The rubric of a folder, a repository of the Hub (`user/name` or `user/name@revision`) or a dataset in memory.

    Args:
        given: what the user says that it is: a rubric or its YAML. Data that says something itself must say the same.
        revision: branch, tag or commit of the repository.

    Raises:
        ValueError: if `given` is not what the data was made with, either cannot be read, or there is no such repository or
            revision.
        ConnectionError: if the Hub cannot be asked.
    """
    wanted = given if isinstance(given, Rubric | None) else read_rubric(given)
    found = _stored(data, revision) if isinstance(data, Path | str) else None
    if wanted is not None and found is not None:
        check_same(wanted, found, f"the rubric of the settings and that of {data}")
    return wanted or found or LIFT


def check_same(one: Rubric, other: Rubric, what: str) -> None:
    """Raises `ValueError` naming both rubrics where `one` and `other` are two; `what` they are rubrics of."""
    if one.id != other.id:
        raise ValueError(
            f"{what} differ: {describe_rubric(one)} against {describe_rubric(other)}. A label means what its rubric says: "
            "use what was made with one rubric, or make the one again with that of the other."
        )


def describe_rubric(rubric: Rubric) -> str:
    """A rubric in a few words, for messages: `5c3b... (text_rendering; Awful, Fair, Great)`."""
    return f"{rubric.id} ({', '.join(rubric.dimensions)}; {', '.join(rubric.labels)})"


def _stored(data: Path | str, revision: str | None) -> Rubric | None:
    """The rubric that a folder, the folder of a file, or a repository holds; `None` where it holds none."""
    path = Path(local_copy(data))
    if path.exists():
        folder = path if path.is_dir() else path.parent
    else:
        source = pinned(data, revision)
        if source.repo_id.count("/") != 1 or source.repo_id.startswith((".", "/", "~")):
            return None
        names = (ARTIFACT_FILE, RUBRIC_FILE)
        files = (find_file(source.repo_id, name, revision=source.revision, repo_type="dataset") for name in names)
        if (file := next((found for found in files if found), None)) is None:
            return None
        folder = file.parent
    if (folder / ARTIFACT_FILE).is_file() and (artifact := Artifact.load(folder)).is_rated:
        return artifact.rubric
    return read_rubric(folder / RUBRIC_FILE) if (folder / RUBRIC_FILE).is_file() else None
