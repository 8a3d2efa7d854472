"""
Processes of a job that start at once: forks of a server that has imported the libraries.

A process of its own imports for 10 CPU seconds before it does anything. The server is itself a fork, of the process of the
tests as it was when all tests were collected and none had run: so it has what they import, and nothing else. The forks
share the seed of `hash()`, too, so at least one test of two processes has to go through `accelerate launch`
(tests/invariants/test_trajectories.py).
"""

import gc
import importlib
import io
import multiprocessing
import os
import runpy
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parents[1]
FORK = multiprocessing.get_context("fork")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Processes:
    """A job's processes. Lives in the server, of which they are forks."""

    def __init__(self, environments: Sequence[Mapping[str, str]], *what: Any) -> None:
        importlib.import_module("tests.preloaded")  # all of it is there already, but where few files were collected
        self.processes = [FORK.Process(target=_run, args=(one, *what), daemon=True) for one in environments]
        for process in self.processes:
            process.start()

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def running(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def kill(self) -> list[int | None]:
        for process in self.processes:
            process.kill()
        return self.wait()

    def terminate(self, timeout_s: float) -> list[int | None]:
        for process in self.processes:
            process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 240) -> list[int | None]:
        deadline = time.monotonic() + timeout_s
        running = {process.sentinel: process for process in self.processes}
        while running:
            ended = [running.pop(one) for one in connection.wait(list(running), max(0.0, deadline - time.monotonic()))]
            for process in ended:
                process.join()
            if not ended or any(process.exitcode for process in ended):
                for process in running.values():
                    process.kill()
        return [process.exitcode for process in self.processes]


class _Server(BaseManager):
    """Forks what it is asked to."""

    Processes: Callable[..., _Processes]


_Server.register("Processes", _Processes)
_server = _Server(ctx=FORK)


def _leave_with_the_tests() -> None:
    """Whatever ends the process of the tests ends the server and its forks."""

    def wait() -> None:
        tests = multiprocessing.parent_process()
        assert tests is not None
        tests.join()
        for process in multiprocessing.active_children():
            process.kill()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def start_server() -> None:
    """Forks the server: once, when everything is collected and nothing has run."""
    gc.freeze()  # a search for garbage would write into each page of memory that is shared
    _server.start(_leave_with_the_tests)


class Job:
    """`function(*args, **options)` in new processes, which find one another as those of `accelerate launch` do."""

    def __init__(
        self, log: Path, function: Callable[..., object], *args: Any, num_processes: int = 1, **options: Any
    ) -> None:
        self.log = log
        environments = [dict(os.environ)]
        if num_processes > 1:
            world = {**os.environ, "WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes)}
            world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            environments = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]
        log.touch()
        self._processes = _server.Processes(environments, log, function, args, options)

    @property
    def output(self) -> str:
        """What all of them printed so far."""
        return self.log.read_text()

    def pids(self) -> list[int]:
        return self._processes.pids()

    def running(self) -> bool:
        return self._processes.running()

    def kill(self) -> list[int | None]:
        """kill -9; returns the exit codes."""
        return self._processes.kill()

    def terminate(self, timeout_s: float = 60) -> list[int | None]:
        """Asks them to end (SIGTERM), kills who is still there after that time, and returns the exit codes."""
        return self._processes.terminate(timeout_s)

    def wait(self, timeout_s: float = 240) -> list[int | None]:
        """The exit codes; the first that fails, or the end of the time, ends the others."""
        return self._processes.wait(timeout_s)

    def finish(self, timeout_s: float = 240) -> str:
        """The output of a job that must succeed."""
        codes = self.wait(timeout_s)
        assert codes == [0] * len(codes), f"{codes}\n{self.output}"
        return self.output


def recipe(name: str, **settings: object) -> None:
    """The target of a [`Job`]: `python recipes/NAME.py` with options, of which a list is several words."""
    words = [
        word
        for option, value in settings.items()
        for word in (f"--{option}", *map(str, value if isinstance(value, list) else [value]))
    ]
    sys.argv = [str(ROOT / "recipes" / f"{name}.py"), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _run(
    environment: Mapping[str, str], log: Path, function: Callable[..., object], args: tuple, options: dict[str, Any]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # The tests' own were pytest's. pytest-xdist's `python -u` is inherited: a print of two words is written in three
    # pieces, between another process's.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True, write_through=False)
    os.chdir(ROOT)
    function(*args, **options)
