"""A Space's app.py in a process of its own, as it runs on the Hub, and a client that speaks to it as its page does."""

import json
import os
import re
import runpy
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from lift_trl.ui.identity import COOKIE
from tests.processes import ROOT, Job, free_port


START_TIMEOUT_S = 240
SECRETS = {"SALT": "a-very-secret-salt", "HF_TOKEN": "hf_dev_write"}


def run_app(name: str, folder: Path, variables: Mapping[str, str]) -> None:
    """The target of a [`Job`]: `python spaces/NAME/app.py`. gradio reads its variables when a page is launched."""
    os.environ.update(variables)
    os.chdir(folder)
    runpy.run_path(str(ROOT / "spaces" / name / "app.py"), run_name="__main__")


class Space:
    """`spaces/<name>/app.py` with these variables; `data_dir` outlives it."""

    def __init__(self, name: str, data_dir: Path, **variables: str) -> None:
        self.name, self.data_dir, self.variables = name, data_dir, variables
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.job: Job | None = None

    def start(self, *, wait: bool = True) -> "Space":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        own = {"DATA_DIR": str(self.data_dir), "GRADIO_SERVER_PORT": str(self.port), "GRADIO_SERVER_NAME": "127.0.0.1"}
        self.job = Job(
            self.data_dir / "console.txt", run_app, self.name, self.data_dir, {**SECRETS, **own, **self.variables}
        )
        return self.wait() if wait else self

    def wait(self) -> "Space":
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            assert self.job is not None and self.job.running(), self.console
            assert time.monotonic() < deadline, f"{self.name} did not start:\n{self.console}"
            time.sleep(0.1)
        return self

    def answers(self) -> bool:
        try:
            return httpx.get(self.url, timeout=5, verify=False).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def console(self) -> str:
        return (self.data_dir / "console.txt").read_text(errors="replace")

    @property
    def owner_url(self) -> str:
        """The owner's page: the console has said its address."""
        return f"{self.url}/?owner={re.findall(r'[?]owner=([0-9a-f]{32})', self.console)[-1]}"

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.job is not None:
            codes = self.job.kill() if how == signal.SIGKILL else self.job.terminate()
            assert codes == [-signal.SIGKILL if how == signal.SIGKILL else 0], self.console
            self.job = None

    def rows(self) -> list[dict[str, Any]]:
        """What is on the Space's disk."""
        files = sorted((self.data_dir / "votes").glob("*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]


class Visitor:
    """Somebody's browser without the browser: a cookie, a page, and the calls that the page makes."""

    def __init__(self, space: Space, *, cookie: str | None = None, query: str = "") -> None:
        self.url = space.url
        # No TLS here, and 50 visitors that each load the certificates keep a small machine busy.
        self.client = httpx.Client(timeout=60, verify=False, cookies={COOKIE: cookie} if cookie else None)
        self.session = os.urandom(6).hex()
        self.query = query
        self.page = self.client.get(f"{self.url}/{query}").text
        self.config = self.client.get(f"{self.url}/config").json()

    def event(self, name: str) -> int:
        """The number of the page's event whose function is called `name`."""
        found = [d["id"] for d in self.config["dependencies"] if d["api_name"] == name]
        assert len(found) == 1, [d["api_name"] for d in self.config["dependencies"]]
        return int(found[0])

    def call(self, name: str, *data: Any, **headers: str) -> list[Any]:
        """
        The values that the page would show.

        Raises: RuntimeError with the page's message, or httpx.HTTPError.
        """
        body = {"data": list(data), "fn_index": self.event(name), "session_hash": self.session, "trigger_id": None}
        joined = self.client.post(f"{self.url}/gradio_api/queue/join{self.query}", json=body, headers=headers)
        joined.raise_for_status()
        with self.client.stream("GET", f"{self.url}/gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(str(message["output"].get("error")))
                    return list(message["output"]["data"])
        raise httpx.RemoteProtocolError("the answer never came")
