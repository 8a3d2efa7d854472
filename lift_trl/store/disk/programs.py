"""Other programs: run to their end, and their last words where they fail."""

import subprocess
from collections.abc import Mapping, Sequence


#: Of what a program that fails has said, how many lines are told.
_LAST_LINES = 3


class ProgramError(OSError):
    """A program that failed, or said something else than it was asked for."""


def run_program(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """
    What `command` prints.

    >>> run_program(["echo", "a fox"])
    'a fox\\n'

    Raises:
        FileNotFoundError: if there is no such program.
        ProgramError: in one line, if it fails.
    """
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        said = [line.strip() for line in (done.stderr.strip() or done.stdout).splitlines() if line.strip()]
        last = " / ".join(said[-_LAST_LINES:]) or "it says nothing"
        raise ProgramError(f"{' '.join(command)} failed with exit code {done.returncode}: {last}")
    return done.stdout
