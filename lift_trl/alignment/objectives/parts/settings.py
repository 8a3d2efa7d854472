"""What an objective reads of a run's settings. `RewardWeightedVideoConfig` has these fields among its own."""

import json
import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from ....documented import documented


ObjectiveName = Literal["sft", "rwl", "rs", "best_of_n", "exp", "dpo", "kto", "nft", "awm"]
# In units of the mean squared error of a row, found on a small model: docs/objectives.md, dev/LOG.md.
_BETAS = {"dpo": 100.0, "kto": 100.0, "nft": 0.02, "awm": 0.25}


@documented
@dataclass
class ObjectiveArguments:
    """
    The objective and its constants; names are TRL's where TRL has them.

    Args:
        objective (`str`, *optional*, defaults to `"rwl"`):
            'rwl' weighs each sampled video by its reward (paper, equation 3), 'rs' keeps those that are best in all
            dimensions (equation 4), 'sft' weighs all alike; 'best_of_n', 'exp', 'dpo', 'kto', 'nft' and 'awm':
            docs/objectives.md. Real videos enter each in the same way.
        real_weight (`float`, *optional*, defaults to `1.0`):
            lambda of equation 3, the weight of the real-video term. 0 leaves it out.
        expected_reward (`bool`, *optional*, defaults to `False`):
            Weigh by the critic's expected reward (of each label by its probability), not by its labels' (paper).
        normalize_rewards (`bool`, *optional*, defaults to `False`):
            rwl: divide rewards by their mean over the dataset, so that the loss has one scale.
        dimension_weights (`dict[str, float]` or `str` or `None`, *optional*, defaults to `None`):
            Weight of each dimension in a clip's reward, by name. Equal by default (paper).
        keep_per_prompt (`int`, *optional*, defaults to `1`):
            best_of_n: so many clips of each prompt are kept.
        reward_temperature (`float`, *optional*, defaults to `0.1`):
            exp: tau, in units of the reward.
        beta (`float` or `None`, *optional*, defaults to `None`):
            How strongly dpo, kto, nft and awm hold to the reference or old policy, in units of the mean squared error
            of a row; by default 100 (dpo, kto), 0.02 (nft), 0.25 (awm).
        loss_type (`str`, *optional*, defaults to `"sigmoid"`):
            dpo: sigmoid as in TRL; hinge and ipo cap the margin.
        reference_free (`bool`, *optional*, defaults to `False`):
            dpo: without a reference, as full training needs.
        min_reward_gap (`float`, *optional*, defaults to `0.05`):
            dpo: clips of one prompt are a pair if their rewards differ by more. nft, awm: a prompt counts if any two of its
            clips' rewards do.
        pairs_per_prompt (`int` or `None`, *optional*, defaults to `None`):
            dpo: at most so many pairs of each prompt, those of the largest gaps.
        desirable_weight (`float` or `None`, *optional*, defaults to `None`):
            kto: of clips that are Good in all dimensions; by default both kinds balance.
        undesirable_weight (`float` or `None`, *optional*, defaults to `None`):
            kto: of the other clips.
        advantage_baseline (`str`, *optional*, defaults to `"group"`):
            nft, awm: of a prompt's clips, (r - mean) / std (group), or r - mean of the others (leave_one_out).
        advantage_clip (`float`, *optional*, defaults to `5.0`):
            nft, awm: advantages are clipped at plus and minus.
        multi_objective_aggregation (`str`, *optional*, defaults to `"sum_then_normalize"`):
            nft, awm: advantages of the reward (sum_then_normalize), or of each dimension on its own, then their sum
            (normalize_then_sum).
        kl_coef (`float`, *optional*, defaults to `0.0`):
            nft, awm: weight of mean|v - v_base|^2; above 0 costs a forward pass.
        sync_ref_model (`bool`, *optional*, defaults to `False`):
            Reference (dpo, kto) or old policy (nft, awm) is the LoRA that the run started from, and follows the
            trained one every ref_model_sync_steps. Without it, dpo and kto hold to the base, nft and awm to the start.
        ref_model_sync_steps (`int`, *optional*, defaults to `512`):
            Optimiser steps between two updates of sync_ref_model; 0 for none in a run.
        ref_model_mixup_alpha (`float`, *optional*, defaults to `0.6`):
            An update is alpha * trained + (1 - alpha) * reference.
        max_kl_fraction (`float` or `None`, *optional*, defaults to `None`):
            Stop where the log's kl_fraction (kl_old_fraction) is above this: the mean squared distance to the
            reference as a share of its error. 0.15 was harmless where 0.35 was not.
    """

    objective: ObjectiveName = "rwl"
    real_weight: float = 1.0
    expected_reward: bool = False
    normalize_rewards: bool = False
    dimension_weights: dict[str, float] | str | None = None
    keep_per_prompt: int = 1
    reward_temperature: float = 0.1
    beta: float | None = None
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    reference_free: bool = False
    min_reward_gap: float = 0.05
    pairs_per_prompt: int | None = None
    desirable_weight: float | None = None
    undesirable_weight: float | None = None
    advantage_baseline: Literal["group", "leave_one_out"] = "group"
    advantage_clip: float = 5.0
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    kl_coef: float = 0.0
    sync_ref_model: bool = False
    ref_model_sync_steps: int = 512
    ref_model_mixup_alpha: float = 0.6
    max_kl_fraction: float | None = None

    @property
    def strength(self) -> float:
        """`beta`, or the objective's own."""
        return _BETAS.get(self.objective, 1.0) if self.beta is None else self.beta

    def check_objective(self) -> None:
        """
        Raises:
            ValueError: for a value that is not allowed, with what is.
        """
        if isinstance(self.dimension_weights, str):
            self.dimension_weights = json.loads(self.dimension_weights)
        if self.dimension_weights is not None:
            if self.expected_reward:
                raise ValueError("dimension_weights act on labels, expected_reward is a mean: leave one of them out.")
        hints = get_type_hints(type(self))
        for name in ("objective", "loss_type", "advantage_baseline", "multi_objective_aggregation"):
            allowed, value = get_args(hints[name]), getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r}; use one of {', '.join(allowed)}.")
        if not self.real_weight >= 0:
            raise ValueError(f"real_weight={self.real_weight}; lambda must be >= 0.")
        above_zero = (
            *("reward_temperature", "beta", "advantage_clip", "desirable_weight", "undesirable_weight"),
            "max_kl_fraction",
        )
        for name in above_zero:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value}; use a number above 0.")
        for name in ("keep_per_prompt", "pairs_per_prompt"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; use 1 or more.")
        for name in ("min_reward_gap", "kl_coef", "ref_model_sync_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}; use 0 or more.")
        if not 0 <= self.ref_model_mixup_alpha <= 1:
            raise ValueError(f"ref_model_mixup_alpha={self.ref_model_mixup_alpha}; use a share in [0, 1].")

    def clip_dimension_weights(self) -> dict[str, float] | None:
        """`dimension_weights` by name, `None` for equal ones. The dataset's rubric says which names there are."""
        return None if isinstance(self.dimension_weights, str) else self.dimension_weights
