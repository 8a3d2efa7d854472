"""`user/name@revision`: what names a dataset of the Hub as it was at a branch, tag or commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError


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
    def named(self) -> Iterator[None]:
        """Turns what the Hub says of a repository or revision that is not there into a `ValueError` that names it."""
        try:
            yield
        except (HFValidationError, RepositoryNotFoundError) as error:
            raise ValueError(
                f"{self.repo_id}: no folder, and no dataset of the Hub that this token may read. Write a folder, user/name "
                "or user/name@revision."
            ) from error
        except RevisionNotFoundError as error:
            raise ValueError(
                f"{self.repo_id}: has no revision {self.revision!r}. Write one of its branches, tags or commits after the @."
            ) from error
