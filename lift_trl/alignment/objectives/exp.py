"""`exp`: likelihood with exponential weights, between RWL (large temperature) and the single best clips (small)."""

from typing import TYPE_CHECKING

from .parts.step import Objective, RatedRows, TrainingRows
from .parts.weights import likelihood, weighted_rows


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def select(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    L = mean_g(w l) + lambda mean_r(l) with w = exp(r / tau) / mean_g(exp(r / tau)), tau = `reward_temperature`.

    Source: advantage-weighted regression (arXiv 1910.00177) without a baseline, which cancels in the mean.
    """
    generated, reward = ~rows.is_real, rows.reward.double().nan_to_num()
    highest = reward[generated].max() if generated.any() else 0.0
    value = ((reward - highest) / args.reward_temperature).exp()  # the shift cancels, and exp stays finite
    return weighted_rows(rows, value / value[generated].mean(), generated, real_weight=args.real_weight)


EXP = Objective(
    "exp",
    "likelihood weighted by the exponential of each clip's reward",
    likelihood,
    select,
    options=("reward_temperature",),
)
