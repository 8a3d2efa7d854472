"""Who votes: the Hub's login where there is one, else a random cookie, of which only a salted hash is ever written."""

import hashlib
import hmac
import math
import os
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import gradio as gr

from ..hub.private import keep_private


COOKIE = "lift_voter"
MIN_SALT_BYTES = 16
COOKIE_AGE_S = 365 * 24 * 3600
#: A person who plays both clips through needs about so long; a script does not [ours].
VOTES_PER_MINUTE = 10
SIGN_IN = "Please sign in with Hugging Face first: votes count by login here."
_TOKEN = re.compile(r"[\w-]{32,128}")
_MAX_ADDRESSES = 10_000


def load_salt(data_dir: Path | str, given: str | None = None) -> bytes:
    """
    The salt of this page: `given` (a Space's secret `SALT`), else a random one, made once and kept in `data_dir`.

    A Space without a persistent disk needs the secret: with another salt every anonymous voter is a new one.

    Raises:
        ValueError: if the salt is so short that it could be guessed, or not there at all.
    """
    path = Path(data_dir) / ".salt"
    if not given and not path.exists():
        if not path.parent.exists():
            keep_private(path.parent)  # one that is there may hold the user's own
        partial = path.with_name(f".salt.{os.getpid()}.tmp")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    salt = given.encode() if given else path.read_bytes()
    if len(salt) < MIN_SALT_BYTES:
        where, remedy = ("SALT", "make one with `openssl rand -hex 32`") if given else (path, "delete the file")
        raise ValueError(f"{where} has {len(salt)} bytes, and a salt needs {MIN_SALT_BYTES} at least; {remedy}.")
    return salt


class Identity:
    """
    Names people without naming them, and makes the choices that must look random but survive a reload.

    Args:
        salt: secret; without it nobody can tell which cookie belongs to which row.
        owners: Hub logins that see the owner's part of a page. Where there is no login, the link with `owner_key` does.
        require_login: whether only people who signed in may vote.
        votes_per_minute: that one login, or one address (which people without a login may share), may send.
    """

    def __init__(
        self,
        salt: bytes,
        owners: Iterable[str] = (),
        *,
        require_login: bool = False,
        votes_per_minute: int = VOTES_PER_MINUTE,
    ) -> None:
        self._salt = salt
        self._owners = frozenset(owners)
        self.require_login = require_login
        self._rate = Rate(votes_per_minute)

    def digest(self, *parts: str) -> str:
        """32 hex digits that only the holder of the salt can compute."""
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.new(self._salt, message, hashlib.sha256).hexdigest()[:32]

    def coin(self, *parts: str) -> bool:
        """A fair coin that falls the same way for the same `parts`."""
        return int(self.digest("coin", *parts), 16) % 2 == 1

    @property
    def owner_key(self) -> str:
        """`?owner=<key>` in the address opens the owner's part."""
        return self.digest("owner")

    def voter(self, request: gr.Request, profile: gr.OAuthProfile | None) -> str:
        """`hf:<login>`, or `anon:<16 hex digits>` of the cookie (of the page's session where cookies are blocked)."""
        if profile is not None:
            return f"hf:{profile.username}"
        token = cookie_token(request.headers.get("cookie", ""))
        secret = f"cookie {token}" if token else f"session {request.session_hash}"
        return f"anon:{self.digest('voter', secret)[:16]}"

    @contextmanager
    def sending(self, request: gr.Request, profile: gr.OAuthProfile | None) -> Iterator[str]:
        """
        As `voter`, of somebody who sends a vote inside the `with`. What fails inside does not count as sent.

        Raises:
            ValueError: if votes need a login and there is none, or too many came from this person or address.
        """
        if self.require_login and profile is None:
            raise ValueError(SIGN_IN)
        voter = self.voter(request, profile)
        sender = address(request) if profile is None else voter
        wait_s = self._rate.take(sender)
        if wait_s > 0:
            raise ValueError(
                f"Too many votes came from here within a minute. Please wait {math.ceil(wait_s)} s, then send again. Your "
                "answers stay on the page."
            )
        is_sent = False
        try:
            yield voter
            is_sent = True
        finally:
            if not is_sent:
                self._rate.give_back(sender)

    def is_owner(self, request: gr.Request, profile: gr.OAuthProfile | None) -> bool:
        """Whether this visitor may see gold items, agreement and the raters."""
        if profile is not None and profile.username in self._owners:
            return True
        return hmac.compare_digest(str(request.query_params.get("owner", "")).encode(), self.owner_key.encode())


class Rate:
    """At most so many events within any minute, for each sender."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, sender: str) -> float:
        """0 if an event of `sender` may happen now, and it counts from now on; else seconds until one may."""
        now = time.monotonic()
        with self._lock:
            times = self._times.setdefault(sender, deque())
            self._times.move_to_end(sender)
            while len(self._times) > _MAX_ADDRESSES:
                self._times.popitem(last=False)
            while times and now - times[0] >= 60.0:
                times.popleft()
            if len(times) >= self._per_minute:
                return 60.0 - (now - times[0])
            times.append(now)
            return 0.0

    def give_back(self, sender: str) -> None:
        """The last event of `sender` did not happen."""
        with self._lock:
            if self._times.get(sender):
                self._times[sender].pop()


def address(request: gr.Request) -> str:
    """
    The visitor's address. It is never written down.

    A Space stands behind the Hub's proxy, which appends the address to what the visitor claims; elsewhere nobody vouches for
    that header, and the connection's own address counts.
    """
    forwarded = request.headers.get("x-forwarded-for", "") if os.environ.get("SPACE_ID") else ""
    return forwarded.rsplit(",", 1)[-1].strip() or str(request.client.host)


def cookie_token(header: str) -> str | None:
    """The voter's token in a Cookie header, if it has the form of one that this page made."""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel and _TOKEN.fullmatch(morsel.value) else None


class Gate:
    """
    ASGI middleware: gives a new visitor a cookie, and refuses what no page of ours asks for.

    Refused (403): uploads, since no page takes files, and requests that another site's page sends in a visitor's name.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"].rstrip("/")
        if path.endswith("/upload") or scope["method"] != "GET" and not _same_site(headers):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"refused"})
            return
        fresh = path == "" and scope["method"] == "GET" and cookie_token(headers.get("cookie", "")) is None

        async def send_with_cookie(message: Any) -> None:
            if fresh and message["type"] == "http.response.start":
                cookie = (b"set-cookie", _new_cookie(headers, scope["scheme"]).encode())
                message = {**message, "headers": [*message["headers"], cookie]}
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def _same_site(headers: dict[str, str]) -> bool:
    """False if a browser says that the request comes from a page of another host."""
    origin = headers.get("origin")
    if origin is None:
        return True
    host = origin.split("://", 1)[-1]
    return host in (headers.get("host"), headers.get("x-forwarded-host"), os.environ.get("SPACE_HOST"))


def _new_cookie(headers: dict[str, str], scheme: str) -> str:
    # On huggingface.co a Space stands in a frame, where only such a cookie is kept.
    https = headers.get("x-forwarded-proto", scheme).split(",")[0] == "https"
    site = "SameSite=None; Secure; Partitioned" if https else "SameSite=Lax"
    return f"{COOKIE}={secrets.token_urlsafe(32)}; Path=/; Max-Age={COOKIE_AGE_S}; HttpOnly; {site}"
