"""A meter for tensors that hold nothing: memory, arithmetic and traffic of real code, with no weights and no GPU.

Code runs under torch's FakeTensorMode: weights and noise have shapes and types, but no values. What is known all the same
(data that Python or a file gave, integers that are made from nothing) is computed in earnest as long as it meets no such
tensor, since control flow hangs on it: token ids, grids, masks of rows, rewards.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any
from unittest.mock import patch
from weakref import finalize

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from .attention import attention


# Private in torch 2.14: _subclasses, _python_dispatch, _pytree, _C, _current_graph_task_id, _schema, _cdata, _apply. When
# they go, `test_backward_is_a_phase` fails.
aten = torch.ops.aten
# The caching allocator of a GPU hands out blocks of this many bytes.
_BLOCK = 512
# Inside a run of the autograd engine this is not -1.
_graph_task: Callable[[], int] = torch._C._current_graph_task_id
# Attention of a CPU, which torch's table leaves out.
_FLOPS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
_ATTENTION = "scaled_dot_product"
_CONVOLUTION = "convolution"
# What autocast runs in float32 on a GPU but not on a CPU. Source: aten/src/ATen/autocast_mode.h.
_FLOAT32_ON_GPU = {
    F: ("layer_norm", "group_norm", "rms_norm", "softmax", "log_softmax", "mse_loss", "softplus", "cosine_similarity"),
    torch: ("exp", "log", "rsqrt", "pow", "sum", "prod", "cumsum", "norm", "softmax"),
    Tensor: ("exp", "log", "rsqrt", "pow", "sum", "prod", "cumsum", "norm", "softmax", "log_softmax"),
}


@dataclass(frozen=True)
class Count:
    """
    What a piece of code took.

    Attributes:
        attention_flops, matmul_flops, conv_flops: floating-point operations, 2 a multiply-add.
        traffic_bytes: read and written by all other operations; products are bound by arithmetic.
        peaks: for each phase of the code, bytes in use at its highest point, by what they are.
    """

    attention_flops: float = 0.0
    matmul_flops: float = 0.0
    conv_flops: float = 0.0
    traffic_bytes: float = 0.0
    peaks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def flops(self) -> float:
        """Floating-point operations of all kinds."""
        return self.attention_flops + self.matmul_flops + self.conv_flops

    @property
    def peak(self) -> Mapping[str, float]:
        """Bytes by what they are, at the highest point of all phases."""
        return max(self.peaks.values(), key=lambda kinds: sum(kinds.values()), default={})

    @property
    def peak_bytes(self) -> float:
        """Bytes in use at the highest point."""
        return sum(self.peak.values())

    def scaled(self, factor: float) -> "Count":
        """The work of `factor` such runs, one after another: the peak stays."""
        return Count(**{name: factor * getattr(self, name) for name in WORK}, peaks=self.peaks)


#: The fields of a `Count` that add up.
WORK = tuple(one.name for one in fields(Count) if one.name != "peaks")


def linear(terms: Sequence[tuple[float, Count]]) -> Count:
    """The weighted sum of counts of runs that are alike in their phases."""
    work = {name: sum(factor * getattr(count, name) for factor, count in terms) for name in WORK}
    names = dict.fromkeys(name for _, count in terms for name in count.peaks)
    peaks: dict[str, dict[str, float]] = {}
    for name in names:
        kinds = dict.fromkeys(kind for _, count in terms for kind in count.peaks.get(name, {}))
        peaks[name] = {kind: sum(f * c.peaks.get(name, {}).get(kind, 0.0) for f, c in terms) for kind in kinds}
    return Count(**work, peaks=peaks)


class Meter(TorchDispatchMode):
    """
    Counts what passes while `metering` is on.

    Attributes:
        kind: what new memory is taken for, as it will stand in `Count.peaks`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kind = "activations"
        self._phase = "run"
        self._in_use: defaultdict[str, float] = defaultdict(float)
        self._total = 0.0
        self._highest: dict[str, float] = {}
        self._peaks: dict[str, dict[str, float]] = {}
        self._work: defaultdict[str, float] = defaultdict(float)
        self._known: dict[int, Any] = {}

    @contextmanager
    def taking(self, kind: str) -> Iterator[None]:
        """Memory that is taken inside is counted as `kind`."""
        before, self.kind = self.kind, kind
        yield
        self.kind = before

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """What is in use only inside is in the host's memory: none of it is in a peak."""
        phase, self._phase = self._phase, "host"
        yield
        self._highest.pop("host", None)
        self._peaks.pop("host", None)
        self.phase(phase)

    def phase(self, name: str) -> None:
        """From here on peaks belong to this phase; memory in use stays in use."""
        self._phase = name
        self._look()

    def count(self) -> Count:
        """What was counted since the meter was made."""
        return Count(**self._work, peaks={name: dict(kinds) for name, kinds in self._peaks.items()})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_fake = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        if torch.is_inference_mode_enabled() and func.overloadpacket not in _FLOPS:
            with self:  # inference mode keeps compound operations whole
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        if not is_fake and (tensors or _is_known(func, args, kwargs)):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._track(leaf)
            return out
        if is_fake and (answer := _unknown(func.overloadpacket, args)) is not None:
            return answer
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index):
            args = (args[0], _places(args[1]), *args[2:])
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in (*tensors, *results):
            self._track(tensor)
        self._add_work(func, args, kwargs, out, tensors, results)
        return out

    def _add_work(
        self, func: Any, args: Any, kwargs: Any, out: Any, tensors: Sequence[Tensor], results: Sequence[Tensor]
    ) -> None:
        packet, name = func.overloadpacket, str(func.overloadpacket)
        if packet in _FLOPS:
            which = (
                "attention_flops" if _ATTENTION in name else "conv_flops" if _CONVOLUTION in name else "matmul_flops"
            )
            self._work[which] += _FLOPS[packet](*args, **kwargs, out_val=out)
            if packet is aten._scaled_dot_product_flash_attention_backward:
                self._look(extra=args[1].numel() * 4)  # the gradient of the queries is summed in float32
            return
        is_view = bool(tensors) and not func._schema.is_mutable and all(_shares(tensors[0], one) for one in results)
        if results and not is_view:
            self._work["traffic_bytes"] += sum(one.numel() * one.element_size() for one in (*tensors, *results))

    def _track(self, tensor: Tensor) -> None:
        if is_traceable_wrapper_subclass(tensor):  # a quantised weight, whose parts are tensors of their own
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // _BLOCK) * _BLOCK
        in_backward = _graph_task() != -1
        kind = "gradients and recomputed activations" if in_backward else self.kind
        self._known[key] = finalize(storage, self._free, key, size, kind)
        self._in_use[kind] += size
        self._total += size
        self._look()

    def _free(self, key: int, size: int, kind: str) -> None:
        del self._known[key]
        self._in_use[kind] -= size
        self._total -= size

    def _look(self, extra: float = 0.0) -> None:
        """Notes a new peak of the phase."""
        phase = "backward" if _graph_task() != -1 else self._phase
        if self._total + extra > self._highest.get(phase, -1.0):
            self._highest[phase] = self._total + extra
            self._peaks[phase] = {kind: size for kind, size in self._in_use.items() if size}
            if extra:
                self._peaks[phase]["workspace"] = extra


