"""`LiFTCriticConfig`: TRL's `SFTConfig` with the paper's values, and what concerns clips."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig

from ..documented import documented
from ..rubric import LIFT, Rubric
from ..runtime import PROCESS_TIMEOUT, has_accelerator, process_state


if TYPE_CHECKING:
    from .settings import CriticSettings

_WHOLE = "rows are never cut, or frames and answers would be lost"
_APART = "a clip's tokens belong to its own row"
_OWN_ROWS = "the trainer makes its rows of the ratings, when they are used"
_ANSWER = "only the answer has a loss"
#: Options of `SFTConfig` that would do nothing to a critic or spoil it: what they may be, and why.
FIXED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "max_length": ((None,), _WHOLE),
    "truncation_mode": (("keep_start",), _WHOLE),
    "packing": ((False,), _APART),
    "eval_packing": ((None, False), _APART),
    "packing_strategy": (("bfd",), _APART),
    "padding_free": ((False,), "TRL has it for text only"),
    "pad_to_multiple_of": (("auto", None), "a batch is as long as its longest row"),
    "pad_token": ((None,), "the processor has its own"),
    "completion_only_loss": ((None, True), _ANSWER),
    "assistant_only_loss": ((False,), _ANSWER),
    "remove_unused_columns": ((False,), "clips are read when a row is used"),
    "dataset_text_field": (("text",), _OWN_ROWS),
    "dataset_kwargs": ((None, {"skip_prepare_dataset": True}), _OWN_ROWS),
    "dataset_num_proc": ((None,), f"{_OWN_ROWS}; dataloader_num_workers reads clips side by side"),
    "shuffle_dataset": ((False,), "each epoch draws its rows at random already"),
    "train_sampling_strategy": (("random", "sequential"), "how long a row is shows only when its clip is read"),
}


@documented
@dataclass
class LiFTCriticConfig(SFTConfig):
    """
    Settings of `LiFTCriticTrainer`.

    Defaults that differ from `SFTConfig`: `learning_rate` 1e-5, `lr_scheduler_type` cosine, `warmup_steps` 0.03 of the run,
    `num_train_epochs` 20 (arXiv 2412.04814), `max_length` and `remove_unused_columns` off. Without an accelerator,
    `use_cpu` is on and `bf16` off unless it is asked for.

    Args:
        learning_rate (`float`, *optional*, defaults to `1e-5`):
            Initial learning rate of AdamW (paper: 1e-5).
        lr_scheduler_type (`str`, *optional*, defaults to `"cosine"`):
            Schedule of the learning rate (paper: cosine).
        warmup_steps (`float`, *optional*, defaults to `0.03`):
            Steps of warm-up, or below 1 the share of all steps (paper: 0.03).
        num_train_epochs (`float`, *optional*, defaults to `20.0`):
            Passes over the data (paper: 20).
        max_length (`int` or `None`, *optional*, defaults to `None`):
            Must stay empty: cutting a row cuts frames.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            Must stay off: the clips of a row are read when it is used.
        num_frames (`int`, *optional*, defaults to `8`):
            Frames spread uniformly over a clip (paper: 8).
        with_reason (`bool`, *optional*, defaults to `True`):
            Teach label and reason; off teaches the label only (ablation of the paper).
        native_video (`bool` or `None`, *optional*, defaults to `None`):
            Frames as one video with timestamps, or as images; empty leaves it to the model family.
        processor_kwargs (`dict[str, Any]` or `str` or `None`, *optional*, defaults to `None`):
            Options of the processor's call, such as {'crop_to_patches': False} for frames without tiles.
        mismatched_captions (`float`, *optional*, defaults to `0.0`):
            Negatives with another clip's caption, as a share of the semantic rows.
        balanced_labels (`bool`, *optional*, defaults to `False`):
            Show each label of a dimension equally often, the rare ones several times an epoch.
        vision_learning_rate (`float` or `None`, *optional*, defaults to `None`):
            Adapt vision tower and projector too, at this rate; empty keeps them frozen (paper).
        pair_beta (`float`, *optional*, defaults to `10.0`):
            What the difference of a pair's expected rewards is multiplied by before the sigmoid.
        pair_weight (`float`, *optional*, defaults to `1.0`):
            Weight of a pair's loss beside that of a rated row, where pairs are given.
        frame_cache_gb (`float`, *optional*, defaults to `4.0`):
            Memory for decoded frames, in GB for each process or data worker.
        eval_label_accuracy (`bool`, *optional*, defaults to `True`):
            At each evaluation, also score the clips as LiFTCritic does.
        hub_base_model (`str` or `None`, *optional*, defaults to `None`):
            The base as others find it on the Hub (user/name), where it is a folder of this machine.
        ddp_timeout (`int`, *optional*, defaults to `604800`):
            Seconds that a process waits for the others; days, as clips are shared out unevenly.
    """

    learning_rate: float = 1e-5
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.03
    num_train_epochs: float = 20.0
    max_length: int | None = None
    remove_unused_columns: bool = False
    num_frames: int = 8
    with_reason: bool = True
    native_video: bool | None = None
    processor_kwargs: dict[str, Any] | str | None = None
    mismatched_captions: float = 0.0
    balanced_labels: bool = False
    vision_learning_rate: float | None = None
    pair_beta: float = 10.0
    pair_weight: float = 1.0
    frame_cache_gb: float = 4.0
    eval_label_accuracy: bool = True
    hub_base_model: str | None = None
    ddp_timeout: int = int(PROCESS_TIMEOUT.total_seconds())

    def __post_init__(self) -> None:
        if not has_accelerator():
            self.use_cpu = True
            self.bf16 = False if self.bf16 is None else self.bf16
        if self.use_cpu:
            process_state(use_cpu=True)  # stock gives its time-out to the processes of GPUs only
        for name, (allowed, why) in FIXED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} does not go with a critic: {why}. Leave it out.")
        super().__post_init__()
        if not 0 <= self.mismatched_captions <= 1:
            raise ValueError(f"mismatched_captions={self.mismatched_captions}; give a share in [0, 1].")
        if self.vision_learning_rate is not None and not self.vision_learning_rate > 0:
            raise ValueError(
                f"vision_learning_rate={self.vision_learning_rate}; give a rate above 0, or leave it out."
            )
        for name in ("pair_beta", "pair_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; give a number above 0.")
        if self.frame_cache_gb < 0:
            raise ValueError(f"frame_cache_gb={self.frame_cache_gb}; give 0 or more.")
        self.critic_settings()

    def critic_settings(self, rubric: Rubric = LIFT) -> "CriticSettings":
        """What the critic must remember; raises `ValueError` for a number of frames below 1."""
        from .settings import CriticSettings  # with models and a compiler behind it: not for `--help`

        if isinstance(self.processor_kwargs, str):
            self.processor_kwargs = json.loads(self.processor_kwargs)
        options = self.processor_kwargs or {}
        if not isinstance(options, dict):
            raise ValueError(f"processor_kwargs={options!r}; give a mapping, as in {{crop_to_patches: false}}.")
        return CriticSettings(self.num_frames, self.with_reason, self.native_video, options, rubric)


def model_init_kwargs(model_args: ModelConfig, given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """
    What a model is loaded with: revision, precision, attention and quantisation of `model_args`, and `given`.

    Args:
        given: `model_init_kwargs` of a `LiFTCriticConfig`, which goes before the defaults of `model_args`.

    >>> model_init_kwargs(ModelConfig(model_revision="v2", attn_implementation="sdpa"), {"dtype": "bfloat16"})
    {'revision': 'v2', 'dtype': 'bfloat16', 'attn_implementation': 'sdpa'}

    Raises:
        ValueError: if `given` is no mapping, or says other than what `model_args` were given.
    """
    if not isinstance(given, Mapping | None):
        raise ValueError(f"model_init_kwargs={given!r}; give a mapping, as in {{revision: main}}.")
    named, given, stock = _named(model_args), dict(given or {}), _named(ModelConfig())
    for name in named.keys() & given.keys():
        if named[name] not in (given[name], stock.get(name)):
            option = {"revision": "model_revision", "quantization_config": "load_in_8bit or load_in_4bit"}.get(
                name, name
            )
            raise ValueError(
                f"model_init_kwargs has {name}: {given[name]!r}, and {option} says {named[name]!r}. Leave one out."
            )
    return named | given


def _named(model_args: ModelConfig) -> dict[str, Any]:
    """What of `model_args` a model is loaded with, by the names of `from_pretrained`."""
    from trl.trainer.utils import get_quantization_config  # with models and a compiler behind it: not for `--help`

    named = {
        "revision": model_args.model_revision,
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
        "quantization_config": get_quantization_config(model_args),
    }
    return {name: value for name, value in named.items() if value is not None}
