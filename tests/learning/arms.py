"""The mini world's alignment with the recipes and YAMLs that ship, small: RWL and SFT on the same clips, seeds and steps.

    OMP_NUM_THREADS=1 python -m tests.learning.arms DIR judged       # also: ignored, negated, shuffled

prints what the test of the same folder asserts on; dev/LOG.md has the figures.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lift_trl.evaluation.intervals import Estimate, bootstrap_mean
from lift_trl.mini.checkpoints import WEIGHTS
from lift_trl.mini.shapes import SCENES
from lift_trl.mini.world import rate_folder
from lift_trl.recipe_parser import RecipeParser
from lift_trl.rubric import Dimension
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


MODEL = WEIGHTS / "video_model"
CLIPS_PER_PROMPT, EVAL_CLIPS_PER_PROMPT = 5, 4
STEPS, BATCH_SIZE = 120, 48


class Arm(NamedTuple):
    """One way to train: an objective, on the clips of a cache, in a folder."""

    folder: Path
    objective: str
    cache: Path


def run_recipe(name: str, config: str, **options: object) -> None:
    """A recipe with its mini YAML and these options, in this process."""
    recipe = load_recipe(RECIPES / f"{name}.py")
    args = ["--config", str(RECIPES / "configs" / "mini" / f"{config}.yaml")]
    for option, value in options.items():
        args += [f"--{option}", str(value)]
    recipe.main(*RecipeParser(recipe.ARGUMENTS).parse_args_and_config(args))


def judged_clips(folder: Path) -> Path:
    """Samples of the base with the oracle's labels and rewards."""
    prompts = folder / "prompts.txt"
    folder.mkdir(parents=True, exist_ok=True)
    prompts.write_text("".join(f"{scene.prompt}\n" for scene in SCENES))
    run_recipe(
        "generate", "generate", model_name_or_path=MODEL, prompts=prompts, output_dir=folder / "generated",
        videos_per_prompt=CLIPS_PER_PROMPT,
    )  # fmt: skip
    rate_folder(folder / "generated", folder / "judged", oracle=True)
    return folder / "judged"


def with_rewards(judged: Path, rewards: str) -> Path:
    """The same clips with `negated` (1 - r) or `shuffled` (another clip's) rewards, or as they are."""
    if rewards in ("judged", "ignored"):
        return judged
    rows = list(read_rows(judged / METADATA_FILE))
    given = np.array([row["reward"] for row in rows])
    changed = 1 - given if rewards == "negated" else np.random.default_rng(0).permutation(given)
    folder = judged.with_name(rewards)
    for row, reward in zip(rows, changed.tolist(), strict=True):
        row["reward"] = reward
        for dimension in Dimension:  # labels would be preferred to the reward
            del row[dimension.value]
    write_rows(folder / METADATA_FILE, rows)
    return folder


def oracle_rewards(arm: Arm) -> dict[str, float]:
    """Trains a LoRA, samples with it, and returns the oracle's reward of each video by id."""
    torch.set_num_threads(1)
    folder = arm.folder
    run_recipe(
        "align", "align_rwl", model_name_or_path=MODEL, cache=arm.cache, output_dir=folder / "lora",
        objective=arm.objective, max_steps=STEPS, per_device_train_batch_size=BATCH_SIZE, save_strategy="no",
    )  # fmt: skip
    run_recipe(
        "generate", "generate_eval", model_name_or_path=MODEL, prompts=arm.cache.parent / "prompts.txt",
        adapter=folder / "lora", output_dir=folder / "generated", videos_per_prompt=EVAL_CLIPS_PER_PROMPT,
    )  # fmt: skip
    rate_folder(folder / "generated", folder / "judged", oracle=True)
    return {row["id"]: row["reward"] for row in read_rows(folder / "judged" / METADATA_FILE)}


def rwl_minus_sft(folder: Path, rewards: str = "judged") -> Estimate:
    """The gain in the oracle's reward of RWL over SFT, over the same prompts and seeds; the interval is over prompts."""
    clips = with_rewards(judged_clips(folder), rewards)
    cache = folder / f"cache_{rewards}"
    run_recipe("cache", "cache", model_name_or_path=MODEL, videos=clips, output_dir=cache)
    objective = "sft" if rewards == "ignored" else "rwl"
    arms = [Arm(folder / f"tuned_{rewards}", objective, cache), Arm(folder / f"control_{rewards}", "sft", cache)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        rwl, sft = pool.map(oracle_rewards, arms)
    assert rwl.keys() == sft.keys()
    prompts = {row["id"]: row["prompt"] for row in read_rows(arms[1].folder / "generated" / METADATA_FILE)}
    gains = [rwl[video] - sft[video] for video in sft]
    print(
        f"{rewards}: tuned {np.mean(list(rwl.values())):.4f}, control {np.mean(list(sft.values())):.4f}, {len(gains)} videos"
    )
    return bootstrap_mean(gains, [prompts[video] for video in sft])


if __name__ == "__main__":
    print(rwl_minus_sft(Path(sys.argv[1]), sys.argv[2]))
