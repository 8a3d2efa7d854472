"""What reward-weighted likelihood, rejection sampling and their controls do in the mini world, over several seeds.

    make quickstart                                         # first: its critic and its real videos are used
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier core     # some two hours on two cores, resumable
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier sweep   # judge's noise x number of videos
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier objectives --videos-per-prompt 4   # every objective
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier objectives --blocks 2   # one block of arms of that tier alone
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier rounds --videos-per-prompt 4   # the guard, honest rounds
    lift-trl mini-world --family wan runs/wan/world   # a flow model; the next line needs no critic
    python benchmarks/mini_study.py --tier families --videos-per-prompt 4 --quickstart runs/wan --out runs/wan/study

Every arm learns from the same samples of the base and differs in objective, rewards or real term alone. Evaluation: the same
prompts and seeds for every arm, judged by the oracle. `runs/mini_study/results.jsonl` gets one row an arm and seed,
`results.md` the table with 95 % intervals over prompts. Start it again to go on.
"""

import argparse
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig

from benchmarks.mini_study_arms import HACKED, OBJECTIVE_BLOCKS, ROUNDS, TIERS, Arm
from benchmarks.mini_study_labels import equal, expected, noisy, shuffled
from benchmarks.mini_study_tables import objectives_table, table
from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.guard import Guard, GuardAction
from lift_trl.alignment.iterate import iterate
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import CriticSource, score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.mini.judges import OracleJudge, StillnessJudge
from lift_trl.mini.world import rate_folder
from lift_trl.rubric import Dimension
from lift_trl.statistics.drift import alarms_in_words
from lift_trl.store.manifest import METADATA_FILE, Manifest, read_rows, write_rows, write_text
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import read_video


SIZE: dict[str, Any] = {"num_frames": 9, "height": 48, "width": 48}
SAMPLING = Sampling(**SIZE, num_inference_steps=20, guidance_scale=1.0, batch_size=24, enlarge=4)
TRAINING = {"max_steps": 200, "per_device_train_batch_size": 48, "learning_rate": 1.5e-3, "warmup_steps": 10}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]
CPU_SECONDS = "cpu_seconds.txt"


