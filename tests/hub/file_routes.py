"""Contents: what to upload how, LFS uploads, commits, downloads."""

import hashlib
import hmac
import json
import mimetypes
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from tests.hub.access import readable_repo, state_of, writable_repo
from tests.hub.errors import HubError, entry_not_found, repo_not_found, revision_not_found
from tests.hub.repo_routes import Revision
from tests.hub.storage import KINDS, LFS_SUFFIXES, Repo


router = APIRouter()
LFS_THRESHOLD_BYTES = 1 << 20
"""Files from this size on are LFS. The real Hub's limit is 10 MB; the client does what the server says."""
PART_BYTES = 5 << 20
"""LFS objects above this size are uploaded in parts of this size."""


@router.post("/api/{kind}/{namespace}/{name}/preupload/{rev}")
async def preupload(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, Any]:
    repo, _ = writable_repo(request, kind, f"{namespace}/{name}")
    commit = repo.commit_at(rev)
    answers = []
    for file in (await request.json())["files"]:
        lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] >= LFS_THRESHOLD_BYTES
        answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        entry = commit.tree.get(file["path"])
        if entry is not None:
            answer["oid"] = entry.sha256 if entry.lfs else entry.oid
        answers.append(answer)
    return {"commitOid": commit.oid, "files": answers}


# LFS


def _signature(request: Request, path: str, part: str) -> str:
    return hmac.new(state_of(request).signing_key, f"{path} {part}".encode(), "sha256").hexdigest()


def _signed_url(request: Request, repo: Repo, oid: str, part: str) -> str:
    """An upload address that carries its own permission: clients send no token with it, as to a real bucket."""
    path = f"_lfs/{repo.kind}/{repo.id}/{oid}"
    return f"{request.base_url}{path}?{urlencode({'part': part, 'signature': _signature(request, path, part)})}"


