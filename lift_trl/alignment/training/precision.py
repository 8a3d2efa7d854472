"""The precision of a run, chosen before anything that reads it is built."""

from dataclasses import replace

import torch
from accelerate.logging import get_logger

from ..reward_weighted_config import RewardWeightedVideoConfig


logger = get_logger(__name__)

_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def with_precision(args: RewardWeightedVideoConfig, family: torch.dtype, name: str) -> RewardWeightedVideoConfig:
    """
    `args` in the precision that they ask for, else in the family's on an accelerator and float32 on a CPU.

    DeepSpeed's and FSDP's plugins read the precision when they are built, in `TrainingArguments.__post_init__`, so `args`
    that choose none are made anew rather than changed (and the caller's stay as they are).

    Args:
        family: what the checkpoint was released in.
        name: of the checkpoint, for the warning.
    """
    if args.mixed_precision == "no":
        return args if args.device.type == "cpu" else in_mixed_precision(args, family)
    if base_dtype(args) != family:
        logger.warning("%s was released in %s; training it in %s may lose quality.", name, family, base_dtype(args))
    return args


def in_mixed_precision(args: RewardWeightedVideoConfig, dtype: torch.dtype) -> RewardWeightedVideoConfig:
    """`args` made anew in mixed precision of `dtype`."""
    return replace(args, fp16=dtype == torch.float16, bf16=dtype == torch.bfloat16)


def base_dtype(args: RewardWeightedVideoConfig) -> torch.dtype:
    """The precision of the frozen base under `args`."""
    return _DTYPES[args.mixed_precision]
