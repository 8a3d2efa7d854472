"""The policies that an objective compares with: the base (adapter off) and an old one (a second LoRA), no second model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from ..objectives.parts.step import Needs


#: PEFT's names of the trained LoRA and of the second one.
TRAINED, OLD = "default", "old"
# Not named as PEFT does: the Trainer would take the folder for one more adapter to resume.
_OLD_FILE = Path("old_policy") / "weights.safetensors"


def add_old_policy(model: PeftModel) -> None:
    """Adds the second LoRA, frozen, with the weights that the trained one has now."""
    model.add_adapter(OLD, model.peft_config[TRAINED], autocast_adapter_dtype=False)
    move_old_policy(model, 1.0)
    for name, parameter in model.named_parameters():
        if f".{OLD}." in name:
            parameter.requires_grad_(False)


@torch.no_grad()
def move_old_policy(model: PeftModel, alpha: float) -> None:
    """old = alpha trained + (1 - alpha) old."""
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if f".{OLD}." in name:
            trained = parameters[name.replace(f".{OLD}.", f".{TRAINED}.")]
            if alpha == 1.0:
                parameter.data = trained.detach().clone()
            else:
                parameter.lerp_(trained, alpha)


@contextmanager
def acting_as(model: PeftModel, policy: Needs) -> Iterator[None]:
    """
    `model` computes what the other policy does, without gradient, dropout or gradient checkpointing; afterwards what it did.

    PEFT switches `requires_grad` along with the adapters, and back.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if policy == "reference":
                with model.disable_adapter():
                    yield
            else:
                model.set_adapter(OLD, inference_mode=True)
                yield
    finally:
        model.set_adapter(TRAINED)
        model.train(was_training)


def save_old_policy(model: PeftModel, folder: Path) -> None:
    """Writes the second LoRA beside the first, for a run that goes on from `folder`."""
    weights = get_peft_model_state_dict(model, adapter_name=OLD, save_embedding_layers=False)
    (folder / _OLD_FILE).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / _OLD_FILE)


def load_old_policy(model: PeftModel, folder: Path) -> None:
    """Reads what `save_old_policy` wrote."""
    set_peft_model_state_dict(model, load_file(folder / _OLD_FILE), adapter_name=OLD)


class OldPolicyFollows(TrainerCallback):
    """
    Moves the old policy towards the trained one every `every` optimiser steps, by `alpha`. A checkpoint of the same step
    holds it after the move.

    Source: TR-DPO, arXiv 2404.09656.
    """

    def __init__(self, every: int, alpha: float) -> None:
        self.every, self.alpha = every, alpha

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each optimiser step."""
        if state.global_step % self.every == 0:
            move_old_policy(kwargs["model"], self.alpha)
