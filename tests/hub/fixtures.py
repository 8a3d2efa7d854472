"""Fixtures `local_hub` (one server a session) and `hub` (the same, clean of faults and records for each test)."""

import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.hub.control import CONTROL_PREFIX, REQUEST_LOG, Fault, RecordedRequest
from tests.hub.environment import reserved_port


if TYPE_CHECKING:
    from huggingface_hub import HfApi

START_TIMEOUT_S = 60


class LocalHub:
    """
    A Hub in a process of its own over `root`, which outlives the process: stop or kill it, start it, and go on.

    `token` belongs to the user `dev` and may write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = reserved_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.token = "hf_dev_write"
        self._process: subprocess.Popen[bytes] | None = None
        self._seen_bytes = 0

    # Process

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server on what `root` holds and wait until it answers."""
        assert not self.running, "the local Hub runs already"
        command = [sys.executable, "-m", "tests.hub.server", "--root", str(self.root), "--port", str(self.port)]
        with open(self.root / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"the local Hub did not start:\n{(self.root / 'server.log').read_text()[-3000:]}")
            time.sleep(0.05)
        self.add_user("dev", token=self.token)

    def _answers(self) -> bool:
        try:
            self._control("GET", "faults")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End the server as a deployment would (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL): nothing is finished, nothing is flushed."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(timeout=30)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    # Users and clients

    def add_user(self, name: str, *, role: str = "write", orgs: Sequence[str] = (), token: str | None = None) -> str:
        """The token of a user, who is new or known; `role` is `"write"` or `"read"`."""
        token = token or f"hf_{name}_{role}"
        self._control("PUT", "users", {"name": name, "role": role, "orgs": list(orgs), "token": token})
        return token

    def api(self, token: str | bool | None = None) -> "HfApi":
        """A client for `token`: None is the user dev, False is nobody."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token if token is None else token)

    def read(self, repo_id: str, path: str, *, revision: str = "main", repo_type: str = "model") -> bytes:
        """A file as a client gets it that has nothing in its cache; the client is the user dev."""
        with tempfile.TemporaryDirectory() as folder:
            downloaded = self.api().hf_hub_download(
                repo_id, path, revision=revision, repo_type=repo_type, cache_dir=folder
            )
            return Path(downloaded).read_bytes()

    # Failures on demand

    def fail_next(self, method: str, path: str, *, status: int = 500, times: int | None = 1) -> None:
        """Answer the next `times` matching requests (None: all, until cleared) with `status`; nothing is done."""
        self._add_fault(Fault("status", method, path, times, status=status))

    def slow_next(self, method: str, path: str, *, delay_s: float, times: int | None = 1) -> None:
        """Serve the next matching requests `delay_s` seconds late."""
        self._add_fault(Fault("slow", method, path, times, delay_s=delay_s))

    def cut_next(self, method: str, path: str, *, after_bytes: int, times: int | None = 1) -> None:
        """Cut the connection in the body: the request's of POST, PUT, PATCH, DELETE; the response's of GET."""
        self._add_fault(Fault("cut", method, path, times, after_bytes=after_bytes))

    def lose_next_answer(self, method: str, path: str, *, times: int | None = 1) -> None:
        """Do what the next matching requests ask, then cut the connection: the client cannot know that it is done."""
        self._add_fault(Fault("lose", method, path, times))

    def clear_faults(self) -> None:
        """Forget all faults that still wait."""
        self._control("DELETE", "faults")

    def waiting_faults(self) -> list[Fault]:
        """Faults that have not met all their requests yet."""
        return [Fault(**fault) for fault in self._control("GET", "faults")]

    def _add_fault(self, fault: Fault) -> None:
        re.compile(fault.method)
        re.compile(fault.path)
        self._control("PUT", "faults", asdict(fault))

    def _control(self, method: str, name: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, CONTROL_PREFIX + name, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {name}: {response.status} {answer.decode()}")
        return json.loads(answer)

    # Records

    def requests(self, method: str = ".*", path: str = "") -> list[RecordedRequest]:
        """Requests since the test began (or `forget_requests`), oldest first, chosen as for `fail_next`."""
        log = self.root / REQUEST_LOG
        if not log.exists():
            return []
        with open(log, "rb") as file:
            file.seek(self._seen_bytes)
            records = [RecordedRequest(**json.loads(line)) for line in file]
        return [record for record in records if re.fullmatch(method, record.method) and re.search(path, record.path)]

    def forget_requests(self) -> None:
        """Let `requests()` begin here."""
        log = self.root / REQUEST_LOG
        self._seen_bytes = log.stat().st_size if log.exists() else 0


@pytest.fixture(scope="session")
def local_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """The session's Hub. In a test use `hub`; this one is for fixtures that outlive a test."""
    from huggingface_hub import constants

    hub = LocalHub(tmp_path_factory.mktemp("local_hub"))
    if constants.ENDPOINT != hub.endpoint:
        raise RuntimeError(
            f"huggingface_hub talks to {constants.ENDPOINT}, not to {hub.endpoint}: it was imported before "
            "use_local_hub(); call that on top of tests/conftest.py."
        )
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture
def hub(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """
    The session's Hub, running, without faults and records of earlier tests; clients without a token of their own are
    the user dev. Repos of earlier tests are still there, so use names of your own.
    """
    monkeypatch.setenv("HF_TOKEN", local_hub.token)
    if not local_hub.running:
        local_hub.start()
    local_hub.clear_faults()
    local_hub.forget_requests()
    yield local_hub
    if local_hub.running:
        local_hub.clear_faults()
