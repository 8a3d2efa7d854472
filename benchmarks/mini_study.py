"""What reward-weighted likelihood, rejection sampling and their controls do in the mini world, over several seeds.

    make quickstart                                         # first: its critic and its real videos are used
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier core     # some two hours on two cores, resumable
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier sweep   # judge's noise x number of videos
    OMP_NUM_THREADS=1 python benchmarks/mini_study.py --tier objectives --videos-per-prompt 4   # every objective
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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.guard import CriticSource, Guard
from lift_trl.alignment.iterate import iterate
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.mini.judges import OracleJudge, StillnessJudge
from lift_trl.mini.world import rate_folder
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.statistics.drift import alarms_in_words
from lift_trl.statistics.intervals import bootstrap_mean
from lift_trl.store.manifest import METADATA_FILE, Manifest, read_rows, write_rows, write_text
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import read_video


SIZE: dict[str, Any] = {"num_frames": 9, "height": 48, "width": 48}
SAMPLING = Sampling(**SIZE, num_inference_steps=20, guidance_scale=1.0, batch_size=24, enlarge=4)
TRAINING = {"max_steps": 200, "per_device_train_batch_size": 48, "learning_rate": 1.5e-3, "warmup_steps": 10}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]


#: The control with which the model's own samples weigh as much beside the real ones as under the critic's rewards.
LEVEL = "SFT at the mean reward"


class Arm(NamedTuple):
    """
    One way to train. `labels`: whose rewards, "mean" being the critic's mean reward for each clip; `num_videos`: of the
    base, all for `None`; `settings`: of the objective, beside its own.
    """

    name: str
    objective: str
    labels: str = "critic"
    real_weight: float = 1.0
    num_videos: int | None = None
    settings: Mapping[str, Any] = MappingProxyType({})


CORE = (
    Arm("SFT", "sft"),
    Arm("RWL", "rwl"),
    Arm("RS", "rs"),
    Arm(LEVEL, "rwl", labels="mean"),
    Arm("RWL, shuffled rewards", "rwl", labels="shuffled"),
    Arm("RWL, oracle's rewards", "rwl", labels="oracle"),
    Arm("SFT, no real videos", "sft", real_weight=0.0),
    Arm("RWL, no real videos", "rwl", real_weight=0.0),
    Arm("RWL, shuffled rewards, no real videos", "rwl", labels="shuffled", real_weight=0.0),
)
SWEEP = tuple(
    Arm(f"{objective.upper()}, noise {noise}, {number} videos", objective, f"noise {noise}", 0.0, number)
    for noise in (0.0, 0.15, 0.3)
    for number in (96, 192, 384)
    for objective in ("rwl", "rs")
)


#: How the tier `objectives` trains: 288 clips of the base, six a prompt, in steps of 32 clips.
SHORT = {"max_steps": 120, "per_device_train_batch_size": 32}
NAMES = {
    "sft": "SFT", "rwl": "RWL", "rs": "RS", "best_of_n": "best 1 of 6", "dpo": "DPO", "kto": "KTO", "nft": "NFT",
    "exp": "exp", "awm": "AWM",
}  # fmt: skip
MAIN = ("sft", "rwl", "rs", "best_of_n", "kto", "nft", "dpo")


def _arm(objective: str, labels: str, real: bool) -> Arm:
    """An arm of the tier `objectives`. A pair is two clips, so DPO takes half as many of them a step."""
    signed = objective in ("dpo", "kto", "nft", "awm")
    settings: dict[str, Any] = dict(SHORT) | ({"per_device_train_batch_size": 16} if objective == "dpo" else {})
    settings |= {"caption_dropout": 0.0} if signed else {}
    name = NAMES[objective] + (
        "" if labels == "oracle" else f", {labels}'s rewards" if labels == "critic" else f", {labels}"
    )
    # The gradients of signed objectives are those of l in both directions: a third of the real term is a quarter of them.
    weight = (1 / 3 if signed else 1.0) if real else 0.0
    return Arm(name if real else f"{name}, no real videos", objective, labels, weight, 288, settings)


#: In the order in which they are run: what matters most comes first. SFT looks at no rewards, so it has none's name.
OBJECTIVE_BLOCKS = (
    (_arm("sft", "oracle", True), *(_arm(objective, "critic", True) for objective in MAIN[1:])),
    (_arm("sft", "oracle", False), *(_arm(objective, "critic", False) for objective in MAIN[1:])),
    tuple(_arm(objective, "shuffled", False) for objective in MAIN[:0:-1]),
    tuple(_arm(objective, "oracle", False) for objective in (*MAIN[1:], "awm", "exp")),
    tuple(_arm(objective, "oracle", True) for objective in MAIN[1:]),
)
#: What every family is compared by: the oracle's rewards, without real videos, and shuffled as the control.
FAMILIES = (*(_arm(name, "oracle", False) for name in ("sft", "rwl", "rs")), _arm("rwl", "shuffled oracle", False))
#: Stillness is rewarded and nothing else: the reward rises, the model ends.
HACKED = _arm("dpo", "oracle", False)
#: Objectives in rounds, the oracle's honest rewards, without real videos; the last one's reference is the last round's LoRA.
ROUNDS = (
    _arm("nft", "oracle", False)._replace(settings={**SHORT, "caption_dropout": 0.0, "beta": 0.05}),
    *(_arm(objective, "oracle", False) for objective in ("rs", "rwl", "dpo")),
    _arm("dpo", "oracle", False)._replace(
        name="DPO, moving reference, no real videos",
        settings={**SHORT, "per_device_train_batch_size": 16, "caption_dropout": 0.0, "sync_ref_model": True,
                  "ref_model_sync_steps": 0},
    ),
)  # fmt: skip
TIERS = {"core": CORE, "sweep": SWEEP, "objectives": sum(OBJECTIVE_BLOCKS, ()), "families": FAMILIES, "rounds": ()}
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
                rows = _shuffled(rows)
            elif kind == "mean":
                rows = _equal(rows)
            else:
                rows = _noisy(rows, float(kind.removeprefix("noise ")))
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

    def rounds(self, number: int, seed: int, arm: Arm | None = None, *, stillness: bool = False) -> list[Path]:
        """
        The LoRAs of `number` rounds, from the first on: the paper's objective and critic, or `arm`'s.

        With `arm` the oracle gives the rewards, or with `stillness` a judge that can be exploited; the guard asks the
        quickstart's critic, and only warns, so that the whole curve is seen.
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
        iterate(
            self.model,
            CriticSource(critic.name, lambda: critic),
            self.quickstart / "world" / "prompts.txt",
            training(folder, seed, **settings),
            rounds=number,
            peft_config=lora(),
            sampling=SAMPLING,
            videos_per_prompt=8 if arm is None else 4,
            real=[self.quickstart / "world" / "real"] if arm is None or arm.real_weight else [],
            guard=None if arm is None else Guard(CriticSource(name, self.critic), "warn", alarms_in_words),
        )
        if arm is not None and not start.is_dir():
            for part in ("round_1/generated", "round_1/scored", "round_1/cache", "guard/base"):
                shutil.copytree(folder / part, start / part)
        return [folder / f"round_{i}" / "lora" for i in range(1, number + 1)]

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


