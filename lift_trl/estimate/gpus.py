"""Cards: how much they hold, how fast they are, what they cost, and what they hold beside the tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..store.tables import read_yaml
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
            if not getattr(self, name) > 0:
                raise ValueError(f"GPU {self.name}: {name}={getattr(self, name)}; give a number above 0.")
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
    table: dict[str, dict[str, float | str]] = read_yaml(_TABLE)
    if rates is not None:
        given = read_yaml(rates)
        if not isinstance(given, dict) or not all(isinstance(values, dict) for values in given.values()):
            raise ValueError(f"{rates}: no table of cards; write e.g. 'h100: {{matmul: 640, source: measured}}'.")
        table |= {name: {**table.get(name, {}), **values} for name, values in given.items()}
    fields = set(Gpu.__dataclass_fields__) - {"name"}
    for name, values in table.items():
        if set(values) != fields:
            wrong = sorted(set(values) ^ fields)
            raise ValueError(f"{rates}: GPU {name} has {', '.join(wrong)} too many or missing; give {sorted(fields)}.")
    return {name: Gpu(name, **values) for name, values in table.items()}  # type: ignore[arg-type]


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
