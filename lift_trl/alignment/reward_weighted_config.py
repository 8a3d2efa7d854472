"""Settings of `RewardWeightedVideoTrainer`, and of the LoRA that it trains."""

import json
import logging
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from ..documented import documented
from ..kernels import AttentionKernel, CompileBackend, check_kernels
from ..runtime import PROCESS_TIMEOUT, check_world, has_accelerator, process_state
from ..store.quantization import Quantization, check_quantization
from ..store.typed import field_types, typed
from .objectives import OBJECTIVES, ObjectiveArguments


if TYPE_CHECKING:
    from peft import LoraConfig

logger = logging.getLogger(__name__)

#: What a run that is resumed, or a finished one that is started again, must share with itself.
RUN_SETTINGS = (
    *("objective", "real_weight", "expected_reward", "normalize_rewards", "dimension_weights", "caption_dropout"),
    *("learning_rate", "seed", "quantization", "compile_blocks", "attention_kernel", "tf32"),
)


@documented
@dataclass
class LoraArguments:
    """
    What is trained: a LoRA, a LoRA that goes on from an earlier one, or the whole transformer.

    Args:
        use_peft (`bool`, *optional*, defaults to `True`):
            Train a LoRA; false trains the whole transformer.
        adapter (`str` or `None`, *optional*, defaults to `None`):
            Folder or repo of an earlier LoRA that training goes on from; lora_r etc. are as there.
        lora_r (`int`, *optional*, defaults to `128`):
            Rank of the LoRA.
        lora_alpha (`int`, *optional*, defaults to `128`):
            The LoRA's output is scaled by alpha / rank.
        lora_dropout (`float`, *optional*, defaults to `0.0`):
            Dropout before the LoRA.
        lora_target_modules (`list[str]` or `None`, *optional*, defaults to `None`):
            Names of the adapted modules; by default the model family's attention layers.
    """

    use_peft: bool = True
    adapter: str | None = None
    lora_r: int = 128
    lora_alpha: int = 128
    lora_dropout: float = 0.0
    lora_target_modules: list[str] | None = None

    def lora_config(self) -> "LoraConfig | None":
        """What PEFT takes, `None` for the whole transformer."""
        from peft import LoraConfig  # with models and a compiler behind it: not for `--help`

        if not self.use_peft:
            return None
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self.lora_target_modules,
        )