def _shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the labels and rewards of other rows."""
    order = np.random.default_rng(0).permutation(len(rows))
    names = [*(d.value for d in Dimension), "reward"]
    return [{**row, **{name: rows[i][name] for name in names}} for row, i in zip(rows, order, strict=True)]


def _equal(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without labels whose reward is that of all rows together: SFT that weighs as much as RWL beside the real term."""
    reward = float(np.mean([row["reward"] for row in rows]))
    kept = [{name: value for name, value in row.items() if name not in list(Dimension)} for row in rows]
    return [{**row, "reward": reward} for row in kept]


def _noisy(rows: list[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """Rows in which each label is a neighbouring one by the chance `rate`."""
    rng, ranked = np.random.default_rng(1), sorted(Label, key=lambda label: label.rank)
    noisy = []
    for row in rows:
        labels = {d: Label(row[d.value]) for d in Dimension}
        for dimension, label in labels.items():
            if rng.random() < rate:
                near = [other for other in ranked if abs(other.rank - label.rank) == 1]
                labels[dimension] = near[rng.integers(len(near))]
        reward = LIFT.mean_reward(labels)
        noisy.append({**row, **{d.value: label.value for d, label in labels.items()}, "reward": reward})
    return noisy


def expected(rewards: Sequence[float], objective: str) -> float:
    """Mean reward of p'(x|z) proportional to p(x|z) r(x, z), the samples of a perfect fit (RS: of the best only)."""
    r = np.asarray(rewards)
    weights = r if objective == "rwl" else (r == r.max()).astype(float)
    return float((weights * r).sum() / weights.sum())


def table(study: Study, results: Sequence[Mapping[str, Any]]) -> str:
    """
    Every arm over its seeds, beside the base, and beside plain and level SFT of the same seeds; all paired.

    Level SFT has the arm's share of the real term: rewards below 1 let the real videos weigh more (equation 3).
    """
    asked = [video.prompt for video in study.held_out]
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


def objectives_table(study: Study, results: Sequence[Mapping[str, Any]]) -> str:
    """Every objective beside the base, and beside SFT, RWL and RS of the same labels and real term, paired over seeds."""
    asked = [video.prompt for video in study.held_out]
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


def main() -> None:
    """Reads the command line, runs what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=list(TIERS), default="core")
    parser.add_argument("--out", type=Path, default=Path("runs/mini_study"))
    parser.add_argument(
        "--quickstart", type=Path, default=Path("runs/mini"), help="what make quickstart wrote, or a world"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--blocks", type=int, default=len(OBJECTIVE_BLOCKS), help="of the tier objectives, in their order"
    )
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
    blocks = OBJECTIVE_BLOCKS[: args.blocks] if args.tier == "objectives" else (TIERS[args.tier],)
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
    for seed in range(args.seeds if args.rounds and args.tier == "core" else 0):
        for number, adapter in enumerate(study.rounds(args.rounds, seed), start=1):
            add(f"RWL, round {number}", seed, adapter)
    rows = manifest.rows()
    text = table(study, rows) if args.tier in ("core", "sweep") else objectives_table(study, rows)
    write_text(args.out / f"{args.tier}.md", text)
    print(text)
    for objective in ("rwl", "rs"):
        oracle = [row["reward"] for row in read_rows(study.labels("oracle") / METADATA_FILE)]
        print(f"expected_{objective}: {expected(oracle, objective):.4f}")
    for name in sorted({row["arm"] for row in rows}):
        print(f"reward {name}: {np.mean([row['rewards'] for row in rows if row['arm'] == name]):.4f}")


if __name__ == "__main__":
    main()
