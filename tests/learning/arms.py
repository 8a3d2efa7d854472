"""The mini world's alignment with the recipes and YAMLs that ship, small: RWL and SFT on the same clips, seeds and steps.

DPO and NFT, which need less to show that they learn, stand beside the base.

    OMP_NUM_THREADS=1 python -m tests.learning.arms DIR judged       # also: ignored, negated, shuffled
    OMP_NUM_THREADS=1 python -m tests.learning.arms DIR shuffled --family wan
    OMP_NUM_THREADS=1 python -m tests.learning.arms DIR negated dpo nft   # pairs swapped, advantages negated

prints what the test of the same folder asserts on, and fails where the test would; dev/LOG.md has the figures.
"""

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lift_trl.mini.checkpoints import VIDEO_MODELS, WEIGHTS
from lift_trl.mini.shapes import SCENES
from lift_trl.mini.world import rate_folder
from lift_trl.recipe_parser import RecipeParser
from lift_trl.rubric import Dimension
from lift_trl.statistics.intervals import Estimate, bootstrap_mean
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


#: Of the pools: trained in forks of a server that has imported the libraries and nothing else.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])

CLIPS_PER_PROMPT, EVAL_CLIPS_PER_PROMPT = 5, 4
STEPS, BATCH_SIZE = 120, 48


#: Of DPO and NFT: steps of 32 clips (a pair is two), and fewer videos of each prompt.
SHORT = {
    "dpo": {"max_steps": 90, "per_device_train_batch_size": 16},
    "nft": {"max_steps": 90, "per_device_train_batch_size": 32},
}
SHORT_EVAL_CLIPS_PER_PROMPT = 2


class Arm(NamedTuple):
    """One way to train: a family's model and an objective, on the clips of a cache, in a folder."""

    folder: Path
    family: str
    objective: str
    cache: Path


class Taught(NamedTuple):
    """The gain in the oracle's reward over the base, its interval over prompts, and the last line of the training log."""

    gain: Estimate
    log: dict[str, float]


def run_recipe(name: str, config: str, **options: object) -> None:
    """A recipe with its mini YAML and these options, in this process."""
    recipe = load_recipe(RECIPES / f"{name}.py")
    args = ["--config", str(RECIPES / "configs" / "mini" / f"{config}.yaml")]
    for option, value in options.items():
        args += [f"--{option}", str(value)]
    recipe.main(*RecipeParser(recipe.ARGUMENTS).parse_args_and_config(args))


def model_of(family: str) -> Path:
    """The package's trained model."""
    return WEIGHTS / VIDEO_MODELS[family]


