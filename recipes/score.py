# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl"]
# ///
"""Stage 3b: scores generated videos, or clips of your own, with a critic.

    accelerate launch --config_file recipes/configs/accelerate/multi_gpu.yaml recipes/score.py \
        --config recipes/configs/qwen2.5-vl-7b/score.yaml
"""

import os
from dataclasses import dataclass, field
from typing import Literal

from lift_trl.importing import importing


with importing():
    from lift_trl.engines import EngineArguments
    from lift_trl.judges import JUDGES, JudgeName
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.rubric import LIFT
    from lift_trl.runtime import leaving_processes, process_state, setup_logging
    from lift_trl.store.rubrics.form import read_rubric


@dataclass
class ScoreArguments(EngineArguments):
    videos: str = field(metadata={"help": "Folder written by recipes/generate.py, or clips with metadata.jsonl."})
    output_dir: str = field(metadata={"help": "Folder of the scores."})
    critic: str | None = field(
        default=None,
        metadata={"help": "Folder or repo[@revision] of a critic or chat VLM; with base_url the served name."},
    )
    judge: JudgeName | None = field(
        default=None,
        metadata={"help": f"Released judge in place of a critic: {', '.join(JUDGES)}; critic its weights."},
    )
    scale: str | None = field(
        default=None, metadata={"help": "Its native values to [0, 1]: linear:1:5 or normal:0:1."}
    )
    with_reason: bool = field(default=True, metadata={"help": "Also write the reason of each label."})
    batch_size: int = field(default=8, metadata={"help": "Clips that run through the critic together."})
    critic_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a repo."})
    base_url: str | None = field(default=None, metadata={"help": "Address of an OpenAI-compatible server, up to /v1."})
    logprobs: bool = field(default=True, metadata={"help": "Whether that server returns log-probabilities."})
    num_frames: int = field(default=8, metadata={"help": "Frames of a clip for that server; a critic knows its own."})
    device_map: str | None = field(
        default=None, metadata={"help": "auto spreads a large critic over the devices of one process (transformers)."}
    )
    quantization: Literal["int8", "float8"] | None = field(
        default=None, metadata={"help": "Hold the critic in 8 bits, which saves memory (torchao)."}
    )
    api_key_env: str | None = field(default=None, metadata={"help": "Environment variable with that server's key."})
    rubric: str | None = field(
        default=None, metadata={"help": "YAML of your own rubric, for an untuned model; a critic knows its own."}
    )

    def __post_init__(self) -> None:
        if self.critic is None and self.judge is None:
            raise ValueError(f"nothing to score with: give critic, or judge as one of {', '.join(JUDGES)}.")
        if self.judge and (self.base_url or self.rubric) or self.scale and not self.judge:
            raise ValueError("judge takes no base_url and no rubric, and scale is a judge's: leave one of them out.")
        if self.base_url and self.critic_revision:
            raise ValueError("critic_revision is of a repo, and base_url names a server: leave one of them out.")
        if not self.base_url and (self.api_key_env or not self.logprobs or self.num_frames != 8):
            raise ValueError("logprobs, num_frames and api_key_env are a server's: add base_url or leave them out.")
        if (self.base_url or self.judge) and (self.device_map or self.quantization):
            raise ValueError("device_map and quantization are a critic's: leave them out with base_url or judge.")
        if self.api_key_env and self.api_key_env not in os.environ:
            raise ValueError(f"api_key_env={self.api_key_env!r} is not in the environment; export it first.")


ARGUMENTS = (ScoreArguments,)


def main(args: ScoreArguments) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from lift_trl.alignment.score import CriticSource, score_videos
        from lift_trl.critic.lift_critic import LiFTCritic
        from lift_trl.critic.served import ServedCritic
        from lift_trl.reward_source import judge_source

    state = process_state()
    setup_logging(state)
    rubric = read_rubric(args.rubric) if args.rubric else LIFT
    if args.judge:
        critic = judge_source(args.judge, model=args.critic, revision=args.critic_revision, scale=args.scale)
    elif args.base_url:
        served = ServedCritic(
            args.critic,
            base_url=args.base_url,
            logprobs=args.logprobs,
            num_frames=args.num_frames,
            api_key=os.environ[args.api_key_env] if args.api_key_env else None,
            rubric=rubric,
        )
        critic = CriticSource(served.name, lambda: served, rubric)
    else:
        if args.device_map and state.num_processes > 1:
            raise ValueError("device_map spreads one process over the devices: launch one, or leave it out.")
        found = LiFTCritic.when_needed(
            args.critic,
            revision=args.critic_revision,
            device_map=args.device_map,
            quantization=args.quantization,
            batch_size=args.batch_size,
            rubric=rubric if args.rubric else None,
        )
        critic = CriticSource(*found)
    score_videos(
        critic,
        args.videos,
        args.output_dir,
        with_reason=args.with_reason,
        batch_size=args.batch_size,
        state=state,
        workers=args.workers(state),
    )
    made = f"Scores are in {args.output_dir}. Next: lift-trl inspect {args.output_dir}, or recipes/cache.py"
    state.print(args.ending(made))


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