class Study:
    """The folders of a study, and what every arm shares: samples of the base, their labels, a cache of each kind."""

    def __init__(self, out: Path, quickstart: Path, videos_per_prompt: int) -> None:
        self.out, self.quickstart = out, quickstart
        self.model = str(quickstart / "world" / "video_model")
        self.prompts = (quickstart / "world" / "prompts.txt").read_text(encoding="utf-8").splitlines()
        self.held_out = plan_videos(self.prompts, videos_per_prompt=videos_per_prompt, seed=2)

    def labels(self, kind: str) -> Path:
        """A folder of the base's samples with the labels of `kind`."""
        generated = self.out / "generated"
        videos = plan_videos(self.prompts, videos_per_prompt=8, seed=1)
        generate_videos(self.model, videos, generated, sampling=SAMPLING)
        folder = self.out / f"labels {kind}"
        if kind == "critic":
            if not (folder / METADATA_FILE).is_file():
                score_videos(self.critic(), generated, folder, batch_size=16)
        elif kind == "oracle":
            rate_folder(generated, folder, oracle=True)
        else:
            source = self.labels("oracle" if kind.startswith("noise") or kind.endswith("oracle") else "critic")
            rows = list(read_rows(source / METADATA_FILE))
            if kind.startswith("shuffled"):
                rows = shuffled(rows)
            elif kind == "mean":
                rows = equal(rows)
            else:
                rows = noisy(rows, float(kind.removeprefix("noise ")))
            write_rows(folder / METADATA_FILE, rows)
        return folder

    def cache(self, arm: Arm) -> Path:
        """The cache of the arm's videos; kinds of labels share what is encoded."""
        shared, folder = self.out / "cache", self.out / f"cache {arm.labels} {arm.num_videos}"
        real = load_rated_videos(self.quickstart / "world" / "real")
        rated = load_rated_videos(self.labels(arm.labels))
        # Prompts in turn, so that few videos are still of all prompts.
        chosen = sorted(range(len(rated)), key=lambda i: (i % 8, i))[: arm.num_videos]
        if not shared.is_dir():
            cache_videos(self.model, [*rated, *real], shared, **SIZE)
        if not folder.is_dir():
            shutil.copytree(shared, folder)
        return cache_videos(self.model, [*(rated[i] for i in chosen), *real], folder, **SIZE)

    def train(self, arm: Arm, seed: int) -> Path:
        """The arm's LoRA."""
        folder = self.out / "arms" / f"{arm.name}, seed {seed}"
        if not (folder / "pytorch_lora_weights.safetensors").is_file():
            args = training(folder, seed, objective=arm.objective, real_weight=arm.real_weight, **arm.settings)
            dataset = CachedVideoDataset(self.cache(arm))
            trainer = RewardWeightedVideoTrainer(self.model, args, train_dataset=dataset, peft_config=lora())
            start_s = time.process_time()
            trainer.train()
            write_text(folder / CPU_SECONDS, f"{time.process_time() - start_s:.1f}\n")
            trainer.save_state()
            trainer.save_model()
        return folder

    def rounds(
        self,
        number: int,
        seed: int,
        arm: Arm | None = None,
        *,
        stillness: bool = False,
        action: GuardAction = "warn",
    ) -> list[Path]:
        """
        The LoRAs of `number` rounds, from the first on: the paper's objective and critic, or `arm`'s.

        With `arm` the oracle gives the rewards, or with `stillness` a judge that can be exploited; the guard asks the
        quickstart's critic, and only warns, so that the whole curve is seen. With another `action` the LoRA that it ends
        with, of the same rounds.
        """
        critic: Any = self.critic() if arm is None else StillnessJudge() if stillness else OracleJudge()
        folder = self.out / "rounds" / (f"seed {seed}" if arm is None else f"{arm.name}, {critic.name}, seed {seed}")
        settings = {"objective": "rwl", "real_weight": 1.0}
        if arm is not None:
            settings = {"objective": arm.objective, "real_weight": arm.real_weight, **arm.settings}
        name = self.critic().name
        # All arms of a seed begin with the same samples of the base: made once.
        start = self.out / "rounds" / f"start, {critic.name}, seed {seed}"
        if arm is not None and start.is_dir() and not folder.is_dir():
            shutil.copytree(start, folder)
        kept = iterate(
            self.model,
            CriticSource(critic.name, lambda: critic),
            self.quickstart / "world" / "prompts.txt",
            training(folder, seed, **settings),
            rounds=number,
            peft_config=lora(),
            sampling=SAMPLING,
            videos_per_prompt=8 if arm is None else 4,
            real=[self.quickstart / "world" / "real"] if arm is None or arm.real_weight else [],
            guard=None if arm is None else Guard(CriticSource(name, self.critic), action, alarms_in_words),
        )
        if arm is not None and not start.is_dir():
            for part in ("round_1/generated", "round_1/scored", "guard/base"):
                shutil.copytree(folder / part, start / part)
        return [folder / f"round_{i}" / "lora" for i in range(1, number + 1)] if action == "warn" else [kept]

    def critic(self) -> LiFTCritic:
        """The quickstart's."""
        return LiFTCritic.from_pretrained(str(self.quickstart / "critic"), batch_size=16)

    def measure(self, name: str, adapter: Path | None, *, guidance_scale: float = 1.0) -> dict[str, Any]:
        """The oracle's verdict on the arm's videos of the held-out seeds, and how different videos of a prompt are."""
        folder = self.out / "videos" / name
        sampling = replace(SAMPLING, guidance_scale=guidance_scale)
        generate_videos(self.model, self.held_out, folder, sampling=sampling, adapter=adapter)
        rate_folder(folder, self.out / "judged" / name, oracle=True)
        rows = list(read_rows(self.out / "judged" / name / METADATA_FILE))
        by_prompt = defaultdict(list)
        for row in rows:
            by_prompt[row["prompt"]].append(
                read_video(folder / "videos" / f"{row['id']}.mp4").frames.astype(np.float32)
            )
        apart = [float(np.abs(a - b).mean()) / 255 for v in by_prompt.values() for a, b in combinations(v, 2)]
        labels = {d.value: [row[d.value] for row in rows] for d in Dimension}
        return {"rewards": [row["reward"] for row in rows], "labels": labels, "diversity": float(np.mean(apart))}


