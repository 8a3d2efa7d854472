# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl[eval]"]
# ///
"""Iterated LiFT: generate, score, cache, align; each round from the LoRA of the round before.

    accelerate launch --config_file recipes/configs/accelerate/multi_gpu.yaml recipes/iterate.py \
        --config recipes/configs/cogvideox-2b/iterate.yaml --rounds 3
"""

from dataclasses import dataclass, field
from typing import Literal

from lift_trl.importing import importing


with importing():
    from accelerate.logging import get_logger

    from lift_trl.alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
    from lift_trl.alignment.sampling.arguments import SamplerArguments
    from lift_trl.judges.arguments import CriticArguments
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.runtime import leaving_processes, setup_logging


logger = get_logger(__name__)


@dataclass
class IterateArguments(SamplerArguments, CriticArguments):
    model_name_or_path: str = field(metadata={"help": "Folder or repo[@revision] of the text-to-video pipeline."})
    critic: str = field(
        metadata={"help": "Folder or repo[@revision] of a critic or chat VLM; or a judge[=weights]: video_reward."}
    )
    prompts: str = field(metadata={"help": "Text file, one prompt a line; every round samples all of them."})
    rounds: int = field(default=2, metadata={"help": "How often to generate, score, cache and align."})
    real: list[str] = field(default_factory=list, metadata={"help": "Folders or repos of real clips for every round."})
    videos_per_prompt: int = field(default=4, metadata={"help": "Videos of each prompt, in each round."})
    sampling_batch_size: int = field(default=1, metadata={"help": "Videos sampled together, in one process."})
    critic_batch_size: int = field(default=8, metadata={"help": "Clips scored together, in one process."})
    rows_per_shard: int = field(default=100, metadata={"help": "Clips in one shard of a cache, its unit of resuming."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model's Hub id."})
    network: str | None = field(
        default=None,
        metadata={
            "help": "Of a model with two (Wan2.2-A14B), the one that each round trains: transformer or transformer_2."
        },
    )
    critic_revision: str | None = field(default=None, metadata={"help": "The same, of the critic."})
    second_judge: str | None = field(
        default=None,
        metadata={"help": "Another critic or judge[=weights], which gives no reward: the guard (docs/objectives.md)."},
    )
    guard_action: Literal["warn", "stop", "best"] = field(
        default="best",
        metadata={"help": "Where the reward is exploited: go on, stop, or stop and hand back the best round before."},
    )


ARGUMENTS = (IterateArguments, LoraArguments, RewardWeightedVideoConfig)


def main(script_args: IterateArguments, lora_args: LoraArguments, training_args: RewardWeightedVideoConfig) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from lift_trl.alignment.guard import Guard
        from lift_trl.alignment.iterate import iterate
        from lift_trl.reward_source import reward_source
        from lift_trl.statistics.drift import alarms_in_words
        from lift_trl.video_models import StoredPipeline

    setup_logging(training_args.distributed_state)
    peft_config = lora_args.lora_config()
    if peft_config is None:
        raise ValueError("use_peft is false: the rounds hand a LoRA on. Leave it true, or run the stages one by one.")

    # In the size and by the arithmetic that is trained.
    sampling = script_args.sampling(training_args, batch_size=script_args.sampling_batch_size)
    options = script_args.critic_options(training_args.distributed_state)
    options["batch_size"] = script_args.critic_batch_size
    critic = reward_source(script_args.critic, revision=script_args.critic_revision, **options)
    guard = None
    if script_args.second_judge:
        guard = Guard(reward_source(script_args.second_judge, **options), script_args.guard_action, alarms_in_words)
    else:
        logger.warning("no second_judge is given: nothing tells a better model from an exploited reward")
    lora = iterate(
        StoredPipeline(
            script_args.model_name_or_path, revision=script_args.model_revision, network=script_args.network
        ),
        critic,
        script_args.prompts,
        training_args,
        rounds=script_args.rounds,
        peft_config=peft_config,
        sampling=sampling,
        videos_per_prompt=script_args.videos_per_prompt,
        real=script_args.real,
        adapter=lora_args.adapter,
        critic_batch_size=script_args.critic_batch_size,
        rows_per_shard=script_args.rows_per_shard,
        guard=guard,
    )
    which = "kept" if guard is not None and guard.action == "best" else "last"
    training_args.distributed_state.print(
        f"The LoRA of the {which} round is {lora}. Next: recipes/generate.py --adapter with the LoRA of each round, and "
        "recipes/evaluate.py"
    )


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