def judged_clips(folder: Path, family: str) -> Path:
    """Samples of the base with the oracle's labels and rewards."""
    prompts = folder / "prompts.txt"
    folder.mkdir(parents=True, exist_ok=True)
    prompts.write_text("".join(f"{scene.prompt}\n" for scene in SCENES))
    run_recipe(
        "generate", "generate", model_name_or_path=model_of(family), prompts=prompts, output_dir=folder / "generated",
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
    config = "align_rwl"
    settings = {"objective": arm.objective, "max_steps": STEPS, "per_device_train_batch_size": BATCH_SIZE}
    if arm.objective in SHORT:
        config, settings = f"align_{arm.objective}", SHORT[arm.objective]
    run_recipe(
        "align",
        config,
        model_name_or_path=model_of(arm.family),
        cache=arm.cache,
        output_dir=folder / "lora",
        save_strategy="no",
        **settings,
    )
    run_recipe(
        "generate", "generate_eval", model_name_or_path=model_of(arm.family), adapter=folder / "lora",
        prompts=arm.cache.parent / "prompts.txt", output_dir=folder / "generated",
        videos_per_prompt=SHORT_EVAL_CLIPS_PER_PROMPT if arm.objective in SHORT else EVAL_CLIPS_PER_PROMPT,
    )  # fmt: skip
    rate_folder(folder / "generated", folder / "judged", oracle=True)
    return {row["id"]: row["reward"] for row in read_rows(folder / "judged" / METADATA_FILE)}


def rated_cache(folder: Path, family: str, rewards: str) -> Path:
    """A cache of the base's clips with these rewards."""
    clips = folder / "judged" if (folder / "judged" / METADATA_FILE).is_file() else judged_clips(folder, family)
    cache, rated = folder / f"cache_{rewards}", with_rewards(clips, rewards)
    run_recipe("cache", "cache", model_name_or_path=model_of(family), videos=rated, output_dir=cache)
    return cache


def gains_over_base(
    folder: Path, family: str = "cogvideox", rewards: str = "judged", objectives: Sequence[str] = tuple(SHORT)
) -> dict[str, Taught]:
    """Each objective against the mean of the base's clips of a prompt."""
    cache = rated_cache(folder, family, rewards)
    arms = [Arm(folder / f"{objective}_{rewards}", family, objective, cache) for objective in objectives]
    with ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        list(pool.map(oracle_rewards, arms))
    base: dict[str, list[float]] = {}
    for row in read_rows(folder / "judged" / METADATA_FILE):
        base.setdefault(row["prompt"], []).append(row["reward"])
    taught = {}
    for arm in arms:
        rows = list(read_rows(arm.folder / "judged" / METADATA_FILE))
        gains = [row["reward"] - float(np.mean(base[row["prompt"]])) for row in rows]
        history = json.loads((arm.folder / "lora" / "trainer_state.json").read_text())["log_history"]
        log = [line for line in history if "loss" in line][-1]
        taught[arm.objective] = Taught(bootstrap_mean(gains, [row["prompt"] for row in rows]), log)
        print(f"{rewards}: {arm.objective} over the base {taught[arm.objective].gain}")
    return taught


def assert_learned(taught: Mapping[str, Taught]) -> None:
    """
    Gains that are surely above the base's, and what the log says of the other policies: a reference with the LoRA left on
    would be the policy itself, without a distance to it or a margin.
    """
    for name, (gain, log) in taught.items():
        assert gain.is_above_zero and gain.excludes_zero, (name, gain)
        assert log["rewards/chosen"] > log["rewards/rejected"], (name, log)
        assert log["kl" if name == "dpo" else "kl_old"] > 1e-4, (name, log)


def rwl_minus_sft(folder: Path, family: str = "cogvideox", rewards: str = "judged") -> Estimate:
    """The gain in the oracle's reward of RWL over SFT, over the same prompts and seeds; the interval is over prompts."""
    cache = rated_cache(folder, family, rewards)
    objectives = {f"tuned_{rewards}": "sft" if rewards == "ignored" else "rwl", f"control_{rewards}": "sft"}
    arms = [Arm(folder / name, family, objective, cache) for name, objective in objectives.items()]
    with ProcessPoolExecutor(2, mp_context=FORKS) as pool:
        rwl, sft = pool.map(oracle_rewards, arms)
    assert rwl.keys() == sft.keys()
    prompts = {row["id"]: row["prompt"] for row in read_rows(arms[1].folder / "generated" / METADATA_FILE)}
    gains = [rwl[video] - sft[video] for video in sft]
    print(
        f"{rewards}: tuned {np.mean(list(rwl.values())):.4f}, control {np.mean(list(sft.values())):.4f}, {len(gains)} videos"
    )
    return bootstrap_mean(gains, [prompts[video] for video in sft])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rewards", choices=["judged", "ignored", "negated", "shuffled"])
    parser.add_argument("objectives", nargs="*")
    parser.add_argument("--family", choices=list(VIDEO_MODELS), default="cogvideox")
    given = parser.parse_args()
    if given.objectives:
        assert_learned(gains_over_base(given.folder, given.family, given.rewards, given.objectives))
    else:
        print(rwl_minus_sft(given.folder, given.family, given.rewards))