def training(folder: Path, seed: int, **options: Any) -> RewardWeightedVideoConfig:
    """Settings of an arm: those of recipes/configs/mini/align_rwl.yaml."""
    settings = {**TRAINING, **options, "seed": seed, "lr_scheduler_type": "linear", "adam_beta2": 0.99}
    return RewardWeightedVideoConfig(
        output_dir=str(folder), save_strategy="no", report_to="none", disable_tqdm=True, **settings
    )


def lora() -> LoraConfig:
    """The LoRA of every arm."""
    return LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS)


def main() -> None:
    """Reads the command line, runs what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=list(TIERS), default="core")
    parser.add_argument("--out", type=Path, default=Path("runs/mini_study"))
    parser.add_argument(
        "--quickstart", type=Path, default=Path("runs/mini"), help="what make quickstart wrote, or a world"
    )
    parser.add_argument("--seeds", type=int, default=3)
    numbers = range(1, len(OBJECTIVE_BLOCKS) + 1)
    parser.add_argument(
        "--blocks", type=int, nargs="+", choices=numbers, default=list(numbers),
        help="of the tier objectives: the critic's rewards with real videos (1) and without (2), shuffled ones without (3), "
        "the oracle's without (4) and with (5)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="of iterated LiFT; 0 leaves it out")
    parser.add_argument("--videos-per-prompt", type=int, default=6, help="held-out videos of each prompt")
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(args.out, args.quickstart, args.videos_per_prompt)
    manifest = Manifest(args.out / f"results {args.tier}")

    def add(name: str, seed: int, adapter: Path | None, **sampling: float) -> None:
        unit = f"{name}, seed {seed}"
        if unit not in manifest.done_ids():
            seconds = None if adapter is None else adapter / CPU_SECONDS
            cost = {"cpu_s": float(seconds.read_text(encoding="utf-8"))} if seconds and seconds.is_file() else {}
            manifest.append(
                {"id": unit, "arm": name, "seed": seed, **cost, **study.measure(unit, adapter, **sampling)}
            )

    add("base", 0, None)
    if args.tier == "core":
        add("base, guidance 3", 0, None, guidance_scale=3.0)
    # A block is run over all seeds before the next one begins.
    blocks = (TIERS[args.tier],)
    if args.tier == "objectives":
        blocks = tuple(OBJECTIVE_BLOCKS[number - 1] for number in args.blocks)
    for block in blocks:
        for seed in range(args.seeds):
            for arm in block:
                add(arm.name, seed, study.train(arm, seed))
    if args.tier == "rounds":
        for seed in range(args.seeds):
            for arm, stillness in ((HACKED, True), *((arm, False) for arm in ROUNDS)):
                name = "stillness rewarded" if stillness else arm.name
                for number, adapter in enumerate(study.rounds(args.rounds, seed, arm, stillness=stillness), start=1):
                    add(f"{name}, round {number}", seed, adapter)
            try:
                kept: Path | None = study.rounds(args.rounds, seed, HACKED, stillness=True, action="best")[0]
            except RuntimeError:
                kept = None  # no round is better than the base
            add("stillness rewarded, kept by the guard", seed, kept)
    for seed in range(args.seeds if args.rounds and args.tier == "core" else 0):
        for number, adapter in enumerate(study.rounds(args.rounds, seed), start=1):
            add(f"RWL, round {number}", seed, adapter)
    rows = manifest.rows()
    tabled = table if args.tier in ("core", "sweep") else objectives_table
    text = tabled([video.prompt for video in study.held_out], rows)
    write_text(args.out / f"{args.tier}.md", text)
    print(text)
    for objective in ("rwl", "rs"):
        oracle = [row["reward"] for row in read_rows(study.labels("oracle") / METADATA_FILE)]
        print(f"expected_{objective}: {expected(oracle, objective):.4f}")
    for name in sorted({row["arm"] for row in rows}):
        print(f"reward {name}: {np.mean([row['rewards'] for row in rows if row['arm'] == name]):.4f}")


if __name__ == "__main__":
    main()
