"""Who asks, and what they may do: tokens, private repos, and the answers 401, 403 and 404."""

import json
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request

from tests.hub.errors import HubError, repo_not_found
from tests.hub.storage import HubStore, Repo, write_json


class User(NamedTuple):
    """The owner of a token; `role` of the token is `"write"` or `"read"`."""

    name: str
    role: str
    orgs: tuple[str, ...]

    def belongs_to(self, namespace: str) -> bool:
        """Whether private repos of `namespace` are visible to this user."""
        return namespace == self.name or namespace in self.orgs


class Users:
    """Tokens and their owners, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self._by_token = {token: User(name, role, tuple(orgs)) for token, (name, role, orgs) in stored.items()}

    def add(self, token: str, user: User) -> None:
        """Let `token` stand for `user` from now on."""
        self._by_token[token] = user
        write_json(self._path, self._by_token)

    def find(self, token: str) -> User | None:
        """The owner of `token`."""
        return self._by_token.get(token)


class HubState(NamedTuple):
    """What every route works on."""

    store: HubStore
    users: Users
    signing_key: bytes


def state_of(request: Request) -> HubState:
    """The state of the server that got `request`."""
    state: HubState = request.app.state.hub
    return state


def caller(request: Request) -> User | None:
    """The user of the request's token, None without one; an unknown token is a 401."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    user = state_of(request).users.find(header.removeprefix("Bearer "))
    if user is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return user


def signed_in(request: Request) -> User:
    """The user of the request's token; no token is a 401."""
    user = caller(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    return user


def writer(request: Request, namespace: str) -> User:
    """The user of the request's token, who may write in `namespace`; else 401 or 403."""
    user = signed_in(request)
    if user.role != "write":
        raise HubError(403, f"the token of {user.name} is read-only; use a token with the role 'write'")
    if not user.belongs_to(namespace):
        raise HubError(403, f"{user.name} has no rights in the namespace {namespace}")
    return user


def readable_repo(request: Request, kind: str, repo_id: str) -> Repo:
    """The repo; 404 alike for a missing repo and for a private one that is not the caller's."""
    user = caller(request)
    repo = state_of(request).store.repo(kind, repo_id)
    if repo is None or (repo.settings["private"] and (user is None or not user.belongs_to(repo.namespace))):
        raise repo_not_found()
    return repo


def writable_repo(request: Request, kind: str, repo_id: str) -> tuple[Repo, User]:
    """The repo and the writing user; 401 without a token, 404 for what the caller must not see, else 403."""
    signed_in(request)
    repo = readable_repo(request, kind, repo_id)
    return repo, writer(request, repo.namespace)
