"""`lift-trl estimate`: what a recipe's YAML needs, before anything is paid for."""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .gpus import find_gpu
from .plan import Job, read_plan


def estimate(args: argparse.Namespace) -> str:
    """The command's output: a report as text, or as JSON."""
    if args.num_gpus < 1:
        raise ValueError(f"--num-gpus {args.num_gpus}; give 1 or more.")
    gpu = find_gpu(args.gpu, args.rates)
    job = Job(args.clips, args.videos, args.prompts)
    with _quiet():
        plan = read_plan(args.config, job, num_gpus=args.num_gpus, stage=args.stage, memory_gb=args.memory)
    report = plan.report(gpu, args.num_gpus)
    return json.dumps(report, indent=1) if args.json else "\n".join(lines(report, gpu.memory_gb))


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of libraries about a run that does not take place."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def lines(report: Mapping[str, Any], memory_gb: float) -> Iterator[str]:
    """The report as text."""
    cards = f"{report['num_gpus']} x {report['gpu']}"
    yield f"{report['stage']}: {report['model']} on {cards}, {memory_gb:g} GB each; counted, not measured"
    for part in report["parts"]:
        yield ""
        clips = f" of {part['clips']} clips" if part["clips"] > 1 else ""
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
