"""Who works a plan off: the processes that `accelerate launch` started, or workers that Ray places (`engines.ray`)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from ..documented import documented
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
        rank: the number of this process among all that may write to one folder now.
        finishes: whether all of the work is done when theirs is.
    """

    device_type: str
    rank: int
    finishes: bool

    def part(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """What of a whole plan is theirs."""

    def run(self, load: Callable[[torch.device], Work[Unit]], units: Sequence[Unit], append: Append) -> None:
        """
        Works off `units`, each once, and waits for all of them.

        Args:
            load: makes the work in each process that has a part in it, on that process's device; brings the models.
            append: gets each row, in a process of which the manifest is.
        """


class Shard(NamedTuple):
    """The `number`-th (from 0) of `of` parts of a plan, for jobs that know nothing of one another."""

    number: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """
        >>> Shard.parse("3/32")
        Shard(number=3, of=32)

        Raises:
            ValueError: if it is not of this form, or there is no such part.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not int(found[1]) < int(found[2]):
            raise ValueError(f"shard={text!r}; give NUMBER/OF with NUMBER from 0 to OF - 1, such as 3/32.")
        return cls(int(found[1]), int(found[2]))


class Processes:
    """
    The processes of the launcher: every one of them calls `run` with the same units, and takes every n-th.

    Args:
        shard: of the plan, where other jobs work at the others. None of them finishes the artefact: a run of the whole does.
    """

    def __init__(self, state: PartialState, shard: Shard | None = None) -> None:
        self.state, self.shard = state, shard or Shard()
        self.device_type = state.device.type
        self.rank = self.shard.number * state.num_processes + state.process_index
        self.finishes = self.shard.of == 1

    def part(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """As `Workers.part`."""
        return share(units, rank=self.shard.number, world_size=self.shard.of)

    def run(self, load: Callable[[torch.device], Work[Unit]], units: Sequence[Unit], append: Append) -> None:
        """As `Workers.run`."""
        # Every process must have read what is done before any of them adds to it.
        self.state.wait_for_everyone()
        if mine := share(units, rank=self.state.process_index, world_size=self.state.num_processes):
            load(self.state.device)(mine, append)
            release_memory()
        self.state.wait_for_everyone()


@documented
@dataclass(kw_only=True)
class EngineArguments:
    """
    Who works a stage off, as a command line says it.

    Args:
        engine (`str`, *optional*, defaults to `"accelerate"`):
            What shares the work out: accelerate launch, or ray (start the recipe by python).
        num_workers (`int` or `None`, *optional*, defaults to `None`):
            Workers of Ray, at most; as many as there are GPUs (or CPU cores) by default.
        shard (`str` or `None`, *optional*, defaults to `None`):
            Part of the work for one of many jobs, as 3/32; a run without it finishes the whole.
    """

    engine: Literal["accelerate", "ray"] = "accelerate"
    num_workers: int | None = None
    shard: str | None = None

    def workers(self, state: PartialState) -> Workers:
        """
        Those that are asked for.

        Raises:
            ValueError: if there is no such engine, Ray is not installed, or what starts the processes is not the engine's.
        """
        if self.engine == "accelerate":
            if self.num_workers is not None:
                raise ValueError(
                    "num_workers is of engine ray; for more processes: accelerate launch --num_processes."
                )
            return Processes(state, None if self.shard is None else Shard.parse(self.shard))
        if self.engine != "ray":
            raise ValueError(f"engine={self.engine!r}; give accelerate or ray.")
        if self.shard is not None:
            raise ValueError("shard is of jobs without Ray, which shares the work out itself: leave it out.")
        if find_spec("ray") is None:
            raise ValueError("engine='ray' needs Ray: pip install 'lift-trl[ray]'.")
        if state.distributed_type is not DistributedType.NO:
            raise ValueError("engine='ray' starts its own workers: run the recipe with python, or leave engine out.")
        from .ray import RayWorkers

        return RayWorkers(self.num_workers)

    def ending(self, whole: str) -> str:
        """The last words of a run: `whole`, or what a shard leaves to be done."""
        if self.shard is None:
            return whole
        return f"Shard {self.shard} is done. The same command without --shard finishes the whole."
