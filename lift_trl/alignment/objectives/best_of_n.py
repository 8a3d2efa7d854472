"""`best_of_n`: the best clips of each prompt, as SFT; the cheapest step up from rejection sampling."""

from typing import TYPE_CHECKING

import torch

from .parts.step import Objective, RatedRows, TrainingRows
from .parts.weights import likelihood, weighted_rows


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments


def select(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    L = mean(l over the `keep_per_prompt` best clips of each prompt) + lambda mean_r(l).

    Of clips with the same reward that with the smaller id is kept: ids are hashes, so this is a draw that stays.

    Source: best-of-n distillation, as in RAFT (arXiv 2304.06767).
    """
    best = torch.zeros_like(rows.is_real)
    by_prompt: dict[str, list[int]] = {}
    for place in (~rows.is_real).nonzero().flatten().tolist():
        by_prompt.setdefault(rows.prompts[place], []).append(place)
    reward = rows.reward.tolist()
    for places in by_prompt.values():
        ranked = sorted(places, key=lambda place: (-reward[place], rows.ids[place]))
        best[ranked[: args.keep_per_prompt]] = True
    notes = {"prompts": len(by_prompt), "clips_a_prompt": int((~rows.is_real).sum()) / max(len(by_prompt), 1)}
    return weighted_rows(rows, torch.ones_like(rows.reward), best, real_weight=args.real_weight, notes=notes)


BEST_OF_N = Objective(
    "best_of_n", "only the best clips of each prompt", likelihood, select, options=("keep_per_prompt",)
)
