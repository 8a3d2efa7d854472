"""What the tensors of a real model take."""

import torch
from torchao.utils import TorchAOBaseTensor


def is_in_8_bits(weight: torch.Tensor) -> bool:
    return isinstance(weight, TorchAOBaseTensor)


def held_bytes(model: torch.nn.Module) -> int:
    """In blocks of 512 bytes, the parts of quantised tensors by themselves."""
    tensors: list[torch.Tensor] = []
    for weight in (*model.parameters(), *model.buffers()):
        parts = weight.__tensor_flatten__()[0] if is_in_8_bits(weight) else ()
        tensors += [getattr(weight, part) for part in parts] or [weight]
    return sum(-(-tensor.nbytes // 512) * 512 for tensor in tensors)
