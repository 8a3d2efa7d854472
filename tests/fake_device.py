"""A device without a device: tensors of device "meta" that hold nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


#: What stands for a GPU. torch's autograd runs on it, where "cuda" asks for a driver.
DEVICE = torch.device("meta")
aten = torch.ops.aten


class Answers(TorchDispatchMode):
    """
    Gives true, 1.0 or 0 where code asks a tensor for a value, all places where it asks which are true, and equal parts where
    it splits by such values.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func._overloadpacket
        if any(isinstance(one, FakeTensor) for one in args):
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
            if packet is aten.index and any(i is not None and i.dtype == torch.bool for i in args[1]):
                (mask,) = args[1]  # as if all were true
                return args[0].reshape(mask.numel(), *args[0].shape[mask.dim() :])
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_device() -> Iterator[None]:
    """The body computes on tensors that hold nothing, and fails at the line that mixes `DEVICE` with the CPU."""
    with FakeTensorMode(allow_non_fake_inputs=True), Answers():
        yield
