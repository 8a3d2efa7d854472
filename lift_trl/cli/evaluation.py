"""Commands before and after a run: eval, estimate."""

import argparse
from typing import Any

from ..estimate.options import add_options, spared_imports
from ..importing import importing
from .command import Command, files


def add_commands(command: Command) -> None:
    evaluation = command("eval", _eval)
    evaluation.add_argument("step", choices=["plan", "check", "report"])
    evaluation.add_argument("options", nargs=argparse.REMAINDER)
    files(*add_options(command("estimate", _estimate)))


def _eval(args: argparse.Namespace) -> int:
    """Plan, check or report an evaluation: `lift-trl eval plan --help`."""
    with importing():
        from transformers import HfArgumentParser

        from ..report.commands import report
        from ..report.inputs import ReportArguments
        from ..vbench import commands as vbench

    steps: dict[str, Any] = {
        "plan": vbench.PlanArguments,
        "check": vbench.CheckArguments,
        "report": ReportArguments,
    }
    parser = HfArgumentParser(steps[args.step], prog=f"lift-trl eval {args.step}")
    (settings,) = parser.parse_args_into_dataclasses(args.options)
    if args.step == "plan":
        print(vbench.plan(settings))
    elif args.step == "check":
        found = vbench.check(settings)
        print(found.summary())
        return 0 if found.ok else 1
    else:
        print(f"report: {report(settings)}")
    return 0


def _estimate(args: argparse.Namespace) -> int:
    """Memory, largest batch, disk, hours and price of a recipe's YAML, counted without weights and without a GPU."""
    with importing(without=spared_imports(args.config, args.stage)):
        from ..estimate.command import estimate

    print(estimate(args))
    return 0
