"""`LiFTCriticTrainer`: TRL's `SFTTrainer` on ratings, with the accuracy of the labels that scoring would give."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import HfApi
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, AutoProcessor
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy
from trl.trainer.sft_trainer import SFTTrainer

from ..critic_models import control_tokens
from ..hub.artifact_cards import artifact_card
from ..hub.front_matter import with_licence
from ..hub.pushed_base import check_base
from ..hub.pushing.trainer import PushingTrainer
from ..hub_source import pinned
from ..records import content_id
from ..rubric import LIFT, Rubric
from ..runtime import ResumableTrainer, check_world
from ..store.manifest import ARTIFACT_FILE, write_text
from .collator import CriticCollator, FrameCache
from .critic_config import LiFTCriticConfig
from .examples import (
    Example,
    HeldOut,
    balanced_examples,
    held_out,
    label_accuracy,
    lazy_dataset,
    mismatched_examples,
    rated_clips,
    read_examples,
    undecoded,
    without_control_tokens,
)
from .gate import check_config
from .lift_critic import LiFTCritic, apply_adapter
from .pairs.loss import PairBatch, pair_losses, pair_margins
from .pairs.reading import Pair, without_controls
from .settings import find_revision
from .trained_weights import (
    check_lora,
    check_pairs_fit,
    check_precision,
    completed_lora,
    freeze_vision,
    spare_frozen_tower,
    starting_lora,
)


if TYPE_CHECKING:
    from datasets import Dataset

_CARD = "README.md"
_TAGS = ("trl", "sft", "lift-critic")


class LiFTCriticTrainer(PushingTrainer, ResumableTrainer, SFTTrainer):
    """
    Tunes a vision-language model into a critic that answers with a label and a reason.

    The loss is that of the answer's tokens (equation 1). With `pairs`, that of Bradley and Terry on the expected rewards is
    added: its sum over the step's pairs by the step's rated rows, times `pair_weight`. Without `vision_learning_rate` the
    vision tower and the projector stay frozen: a LoRA without target modules adapts the linear layers of the language
    model. What it saves, `LiFTCritic.from_pretrained` loads.

    Args:
        model: a name, or a loaded image-text-to-text model.
        args: a `LiFTCriticConfig`.
        train_dataset: LiFT-HRA rows, tidy or one a clip (`read_examples`).
        eval_dataset: the same, of held-out clips; or a dict of several by name, whose figures are `eval_<name>_...`.
        pairs: clips that people compared (`critic.pairs.reading.read_pairs`), dealt out to the rows: an epoch shows each
            once.
        processing_class: the processor; that of `model` by default.
        peft_config: for instance `LoraConfig(r=128, lora_alpha=256)`; without one the whole language model is trained.
        adapter: a trained critic (a LoRA's folder or repository) to go on from, in place of `peft_config`.
        parents: what the ratings came from, for instance `{"ratings": "datasets/user/hra@<commit>"}`, for the card; a hash
            of the ratings by default.
        rubric: what the ratings are of, and the critic is taught to answer; `store.rubrics.find_rubric` tells a dataset's.
        kwargs: as in `SFTTrainer`.

    Raises:
        ValueError: if the model cannot be a critic: by its configuration, before its weights are loaded, or by what a clip
            shows (`critic.gate`), before the first step; or if a LoRA that is pushed would have a base that is not on the
            Hub.

    Source: arXiv 2412.04814, section 3.3; CodeGoat24/LiFT.
    """

    kind = "critic"
    args: LiFTCriticConfig
    model: Any
    _measured: list[HeldOut]
    _pushes_by: HfApi | None = None

    def __init__(
        self,
        model: Any,
        args: LiFTCriticConfig,
        *,
        train_dataset: "Dataset",
        eval_dataset: "Dataset | dict[str, Dataset] | None" = None,
        pairs: Sequence[Pair] = (),
        processing_class: Any = None,
        peft_config: LoraConfig | None = None,
        adapter: str | Path | None = None,
        parents: Mapping[str, str] | None = None,
        rubric: Rubric = LIFT,
        **kwargs: Any,
    ) -> None:
        check_world(args.world_size)
        peft_config = starting_lora(peft_config, adapter, model, rubric)
        check_lora(args, model, peft_config)
        options = args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}
        revision = options.get("revision")
        config = AutoConfig.from_pretrained(model, revision=revision) if isinstance(model, str) else model.config
        name = model if isinstance(model, str) else config.name_or_path
        self._take_base(
            str(name or ""), revision, args, adapted=peft_config is not None or isinstance(model, PeftModel)
        )
        self.critic_settings = args.critic_settings(rubric)
        family = self.critic_settings.adapter(config.model_type)
        processor = processing_class or AutoProcessor.from_pretrained(name, revision=revision)
        check_config(config, options.get("attn_implementation"))
        self._controls = control_tokens(processor.tokenizer)
        peft_config = peft_config and completed_lora(peft_config, revision, family, args.vision_learning_rate)
        shown = self._take_data(train_dataset, pairs, parents, args)
        args.dataset_kwargs = {"skip_prepare_dataset": True}
        frames = FrameCache(args.num_frames, args.frame_cache_gb * 1e9)
        super().__init__(
            model=model,
            args=args,
            data_collator=CriticCollator(family, processor, self.critic_settings, frames),
            train_dataset=shown,
            eval_dataset=self._hold_out(eval_dataset),
            processing_class=processor,
            peft_config=peft_config,
            **kwargs,
        )
        # SFTTrainer computes the loss itself, whatever the model's forward accepts. Where a model class says it does not
        # (Qwen-VL), every micro-batch and process would else weigh the same, however many answer tokens it holds.
        self.model_accepts_loss_kwargs = True
        self._prepare_weights(adapter)
        # Where the weights are spread over processes no forward works before the training has begun.
        self._critic = None if self.is_deepspeed_enabled or self.is_fsdp_enabled else self._make_critic()

    def _take_base(self, name: str, revision: str | None, args: LiFTCriticConfig, *, adapted: bool) -> None:
        """Remembers the base as a parent; where the run is pushed, others must have what the LoRA is loaded on."""
        self._base = name if adapted else None  # a whole model is loaded on nothing
        if args.push_to_hub:
            self._check_base(args)
        # The name on the Hub first: the card takes that one.
        bases = {args.hub_base_model: None, name: revision}
        self._parents = {base: find_revision(base, commit) for base, commit in bases.items() if base}

    def _take_data(
        self, dataset: "Dataset", pairs: Sequence[Pair], parents: Mapping[str, str] | None, args: LiFTCriticConfig
    ) -> "Dataset":
        """The rows that are trained on, with the pairs; remembers what both are."""
        rubric = self.critic_settings.rubric
        examples = without_control_tokens(read_examples(dataset, rubric), self._controls)
        self._parents |= parents or {"ratings": content_id(*(tuple(example) for example in examples))}
        self._pairs = without_controls(pairs, self._controls)
        if self._pairs:
            self._parents["pairs"] = content_id(*((a.id, b.id, *asked) for a, b, asked in self._pairs))
        shown = lazy_dataset(dataset, _shown(examples, args, rubric), self._pairs)
        self._measured = [HeldOut(shown, undecoded(dataset), rated_clips(examples))]
        return shown

    def _prepare_weights(self, adapter: str | Path | None) -> None:
        """Of a LoRA, where it starts and what it says that it is loaded on; of a whole model, what is trained."""
        if self._pairs:
            check_pairs_fit(self.accelerator.distributed_type)
        if adapter is not None:
            apply_adapter(self.model, str(adapter))
            self._parents[pinned(adapter).repo_id] = find_revision(str(adapter))
        if not isinstance(self.model, PeftModel):
            freeze_vision(self.model)
            check_precision(self.model)
        elif self.args.hub_base_model:
            lora = self.model.peft_config["default"]
            lora.base_model_name_or_path, lora.revision = self.args.hub_base_model, None
        spare_frozen_tower(self.model)

    def _hold_out(self, given: "Dataset | dict[str, Dataset] | None") -> Any:
        """What the loss of each evaluation is computed on; remembers the clips whose labels are scored then."""
        if isinstance(given, dict):
            return {name: self._hold_out(dataset) for name, dataset in given.items()}
        if given is None:
            return None
        self._measured.append(held_out(given, self.critic_settings.rubric, self._controls))
        return self._measured[-1].rows

    def _held(self, dataset: "Dataset | str | None") -> HeldOut:
        """
        The clips of ratings, of the trainer's own rows, or of one of several evaluation sets by its name.

        Raises:
            ValueError: if there are none, or several.
        """
        sets: Any = self.eval_dataset
        given = sets if dataset is None else sets[dataset] if isinstance(dataset, str) else dataset
        if given is None or isinstance(given, dict):
            raise ValueError(f"no eval_dataset, or several: name one{f' of {sorted(given)}' if given else ''}.")
        own = next((one for one in self._measured if one.rows is given), None)
        return own or held_out(given, self.critic_settings.rubric, self._controls)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As `SFTTrainer.create_optimizer`, with what is trained of tower and projector at `vision_learning_rate`."""
        is_new, optimizer = self.optimizer is None, super().create_optimizer(model)
        if self.args.vision_learning_rate is None or not is_new:
            return optimizer
        bare: Any = self.accelerator.unwrap_model(self.model if model is None else model)
        bare = bare.get_base_model() if isinstance(bare, PeftModel) else bare
        language = (*bare.get_decoder().parameters(), *bare.get_output_embeddings().parameters())
        known = {id(parameter) for parameter in language}
        for group in list(optimizer.param_groups):
            seeing = [parameter for parameter in group["params"] if id(parameter) not in known]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in known]
            if seeing:
                optimizer.add_param_group({**group, "params": seeing, "lr": self.args.vision_learning_rate})
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """As `SFTTrainer.get_batch_samples`; with pairs, also counts the step's rated rows over all processes."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._pairs:
            rows = torch.tensor(sum(len(batch["input_ids"]) for batch in batches), device=device)
            self._step_rows = self.accelerator.reduce(rows, reduction="sum")
        return batches, num_items

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As `SFTTrainer.compute_loss`, and the loss of the pairs that go with the rows."""
        pairs: PairBatch | None = inputs.pop("pairs", None)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not self._pairs or not model.training:
            return loss
        margins = torch.zeros(0, device=loss.device)
        if pairs is not None:
            rubric = self.critic_settings.rubric
            rewards = torch.tensor([rubric.rewards[label] for label in rubric.labels], device=loss.device)
            # Past DDP, whose forward waits for the other processes: their batches may hold no pair.
            margins = pair_margins(self.accelerator.unwrap_model(model), pairs, rewards)
        losses = pair_losses(margins, self.args.pair_beta)
        sums = torch.stack([losses.detach().sum(), (margins > 0).sum(), losses.new_tensor(len(losses))])
        total, right, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        if count:
            # Private in TRL 1.16: _metrics, which SFTTrainer averages into its log. When it goes,
            # `test_votes_to_a_critic_that_orders_the_pairs` fails.
            self._metrics["train"]["pair_loss"].append(total / count)
            self._metrics["train"]["pair_accuracy"].append(right / count)
        # DDP averages over processes what must be one mean over all their rows.
        share = losses.sum() * self.accelerator.num_processes / self._step_rows
        return loss + self.args.pair_weight * share

    def evaluate(
        self,
        eval_dataset: "Dataset | dict[str, Dataset] | str | None" = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As `SFTTrainer.evaluate`, on ratings as the trainer takes them, with the accuracy of the labels of their clips."""
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        if given is None or isinstance(given, dict):  # stock refuses the one, and of the other calls this for each
            several: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            return several
        held = self._held(given)
        asked = given if isinstance(given, str) else held.rows
        metrics: dict[str, float] = super().evaluate(asked, ignore_keys, metric_key_prefix)
        if self.args.eval_label_accuracy:
            labels = {f"{metric_key_prefix}_{name}": value for name, value in self._accuracy(held).items()}
            self.log(labels)
            metrics |= labels
        return metrics

    def label_accuracy(self, eval_dataset: "Dataset | str | None" = None) -> dict[str, float]:
        """
        How often the critic's label is the raters', by dimension and over all, scored exactly as `LiFTCritic` scores.

        Also `label_mass` (mean probability of the labels together) and `num_unscored`. Every process scores its
        share of the clips.

        Args:
            eval_dataset: ratings as the trainer takes them, or the name of one of its sets; by default its own.

        Raises:
            ValueError: if there is no evaluation set, or several and none is named.
        """
        return self._accuracy(self._held(eval_dataset))

    def _accuracy(self, held: HeldOut) -> dict[str, float]:
        was_training = self.model.training
        self.model.eval()
        self._critic = self._critic or self._make_critic()
        with self.compute_loss_context_manager():
            figures = label_accuracy(self._critic, held, self.accelerator)
        self.model.train(was_training)
        return figures

    def _make_critic(self) -> LiFTCritic:
        """What scores with the weights as they are; raises `ValueError` for a model that it refuses."""
        return LiFTCritic(
            self.accelerator.unwrap_model(self.model),
            self.processing_class,
            settings=self.critic_settings,
            batch_size=self.args.per_device_eval_batch_size,
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves adapter (or model), processor and the critic's settings; the card too, but not into a checkpoint."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = output_dir or str(self.args.output_dir)
            self.critic_settings.save(folder, parents=self._parents)
            # With the card goes trainer_state.json, by which `last_checkpoint` knows that a checkpoint is whole.
            if not _internal_call:
                self.create_model_card(output_dir=folder)

    def _check_base(self, args: LiFTCriticConfig, token: str | None = None) -> None:
        if self._base is not None or args.hub_base_model:
            api = HfApi(token=token or args.hub_token)
            check_base(api, str(args.output_dir), self._base or "", args.hub_base_model)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> Any:
        """
        Saves, and pushes critic and card; stock would push all of `output_dir`. `card` goes to `create_model_card`.

        Raises:
            ValueError: if the base of a LoRA is a folder of this machine, and `hub_base_model` does not name it on the Hub;
                and as `init_hf_repo`.
        """
        self._check_base(self.args, token)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.init_hf_repo(token=token, private=private)
        self._pushes_by = HfApi(token=token or self.args.hub_token)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        # Private in transformers 5.24: _finish_current_push, _push_from_checkpoint. When they go,
        # `test_every_save_leaves_a_critic_that_loads_with_its_settings` fails.
        self._finish_current_push()
        folder = str(self.args.output_dir)
        return self._upload(folder, commit_message, run_as_future=not blocking, token=token, revision=revision)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """With the card, which is beside its critic only."""
        if self.args.hub_strategy != HubStrategy.END:
            self.create_model_card(output_dir=checkpoint_folder)
        super()._push_from_checkpoint(checkpoint_folder)

    def create_model_card(  # type: ignore[override]  # TRL's signature, which differs from the Trainer's too
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
        *,
        license: str = "other",
        output_dir: str | None = None,
    ) -> None:
        """Writes the card of the critic that `output_dir` holds; none where it holds none yet (before the first save)."""
        folder = Path(output_dir or str(self.args.output_dir))
        if not self.is_world_process_zero() or not (folder / ARTIFACT_FILE).is_file():
            return
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))  # the card's figures
        added = [tags] if isinstance(tags, str) else tags or []
        card = artifact_card(
            folder,
            self.hub_model_id or self.args.hub_model_id or model_name or str(folder),
            license=license,
            tags=[*_TAGS, *added],
            datasets=[dataset_name] if dataset_name else [],
        )
        write_text(folder / _CARD, card if self._pushes_by is None else with_licence(self._pushes_by, card))


def _shown(examples: Sequence[Example], args: LiFTCriticConfig, rubric: Rubric) -> list[Example]:
    """What is trained on: `examples`, negatives made of them, and rare labels several times."""
    made = mismatched_examples(examples, args.mismatched_captions, seed=args.seed, rubric=rubric)
    shown = [*examples, *made]
    return balanced_examples(shown, seed=args.seed) if args.balanced_labels else shown
