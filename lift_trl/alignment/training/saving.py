"""What `RewardWeightedVideoTrainer` leaves behind: model, card and the run's settings; what of it is pushed."""

import json
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from huggingface_hub import HfApi, ModelCard
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer

from ...hub.cards import AlignedModelCard, BaseModel, ObjectiveFacts
from ...hub.front_matter import with_licence
from ...hub.gallery import gallery_files, save_gallery, validation_pairs
from ...hub.lora.files import export_diffusers_lora
from ...hub.lora.origin import CRITICS, LENGTH, RUBRIC
from ...hub.pushed_base import check_base
from ...hub.pushing.trainer import PushingTrainer
from ...kernels import attending_by
from ...records import content_id, placeless
from ...runtime import ResumableTrainer, last_checkpoint
from ...store.manifest import RUN_FILE, read_json
from ...video_models import PipelineSource
from ..data.cache_format import PAIRS_FILE
from ..data.video_dataset import CachedVideoDataset
from ..objectives import Objective
from ..reward_weighted_config import RUN_SETTINGS, RewardWeightedVideoConfig
from .policies import OLD, TRAINED, load_old_policy, save_old_policy


logger = get_logger(__name__)

TRANSFORMER_DIR = "transformer"
_TRANSFORMER_FILE = "diffusion_pytorch_model.safetensors"


