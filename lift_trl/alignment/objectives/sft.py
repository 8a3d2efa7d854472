"""`sft`: plain fine-tuning, every sampled clip alike. The control that a reward has to beat."""

from typing import TYPE_CHECKING

import torch

from .parts.step import Objective, RatedRows, TrainingRows
from .parts.weights import likelihood, weighted_rows


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def select(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """L = mean_g(l) + lambda mean_r(l)."""
    return weighted_rows(rows, torch.ones_like(rows.reward), ~rows.is_real, real_weight=args.real_weight)


SFT = Objective("sft", "every clip weighs the same", likelihood, select)
