"""`awm`: advantage-weighted matching, a likelihood with signed weights and an anchor of one strength."""

from typing import TYPE_CHECKING

from torch import Tensor

from .parts.groups import ADVANTAGE_OPTIONS, advantage_health, needs_old, select_advantages
from .parts.step import Objective, StepRows, other


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def awm(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """
    A l + beta mean|v - v_old|^2 (+ kl_coef mean|v - v0|^2).

    Against `nft` only the anchor differs: beta here, k - A there. With beta = 0 and A >= 0 it is `rwl`, which `nft` never
    is; but where A < -beta its curvature is negative and it has no minimum: clip the advantages at beta, or take `nft`.

    Returns: `Tensor` of shape `(B,)`, float32.   Source: Advantage Weighted Matching, arXiv 2509.25050.
    """
    loss = rows.advantage * rows.error + args.strength * other(rows.old).distance
    return loss + args.kl_coef * other(rows.reference).distance if args.kl_coef else loss


AWM = Objective(
    "awm",
    "likelihood weighted by signed advantages within each prompt",
    awm,
    select_advantages,
    needs_old,
    options=ADVANTAGE_OPTIONS,
    health=advantage_health,
    compares=True,
)
