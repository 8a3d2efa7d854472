"""`dpo`: direct preference optimisation on pairs of clips of one prompt."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .pairs import select_pairs
from .step import Needs, Objective, OtherPolicy, StepRows, other


if TYPE_CHECKING:
    from .settings import ObjectiveArguments


def needs_reference(args: "ObjectiveArguments") -> frozenset[Needs]:
    """The base, or with `sync_ref_model` the policy that the run started from and that follows it."""
    return frozenset({"old"} if args.sync_ref_model else {"reference"})


def reference(rows: StepRows, args: "ObjectiveArguments") -> OtherPolicy:
    """The policy that `needs_reference` names."""
    return other(rows.old if args.sync_ref_model else rows.reference)


def implicit_reward(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """l0 - l [B]: by how much the policy denoises the clip better than the reference does; -l if `reference_free`."""
    return -rows.error if args.reference_free else reference(rows, args).error - rows.error


def margin(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """m [B]: the implicit reward of the preferred clip minus that of the other, on both rows of a pair."""
    reward = implicit_reward(rows, args)
    return rows.preference * (reward - reward[rows.partner])


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
    reward, gap = args.strength * implicit_reward(rows, args), margin(rows, args)
    nothing = torch.full_like(reward, torch.nan)
    figures = {
        "rewards/chosen": torch.where(rows.preference > 0, reward, nothing),
        "rewards/rejected": torch.where(rows.preference < 0, reward, nothing),
        "rewards/margins": args.strength * gap,
        "rewards/accuracies": (gap > 0).float(),
    }
    if args.reference_free:
        return figures
    return {**figures, "kl": reference(rows, args).distance, "reference_error": reference(rows, args).error}


DPO = Objective(
    "dpo",
    "direct preference optimisation on pairs of clips of one prompt",
    dpo,
    select_pairs,
    lambda args: frozenset() if args.reference_free else needs_reference(args),
    options=(
        *("beta", "loss_type", "reference_free", "min_reward_gap", "pairs_per_prompt"),
        *("sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha"),
    ),
    health=health,
)
