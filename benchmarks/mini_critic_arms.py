"""What makes a critic of the mini world rank clips better: trainings that differ in one setting, over several seeds.

    make quickstart                                              # first: its base, VLM and ratings are used
    OMP_NUM_THREADS=1 python benchmarks/mini_critic_arms.py --seeds 3     # some 5 CPU minutes an arm and seed, resumable
    OMP_NUM_THREADS=1 python benchmarks/mini_critic_arms.py --arms baseline balanced --seeds 1

Every arm is `recipes/train_critic.py` with the quickstart's YAML and its own options, on the quickstart's ratings. All score
the same 576 samples of the base, twelve a prompt, whose truth is the oracle's and which took part in no training.
`runs/mini_critic_arms/results` gets one row an arm and seed with its figures and CPU seconds; its scores stay beside
it. Printed: AUC of Good and Spearman by dimension, mean over the seeds with a 95 % interval over prompts and seeds, and the
difference to the baseline of the same seeds, clip by clip. Start it again to go on.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lift_trl.mini.world import rate_folder
from lift_trl.rubric import LIFT, Dimension
from lift_trl.statistics.intervals import interval, resample_counts
from lift_trl.statistics.rank_measures import auc, spearman
from lift_trl.store.manifest import METADATA_FILE, Manifest, read_rows, write_rows


RECIPES = Path(__file__).parents[1] / "recipes"
BASELINE = "baseline"
#: The first seed, that of the YAML.
SEED = 42
#: What raters prefer among 288 other samples of the base, three pairs a prompt, on each dimension, by their pooled labels.
PAIRS = "pairs.csv"
#: The raters' labels of those samples and of the quickstart's own.
TWICE = "rated_twice"
GOING_ON: Mapping[str, Any] = MappingProxyType({"adapter": BASELINE, "max_steps": 150, "learning_rate": 3e-4})
#: Options of recipes/train_critic.py beside those of the quickstart's YAML.
ARMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        BASELINE: {},
        "vision": {"vision_learning_rate": 6e-4},
        "vision, slow": {"vision_learning_rate": 1e-4},
        "balanced": {"balanced_labels": True},
        "vision, balanced": {"vision_learning_rate": 6e-4, "balanced_labels": True},
        "label alone": {"with_reason": False},
        "900 steps": {"max_steps": 900},
        # Those samples' ratings beside the quickstart's own: as many steps a rating as the baseline takes.
        "twice the ratings": {"max_steps": 900, "hra": TWICE},
        "pairs": {"preferences": PAIRS},
        # From the baseline's critic of the same seed: what another third of a training adds, alone and with pairs.
        "goes on": GOING_ON,
        "goes on, pairs": {**GOING_ON, "preferences": PAIRS},
    }
)
MEASURES = ("auc_good", "spearman")


def launch(recipe: str, config: str, options: Mapping[str, Any]) -> None:
    """A recipe with its mini YAML, on one process."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, RECIPES / f"{recipe}.py", "--config", RECIPES / "configs" / "mini" / f"{config}.yaml"]
    subprocess.run([*map(str, command), *words], check=True, env={**os.environ, "ACCELERATE_USE_CPU": "true"})


