"""Pairs of clips of one prompt, one of which is preferred: from their rewards, or as people chose."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ....rubric import REWARD_MARGIN
from .step import RatedRows, TrainingRows
from .weights import weighted_rows


if TYPE_CHECKING:
    from .settings import ObjectiveArguments


class FoundPairs(NamedTuple):
    """`pairs`: positions (preferred, other). `prompts`: how many have a pair. `ties`: pairs that were left out as equal."""

    pairs: list[tuple[int, int]]
    prompts: int
    ties: int


def pairs_by_reward(
    reward: Tensor, prompts: Sequence[str], ids: Sequence[str], *, min_gap: float, per_prompt: int | None = None
) -> FoundPairs:
    """
    All pairs of one prompt whose rewards differ by more than `min_gap`; the others are ties.

    Args:
        reward (`Tensor` of shape `(N,)`): NaN for clips that belong to no pair.
        per_prompt: at most so many of each prompt, those of the largest gaps; of equal gaps those with the smaller ids.
    """
    groups: dict[str, list[int]] = {}
    rewards = reward.double().tolist()
    for place in (~reward.isnan()).nonzero().flatten().tolist():
        groups.setdefault(prompts[place], []).append(place)
    found, with_pairs, ties = [], 0, 0
    for places in groups.values():
        pairs = [sorted(pair, key=lambda place: -rewards[place]) for pair in combinations(places, 2)]
        decided = [(a, b) for a, b in pairs if rewards[a] - rewards[b] > min_gap + REWARD_MARGIN]
        decided.sort(key=lambda pair: (rewards[pair[1]] - rewards[pair[0]], ids[pair[0]], ids[pair[1]]))
        ties += len(pairs) - len(decided)
        with_pairs += bool(decided)
        found += decided[:per_prompt]
    return FoundPairs(found, with_pairs, ties)


def select_pairs(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    People's pairs where the dataset has any, else those of the rewards; L = mean_pairs(loss) + lambda mean_r(l).

    `pairs_per_prompt` and `min_reward_gap` choose among pairs by their rewards, which people's have not.

    Raises:
        ValueError: if there is no pair.
    """
    if rows.pairs is None:
        found = pairs_by_reward(
            rows.reward, rows.prompts, rows.ids, min_gap=args.min_reward_gap, per_prompt=args.pairs_per_prompt
        )
    else:
        found = FoundPairs(list(rows.pairs), len({rows.prompts[a] for a, _ in rows.pairs}), 0)
    if not found.pairs:
        raise ValueError(
            f"objective={args.objective!r}: no two clips of one prompt differ by more than min_reward_gap="
            f"{args.min_reward_gap} in reward ({found.ties} ties). Rate several clips a prompt, lower min_reward_gap, or "
            "use 'rwl'."
        )
    pairs = torch.tensor(found.pairs)
    chosen = torch.zeros_like(rows.is_real)
    chosen[pairs.flatten()] = True
    notes = {"pairs": len(pairs), "prompts": found.prompts, "ties": found.ties}
    unread = "pairs_per_prompt is not read: people chose these pairs. Leave it out."
    weighted = weighted_rows(
        rows, torch.ones_like(rows.reward), chosen, real_weight=args.real_weight, pairs=pairs, notes=notes
    )
    return weighted._replace(warnings=[unread] if rows.pairs is not None and args.pairs_per_prompt else [])
