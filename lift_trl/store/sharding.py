"""Pending work to processes, stable under a changed number of processes."""

from collections.abc import Collection, Sequence
from typing import TypeVar


T = TypeVar("T")


def pending(ids: Sequence[str], done: Collection[str]) -> list[str]:
    """`ids` that are not in `done`, in their order."""
    finished = set(done)
    return [unit for unit in ids if unit not in finished]


def share(units: Sequence[T], *, rank: int, world_size: int) -> list[T]:
    """
    Every `world_size`-th unit from `rank` on: this process's part.

    Called on the *pending* units, so that a run begun by 8 processes can be finished by 3.

    Raises:
        ValueError: if `rank` is not in [0, world_size).
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank} is not in [0, {world_size}).")
    return list(units[rank::world_size])


def chunks(units: Sequence[T], size: int) -> list[list[T]]:
    """
    `units` cut into runs of `size` (the last may be shorter).

    Raises:
        ValueError: if `size` < 1.
    """
    if size < 1:
        raise ValueError(f"chunk size {size} is less than 1.")
    return [list(units[start : start + size]) for start in range(0, len(units), size)]
