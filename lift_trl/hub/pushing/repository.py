"""A repository of the Hub: made or found to be ours, as visible as it should be, and committed to through failures."""

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's own
from huggingface_hub.hf_api import DatasetInfo, ModelInfo, SpaceInfo

from ..front_matter import kind_tag


T = TypeVar("T")

#: Files in one request, and in one commit: larger ones run into the Hub's time limit.
BATCH = 256
_ATTEMPTS = 5
#: What the Hub itself makes of a new repository; the last two are of a static Space.
_FIRST_COMMIT, _FIRST_FILES = "initial commit", {".gitattributes", "README.md", "index.html", "style.css"}


def open_repo(
    api: HfApi, repo_id: str, repo_type: str, kind: str, *, private: bool | None, **options: Any
) -> ModelInfo | DatasetInfo | SpaceInfo:
    """
    The repository that an artefact of `kind` may be pushed to, made if it is not there.

    Args:
        private: whether it must be; `None` leaves it as it is, and a new one to the account's default.
        options: of `create_repo`.

    Raises:
        ValueError: if it is there and `private` is another (nobody's ratings become public by accident), or if it holds what
            is no artefact of this kind, which a push would replace.
    """
    name = insist(
        lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **options)
    ).repo_id
    info = insist(lambda: api.repo_info(name, repo_type=repo_type))
    assert isinstance(info, ModelInfo | DatasetInfo | SpaceInfo)
    if private is not None and info.private != private:
        there, wanted = ("private", "public") if info.private else ("public", "private")
        raise ValueError(
            f"{name} is there and is {there}, but should be {wanted}. Change that in its settings on the Hub, or ask for "
            f"{there} (--{there}; private={info.private}; hub_private_repo: {str(info.private).lower()}) if it may stay so. "
            "Nothing was sent."
        )
    if not _is_ours(api, info, repo_type, kind):
        held = sorted(file.rfilename for file in info.siblings or () if file.rfilename != ".gitattributes")
        shown = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "")
        raise ValueError(
            f"{name} ({repo_type}) holds {shown}: no {kind} artefact that was pushed from here, and the push would replace "
            f"it. Name another repository. If it may go, write `tags: [{kind_tag(kind)}]` into the head of its README.md. "
            "Nothing was sent."
        )
    return info


def _is_ours(api: HfApi, info: ModelInfo | DatasetInfo | SpaceInfo, repo_type: str, kind: str) -> bool:
    """Whether nobody else put something into the repository: by the tag of its card, else by who committed last."""
    tags = (info.card_data.to_dict().get("tags") if info.card_data else None) or ()
    # A trainer's push of a whole transformer, which `push` takes for a LoRA's sibling.
    if not {kind_tag(kind), *([kind_tag("transformer")] if kind == "lora" else [])}.isdisjoint(tags):
        return True
    last = insist(lambda: api.list_repo_commits(info.id, repo_type=repo_type))[0].title
    new = last == _FIRST_COMMIT and {file.rfilename for file in info.siblings or ()} <= _FIRST_FILES
    # The last is of a push in parts that was interrupted, or of a card without tags.
    return new or last.startswith(push_title(kind))


def push_title(kind: str) -> str:
    """How the titles of our commits begin."""
    return f"Push {kind}"


def commit_files(
    api: HfApi,
    repo_id: str,
    repo_type: str,
    files: Sequence[CommitOperationAdd],
    *,
    message: str,
    kept: Collection[str] | None = None,
) -> str:
    """
    One commit with `files`; returns its id.

    Args:
        kept: files that stay; what the repository holds beside these is deleted. All stay by default.
    """
    for start in range(0, len(files), BATCH):
        # Idempotent: the Hub says which contents it has, and these are not sent.
        send = partial(api.preupload_lfs_files, repo_id, files[start : start + BATCH], repo_type=repo_type)
        insist(partial(send, free_memory=False))
    attempts: list[str] = []

    def commit() -> str:
        # If the answer to a commit was lost, the files are there: fresh operations let the client see that nothing changed.
        again = [CommitOperationAdd(file.path_in_repo, file.path_or_fileobj) for file in files] if attempts else files
        attempts.append(message)
        there = api.list_repo_files(repo_id, repo_type=repo_type) if kept is not None else []
        gone = [CommitOperationDelete(name) for name in there if name not in (kept or ()) and name != ".gitattributes"]
        return str(api.create_commit(repo_id, [*again, *gone], repo_type=repo_type, commit_message=message).oid)

    return insist(commit)


def insist(call: Callable[[], T], *, wait_s: float = 1.0) -> T:
    """`call()`, again after a failure that may pass: the connection is cut, or the Hub answers 5xx or 429."""
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except HTTPError as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            passing = status is None or status >= 500 or status in (408, 429)
            if not passing or attempt == _ATTEMPTS - 1:
                raise
        time.sleep(wait_s * 2**attempt)
    raise AssertionError("unreachable")


def add_to_collection(api: HfApi, title: str, repo_id: str, repo_type: str, *, note: str) -> str:
    """Adds a repository to its owner's collection of that title; returns the collection's slug."""
    owner = repo_id.split("/")[0]
    made = insist(lambda: api.create_collection(title, namespace=owner, private=True, exists_ok=True))
    kind: Any = repo_type
    insist(lambda: api.add_collection_item(made.slug, repo_id, kind, note=note, exists_ok=True))
    return str(made.slug)
