"""One artefact folder to the Hub by its kind, whole or not at all: files first, then one commit that makes them visible."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's own

from ..store.manifest import ARTIFACT_FILE, Artifact
from .artifact_cards import artifact_card


T = TypeVar("T")

#: Kind -> (type of repository, private). `None` leaves it to the account's default.
KINDS: dict[str, tuple[str, bool | None]] = {
    "hra": ("dataset", True),  # people's ratings are inside
    "generated": ("dataset", None),
    "scored": ("dataset", None),
    "cache": ("dataset", None),
    "report": ("dataset", None),
    "critic": ("model", None),
    "lora": ("model", None),
    "space": ("space", None),
}
LORA_FILES = ("pytorch_lora_weights.safetensors", "transformer/config.json")
README = "README.md"
#: What a run leaves beside its artefact.
IGNORED = (
    *(".*", "*/.*", "__pycache__/*", "*/__pycache__/*", "*.tmp", "*.pyc"),
    *(
        "checkpoint-*/*",
        "runs/*",
        "logs/*",
        "validation/*",
        "optimizer*",
        "scheduler*",
        "rng_state*",
        "training_args.bin",
    ),
)
#: Datasets are read by patterns of file names, so a stale shard of an earlier push would count as data.
_MIRRORED = ("hra", "generated", "scored", "cache")
_BATCH = 256
_ATTEMPTS = 5


class Pushed(NamedTuple):
    """Where an artefact is: its page, its repository and the commit."""

    url: str
    repo_id: str
    repo_type: str
    commit: str


def artifact_kind(folder: Path | str) -> str:
    """
    What `folder` is, a key of `KINDS`.

    Raises:
        FileNotFoundError: if it is nothing that can be pushed, or is not finished.
    """
    path = Path(folder)
    if (path / ARTIFACT_FILE).is_file():
        kind = Artifact.load(path).kind
        if kind in KINDS:
            return kind
    if any((path / name).is_file() for name in LORA_FILES):
        return "lora"
    if (path / "app.py").is_file() and (path / README).is_file():
        return "space"
    raise FileNotFoundError(
        f"{folder}: neither a finished artefact ({ARTIFACT_FILE}: {', '.join(KINDS)}), nor a LoRA, nor a Space (app.py and "
        f"{README}). Name the output_dir of a finished stage."
    )


def push(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    license: str = "other",
    collection: str | None = None,
    token: str | None = None,
) -> Pushed:
    """
    Pushes an artefact with its card; call it again after an interruption, what the Hub has is not sent again.

    Large files go first and are no part of any commit; one commit then shows everything. So a reader sees the former
    artefact or the new one, never a mixture.

    Args:
        folder: an artefact that a stage finished, or the `output_dir` of `align`.
        repo_id: `user/name`, made if it is not there.
        private: by default true for `hra`, whose rows are people's ratings, else the account's default. An existing
            repository stays as it is.
        license: for the card; `other` says that the parents' licences hold.
        collection: title of a collection of the same owner that the repository is added to, made if it is not there.

    Raises:
        FileNotFoundError: if the folder holds no finished artefact.
        ValueError: if it is a Space, which needs `push_space`.
    """
    path, kind = Path(folder), artifact_kind(folder)
    if kind == "space":
        raise ValueError(f"{folder} is a Space; push_space sets its variables, secrets and hardware too.")
    repo_type, default_private = KINDS[kind]
    files = {name: CommitOperationAdd(name, path / name) for name in artifact_files(path)}
    card = _lora_card(path, repo_id) if kind == "lora" else artifact_card(path, repo_id, license=license)
    files[README] = CommitOperationAdd(README, card.encode())
    api = HfApi(token=token)
    private = default_private if private is None else private
    insist(lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True))
    commit = commit_files(
        api, repo_id, repo_type, list(files.values()), message=f"Push {kind}", is_mirror=kind in _MIRRORED
    )
    if collection is not None:
        add_to_collection(api, collection, repo_id, repo_type, note=kind)
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    return Pushed(f"{api.endpoint}/{prefix}{repo_id}", repo_id, repo_type, commit)


def artifact_files(folder: Path) -> Iterator[str]:
    """The files of an artefact, relative, sorted, without what a run leaves beside it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(fnmatch(name, pattern) for pattern in IGNORED):
            yield name


def _lora_card(folder: Path, repo_id: str) -> str:
    """The trainer's card, which named the folder where it did not know the repository."""
    path = folder / README
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing. Push the output_dir that the trainer saved; its card is in it.")
    text = re.sub(r'(load_lora_weights\(\s*)"[^"]*"', rf'\1"{repo_id}"', path.read_text())
    text = re.sub(r'(from_pretrained\(\s*)"[^"]*"(, subfolder="transformer")', rf'\1"{repo_id}"\2', text)
    return re.sub(r"^# .*$", f"# {repo_id}", text, count=1, flags=re.MULTILINE)


def commit_files(
    api: HfApi,
    repo_id: str,
    repo_type: str,
    files: Sequence[CommitOperationAdd],
    *,
    message: str,
    is_mirror: bool = False,
) -> str:
    """
    One commit with `files`; returns its id.

    Args:
        is_mirror: delete what the repository holds besides.
    """
    for start in range(0, len(files), _BATCH):
        # Idempotent: the Hub says which contents it has, and these are not sent.
        send = partial(api.preupload_lfs_files, repo_id, files[start : start + _BATCH], repo_type=repo_type)
        insist(partial(send, free_memory=False))
    kept = {file.path_in_repo for file in files} | {".gitattributes"}

    attempts: list[str] = []

    def commit() -> str:
        # If the answer to a commit was lost, the files are there: fresh operations let the client see that nothing changed.
        again = [CommitOperationAdd(file.path_in_repo, file.path_or_fileobj) for file in files] if attempts else files
        attempts.append(message)
        there = api.list_repo_files(repo_id, repo_type=repo_type) if is_mirror else []
        gone = [CommitOperationDelete(name) for name in there if name not in kept]
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
