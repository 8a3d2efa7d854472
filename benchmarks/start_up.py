"""CPU seconds (user + sys) until a command says something: `--help` of each recipe, and what else should be quick.

Each is run twice, and the lower figure counts: the first run may compile modules.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "import lift_trl": ["-c", "import lift_trl"],
    "lift-trl --help": ["-m", "lift_trl.cli", "--help"],
    "lift-trl env": ["-m", "lift_trl.cli", "env"],
    "lift-trl eval report --help": ["-m", "lift_trl.cli", "eval", "report", "--help"],
    **{f"recipes/{path.name} --help": [str(path), "--help"] for path in sorted((ROOT / "recipes").glob("*.py"))},
}


def cpu_seconds(arguments: list[str]) -> float:
    """Of one run of python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="The first two commands, once.")
    chosen = dict(list(COMMANDS.items())[:2]) if parser.parse_args().tiny else COMMANDS
    print("| command | CPU s |\n|---|---|")
    for name, arguments in chosen.items():
        print(f"| `{name}` | {min(cpu_seconds(arguments) for _ in range(2)):.1f} |", flush=True)


if __name__ == "__main__":
    main()
