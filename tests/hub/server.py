"""
The server process: `python -m tests.hub.server --root DIR --port N`.

It listens on 127.0.0.1 only, keeps all state under `--root`, and ends when its standard input closes, so that it never
outlives the tests that started it.
"""

import argparse
import os
import re
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests.hub import collection_routes, file_routes, repo_routes, space_routes
from tests.hub.access import HubState, User, Users, signed_in, state_of
from tests.hub.control import CONTROL_PREFIX, REQUEST_LOG
from tests.hub.errors import HubError, repo_not_found
from tests.hub.faults import FaultLayer, TransportProtocol
from tests.hub.storage import HubStore


_REPO_ADDRESS = re.compile(r"^/api/(models|datasets|spaces)/|/resolve/")


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return JSONResponse({"error": error.message}, status_code=error.status, headers=error.headers)


async def whoami(request: Request) -> dict[str, Any]:
    user = signed_in(request)
    orgs = [{"type": "org", "name": org, "fullname": org, "roleInOrg": user.role} for org in user.orgs]
    token = {"displayName": "local", "role": user.role}
    return {
        "type": "user",
        "id": user.name,
        "name": user.name,
        "fullname": user.name,
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": token},
    }


async def add_user(request: Request) -> dict[str, str]:
    body = await request.json()
    state_of(request).users.add(body["token"], User(body["name"], body["role"], tuple(body["orgs"])))
    return {}


async def not_served(request: Request) -> Response:
    """Everything without a route; ids without a namespace are repos that nobody has here."""
    if _REPO_ADDRESS.search(request.url.path):
        raise repo_not_found()
    raise HubError(404, f"the local Hub does not serve {request.method} {request.url.path}")


def _signing_key(path: Path) -> bytes:
    """The key of the upload addresses, kept so that an address stays good over a restart."""
    if not path.exists():
        path.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()


def create_app(root: Path) -> FaultLayer:
    """The whole application over the state in `root`."""
    app = FastAPI(openapi_url=None)
    app.state.hub = HubState(HubStore(root), Users(root / "users.json"), _signing_key(root / "signing_key"))
    app.add_exception_handler(HubError, _answer_error)
    app.add_api_route(CONTROL_PREFIX + "users", add_user, methods=["PUT"])
    app.add_api_route("/api/whoami-v2", whoami)
    # The order matters: /api/{kind} and the addresses of downloads would take what stands after them.
    for routes in (collection_routes, space_routes, repo_routes, file_routes):
        app.include_router(routes.router)
    app.add_api_route("/{path:path}", not_served, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    return FaultLayer(app, root / REQUEST_LOG)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until the process gets a signal or its standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # asyncio sends at once only on sockets that say TCP; else an answer of two packets waits 40 ms for a receipt.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The parent holds the port with a socket that never listens (environment.py), hence the shared binding.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", options.port))
    config = uvicorn.Config(
        create_app(options.root),
        http=TransportProtocol,
        lifespan="off",
        access_log=False,
        timeout_keep_alive=3600,  # else an idle client may find its connection closed just as it sends a commit
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
