"""
Repos on disk: content-addressed blobs, JSON commits, and one `refs.json` a repo.

    <root>/repos/<models|datasets|spaces>/<namespace>/<name>/
        settings.json           private, sdk, hardware, variables, digests of secrets
        refs.json               branches and tags -> commit
        commits/<oid>.json      title, author, date, parents and the whole tree of one commit
        blobs/<sha256>          contents of files, regular and LFS alike
        parts/<sha256>/<n>      parts of an LFS upload that is under way

Every file is written beside its place and renamed, and `refs.json` is replaced last. So a commit is visible wholly or
not at all, whatever kills the server. (Nothing is fsynced: it survives kill -9, not a power cut.)
"""

import base64
import functools
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.hub.errors import HubError, entry_not_found, repo_not_found, revision_not_found


KINDS = ("models", "datasets", "spaces")
LFS_SUFFIXES = (".arrow", ".bin", ".jpg", ".mp4", ".npz", ".parquet", ".png", ".pt", ".safetensors", ".whl", ".zip")
_ID_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_COMMIT_PREFIX = re.compile(r"[0-9a-f]{7,40}")


def now() -> str:
    """The time in the Hub's notation, for example `2026-11-23T20:40:14.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def git_blob_oid(content: bytes) -> str:
    """Git's sha1 of a blob: the client compares it with its own to skip files that did not change."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git would keep in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def write_json(path: Path, value: Any) -> None:
    """Replace `path` in one step: a reader or a crash sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)


class Entry(NamedTuple):
    """One file of a commit: `oid` is git's, `sha256` names the blob, `size` is in bytes."""

    oid: str
    size: int
    sha256: str
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """One commit with its whole tree, path -> Entry."""

    oid: str
    parents: tuple[str, ...]
    title: str
    message: str
    author: str
    date: str
    tree: Mapping[str, Entry]


@functools.lru_cache(maxsize=4096)
def _read_commit(path: Path) -> Commit:
    fields = json.loads(path.read_text())
    tree = {name: Entry(*entry) for name, entry in fields.pop("tree").items()}
    return Commit(oid=path.stem, parents=tuple(fields.pop("parents")), tree=tree, **fields)


class Repo:
    """One repo's folder. Methods raise `HubError` for what a client asked wrongly."""

    def __init__(self, kind: str, repo_id: str, folder: Path) -> None:
        self.kind = kind
        self.id = repo_id
        self.namespace = repo_id.split("/")[0]
        self.folder = folder

    @property
    def url_path(self) -> str:
        """`dev/x`, `datasets/dev/x` or `spaces/dev/x`."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"

    @property
    def settings(self) -> dict[str, Any]:
        """What is not versioned: visibility and, for a Space, its runtime settings."""
        settings: dict[str, Any] = json.loads((self.folder / "settings.json").read_text())
        return settings

    def update_settings(self, **changes: Any) -> dict[str, Any]:
        """The settings after `changes` are stored."""
        settings = {**self.settings, **changes}
        write_json(self.folder / "settings.json", settings)
        return settings

    # Blobs

    def blob(self, sha256: str) -> Path:
        """Where the content with this digest is, or would be."""
        return self.folder / "blobs" / sha256

    def temporary(self) -> Path:
        """A new path on the same file system as the blobs."""
        return self.folder / "blobs" / f".{uuid.uuid4().hex}"

    def keep_blob(self, temporary: Path, *, expected_sha256: str) -> None:
        """Make an upload a blob, unless its bytes are not what was announced (400, and the upload is dropped)."""
        with open(temporary, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected_sha256:
            temporary.unlink()
            raise HubError(400, f"the uploaded bytes have sha256 {found}, but {expected_sha256} was announced")
        os.replace(temporary, self.blob(found))

    def put_content(self, content: bytes) -> Entry:
        """Store a regular file's content."""
        sha256 = hashlib.sha256(content).hexdigest()
        temporary = self.temporary()
        temporary.write_bytes(content)
        self.keep_blob(temporary, expected_sha256=sha256)
        return Entry(git_blob_oid(content), len(content), sha256, lfs=False)

    # Refs and commits

    @property
    def refs(self) -> dict[str, dict[str, str]]:
        """`{"branches": {name: oid}, "tags": {name: oid}}`."""
        refs: dict[str, dict[str, str]] = json.loads((self.folder / "refs.json").read_text())
        return refs

    def set_ref(self, group: str, name: str, oid: str | None) -> None:
        """Point a branch or tag at a commit, or remove it where `oid` is None."""
        refs = self.refs
        if oid is None:
            del refs[group][name]
        else:
            refs[group][name] = oid
        write_json(self.folder / "refs.json", refs)

    def commit_at(self, revision: str) -> Commit:
        """The commit that a branch, tag, HEAD, commit id or its first 7 or more digits names."""
        name = "main" if revision == "HEAD" else revision
        refs = self.refs
        oid = refs["branches"].get(name) or refs["tags"].get(name)
        if oid is None and _COMMIT_PREFIX.fullmatch(name):
            matches = [path.stem for path in (self.folder / "commits").glob(f"{name}*.json")]
            oid = matches[0] if len(matches) == 1 else None
        if oid is None:
            raise revision_not_found(revision)
        return self.load_commit(oid)

    def load_commit(self, oid: str) -> Commit:
        """The commit with this full id."""
        return _read_commit(self.folder / "commits" / f"{oid}.json")

    def history(self, commit: Commit) -> Iterator[Commit]:
        """`commit` and its ancestors, newest first."""
        yield commit
        while commit.parents:
            commit = self.load_commit(commit.parents[0])
            yield commit

    def last_changes(self, commit: Commit) -> dict[str, Commit]:
        """For each path of `commit`, the newest commit that changed it."""
        changes: dict[str, Commit] = {}
        for past in self.history(commit):
            parent_tree = self.load_commit(past.parents[0]).tree if past.parents else {}
            for path, entry in commit.tree.items():
                if path not in changes and past.tree.get(path) == entry and parent_tree.get(path) != entry:
                    changes[path] = past
            if len(changes) == len(commit.tree):
                break
        return changes

    def write_commit(
        self, branch: str, tree: Mapping[str, Entry], *, parents: Iterable[str], title: str, message: str, author: str
    ) -> Commit:
        """Write a commit whose blobs are already there, then let `branch` point at it: the one visible step."""
        fields = {
            "parents": list(parents),
            "title": title,
            "message": message,
            "author": author,
            "date": now(),
            "tree": {path: list(tree[path]) for path in sorted(tree)},
        }
        # The salt keeps two equal squashes or initial commits of one millisecond apart.
        oid = hashlib.sha1(f"{uuid.uuid4().hex}{json.dumps(fields)}".encode()).hexdigest()
        write_json(self.folder / "commits" / f"{oid}.json", fields)
        self.set_ref("branches", branch, oid)
        return self.load_commit(oid)

    def apply(self, tree: Mapping[str, Entry], operation: Mapping[str, Any], head: str) -> dict[str, Entry]:
        """The tree after one line of a commit request (its header line excepted)."""
        key, value = operation["key"], operation["value"]
        path = value["path"]
        if not path or path.startswith("/") or {"", ".", "..", ".git"} & set(path.rstrip("/").split("/")):
            raise HubError(400, f"invalid path in a commit: {path!r}")
        if key == "file":
            if value.get("encoding") != "base64":
                raise HubError(400, f"encoding={value.get('encoding')!r} of {path!r}; use 'base64'")
            return {**tree, path: self.put_content(base64.b64decode(value["content"]))}
        if key == "lfsFile":
            blob = self.blob(value["oid"])
            if not blob.exists():
                raise HubError(400, f"LFS pointer of {path!r} points to {value['oid']}, which was never uploaded")
            size = blob.stat().st_size
            pointer_oid = git_blob_oid(lfs_pointer(value["oid"], size))
            return {**tree, path: Entry(pointer_oid, size, value["oid"], lfs=True)}
        if key in ("deletedFile", "deletedFolder"):
            prefix = path.rstrip("/") + "/"
            gone = {name for name in tree if (name.startswith(prefix) if key == "deletedFolder" else name == path)}
            if not gone:
                raise entry_not_found(f"A file with this name doesn't exist: {path}", head)
            return {name: entry for name, entry in tree.items() if name not in gone}
        raise HubError(400, f"unknown operation {key!r} in a commit")


