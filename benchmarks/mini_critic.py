"""How good a critic of the mini world is: accuracy, balanced accuracy, and recall of each kind of defect.

    make quickstart                  # first: its critic and its videos of the base are used
    OMP_NUM_THREADS=1 python benchmarks/mini_critic.py --critic runs/mini/critic --samples runs/mini/eval_base

On renderings, whose truth is known, and on samples of the base model, whose truth is the oracle's; neither took part in any
training. The recall of a defect is the share of clips with it that the critic calls less than Good in that dimension. The
figures come last, one `name: value` a line, with 95 % intervals over clips.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.mini.annotator import rate_clip
from lift_trl.mini.oracle import MISFIT, STATIC, observe
from lift_trl.mini.shapes import DefectRates, draw_clip, parse_prompt, wrong_attributes
from lift_trl.mini.world import write_clips
from lift_trl.records import CriticScore
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.statistics.intervals import bootstrap_mean
from lift_trl.statistics.label_measures import accuracy, balanced_accuracy, confusion
from lift_trl.store.manifest import METADATA_FILE, read_rows
from lift_trl.store.video_io import read_video


#: Every label about as often, so that each defect is there often enough.
RATES = DefectRates((1 / 3, 1 / 3), (1 / 3, 1 / 3), (1 / 3, 1 / 3))
#: No other part of the project draws clips with it.
SEED = 2_412_048


class Case(NamedTuple):
    """A clip, its caption, its true labels, and its defects by dimension."""

    path: Path
    caption: str
    labels: dict[Dimension, Label]
    defects: dict[Dimension, tuple[str, ...]]


def renderings(folder: Path, number: int) -> list[Case]:
    """Clips with planted defects."""
    rng = np.random.default_rng(SEED)
    clips = [draw_clip(rng, RATES) for _ in range(number)]
    write_clips(folder, clips)
    cases = []
    for row, clip in zip(read_rows(folder / METADATA_FILE), clips, strict=True):
        planted = {
            Dimension.SEMANTIC_CONSISTENCY: wrong_attributes(clip.caption, clip.shown),
            Dimension.MOTION_SMOOTHNESS: (clip.motion.value,),
            Dimension.VIDEO_FIDELITY: (clip.fidelity.value,),
        }
        defects = {d: tuple(name for name in names if name != "none") for d, names in planted.items()}
        cases.append(Case(folder / row["file_name"], row["prompt"], clip.labels, defects))
    return cases


def samples(folder: Path) -> list[Case]:
    """Clips of a model, as the oracle sees them."""
    cases = []
    for row in read_rows(folder / METADATA_FILE):
        path, caption = folder / row["file_name"], parse_prompt(row["prompt"])
        seen = observe(read_video(path).frames)
        labels = seen.labels(caption)
        motion = labels[Dimension.MOTION_SMOOTHNESS]
        flaws = {"static": seen.static >= STATIC[0], "deformed": seen.misfit >= MISFIT[0]}
        defects = {
            Dimension.SEMANTIC_CONSISTENCY: seen.wrong_attributes(caption),
            Dimension.MOTION_SMOOTHNESS: () if motion is Label.GOOD else (f"{motion.value.lower()} wobble",),
            Dimension.VIDEO_FIDELITY: tuple(name for name, there in flaws.items() if there),
        }
        cases.append(Case(path, row["prompt"], labels, defects))
    return cases


def ceiling(cases: list[Case]) -> float:
    """Accuracy of the raters' pooled labels against the truth: what a critic that learns them perfectly would have."""
    right = []
    for case in cases:
        ratings = rate_clip(case.path.stem, read_video(case.path).frames, case.caption)
        for dimension in Dimension:
            ranks = sorted(rating.label.rank for rating in ratings if rating.dimension == dimension)
            right.append(ranks[len(ranks) // 2] == case.labels[dimension].rank)
    return float(np.mean(right))


def figures(name: str, cases: list[Case], scores: list[CriticScore]) -> Iterator[str]:
    """`name: value` lines of one set of clips."""
    scored = [(case, score) for case, score in zip(cases, scores, strict=True) if score.unscored is None]
    yield f"{name}/num_unscored: {len(cases) - len(scored)}"
    tables = []
    for dimension in Dimension:
        truth = [case.labels[dimension] for case, _ in scored]
        told = [score[dimension].label for _, score in scored]
        tables.append(confusion(truth, told))
        right = bootstrap_mean([float(a == b) for a, b in zip(truth, told, strict=True)])
        low, high = right.ci95 or (float("nan"), float("nan"))
        yield f"{name}/{dimension}/accuracy: {right.value:.3f} [{low:.3f}, {high:.3f}]"
        yield f"{name}/{dimension}/balanced_accuracy: {balanced_accuracy(tables[-1]):.3f}"
        kinds = sorted({defect for case, _ in scored for defect in case.defects[dimension]})
        for kind in kinds:
            caught = [score[dimension].label is not Label.GOOD for c, score in scored if kind in c.defects[dimension]]
            yield f"{name}/{dimension}/recall of {kind}: {np.mean(caught):.3f} ({len(caught)} clips)"
        passed = [score[dimension].label is Label.GOOD for c, score in scored if c.labels[dimension] is Label.GOOD]
        yield f"{name}/{dimension}/recall of no defect: {np.mean(passed):.3f} ({len(passed)} clips)"
    yield f"{name}/accuracy: {np.mean([accuracy(table) for table in tables]):.3f}"
    yield f"{name}/balanced_accuracy: {np.mean([balanced_accuracy(table) for table in tables]):.3f}"
    truth_rewards = [LIFT.mean_reward(case.labels) for case, _ in scored]
    for kind in ("reward", "expected_reward"):
        told_rewards = [getattr(score, kind) for _, score in scored]
        yield f"{name}/correlation of {kind}: {np.corrcoef(truth_rewards, told_rewards)[0, 1]:.3f}"


def main() -> None:
    """Reads the command line, scores, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--critic", default="runs/mini/critic")
    parser.add_argument("--samples", type=Path, default=Path("runs/mini/eval_base"))
    parser.add_argument("--renderings", type=int, default=600, help="number of rendered clips")
    args = parser.parse_args()
    torch.set_num_threads(1)
    critic = LiFTCritic.from_pretrained(args.critic, batch_size=16)
    lines = []
    with TemporaryDirectory() as folder:
        for name, cases in {
            "renderings": renderings(Path(folder), args.renderings),
            "samples": samples(args.samples),
        }.items():
            scores = critic.score([case.path for case in cases], [case.caption for case in cases])
            lines += [f"{name}/raters' own accuracy: {ceiling(cases):.3f}", *figures(name, cases, scores)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
