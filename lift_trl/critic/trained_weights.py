"""Which weights of a critic are trained, and where they start: a LoRA, another critic's, or the whole language model."""

from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftConfig, PeftModel

from ..hub.lora.options import check_lora_start
from ..hub_source import find_file, pinned
from ..protocols import CriticModel
from ..rubric import Rubric
from ..store.manifest import ARTIFACT_FILE, Artifact
from .critic_config import LiFTCriticConfig
from .settings import find_revision, load_settings


logger = get_logger(__name__)


def check_lora(args: LiFTCriticConfig, model: Any, peft_config: LoraConfig | None) -> None:
    """Raises `ValueError` for a LoRA that cannot start, or none where the settings need one."""
    if peft_config is not None:
        check_lora_start(peft_config)
    elif args.vision_learning_rate is not None and not isinstance(model, PeftModel):
        raise ValueError("vision_learning_rate adapts the tower by a LoRA, and there is none: use_peft: true.")


def starting_lora(
    peft_config: LoraConfig | None, adapter: str | Path | None, model: Any, rubric: Rubric
) -> LoraConfig | None:
    """`peft_config`, or that of the trained critic `adapter`; raises `ValueError` for one of another base or rubric."""
    if adapter is None:
        return peft_config
    if peft_config is not None:
        raise ValueError(f"adapter={adapter} brings its own LoRA: leave peft_config and the lora options out.")
    load_settings(str(adapter), rubric=rubric)
    start = pinned(adapter)
    config = PeftConfig.from_pretrained(start.repo_id, revision=start.revision)
    name = model if isinstance(model, str) else model.config.name_or_path
    if not isinstance(config, LoraConfig) or not (config.base_model_name_or_path == name or _taught_on(adapter, name)):
        raise ValueError(
            f"adapter={adapter} is a {type(config).__name__} of {config.base_model_name_or_path}, and the model is {name}. "
            "Name the model that it was trained on."
        )
    config.inference_mode = False
    return config


def _taught_on(adapter: str | Path, base: str) -> bool:
    """Whether the critic's own record names the content of the folder `base`, which was elsewhere then."""
    record = find_file(adapter, ARTIFACT_FILE)
    if record is None or not Path(base).is_dir():
        return False
    return find_revision(base) in Artifact.load(record.parent).parents.values()


def completed_lora(
    peft_config: LoraConfig, revision: str | None, family: CriticModel, vision_learning_rate: float | None
) -> LoraConfig:
    """The caller's configuration, copied, with the base's revision and the family's targets where it names none."""
    config = deepcopy(peft_config)
    config.revision = revision  # the adapter is loaded on the base that it was trained on
    if config.target_modules is None:
        # All linear layers but the head's are those of the language model, the tower and the projector.
        config.target_modules = family.lora_target_modules if vision_learning_rate is None else "all-linear"
        logger.info("LoRA on %s", config.target_modules)
    return config


def check_pairs_fit(launch: DistributedType) -> None:
    """Raises `ValueError` where a launch spreads the weights: a process without a pair in its batch has fewer forwards."""
    if launch in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(
            f"pairs: with weights spread over processes ({launch.value}) all must run the same forwards, and a process "
            "without a pair in its batch has fewer. Train a LoRA with DDP, or leave the pairs out."
        )


def check_precision(model: Any) -> None:
    """Raises `ValueError` where weights that are trained have too few digits for steps of 1e-5."""
    coarse = {p.dtype for p in model.parameters() if p.requires_grad and torch.finfo(p.dtype).bits < 32}
    if coarse:
        raise ValueError(
            f"the language model would be trained in {', '.join(str(d).removeprefix('torch.') for d in coarse)}, which "
            "rounds away most steps of this size. Load it with dtype: float32 (bf16: true still computes in bfloat16), or "
            "train a LoRA (use_peft: true), whose own weights are float32."
        )


def freeze_vision(model: Any) -> None:
    """Makes the language model and its head trainable, and nothing else."""
    model.requires_grad_(False)
    model.get_decoder().requires_grad_(True)
    model.get_output_embeddings().requires_grad_(True)


def spare_frozen_tower(model: Any) -> None:
    """
    Runs a vision tower that is not trained without anything for a backward pass.

    For checkpointing, transformers (5.24) and TRL make the embeddings of every part require gradients, the tower's too: it
    would be run twice, and gone back through, for nothing.
    """
    bare: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    tower = bare.get_encoder(modality="image")
    if tower in (bare, bare.base_model) or any(parameter.requires_grad for parameter in tower.parameters()):
        return
    tower.forward = MethodType(torch.no_grad()(type(tower).forward), tower)
