"""
Failures on demand, and a record of every request as the client sent it.

Both live in one ASGI layer around the application, so that they see requests to any address, served or not.
"""

import asyncio
import json
import re
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.hub.control import CONTROL_PREFIX, Fault, RecordedRequest


_TEXT_BODY = re.compile(r"json|x-www-form-urlencoded|^text/")


class _ResponseCut(Exception):
    """Ends a response in the middle of its body."""


class TransportProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, which also hands the application its transport: ASGI cannot cut a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = partial(_call_with_transport, self.app, transport)


async def _call_with_transport(
    app: ASGIApp, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send
) -> None:
    await app({**scope, "transport": transport}, receive, send)


class _Exchange:
    """One request on its way through: what came in, and the line that will be written about it."""

    def __init__(self, scope: Scope, receive: Receive, log: Path, fault: Fault | None) -> None:
        self.headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        self.method = scope["method"]
        self.path = unquote(scope["raw_path"].decode("ascii"))
        self.query = scope["query_string"].decode("ascii")
        self.fault = fault
        self._receive = receive
        self._log = log
        self._keep_body = _TEXT_BODY.search(self.headers.get("content-type", "")) is not None
        self._body = bytearray()
        self.body_size = 0
        self._more_body = True

    async def receive(self) -> Message:
        """The next message from the client, noted on its way."""
        message = await self._receive()
        chunk = message.get("body", b"")
        self.body_size += len(chunk)
        self._more_body = message["type"] == "http.request" and message.get("more_body", False)
        if self._keep_body:
            self._body += chunk
        return message

    async def drain(self, *, until_bytes: int | None = None) -> None:
        """Read the request's body, or its first `until_bytes`."""
        while self._more_body and (until_bytes is None or self.body_size < until_bytes):
            await self.receive()

    def write_record(self, status: int | None) -> None:
        """Append the record; done before the client gets its answer, so a test never looks too early."""
        record = RecordedRequest(
            method=self.method,
            path=self.path,
            query=self.query,
            headers=self.headers,
            body=self._body.decode() if self._keep_body else None,
            body_size=self.body_size,
            status=status,
            fault=self.fault.kind if self.fault else None,
            time=time.time(),
        )
        # One unbuffered write, so that a reader never finds half a line.
        with open(self._log, "ab", buffering=0) as file:
            file.write(json.dumps(asdict(record)).encode() + b"\n")


class FaultLayer:
    """ASGI layer: takes the matching fault for each request, carries it out, and records the request."""

    def __init__(self, app: ASGIApp, log: Path) -> None:
        self.app = app
        self.log = log
        self.faults: list[Fault] = []

    def _take(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if re.fullmatch(fault.method, method) and re.search(fault.path, path):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self.faults.remove(fault)
                return fault
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        raw_path = scope["raw_path"].decode("ascii")
        # Routes see the path as it was sent: a revision such as exp%2Fa is one segment, whatever it decodes to.
        scope = {**scope, "path": raw_path}
        if raw_path.startswith(CONTROL_PREFIX):
            await self._control(scope, receive, send)
            return
        fault = self._take(scope["method"], unquote(raw_path))
        exchange = _Exchange(scope, receive, self.log, fault)
        await self._serve(scope, exchange, send)

    async def _serve(self, scope: Scope, exchange: _Exchange, send: Send) -> None:
        fault = exchange.fault
        if fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.delay_s)
        if fault is None or fault.kind == "slow":
            await self.app(scope, exchange.receive, _recording(send, exchange))
        elif fault.kind == "status":
            await exchange.drain()
            answer = JSONResponse({"error": "failure on demand"}, status_code=fault.status)
            await answer(scope, exchange.receive, _recording(send, exchange))
        elif fault.kind == "lose":
            await self.app(scope, exchange.receive, _discard)
            exchange.write_record(None)
            await _cut(scope)
        elif scope["method"] in ("GET", "HEAD"):
            try:
                await self.app(scope, exchange.receive, _cutting(_recording(send, exchange), fault.after_bytes))
            except _ResponseCut:
                # uvicorn closes the connection of an application that returns in the middle of a response.
                return
        else:
            await exchange.drain(until_bytes=fault.after_bytes)
            exchange.write_record(None)
            await _cut(scope)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`PUT /_control/faults` adds one, `DELETE` clears them, `GET` lists those still waiting."""
        if scope["path"] != CONTROL_PREFIX + "faults":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "PUT":
            self.faults.append(Fault(**json.loads((await receive())["body"])))
        elif scope["method"] == "DELETE":
            self.faults.clear()
        await JSONResponse([asdict(fault) for fault in self.faults])(scope, receive, send)


async def _cut(scope: Scope) -> None:
    scope["transport"].abort()
    # Lets uvicorn notice before this application returns without an answer.
    await asyncio.sleep(0)


async def _discard(message: Message) -> None:
    """An answer that nobody gets."""


def _recording(send: Send, exchange: _Exchange) -> Send:
    async def recording_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            # An answer such as 401 comes before the body was read; the record has the body all the same.
            await exchange.drain()
            exchange.write_record(message["status"])
        await send(message)

    return recording_send


def _cutting(send: Send, after_bytes: int) -> Send:
    left = after_bytes

    async def cutting_send(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            if len(body) > left or not message.get("more_body", False):
                await send({"type": "http.response.body", "body": body[:left], "more_body": True})
                raise _ResponseCut
            left -= len(body)
        await send(message)

    return cutting_send