@documented
@dataclass
class RewardWeightedVideoConfig(ObjectiveArguments, TrainingArguments):
    """
    Configuration of [`RewardWeightedVideoTrainer`]: all of `TrainingArguments` that makes sense for a denoiser, what
    [`ObjectiveArguments`] has, and the following.

    Defaults that differ from `TrainingArguments`: `learning_rate` 1e-4, `logging_steps` 10, `remove_unused_columns` False,
    `label_names` [], `logging_nan_inf_filter` False, `ddp_find_unused_parameters` False, `gradient_accumulation_steps` 0,
    `use_cpu` True where there is no accelerator.

    Args:
        caption_dropout (`float`, *optional*, defaults to `0.1`):
            Probability of training a row on the empty prompt, for classifier-free guidance.
        num_frames (`int` or `None`, *optional*, defaults to `None`):
            Frames of every clip; by default the model's own.
        height (`int` or `None`, *optional*, defaults to `None`):
            Pixels; by default the model's own.
        width (`int` or `None`, *optional*, defaults to `None`):
            Pixels; by default the model's own.
        fps (`float` or `None`, *optional*, defaults to `None`):
            Frames a second to read clips at; by default the model family's own.
        cache_dir (`str` or `None`, *optional*, defaults to `None`):
            Where raw rows are encoded to. By default _cache in output_dir.
        validation_prompts (`list[str]` or `None`, *optional*, defaults to `None`):
            Prompts of the videos that are sampled in training and once from the base model.
        validation_steps (`int` or `None`, *optional*, defaults to `None`):
            Sample validation videos every so many optimiser steps, and at the end.
        validation_seed (`int`, *optional*, defaults to `0`):
            Seed of the validation videos, equal for base and tuned.
        validation_num_inference_steps (`int`, *optional*, defaults to `50`):
            Denoising steps of a validation video.
        validation_guidance_scale (`float` or `None`, *optional*, defaults to `None`):
            Classifier-free guidance, by default the family's; 1 switches it off.
        validation_negative_prompt (`str` or `None`, *optional*, defaults to `None`):
            What guidance leads away from; by default the family's own text, if any.
        hub_base_model (`str` or `None`, *optional*, defaults to `None`):
            The base as others find it on the Hub (user/name), where it is a folder of this machine.
        quantization (`str` or `None`, *optional*, defaults to `None`):
            Hold the frozen base under a LoRA in 8 bits: int8 or float8 (torchao).
        compile_blocks (`str` or `None`, *optional*, defaults to `None`):
            Backend of torch.compile for the transformer's blocks: inductor (minutes at the start, less time a step), or
            aot_eager and eager to look for faults.
        attention_kernel (`str` or `None`, *optional*, defaults to `None`):
            cudnn, flash, efficient or math; as torch chooses for `None`.
        clips_per_step (`int` or `None`, *optional*, defaults to `None`):
            Clips of one optimiser step, all processes together. gradient_accumulation_steps follows from it, so that
            the run is the same on one card or on eight.
        by_memory (`dict[int, dict[str, Any]]` or `str` or `None`, *optional*, defaults to `None`):
            Settings by the memory of a card: those of the largest number of GB up to memory_gb hold. What a recipe's
            command line says goes before them.
        memory_gb (`int` or `None`, *optional*, defaults to `None`):
            Memory of a card in GB, for by_memory.
        gradient_accumulation_steps (`int`, *optional*, defaults to `0`):
            Micro-batches of an optimiser step; 0 for as many as clips_per_step asks for, else one.
        learning_rate (`float`, *optional*, defaults to `1e-4`):
            Initial learning rate; 1e-5 suits full fine-tuning.
        logging_steps (`float`, *optional*, defaults to `10`):
            Log every so many optimiser steps.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            Must stay False: the columns are not the model's.
        label_names (`list[str]` or `None`, *optional*, defaults to `[]`):
            Must stay empty: a denoiser has none.
        logging_nan_inf_filter (`bool`, *optional*, defaults to `False`):
            Looks at each micro-batch's loss, which waits for the device; a loss that is not finite ends the run anyway. In
            fp16 it is True, as the loss scaler skips such a step.
        ddp_timeout (`int`, *optional*, defaults to `604800`):
            Seconds that a process waits for the others; days, as stages share their work out unevenly.
        ddp_find_unused_parameters (`bool` or `None`, *optional*, defaults to `False`):
            Every parameter takes part.

    Raises:
        ValueError: for a value that is not allowed, or an option that does not apply to a denoiser; says which to use.
    """

    caption_dropout: float = 0.1

    # Data: used when the trainer encodes raw rows itself; a cached dataset has its own size
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    cache_dir: str | None = None

    # Validation videos
    validation_prompts: list[str] | None = None
    validation_steps: int | None = None
    validation_seed: int = 0
    validation_num_inference_steps: int = 50
    validation_guidance_scale: float | None = None
    validation_negative_prompt: str | None = None

    # The Hub
    hub_base_model: str | None = None

    # Memory and batch
    quantization: Quantization | None = None
    compile_blocks: CompileBackend | None = None
    attention_kernel: AttentionKernel | None = None
    clips_per_step: int | None = None
    by_memory: dict[int, dict[str, Any]] | str | None = None
    memory_gb: int | None = None

    # Overridden defaults
    gradient_accumulation_steps: int = 0
    learning_rate: float = 1e-4
    logging_steps: float = 10
    remove_unused_columns: bool = False
    label_names: list[str] | None = field(default_factory=list)
    logging_nan_inf_filter: bool = False
    ddp_timeout: int = int(PROCESS_TIMEOUT.total_seconds())
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        self._take_by_memory()
        if not has_accelerator():
            # Otherwise several processes on a CPU would not form one world.
            self.use_cpu = True
        self._check_own_fields()
        if self.use_cpu:
            process_state(use_cpu=True)  # stock gives its time-out to the processes of GPUs only
        asked = self.gradient_accumulation_steps
        self.gradient_accumulation_steps = asked or 1
        super().__post_init__()
        self.logging_nan_inf_filter |= self.mixed_precision == "fp16"
        self._accumulate(asked)
        self._refuse_what_does_not_apply()
        if self.mixed_precision == "fp16" and self.device.type == "cpu":
            raise ValueError("fp16 needs an accelerator; on a CPU use bf16: true, or leave both out for float32.")
        check_world(self.world_size)

    @property
    def num_clips_per_step(self) -> int:
        """Clips (of `dpo`: pairs) of one optimiser step, all processes together."""
        return int(self.train_batch_size * self.gradient_accumulation_steps * self.world_size)

    def _check_own_fields(self) -> None:
        if self.quantization is not None:
            check_quantization(self.quantization)
        check_kernels(self.compile_blocks, self.attention_kernel)
        self.check_objective()
        self._warn_of_ignored()
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout={self.caption_dropout}; use a probability in [0, 1].")
        if isinstance(self.validation_prompts, str):
            raise ValueError(
                f"validation_prompts={self.validation_prompts!r} is one text, not a list; in a YAML write it as "
                f"[{self.validation_prompts!r}]."
            )
        if self.validation_steps is not None and self.validation_steps < 1:
            raise ValueError(f"validation_steps={self.validation_steps}; use a number >= 1, or leave it out.")
        if self.validation_steps and not self.validation_prompts:
            raise ValueError(
                "validation_steps is set, but validation_prompts is empty. Give prompts, or leave both out."
            )

    def _take_by_memory(self) -> None:
        """Puts the settings of `by_memory` in place."""
        if isinstance(self.by_memory, str):
            self.by_memory = json.loads(self.by_memory)
        settings = {int(size): given for size, given in (self.by_memory or {}).items()}  # type: ignore[union-attr]
        if (self.memory_gb is None) != (not settings):
            raise ValueError(
                "memory_gb and by_memory go together: the one chooses among the other. Give both or none."
            )
        fitting = [size for size in settings if self.memory_gb is not None and size <= self.memory_gb]
        if settings and not fitting:
            raise ValueError(
                f"memory_gb={self.memory_gb}: by_memory has no settings for less than {min(settings)} GB. Run `lift-trl "
                "estimate` to see what would fit, and add them."
            )
        plain = {one.name: one for one in fields(self) if one.name not in ("by_memory", "memory_gb")}
        for name in {name: None for given in settings.values() for name in given}:
            if name not in plain:
                raise ValueError(f"by_memory: {name} is no setting of a run.")
        hints = field_types(type(self))
        for name, value in (settings[max(fitting)] if fitting else {}).items():
            value, beside = typed(f"by_memory: {name}", value, hints[name]), getattr(self, name)
            if beside != value and not _is_default(plain[name], beside):
                raise ValueError(
                    f"{name}={beside!r} stands beside by_memory, which has {value!r} for {max(fitting)} GB. Leave one out, "
                    "or give it on the command line, which goes before by_memory."
                )
            setattr(self, name, value)

    def _accumulate(self, asked: int) -> None:
        """Sets `gradient_accumulation_steps`, `asked` or 0, so that a step has `clips_per_step` clips."""
        if self.clips_per_step is None:
            return
        times = accumulation(self.clips_per_step, self.train_batch_size, self.world_size)
        if asked not in (0, times):
            raise ValueError(
                f"gradient_accumulation_steps={asked} and clips_per_step={self.clips_per_step} contradict each other. Leave "
                "out the first; it follows."
            )
        self.gradient_accumulation_steps = times

    def _refuse_what_does_not_apply(self) -> None:
        refused: list[tuple[str, Any, str]] = [
            ("remove_unused_columns", not self.remove_unused_columns, "leave it False"),
            ("label_names", not self.label_names, "leave it empty"),
            (
                "neftune_noise_alpha",
                self.neftune_noise_alpha is None,
                "a denoiser has no token embeddings; leave it out",
            ),
            ("label_smoothing_factor", self.label_smoothing_factor == 0, "there are no labels; leave it 0"),
            ("torch_compile", not self.torch_compile, "blocks are compiled one by one; set compile_blocks: inductor"),
            ("use_liger_kernel", not self.use_liger_kernel, "its kernels are for language models; leave it False"),
            (
                "activation_checkpointing_kwargs",
                self.activation_checkpointing_kwargs in (None, {}, {"use_reentrant": False}),
                "its blocks are checkpointed one by one without re-entrance (a LoRA would get no gradient); leave it out",
            ),
            ("fp16_full_eval", not self.fp16_full_eval, "the adapter stays float32; use fp16"),
            ("bf16_full_eval", not self.bf16_full_eval, "the adapter stays float32; use bf16"),
            (
                "include_num_input_tokens_seen",
                self.include_num_input_tokens_seen == "no",
                "a denoiser sees no tokens; leave it out",
            ),
            (
                "train_sampling_strategy",
                self.train_sampling_strategy in ("random", "sequential"),
                "its rows are of one length; leave it random",
            ),
            (
                "auto_find_batch_size",
                not self.auto_find_batch_size,
                "it would make a step of fewer clips; set clips_per_step and a smaller per_device_train_batch_size",
            ),
            ("n_gpu", self.n_gpu <= 1, "torch's DataParallel is not supported; start with `accelerate launch`"),
        ]
        for name, fine, remedy in refused:
            if not fine:
                raise ValueError(f"{name} does not apply to a video denoiser: {remedy}.")

    def _warn_of_ignored(self) -> None:
        """Settings of other objectives that this one does not read."""
        every = {name for objective in OBJECTIVES.values() for name in objective.options}
        own = OBJECTIVES[self.objective].options
        defaults = {f.name: f.default for f in fields(self)}
        ignored = sorted(name for name in every.difference(own) if getattr(self, name) != defaults[name])
        if ignored:
            logger.warning(
                "objective=%s does not read %s: leave out, or name the objective that does (docs/objectives.md).",
                *(self.objective, ", ".join(ignored)),
            )


def _is_default(one: "Field[Any]", value: Any) -> bool:
    """Whether `value` is what the field has where nothing is given."""
    return bool(value == (one.default if one.default_factory is MISSING else one.default_factory()))


def accumulation(clips_per_step: int, batch: int, processes: int) -> int:
    """
    The micro-batches of a step of `clips_per_step` clips, `batch` at a time on each of `processes`.

    >>> accumulation(64, 4, 8)
    2

    Raises:
        ValueError: if it cannot be made of them; says which can.
    """
    at_once = batch * processes
    if clips_per_step % at_once:
        raise ValueError(
            f"clips_per_step={clips_per_step} cannot be made of {at_once} clips at a time "
            f"(per_device_train_batch_size={batch} on {processes} processes). Nearest: "
            f"{max(1, round(clips_per_step / at_once)) * at_once}."
        )
    return clips_per_step // at_once
