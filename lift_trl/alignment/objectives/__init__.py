"""Objectives: what a fine-tuning step does with rated clips. One file each; all share rows, weights and the real term."""

from dataclasses import replace

from .awm import AWM
from .best_of_n import BEST_OF_N
from .dpo import DPO
from .exp import EXP
from .kto import KTO
from .nft import NFT
from .parts.settings import ObjectiveArguments
from .parts.step import Loss, Objective, OtherPolicy, RatedRows, StepRows, TrainingRows
from .parts.weights import effective_sample_size, per_sample_loss
from .rs import RS
from .rwl import RWL
from .sft import SFT


#: By the name that `objective:` has in a YAML.
OBJECTIVES = {objective.name: objective for objective in (SFT, RWL, RS, BEST_OF_N, EXP, DPO, KTO, NFT, AWM)}


def choose_objective(given: Objective | Loss | None, name: str) -> Objective:
    """What the user gave, or what `name` names; a loss alone trains on all rows."""
    if given is None:
        return OBJECTIVES[name]
    if isinstance(given, Objective):
        return given
    return replace(OBJECTIVES["sft"], name=given.__name__, words="a loss of its own", loss=given)


__all__ = [
    "OBJECTIVES",
    "Loss",
    "Objective",
    "ObjectiveArguments",
    "OtherPolicy",
    "RatedRows",
    "StepRows",
    "TrainingRows",
    "choose_objective",
    "effective_sample_size",
    "per_sample_loss",
]
