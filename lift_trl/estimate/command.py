"""`lift-trl estimate`: what a recipe's YAML needs, before anything is paid for."""

import argparse
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .gpus import find_gpu
from .plan import Job
from .planners import plan_of, read_plan
from .recipe import Recipe


def estimate(args: argparse.Namespace) -> str:
    """The command's output: a report as text, or as JSON."""
    if args.num_gpus < 1:
        raise ValueError(f"--num-gpus {args.num_gpus}; give 1 or more.")
    gpu = find_gpu(args.gpu, args.rates)
    job = Job(args.clips, args.videos, args.prompts, args.pairs)
    with _quiet():
        plan = read_plan(args.config, job, num_gpus=args.num_gpus, stage=args.stage, memory_gb=args.memory)
    if args.sharded:
        plan = replace(plan, parts=[part.sharded(args.num_gpus) for part in plan.parts])
    report = plan.report(gpu, args.num_gpus)
    return json.dumps(report, indent=1) if args.json else "\n".join(lines(report, gpu.memory_gb))


def verdict(recipe: Recipe, stage: str, card: str) -> str:
    """
    The report, as text, of a recipe that is about to run as it was called: `--dry_run CARD`.

    Raises:
        ValueError: if the card is unknown, the stage is not counted, or there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--dry_run counts in one process: run the recipe with python, not with accelerate launch.")
    gpu, job = find_gpu(card), Job()
    with _quiet():
        report = plan_of(recipe, job, stage=stage).report(gpu, 1)
    amount = f"{job.clips} clips, {job.videos} videos and {job.prompts} prompts"
    return "\n".join([*lines(report, gpu.memory_gb), f"for {amount}; lift-trl estimate takes yours"])


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of libraries about a run that does not take place."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(before)


def lines(report: Mapping[str, Any], memory_gb: float) -> Iterator[str]:
    """The report as text."""
    cards = f"{report['num_gpus']} x {report['gpu']}"
    yield f"{report['stage']}: {report['model']} on {cards}, {memory_gb:g} GB each; counted, not measured"
    for part in report["parts"]:
        yield ""
        clips = f" of {part['clips']} {part['unit']}" if part["clips"] > 1 else ""
        yield f"{part['name']}{clips}"
        for kind, size in {**part["memory_gb"], **part["overheads_gb"]}.items():
            yield f"  {size:8.2f} GB  {kind}"
        yield f"  {part['total_gb']:8.2f} GB  in all: {'fits' if part['fits'] else 'DOES NOT FIT'}"
        if "largest_batch" in part:
            yield f"  largest batch that fits: {part['largest_batch'] or 'none'}"
        yield f"  {part['tflop']:,.1f} TFLOP, {part['seconds']:.3g} s, {part['runs']:,.0f} times: {part['hours']:.1f} h"
    yield ""
    for name, size in report["disk_gb"].items():
        yield f"disk: {size:.2f} GB  {name}"
    yield from (f"note: {note}" for note in report["notes"])
    yield f"{report['hours']:.1f} h, {report['price_usd']:.0f} US dollars (rates and price: {report['rates']})"
    if not report["fits"]:
        yield f"WARNING: out of memory is likely on {report['gpu']}. Take a smaller batch, or a larger card."
