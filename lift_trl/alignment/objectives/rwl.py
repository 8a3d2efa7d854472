"""`rwl`: reward-weighted learning, the paper's objective."""

from typing import TYPE_CHECKING

from .parts.step import Objective, RatedRows, TrainingRows
from .parts.weights import likelihood, weighted_rows


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def select(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    L = mean_g(r l) + lambda mean_r(l); with `normalize_rewards` r is divided by its mean over the generated rows.

    The gain follows std(r) / mean(r), which is small for rewards of equation 2: other objectives gain more.

    Raises:
        ValueError: if the rewards are to be normalised and are all 0.

    Source: equation 3 of arXiv 2412.04814.
    """
    generated, value = ~rows.is_real, rows.reward.double().nan_to_num()
    if args.normalize_rewards and generated.any():
        mean = value[generated].mean()
        if mean <= 0:
            raise ValueError("normalize_rewards: the mean reward is 0, so nothing can be normalised.")
        value = value / mean
    return weighted_rows(rows, value, generated, real_weight=args.real_weight)


RWL = Objective("rwl", "likelihood weighted by each clip's reward", likelihood, select, options=("normalize_rewards",))
