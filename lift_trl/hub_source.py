"""What a user names of the Hub: `user/name`, as it was at a branch, tag or commit with `@revision`, and the files there."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


RepoType = Literal["model", "dataset"]
_PINNED = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*@.+")


class HubSource(NamedTuple):
    """A repository and the revision that is asked for, `None` for its newest state."""

    repo_id: str
    revision: str | None

    @classmethod
    def parse(cls, source: str) -> "HubSource":
        """
        >>> HubSource.parse("user/clips@v1")
        HubSource(repo_id='user/clips', revision='v1')
        """
        repo_id, _, revision = source.partition("@")
        return cls(repo_id, revision or None)

    @contextmanager
    def named(self, repo_type: RepoType = "dataset") -> Iterator[None]:
        """
        Names the repository in what the client says of it.

        Raises:
            ValueError: for a repository or a revision that is not there.
            ConnectionError: where the Hub cannot be reached, and what was asked for is not in the cache.
        """
        try:
            yield
        except LocalEntryNotFoundError as error:
            # The client takes whatever the Hub answers for a Hub that is down, a revision that is not there too.
            if isinstance(error.__cause__, RevisionNotFoundError):
                raise self._no_revision() from error
            why = "work offline is set (HF_HUB_OFFLINE)" if is_offline(error) else f"no answer: {error.__cause__}"
            raise ConnectionError(
                f"{self.repo_id}: the Hub cannot be asked for it ({why}), and it is not in the cache. Try again, or name a "
                "folder. Where all there is of it is in the cache, HF_HUB_OFFLINE=1 says so."
            ) from error
        except (HFValidationError, RepositoryNotFoundError) as error:
            raise ValueError(
                f"{self.repo_id}: no folder, and no {repo_type} of the Hub that this token may read. Write a folder, "
                "user/name or user/name@revision."
            ) from error
        except RevisionNotFoundError as error:
            raise self._no_revision() from error

    def _no_revision(self) -> ValueError:
        return ValueError(
            f"{self.repo_id}: has no revision {self.revision!r}. Write one of its branches, tags or commits after the @."
        )


class NamedSource(NamedTuple):
    """A folder or repository, and what it is to be called; `""` where nothing is said."""

    name: str
    source: str

    @classmethod
    def parse(cls, entry: str) -> "NamedSource":
        """
        `name=source`. A path may hold further `=`, and one that has no name before it is no name.

        >>> NamedSource.parse("lift=/runs/lr=1e-4/clips"), NamedSource.parse("/runs/lr=1e-4/clips").name
        (NamedSource(name='lift', source='/runs/lr=1e-4/clips'), '')
        """
        name, equals, source = (part.strip() for part in entry.partition("="))
        if not equals or "/" in name or os.path.exists(entry.strip()):  # no error of a long text
            return cls("", entry.strip())
        return cls(name, source)


def is_offline(error: LocalEntryNotFoundError) -> bool:
    """Whether the user works offline: then what is not in the cache is not there, as for the library's other readers."""
    return isinstance(error.__cause__, OfflineModeIsEnabled)


def pinned(name: Path | str, revision: str | None = None) -> HubSource:
    """
    Name and revision of a repository: `user/name@revision` says both; a path that is there stays as it is.

    >>> pinned("user/critic@v1"), pinned("runs/critic", "v2")
    (HubSource(repo_id='user/critic', revision='v1'), HubSource(repo_id='runs/critic', revision='v2'))

    Raises:
        ValueError: if `revision` says another one.
    """
    source = HubSource(str(name), revision)
    if not _PINNED.fullmatch(source.repo_id) or Path(name).exists():
        return source
    found = HubSource.parse(source.repo_id)
    if revision not in (None, found.revision):
        raise ValueError(f"{name}: its revision is given as {revision!r} too. Give one of them.")
    return found


def find_file(
    name: Path | str, file: str, *, revision: str | None = None, repo_type: RepoType = "model"
) -> Path | None:
    """
    The file `file` of a folder or of a repository of the Hub (as `pinned` reads its name), on this disk; `None` where that
    has none.

    Raises:
        ValueError, ConnectionError: as `HubSource.named`: that the Hub is down does not mean that there is no such file.
    """
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    source = pinned(name, revision)
    with source.named(repo_type):
        try:
            return Path(hf_hub_download(source.repo_id, file, repo_type=repo_type, revision=source.revision))
        except LocalEntryNotFoundError as error:
            if is_offline(error):
                return None
            raise
        except EntryNotFoundError:
            return None
