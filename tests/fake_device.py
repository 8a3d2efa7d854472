"""A device without a device: tensors of device "meta" that hold nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary


#: What stands for a GPU. torch's autograd runs on it, where "cuda" asks for a driver.
DEVICE = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
#: What makes a tensor of nothing but numbers.
MAKERS = (aten.arange, aten.eye, aten.full, aten.linspace, aten.ones, aten.scalar_tensor, aten.zeros)


class Answers(TorchDispatchMode):
    """
    Remembers beside a tensor on `DEVICE` what it would hold, where it was made of numbers or brought there from the CPU and
    met nothing unknown: positions and windows are then those of a run.

    What is not known is answered where code asks for it: true, 1.0 or 0 for a value, all places for those that are true,
    equal parts for a split by such values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func.namespace != "aten" or not all(self.is_held(tensor) for tensor in tensors):
            return self._unknown(func, args, kwargs)
        if not tensors and func._overloadpacket not in MAKERS:
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            values = func(*tree_map(self._on_cpu, args), **tree_map(self._on_cpu, kwargs))
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(values)):
            return values
        if kwargs.get("device") != DEVICE and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return values
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            out = tree_map(lambda value: torch.empty_like(value, device=DEVICE), values)
        for fake, value in zip(tree_leaves(out), tree_leaves(values), strict=True):
            if isinstance(fake, FakeTensor):
                self.held[fake] = value
        return out

    def is_held(self, tensor: torch.Tensor) -> bool:
        return tensor in self.held if isinstance(tensor, FakeTensor) else tensor.device == CPU

    def _on_cpu(self, leaf):
        if isinstance(leaf, torch.Tensor):
            return self.held.get(leaf, leaf)
        return CPU if leaf == DEVICE else leaf

    def _unknown(self, func, args, kwargs):
        packet = func._overloadpacket
        if any(isinstance(one, FakeTensor) for one in args):
            if func._schema.is_mutable:
                self._forget(args[0])
            if packet is aten._local_scalar_dense:
                return True if args[0].dtype == torch.bool else 1.0 if args[0].dtype.is_floating_point else 0
            if packet is aten._unique2:  # as if all were equal
                one = args[0].flatten()
                return one[:1], torch.zeros_like(one, dtype=torch.long), torch.ones_like(one[:1], dtype=torch.long)
            if packet is aten.split_with_sizes and not any(args[1]):
                parts, dim = len(args[1]), args[2] if len(args) > 2 else 0
                return func(args[0], [args[0].shape[dim] // parts] * parts, dim)
            if packet is aten.nonzero:
                return torch.empty((args[0].numel(), args[0].dim()), dtype=torch.long, device=args[0].device)
            if packet in (aten.index, aten.index_put, aten.index_put_):
                args = (args[0], [place for index in args[1] for place in self._places(index)], *args[2:])
        return func(*args, **kwargs)

    def _forget(self, tensor):
        """Of `tensor`, and of those that share its memory."""
        place = tensor.untyped_storage()._cdata
        for one in [one for one in self.held if one.untyped_storage()._cdata == place]:
            del self.held[one]

    def _places(self, index):
        """A mask as the places that are true; all, where it is not known."""
        if index is None or index.dtype != torch.bool:
            return [index]
        with unset_fake_temporarily():
            mask = self.held.get(index, index if self.is_held(index) else torch.ones(index.shape, dtype=torch.bool))
            number = int(mask.sum())
        return [torch.empty(number, dtype=torch.long, device=index.device) for _ in range(index.dim())]


@contextmanager
def fake_device() -> Iterator[Answers]:
    """The body computes on tensors that hold nothing, and fails at the line that mixes `DEVICE` with the CPU."""
    made = torch.tensor  # which does not look at its numbers where the device is "meta"

    def brought(data, *, device=None, **kwargs):
        numbers = tree_map(lambda one: one.tolist() if isinstance(one, torch.Tensor) else one, data)
        return made(numbers, **kwargs).to(device or CPU)

    with patch.object(torch, "tensor", brought), FakeTensorMode(allow_non_fake_inputs=True), Answers() as answers:
        yield answers
