"""Collections: one JSON file each, named by the id at the end of the slug."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tests.hub.access import caller, readable_repo, state_of, writer
from tests.hub.errors import HubError
from tests.hub.storage import KINDS, now, write_json


router = APIRouter()


def _new_id() -> str:
    return uuid.uuid4().hex[:24]


def _path(request: Request, collection_id: str) -> Path:
    return state_of(request).store.collections / f"{collection_id}.json"


def _visible(request: Request, collection: dict[str, Any]) -> bool:
    user = caller(request)
    return not collection["private"] or (user is not None and user.belongs_to(collection["owner"]))


def _find(request: Request, namespace: str, name: str) -> dict[str, Any]:
    """The collection, found by the id at its slug's end as the real Hub does; 404 if missing or not the caller's."""
    collection_id = re.search(r"[0-9a-f]{24}$", name)
    path = _path(request, collection_id.group() if collection_id else "none")
    collection: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    if collection is None or collection["owner"] != namespace or not _visible(request, collection):
        raise HubError(404, "Collection not found")
    return collection


def _find_own(request: Request, namespace: str, name: str) -> dict[str, Any]:
    if caller(request) is None:
        writer(request, namespace)
    collection = _find(request, namespace, name)
    writer(request, namespace)
    return collection


def _save(request: Request, collection: dict[str, Any]) -> None:
    collection["lastUpdated"] = now()
    for position, item in enumerate(collection["items"]):
        item["position"] = position
    write_json(_path(request, collection["slug"][-24:]), collection)


def _note(text: str | None) -> dict[str, str] | None:
    return None if text is None else {"text": text, "html": text}


@router.get("/api/collections")
async def list_collections(request: Request, owner: str = "") -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(state_of(request).store.collections.glob("*.json"))]
    # The client's listing numbers the collections by itself and refuses a second `position`.
    return [
        {key: value for key, value in collection.items() if key != "position"}
        for collection in found
        if owner in ("", collection["owner"]) and _visible(request, collection)
    ]


@router.post("/api/collections")
async def create_collection(request: Request) -> Response:
    body = await request.json()
    owner = body["namespace"]
    writer(request, owner)
    for path in state_of(request).store.collections.glob("*.json"):
        other = json.loads(path.read_text())
        if (other["owner"], other["title"]) == (owner, body["title"]):
            return JSONResponse({"error": "Collection exists already", "slug": other["slug"]}, status_code=409)
    title = re.sub(r"[^a-z0-9]+", "-", body["title"].lower()).strip("-")
    collection = {
        "slug": f"{owner}/{title}-{_new_id()}",
        "title": body["title"],
        "description": body.get("description"),
        "owner": owner,
        "items": [],
        "position": 0,
        "private": body.get("private", False),
        "theme": "blue",
        "upvotes": 0,
    }
    _save(request, collection)
    return JSONResponse(collection)


@router.get("/api/collections/{namespace}/{name}")
async def get_collection(request: Request, namespace: str, name: str) -> dict[str, Any]:
    return _find(request, namespace, name)


@router.patch("/api/collections/{namespace}/{name}")
async def update_collection(request: Request, namespace: str, name: str) -> dict[str, Any]:
    collection = _find_own(request, namespace, name)
    collection |= await request.json()
    _save(request, collection)
    return {"success": True, "data": collection}


@router.delete("/api/collections/{namespace}/{name}")
async def delete_collection(request: Request, namespace: str, name: str) -> dict[str, str]:
    collection = _find_own(request, namespace, name)
    _path(request, collection["slug"][-24:]).unlink()
    return {}


@router.post("/api/collections/{namespace}/{name}/items")
async def add_item(request: Request, namespace: str, name: str) -> Response:
    collection = _find_own(request, namespace, name)
    body = await request.json()
    item = body["item"]
    if f"{item['type']}s" in KINDS:
        readable_repo(request, f"{item['type']}s", item["id"])
    if any((other["type"], other["id"]) == (item["type"], item["id"]) for other in collection["items"]):
        return JSONResponse({"error": "Item is already in the collection"}, status_code=409)
    collection["items"].append(
        {"_id": _new_id(), "id": item["id"], "type": item["type"], "note": _note(body.get("note"))}
    )
    _save(request, collection)
    return JSONResponse(collection)


def _item_index(collection: dict[str, Any], item_id: str) -> int:
    for index, item in enumerate(collection["items"]):
        if item["_id"] == item_id:
            return index
    raise HubError(404, f"no item {item_id} in {collection['slug']}")


@router.patch("/api/collections/{namespace}/{name}/items/{item_id}")
async def update_item(request: Request, namespace: str, name: str, item_id: str) -> dict[str, str]:
    collection = _find_own(request, namespace, name)
    body = await request.json()
    item = collection["items"].pop(_item_index(collection, item_id))
    if "note" in body:
        item["note"] = _note(body["note"])
    collection["items"].insert(body.get("position", item["position"]), item)
    _save(request, collection)
    return {}


@router.delete("/api/collections/{namespace}/{name}/items/{item_id}")
async def delete_item(request: Request, namespace: str, name: str, item_id: str) -> dict[str, str]:
    collection = _find_own(request, namespace, name)
    del collection["items"][_item_index(collection, item_id)]
    _save(request, collection)
    return {}
