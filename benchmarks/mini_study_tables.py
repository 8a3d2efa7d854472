"""Tables of `benchmarks.mini_study`: every arm beside its controls, paired, with 95 % intervals over prompts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.mini_study_arms import LEVEL
from lift_trl.rubric import Dimension, Label
from lift_trl.statistics.intervals import bootstrap_mean


def table(asked: Sequence[str], results: Sequence[Mapping[str, Any]]) -> str:
    """
    Every arm over its seeds, beside the base, and beside plain and level SFT of the same seeds; all paired.

    Level SFT has the arm's share of the real term: rewards below 1 let the real videos weigh more (equation 3).

    Args:
        asked: the prompt of each held-out video.
    """
    by_arm: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    apart = defaultdict(list)
    for row in results:
        by_arm[row["arm"]][row["seed"]] = np.asarray(row["rewards"])
        apart[row["arm"]].append(row["diversity"])

    def beside(arm: str, control: str) -> str:
        shared = sorted(by_arm[arm].keys() & by_arm.get(control, {}).keys())
        if arm == control or not shared:
            return ""
        return _signed(np.mean([by_arm[arm][seed] - by_arm[control][seed] for seed in shared], 0), asked)

    base = by_arm["base"][0]
    lines = ["| arm | seeds | reward | minus base | minus SFT | minus level SFT | diversity |", "|" + "---|" * 7]
    for arm, seeds in by_arm.items():
        rewards = np.mean(list(seeds.values()), 0)
        plain = "SFT, no real videos" if "no real" in arm else "SFT"
        level = LEVEL if arm.startswith("RWL") and plain == "SFT" else plain
        columns = ["" if arm.startswith("base") else beside(arm, control) for control in (plain, level)]
        minus_base = "" if arm == "base" else _signed(rewards - base, asked)
        cells = [arm, str(len(seeds)), f"{rewards.mean():.3f}", minus_base, *columns, f"{np.mean(apart[arm]):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def objectives_table(asked: Sequence[str], results: Sequence[Mapping[str, Any]]) -> str:
    """Every objective beside the base, and beside SFT, RWL and RS of the same labels and real term, paired over seeds."""
    runs = {(row["arm"], row["seed"]): row for row in results}
    base = runs["base", 0]

    def beside(arm: str, control: str) -> str:
        seeds = [seed for name, seed in runs if name == arm and (control, seed) in runs]
        gains = [np.subtract(runs[arm, seed]["rewards"], runs[control, seed]["rewards"]) for seed in seeds]
        return f"{_signed(np.mean(gains, 0), asked)} ({len(seeds)})" if seeds and arm != control else ""

    lines = [
        "| arm | seeds | reward | sem mot fid Good | minus base | minus SFT | minus RWL | minus RS | diversity | CPU s |"
    ]
    lines.append("|" + "---|" * 10)
    for arm in dict.fromkeys(name for name, _ in runs):
        own = [row for (name, _), row in runs.items() if name == arm]
        rewards = np.mean([row["rewards"] for row in own], 0)
        good = [np.mean([label == Label.GOOD for row in own for label in row["labels"][d.value]]) for d in Dimension]
        part, _, number = arm.partition(", round ")
        tail = ", no real videos" if part.endswith("no real videos") else ""
        tail += f", round {number}" if number else ""
        labels = next((f", {kind}" for kind in ("critic's rewards",) if kind in arm), "")
        seconds = [row["cpu_s"] for row in own if row.get("cpu_s")]
        cells = [
            arm, str(len(own)), f"{rewards.mean():.3f}", " ".join(f"{share:.2f}" for share in good),
            "" if arm == "base" else _signed(rewards - np.asarray(base["rewards"]), asked),
            beside(arm, f"SFT{tail}"), beside(arm, f"RWL{labels}{tail}"), beside(arm, f"RS{labels}{tail}"),
            f"{np.mean([row['diversity'] for row in own]):.3f}", f"{np.mean(seconds):.0f}" if seconds else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _signed(values: np.ndarray, clusters: Sequence[str]) -> str:
    estimate = bootstrap_mean(values.tolist(), clusters)
    low, high = estimate.ci95 or (float("nan"), float("nan"))
    return f"{estimate.value:+.3f} [{low:+.3f}, {high:+.3f}]"
