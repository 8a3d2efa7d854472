"""Repos: creation, settings, information, trees, refs, history and commits."""

import hashlib
import json
import posixpath
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlencode

import yaml
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from tests.hub.access import caller, readable_repo, state_of, writable_repo, writer
from tests.hub.card_rules import problems
from tests.hub.errors import HubError, entry_not_found, revision_not_found
from tests.hub.space_routes import new_space_settings, runtime
from tests.hub.storage import KINDS, Commit, Repo, lfs_pointer


router = APIRouter()
TREE_PAGE, EXPANDED_TREE_PAGE, COMMITS_PAGE = 1000, 50, 20


def decoded_revision(rev: str) -> str:
    """The revision of the address: clients send `a/b` as `a%2Fb`."""
    return unquote(rev)


Revision = Annotated[str, Depends(decoded_revision)]


def split_front_matter(text: str) -> tuple[str, bool]:
    """The YAML between the two `---` lines on top of a card, and whether there is one."""
    parts = text.split("---", 2)
    return (parts[1], True) if text.startswith("---") and len(parts) == 3 else ("", False)


def _card(repo: Repo, commit: Commit) -> dict[str, Any]:
    entry = commit.tree.get("README.md")
    if entry is None:
        return {}
    try:
        card = yaml.safe_load(split_front_matter(repo.blob(entry.sha256).read_text())[0])
    except yaml.YAMLError:
        # The real Hub keeps such a commit and shows no metadata.
        return {}
    return card if isinstance(card, dict) else {}


def _repo_info(repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    card = _card(repo, commit)
    settings = repo.settings
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.tree)]
    if blobs:
        for sibling in siblings:
            entry = commit.tree[sibling["rfilename"]]
            sibling |= {"size": entry.size, "blobId": entry.oid}
            if entry.lfs:
                pointer_size = len(lfs_pointer(entry.sha256, entry.size))
                sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    info = {
        "_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "private": settings["private"],
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": settings["created_at"],
        "lastModified": commit.date,
        "tags": list(card.get("tags") or []),
        "cardData": card,
        "siblings": siblings,
    }
    if repo.kind == "models":
        info |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
    if repo.kind == "spaces":
        info |= {"sdk": settings["sdk"], "runtime": runtime(settings)}
    return info


@router.post("/api/validate-yaml")
async def validate_yaml(request: Request) -> Response:
    body = await request.json()
    front_matter, found = split_front_matter(body["content"])
    if not found:
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return JSONResponse({"errors": [], "warnings": [warning]})
    try:
        found = list(problems(yaml.safe_load(front_matter) or {}, body["repoType"]))
    except yaml.YAMLError as error:
        found = [str(error)]
    answer = {"errors": [{"message": message} for message in found], "warnings": []}
    return JSONResponse(answer, status_code=400 if found else 200)


@router.post("/api/repos/create")
async def create_repo(request: Request) -> Response:
    body = await request.json()
    kind = f"{body.get('type') or 'model'}s"
    user = caller(request)
    namespace = body.get("organization") or (user.name if user else "")
    user = writer(request, namespace)
    repo_id = f"{namespace}/{body['name']}"
    store = state_of(request).store
    prefix = "" if kind == "models" else f"{kind}/"
    answer = {"url": f"{request.base_url}{prefix}{repo_id}", "name": repo_id}
    if store.repo(kind, repo_id) is not None:
        return JSONResponse({**answer, "error": f"You already created this {kind[:-1]} repo"}, status_code=409)
    settings = {"private": body.get("visibility") == "private" or body.get("private") is True}
    if kind == "spaces":
        settings |= new_space_settings(body)
    store.create_repo(kind, repo_id, author=user.name, settings=settings)
    return JSONResponse(answer)


@router.delete("/api/repos/delete")
async def delete_repo(request: Request) -> dict[str, str]:
    body = await request.json()
    user = caller(request)
    namespace = body.get("organization") or (user.name if user else "")
    repo, _ = writable_repo(request, f"{body.get('type') or 'model'}s", f"{namespace}/{body['name']}")
    state_of(request).store.delete_repo(repo)
    return {}


