"""What the fixtures and the server process say to each other: faults one way, records of requests the other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


CONTROL_PREFIX = "/_control/"
REQUEST_LOG = "requests.jsonl"


@dataclass
class Fault:
    """
    A failure that waits for requests.

    `kind` is `"status"` (answer `status`, do nothing), `"slow"` (wait `delay_s`, then serve), `"cut"` (close the
    connection after `after_bytes` of the body: the request's body if the method sends one, else the response's) or
    `"lose"` (do the work, then close the connection without an answer). `method` and `path` are regular expressions,
    the first for the whole method, the second searched in the decoded path. `times` None means until cleared.
    """

    kind: str
    method: str
    path: str
    times: int | None = 1
    status: int = 500
    delay_s: float = 0.0
    after_bytes: int = 0


@dataclass(frozen=True)
class RecordedRequest:
    """
    A request as the client sent it. `path` is decoded, header names are lower case, `body` is None unless it was text
    (JSON, NDJSON or a form), `body_size` is in bytes. `status` is what was answered, None if the connection was cut;
    `fault` is the kind of fault that it met, if any; `time` is in seconds since 1970.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: str | None
    body_size: int
    status: int | None
    fault: str | None
    time: float

    @property
    def json(self) -> Any:
        """The body, parsed."""
        assert self.body is not None, f"{self.method} {self.path} had no text body"
        return json.loads(self.body)

    @property
    def json_lines(self) -> list[Any]:
        """The body of a commit, parsed line by line."""
        assert self.body is not None, f"{self.method} {self.path} had no text body"
        return [json.loads(line) for line in self.body.splitlines()]
