"""Weights of rows: counts are the dataset's, never a batch's, and the real term enters every objective alike."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .step import RatedRows, StepRows, TrainingRows


if TYPE_CHECKING:
    from .settings import ObjectiveArguments


def weighted_rows(
    rows: RatedRows,
    value: Tensor,
    chosen: Tensor,
    *,
    real_weight: float,
    advantage: Tensor | None = None,
    preference: Tensor | None = None,
    pairs: Tensor | None = None,
    notes: Mapping[str, float] | None = None,
) -> TrainingRows:
    """
    Weights with which the sum of weight * loss over all rows is N times mean_g(value * l) + lambda * mean_r(l).

    N counts units, clips or pairs, which a sampler draws alike. With N_g generated rows (two a pair) and N_r real ones
    `w = value * N / N_g` for generated and `w = lambda * N / N_r` for real rows.

    Args:
        value (`Tensor` of shape `(N,)`, >= 0): what each generated row counts.
        chosen (`Tensor` of shape `(N,)`, bool): the generated rows that are trained on. With `pairs`, a row counts as often
            as it stands in one.
        real_weight (`float`, >= 0): lambda. With 0, real rows are dropped.

    Raises:
        ValueError: if a generated row is unscored or nothing is left to train on.

    Source: equation 3 of arXiv 2412.04814.
    """
    if pairs is None and (unscored := int(rows.reward[~rows.is_real].isnan().sum())):
        raise ValueError(
            f"{unscored} generated rows have no reward. Score them, or leave them out; there is no default."
        )
    real = rows.is_real & (real_weight > 0)
    num_generated, num_real = int(chosen.sum()) if pairs is None else 2 * len(pairs), int(real.sum())
    total = (num_generated if pairs is None else len(pairs)) + num_real
    if total == 0:
        raise ValueError(f"no row is left to train on: {len(value)} real rows at real_weight={real_weight}.")
    weight = torch.zeros(len(value), dtype=torch.float64)
    if num_generated:
        weight[chosen] = value.double()[chosen] * total / num_generated
    if num_real:
        weight[real] = real_weight * total / num_real
    zeros = torch.zeros(len(value))
    return TrainingRows(
        weight.float(),
        chosen | real,
        zeros if advantage is None else advantage.float(),
        zeros.long() if preference is None else preference,
        torch.empty(0, 2, dtype=torch.long) if pairs is None else pairs,
        notes or {},
    )


def likelihood(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """l, the error of each row: with the weights of its rows, a weighted likelihood."""
    return rows.error


def per_sample_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row in float32: `[B, ...]`, `[B, ...]` -> `[B]`."""
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def effective_sample_size(weight: Tensor) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted samples `weight` is worth; 0 where all weights are 0."""
    weight = weight.double()
    squares = weight.square().sum()
    return float(weight.sum().square() / squares) if squares > 0 else 0.0