class SavingTrainer(PushingTrainer, ResumableTrainer, Trainer):
    """Saves, resumes and pushes a LoRA or a whole transformer of a diffusers pipeline."""

    kind = "lora"

    source: PipelineSource
    config: RewardWeightedVideoConfig
    output_dir: Path
    objective: Objective
    _adapter_identity: str | None
    _adapter_training: dict[str, Any]

    @property
    def _old_policy_moves(self) -> bool:
        """Whether the old policy follows the trained one within the run."""
        return self.config.sync_ref_model and self.config.ref_model_sync_steps > 0

    # ---- Saving ------------------------------------------------------------------------------------------------
    # Private in transformers 5.24: _save, _load_from_checkpoint, _load_best_model. When they go,
    # `test_checkpoints_hold_the_lora_and_never_the_base` and `test_the_best_checkpoint_is_loaded_at_the_end` fail.

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """LoRA: PEFT's adapter (to resume) and diffusers' file (to use). Full: `transformer/` as diffusers saves it."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.output_dir)
        if isinstance(self.model, PeftModel):
            # Without the flag PEFT asks the Hub whether the base has a vocabulary, at every save.
            self.model.save_pretrained(
                str(folder), state_dict=state_dict, save_embedding_layers=False, selected_adapters=[TRAINED]
            )
            if self._old_policy_moves and OLD in self.model.peft_config:
                save_old_policy(self.model, folder)
            export_diffusers_lora(folder, folder, network=self.source.network)
        else:
            model = self.accelerator.unwrap_model(self.model)
            model.save_config(str(folder / TRANSFORMER_DIR))
            weights = model.state_dict() if state_dict is None else state_dict
            contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
            save_file(contiguous, folder / TRANSFORMER_DIR / _TRANSFORMER_FILE)
        # Not stock's training_args.bin: a pickle with paths and tokens that nothing reads.
        run = {**self._run(), **{name: getattr(self.state, name) for name in LENGTH}}
        (folder / RUN_FILE).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        self.create_model_card(output_dir=folder)

    def create_model_card(  # type: ignore[override]  # TRL's signature with the Trainer's `license`
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
        *,
        license: str = "other",
        output_dir: Path | str | None = None,
    ) -> None:
        """
        Writes the card of what was trained so far, with a snippet that works, into `output_dir`.

        Args:
            model_name: its title, by default the repository's name.
            dataset_name: a dataset of the Hub, beside those that the run knows of.
            tags: beside its own.
            license: `other` says that the base's holds.
        """
        if not self.is_world_process_zero():
            return
        dataset = self.train_dataset if isinstance(self.train_dataset, CachedVideoDataset) else None
        adapter = self.source.adapter
        clip = dataset.artifact.config if dataset else {}
        frames, height, width = (clip[n] for n in ("num_frames", "height", "width")) if clip else adapter.default_size
        call = adapter.sampling_arguments(frames, height, width, adapter.guidance_scale)
        AlignedModelCard(
            repo=self.hub_model_id or self.config.hub_model_id or str(self.output_dir),
            base=BaseModel(
                self.config.hub_base_model or self.source.name,
                self.source.identity,
                str(adapter.dtype),
                {**call, **({"negative_prompt": adapter.negative_prompt} if adapter.negative_prompt else {})},
                adapter.fps,
                on_hub=self.source.on_hub or self.config.hub_base_model is not None,
                network=self.source.network,
                pipeline=self.source.class_name,
            ),
            args=self.config,
            objective=self._objective_facts(dataset),
            adapter=self._adapter_identity,
            lora=self.model.peft_config["default"].to_dict() if isinstance(self.model, PeftModel) else None,
            ratings=dataset.ratings._asdict() if dataset else {},
            cache=dataset.artifact if dataset else None,
            log_history=self.state.log_history,
        ).save(
            Path(output_dir or self.output_dir) / "README.md",
            title=model_name,
            license=license,
            more_tags=[tags] if isinstance(tags, str) else tags or (),
            more_datasets=[dataset_name] if dataset_name else (),
        )

    def _objective_facts(self, dataset: CachedVideoDataset | None) -> ObjectiveFacts:
        """The objective for the card; `beta` is the value that was used, the objective's own where none was given."""
        settings = {name: getattr(self.config, name) for name in self.objective.options}
        settings |= {"beta": self.config.strength} if "beta" in settings else {}
        given = {name: value for name, value in settings.items() if value is not None}
        in_pairs = dataset is not None and len(dataset.training_rows.pairs) > 0
        return ObjectiveFacts(self.objective.name, self.objective.words, given, "pairs" if in_pairs else "clips")

    # ---- Resuming ----------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Stock, from a checkpoint of this very run.

        Raises:
            ValueError: if the checkpoint is of a run with other settings; names them.
        """
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            checkpoint = last_checkpoint(self.output_dir)
        if checkpoint:
            self._check_same_run(Path(str(checkpoint)))
        with attending_by(self.config.attention_kernel):  # backward too, where checkpointed blocks run again
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def _run(self) -> dict[str, Any]:
        """What makes this run the one that it is, as JSON."""
        run = {name: getattr(self.config, name) for name in (*RUN_SETTINGS, *self.objective.options)}
        run |= {"objective": self.objective.name, "clips_per_step": self.config.num_clips_per_step}
        # Names without folders: what was moved is the same.
        run["network"] = self.source.network
        run |= {
            "model": Path(self.source.identity).name,
            "adapter": Path(self._adapter_identity or "").name,
        }
        if isinstance(self.train_dataset, CachedVideoDataset):
            rows = self.train_dataset
            chosen = rows.training_rows
            signs = (*chosen.advantage.tolist(), *chosen.preference.tolist(), *chosen.pairs.flatten().tolist())
            run["clips"] = content_id(*sorted(video.id for video in rows.videos))
            run |= {CRITICS: self._critics(rows), RUBRIC: rows.rubric.id}
            run["clips_and_weights"] = content_id(*(video.id for video in rows.videos), *rows.weight.tolist(), *signs)
        if isinstance(self.model, PeftModel):
            lora = self.model.peft_config["default"].to_dict()
            targets = lora["target_modules"]
            run |= {"lora_r": lora["r"], "lora_alpha": lora["lora_alpha"]}
            run["lora_target_modules"] = targets if isinstance(targets, str) else sorted(targets)
        return dict(json.loads(json.dumps(run)))

    def _critics(self, rows: CachedVideoDataset) -> list[str] | None:
        """Whose rewards `rows` have, and those of the LoRA that training went on from; `None` where that is not known."""
        earlier = [] if self._adapter_identity is None else self._adapter_training.get(CRITICS)
        parents = rows.artifact.parents.items()
        # A name without a revision stands behind its role. `run.json` is published: no folders of this machine.
        named = [name.removeprefix("critic@") for role, name in parents if role.rpartition("/")[2] == "critic"]
        mine = {Path(name).name if Path(name).is_absolute() else name for name in named}
        if self.objective.name == "sft":
            return earlier
        by_people = len(rows.training_rows.pairs) > 0 and (rows.folder / PAIRS_FILE).is_file()
        return sorted({*earlier, *mine}) if mine and earlier is not None and not by_people else None

    def _check_same_run(self, checkpoint: Path) -> None:
        if not (checkpoint / RUN_FILE).is_file():
            raise ValueError(
                f"{checkpoint}: no {RUN_FILE}, so it is no checkpoint of this trainer. Name one that it saved."
            )
        before, now = (_placeless(run) for run in (read_json(checkpoint / RUN_FILE), self._run()))
        before.setdefault("clips_per_step", now["clips_per_step"])  # not said before 2026-11-29
        differences = [
            f"{name}={before.get(name)!r} there, {now.get(name)!r} here"
            for name in sorted((before.keys() | now.keys()) - {*LENGTH, CRITICS, RUBRIC})  # a run may be made longer
            if before.get(name) != now.get(name)
        ]
        if differences:
            raise ValueError(
                f"{checkpoint} is of a run with other settings: {'; '.join(differences)}. Set them back to resume it, or "
                "name another output_dir to start anew."
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Stock for a LoRA; a full model is read from `transformer/`."""
        weights = Path(resume_from_checkpoint) / TRANSFORMER_DIR / _TRANSFORMER_FILE
        if isinstance(self.model, PeftModel) or not weights.is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            if isinstance(self.model, PeftModel) and self._old_policy_moves and OLD in self.model.peft_config:
                load_old_policy(self.model, Path(resume_from_checkpoint))
        else:
            network: Any = model or self.model
            network.load_state_dict(load_file(weights))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    # ---- Pushing -----------------------------------------------------------------------------------------------
    def _check_base(self, token: str | None) -> None:
        """Raises `ValueError` where the base is not on the Hub, under a name of its own or `hub_base_model`."""
        check_base(HfApi(token=token), self.output_dir, self.source.name, self.config.hub_base_model)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card_options: Any,
    ) -> Any:
        """
        Saves, and pushes model and card; stock would push all of `output_dir`. `card_options` go to `create_model_card`. The
        card shows the clips of the last validation, where `private` or `hub_private_repo` says who may see them.

        Raises:
            ValueError: if the base is a folder of this machine, and `hub_base_model` does not name it on the Hub; and as
                `init_hf_repo`.
        """
        self._check_base(token or self.args.hub_token)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card_options)
        path = self.output_dir / "README.md"
        card = ModelCard(with_licence(HfApi(token=token or self.args.hub_token), path.read_text(encoding="utf-8")))
        pairs = validation_pairs(self.output_dir)
        if pairs and (self.args.hub_private_repo if private is None else private) is None:
            logger.warning(
                "the card shows no clips of the validation: say by hub_private_repo: true or false who may see them."
            )
            pairs = []
        if pairs:
            save_gallery(path, card, pairs)
        else:
            card.save(path)
        # Private in transformers 5.24: _finish_current_push. When it goes,
        # `test_pushed_lora_loads_by_name_and_the_cards_snippet_runs` fails.
        self._finish_current_push()
        return self._upload(
            self.output_dir,
            commit_message,
            run_as_future=not blocking,
            token=token,
            revision=revision,
            clips=tuple(gallery_files(pairs)),
        )


def _placeless(run: dict[str, Any]) -> dict[str, Any]:
    """`run` with its LoRA known by the content: its folder may have been renamed."""
    return {**run, "adapter": placeless(run.get("adapter") or "")}
