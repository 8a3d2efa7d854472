"""Which of PEFT's options go the whole way: from training to `load_lora_weights`, the next run, and a merged pipeline."""

from dataclasses import MISSING, Field, fields
from typing import Any

from peft import LoraConfig


#: Options whose every value comes back equal to the trained model, bit for bit (tests/hub/test_lora_options.py).
_WORKING = {
    *("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias", "fan_in_fan_out"),
    # Who made it and what for, which changes no number.
    *("task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "runtime_config"),
}
_STARTS = (True, False, "gaussian", "orthogonal")
_WHY = {
    "bias": "it trains biases of the base itself, which no LoRA file holds, and with the LoRA off the base is another. "
    "lora_bias: true gives the LoRA biases of its own",
    "modules_to_save": "whole layers are no LoRA, and no pipeline reads them. Add them to target_modules",
    "target_parameters": "load_lora_weights finds modules only. Name the modules in target_modules",
    "trainable_token_indices": "a denoiser has no token embeddings",
}


def check_lora_options(config: LoraConfig, *, where: str = "peft_config") -> None:
    """
    Refuses, before any training, what would not come back from the saved file.

    Raises:
        ValueError: naming the option, why it does not do, and what does.
    """
    check_lora_start(config, where=where)
    for option in fields(config):
        given = getattr(config, option.name)
        if option.name in _WORKING or option.name == "init_lora_weights" or _is_unset(given, option):
            continue
        why = _WHY.get(option.name, "nothing but PEFT reads what it trains")
        raise ValueError(f"{where}: {option.name}={given!r} does not go with a diffusers LoRA: {why}.")
    if config.layers_to_transform is not None and not config.layers_pattern:
        raise ValueError(
            f"{where}: layers_to_transform needs layers_pattern, the name of the list of layers; for instance "
            "layers_pattern='transformer_blocks'."
        )


def check_lora_start(config: LoraConfig, *, where: str = "peft_config") -> None:
    """
    Refuses a start that moves a part of the base's weights into the LoRA, or that needs data nobody gives it.

    The saved LoRA would stand on a base that nobody has, and the base without it would be another model.

    Raises:
        ValueError: naming `init_lora_weights` and what does.
    """
    start = config.init_lora_weights
    if start not in _STARTS:
        raise ValueError(
            f"{where}: init_lora_weights={start!r} changes the weights of the base, or waits for data that is not given: "
            f"the saved LoRA would not fit the base. Use one of {', '.join(map(repr, _STARTS))}."
        )


def _is_unset(value: Any, option: "Field[Any]") -> bool:
    """Whether it is PEFT's default, in any of its spellings."""
    default = option.default_factory() if option.default_factory is not MISSING else option.default
    return value == default or not value