@router.post("/api/repos/move")
async def move_repo(request: Request) -> dict[str, str]:
    body = await request.json()
    repo, _ = writable_repo(request, f"{body['type']}s", body["fromRepo"])
    writer(request, body["toRepo"].split("/")[0])
    store = state_of(request).store
    if store.repo(repo.kind, body["toRepo"]) is not None:
        raise HubError(409, f"{body['toRepo']} exists already")
    store.move_repo(repo, body["toRepo"])
    return {}


@router.put("/api/{kind}/{namespace}/{name}/settings")
async def change_settings(request: Request, kind: str, namespace: str, name: str) -> dict[str, Any]:
    repo, _ = writable_repo(request, kind, f"{namespace}/{name}")
    body = await request.json()
    if body.keys() - {"visibility"} or body.get("visibility") not in ("public", "private"):
        raise HubError(400, f"settings {body}; the local Hub serves {{'visibility': 'public' or 'private'}}")
    repo.update_settings(private=body["visibility"] == "private")
    return body


@router.get("/api/{kind}")
async def list_repos(request: Request, kind: str, author: str = "", search: str = "") -> list[dict[str, Any]]:
    if kind not in KINDS:
        raise HubError(404, f"the local Hub does not serve /api/{kind}")
    user = caller(request)
    return [
        _repo_info(repo, repo.commit_at("main"))
        for repo in state_of(request).store.repos(kind)
        if (not repo.settings["private"] or (user is not None and user.belongs_to(repo.namespace)))
        and author in ("", repo.namespace)
        and search.lower() in repo.id.lower()
    ]


@router.get("/api/{kind}/{namespace}/{name}")
@router.get("/api/{kind}/{namespace}/{name}/revision/{rev}")
async def repo_info(request: Request, kind: str, namespace: str, name: str, rev: str = "main") -> dict[str, Any]:
    repo = readable_repo(request, kind, f"{namespace}/{name}")
    return _repo_info(repo, repo.commit_at(unquote(rev)), blobs="blobs" in request.query_params)


@router.get("/api/{kind}/{namespace}/{name}/auth-check")
async def auth_check(request: Request, kind: str, namespace: str, name: str) -> dict[str, str]:
    readable_repo(request, kind, f"{namespace}/{name}")
    return {}


# Trees


def _tree_item(repo: Repo, commit: Commit, path: str, *, expand: bool) -> dict[str, Any] | None:
    """One file or folder as the tree shows it; None where the commit has no such path."""
    entry = commit.tree.get(path)
    inside = [name for name in sorted(commit.tree) if name.startswith(f"{path}/")]
    item: dict[str, Any]
    if entry is not None:
        item = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
        if entry.lfs:
            pointer_size = len(lfs_pointer(entry.sha256, entry.size))
            item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    elif inside:
        listing = "".join(f"{name} {commit.tree[name].oid}\n" for name in inside)
        item = {"type": "directory", "path": path, "oid": hashlib.sha1(listing.encode()).hexdigest(), "size": 0}
    else:
        return None
    if expand:
        changes = repo.last_changes(commit)
        newest = max((changes[name] for name in inside or [path]), key=lambda change: change.date)
        item["lastCommit"] = {"id": newest.oid, "title": newest.title, "date": newest.date}
    return item


def _children(paths: Iterable[str], folder: str, *, recursive: bool) -> list[str]:
    """Files and folders under `folder` ("" is the root), direct ones only unless `recursive`."""
    prefix = f"{folder}/" if folder else ""
    found = set()
    for path in paths:
        while path.startswith(prefix) and path != folder:
            if recursive or "/" not in path[len(prefix) :]:
                found.add(path)
            path = posixpath.dirname(path)
            if not path:
                break
    return sorted(found)


def _page(request: Request, items: list[Any], size: int) -> tuple[list[Any], dict[str, str]]:
    """The page that the request's cursor names, and the Link header to the next one."""
    start = int(request.query_params.get("cursor", "0"))
    if start + size >= len(items):
        return items[start:], {}
    query = urlencode({**request.query_params, "cursor": start + size})
    address = f"{str(request.base_url).rstrip('/')}{request.scope['path']}?{query}"
    return items[start : start + size], {"Link": f'<{address}>; rel="next"'}