class HubStore:
    """All repos and collections under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trash = root / "trash"
        self.collections = root / "collections"
        for folder in (self.trash, self.collections, *(root / "repos" / kind for kind in KINDS)):
            folder.mkdir(parents=True, exist_ok=True)

    def _folder(self, kind: str, repo_id: str) -> Path:
        parts = repo_id.split("/")
        if kind not in KINDS or len(parts) != 2 or not all(_ID_PART.fullmatch(part) for part in parts):
            raise repo_not_found()
        return self.root / "repos" / kind / repo_id

    def repo(self, kind: str, repo_id: str) -> Repo | None:
        """The repo, or None if there is none."""
        folder = self._folder(kind, repo_id)
        return Repo(kind, repo_id, folder) if folder.exists() else None

    def repos(self, kind: str) -> Iterator[Repo]:
        """All repos of one kind, by name."""
        for folder in sorted((self.root / "repos" / kind).glob("*/*")):
            yield Repo(kind, f"{folder.parent.name}/{folder.name}", folder)

    def create_repo(self, kind: str, repo_id: str, *, author: str, settings: Mapping[str, Any]) -> Repo:
        """A new repo with its first commit; it appears in one step."""
        folder = self._folder(kind, repo_id)
        building = self.trash / uuid.uuid4().hex
        for name in ("blobs", "commits", "parts"):
            (building / name).mkdir(parents=True)
        write_json(building / "settings.json", {"created_at": now(), **settings})
        write_json(building / "refs.json", {"branches": {}, "tags": {}})
        repo = Repo(kind, repo_id, building)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        first = {".gitattributes": attributes}
        if settings.get("sdk") == "static":
            first |= dict.fromkeys(("README.md", "index.html", "style.css"), "Welcome to your static Space!")
        tree = {name: repo.put_content(text.encode()) for name, text in first.items()}
        repo.write_commit("main", tree, parents=(), title="initial commit", message="", author=author)
        folder.parent.mkdir(exist_ok=True)
        os.rename(building, folder)
        return Repo(kind, repo_id, folder)

    def move_repo(self, repo: Repo, repo_id: str) -> None:
        """Rename a repo in one step."""
        folder = self._folder(repo.kind, repo_id)
        folder.parent.mkdir(exist_ok=True)
        os.rename(repo.folder, folder)

    def delete_repo(self, repo: Repo) -> None:
        """Remove a repo: it disappears in one step."""
        gone = self.trash / uuid.uuid4().hex
        os.rename(repo.folder, gone)
        shutil.rmtree(gone)
