"""Calls that are counted again without being run take what they take where they are run."""

import pytest
import torch
from torch import Tensor, nn

from lift_trl.estimate.weightless.meter import metering
from lift_trl.estimate.weightless.repeated import repeated_once


class Inner(nn.Module):
    """Higher in between than at its end; gives a slice of a larger tensor, and a view of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.runs: list[object] = []

    def forward(self, x: Tensor, last: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        self.runs.append(None)
        wide = torch.cat([x, x if last is None else last], dim=-1)
        out = self.conv(wide)[..., 1:-2]
        return out, {"last": x[:, :, -2:].clone(), "first": x[:, :1]}


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor, last: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, kept = self.inner(x, last)
        again, _ = self.inner(x, last)
        return out * again, kept["last"]


def tiles(module: nn.Module) -> list[Tensor]:
    """Calls of three forms, whose outcomes stay or are handed on."""
    found: list[Tensor] = []
    for width in (64, 48, 64, 64, 48):
        out, last = module(torch.zeros(1, 3, 32, 80)[..., 80 - width :])
        found.append(out + 1)
        for _ in range(2):
            out, _ = module(torch.zeros(1, 3, 32, 90)[..., :width], torch.zeros(1, 3, 32, 8))
        found += [out[:, :1], last]
    return found


def counted(make, run, *, once: bool):
    with metering() as meter:
        module = make()
        with torch.no_grad(), repeated_once(meter, *([module] if once else [])):
            out = run(module)
        forms = [(one.shape, one.stride(), one.untyped_storage().nbytes()) for one in out]
        meter.phase("after")  # what is in use then
    return meter.count(), forms, module


def test_a_repeated_call_is_not_run():
    """Two widths, with and without a third input: four forms, of which each runs its inner part once."""
    whole, forms, module = counted(Outer, tiles, once=False)
    found, same_forms, other = counted(Outer, tiles, once=True)
    assert len(module.inner.runs) == 30 and len(other.inner.runs) == 4
    assert found == whole and forms == same_forms
    assert "forward" not in vars(other)


class Keeps(nn.Module):
    """Gives a larger tensor as often as it ran before: what it keeps tells."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x, before = x + 1, self.kept
        self.kept = x * 2
        return x if before is None else torch.cat([x, before])


class Lists(nn.Module):
    """Changes a list that it was given, by as many bytes as were there."""

    def forward(self, x: Tensor, places: list[Tensor]) -> Tensor:
        places[0] = torch.cat([places[0][1:], x[:1]])
        places.append(x[:1])
        return x * len(places)


class Asks(nn.Module):
    """Is given an object."""

    def forward(self, x: Tensor, more: slice) -> Tensor:
        return x[more] + 1


def grow(module: nn.Module) -> list[Tensor]:
    x = torch.zeros(64, 32)
    return [x] + [x := module(x[:64]) for _ in range(4)]


def change(module: nn.Module) -> list[Tensor]:
    places = [torch.zeros(128, 32)]
    return [*(module(torch.zeros(64, 32), places) for _ in range(4)), *places]


def ask(module: nn.Module) -> list[Tensor]:
    return [module(torch.zeros(256, 32), slice(0, end)) for end in (20, 200, 20)]


@pytest.mark.parametrize("make, run", [(Keeps, grow), (Lists, change), (Asks, ask)])
def test_a_call_of_which_inputs_and_result_do_not_tell_all_is_run(make, run):
    whole, forms, _ = counted(make, run, once=False)
    assert counted(make, run, once=True)[:2] == (whole, forms)


def test_a_call_with_gradients_is_run():
    with metering() as meter:
        module = Outer()
        with repeated_once(meter, module):
            sum(one.sum() for one in tiles(module)).backward()
    assert len(module.inner.runs) == 30 and module.inner.conv.weight.grad is not None
