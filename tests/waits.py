"""What makes Python wait for a device, seen without one."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


aten = torch.ops.aten
# Each reads a value, or makes a shape that depends on one.
_WAITING = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2)


class _Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def note(self) -> None:
        frames = [f for f in traceback.extract_stack() if "lift_trl" in f.filename or "tests" in f.filename]
        self.found.append(" < ".join(f"{f.filename}:{f.lineno}" for f in frames[-3:-1]))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func._overloadpacket
        by_mask = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            place is not None and place.dtype == torch.bool for place in args[1]
        )
        if packet in _WAITING or by_mask:
            self.note()
        return func(*args, **(kwargs or {}))


@contextmanager
def host_waits() -> Iterator[list[str]]:
    """Where the body reads a tensor's values: `file:line` of each time."""
    mode = _Waits()

    def noted(name):
        original = getattr(Tensor, name)

        def method(self, *args, **kwargs):
            mode.note()
            return original(self, *args, **kwargs)

        return patch.object(Tensor, name, method)

    with noted("tolist"), noted("numpy"), mode:
        yield mode.found
