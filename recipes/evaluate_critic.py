"""How good a critic is: agreement with people on the test split, with intervals, and the sanity suite.

    accelerate launch --config_file recipes/configs/accelerate/cpu.yaml recipes/evaluate_critic.py \
        --config recipes/configs/mini/evaluate_critic.yaml
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from trl import TrlParser

from lift_trl.alignment.score import score_videos
from lift_trl.critic.examples import rated_clips, read_examples, undecoded, video_of
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.evaluation.critic_eval import audit, critic_report, evaluate_verdicts, verdicts
from lift_trl.feedback.hra import load_hra
from lift_trl.runtime import leaving_processes, process_state, setup_logging
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows, write_text


@dataclass
class EvaluateCriticArguments:
    critic: str = field(metadata={"help": "Folder or repo of a critic or chat VLM."})
    hra: str = field(metadata={"help": "LiFT-HRA with a split test, or any rated clips with test_fraction."})
    output_dir: str = field(metadata={"help": "Folder of the figures."})
    test_fraction: float | None = field(default=None, metadata={"help": "As in training, for the same split."})
    batch_size: int = field(default=8, metadata={"help": "Clips that run through the critic together."})
    num_audit_clips: int = field(default=32, metadata={"help": "Clips of the sanity suite; 0 leaves it out."})


ARGUMENTS = (EvaluateCriticArguments,)


def main(args: EvaluateCriticArguments) -> None:
    state = process_state()
    setup_logging(state)
    test = undecoded(load_hra(args.hra, test_fraction=args.test_fraction)["test"])
    clips = rated_clips(read_examples(test))
    critic = LiFTCritic.from_pretrained(args.critic, device=state.device, batch_size=args.batch_size)
    folder = Path(args.output_dir)
    scored = score_videos(critic, test.select([clip.row for clip in clips]), folder / "scored", state=state)
    if not state.is_main_process:
        return
    rows = verdicts(read_rows(scored / METADATA_FILE), {clip.clip: clip.labels for clip in clips})
    figures = evaluate_verdicts(rows, system=args.critic)
    shown = clips[: args.num_audit_clips]
    checks = audit(critic, [video_of(test, clip.row) for clip in shown], [c.caption for c in shown]) if shown else []
    write_rows(folder / "figures.jsonl", [asdict(row) for row in figures])
    write_rows(folder / "checks.jsonl", [asdict(check) for check in checks])
    report = critic_report(rows, figures, checks)
    write_text(folder / "report.md", report)
    print(report)
    print(f"Figures are in {folder}. Next: recipes/score.py --critic {args.critic}")


if __name__ == "__main__":
    with leaving_processes():
        main(*TrlParser(ARGUMENTS).parse_args_and_config())