def _upload_actions(request: Request, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    verify = {"href": f"{request.base_url}{repo.url_path}.git/info/lfs/objects/verify"}
    if size <= PART_BYTES:
        return {"upload": {"href": _signed_url(request, repo, oid, "all")}, "verify": verify}
    num_parts = -(-size // PART_BYTES)
    header = {str(part): _signed_url(request, repo, oid, str(part)) for part in range(1, num_parts + 1)}
    header["chunk_size"] = str(PART_BYTES)
    return {"upload": {"href": _signed_url(request, repo, oid, "join"), "header": header}, "verify": verify}


async def _lfs_batch(request: Request, kind: str, repo_id: str) -> dict[str, Any]:
    repo, _ = writable_repo(request, kind, repo_id)
    body = await request.json()
    if body["operation"] != "upload":
        raise HubError(400, f"LFS operation {body['operation']!r}; the local Hub serves 'upload' only")
    objects = []
    multipart = False
    for wanted in body["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if not repo.blob(wanted["oid"]).exists():
            answer["actions"] = _upload_actions(request, repo, wanted["oid"], wanted["size"])
            multipart |= wanted["size"] > PART_BYTES
        objects.append(answer)
    return {"transfer": "multipart" if multipart else "basic", "objects": objects}


async def _lfs_verify(request: Request, kind: str, repo_id: str) -> dict[str, str]:
    repo, _ = writable_repo(request, kind, repo_id)
    body = await request.json()
    blob = repo.blob(body["oid"])
    if not blob.exists() or blob.stat().st_size != body["size"]:
        raise HubError(404, f"LFS object {body['oid']} of {body['size']} bytes was not uploaded")
    return {}


@router.post("/{namespace}/{name}.git/info/lfs/objects/{job}")
async def lfs_of_model(request: Request, namespace: str, name: str, job: str) -> dict[str, Any]:
    return await lfs_of_repo(request, "models", namespace, name, job)


@router.post("/{kind}/{namespace}/{name}.git/info/lfs/objects/{job}")
async def lfs_of_repo(request: Request, kind: str, namespace: str, name: str, job: str) -> dict[str, Any]:
    if job == "batch":
        return await _lfs_batch(request, kind, f"{namespace}/{name}")
    if job == "verify":
        return await _lfs_verify(request, kind, f"{namespace}/{name}")
    raise HubError(404, f"unknown LFS job {job!r}")


def _upload_target(request: Request, kind: str, repo_id: str, oid: str) -> tuple[Repo, str]:
    """The repo and the part that a signed address names; 403 if the signature is not ours."""
    part = request.query_params.get("part", "")
    wanted = _signature(request, f"_lfs/{kind}/{repo_id}/{oid}", part)
    if not hmac.compare_digest(request.query_params.get("signature", ""), wanted):
        raise HubError(403, "the signature of the upload address does not match")
    repo = state_of(request).store.repo(kind, repo_id)
    if repo is None:
        raise repo_not_found()
    return repo, part


@router.put("/_lfs/{kind}/{namespace}/{name}/{oid}")
async def upload(request: Request, kind: str, namespace: str, name: str, oid: str) -> Response:
    repo, part = _upload_target(request, kind, f"{namespace}/{name}", oid)
    temporary = repo.temporary()
    digest = hashlib.sha256()
    try:
        with open(temporary, "wb") as file:
            async for chunk in request.stream():
                file.write(chunk)
                digest.update(chunk)
        if part == "all":
            repo.keep_blob(temporary, expected_sha256=oid)
        else:
            folder = repo.folder / "parts" / oid
            folder.mkdir(exist_ok=True)
            temporary.rename(folder / part)
    finally:
        temporary.unlink(missing_ok=True)
    return Response(headers={"ETag": f'"{digest.hexdigest()}"'})


def _check_part(path: Path, etag: str) -> None:
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != etag.strip('"'):
        raise HubError(400, f"part {path.name} was not uploaded with ETag {etag}")


@router.post("/_lfs/{kind}/{namespace}/{name}/{oid}")
async def join_parts(request: Request, kind: str, namespace: str, name: str, oid: str) -> dict[str, str]:
    repo, _ = _upload_target(request, kind, f"{namespace}/{name}", oid)
    folder = repo.folder / "parts" / oid
    temporary = repo.temporary()
    with open(temporary, "wb") as file:
        for part in sorted((await request.json())["parts"], key=lambda part: part["partNumber"]):
            path = folder / str(part["partNumber"])
            _check_part(path, part["etag"])
            file.write(path.read_bytes())
    repo.keep_blob(temporary, expected_sha256=oid)
    shutil.rmtree(folder)
    return {}


# Commits


@router.post("/api/{kind}/{namespace}/{name}/commit/{rev}")
async def commit(request: Request, kind: str, namespace: str, name: str, rev: Revision) -> dict[str, Any]:
    repo, user = writable_repo(request, kind, f"{namespace}/{name}")
    if "create_pr" in request.query_params:
        raise HubError(400, "the local Hub serves no pull requests")
    # Everything after the last await runs without another request in between, so the check below holds until the end.
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
    head_oid = repo.refs["branches"].get(rev)
    if head_oid is None:
        raise revision_not_found(rev)
    header = next(line["value"] for line in lines if line["key"] == "header")
    expected_parent = header.get("parentCommit")
    if expected_parent is not None and not head_oid.startswith(expected_parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(repo.load_commit(head_oid).tree)
    for line in lines:
        if line["key"] != "header":
            tree = repo.apply(tree, line, head_oid)
    made = repo.write_commit(
        rev,
        tree,
        parents=[head_oid],
        title=header["summary"],
        message=header.get("description", ""),
        author=user.name,
    )
    url = f"{request.base_url}{repo.url_path}/commit/{made.oid}"
    return {"success": True, "commitOid": made.oid, "commitUrl": url}


# Downloads


def _download(request: Request, kind: str, repo_id: str, revision: str, path: str) -> Response:
    if kind not in KINDS:
        raise repo_not_found()
    repo = readable_repo(request, kind, repo_id)
    commit_there = repo.commit_at(revision)
    entry = commit_there.tree.get(path)
    if entry is None:
        raise entry_not_found(f"{path} does not exist on {revision}", commit_there.oid)
    headers = {
        "X-Repo-Commit": commit_there.oid,
        "ETag": f'"{entry.sha256 if entry.lfs else entry.oid}"',
        "Cache-Control": "no-cache",
    }
    if entry.lfs:
        headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": f'"{entry.sha256}"'}
    media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return FileResponse(repo.blob(entry.sha256), headers=headers, media_type=media_type)


@router.api_route("/{namespace}/{name}/resolve/{rev}/{path:path}", methods=["GET", "HEAD"])
async def resolve_model(request: Request, namespace: str, name: str, rev: Revision, path: str) -> Response:
    return _download(request, "models", f"{namespace}/{name}", rev, unquote(path))


@router.api_route("/{kind}/{namespace}/{name}/resolve/{rev}/{path:path}", methods=["GET", "HEAD"])
async def resolve(request: Request, kind: str, namespace: str, name: str, rev: Revision, path: str) -> Response:
    return _download(request, kind, f"{namespace}/{name}", rev, unquote(path))