@contextmanager
def _gpu_rules() -> Iterator[None]:
    """
    What a GPU does otherwise than a CPU: fused attention, and autocast's list of float32 operations.

    Names are replaced for the while: a mode of torch.overrides would not hold for what checkpointing computes again.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", attention))
        for name in ("tolist", "numpy"):
            stack.enter_context(patch.object(Tensor, name, _as_if_ones(getattr(Tensor, name))))
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


@contextmanager
def metering() -> Iterator[Meter]:
    """Runs the body on tensors that hold nothing, and counts. Nothing made inside may be used outside."""
    meter = Meter()
    before: list[str] = []

    def begin(*_: Any) -> None:
        before.append(meter.kind)
        meter.kind = "optimiser"
        meter.phase("optimiser step")

    def end(*_: Any) -> None:
        meter.kind = before.pop()
        meter.phase("run")

    with ExitStack() as stack:
        stack.callback(register_optimizer_step_pre_hook(begin).remove)
        stack.callback(register_optimizer_step_post_hook(end).remove)
        stack.enter_context(_gpu_rules())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(meter)
        yield meter


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


def _is_known(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation that takes no tensor makes integers, booleans or a number that Python gave."""
    if func.overloadpacket is aten.scalar_tensor:
        return True
    if (dtype := kwargs.get("dtype")) is not None:
        return not (dtype.is_floating_point or dtype.is_complex)
    numbers = args[1:] if func.overloadpacket is aten.full else args  # the first is a size
    return func.overloadpacket in (aten.arange, aten.full) and all(isinstance(one, int) for one in numbers)


def _unknown(packet: Any, args: Any) -> Any:
    """The answer where code asks for a value that is not there: true, or 1. `None` where it asks for none."""
    if packet in (aten._local_scalar_dense, aten.item):
        dtype = args[0].dtype
        return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
    if packet is aten.equal:
        return True
    if packet is aten._unique2:  # as if all were equal
        return args[0].flatten()[:1], torch.zeros(args[0].shape, dtype=torch.long), torch.ones(1, dtype=torch.long)
    if packet is aten.nonzero:  # as if all were true
        return torch.empty((args[0].numel(), args[0].dim()), dtype=torch.long)
    return None


def _places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """`indices` with the places of the true elements for each mask; all are, where a mask holds nothing."""
    places: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            places.append(index)
            continue
        with unset_fake_temporarily():
            mask = torch.ones(index.shape, dtype=torch.bool) if isinstance(index, FakeTensor) else index
            places.extend(mask.nonzero(as_tuple=True))
    return places


def _shares(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata


def _in_float32(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16) else leaf


def _numpy_dtype(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point:
        return np.float16 if dtype.itemsize == 2 else np.float32 if dtype.itemsize == 4 else np.float64
    return np.dtype(str(dtype).removeprefix("torch."))
