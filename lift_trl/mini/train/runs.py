"""What the three training scripts of the mini world share: resumable runs, optimisers, learning-rate schedules."""

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


logger = logging.getLogger(__name__)


@dataclass
class Run:
    """
    A training run in a folder: `state.pt` holds everything to go on from, `log.jsonl` one line for each report.

    A kill at any point loses at most the steps since the last `save`; the data of a step must depend on its number only.

    Args:
        directory: folder of the run, made if missing.
        parts: what is saved: modules and optimisers by name.
    """

    directory: Path
    parts: Mapping[str, Any]
    step: int = 0
    cpu_seconds: float = 0.0
    _started_s: float = field(default_factory=time.process_time)

    def resume(self) -> None:
        """Goes back to the last saved state, if there is one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "state.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.step, self.cpu_seconds = state["step"], state["cpu_seconds"]
            logger.info("resumed %s at step %d", self.directory, self.step)

    def save(self) -> None:
        """Writes the state beside the old one, then takes its place."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"step": self.step, "cpu_seconds": self.total_cpu_seconds}
        temporary = self.directory / "state.pt.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.directory / "state.pt")

    @property
    def total_cpu_seconds(self) -> float:
        """CPU seconds of this process and of those before it that led to the resumed state."""
        return self.cpu_seconds + time.process_time() - self._started_s

    def report(self, **figures: float) -> None:
        """Logs figures of the current step and appends them to `log.jsonl`."""
        row = {
            "step": self.step,
            "cpu_s": round(self.total_cpu_seconds),
            **{k: round(v, 5) for k, v in figures.items()},
        }
        logger.info("%s", row)
        with (self.directory / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class FlatMuon(torch.optim.Muon):
    """
    Muon for weights of any rank: a convolution's kernel is one matrix of output channels by everything else.

    torch's Muon takes matrices only, so each kernel is handed over as a flat view of the same storage.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        self._weights = list(weights)
        self._views = [nn.Parameter(weight.detach().flatten(1)) for weight in self._weights]
        super().__init__(self._views, lr=lr, momentum=momentum, weight_decay=0.0)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of the weights from their gradients."""
        for weight, view in zip(self._weights, self._views, strict=True):
            view.grad = None if weight.grad is None else weight.grad.flatten(1)
        super().step(closure)


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Sets each group's learning rate to `factor` times the one that it was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("first_lr", group["lr"]) * factor


def cosine(step: int, num_steps: int, warmup: int = 20) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to 2 %."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))


def cooldown(step: int, num_steps: int, share: float = 0.6, warmup: int = 20) -> float:
    """Learning-rate factor: linear warm-up, constant, then linear to 0 over the last `share` of the run."""
    return min(1.0, (step + 1) / warmup, max(0.0, (num_steps - step) / (share * num_steps)))


def clip_and_step(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer], loss: Tensor) -> None:
    """
    Backward pass, gradient norm of at most 1, one step of every optimiser.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}; resume from the last state with a lower learning rate.")
    module.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
