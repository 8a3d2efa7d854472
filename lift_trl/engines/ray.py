"""Units of work as tasks of Ray's actors. Placing, restarting and asking again is Ray's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import ray
import torch
from accelerate.logging import get_logger

from ..runtime import process_state
from ..store.sharding import chunks
from . import Append, Unit, Work


logger = get_logger(__name__)

# A task is some units in a row, so that clips are decoded ahead of the device and written behind it; so few that workers
# that come late find some, and that little is made again where a worker dies.
_UNITS_A_TASK = 8
_TASKS_A_WORKER = 4
# A task that has ended so many workers is at fault itself.
_TRIES = 10


class RayWorkers:
    """
    Actors on the machines of a Ray cluster: one a GPU where it has some, else one a CPU core.

    They may die and come at any time. A worker that dies is started anew, where there is room, and its task is done again;
    one that finds no room until later begins later. Rows are appended by the process that calls `run`, so an item has one.

    Args:
        num_workers: at most so many; by default as many as the cluster has room for at the start.

    Raises:
        ValueError: if `num_workers` < 1.
    """

    def __init__(self, num_workers: int | None = None) -> None:
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers={num_workers}; give 1 or more.")
        if not ray.is_initialized():
            ray.init()  # the cluster of RAY_ADDRESS or of this machine, else one of this machine's cores and GPUs
        resources = ray.cluster_resources()
        kind = "GPU" if resources.get("GPU") else "CPU"
        self.device_type = "cuda" if kind == "GPU" else "cpu"
        self.num_workers = num_workers or max(1, int(resources[kind]))
        self.rank, self.finishes = 0, True
        self._actor: Any = ray.remote(
            num_cpus=1, num_gpus=1 if kind == "GPU" else 0, max_restarts=-1, max_task_retries=_TRIES
        )(_Worker)

    def part(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """As `Workers.part`: all of them."""
        return units

    def run(self, load: Callable[[torch.device], Work[Unit]], units: Sequence[Unit], append: Append) -> None:
        """As `Workers.run`. What `load` and the work raise is raised here; rows that were appended stay."""
        size = min(_UNITS_A_TASK, -(-len(units) // (_TASKS_A_WORKER * self.num_workers)))
        tasks = chunks(units, size) if units else []
        logger.info("%d tasks for at most %d workers", len(tasks), self.num_workers)
        for number, rows in enumerate(self._results(load, tasks), start=1):
            for row in rows:
                append(row)
            logger.info("%d of %d tasks are done", number, len(tasks))

    def _results(
        self, load: Callable[[torch.device], Work[Unit]], tasks: Sequence[Sequence[Unit]]
    ) -> Iterator[list[Mapping[str, Any]]]:
        """The rows of each task, as they come."""
        workers = [self._actor.remote(load) for _ in range(min(self.num_workers, len(tasks)))]
        # Ray's ActorPool would give tasks to actors for which no machine has room, and wait for them.
        running = {worker.ready.remote(): worker for worker in workers}
        del workers
        todo, left = iter(tasks), len(tasks)
        while left:
            (answer,), _ = ray.wait(list(running))
            worker, rows = running.pop(answer), ray.get(answer)
            if (task := next(todo, None)) is not None:
                running[worker.run.remote(task)] = worker
            del worker  # the last reference to one without a task: Ray ends it, and another may have its place
            if rows is not None:
                left -= 1
                yield rows


class _Worker:
    """Lives in a process of Ray's. What it loads stays for all of its tasks."""

    def __init__(self, load: Callable[[torch.device], Work[Any]]) -> None:
        self._load = load

    @cached_property
    def _work(self) -> Work[Any]:
        # Not in the constructor: Ray would show what is raised there as the death of the actor.
        return self._load(process_state().device)

    def ready(self) -> None:
        """Answers once Ray has found room for this worker."""

    def run(self, units: Sequence[Any]) -> list[Mapping[str, Any]]:
        """The rows of `units`."""
        rows: list[Mapping[str, Any]] = []
        self._work(units, rows.append)
        return rows
