# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl"]
# ///
"""Stage 1: corrects ratings in three steps, with critics trained on the way. Run it again after each review.

    accelerate launch --config_file recipes/configs/accelerate/single_gpu.yaml recipes/correct.py \
        --config recipes/configs/cogvideox-2b/correct.yaml
"""

from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lift_trl.importing import importing


with importing():
    from trl import ModelConfig

    from lift_trl.critic.critic_config import LiFTCriticConfig, model_init_kwargs
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.records import Judgement
    from lift_trl.runtime import fit, leaving_processes, process_state, setup_logging
    from lift_trl.store.rubrics.of_data import find_rubric


@dataclass
class CorrectArguments:
    hra: str = field(metadata={"help": "Ratings that load_hra reads: a folder, or a dataset repo[@revision]."})
    split: str = field(default="train", metadata={"help": "The split to correct."})
    bad_rows: Literal["raise", "drop"] = field(
        default="raise", metadata={"help": "raise, or drop: go on without rows that cannot be used, and list them."}
    )
    min_caption_words: int = field(
        default=3, metadata={"help": "Captions with fewer words (characters, in scripts without spaces) are dropped."}
    )
    rubric: str | None = field(
        default=None, metadata={"help": "YAML of the ratings' rubric, where it is your own and they do not say so."}
    )


ARGUMENTS = (CorrectArguments, LiFTCriticConfig, ModelConfig)


def main(script_args: CorrectArguments, training_args: LiFTCriticConfig, model_args: ModelConfig) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from accelerate.utils import gather_object
        from datasets import Dataset
        from trl import get_peft_config

        from lift_trl.critic.critic_trainer import LiFTCriticTrainer
        from lift_trl.critic.lift_critic import LiFTCritic
        from lift_trl.feedback.correction.loop import CorrectionConfig, correct
        from lift_trl.feedback.hra import load_hra

    state = process_state(use_cpu=training_args.use_cpu)
    setup_logging(state)

    training_args.model_init_kwargs = model_init_kwargs(model_args, training_args.model_init_kwargs)
    rubric = find_rubric(script_args.hra, script_args.rubric)

    def fit_and_judge(train: Dataset, rows: Dataset, folder: Path) -> list[Judgement | None]:
        args = copy(training_args)
        args.output_dir = str(folder)  # a killed training goes on from its last checkpoint there
        model = model_args.model_name_or_path
        peft_config = get_peft_config(model_args)
        fit(LiFTCriticTrainer(model, args, train_dataset=train, peft_config=peft_config, rubric=rubric))
        state.wait_for_everyone()  # until the main process has saved the critic
        critic = LiFTCritic.from_pretrained(folder)
        clips = dict.fromkeys((row["video"]["path"], row["caption"]) for row in rows)
        state.print(f"{folder.parent.name}: labelling {len(clips)} clips", flush=True)
        with state.split_between_processes(list(clips)) as part:
            videos, captions = [Path(video) for video, _ in part], [caption for _, caption in part]
            judged = critic.score(videos, captions, with_reason=args.with_reason)
            scores = dict(gather_object(list(zip(part, judged))))
        found = [scores[row["video"]["path"], row["caption"]] for row in rows]
        return [None if score.unscored else score[row["dimension"]] for row, score in zip(rows, found)]

    config = CorrectionConfig(min_caption_words=script_args.min_caption_words, seed=training_args.seed)
    hra = load_hra(script_args.hra, missing_videos="keep", bad_rows=script_args.bad_rows, rubric=rubric)
    status = correct(hra[script_args.split], training_args.output_dir, fit_and_judge, config=config, rubric=rubric)
    if status.finished:
        state.print(f"Corrected ratings in {status.folder}. Next: train_critic.py with hra: {status.folder}")
    else:
        state.print(
            f"{status.num_waiting} rows of {status.queue} wait: fill in decision and reviewer, then run again."
        )


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
