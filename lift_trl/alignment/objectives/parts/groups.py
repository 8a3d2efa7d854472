"""Clips of one prompt as a group: advantages, signed and relative to the group."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ....rubric import REWARD_MARGIN
from .references import REFERENCE_OPTIONS
from .step import Needs, RatedRows, StepRows, TrainingRows, chosen_and_rejected, other
from .weights import weighted_rows


if TYPE_CHECKING:
    from .settings import ObjectiveArguments

#: The settings that `nft` and `awm` read.
ADVANTAGE_OPTIONS = (
    *("beta", "advantage_baseline", "advantage_clip", "min_reward_gap", "multi_objective_aggregation", "kl_coef"),
    *REFERENCE_OPTIONS,
)


class Advantages(NamedTuple):
    """`value` float32 [N], 0 outside of groups and in flat ones; `flat` bool [N]: clips whose group has no spread."""

    value: Tensor
    flat: Tensor


def advantages(reward: Tensor, groups: Sequence[Sequence[int]], *, baseline: str, min_gap: float = 0.0) -> Advantages:
    """
    How much better each clip is than the others of its group.

    `"group"`: (r - mean) / std of the group (std over n, not n - 1). `"leave_one_out"`: r - mean of the others, in units of
    the reward. A group whose rewards differ by no more than `min_gap` says nothing, and its deviation would make much of it:
    0, and flat.

    Source: GRPO, arXiv 2402.03300; RLOO, arXiv 2402.14740.
    """
    value, flat = torch.zeros(len(reward), dtype=torch.float64), torch.zeros(len(reward), dtype=torch.bool)
    for places in groups:
        rewards = reward[list(places)].double()
        if rewards.max() - rewards.min() <= min_gap + REWARD_MARGIN:
            flat[list(places)] = True
            continue
        centred = rewards - rewards.mean()
        if baseline == "leave_one_out":
            value[list(places)] = centred * len(places) / (len(places) - 1)
        else:
            value[list(places)] = centred / rewards.std(correction=0)
    return Advantages(value.float(), flat)


def select_advantages(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    Advantages within each prompt, clipped at `advantage_clip`; groups flat by `min_reward_gap` are left out and counted.

    With `multi_objective_aggregation="normalize_then_sum"` each dimension is normalised on its own, then they are summed (by
    `dimension_weights`) and normalised again, so that a dimension of little spread speaks as loudly as the others.

    Raises:
        ValueError: if every group is flat, or labels are needed and missing.
    """
    by_prompt: dict[str, list[int]] = {}
    for place in (~rows.is_real).nonzero().flatten().tolist():
        by_prompt.setdefault(rows.prompts[place], []).append(place)
    groups, reward, min_gap = list(by_prompt.values()), rows.reward, args.min_reward_gap
    if args.multi_objective_aggregation == "normalize_then_sum":
        reward, min_gap = _summed(rows, groups), 0.0  # in deviations now
    found = advantages(reward, groups, baseline=args.advantage_baseline, min_gap=min_gap)
    chosen = ~rows.is_real & ~found.flat
    if groups and not chosen.any():
        raise ValueError(
            f"objective={args.objective!r}: in each of {len(groups)} prompts no two clips differ by more than "
            f"min_reward_gap={min_gap} in reward. Rate several clips a prompt, lower min_reward_gap, or use 'rwl'."
        )
    limit = args.advantage_clip
    notes = {
        "groups": len(groups),
        "flat_groups": sum(bool(found.flat[places[0]]) for places in groups),
        "clipped": float((found.value[chosen].abs() > limit).double().mean()) if chosen.any() else 0.0,
    }
    return weighted_rows(
        rows, torch.ones_like(reward), chosen, real_weight=args.real_weight, advantage=found.value.clamp(-limit, limit),
        notes=notes,
    )  # fmt: skip


def _summed(rows: RatedRows, groups: Sequence[Sequence[int]]) -> Tensor:
    """The sum over dimensions of what each one says of the clips of a group."""
    generated = rows.dimension_reward[~rows.is_real]
    if unlabelled := int(generated.isnan().any(dim=1).sum()):
        raise ValueError(
            f"multi_objective_aggregation='normalize_then_sum' needs labels, and {unlabelled} clips have only a reward. "
            "Use 'sum_then_normalize', or give the labels of these clips."
        )
    equal = [1.0] * rows.dimension_reward.shape[1]
    weights = list(rows.dimension_weights.values()) if rows.dimension_weights else equal
    columns = [
        weight * advantages(rows.dimension_reward[:, index], groups, baseline="group").value
        for index, weight in enumerate(weights)
    ]
    return torch.stack(columns).sum(dim=0)


def needs_old(args: "ObjectiveArguments") -> frozenset[Needs]:
    """The policy that sampled; the base too where a KL to it is paid for."""
    return frozenset({"old", "reference"} if args.kl_coef else {"old"})


def advantage_health(rows: StepRows, args: "ObjectiveArguments") -> Mapping[str, Tensor]:
    """Errors against those of the old policy, of good and bad clips, and the distance to it."""
    old = other(rows.old)
    figures = {
        **chosen_and_rejected(rows.advantage, old.error - rows.error),
        "kl_old": old.distance,
        "reference_error": old.error,
    }
    return figures if rows.reference is None else {**figures, "kl": rows.reference.distance}
