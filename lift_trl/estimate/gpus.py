"""Cards: how much they hold, how fast they are, what they cost, and what they hold beside the tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ..store.tables import read_yaml
from ..store.typed import typed
from .weightless.meter import Count


_TABLE = Path(__file__).parent / "gpus.yaml"
# Assumed, on any card: what the driver and cuBLAS take, and what the caching allocator leaves unused.
_CONTEXT_BYTES = 0.5e9
_WORKSPACE_BYTES = 0.1e9
_FRAGMENTATION = 0.05


@dataclass(frozen=True)
class Gpu:
    """
    A card.

    Attributes:
        memory_gb: what torch can use, GB of 1e9 bytes.
        attention, matmul, conv: TFLOP/s that such operations reach in 16 bits.
        traffic: TB/s of all other operations.
        price: US dollars an hour.
        source: whether the rates are `measured` or `assumed`.
    """

    name: str
    memory_gb: float
    attention: float
    matmul: float
    conv: float
    traffic: float
    price: float
    source: str

    def __post_init__(self) -> None:
        for name in ("memory_gb", "attention", "matmul", "conv", "traffic"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"GPU {self.name}: {name}={getattr(self, name)}; give a number above 0.")
        if not 0 <= self.price < math.inf:
            raise ValueError(f"GPU {self.name}: price={self.price}; give US dollars an hour, 0 or more.")
        if self.source not in ("measured", "assumed"):
            raise ValueError(f"GPU {self.name}: source={self.source!r}; write measured or assumed.")

    def seconds(self, count: Count) -> float:
        """Time of `count`'s work: products at their rates, and the memory traffic of everything else between them."""
        products = count.attention_flops / self.attention + count.matmul_flops / self.matmul
        return (products + count.conv_flops / self.conv + count.traffic_bytes / self.traffic) / 1e12


def load_gpus(rates: Path | str | None = None) -> dict[str, Gpu]:
    """
    The cards by name: the package's table, and over it the file `rates` of the same form (cards of your own, or measured
    rates).

    Raises:
        FileNotFoundError, ValueError: naming file and card.
    """
    table: dict[str, dict[str, Any]] = read_yaml(_TABLE)
    if rates is not None:
        given = read_yaml(rates)
        if not isinstance(given, dict) or not all(isinstance(values, dict) for values in given.values()):
            raise ValueError(f"{rates}: no table of cards; write e.g. 'h100: {{matmul: 640, source: measured}}'.")
        table |= {name: {**table.get(name, {}), **values} for name, values in given.items()}
    hints = {field: hint for field, hint in get_type_hints(Gpu).items() if field != "name"}
    for name, values in table.items():
        if wrong := sorted(map(str, set(values) ^ set(hints))):
            raise ValueError(f"{rates}: GPU {name} has {', '.join(wrong)} too many or missing; give {sorted(hints)}.")
    try:
        return {name: _gpu(name, values, hints) for name, values in table.items()}
    except ValueError as error:
        raise ValueError(f"{rates}: {error}") from None


def _gpu(name: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> Gpu:
    """The card of a row of the table."""
    return Gpu(
        str(name), **{field: typed(f"GPU {name}: {field}", values[field], hint) for field, hint in hints.items()}
    )


def find_gpu(name: str, rates: Path | str | None = None) -> Gpu:
    """
    One card of `load_gpus`.

    Raises:
        ValueError: naming those that there are.
    """
    gpus = load_gpus(rates)
    if name not in gpus:
        raise ValueError(f"gpu {name!r} is unknown; there are {', '.join(gpus)}. --rates FILE adds yours.")
    return gpus[name]


def overheads(count: Count, *, num_gpus: int = 1) -> Mapping[str, float]:
    """
    Bytes that a card needs beside what was counted, by name; rules of thumb, not counted.

    DDP copies the gradients of what is trained into buckets. cuDNN's workspaces for a VAE's convolutions are unknown.
    """
    named = {
        "driver's context": _CONTEXT_BYTES,
        "cuBLAS workspace": _WORKSPACE_BYTES,
        "fragmentation (5 %)": _FRAGMENTATION * count.peak_bytes,
    }
    if num_gpus > 1 and (trained := count.peak.get("trained weights", 0.0)):
        named["gradients' buckets of DDP"] = trained
    return named
