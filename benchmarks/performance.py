"""Measures all that docs/performance.md tells of this machine, and writes it there: `python benchmarks/performance.py`.

Each part is one of the scripts beside this one. What it printed is kept in `runs/performance/<part>.txt`, and a part that is
there is not run again, so a run may be stopped and go on; `--parts` chooses, `--again` measures anew. The page's section
between the two marks holds each part's command, figures and the machine's load.
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- by benchmarks/performance.py: begin -->", "<!-- by benchmarks/performance.py: end -->"
#: Part -> its title, and its command.
PARTS = {
    "start_up": ("Until a command says something", ["start_up"]),
    "trainer": ("The trainer against a bare loop over the same batches", ["trainer_overhead"]),
    "diffusers": ("The trainer against diffusers' own script", ["other_trainers"]),
    "authors": ("The trainer against the authors' script", ["other_trainers", "--of", "authors"]),
    "growth": ("From 100 to 10,000 rows", ["growth"]),
    "quantized_base": ("A base in 8 bits", ["quantized_base", "--tiny"]),
    "device_busy": ("The device does not wait", ["device_busy"]),
    "sampling_options": ("Options of sampling, in the mini world", ["sampling_options", "runs/mini/world"]),
    "tiled_decoding": ("Decoding in tiles, in the mini world", ["tiled_decoding"]),
    "two_processes": ("Two processes, a thread each", ["two_processes"]),
}


def measure(part: str, folder: Path, *more: str) -> None:
    """Runs a part with `more` options, and keeps what it printed."""
    _, (module, *options) = PARTS[part]
    command = [sys.executable, "-m", f"benchmarks.{module}", *options, *more]
    before = os.getloadavg()[0]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.txt").write_text(f"{machine}\n{done.stdout}", encoding="utf-8")


def section(folder: Path) -> str:
    """All parts that were measured, as Markdown."""
    lines = []
    for part, (title, (module, *options)) in PARTS.items():
        path = folder / f"{part}.txt"
        if not path.is_file():
            lines += [f"**{title}**: not measured yet (`python -m benchmarks.{module}`).", ""]
            continue
        machine, *found = path.read_text(encoding="utf-8").splitlines()
        lines += [f"**{title}**: `python -m {' '.join([f'benchmarks.{module}', *options])}` on {machine}.", ""]
        tables = [line for line in found if line.startswith("|")]
        figures = [line for line in found if line and not line.startswith("|")]
        lines += [*tables, *([""] if tables else []), *(["```text", *figures, "```", ""] if figures else [])]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="Those to measure; all by default."
    )
    parser.add_argument(
        "--diffusers_script", help="train_cogvideox_lora.py of diffusers' examples; without it that part is left."
    )
    parser.add_argument(
        "--authors_script", help="CogVideo/finetune/train.py of CodeGoat24/LiFT; without it that part is left."
    )
    parser.add_argument("--again", action="store_true", help="Also measure what is there.")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "performance", help="Folder of what parts printed."
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="Markdown with the two marks.")
    args = parser.parse_args()
    before, _, rest = args.page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{args.page}: has no section between {BEGIN} and {END}.")
    scripts = {"diffusers": args.diffusers_script, "authors": args.authors_script}
    for part in args.parts:
        script = [scripts[part]] if part in scripts else []
        if (args.again or not (args.out / f"{part}.txt").is_file()) and None not in script:
            print(f"{part} ...", flush=True)
            measure(part, args.out, *script)
        args.page.write_text(f"{before}{BEGIN}\n\n{section(args.out)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
