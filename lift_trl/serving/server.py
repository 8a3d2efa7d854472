"""The HTTP server: clips as mp4 or URL in, JSON out. Nothing that it reads or writes is a pickle."""

import asyncio
import base64
import hmac
import http.client
import os
import string
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import quote, unquote, urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..protocols import RewardModel
from .batcher import Batcher, BusyError, ScoringError


#: Clips of one request, bytes of one request, bytes behind one URL, clips that wait for the model.
MAX_CLIPS, MAX_BYTES, MAX_URL_BYTES, MAX_WAITING = 64, 256 * 2**20, 64 * 2**20, 1024
URL_TIMEOUT_S = 30.0


class NamedRewardModel(RewardModel, Protocol):
    """A reward model that says which one it is: `"repo@revision"`."""

    name: str


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


class RequestedClip(BaseModel):
    """A clip and its prompt: `video` is the mp4 file in base64, `url` where it lies."""

    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(max_length=20_000)
    video: Annotated[bytes | None, BeforeValidator(_decoded)] = None
    url: str | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> "RequestedClip":
        if (self.video is None) == (self.url is None):
            raise ValueError("give either video (base64 of the mp4 file) or url")
        return self


class ScoreRequest(BaseModel):
    """The body of `POST /v1/score`."""

    model_config = ConfigDict(extra="forbid")
    clips: list[RequestedClip] = Field(min_length=1, max_length=MAX_CLIPS)
    with_reason: bool = False


class _Refused(Exception):
    """A request that gets an error, and its HTTP status."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class _Read(NamedTuple):
    """A clip's bytes, or why there are none."""

    clip: bytes | None
    problem: str = ""


def find_token(token_env: str, host: str) -> str | None:
    """
    The token in the environment variable `token_env`, which only a server for this machine may be without.

    Raises:
        ValueError: if `host` lets others in and there is none.
    """
    token = os.environ.get(token_env)
    if not token and host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(
            f"--host {host} lets others in, and {token_env} is not in the environment: export a token first, or leave "
            "--host out."
        )
    return token or None


def serve(reward_model: NamedRewardModel, host: str, port: int, **options: Any) -> None:
    """Answers at `host` and `port` until it is stopped; `options` are those of `build_app`."""
    uvicorn.run(build_app(reward_model, **options), host=host, port=port, log_level="warning")


def build_app(
    reward_model: NamedRewardModel, *, token: str | None = None, batch_size: int = 8, allow_urls: Sequence[str] = ()
) -> FastAPI:
    """
    An application with `POST /v1/score` and `GET /health`.

    Args:
        token: what `Authorization: Bearer ...` must say; `None` lets everyone ask.
        batch_size: clips that run through the model together, of one or many requests.
        allow_urls: what clips may be fetched below, such as `"https://my-bucket.example/clips"`. Nothing by default: a
            server that fetches what strangers name reaches what only it should.
    """
    batcher = Batcher(reward_model, batch_size=batch_size, max_waiting=MAX_WAITING)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    app = FastAPI(title="lift_trl", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "critic": reward_model.name}

    @app.post("/v1/score")
    async def score(request: Request) -> JSONResponse:
        try:
            _check_token(request, token)
            asked = await _read_body(request)
            rows = await _score(batcher, reward_model.name, asked, allow_urls)
        except _Refused as error:
            return JSONResponse({"error": str(error)}, error.status)
        except BusyError as error:
            return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "5"})
        except ScoringError as error:
            return JSONResponse({"error": f"the model failed: {error}"}, 500)
        return JSONResponse({"critic": reward_model.name, "scores": rows})

    return app


def _check_token(request: Request, token: str | None) -> None:
    given = request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise _Refused(401, "no valid token; send Authorization: Bearer TOKEN")


async def _read_body(request: Request) -> ScoreRequest:
    """The request, read no further than it may be long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise _Refused(413, f"the request is longer than {MAX_BYTES} bytes; send fewer clips")
    try:
        return ScoreRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)]
        raise _Refused(422, "; ".join(problems[:5])) from error


async def _score(batcher: Batcher, name: str, asked: ScoreRequest, allow_urls: Sequence[str]) -> list[dict[str, Any]]:
    """One row a clip. What cannot be fetched is unscored, as what cannot be decoded is."""
    loop = asyncio.get_running_loop()
    read = await asyncio.gather(
        *(loop.run_in_executor(None, partial(_read, clip, allow_urls)) for clip in asked.clips)
    )
    places = [index for index, one in enumerate(read) if one.clip is not None]
    scores = await batcher.score(
        [read[index].clip or b"" for index in places],
        [asked.clips[index].prompt for index in places],
        with_reason=asked.with_reason,
    )
    rows = {index: score.columns() for index, score in zip(places, scores, strict=True)}
    return [
        rows.get(index, {"reward": None, "unscored": one.problem, "critic": name}) for index, one in enumerate(read)
    ]


def _read(clip: RequestedClip, allow_urls: Sequence[str]) -> _Read:
    if clip.url is None:
        return _Read(clip.video)
    try:
        return _Read(_fetch(clip.url, allow_urls))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _Read(None, f"{clip.url[:200]}: {error}")


def _fetch(url: str, allow_urls: Sequence[str]) -> bytes:
    """
    The file behind `url`.

    Raises:
        ValueError: if it may not be fetched, is no URL, or the file is too long or not whole.
        OSError, HTTPException: if it cannot be had.
    """
    asked = _escaped(url)
    if not any(_is_below(asked, _escaped(base)) for base in allow_urls):
        raise ValueError("not fetched; start the server with --allow-url and the URL of its folder")
    with _opener.open(asked, timeout=URL_TIMEOUT_S) as answer:
        found: bytes = answer.read(MAX_URL_BYTES + 1)
        promised = answer.headers["Content-Length"]
    if len(found) > MAX_URL_BYTES:
        raise ValueError(f"longer than {MAX_URL_BYTES} bytes")
    # Asked for so many bytes at most, http.client takes fewer for the whole.
    if promised is not None and len(found) != int(promised):
        raise ValueError(f"breaks off after {len(found)} of {promised} bytes")
    return found


def _escaped(url: str) -> str:
    """
    `url` as HTTP sends it; what is escaped already stays.

    >>> _escaped("http://a.example/a b/caf\u00e9%20.mp4?of=\u00e9&n=1")
    'http://a.example/a%20b/caf%C3%A9%20.mp4?of=%C3%A9&n=1'
    """
    parts = urlsplit(url)
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()


def _is_below(url: str, base: str) -> bool:
    """
    Whether `url` is `base` or lies below it, at the same host.

    >>> _is_below("https://a.example/clips/1.mp4", "https://a.example/clips")
    True
    >>> _is_below("https://a.example.evil/clips/1.mp4", "https://a.example"), _is_below("file:///etc/hosts", "")
    (False, False)
    """
    asked, allowed = urlsplit(url), urlsplit(base)
    if asked.scheme not in ("http", "https") or asked[:2] != allowed[:2] or ".." in unquote(asked.path).split("/"):
        return False
    return f"{asked.path}/".startswith(f"{allowed.path.rstrip('/')}/")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection would lead past `allow_urls`; it comes back as the error that it then is."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)
