"""`dpo`: direct preference optimisation on pairs of clips of one prompt."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .parts.pairs import select_pairs
from .parts.references import REFERENCE_OPTIONS, distance, implicit_reward, needs_reference
from .parts.step import Objective, StepRows, chosen_and_rejected


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def reward(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """The implicit reward l0 - l [B], or -l if `reference_free`."""
    return -rows.error if args.reference_free else implicit_reward(rows, args)


def margin(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """m [B]: the implicit reward of the preferred clip minus that of the other, on both rows of a pair."""
    own = reward(rows, args)
    return rows.preference * (own - own[rows.partner])


def dpo(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """
    -2 / beta log sigmoid(beta m), m = (l0 - l)_preferred - (l0 - l)_other, l = mean|v - target|^2, l0 the reference's.

    With a capped margin: `loss_type="hinge"` max(0, 1 - beta m) / beta, `"ipo"` beta (m - 1 / 2 beta)^2.
    All have the gradient grad(l_preferred - l_other) at the reference, so that one learning rate serves every beta.

    Returns: `Tensor` of shape `(B,)`, float32. At the reference the sigmoid is 2 / beta log 2.

    Source: Diffusion-DPO, arXiv 2311.12908, equation 14, whose beta T is ours; hinge: arXiv 2305.10425; ipo: 2310.12036.
    """
    beta, gap = args.strength, margin(rows, args)
    if args.loss_type == "hinge":
        return torch.relu(1 - beta * gap) / beta
    if args.loss_type == "ipo":
        return beta * (gap - 1 / (2 * beta)).square()
    return -2 / beta * logsigmoid(beta * gap)


def health(rows: StepRows, args: "ObjectiveArguments") -> Mapping[str, Tensor]:
    """TRL's figures: where both rewards fall, likelihood moves away from winners too, the known failure."""
    gap = margin(rows, args)
    figures = {
        **chosen_and_rejected(rows.preference, args.strength * reward(rows, args)),
        "rewards/margins": args.strength * gap,
        "rewards/accuracies": (gap > 0).float(),
    }
    return figures if args.reference_free else {**figures, **distance(rows, args)}


DPO = Objective(
    "dpo",
    "direct preference optimisation on pairs of clips of one prompt",
    dpo,
    select_pairs,
    lambda args: frozenset() if args.reference_free else needs_reference(args),
    options=("beta", "loss_type", "reference_free", "min_reward_gap", "pairs_per_prompt", *REFERENCE_OPTIONS),
    health=health,
    compares=True,
)
