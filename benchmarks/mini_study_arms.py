"""The arms of `benchmarks.mini_study`: what each one trains on, and how."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


#: The control with which the model's own samples weigh as much beside the real ones as under the critic's rewards.
LEVEL = "SFT at the mean reward"


class Arm(NamedTuple):
    """
    One way to train. `labels`: whose rewards, "mean" being the critic's mean reward for each clip; `num_videos`: of the
    base, all for `None`; `settings`: of the objective, beside its own.
    """

    name: str
    objective: str
    labels: str = "critic"
    real_weight: float = 1.0
    num_videos: int | None = None
    settings: Mapping[str, Any] = MappingProxyType({})


CORE = (
    Arm("SFT", "sft"),
    Arm("RWL", "rwl"),
    Arm("RS", "rs"),
    Arm(LEVEL, "rwl", labels="mean"),
    Arm("RWL, shuffled rewards", "rwl", labels="shuffled"),
    Arm("RWL, oracle's rewards", "rwl", labels="oracle"),
    Arm("SFT, no real videos", "sft", real_weight=0.0),
    Arm("RWL, no real videos", "rwl", real_weight=0.0),
    Arm("RWL, shuffled rewards, no real videos", "rwl", labels="shuffled", real_weight=0.0),
)
SWEEP = tuple(
    Arm(f"{objective.upper()}, noise {noise}, {number} videos", objective, f"noise {noise}", 0.0, number)
    for noise in (0.0, 0.15, 0.3)
    for number in (96, 192, 384)
    for objective in ("rwl", "rs")
)


#: How the tier `objectives` trains: 288 clips of the base, six a prompt, in steps of 32 clips.
SHORT = {"max_steps": 120, "per_device_train_batch_size": 32}
NAMES = {
    "sft": "SFT", "rwl": "RWL", "rs": "RS", "best_of_n": "best 1 of 6", "dpo": "DPO", "kto": "KTO", "nft": "NFT",
    "exp": "exp", "awm": "AWM",
}  # fmt: skip
MAIN = ("sft", "rwl", "rs", "best_of_n", "kto", "nft", "dpo")


def _arm(objective: str, labels: str, real: bool) -> Arm:
    """An arm of the tier `objectives`. A pair is two clips, so DPO takes half as many of them a step."""
    signed = objective in ("dpo", "kto", "nft", "awm")
    settings: dict[str, Any] = dict(SHORT) | ({"per_device_train_batch_size": 16} if objective == "dpo" else {})
    settings |= {"caption_dropout": 0.0} if signed else {}
    name = NAMES[objective] + (
        "" if labels == "oracle" else f", {labels}'s rewards" if labels == "critic" else f", {labels}"
    )
    # The gradients of signed objectives are those of l in both directions: a third of the real term is a quarter of them.
    weight = (1 / 3 if signed else 1.0) if real else 0.0
    return Arm(name if real else f"{name}, no real videos", objective, labels, weight, 288, settings)


#: In the order in which they are run: what matters most comes first. SFT looks at no rewards, so it has none's name.
OBJECTIVE_BLOCKS = (
    (_arm("sft", "oracle", True), *(_arm(objective, "critic", True) for objective in MAIN[1:])),
    (_arm("sft", "oracle", False), *(_arm(objective, "critic", False) for objective in MAIN[1:])),
    tuple(_arm(objective, "shuffled", False) for objective in MAIN[:0:-1]),
    tuple(_arm(objective, "oracle", False) for objective in (*MAIN[1:], "awm", "exp")),
    tuple(_arm(objective, "oracle", True) for objective in MAIN[1:]),
)
#: What every family is compared by: the oracle's rewards, without real videos, and shuffled as the control.
FAMILIES = (*(_arm(name, "oracle", False) for name in MAIN), _arm("rwl", "shuffled oracle", False))
#: Stillness is rewarded and nothing else, in short rounds: the reward rises, the model ends.
_HACKED = _arm("dpo", "oracle", False)
HACKED = _HACKED._replace(settings={**_HACKED.settings, "max_steps": 40})


def _in_rounds(real: bool) -> tuple[Arm, ...]:
    nft = _arm("nft", "oracle", real)
    others = tuple(_arm(objective, "oracle", real) for objective in ("rs", "rwl", "dpo"))
    return (nft._replace(settings={**nft.settings, "beta": 0.05}), *others)


#: Objectives in rounds, the oracle's honest rewards; the reference of the one with a moving one is the last round's LoRA.
ROUNDS = (
    *_in_rounds(False),
    _arm("dpo", "oracle", False)._replace(
        name="DPO, moving reference, no real videos",
        settings={**SHORT, "per_device_train_batch_size": 16, "caption_dropout": 0.0, "sync_ref_model": True,
                  "ref_model_sync_steps": 0},
    ),
    *_in_rounds(True),
)  # fmt: skip
TIERS = {"core": CORE, "sweep": SWEEP, "objectives": sum(OBJECTIVE_BLOCKS, ()), "families": FAMILIES, "rounds": ()}
