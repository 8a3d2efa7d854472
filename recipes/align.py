"""Stage 3d: LoRA-tunes a text-to-video model on a cache by reward-weighted likelihood.

    accelerate launch --config_file recipes/configs/accelerate/single_gpu.yaml recipes/align.py \
        --config recipes/configs/cogvideox-2b/align_rwl.yaml
"""

from dataclasses import dataclass, field

from lift_trl.alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.alignment.video_dataset import CachedVideoDataset
from lift_trl.recipe_parser import RecipeParser
from lift_trl.runtime import fit, leaving_processes, setup_logging
from lift_trl.video_models import PipelineSource


@dataclass
class AlignArguments:
    model_name_or_path: str = field(metadata={"help": "Hub id or folder of the text-to-video pipeline."})
    cache: str = field(metadata={"help": "Folder written by recipes/cache.py, or a dataset repo that holds one."})
    eval_cache: str | None = field(default=None, metadata={"help": "The same, of held-out clips."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub id."})
    network: str | None = field(
        default=None,
        metadata={"help": "Of a model with two (Wan2.2-A14B): transformer (high noise) or transformer_2."},
    )


ARGUMENTS = (AlignArguments, LoraArguments, RewardWeightedVideoConfig)


def main(script_args: AlignArguments, lora_args: LoraArguments, training_args: RewardWeightedVideoConfig) -> None:
    setup_logging(training_args.distributed_state)
    trainer = RewardWeightedVideoTrainer(
        model=PipelineSource(
            script_args.model_name_or_path, revision=script_args.model_revision, network=script_args.network
        ),
        args=training_args,
        train_dataset=CachedVideoDataset(script_args.cache),
        eval_dataset=CachedVideoDataset(script_args.eval_cache) if script_args.eval_cache else None,
        peft_config=lora_args.lora_config(),
        adapter=lora_args.adapter,
    )
    fit(trainer)
    folder, network = training_args.output_dir, trainer.source.network
    target = "" if network == "transformer" else f", load_into_{network}=True"
    saved, load = f"LoRA saved in {folder}", f"pipe.load_lora_weights({folder!r}{target})"
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
