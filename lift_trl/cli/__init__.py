"""`lift-trl`: what needs no launcher. Training, generating and scoring are `accelerate launch recipes/...`."""

import argparse
import re
import sys
from collections.abc import Sequence

import shtab

from ..store.manifest import library_versions
from . import artifacts, evaluation, hub, mini, models, project
from .command import command_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lift-trl", description=__doc__)
    parser.add_argument("--version", action="version", version=f"lift-trl {library_versions()['lift_trl']}")
    shtab.add_argument_to(parser, "--print-completion", help="print what completes commands in this shell, and leave")
    command = command_of(parser)
    for part in (project, artifacts, models, evaluation, hub, mini):
        part.add_commands(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; bad input, a full disk or a Hub that is down is one line on standard error and exit code 1."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except ValueError as error:
        problem = str(error)
    except OSError as error:
        problem = _file_problem(error)
    except _network_error() as error:
        why = re.sub(r"\[Errno -?\d+\] ", "", str(error))
        problem = f"the Hub cannot be reached ({why}). Try the same command again: it goes on where it stopped."
    print(f"lift-trl: {problem}", file=sys.stderr)
    return 1


def _file_problem(error: OSError) -> str:
    """What the system says of a file, file first; of errors that say more, their own words."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror.lower()}. Name another path, or make this one usable."


def _network_error() -> type[Exception]:
    """What every call to the Hub raises that gets no answer. Imported late: most commands need no network."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's own

    return HTTPError
