"""Who works a plan off: the processes that `accelerate launch` started, or workers that Ray places (`engines.ray`)."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from ..runtime import release_memory
from ..store.sharding import share


Unit = TypeVar("Unit")

#: Takes one row of what is whole.
Append = Callable[[Mapping[str, Any]], None]
#: Works off some units and gives a row of each item that is whole to `Append`.
Work = Callable[[Sequence[Unit], Append], None]


class Workers(Protocol):
    """
    Processes that share units of work out among them.

    Attributes:
        device_type: what they compute on: `"cpu"`, or the accelerator's.
    """

    device_type: str

    def run(self, load: Callable[[torch.device], Work[Unit]], units: Sequence[Unit], append: Append) -> None:
        """
        Works off `units`, each once, and waits for all of them.

        Args:
            load: makes the work in each process that has a part in it, on that process's device; brings the models.
            append: gets each row, in a process of which the manifest is.
        """


class Processes:
    """The processes of the launcher: every one of them calls `run` with the same units, and takes every n-th."""

    def __init__(self, state: PartialState) -> None:
        self.state = state
        self.device_type = state.device.type

    def run(self, load: Callable[[torch.device], Work[Unit]], units: Sequence[Unit], append: Append) -> None:
        """As `Workers.run`."""
        # Every process must have read what is done before any of them adds to it.
        self.state.wait_for_everyone()
        if mine := share(units, rank=self.state.process_index, world_size=self.state.num_processes):
            load(self.state.device)(mine, append)
            release_memory()
        self.state.wait_for_everyone()


def find_workers(engine: str, num_workers: int | None, state: PartialState) -> Workers:
    """
    The workers that a command line asks for.

    Args:
        engine: `accelerate` or `ray`.
        num_workers: of Ray, at most.

    Raises:
        ValueError: if there is no such engine, Ray is not installed, or what starts the processes is not the engine's.
    """
    if engine not in ("accelerate", "ray"):
        raise ValueError(f"engine={engine!r}; give accelerate or ray.")
    if engine == "accelerate":
        if num_workers is not None:
            raise ValueError("num_workers is of engine ray; for more processes: accelerate launch --num_processes.")
        return Processes(state)
    if find_spec("ray") is None:
        raise ValueError("engine='ray' needs Ray: pip install 'lift-trl[ray]'.")
    if state.distributed_type is not DistributedType.NO:
        raise ValueError("engine='ray' starts its own workers: run the recipe with python, or leave engine out.")
    from .ray import RayWorkers

    return RayWorkers(num_workers)
