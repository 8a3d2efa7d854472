# /// script
# requires-python = ">=3.11"
# dependencies = ["lift-trl[eval]"]
# ///
"""Evaluation: VBench where a runner is named, a second judge where one is named, then one report of all that is there.

    accelerate launch --config_file recipes/configs/accelerate/single_gpu.yaml recipes/evaluate.py \
        --config recipes/configs/cogvideox-2b/evaluate.yaml

Before: `lift-trl eval plan` says which clips to generate, `lift-trl eval check` whether all is there. A killed evaluation
is taken up again by the same line.
"""

import logging
from dataclasses import replace

from lift_trl.importing import importing


with importing():
    from lift_trl.judges.arguments import SecondJudgeArguments
    from lift_trl.recipe_parser import RecipeParser
    from lift_trl.report.commands import evaluate
    from lift_trl.report.inputs import ReportArguments, named_paths
    from lift_trl.runtime import leaving_processes, process_state, setup_logging
    from lift_trl.vbench.commands import VBenchArguments


ARGUMENTS = (ReportArguments, VBenchArguments, SecondJudgeArguments)


def main(report_args: ReportArguments, vbench_args: VBenchArguments, judge_args: SecondJudgeArguments) -> None:
    state = process_state()
    setup_logging(state)
    # VBench's dimensions are subprocesses of their own; more launched processes would only run them twice.
    if state.is_main_process:
        if state.num_processes > 1:
            logging.getLogger(__name__).warning("evaluate.py uses one process; launch it with single_gpu.yaml.")
        if judge_args.judge is not None:
            from lift_trl.judges.second_judge import judge_systems

            judge = judge_args.load(state.device)
            found = judge_systems(judge, named_paths(report_args.systems), judge_args.judge_dir)
            report_args = replace(report_args, judges=[*report_args.judges, *found])
        print(f"report: {evaluate(report_args, vbench_args)}")
    state.wait_for_everyone()


if __name__ == "__main__":
    with leaving_processes():
        main(*RecipeParser(ARGUMENTS).parse_args_and_config())