@router.get("/api/{kind}/{namespace}/{name}/tree/{rev}")
@router.get("/api/{kind}/{namespace}/{name}/tree/{rev}/{path:path}")
async def tree(request: Request, kind: str, namespace: str, name: str, rev: Revision, path: str = "") -> Response:
    repo = readable_repo(request, kind, f"{namespace}/{name}")
    commit = repo.commit_at(rev)
    folder = unquote(path).strip("/")
    expand = request.query_params.get("expand", "").lower() in ("true", "1")
    children = _children(
        commit.tree, folder, recursive=request.query_params.get("recursive", "").lower() in ("true", "1")
    )
    if folder and not children:
        raise entry_not_found(f"{folder} does not exist on {rev}", commit.oid)
    page, headers = _page(request, children, EXPANDED_TREE_PAGE if expand else TREE_PAGE)
    return JSONResponse([_tree_item(repo, commit, child, expand=expand) for child in page], headers=headers)


@router.post("/api/{kind}/{namespace}/{name}/paths-info/{rev}")
async def paths_info(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> list[dict[str, Any]]:
    repo = readable_repo(request, kind, f"{namespace}/{name}")
    commit = repo.commit_at(rev)
    body = await request.body()
    if "json" in request.headers.get("content-type", ""):
        fields = json.loads(body)
        paths, expand = fields["paths"], bool(fields.get("expand", False))
    else:
        form = parse_qs(body.decode())
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[0].lower() == "true"
    items = [_tree_item(repo, commit, path.strip("/"), expand=expand) for path in paths]
    return [item for item in items if item is not None]


# Refs and history


@router.get("/api/{kind}/{namespace}/{name}/refs")
async def list_refs(request: Request, kind: str, namespace: str, name: str) -> dict[str, Any]:
    refs = readable_repo(request, kind, f"{namespace}/{name}").refs

    def described(group: str, ref_prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"{ref_prefix}/{name}", "targetCommit": oid} for name, oid in refs[group].items()
        ]

    branches, tags = described("branches", "refs/heads"), described("tags", "refs/tags")
    return {"branches": branches, "converts": [], "tags": tags, "pullRequests": []}


@router.get("/api/{kind}/{namespace}/{name}/commits/{rev}")
async def list_commits(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> Response:
    repo = readable_repo(request, kind, f"{namespace}/{name}")
    page, headers = _page(request, list(repo.history(repo.commit_at(rev))), COMMITS_PAGE)
    described = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": commit.date,
        }
        for commit in page
    ]
    return JSONResponse(described, headers=headers)


@router.post("/api/{kind}/{namespace}/{name}/branch/{rev}")
async def create_branch(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, str]:
    repo, _ = writable_repo(request, kind, f"{namespace}/{name}")
    if rev in repo.refs["branches"]:
        raise HubError(409, f"Reference already exists: refs/heads/{rev}")
    body = json.loads(await request.body() or b"{}")
    repo.set_ref("branches", rev, repo.commit_at(body.get("startingPoint", "main")).oid)
    return {}


@router.delete("/api/{kind}/{namespace}/{name}/branch/{rev}")
async def delete_branch(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, str]:
    repo, _ = writable_repo(request, kind, f"{namespace}/{name}")
    if rev == "main":
        raise HubError(403, "the branch main cannot be deleted")
    if rev not in repo.refs["branches"]:
        raise revision_not_found(rev)
    repo.set_ref("branches", rev, None)
    return {}


@router.post("/api/{kind}/{namespace}/{name}/tag/{rev}")
async def create_tag(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, str]:
    repo, _ = writable_repo(request, kind, f"{namespace}/{name}")
    tag = (await request.json())["tag"]
    if tag in repo.refs["tags"]:
        raise HubError(409, f"Tag reference exists already: refs/tags/{tag}")
    repo.set_ref("tags", tag, repo.commit_at(rev).oid)
    return {}


@router.delete("/api/{kind}/{namespace}/{name}/tag/{rev}")
async def delete_tag(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, str]:
    repo, _ = writable_repo(request, kind, f"{namespace}/{name}")
    if rev not in repo.refs["tags"]:
        raise revision_not_found(rev)
    repo.set_ref("tags", rev, None)
    return {}


@router.post("/api/{kind}/{namespace}/{name}/super-squash/{rev}")
async def super_squash(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, str]:
    repo, user = writable_repo(request, kind, f"{namespace}/{name}")
    if rev not in repo.refs["branches"]:
        raise revision_not_found(rev)
    title = (await request.json())["message"]
    tree_now = repo.commit_at(rev).tree
    repo.write_commit(rev, tree_now, parents=(), title=title, message="", author=user.name)
    return {}
