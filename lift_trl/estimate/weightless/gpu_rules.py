"""What a GPU does otherwise than a CPU, where tensors hold nothing: fused attention, and autocast's list of float32."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from .attention import attention


# Private in torch 2.14: _subclasses, _pytree, _apply. When they go, `test_autocast_has_the_gpu_s_list` fails.
# What autocast runs in float32 on a GPU but not on a CPU. Source: aten/src/ATen/autocast_mode.h.
_FLOAT32_ON_GPU = {
    F: ("layer_norm", "group_norm", "rms_norm", "softmax", "log_softmax", "mse_loss", "softplus", "cosine_similarity"),
    torch: ("exp", "log", "rsqrt", "pow", "sum", "prod", "cumsum", "norm", "softmax"),
    Tensor: ("exp", "log", "rsqrt", "pow", "sum", "prod", "cumsum", "norm", "softmax", "log_softmax"),
}


@contextmanager
def gpu_rules() -> Iterator[None]:
    """
    What a GPU does otherwise than a CPU: fused attention, and autocast's list of float32 operations.

    Names are replaced for the while: a mode of torch.overrides would not hold for what checkpointing computes again.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", attention))
        for name in ("tolist", "numpy"):
            stack.enter_context(patch.object(Tensor, name, _as_if_ones(getattr(Tensor, name))))
        stack.enter_context(patch.object(Tensor, "split", _whole(Tensor.split)))
        for owner, names in _FLOAT32_ON_GPU.items():
            for name in names:
                stack.enter_context(patch.object(owner, name, _float32_in_autocast(getattr(owner, name))))
        yield


def _float32_in_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_in_float32, (args, kwargs))
        return function(*args, **kwargs)

    return wrapped


def _as_if_ones(function: Callable[..., Any]) -> Callable[..., Any]:
    """`Tensor.tolist` and `Tensor.numpy`, of ones where a tensor holds nothing."""

    @wraps(function)
    def wrapped(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(tensor, FakeTensor):
            return function(tensor, *args, **kwargs)
        ones = np.ones(tuple(tensor.shape), dtype=_numpy_dtype(tensor.dtype))
        return ones.tolist() if function.__name__ == "tolist" else ones

    return wrapped


def _whole(function: Callable[..., Any]) -> Callable[..., Any]:
    """`Tensor.split` into equal parts where the sizes are none of the tensor's: they were read where nothing is held."""

    @wraps(function)
    def wrapped(tensor: Tensor, sizes: Any, dim: int = 0) -> Any:
        unknown = isinstance(sizes, list | tuple) and len(sizes) > 0 and sum(sizes) != tensor.shape[dim]
        return function(tensor, -(-tensor.shape[dim] // len(sizes)) if unknown else sizes, dim)

    return wrapped


def _apply(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` by `.data`: torch (2.14) would swap parameters that hold nothing, which weak references forbid."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for parameter in module.parameters(recurse=False):
        with torch.no_grad():
            applied = fn(parameter)
        if applied is not parameter:
            parameter.data = applied
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, fn(buffer))
    return module


def _in_float32(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16) else leaf


def _numpy_dtype(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point:
        return np.float16 if dtype.itemsize == 2 else np.float32 if dtype.itemsize == 4 else np.float64
    return np.dtype(str(dtype).removeprefix("torch."))
