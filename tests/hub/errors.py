"""The one exception of the server: an HTTP answer that the Hub's clients turn into their own exception classes."""

from collections.abc import Mapping


class HubError(Exception):
    """
    An error answer. `code` becomes the header X-Error-Code, by which `huggingface_hub` chooses the exception class.

    Source: `hf_raise_for_status` in huggingface_hub/utils/_http.py.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message, **(headers or {})}
        if code is not None:
            self.headers["X-Error-Code"] = code


def repo_not_found() -> HubError:
    """404 for a repo that is missing, or that this caller must not know about: both look alike."""
    return HubError(404, "Repository not found", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """404 for an unknown branch, tag or commit."""
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str, commit_oid: str) -> HubError:
    """404 for an unknown path; the commit in the header lets clients cache that the file does not exist."""
    return HubError(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit_oid})
