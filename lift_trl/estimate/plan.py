"""What a stage needs as a report: memory of a card, largest batch, disk, hours and price."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .gpus import Gpu, overheads
from .weightless.depth import at_batch
from .weightless.meter import Count


# Several cards wait for one another a little.
_EFFICIENCY = 0.95


@dataclass(frozen=True)
class Job:
    """
    How much there is to do.

    Attributes:
        clips: rows of the training set; what is cached, scored or trained on.
        videos: videos to generate.
        prompts: different prompts among them.
        pairs: of clips that people compared, where a critic learns from them too.
    """

    clips: int = 1000
    videos: int = 1000
    prompts: int = 1000
    pairs: int = 1000


@dataclass(frozen=True)
class Part:
    """
    Something that runs on a card by itself.

    Attributes:
        count: of one run.
        runs: how many runs the job takes, all cards together.
        clips: how many run together, in `unit`.
        linear_in: batches of one and of two, where the batch may be chosen.
        gathered: bytes of the weights that a card holds whole while the others are spread over all; `None` where nothing
            can be spread.
        alone: whether one card does it while the others wait.
    """

    name: str
    count: Count
    runs: float
    clips: int = 1
    linear_in: tuple[Count, Count] | None = None
    unit: str = "clips"
    gathered: float | None = None
    alone: bool = False

    def beside(self, held: Mapping[str, float]) -> "Part":
        """The part with bytes of something else in memory, by what they are."""
        both = None
        if self.linear_in is not None:
            one, two = self.linear_in
            both = (_holding(one, held), _holding(two, held))
        return replace(self, count=_holding(self.count, held), linear_in=both)

    def sharded(self, num_gpus: int) -> "Part":
        """
        The part with weights and optimiser spread over the cards.

        Raises:
            ValueError: if it cannot be.
        """
        if self.gathered is None:
            raise ValueError(
                f"--sharded: {self.name} has every weight on each card. Of train_critic they can be spread."
            )
        gathered = self.gathered
        both = None
        if self.linear_in is not None:
            one, two = self.linear_in
            both = (_spread(one, num_gpus, gathered), _spread(two, num_gpus, gathered))
        return replace(self, count=_spread(self.count, num_gpus, gathered), linear_in=both)


# What ZeRO-3 and FSDP2 spread. Gradients, of a LoRA small, are left whole here.
_SPREAD = ("weights", "trained weights", "optimiser")


def _holding(count: Count, held: Mapping[str, float]) -> Count:
    peaks = {
        phase: {kind: kinds.get(kind, 0.0) + held.get(kind, 0.0) for kind in (*kinds, *held)}
        for phase, kinds in count.peaks.items()
    }
    return replace(count, peaks=peaks)


def _spread(count: Count, num_gpus: int, gathered: float) -> Count:
    peaks = {
        phase: {kind: size / num_gpus if kind in _SPREAD else size for kind, size in kinds.items()}
        | {"layers gathered": gathered}
        for phase, kinds in count.peaks.items()
    }
    return replace(count, peaks=peaks)


@dataclass
class Plan:
    """
    What one stage needs.

    Attributes:
        parts: in the order in which they run; one is in memory at a time.
        disk: bytes by what they are.
        notes: what a user should know.
    """

    stage: str
    model: str
    parts: list[Part]
    disk: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def report(self, gpu: Gpu, num_gpus: int) -> dict[str, Any]:
        """Everything as plain values: GB of 1e9 bytes, TFLOP, seconds, hours of wall time, US dollars."""
        speed = num_gpus * (_EFFICIENCY if num_gpus > 1 else 1.0)
        rows = [_row(part, gpu, num_gpus, speed) for part in self.parts]
        hours = sum(row["hours"] for row in rows)
        return {
            "stage": self.stage,
            "model": self.model,
            "gpu": gpu.name,
            "num_gpus": num_gpus,
            "rates": gpu.source,
            "parts": rows,
            "fits": all(row["fits"] for row in rows),
            "peak_gb": max(row["total_gb"] for row in rows),
            "disk_gb": {name: size / 1e9 for name, size in self.disk.items()},
            "hours": hours,
            "price_usd": hours * num_gpus * gpu.price,
            "notes": self.notes,
        }


def _row(part: Part, gpu: Gpu, num_gpus: int, speed: float) -> dict[str, Any]:
    extra = overheads(part.count, num_gpus=num_gpus)
    total = part.count.peak_bytes + sum(extra.values())
    seconds = gpu.seconds(part.count)
    row = {
        "name": part.name,
        "memory_gb": {kind: size / 1e9 for kind, size in part.count.peak.items()},
        "overheads_gb": {name: size / 1e9 for name, size in extra.items()},
        "total_gb": total / 1e9,
        "fits": total <= gpu.memory_gb * 1e9,
        "tflop": part.count.flops / 1e12,
        "seconds": seconds,
        "clips": part.clips,
        "unit": part.unit,
        "runs": part.runs,
        "hours": seconds * part.runs / (1.0 if part.alone else speed) / 3600,
    }
    if part.linear_in is not None:
        row["largest_batch"] = largest_batch(*part.linear_in, gpu, num_gpus=num_gpus)
    return row


def largest_batch(one: Count, two: Count, gpu: Gpu, *, num_gpus: int = 1) -> int:
    """The largest batch whose peak, overheads included, fits the card; 0 where not even one clip does."""

    def fits(batch: int) -> bool:
        count = at_batch(one, two, batch)
        return count.peak_bytes + sum(overheads(count, num_gpus=num_gpus).values()) <= gpu.memory_gb * 1e9

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
