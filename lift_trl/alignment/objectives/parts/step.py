"""What an objective is: which rows of a dataset count and how, and the loss of a step's rows, a pure function of tensors.

B rows of a step, N clips of a dataset, P pairs, D dimensions. Every error is a mean over the elements of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from ....rubric import LIFT


if TYPE_CHECKING:
    from .settings import ObjectiveArguments


class RatedRows(NamedTuple):
    """
    The N clips of a dataset.

    Attributes:
        reward: float32 [N], in [0, 1], NaN where real or known by pairs alone.
        dimension_reward: float32 [N, D], NaN where unknown.
        is_real, all_good: bool [N].
        ids, prompts: of each clip.
        pairs: positions (preferred, other) that people chose, `None` where there are none.
        dimension_weights: of each of the D dimensions in a reward, in their order; `None` for equal ones.
        best_reward: that of the best label; from it on a clip without labels is `all_good`.
    """

    reward: Tensor
    dimension_reward: Tensor
    is_real: Tensor
    all_good: Tensor
    ids: Sequence[str]
    prompts: Sequence[str]
    pairs: Sequence[tuple[int, int]] | None = None
    dimension_weights: Mapping[str, float] | None = None
    best_reward: float = LIFT.rewards[LIFT.best]

    def rewards_alone(self) -> str:
        """What to tell of sampled clips whose reward alone says whether they are `all_good`; empty where none is so."""
        alone = ~self.is_real & self.dimension_reward.isnan().all(dim=1) & self.reward.isfinite()
        if not alone.any():
            return ""
        return (
            f"{int(alone.sum())} clips have a reward and no labels: from {self.best_reward:g} on they count as best in all "
            f"dimensions, which {int((alone & self.all_good).sum())} do; the highest has {self.reward[alone].max():.3f}. "
            "Where a judge's rewards mean something else, use 'best_of_n' or 'rwl', or score with another --scale."
        )


class TrainingRows(NamedTuple):
    """
    What an objective makes of them.

    Attributes:
        weight: float32 [N], >= 0; the sum of weight * loss over the rows trained on is the objective times the number of
            their units, each a clip or a pair.
        keep: bool [N], the clips that are trained on.
        advantage: float32 [N], signed, 0 where there is none.
        preference: int64 [N], 1 desirable, -1 undesirable, 0 neither.
        pairs: int64 [P, 2], positions (preferred, other); where there are any, sampled clips are trained on in pairs only.
        notes: counts to tell the user, such as ties left out.
        warnings: what is probably wrong, each with its remedy.
    """

    weight: Tensor
    keep: Tensor
    advantage: Tensor
    preference: Tensor
    pairs: Tensor
    notes: Mapping[str, float]
    warnings: Sequence[str] = ()

    @classmethod
    def all(cls, number: int) -> "TrainingRows":
        """Every clip, alike."""
        weight, keep = torch.ones(number), torch.ones(number, dtype=torch.bool)
        zeros, pairs = torch.zeros(number), torch.empty(0, 2, dtype=torch.long)
        return cls(weight, keep, zeros, zeros.long(), pairs, {})


class OtherPolicy(NamedTuple):
    """
    Another policy v' on the same rows: `error` [B] = mean|v' - target|^2, without gradient, and `distance` [B] =
    mean|v - v'|^2, whose gradient is that of the trained policy v.
    """

    error: Tensor
    distance: Tensor


class StepRows(NamedTuple):
    """
    The B rows of a step, all float32 [B] unless said otherwise. Rows of real clips are there and not used.

    Attributes:
        error: mean|v - target|^2 of the policy, with gradient; target is what the network natively predicts.
        reward, advantage: NaN and 0 where real.
        preference: int64, 1, -1 or 0; of a pair 1 and -1.
        partner: int64, the row that this one is paired with; its own number where it has none.
        reference: the base, with its adapter off; `None` where the objective does not need it.
        old: the policy that sampled, or the one that the run started from; `None` as above.
    """

    error: Tensor
    reward: Tensor
    advantage: Tensor
    preference: Tensor
    partner: Tensor
    reference: OtherPolicy | None = None
    old: OtherPolicy | None = None


Loss = Callable[[StepRows, "ObjectiveArguments"], Tensor]
Needs = Literal["reference", "old"]


@dataclass(frozen=True)
class Objective:
    """
    One way to learn from rated clips. Give one of your own to the trainer, or its `loss` alone.

    Attributes:
        name: as in `objective:`.
        words: what it does, in a few words, for the card.
        loss: rows of a step -> their losses, float32 [B]. A pair's loss stands on both of its rows.
        select: the dataset's clips -> which are trained on and how.
        needs: the other policies that `loss` reads, for given settings.
        options: names of the settings that it reads; others are warned of.
        health: rows of a step -> what is logged, by name: float32 [B], NaN where a row says nothing.
        compares: whether clips of one prompt are compared with one another: one clip a prompt says nothing then.
    """

    name: str
    words: str
    loss: Loss
    select: Callable[[RatedRows, "ObjectiveArguments"], TrainingRows]
    needs: Callable[["ObjectiveArguments"], frozenset[Needs]] = lambda args: frozenset()
    options: tuple[str, ...] = ()
    health: Callable[[StepRows, "ObjectiveArguments"], Mapping[str, Tensor]] = lambda rows, args: {}
    compares: bool = False


def other(policy: OtherPolicy | None) -> OtherPolicy:
    """`policy`, which the trainer gives because the objective's `needs` say so."""
    assert policy is not None, "an objective reads a policy that its needs do not name"
    return policy


def chosen_and_rejected(sign: Tensor, reward: Tensor) -> Mapping[str, Tensor]:
    """TRL's names for `reward` [B] of the rows whose `sign` is above 0, and below it."""
    nothing = torch.full_like(reward, torch.nan)
    return {
        "rewards/chosen": torch.where(sign > 0, reward, nothing),
        "rewards/rejected": torch.where(sign < 0, reward, nothing),
    }