class Arms:
    """The folders of a comparison, and what every arm shares: the samples and their truth."""

    def __init__(self, out: Path, quickstart: Path) -> None:
        self.out, self.quickstart = out, quickstart
        world = quickstart / "world"
        options = {
            "model_name_or_path": world / "video_model",
            "prompts": world / "prompts.txt",
            "videos_per_prompt": 12,
            "seed": 7,
            "output_dir": out / "samples",
        }
        if not (out / "oracle" / METADATA_FILE).is_file():
            launch("generate", "generate_eval", options)
            rate_folder(out / "samples", out / "oracle", oracle=True)
        self.truth = {row["id"]: row for row in read_rows(out / "oracle" / METADATA_FILE)}
        if not (out / TWICE / METADATA_FILE).is_file():
            self._rate_more()

    def _rate_more(self) -> None:
        """The samples that the quickstart scores are of no other use here; nobody rated them."""
        rate_folder(self.quickstart / "generated", self.out / "rated")
        more = list(read_rows(self.out / "rated" / METADATA_FILE))
        own = list(read_rows(self.quickstart / "rated" / METADATA_FILE))
        for row in own:
            row["file_name"] = os.path.relpath(self.quickstart / "rated" / row["file_name"], self.out / TWICE)
        beside = [{**row, "file_name": os.path.join("..", "rated", row["file_name"])} for row in more]
        write_rows(self.out / TWICE / METADATA_FILE, [*own, *beside])
        by_prompt: dict[str, list[Mapping[str, Any]]] = {}
        for row in more:
            by_prompt.setdefault(row["prompt"], []).append(row)
        with open(self.out / PAIRS, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path_A", "path_B", "prompt", *Dimension])
            for prompt, rows in by_prompt.items():
                for a, b in zip(rows[::2], rows[1::2], strict=True):
                    ranks = [LIFT.rank(a[d]) - LIFT.rank(b[d]) for d in Dimension]
                    paths = [f"rated/{row['file_name']}" for row in (a, b)]
                    table.writerow([*paths, prompt, *("A" if r > 0 else "B" if r < 0 else "same" for r in ranks)])

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Trains and scores; the row of the results."""
        folder = self.out / f"{arm}, seed {seed}"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        options = {
            "hra": self.quickstart / "rated",
            "model_name_or_path": self.quickstart / "world" / "vlm",
            "per_device_train_batch_size": 16,  # the quickstart's 8 on each of two processes
            "output_dir": folder / "critic",
            "seed": seed,
        }
        own = dict(ARMS[arm])
        own |= {name: self.out / own[name] for name in ("hra", "preferences") if name in own}
        if "adapter" in own:
            own["adapter"] = self.out / f"{BASELINE}, seed {seed}" / "critic"
        launch("train_critic", "train_critic", {**options, **own})
        scored = {"critic": folder / "critic", "videos": self.out / "samples", "output_dir": folder / "scored"}
        launch("score", "score", scored)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        weights = np.ones((1, len(self.truth)))
        figures = {f"{d}/{m}": float(self.measured(arm, seed, d, m, weights)[0]) for d in Dimension for m in MEASURES}
        return {"id": folder.name, "arm": arm, "seed": seed, "cpu_s": round(seconds, 1), **figures}

    def measured(self, arm: str, seed: int, dimension: Dimension, measure: str, weights: np.ndarray) -> np.ndarray:
        """`measure` [R] under `weights` [R, N] of the N samples, in the order of the truth."""
        rows = {row["id"]: row for row in read_rows(self.out / f"{arm}, seed {seed}" / "scored" / METADATA_FILE)}
        probs = [rows[name]["probs"][dimension] for name in self.truth]
        truth = [row[dimension] for row in self.truth.values()]
        if measure == "auc_good":
            return auc(np.array([p[LIFT.best] for p in probs]), np.array([t == LIFT.best for t in truth]), weights)
        expected = np.array([sum(LIFT.rewards[label] * p for label, p in one.items()) for one in probs])
        return spearman(expected, np.array([LIFT.rank(label) for label in truth]), weights)

    def table(self, results: Sequence[Mapping[str, Any]]) -> str:
        """Every arm over its seeds, and its difference to the baseline of the same seeds."""
        seeds = {arm: [row["seed"] for row in results if row["arm"] == arm] for arm in ARMS}
        seeds = {arm: own for arm, own in seeds.items() if own}
        prompts, place = np.unique([row["prompt"] for row in self.truth.values()], return_inverse=True)
        whole = np.ones((1, len(place)))
        drawn = np.concatenate([whole, resample_counts([0] * len(prompts))[:, place]])
        names = [f"{d} {m}".replace("_", " ") for d in Dimension for m in MEASURES]
        lines = [f"| arm | seeds | CPU s | {' | '.join(names)} |", "|" + "---|" * (3 + len(names))]
        for arm, own in seeds.items():
            cells = []
            for dimension in Dimension:
                for measure in MEASURES:
                    values = np.array([self.measured(arm, seed, dimension, measure, drawn) for seed in own])
                    shared = [seed for seed in own if arm != BASELINE and seed in seeds.get(BASELINE, ())]
                    cells.append(_cell(values))
                    if shared:
                        control = [self.measured(BASELINE, seed, dimension, measure, drawn) for seed in shared]
                        gain = values[[own.index(seed) for seed in shared]] - np.array(control)
                        cells[-1] += f"; {_cell(gain, '+')}"
            cost = np.mean([row["cpu_s"] for row in results if row["arm"] == arm])
            lines.append(f"| {arm} | {len(own)} | {cost:.0f} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def _cell(values: np.ndarray, sign: str = "") -> str:
    """The mean over seeds of `values` [S, 1 + R], whose first column is of all clips, and its interval over both."""
    again = resample_counts([0] * len(values), seed=1, num_resamples=values.shape[1] - 1) / len(values)
    low, high = interval((values[:, 1:] * again.T).sum(axis=0))
    return f"{values[:, 0].mean():{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    """Reads the command line, runs what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/mini_critic_arms"))
    parser.add_argument("--quickstart", type=Path, default=Path("runs/mini"), help="what make quickstart wrote")
    args = parser.parse_args()
    arms = Arms(args.out.resolve(), args.quickstart.resolve())
    manifest = Manifest(arms.out / "results")
    for seed in range(SEED, SEED + args.seeds):
        for arm in args.arms:
            if f"{arm}, seed {seed}" not in manifest.done_ids():
                manifest.append(arms.run(arm, seed))
    print(arms.table(manifest.rows()))


if __name__ == "__main__":
    main()
