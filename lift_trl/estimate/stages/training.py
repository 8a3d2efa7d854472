"""One optimiser step of a trainer under the meter: whichever trainer, its own code runs."""

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from transformers import PrinterCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..weightless.meter import GRADIENTS, Count, Meter, linear


Settings = TypeVar("Settings", bound=TrainingArguments)


def one_step(args: Settings, batch: int, folder: Path) -> tuple[Settings, int]:
    """
    `args` for one optimiser step with nothing written, and its number of micro-batches.

    Args:
        batch: rows of a micro-batch.
        folder: takes the place of `output_dir`.
    """
    micro_batches = min(2, args.gradient_accumulation_steps)  # from the second one on there are gradients
    settings = copy(args)
    settings.output_dir, settings.report_to, settings.disable_tqdm = str(folder), [], True
    settings.max_steps, settings.gradient_accumulation_steps = 1, micro_batches
    settings.per_device_train_batch_size = batch
    settings.save_strategy, settings.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    settings.dataloader_num_workers, settings.dataloader_persistent_workers = 0, False
    return settings, micro_batches


def count_step(meter: Meter, trainer: Any, micro_batches: int) -> Count:
    """
    What one of the step's micro-batches takes, and the peak of a step after an earlier one.

    The last of them is run. Those before it are loaded, and leave gradients.
    """
    trainer.remove_callback(PrinterCallback)
    _fill_optimizer(trainer)
    built, run = meter.count(), trainer.training_step
    passes: list[Count] = []

    def training_step(*args: Any) -> Any:
        before = meter.count()
        if len(passes) < micro_batches - 1:
            with meter.taking(GRADIENTS):
                _fill_gradients(trainer.optimizer)
            loss = torch.zeros(())
        else:
            loss = run(*args)
        passes.append(linear([(1.0, meter.count()), (-1.0, before)]))
        return loss

    with patch.object(trainer, "training_step", training_step):
        trainer.train()
    counted, (*loaded, last) = meter.count(), passes
    step = linear([(1.0, counted), (-1.0, built), *((-1.0, one) for one in loaded), (micro_batches - 1.0, last)])
    return replace(step.scaled(1 / micro_batches), peaks=counted.peaks)


def _fill_gradients(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)


def _fill_optimizer(trainer: Any) -> None:
    """An optimiser's state comes with its first step; what is counted is a later one."""
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        group["foreach"] = True  # as on a GPU
    _fill_gradients(optimizer)
    optimizer.step()
    optimizer.zero_grad()
