# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl"]
# ///
"""Stage 3d: LoRA-tunes a text-to-video model on a cache by reward-weighted likelihood.

    accelerate launch --config_file recipes/configs/accelerate/single_gpu.yaml recipes/align.py \
        --config recipes/configs/cogvideox-2b/align_rwl.yaml
"""

from dataclasses import dataclass, field
from typing import Literal

from lift_trl.importing import importing


with importing():
    from accelerate.logging import get_logger
    from transformers import TrainerCallback

    from lift_trl.alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
    from lift_trl.judges.arguments import CriticArguments
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.runtime import fit, leaving_processes, setup_logging


logger = get_logger(__name__)


@dataclass
class AlignArguments(CriticArguments):
    model_name_or_path: str = field(metadata={"help": "Folder or repo[@revision] of the text-to-video pipeline."})
    cache: str = field(metadata={"help": "Folder written by recipes/cache.py, or a dataset repo that holds one."})
    eval_cache: str | None = field(default=None, metadata={"help": "The same, of held-out clips."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub id."})
    network: str | None = field(
        default=None,
        metadata={"help": "Of a model with two (Wan2.2-A14B): transformer (high noise) or transformer_2."},
    )
    critic: str | None = field(
        default=None,
        metadata={"help": "Of a guard: what gave the rewards, a critic or a judge[=weights]: video_reward."},
    )
    second_judge: str | None = field(
        default=None,
        metadata={
            "help": "Another critic or judge[=weights], for the validation videos too: the guard (docs/objectives.md)."
        },
    )
    guard_action: Literal["warn", "stop"] = field(
        default="stop", metadata={"help": "Where the reward is exploited: go on, or end the training."}
    )


ARGUMENTS = (AlignArguments, LoraArguments, RewardWeightedVideoConfig)


def main(script_args: AlignArguments, lora_args: LoraArguments, training_args: RewardWeightedVideoConfig) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from lift_trl.alignment.data.video_dataset import CachedVideoDataset
        from lift_trl.alignment.guard import Guard
        from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
        from lift_trl.alignment.training.guarded import GuardedValidation
        from lift_trl.hub.lora.loading import loading_call
        from lift_trl.reward_source import reward_source
        from lift_trl.statistics.drift import alarms_in_words
        from lift_trl.video_models import StoredPipeline

    setup_logging(training_args.distributed_state)
    callbacks: list[TrainerCallback] = []
    if script_args.second_judge:
        if script_args.critic is None:
            raise ValueError("second_judge is given, but not critic: name the one that gave the rewards.")
        options = script_args.critic_options(training_args.distributed_state)
        judge, critic = (reward_source(name, **options) for name in (script_args.second_judge, script_args.critic))
        callbacks = [GuardedValidation(Guard(judge, script_args.guard_action, alarms_in_words), critic)]
    elif script_args.critic or script_args.critic_quantization or script_args.critic_device_map:
        logger.warning(
            "critic, critic_quantization and critic_device_map are a guard's: add second_judge, or leave out."
        )
    trainer = RewardWeightedVideoTrainer(
        model=StoredPipeline(
            script_args.model_name_or_path, revision=script_args.model_revision, network=script_args.network
        ),
        args=training_args,
        train_dataset=CachedVideoDataset(script_args.cache),
        eval_dataset=CachedVideoDataset(script_args.eval_cache) if script_args.eval_cache else None,
        callbacks=callbacks,
        peft_config=lora_args.lora_config(),
        adapter=lora_args.adapter,
    )
    fit(trainer)
    folder, network = training_args.output_dir, trainer.source.network
    saved, load = f"LoRA saved in {folder}", loading_call(trainer.source.class_name, network, folder)
    if not lora_args.use_peft:
        folder = f"{folder}/transformer"
        saved, load = (
            f"Transformer saved in {folder}",
            f"pipe.{network} = type(pipe.{network}).from_pretrained({folder!r})",
        )
    training_args.distributed_state.print(f"{saved}. Next: {load}, or lift-trl inspect {training_args.output_dir}")


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
