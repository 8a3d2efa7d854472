"""Steps that fp16's loss scaler skips: some are how it finds its scale, many in a row are the end of a run."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import Tensor
from transformers import TrainerCallback


logger = get_logger(__name__)

#: GradScaler begins at 2^16 and halves its scale at each skipped step: after so many the scale is not the reason.
MAX_SKIPPED = 20


class SkippedSteps(TrainerCallback):
    """
    Lets the loss scaler skip a step whose loss or gradient overflows in fp16, and stops a run that takes no step any more.

    All processes stop at the same step: whether one was skipped is decided on the gradient, which they share.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.in_a_row = 0
        self.last: list[str] = []
        self._scale = 0.0
        self._losses: list[tuple[list[str], Tensor]] = []

    def watch(self, ids: list[str], loss_B: Tensor) -> None:
        """Keeps the losses of the clips `ids` for `check`: to look at them here would hold the backward pass up."""
        self._losses.append((ids, loss_B.detach()))

    def check(self, step: int, *, training: bool) -> None:
        """
        Raises:
            FloatingPointError: if a loss since the last call is not finite; names the clips. In fp16 the loss scaler skips
                such a training step.
        """
        watched, self._losses = self._losses, []
        if not watched:
            return
        # One wait for the device, not one a micro-batch.
        losses = torch.cat([loss_B for _, loss_B in watched]).tolist()
        ids = [row for rows, _ in watched for row in rows]
        bad = [row for row, loss in zip(ids, losses, strict=True) if not math.isfinite(loss)]
        if bad and not (training and self.allows(bad)):
            raise FloatingPointError(
                f"the loss of {bad} is not finite at optimiser step {step}. Look at these clips, lower learning_rate, "
                "or set bf16: true instead of fp16."
            )

    def allows(self, ids: list[str]) -> bool:
        """Whether a loss of the clips `ids` that is not finite is left to the scaler: without one nothing skips it."""
        if self.accelerator.scaler is None:
            return False
        self.last = ids
        return True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remembers the scale."""
        if self.accelerator.scaler is not None:
            self._scale = self.accelerator.scaler.get_scale()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises `FloatingPointError` for a loss of the step that is not finite (`check`), before weights move by it."""
        self.check(state.global_step, training=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Counts the skipped steps in a row: those that lowered the scale.

        (accelerate 1.15's `optimizer_step_was_skipped` is never true of a fused optimiser, which skips by itself.)
        """
        if self.accelerator.scaler is None or self.accelerator.scaler.get_scale() >= self._scale:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        clips = f", last the loss of {self.last}" if self.last else ""
        if self.in_a_row >= MAX_SKIPPED:
            raise FloatingPointError(
                f"{self.in_a_row} optimiser steps in a row overflowed in fp16{clips}: nothing is learnt any more at step "
                f"{state.global_step}. Look at these clips, lower learning_rate, or set bf16: true instead of fp16."
            )
        logger.info("step %d overflowed in fp16 and was skipped%s", state.global_step, clips)
