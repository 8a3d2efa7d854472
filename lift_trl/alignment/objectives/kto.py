"""`kto`: desirable and undesirable clips, each on its own: ratings without pairs or groups."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .parts.references import REFERENCE_OPTIONS, distance, implicit_reward, needs_reference
from .parts.step import Objective, RatedRows, StepRows, TrainingRows, chosen_and_rejected
from .parts.weights import weighted_rows


if TYPE_CHECKING:
    from .parts.settings import ObjectiveArguments

#: A clip that weighs more by itself is warned of: its kind is less than one in twenty.
MOST_BY_BALANCE = 10.0
#: What all desirable clips should weigh, as a multiple of all others. Source: TRL 1.16, trl/trainer/kto_trainer.py.
RATIO = (1.0, 4 / 3)


def select(rows: RatedRows, args: "ObjectiveArguments") -> TrainingRows:
    """
    Desirable: Good in all dimensions. Each kind counts `desirable_weight` and `undesirable_weight`, by default
    N / 2 N_d and N / 2 N_u, so that both kinds together count alike. Of a rare kind each clip then weighs much, which is
    warned of.

    Raises:
        ValueError: if one of the two kinds is missing.
    """
    generated = ~rows.is_real
    good, bad = generated & rows.all_good, generated & ~rows.all_good
    numbers = {"desirable": int(good.sum()), "undesirable": int(bad.sum())}
    if missing := [kind for kind, number in numbers.items() if not number]:
        raise ValueError(
            f"objective='kto' needs desirable clips (Good in all dimensions) and others, and there are no {missing[0]} ones "
            f"among {int(generated.sum())}. Rate more clips, or use 'rwl'. {rows.rewards_alone()}".rstrip()
        )
    half = sum(numbers.values()) / 2
    weights = (
        half / numbers["desirable"] if args.desirable_weight is None else args.desirable_weight,
        half / numbers["undesirable"] if args.undesirable_weight is None else args.undesirable_weight,
    )
    value, preference = good * weights[0] + bad * weights[1], good.long() - bad.long()
    chosen = weighted_rows(rows, value, generated, real_weight=args.real_weight, preference=preference, notes=numbers)
    told = [rows.rewards_alone(), _imbalance(numbers, weights, args)]
    return chosen._replace(warnings=[text for text in told if text])


def _imbalance(numbers: Mapping[str, int], weights: tuple[float, float], args: "ObjectiveArguments") -> str:
    """What to tell of a kind that is rare, or of weights that leave the kinds far from balance."""
    given = {"desirable": args.desirable_weight, "undesirable": args.undesirable_weight}
    for (kind, number), weight in zip(numbers.items(), weights, strict=True):
        if given[kind] is None and weight > MOST_BY_BALANCE:
            return (
                f"{number} {kind} of {sum(numbers.values())} clips weigh {weight:.3g} each, so that both kinds count alike: "
                f"the model sees little else. Rate more clips, set {kind}_weight, or use 'best_of_n' or 'dpo'."
            )
    ratio = weights[0] * numbers["desirable"] / (weights[1] * numbers["undesirable"])
    if RATIO[0] - 1e-6 <= ratio <= RATIO[1] + 1e-6:
        return ""
    return (
        f"all desirable clips weigh {ratio:.3g} times all others; 1 to 1.33 is recommended. Correct desirable_weight and "
        "undesirable_weight, or leave both out: both kinds then count alike."
    )


def kto(rows: StepRows, args: "ObjectiveArguments") -> Tensor:
    """
    4 / beta (1 - sigmoid(beta p s)) with s = l0 - l and p = 1 for desirable, -1 for undesirable clips; at the reference
    2 / beta, with the gradient p grad l.

    Without KTO's baseline z, which was 0 wherever it was tried: TRL's `loss_type="apo_zero_unpaired"`.

    Returns: `Tensor` of shape `(B,)`, float32.   Source: KTO, arXiv 2402.01306; APO-zero, arXiv 2408.06266.
    """
    beta = args.strength
    return 4 / beta * torch.sigmoid(-beta * rows.preference * implicit_reward(rows, args))


def health(rows: StepRows, args: "ObjectiveArguments") -> Mapping[str, Tensor]:
    """Rewards of both kinds, how many are on their side of 0, and the distance to the reference."""
    reward = args.strength * implicit_reward(rows, args)
    return {
        **chosen_and_rejected(rows.preference, reward),
        "rewards/accuracies": (rows.preference * reward > 0).float(),
        **distance(rows, args),
    }


KTO = Objective(
    "kto",
    "Kahneman-Tversky optimisation: clips that are Good in all dimensions against the others",
    kto,
    select,
    needs_reference,
    options=("beta", "desirable_weight", "undesirable_weight", *REFERENCE_OPTIONS),
    health=health,
)
