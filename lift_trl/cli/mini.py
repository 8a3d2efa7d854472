"""Commands of the mini world."""

import argparse
import os

from ..importing import importing
from ..store.disk.outputs import claim_folder
from .command import Command, files


#: In each folder of the mini world, so that the same command may write there again, and nothing of another's is replaced.
_MARKER = ".lift_trl_mini"


def add_commands(command: Command) -> None:
    world = command("mini-world", _mini_world)
    files(world.add_argument("path", help="new folder"))
    world.add_argument(
        "--family", choices=["cogvideox", "wan"], default="cogvideox", help="of the video model (default: cogvideox)"
    )
    rate = command("mini-rate", _mini_rate)
    files(rate.add_argument("clips", help="folder of clips of the mini world, with metadata.jsonl"))
    files(rate.add_argument("path", help="folder of the ratings"))
    rate.add_argument("--oracle", action="store_true", help="the oracle's labels and rewards instead of the raters'")


def _mini_world(args: argparse.Namespace) -> int:
    """The mini world: tiny checkpoints, rated clips and prompts."""
    with importing():
        from ..mini.world import build_world

    claim_folder(args.path, _MARKER, f"--family {args.family}")
    build_world(args.path, family=args.family)
    print(f"mini world in {args.path}")
    return 0


def _mini_rate(args: argparse.Namespace) -> int:
    """The mini world's raters, or its oracle, rate a folder of its clips."""
    with importing():
        from ..mini.world import rate_folder

    clips = os.path.relpath(args.clips, args.path)  # so that both may be moved
    claim_folder(args.path, _MARKER, f"{clips}{' --oracle' if args.oracle else ''}")
    number = rate_folder(args.clips, args.path, oracle=args.oracle, controls=not args.oracle)
    print(f"{number} clips rated by {'the oracle' if args.oracle else 'the raters'} in {args.path}")
    return 0
