"""Spaces: variables, secrets, runtime, hardware and volumes; buckets in name only. No Space ever runs here."""

import hashlib
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from huggingface_hub import SpaceHardware

from tests.hub.access import readable_repo, writable_repo, writer
from tests.hub.errors import HubError
from tests.hub.storage import Repo, now


router = APIRouter()
SDKS = ("gradio", "streamlit", "docker", "static")


def _variable(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": item["key"],
        "value": item["value"],
        "description": item.get("description", ""),
        "updatedAt": now(),
    }


def _secret(item: Mapping[str, Any]) -> dict[str, Any]:
    """A secret as it is kept: its digest only, so nothing that the server answers or stores can give it away."""
    kept = _variable(item)
    del kept["value"]
    return {**kept, "sha256": hashlib.sha256(item["value"].encode()).hexdigest()}


def _checked_hardware(flavor: str) -> str:
    allowed = [hardware.value for hardware in SpaceHardware]
    if flavor not in allowed:
        raise HubError(400, f"hardware {flavor!r}; use one of {', '.join(allowed)}")
    return flavor


def new_space_settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """A new Space's settings from the body of its creation."""
    if body.get("sdk") not in SDKS:
        raise HubError(400, f"sdk={body.get('sdk')!r}; use one of {', '.join(SDKS)}")
    return {
        "sdk": body["sdk"],
        "stage": "RUNNING",
        "hardware": _checked_hardware(body.get("hardware", "cpu-basic")),
        "sleep_time": body.get("sleepTimeSeconds"),
        "volumes": body.get("volumes"),
        "variables": {item["key"]: _variable(item) for item in body.get("variables", [])},
        "secrets": {item["key"]: _secret(item) for item in body.get("secrets", [])},
    }


def runtime(settings: Mapping[str, Any], *, requested: str | None = None) -> dict[str, Any]:
    """The runtime as the Hub describes it; `requested` is hardware that was just asked for."""
    return {
        "stage": settings["stage"],
        "hardware": {"current": settings["hardware"], "requested": requested or settings["hardware"]},
        "storage": None,
        "volumes": settings["volumes"],
        "gcTimeout": settings["sleep_time"],
        "replicas": {"current": 1, "requested": 1},
    }


def _own_space(request: Request, namespace: str, name: str) -> Repo:
    return writable_repo(request, "spaces", f"{namespace}/{name}")[0]


@router.get("/api/spaces/{namespace}/{name}/variables")
async def variables(request: Request, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = _own_space(request, namespace, name).settings["variables"]
    return found


@router.post("/api/spaces/{namespace}/{name}/variables")
async def add_variable(request: Request, namespace: str, name: str) -> dict[str, Any]:
    space = _own_space(request, namespace, name)
    variable = _variable(await request.json())
    changed = {**space.settings["variables"], variable["key"]: variable}
    space.update_settings(variables=changed)
    return changed


@router.delete("/api/spaces/{namespace}/{name}/variables")
async def delete_variable(request: Request, namespace: str, name: str) -> dict[str, Any]:
    space = _own_space(request, namespace, name)
    key = (await request.json())["key"]
    changed = {other: value for other, value in space.settings["variables"].items() if other != key}
    space.update_settings(variables=changed)
    return changed


@router.get("/api/spaces/{namespace}/{name}/secrets")
async def secrets(request: Request, namespace: str, name: str) -> dict[str, Any]:
    kept = _own_space(request, namespace, name).settings["secrets"]
    return {
        key: {field: value for field, value in secret.items() if field != "sha256"} for key, secret in kept.items()
    }


@router.post("/api/spaces/{namespace}/{name}/secrets")
async def add_secret(request: Request, namespace: str, name: str) -> dict[str, Any]:
    space = _own_space(request, namespace, name)
    secret = _secret(await request.json())
    space.update_settings(secrets={**space.settings["secrets"], secret["key"]: secret})
    return {}


@router.delete("/api/spaces/{namespace}/{name}/secrets")
async def delete_secret(request: Request, namespace: str, name: str) -> dict[str, Any]:
    space = _own_space(request, namespace, name)
    key = (await request.json())["key"]
    space.update_settings(
        secrets={other: secret for other, secret in space.settings["secrets"].items() if other != key}
    )
    return {}


@router.get("/api/spaces/{namespace}/{name}/runtime")
async def space_runtime(request: Request, namespace: str, name: str) -> dict[str, Any]:
    return runtime(readable_repo(request, "spaces", f"{namespace}/{name}").settings)


@router.post("/api/spaces/{namespace}/{name}/hardware")
async def request_hardware(request: Request, namespace: str, name: str) -> dict[str, Any]:
    space = _own_space(request, namespace, name)
    body = await request.json()
    before = space.settings
    changes = {"hardware": _checked_hardware(body["flavor"])}
    if "sleepTimeSeconds" in body:
        changes["sleep_time"] = body["sleepTimeSeconds"]
    after = space.update_settings(**changes)
    # As on the real Hub the answer still names the old hardware as the current one; the next look shows the new.
    return runtime({**after, "hardware": before["hardware"]}, requested=body["flavor"])


@router.put("/api/spaces/{namespace}/{name}/volumes")
async def set_volumes(request: Request, namespace: str, name: str) -> dict[str, Any]:
    return runtime(_own_space(request, namespace, name).update_settings(**await request.json()))


@router.post("/api/buckets/{namespace}/{name}")
async def create_bucket(request: Request, namespace: str, name: str) -> dict[str, Any]:
    writer(request, namespace)
    return {"url": f"{request.base_url}buckets/{namespace}/{name}", "id": f"{namespace}/{name}"}


@router.post("/api/spaces/{namespace}/{name}/sleeptime")
async def set_sleep_time(request: Request, namespace: str, name: str) -> dict[str, Any]:
    space = _own_space(request, namespace, name)
    return runtime(space.update_settings(sleep_time=(await request.json())["seconds"]))


@router.post("/api/spaces/{namespace}/{name}/pause")
async def pause(request: Request, namespace: str, name: str) -> dict[str, Any]:
    return runtime(_own_space(request, namespace, name).update_settings(stage="PAUSED"))


@router.post("/api/spaces/{namespace}/{name}/restart")
async def restart(request: Request, namespace: str, name: str) -> dict[str, Any]:
    return runtime(_own_space(request, namespace, name).update_settings(stage="RUNNING"))
