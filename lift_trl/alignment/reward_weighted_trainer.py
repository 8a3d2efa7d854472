"""`RewardWeightedVideoTrainer`: fine-tunes a text-to-video model on clips that count as much as they were rewarded."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.logging import get_logger
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

from ..engines import Processes
from ..hub.lora.files import load_adapter
from ..hub.lora.options import check_lora_options
from ..hub.lora.origin import adapter_identity, training_of
from ..kernels import attending_by, compile_blocks
from ..records import TextCondition, TrainBatch
from ..runtime import strategy
from ..store.quantization import in_autocast
from ..video_models import PipelineSource, open_pipeline
from .data.cache import encoding_dtype
from .data.text_cache import TextCache
from .data.training_set import CACHE_DIR, first_dataset, prepare_dataset, prepare_evaluation
from .data.video_dataset import CachedVideoDataset, collate, is_first, num_units
from .objectives import (
    Loss,
    Objective,
    OtherPolicy,
    StepRows,
    choose_objective,
    effective_sample_size,
    per_sample_loss,
)
from .objectives.parts.step import Needs
from .reward_weighted_config import RewardWeightedVideoConfig
from .sampling.validation import ValidationVideos, validation_guidance
from .training.draws import RowDraws, draw_rows
from .training.guarded import add_validation, policy_callbacks
from .training.metrics import TIMESTEP_QUARTERS, LossMetrics, weights_in_words
from .training.overflow import SkippedSteps
from .training.policies import acting_as, add_old_policy
from .training.precision import base_dtype, with_precision
from .training.saving import SavingTrainer


if TYPE_CHECKING:
    from datasets import Dataset
    from diffusers import DiffusionPipeline

logger = get_logger(__name__)


class RewardWeightedVideoTrainer(SavingTrainer):
    """
    Fine-tunes a diffusers text-to-video model on rated clips, by reward-weighted likelihood or another objective.

    Args:
        model: a Hub id, a folder, or a `DiffusionPipeline`.
        args: the configuration.
        data_collator: `collate` by default.
        train_dataset: what `datasets.load_dataset` returns (LiFT-HRA rows, or `video, prompt, reward` or labels, with
            optional real rows), a folder of clips with a metadata file, or a `CachedVideoDataset`. Raw rows are encoded
            into `args.cache_dir` (`_cache` in `output_dir`, which is never pushed) first, by all processes.
        eval_dataset: the same, or `None`, or a dict of several by name, whose figures are logged as `eval_<name>_...`.
        callbacks: further callbacks.
        optimizers: an optimiser and a schedule of your own.
        peft_config: a `LoraConfig`; targets that are left empty come from the model family. `None` trains the whole
            transformer, in float32.
        adapter: an earlier LoRA that training goes on from (its folder or repo); it has the values of `peft_config`.
        objective: one of your own instead of that of `args`: an `Objective`, or a loss (rows of a step, `args`) -> float32
            [B], which then gets all rows, each weighted as for `sft`.

    Raises:
        ValueError: if the cache was made by another model, a target matches nothing, or no row is left to train on, or
            `adapter` does not fit `peft_config` or the model, or what is pushed would have a base that is not on the Hub.

    Source: arXiv 2412.04814, equations 2 to 4.
    """

    #: `compute_loss` divides by the units of the whole optimiser step, over all processes and micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: "str | Path | DiffusionPipeline | PipelineSource",
        args: RewardWeightedVideoConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: "CachedVideoDataset | Dataset | Path | str | None" = None,
        eval_dataset: "CachedVideoDataset | Dataset | Path | str | None" = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Optimizer | None, LambdaLR | None] = (None, None),
        peft_config: LoraConfig | None = None,
        adapter: str | Path | None = None,
        objective: Objective | Loss | None = None,
    ) -> None:
        args = args or RewardWeightedVideoConfig("lift_lora")
        if adapter is not None and peft_config is None:
            raise ValueError(f"adapter={str(adapter)!r} is a LoRA: give its peft_config, or set use_peft: true.")
        self.config, self.adapter = args, adapter
        self._choose(objective, has_lora=peft_config is not None)
        self.output_dir = Path(args.output_dir or "lift_lora")
        self._open(model)
        self.video_model = self.source.adapter
        self.scheduler = self.source.load(dtype=torch.float32).scheduler
        args = self.config = with_precision(args, self.video_model.dtype, self.source.name)
        train = prepare_dataset(train_dataset, self.source, args, "train", self.objective)
        evaluation = prepare_evaluation(eval_dataset, self.source, args, self.objective)
        network = self._load_network(args, peft_config, base_dtype(args))
        self._adapter_identity = None if adapter is None else adapter_identity(adapter)
        self._adapter_training = {} if adapter is None else training_of(adapter)
        super().__init__(
            model=network,
            args=args,
            data_collator=data_collator or _collate,
            train_dataset=train,
            eval_dataset=evaluation,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        assert self.accelerator.mixed_precision == args.mixed_precision
        # Stock values would drop our columns from evaluation: the loss comes from compute_loss, not from labels.
        self.can_return_loss = True
        self._metrics = LossMetrics(self.accelerator, first_dataset(train, evaluation).rubric.dimensions)
        self._skipped_steps = SkippedSteps(self.accelerator)
        self.add_callback(self._skipped_steps)
        for callback in policy_callbacks(args, old_moves=self._has_old and self._old_policy_moves):
            self.add_callback(callback)
        dataset = first_dataset(train, evaluation)
        self._empty_prompt = dataset.text_cache().load("")
        self._announce(network)
        if args.validation_prompts:
            add_validation(self.callback_handler.callbacks, self._validation_callback(dataset))

    @property
    def _quantiles(self) -> tuple[float, float]:
        """The part of the noise levels that the network is trained on."""
        return self.video_model.quantile_range(self.scheduler, self.source.network)

    # ---- Science -----------------------------------------------------------------------------------------------

    def compute_loss(  # type: ignore[override]
        self,
        model: Any,
        inputs: TrainBatch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """
        sum_i w_i loss_i / N over the N clips or pairs of the optimiser step (in evaluation: of the batch).

        loss_i is the objective's, of a real clip its error |v_hat_i - v_i|^2. With the weights of `weighted_rows` the mean
        over the dataset is equation 3 of arXiv 2412.04814.
        """
        key: tuple[object, ...] = (self.args.seed, self.state.global_step)
        low, high = self._quantiles
        ranges = [(low, high)]
        if not model.training:
            # Each row is seen once in each quarter, so that evaluations are stratified and paired.
            key = ("eval", self.args.seed)
            bounds = [low + (high - low) * q / TIMESTEP_QUARTERS for q in range(TIMESTEP_QUARTERS + 1)]
            ranges = list(pairwise(bounds))
        losses = []
        for part in ranges:
            draws = self._draw(inputs, key, part, model.training)
            rows = self._step_rows(model, inputs, draws)
            losses.append(torch.where(inputs["is_real"], rows.error, self.objective.loss(rows, self.config)))
            self._watch("train" if model.training else "eval", inputs, draws, rows, losses[-1])
        loss_B, counts_B = torch.stack(losses).mean(dim=0), inputs["counts"]
        weighted = torch.where(counts_B, inputs["weight"] * loss_B, 0.0).sum()
        if num_items_in_batch is None or not model.training:
            loss = weighted / num_units(inputs).clamp(min=1)
        else:
            # DDP averages over processes what must be one mean over all their units.
            loss = weighted * self.accelerator.num_processes / num_items_in_batch
        return (loss, {"loss_per_sample": loss_B}) if return_outputs else loss

    def _draw(
        self, inputs: TrainBatch, key: tuple[object, ...], timestep_range: tuple[float, float], training: bool
    ) -> RowDraws:
        """The draws of each row, keyed on `key` and on its id or that of its pair."""
        draws = draw_rows(
            inputs["draw_id"],
            inputs["latent_mean"].shape[1:],
            key=(*key, timestep_range),
            num_timesteps=self.scheduler.config.num_train_timesteps,
            caption_dropout=self.config.caption_dropout if training else 0.0,
            timestep_range=timestep_range,
        )
        return RowDraws(*(draw.to(inputs["latent_mean"].device) for draw in draws))

    def _step_rows(self, model: Any, inputs: TrainBatch, draws: RowDraws) -> StepRows:
        """What the objective is given: errors of the policy and of those that it needs beside it, on the same draws."""
        std = torch.exp(0.5 * inputs["latent_logvar"].float())
        latents = inputs["latent_mean"].float() + std * draws.posterior_noise
        noisy = self.video_model.corrupt(self.scheduler, latents, draws.noise, draws.timesteps)
        text = self._text(inputs, draws.drop_caption)
        theirs: dict[str, Tensor] = {}
        for policy in self._compared:
            with acting_as(self.accelerator.unwrap_model(model), policy):
                theirs[policy] = self.video_model.predict(model, noisy, text).float()
        prediction = self.video_model.predict(model, noisy, text)
        policies = {
            policy: OtherPolicy(per_sample_loss(v, noisy.target), per_sample_loss(prediction, v))
            for policy, v in theirs.items()
        }
        return StepRows(
            error=per_sample_loss(prediction, noisy.target),
            reward=inputs["reward"],
            advantage=inputs["advantage"],
            preference=inputs["preference"],
            partner=inputs["partner"],
            reference=policies.get("reference"),
            old=policies.get("old", policies.get("reference")) if "old" in self._needs else None,
        )

    def _watch(self, mode: str, inputs: TrainBatch, draws: RowDraws, rows: StepRows, loss_B: Tensor) -> None:
        """
        Adds up what is logged, by the device alone: nothing here waits for it. Rows beside a loss that is not finite do not
        count; the step raises for it, or the loss scaler skips it.
        """
        self._skipped_steps.watch(inputs["id"], loss_B)
        low, high = self._quantiles
        fraction = (draws.timesteps / self.scheduler.config.num_train_timesteps - low) / (high - low)
        with torch.no_grad():
            health = self.objective.health(rows, self.config)
            quarter = (fraction * TIMESTEP_QUARTERS).long().clamp(0, TIMESTEP_QUARTERS - 1)
            counts = inputs["counts"] & loss_B.isfinite().all()
            self._metrics.add(mode, {**inputs, "counts": counts}, rows.error.detach(), quarter, health)

    def _text(self, inputs: TrainBatch, drop_caption: Tensor) -> TextCondition:
        """The captions' embeddings, the empty prompt's where `drop_caption`."""
        chosen = TextCondition()
        for name, text in inputs["text"].items():
            drop = drop_caption.view(-1, *[1] * (text.ndim - 1))
            chosen[name] = torch.where(drop, self._empty_prompt[name].to(text), text)
        return chosen

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of an optimiser step and their units over all processes; stock counts label tokens."""
        batches = list(islice(epoch_iterator, num_batches))
        if batches:
            self._mark_padding(batches[-1])
        units = sum((num_units(batch) for batch in batches), torch.zeros((), dtype=torch.long, device=device))
        return batches, self.accelerator.reduce(units, reduction="sum")

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Stock; clips that `evaluate` is given are weighted as those of the constructor."""
        if isinstance(eval_dataset, CachedVideoDataset):
            eval_dataset = prepare_dataset(eval_dataset, self.source, self.config, "eval", self.objective)
        return super().get_eval_dataloader(eval_dataset)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Stock, on rows that count; raises `FloatingPointError` for a loss that is not finite."""
        self._mark_padding(inputs)
        with attending_by(self.config.attention_kernel):
            found = super().prediction_step(model, inputs, *args, **kwargs)
        self._skipped_steps.check(self.state.global_step, training=False)
        return found

    def _mark_padding(self, batch: TrainBatch) -> None:
        """
        Rows that do not count: accelerate repeats some at an epoch's end, so that all processes have equally many.

        They would weigh twice, and two processes would not equal one. Process p has the p-th part of the last batches.
        """
        loader = self.accelerator.gradient_state
        if loader.end_of_dataloader and loader.remainder > 0:
            unit = is_first(batch).cumsum(0) - 1  # what the loader counts
            place = self.accelerator.process_index * (int(unit[-1]) + 1) + unit
            batch["counts"] = place < loader.remainder

    # ---- Preparation -------------------------------------------------------------------------------------------

    def _choose(self, objective: Objective | Loss | None, *, has_lora: bool) -> None:
        """The objective, and the policies that it compares with."""
        self.objective = choose_objective(objective, self.config.objective)
        self._needs = self.objective.needs(self.config)
        if self.config.quantization and not has_lora:
            raise ValueError("quantization: weights in 8 bits cannot be trained. Set use_peft: true, or leave it out.")
        if self._needs and not has_lora:
            raise ValueError(
                f"objective={self.objective.name!r} compares with the model without its LoRA, which full training has not. "
                "Set use_peft: true, or for dpo reference_free: true."
            )
        # Without an earlier LoRA and without updates the old policy is the base: no second LoRA is held.
        self._has_old = "old" in self._needs and (self.adapter is not None or self._old_policy_moves)
        self._compared: list[Needs] = sorted(self._needs) if self._has_old else ["reference"] * bool(self._needs)

    def _open(self, model: "str | Path | DiffusionPipeline | PipelineSource") -> None:
        """The base, which others must have too where the run is pushed."""
        self.source = open_pipeline(model)
        if self.config.push_to_hub:
            self._check_base(self.config.hub_token)

    def _load_network(
        self, args: RewardWeightedVideoConfig, peft_config: LoraConfig | None, dtype: torch.dtype
    ) -> Any:
        """The transformer, ready to train: a LoRA on a frozen base in `dtype`, or all of it in float32."""
        dtype, network = dtype if peft_config else torch.float32, self.source.network
        pipe = self.source.load(network, dtype=dtype, private=True, quantization=args.quantization)
        transformer: Any = in_autocast(getattr(pipe, network), args.quantization)
        # Trackers of transformers ask a configuration for these; diffusers has the first on the model.
        transformer.config.to_json_string = transformer.to_json_string
        transformer.config.to_dict = lambda: dict(transformer.config)
        if args.activation_checkpointing:
            transformer.enable_gradient_checkpointing()
            # The Trainer calls this name; diffusers models have the other one, which was just called.
            transformer.activation_checkpointing_enable = lambda **kwargs: None
        model = self._add_lora(transformer, peft_config) if peft_config else transformer.requires_grad_(True)
        if args.compile_blocks:
            compile_blocks(transformer, args.compile_blocks)
        return model

    def _add_lora(self, transformer: Any, peft_config: LoraConfig) -> PeftModel:
        """`transformer` with float32 adapters on it; what `peft_config` leaves empty comes from the family."""
        peft_config = deepcopy(peft_config)  # the caller's stays as it was given
        check_lora_options(peft_config)
        peft_config.task_type = None  # a task type makes PEFT look for methods of language models
        if peft_config.target_modules is None:
            peft_config.target_modules = list(self.video_model.lora_target_modules)
        # The Trainer seeds only later; the adapter's start must depend on the seed alone, on every process.
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            model = get_peft_model(transformer.requires_grad_(False), peft_config, autocast_adapter_dtype=False)
        model.peft_config["default"].base_model_name_or_path = self.config.hub_base_model or self.source.name
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if self.adapter is not None:
            load_adapter(model, self.adapter, network=self.source.network)
        if self._has_old:
            add_old_policy(model)
        return model

    def _validation_callback(self, dataset: CachedVideoDataset) -> ValidationVideos:
        """Samples the validation prompts; those that the cache lacks are embedded beside the output."""
        if len(self.video_model.networks) > 1:
            raise ValueError("validation_prompts: sampling takes both networks. Leave it out: recipes/generate.py.")
        _, negative = validation_guidance(self.config, self.video_model)
        prompts, state = [*(self.config.validation_prompts or ()), negative], self.config.distributed_state
        texts = dataset.text_cache()
        if texts.missing(prompts):
            texts = TextCache(self.output_dir / CACHE_DIR / "text", texts.fingerprint)
            texts.embed(self.source, prompts, Processes(state), getattr(torch, dataset.artifact.config["dtype"]))
        config, dtype = dataset.artifact.config, encoding_dtype(self.source, state.device.type)
        return ValidationVideos(self.source, texts, config, self.config, dtype)

    def _announce(self, model: Any) -> None:
        """What really runs, at the start of the log."""
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in model.parameters()) - trainable
        logger.info("strategy: %s", strategy(self.accelerator))
        logger.info("%d trainable parameters in float32, %d frozen", trainable, frozen)
        if isinstance(model, PeftModel):
            lora = model.peft_config["default"].to_dict()
            logger.info("LoRA r=%d alpha=%s on %s", lora["r"], lora["lora_alpha"], lora["target_modules"])
        if isinstance(self.train_dataset, CachedVideoDataset):
            weight, is_real = self.train_dataset.weight, self.train_dataset.ratings.is_real
            logger.info(
                "objective %s: %d sampled and %d real rows, weights %s, effective sample size %.1f of %d",
                self.objective.name,
                int((~is_real).sum()),
                int(is_real.sum()),
                weights_in_words(weight),
                effective_sample_size(weight),
                len(weight),
            )

    # ---- Logging -----------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the metrics since the last log: of training to lines with `loss`, of evaluation to those with its loss."""
        if "loss" in logs:
            logs.update(self._metrics.pop("train"))
        elif loss := next((name for name in logs if name.endswith("_loss") and name != "train_loss"), None):
            prefix = loss.removesuffix("loss")  # of each of several evaluation sets another
            logs.update({f"{prefix}{name}": value for name, value in self._metrics.pop("eval").items()})
        super().log(logs, start_time)


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return dict(collate(rows))
