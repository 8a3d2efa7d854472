"""Sums over rows between two log lines, added up over processes when they are logged."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from ...records import TrainBatch


#: The timesteps are looked at in so many equal parts, in the logs and in evaluation.
TIMESTEP_QUARTERS = 4
# Prefixes of sums and numbers of rows of what an objective watches.
_HEALTH, _HEALTH_ROWS = "health:", "health_rows:"
# Three labels in three dimensions give ten rewards; real rows have one weight more.
_MAX_SHOWN_WEIGHTS = 11


class LossMetrics:
    """
    Collects what the trainer logs beside the weighted loss; every process calls `add` and `pop` alike.

    Logged beside what the objective watches: `loss_unweighted`, `reward_mean`, `reward/<dimension>` (over sampled rows),
    `real_fraction`, `effective_sample_fraction` ((sum w)^2 / sum w^2 over the rows seen, as a fraction of them), and
    `loss_timestep/q1` to `q4` (unweighted, by quarter of the noise levels, q1 the least noise). An objective that knows `kl`
    and the reference's error also gets `kl_fraction`, their ratio (docs/objectives.md says how much is harmless).
    """

    def __init__(self, accelerator: Accelerator, dimensions: Sequence[str]) -> None:
        self._accelerator, self._dimensions = accelerator, dimensions
        self._sums: dict[str, dict[str, Tensor]] = {}

    def add(
        self, mode: str, batch: TrainBatch, loss_B: Tensor, quarter_B: Tensor, health: Mapping[str, Tensor]
    ) -> None:
        """
        Adds the rows that count among B: unweighted `loss_B`, the quarter (0 to 3) of each row's timestep, and what the
        objective watches: by name a value of each row, NaN where it says nothing.
        """
        sums = self._sums.setdefault(
            mode, defaultdict(lambda: torch.zeros((), device=loss_B.device, dtype=torch.float64))
        )
        counts = batch["counts"]
        generated = counts & ~batch["is_real"]
        weight = _kept(batch["weight"], counts)
        sums["rows"] += counts.sum()
        sums["loss"] += _kept(loss_B, counts).sum()
        sums["real"] += (counts & batch["is_real"]).sum()
        sums["weight"] += weight.sum()
        sums["weight_squared"] += weight.square().sum()
        by_dimension = enumerate(self._dimensions)
        for name, known, values in [
            ("reward", "rewarded", batch["reward"]),
            *((f"reward/{d}", f"rated/{d}", batch["dimension_reward"][:, i]) for i, d in by_dimension),
            *((f"{_HEALTH}{name}", f"{_HEALTH_ROWS}{name}", values) for name, values in health.items()),
        ]:
            is_known = generated & ~values.isnan()
            sums[name] += _kept(values, is_known).sum()
            sums[known] += is_known.sum()
        for quarter in range(TIMESTEP_QUARTERS):
            chosen = counts & (quarter_B == quarter)
            sums[f"loss_timestep/q{quarter + 1}"] += _kept(loss_B, chosen).sum()
            sums[f"rows_timestep/q{quarter + 1}"] += chosen.sum()

    def pop(self, mode: str) -> dict[str, float]:
        """The means since the last call, over all processes; `{}` where no row was seen."""
        sums = self._sums.pop(mode, None)
        if sums is None:
            return {}
        names = sorted(sums)
        total = self._accelerator.reduce(torch.stack([sums[name] for name in names]), reduction="sum").tolist()
        value = dict(zip(names, total, strict=True))
        if not value["rows"]:
            return {}
        logs = {
            "loss_unweighted": value["loss"] / value["rows"],
            "real_fraction": value["real"] / value["rows"],
            "effective_sample_fraction": value["weight"] ** 2 / max(value["weight_squared"], 1e-30) / value["rows"],
        }
        if value["rewarded"]:
            logs["reward_mean"] = value["reward"] / value["rewarded"]
        for dimension in self._dimensions:
            if value[f"rated/{dimension}"]:
                logs[f"reward/{dimension}"] = value[f"reward/{dimension}"] / value[f"rated/{dimension}"]
        for name in (name.removeprefix(_HEALTH) for name in names if name.startswith(_HEALTH)):
            if rows := value[f"{_HEALTH_ROWS}{name}"]:
                logs[name] = value[f"{_HEALTH}{name}"] / rows
        if reference := logs.pop("reference_error", None):
            logs |= {f"{name}_fraction": logs[name] / reference for name in ("kl", "kl_old") if name in logs}
        for quarter in range(1, TIMESTEP_QUARTERS + 1):
            if value[f"rows_timestep/q{quarter}"]:
                logs[f"loss_timestep/q{quarter}"] = (
                    value[f"loss_timestep/q{quarter}"] / value[f"rows_timestep/q{quarter}"]
                )
        return logs


def _kept(values: Tensor, mask: Tensor) -> Tensor:
    """`values` in float64, 0 where not `mask`. To index by a mask would wait for the device to count it."""
    return torch.where(mask, values.double(), 0.0)


def weights_in_words(weight: Tensor) -> str:
    """Distinct weights and their counts, or the range where there are many."""
    values, counts = weight.unique(return_counts=True)
    if len(values) > _MAX_SHOWN_WEIGHTS:
        return f"{values.min():.4f} to {values.max():.4f}"
    return ", ".join(
        f"{value:.4f} ({count} rows)" for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    )
