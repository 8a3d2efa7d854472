"""What an artefact came from, as `artifact.yaml` names it and as a card links it."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants

from ..hub_source import pinned
from .tables import markdown_table


_REPO = re.compile(r"(datasets/|spaces/)?([\w-][\w.-]*/[\w-][\w.-]*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubParent(NamedTuple):
    """A parent that is on the Hub: a repository at a commit."""

    repo_id: str
    repo_type: str
    commit: str

    @property
    def url(self) -> str:
        """Its files at that commit."""
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{constants.ENDPOINT}/{prefix}{self.repo_id}/tree/{self.commit}"


def hub_parent(name: Path | str, *, repo_type: str = "model", revision: str | None = None) -> str:
    """
    `user/name@commit` of a model, `datasets/user/name@commit` of a dataset, as `HfFileSystem` spells them; `name` and
    `revision` as `pinned` takes them.
    """
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    repo_id, asked = pinned(name, revision)
    return f"{prefix}{repo_id}@{HfApi().repo_info(repo_id, repo_type=repo_type, revision=asked).sha}"


def find_hub_parent(name: str, revision: str) -> HubParent | None:
    """
    The repository that an entry of `parents` names (`repo: commit`, or `role: repo@commit`), if it is one of the Hub.

    Only a commit proves that: a folder may be called `runs/base` too, and goes by a hash of its content.

    >>> find_hub_parent("critic", "user/critic@" + 40 * "a").repo_id
    'user/critic'
    >>> find_hub_parent("runs/base", "0123456789abcdef") is None
    True
    """
    repo, at, commit = str(revision).rpartition("@")
    found = _REPO.fullmatch(repo if at else name)
    if found is None or not _COMMIT.fullmatch(commit):
        return None
    return HubParent(found[2], (found[1] or "models/").removesuffix("s/"), commit)


def hub_parents(parents: Mapping[str, str], repo_type: str) -> Iterator[HubParent]:
    """The parents of a type that are on the Hub."""
    for name, revision in parents.items():
        found = find_hub_parent(name, revision)
        if found is not None and found.repo_type == repo_type:
            yield found


def parent_table(parents: Mapping[str, str]) -> str:
    """The parents as a Markdown table, linked where they are on the Hub; of folders only the name is shown."""
    rows = []
    for name, revision in parents.items():
        hub = find_hub_parent(name, revision)
        role = f"[{name}]({hub.url})" if hub else name if "@" in revision else f"`{Path(name).name}`"
        shown = Path(revision).name if os.path.isabs(revision) else revision
        rows.append([role, f"`{shown}`"])
    return markdown_table(["parent", "revision"], rows)
