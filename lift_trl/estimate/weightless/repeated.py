"""Calls of a module that are like an earlier one: run once, and counted again without being run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from .meter import Meter, Piece


# Private in torch 2.14: _subclasses, _pytree, _cdata. When they go, `test_a_repeated_call_is_not_run` fails.
_PLAIN = (bool, int, float, str, torch.dtype, torch.device, type(None))


@contextmanager
def repeated_once(meter: Meter, *modules: nn.Module) -> Iterator[None]:
    """
    In the body, and without gradients, a call of one of `modules` or of a part of theirs is run once. Each further call with
    inputs of the same form takes the same again, and gives tensors of the same form, which hold as little. So the tiles and
    pieces of a video, and the steps of a sampler, cost the time of one.

    What leaves or finds more than its inputs and outputs tell is run each time: a call that is given objects, whose tensors
    are known, that changes a list, or that keeps a tensor.
    """
    # A layer without parts is run in the time that it takes to look it up.
    parts = [part for module in modules for part in module.modules() if next(part.children(), None) is not None]
    for part in parts:
        part.forward = _Once(meter, part.forward)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


@dataclass(frozen=True)
class _Tensor:
    """A tensor of an outcome: where among inputs or new storages its memory is, and its place from their beginning."""

    is_new: bool
    place: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Outcome:
    """
    What a call took and gave.

    Attributes:
        new: bytes and type of each storage that it made.
        leaves: of the result, those that are tensors as `_Tensor`.
    """

    piece: Piece
    new: list[tuple[int, torch.dtype]]
    leaves: list[Any]
    form: TreeSpec


class _Once:
    """A module's `forward`."""

    def __init__(self, meter: Meter, forward: Callable[..., Any]) -> None:
        self.meter, self.forward = meter, forward
        self.seen: dict[Any, _Outcome | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = None if torch.is_grad_enabled() else _form((args, kwargs))
        if key is None:
            return self.forward(*args, **kwargs)
        if key not in self.seen:
            return self._run(key, args, kwargs)
        outcome = self.seen[key]
        return self.forward(*args, **kwargs) if outcome is None else _again(self.meter, outcome, (args, kwargs))

    def _run(self, key: Any, args: Any, kwargs: Any) -> Any:
        # By weak references: an input that nothing else holds may go before the call ends.
        before = [
            ref(one) if isinstance(one, Tensor) else (lambda one=one: one) for one in tree_leaves((args, kwargs))
        ]
        with self.meter.watching() as pieces:
            result = self.forward(*args, **kwargs)
        after = tree_leaves((args, kwargs))
        unchanged = len(before) == len(after) and all(one() is other for one, other in zip(before, after, strict=True))
        self.seen[key] = _outcome(pieces[0], after, result) if unchanged else None
        return result


def _form(value: Any) -> Any:
    """All of `value` that a call's outcome may hang on, hashable; `None` where it holds something of another kind."""
    if type(value) is FakeTensor:
        return (*value.shape, *value.stride(), value.dtype)  # not where in a storage: tiles are alike
    if isinstance(value, _PLAIN):
        return type(value), value
    if not isinstance(value, tuple | list | dict):
        return None
    parts = [_form(part) for part in (value.values() if isinstance(value, dict) else value)]
    return None if None in parts else (type(value), *(value if isinstance(value, dict) else ()), *parts)


def _outcome(piece: Piece, inputs: list[Any], result: Any) -> _Outcome | None:
    """What there is to say again; `None` if that is not all that the call did."""
    leaves, form = tree_flatten(result)
    given = {one.untyped_storage()._cdata: place for place, one in enumerate(inputs) if isinstance(one, Tensor)}
    made: dict[int, int] = {}
    new: list[tuple[int, torch.dtype]] = []
    found: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, _PLAIN):
            found.append(leaf)
            continue
        if type(leaf) is not FakeTensor:
            return None
        storage = leaf.untyped_storage()
        key = storage._cdata
        is_new = key not in given
        if is_new and key not in made:
            made[key] = len(new)
            new.append((storage.nbytes(), leaf.dtype))
        place = made[key] if is_new else given[key]
        dtype = new[place][1] if is_new else inputs[place].dtype
        if leaf.dtype != dtype:
            return None
        offset = int(leaf.storage_offset()) - (0 if is_new else int(inputs[place].storage_offset()))
        found.append(_Tensor(is_new, place, tuple(leaf.shape), leaf.stride(), offset))
    # A call that keeps a tensor, or drops one that it kept, leaves more or less in use than its result.
    is_all = piece.left == sum(Meter.size_of(num_bytes) for num_bytes, _ in new)
    return _Outcome(piece, new, found, form) if is_all else None


def _again(meter: Meter, outcome: _Outcome, given: Any) -> Any:
    inputs = tree_leaves(given)
    with meter.taking_again(outcome.piece):
        new = [torch.empty(num_bytes // dtype.itemsize, dtype=dtype) for num_bytes, dtype in outcome.new]
        leaves = [
            _placed((new if leaf.is_new else inputs)[leaf.place], leaf) if isinstance(leaf, _Tensor) else leaf
            for leaf in outcome.leaves
        ]
    return tree_unflatten(leaves, outcome.form)


def _placed(whole: Tensor, part: _Tensor) -> Tensor:
    return whole.as_strided(part.shape, part.stride, whole.storage_offset() + part.offset)
