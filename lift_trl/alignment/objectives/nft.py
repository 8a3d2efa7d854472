"""`nft`: negative-aware fine-tuning, towards good clips and away from bad ones of the same prompt; made for rounds."""

from typing import TYPE_CHECKING

from torch import Tensor

from .parts.groups import ADVANTAGE_OPTIONS, advantage_health, needs_old, select_advantages
from .parts.step import Objective, StepRows, other


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def nft(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """
    A l + (k - A) mean|v - v_old|^2 (+ kl_coef mean|v - v0|^2), k = beta A_max, A clipped at A_max = `advantage_clip`.

    This is DiffusionNFT's A_max (r mean|v+ - target|^2 + (1 - r) mean|v- - target|^2) / beta, with r = A / 2 A_max + 1/2,
    v+ = beta v + (1 - beta) v_old and v- = (1 + beta) v_old - beta v, up to a term without gradient. Its curvature is k for
    every row, so it has a minimum: v_old + A / k (target - v_old).

    Returns: `Tensor` of shape `(B,)`, float32.   Source: DiffusionNFT, arXiv 2509.16117, equation 5.
    """
    strength = args.strength * args.advantage_clip
    loss = rows.advantage * rows.error + (strength - rows.advantage) * other(rows.old).distance
    return loss + args.kl_coef * other(rows.reference).distance if args.kl_coef else loss


NFT = Objective(
    "nft",
    "negative-aware fine-tuning on advantages within each prompt",
    nft,
    select_advantages,
    needs_old,
    options=ADVANTAGE_OPTIONS,
    health=advantage_health,
    compares=True,
)
