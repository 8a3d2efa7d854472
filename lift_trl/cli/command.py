"""How a command comes to `lift-trl`: a function, whose docstring is its help, and its arguments."""

import argparse
from collections.abc import Callable

import shtab


Run = Callable[[argparse.Namespace], int]
#: Adds a command by its name and function; gives the parser of its arguments.
Command = Callable[[str, Run], argparse.ArgumentParser]


def command_of(parser: argparse.ArgumentParser) -> Command:
    """What adds commands to `parser`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Run) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        sub.set_defaults(run=run)
        return sub

    return command


def files(*arguments: argparse.Action) -> None:
    """Lets a shell complete these arguments with files and folders."""
    for argument in arguments:
        argument.complete = shtab.FILE  # type: ignore[attr-defined]  # what shtab reads
