"""`rs`: rejection sampling, the paper's second objective."""

from typing import TYPE_CHECKING

import torch

from .parts.step import Objective, RatedRows, TrainingRows
from .parts.weights import likelihood, weighted_rows


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def select(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    L = mean(l over the clips that are Good in all dimensions) + lambda mean_r(l); the others are dropped, then counted.

    Raises:
        ValueError: if no sampled clip is Good in all dimensions: only the real ones would be left.

    Source: equation 4 of arXiv 2412.04814.
    """
    generated, told = ~rows.is_real & rows.all_good, rows.rewards_alone()
    if not generated.any() and (given := int((~rows.is_real).sum())):
        raise ValueError(
            f"objective='rs' keeps none of {given} generated rows: none is Good in all dimensions. Use 'rwl', "
            f"rate more clips, or leave them out to train on real rows alone. {told}".rstrip()
        )
    chosen = weighted_rows(rows, torch.ones_like(rows.reward), generated, real_weight=args.real_weight)
    return chosen._replace(warnings=[told] if told else [])


RS = Objective("rs", "rejection sampling: only clips that are best in every dimension", likelihood, select)
