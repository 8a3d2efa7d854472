# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl"]
# ///
"""Stage 2: tunes a vision-language model into a critic that answers with a label and a reason.

    accelerate launch --config_file recipes/configs/accelerate/multi_gpu.yaml recipes/train_critic.py \
        --config recipes/configs/qwen2.5-vl-7b/train_critic.yaml
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lift_trl.importing import importing


with importing():
    from trl import ModelConfig

    from lift_trl.critic.critic_config import LiFTCriticConfig, model_init_kwargs
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.remote import local_copy
    from lift_trl.runtime import fit, leaving_processes, setup_logging
    from lift_trl.store.rubrics.of_data import find_rubric


@dataclass
class TrainCriticArguments:
    hra: str = field(
        metadata={"help": "LiFT-HRA: a dataset repo[@revision], a folder with metadata, or the authors' JSON."}
    )
    hra_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a dataset repo."})
    test_fraction: float | None = field(
        default=None,
        metadata={"help": "Share of the videos held out; empty uses the splits train and test as they are."},
    )
    bad_rows: Literal["raise", "drop"] = field(
        default="raise", metadata={"help": "raise, or drop: go on without rows that cannot be used, and list them."}
    )
    adapter: str | None = field(
        default=None,
        metadata={"help": "Folder or repo of a trained critic to go on from; its LoRA is taken as it is."},
    )
    preferences: str | None = field(
        default=None,
        metadata={"help": "Pairs to learn from too: the arena's votes, or a CSV like VideoGen-RewardBench's."},
    )
    systems: list[str] = field(
        default_factory=list, metadata={"help": "name=folder of each system that votes in preferences compare."}
    )
    rubric: str | None = field(
        default=None, metadata={"help": "YAML of your own rubric; what the ratings say, or LiFT's, by default."}
    )


ARGUMENTS = (TrainCriticArguments, LiFTCriticConfig, ModelConfig)


def main(script_args: TrainCriticArguments, training_args: LiFTCriticConfig, model_args: ModelConfig) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from trl import get_peft_config

        from lift_trl.critic.critic_trainer import LiFTCriticTrainer
        from lift_trl.critic.pairs.reading import read_pairs
        from lift_trl.feedback.hra import load_hra
        from lift_trl.hub.parents import hub_parent
        from lift_trl.judges.preferences import parse_systems

    setup_logging(training_args.distributed_state)
    name, revision = script_args.hra, script_args.hra_revision
    rubric = find_rubric(name, script_args.rubric, revision=revision)
    options = {"bad_rows": script_args.bad_rows, "test_fraction": script_args.test_fraction}
    hra = load_hra(name, revision=revision, rubric=rubric, **options)
    is_folder = Path(local_copy(name)).exists()
    parents = None if is_folder else {"ratings": hub_parent(name, repo_type="dataset", revision=revision)}
    pairs = (
        read_pairs(script_args.preferences, parse_systems(script_args.systems), rubric)
        if script_args.preferences
        else []
    )
    training_args.model_init_kwargs = model_init_kwargs(model_args, training_args.model_init_kwargs)
    trainer = LiFTCriticTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=hra["train"],
        eval_dataset=hra.get("test"),
        pairs=pairs,
        peft_config=None if script_args.adapter else get_peft_config(model_args),
        adapter=script_args.adapter,
        parents=parents,
        rubric=rubric,
    )
    fit(trainer)
    training_args.distributed_state.print(
        f"Critic saved in {training_args.output_dir}. Next: recipes/evaluate_critic.py --critic {training_args.output_dir}"
    )


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
