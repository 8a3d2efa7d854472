"""A meter for tensors that hold nothing: memory, arithmetic and traffic of real code, with no weights and no GPU.

Code runs under torch's FakeTensorMode: weights and noise have shapes and types, but no values. What is known all the same
(data that Python or a file gave, integers that are made from nothing) is computed in earnest as long as it meets no such
tensor, since control flow hangs on it: token ids, grids, masks of rows, rewards.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
    unset_fake_temporarily,
)
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils.flop_counter import flop_registry

from .gpu_rules import gpu_rules


# Private in torch 2.14: _subclasses, _python_dispatch, _C, _current_graph_task_id, _schema, _cdata. When they go,
# `test_backward_is_a_phase` fails.
# Private in torch 2.14: _should_skip_dynamo. When it goes, `test_an_operation_goes_straight_to_the_meter` fails.
aten = torch.ops.aten
# The caching allocator of a GPU hands out blocks of this many bytes.
_BLOCK = 512
# Inside a run of the autograd engine this is not -1.
_graph_task: Callable[[], int] = torch._C._current_graph_task_id
_DEVICE = torch.ops.prim.device.default
# Attention of a CPU, which torch's table leaves out.
_FLOPS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
# What torch's own kernels for no device tell as well as FakeTensorMode does, at a fifth of the time.
_STRAIGHT = {
    *(aten._to_copy, aten._unsafe_view, aten.add, aten.add_, aten.addmm, aten.cat, aten.clone, aten.copy_),
    *(aten.detach, aten.div, aten.expand, aten.gelu, aten.mm, aten.mul, aten.mul_, aten.neg, aten.permute),
    *(aten.select, aten.silu),
    *(aten.slice, aten.split, aten.split_with_sizes, aten.stack, aten.sub, aten.sum, aten.t, aten.transpose),
    *(aten.uniform_, aten.unsqueeze, aten.view, aten.zero_, aten.zeros_like),
    *(aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention),
}
#: What memory is taken for in the autograd engine.
GRADIENTS = "gradients and recomputed activations"
_ATTENTION = "scaled_dot_product"
_CONVOLUTION = "convolution"


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


@dataclass(frozen=True)
class Piece:
    """
    What a stretch of code took by itself.

    Attributes:
        work: by the fields of a `Count`.
        height: bytes at its highest point, above those in use before it.
        kinds: the same, by what they are.
        left: bytes in use after it, above those before.
    """

    work: Mapping[str, float]
    height: float
    kinds: Mapping[str, float]
    left: float


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

    @contextmanager
    def watching(self) -> Iterator[list[Piece]]:
        """The list has what the body took by itself, after it."""
        phase, work, in_use, total = self._phase, dict(self._work), dict(self._in_use), self._total
        earlier = self._highest.pop(phase, -1.0), self._peaks.pop(phase, {})
        self._look()
        pieces: list[Piece] = []
        yield pieces
        highest, peak = self._highest[phase], self._peaks[phase]
        took = {name: value - work.get(name, 0.0) for name, value in self._work.items()}
        kinds = {kind: peak.get(kind, 0.0) - in_use.get(kind, 0.0) for kind in {**in_use, **peak}}
        pieces.append(Piece(took, highest - total, kinds, self._total - total))
        if earlier[0] >= highest:
            self._highest[phase], self._peaks[phase] = earlier

    @contextmanager
    def taking_again(self, piece: Piece) -> Iterator[None]:
        """Counts `piece` once more; the body, which makes what it left, is no work."""
        for name, value in piece.work.items():
            self._work[name] += value
        if self._total + piece.height > self._highest.get(self._phase, -1.0):
            self._highest[self._phase] = self._total + piece.height
            sizes = {
                kind: self._in_use.get(kind, 0.0) + piece.kinds.get(kind, 0.0)
                for kind in {**self._in_use, **piece.kinds}
            }
            self._peaks[self._phase] = {kind: size for kind, size in sizes.items() if size}
        work = self._work.copy()
        yield
        self._work = work

    def count(self) -> Count:
        """What was counted since the meter was made."""
        return Count(**self._work, peaks={name: dict(kinds) for name, kinds in self._peaks.items()})

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether each call below goes through the compiler first, which leaves it alone: half of the time of a device."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].device
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        tensors = _tensors(args, kwargs)
        is_fake = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        if torch.is_inference_mode_enabled() and func.overloadpacket not in _FLOPS:
            with self:  # inference mode keeps compound operations whole
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        if not is_fake and (tensors or _is_known(func, args, kwargs)):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
            for tensor in _tensors(out):
                self._track(tensor)
            return out
        if is_fake and (answer := _unknown(func.overloadpacket, args)) is not None:
            return answer
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index):
            args = (args[0], _places(args[1]), *args[2:])
        out = _straight(func, args, kwargs, tensors) if func.overloadpacket in _STRAIGHT else func(*args, **kwargs)
        results = _tensors(out)
        for tensor in (*tensors, *results):
            self._track(tensor)
        self._add_work(func, args, kwargs, out, tensors, results)
        return out

    def _add_work(
        self, func: Any, args: Any, kwargs: Any, out: Any, tensors: Sequence[Tensor], results: Sequence[Tensor]
    ) -> None:
        packet = func.overloadpacket
        if packet in _FLOPS:
            name = str(packet)
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
        # A quantised weight has parts that are tensors of their own.
        if type(tensor) is not FakeTensor and is_traceable_wrapper_subclass(tensor):
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = self.size_of(storage.nbytes())
        in_backward = _graph_task() != -1
        kind = GRADIENTS if in_backward else self.kind
        self._known[key] = finalize(storage, self._free, key, size, kind)
        self._in_use[kind] += size
        self._total += size
        self._look()

    @staticmethod
    def size_of(num_bytes: int) -> int:
        """What the allocator takes for so many bytes."""
        return -(-num_bytes // _BLOCK) * _BLOCK

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
        stack.enter_context(gpu_rules())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(meter)
        yield meter


def _tensors(*values: Any) -> list[Tensor]:
    """All that are in `values`, or in tuples, lists and dicts there."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(*value)
        elif isinstance(value, dict):
            found += _tensors(*value.values())
    return found


def _straight(func: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> Any:
    """What `func` gives, by torch's kernel that computes nothing, where all tensors hold nothing."""
    if not all(type(tensor) is FakeTensor for tensor in tensors) or kwargs.get("device"):
        return func(*args, **kwargs)
    mode = tensors[0].fake_mode  # type: ignore[attr-defined]
    with in_kernel_invocation_manager(mode):
        out = func(*args, **kwargs)
    if isinstance(out, (tuple, list)):
        return type(out)(_faked(mode, one) for one in out)
    return _faked(mode, out)


def _faked(mode: FakeTensorMode, out: Any) -> Any:
    is_new = isinstance(out, Tensor) and not isinstance(out, FakeTensor)
    return FakeTensor(mode, out, torch.device("cpu")) if is_new else out


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
