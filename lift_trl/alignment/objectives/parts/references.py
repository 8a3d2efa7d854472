"""What `dpo` and `kto` compare the policy with: the base, or a reference that follows it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .step import Needs, OtherPolicy, StepRows, other


if TYPE_CHECKING:
    from .settings import ObjectiveArguments

#: The settings of a reference, or old policy: how it moves, and how far the policy may go from it.
REFERENCE_OPTIONS = ("sync_ref_model", "ref_model_sync_steps", "ref_model_mixup_alpha", "max_kl_fraction")


def needs_reference(args: "ObjectiveArguments") -> frozenset[Needs]:
    """The base, or with `sync_ref_model` the policy that the run started from and that follows it."""
    return frozenset({"old"} if args.sync_ref_model else {"reference"})


def implicit_reward(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """l0 - l [B]: by how much the policy denoises the clip better than the reference does."""
    return _reference(rows, args).error - rows.error


def distance(rows: StepRows, args: "ObjectiveArguments") -> Mapping[str, Tensor]:
    """How far the policy is from the reference, and the reference's error, which that is a share of."""
    policy = _reference(rows, args)
    return {"kl": policy.distance, "reference_error": policy.error}


def _reference(rows: StepRows, args: "ObjectiveArguments") -> OtherPolicy:
    return other(rows.old if args.sync_ref_model else rows.reference)
