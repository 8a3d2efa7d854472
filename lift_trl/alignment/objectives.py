"""Stage 3 as a column: an objective turns (reward, is_real) of the whole dataset into one weight for each row."""

from typing import NamedTuple

import torch
from torch import Tensor


OBJECTIVES = ("rwl", "rs", "sft")


class RowWeights(NamedTuple):
    """`weight` (float32 [N], >= 0) and `keep` (bool [N]): the rows that are trained on. Dropped rows have weight 0."""

    weight: Tensor
    keep: Tensor


def row_weights(
    reward: Tensor,
    is_real: Tensor,
    all_good: Tensor,
    *,
    objective: str,
    real_weight: float = 1.0,
    normalize_rewards: bool = False,
) -> RowWeights:
    """
    Weights whose mean-weighted loss over the kept rows equals mean_g(r * l) + lambda * mean_r(l).

    With N = N_g + N_r kept rows, `w = r * N / N_g` for generated and `w = lambda * N / N_r` for real rows. The counts
    are the dataset's, never a batch's. `rwl` weighs by the reward (equation 3), `rs` keeps the generated rows that are
    Good in all dimensions with r = 1 (equation 4), `sft` sets r = 1 for all.

    Args:
        reward (`Tensor` of shape `(N,)`, in [0, 1]): NaN where real.
        is_real (`Tensor` of shape `(N,)`, bool): real videos, which have no reward.
        all_good (`Tensor` of shape `(N,)`, bool): generated videos with the best label in every dimension.
        objective (`str`): one of `"rwl"`, `"rs"`, `"sft"`.
        real_weight (`float`, >= 0): lambda. With 0, real rows are dropped.
        normalize_rewards (`bool`): divide the rewards by their mean over the kept generated rows, so that the learning
            rate means the same whatever the reward's scale.

    Returns:
        `RowWeights`.

    Raises:
        ValueError: if a generated row is unscored, or nothing is left to train on.

    Source: equations 3 and 4 of arXiv 2412.04814.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective={objective!r}; use one of {', '.join(OBJECTIVES)}.")
    if not real_weight >= 0:
        raise ValueError(f"real_weight={real_weight}; lambda must be >= 0.")
    generated = ~is_real
    if unscored := int(reward[generated].isnan().sum()):
        raise ValueError(
            f"{unscored} generated rows have no reward. Score them, or leave them out; there is no default."
        )
    if objective == "rs":
        generated = generated & all_good
    keep = generated | (is_real & (real_weight > 0))
    num_generated, num_real = int(generated.sum()), int((keep & is_real).sum())
    if num_generated == 0 and (given := int((~is_real).sum())):
        raise ValueError(
            f"objective={objective!r} keeps none of {given} generated rows: none is Good in all dimensions. Use 'rwl', "
            "rate more clips, or leave them out to train on real rows alone."
        )
    if num_generated + num_real == 0:
        raise ValueError(f"no row is left to train on: {len(reward)} real rows at real_weight={real_weight}.")
    value = reward.double().nan_to_num() if objective == "rwl" else torch.ones_like(reward, dtype=torch.float64)
    if normalize_rewards and num_generated:
        mean = value[generated].mean()
        if mean <= 0:
            raise ValueError("normalize_rewards: the mean reward is 0, so nothing can be normalised.")
        value = value / mean
    total = num_generated + num_real
    weight = torch.zeros_like(value)
    if num_generated:
        weight[generated] = value[generated] * total / num_generated
    if num_real:
        weight[keep & is_real] = real_weight * total / num_real
    return RowWeights(weight.float(), keep)


def per_sample_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample in float32: `[B, ...]`, `[B, ...]` -> `[B]`."""
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def effective_sample_size(weight: Tensor) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted samples `weight` is worth; 0 where all weights are 0."""
    weight = weight.double()
    squares = weight.square().sum()
    return float(weight.sum().square() / squares) if squares > 0 else 0.0
