# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl[eval]"]
# ///
"""How good a critic is: agreement with people on the test split, the sanity suite, public preference benchmarks.

    accelerate launch --config_file recipes/configs/accelerate/cpu.yaml recipes/evaluate_critic.py \
        --config recipes/configs/mini/evaluate_critic.yaml

Figures go to `figures.jsonl`, which a report takes in by its option `figures`. A benchmark is its published file with the
videos beside it: videogen-rewardbench.csv of KwaiVGI/VideoGen-RewardBench, the video pairs of TIGER-Lab/GenAI-Bench as JSON.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lift_trl.importing import importing


with importing():
    from accelerate import PartialState

    from lift_trl.hub.artifact_cards import EVALUATION_FIGURES, EVALUATION_FILE
    from lift_trl.judges import JUDGES, JudgeName, load_judge
    from lift_trl.judges.audit import audit
    from lift_trl.judges.preference_benchmarks import (
        BENCHMARKS,
        benchmark_report,
        benchmark_rows,
        evaluate_pairs,
        pair_rewards,
        write_pair_videos,
    )
    from lift_trl.judges.verdicts import critic_report, evaluate_verdicts, verdicts
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.records import EvalRow
    from lift_trl.rubric import LIFT, Rubric
    from lift_trl.runtime import leaving_processes, process_state, setup_logging
    from lift_trl.store.manifest import ARTIFACT_FILE, METADATA_FILE, read_rows, write_rows, write_text
    from lift_trl.store.rubrics.of_data import check_same, find_rubric


if TYPE_CHECKING:
    from lift_trl.alignment.score import NamedRewardModel


@dataclass
class EvaluateCriticArguments:
    output_dir: str = field(metadata={"help": "Folder of the figures."})
    critic: str | None = field(
        default=None, metadata={"help": "Folder or repo[@revision] of a critic or chat VLM; with judge its weights."}
    )
    judge: JudgeName | None = field(
        default=None, metadata={"help": f"Released judge in place of a critic, on benchmarks: {', '.join(JUDGES)}."}
    )
    scale: str | None = field(default=None, metadata={"help": "Of a judge's values, as in recipes/score.py."})
    hra: str | None = field(
        default=None,
        metadata={
            "help": "LiFT-HRA (folder or repo[@revision]) with a split test, or any rated clips with test_fraction."
        },
    )
    test_fraction: float | None = field(default=None, metadata={"help": "As in training, for the same split."})
    bad_rows: Literal["raise", "drop"] = field(
        default="raise", metadata={"help": "raise or drop, as in training, for the same split."}
    )
    batch_size: int = field(default=8, metadata={"help": "Clips that run through the critic together."})
    device_map: str | None = field(
        default=None, metadata={"help": "auto spreads a critic over the devices of one process."}
    )
    quantization: Literal["int8", "float8"] | None = field(
        default=None, metadata={"help": "Critic's linear layers in 8 bits (torchao)."}
    )
    num_audit_clips: int = field(default=32, metadata={"help": "Clips of the sanity suite; 0 leaves it out."})
    videogen_rewardbench: str | None = field(default=None, metadata={"help": "File videogen-rewardbench.csv."})
    genai_bench: str | None = field(default=None, metadata={"help": "File of GenAI-Bench's video pairs, JSON."})

    def __post_init__(self) -> None:
        if self.critic is None and self.judge is None:
            raise ValueError(f"nothing to evaluate: give critic, or judge as one of {', '.join(JUDGES)}.")
        if self.scale and not self.judge:
            raise ValueError("scale is a judge's, and labels have rewards: leave it out, or name a judge.")
        if self.judge and (self.device_map or self.quantization):
            raise ValueError("device_map and quantization are a critic's: leave them out with judge.")
        if self.judge and self.hra:
            raise ValueError("hra holds labels, and a judge gives none: leave it out, or name a critic.")
        if not (self.hra or self.benchmarks):
            raise ValueError("nothing to evaluate on; name hra, videogen_rewardbench or genai_bench.")

    @property
    def system(self) -> str:
        """What the figures are of: the critic, or the judge with what is not its own."""
        return " ".join(name for name in (self.judge, self.critic, self.scale) if name)

    @property
    def benchmarks(self) -> dict[str, str]:
        """The files of the benchmarks that are named."""
        files = zip(BENCHMARKS, (self.videogen_rewardbench, self.genai_bench), strict=True)
        return {name: file for name, file in files if file is not None}


ARGUMENTS = (EvaluateCriticArguments,)


def main(args: EvaluateCriticArguments) -> None:
    # After the parser: `--help` and a wrong option do not wait for the models' classes.
    with importing():
        from lift_trl.critic.lift_critic import LiFTCritic

    state = process_state()
    setup_logging(state)
    critic: NamedRewardModel
    rubric = LIFT
    if args.judge:
        critic = load_judge(args.judge, model=args.critic, scale=args.scale, device=state.device)
    else:
        if args.device_map and state.num_processes > 1:
            raise ValueError("device_map: launch one process, which it spreads over the devices, or leave it out.")
        critic = LiFTCritic.from_pretrained(
            str(args.critic),
            device=None if args.device_map else state.device,
            device_map=args.device_map,
            quantization=args.quantization,
            batch_size=args.batch_size,
        )
        rubric = critic.rubric
    figures: list[EvalRow] = []
    parts: list[str] = []
    for evaluate in (on_ratings, on_benchmarks):
        found, text = evaluate(args, critic, rubric, state)
        figures, parts = [*figures, *found], [*parts, text]
    if not state.is_main_process:
        return
    folder = Path(args.output_dir)
    rows = [asdict(row) for row in figures]
    write_rows(folder / "figures.jsonl", rows)
    report = "\n".join(part for part in parts if part)
    write_text(folder / "report.md", report)
    if args.judge is None and (Path(args.system) / ARTIFACT_FILE).is_file():
        # For the critic's card, which the next push makes.
        write_text(Path(args.system) / EVALUATION_FILE, report)
        write_rows(Path(args.system) / EVALUATION_FIGURES, rows)
    print(report)
    given = [f"--{name} {value}" for name in ("judge", "critic", "scale") if (value := getattr(args, name))]
    print(f"Figures are in {folder}. Next: recipes/score.py {' '.join(given)}")


def on_ratings(
    args: EvaluateCriticArguments, critic: "NamedRewardModel", rubric: Rubric, state: PartialState
) -> tuple[list[EvalRow], str]:
    """Agreement with people and the sanity suite, where ratings are named."""
    from lift_trl.alignment.score import score_videos
    from lift_trl.critic.examples import rated_clips, read_examples, undecoded, video_of
    from lift_trl.feedback.hra import load_hra

    if args.hra is None:
        return [], ""
    check_same(rubric, find_rubric(args.hra), f"the rubrics of {args.system} and {args.hra}")
    test = undecoded(load_hra(args.hra, bad_rows=args.bad_rows, test_fraction=args.test_fraction)["test"])
    clips = rated_clips(read_examples(test, rubric))
    folder = Path(args.output_dir)
    rated = test.select([clip.row for clip in clips])
    scored = score_videos(critic, rated, folder / "scored", score_real=True, rubric=rubric, state=state)
    if not state.is_main_process:
        return [], ""
    rows = verdicts(read_rows(scored / METADATA_FILE), {clip.clip: clip.labels for clip in clips}, rubric)
    figures = evaluate_verdicts(rows, system=args.system)
    # The best rated ones: clips that suit their captions, which a blank or wrong one must fall below.
    shown = sorted(clips, key=lambda clip: -sum(map(rubric.rank, clip.labels.values())) / len(clip.labels))
    shown = shown[: args.num_audit_clips]
    checks = audit(critic, [video_of(test, clip.row) for clip in shown], [c.caption for c in shown]) if shown else []
    write_rows(folder / "checks.jsonl", [asdict(check) for check in checks])
    return figures, critic_report(rows, figures, checks)


def on_benchmarks(
    args: EvaluateCriticArguments, critic: "NamedRewardModel", rubric: Rubric, state: PartialState
) -> tuple[list[EvalRow], str]:
    """Pairwise accuracy on the preference benchmarks that are named."""
    from lift_trl.alignment.score import score_videos

    figures: list[EvalRow] = []
    for name, file in args.benchmarks.items():
        pairs, folder = BENCHMARKS[name](file), Path(args.output_dir) / name
        if state.is_main_process:
            write_pair_videos(pairs, folder / "videos")
        state.wait_for_everyone()
        options = {"batch_size": args.batch_size, "rubric": rubric, "state": state}
        scored = score_videos(critic, folder / "videos", folder / "scored", **options)
        if not state.is_main_process:
            continue
        rewards = pair_rewards(read_rows(scored / METADATA_FILE), rubric)
        figures += benchmark_rows(evaluate_pairs(pairs, rewards), benchmark=name, system=args.system)
    return figures, benchmark_report(figures) if figures else ""


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
