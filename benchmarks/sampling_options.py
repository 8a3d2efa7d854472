"""What each option of sampling costs in quality in the mini world: `python benchmarks/sampling_options.py runs/mini/world`.

The shipped base samples 96 held-out videos (two a prompt, of seeds that nothing is trained on) as it is, and with each
option by itself. Prints for each the oracle's mean reward, its difference to plain sampling with the 95 % interval
(bootstrap over prompts), and the mean difference of a pixel (of 255) to plain sampling's videos. Left out: `tf32` and the
kernels of GPUs, which do nothing on a CPU, and `vae_tiling`, whose tiles do not fit 48 pixels. `--tiny` samples few videos.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mini_study import SAMPLING
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.mini.judges import OracleJudge
from lift_trl.statistics.intervals import bootstrap_mean
from lift_trl.store.manifest import METADATA_FILE, read_rows
from lift_trl.store.video_io import read_video


SEED = 2
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compile_blocks: aot_eager": {"compile_blocks": "aot_eager"},
    "compile_blocks: inductor": {"compile_blocks": "inductor"},
    "attention_kernel: math": {"attention_kernel": "math"},
    "first_block_cache: 0.02": {"first_block_cache": 0.02},
    "first_block_cache: 0.05": {"first_block_cache": 0.05},
    "first_block_cache: 0.2": {"first_block_cache": 0.2},
    "quantization: int8": {"quantization": "int8"},
    "quantization: float8": {"quantization": "float8"},
}


def sample(world: Path, out: Path, options: dict[str, Any], *, tiny: bool) -> list[dict[str, Any]]:
    """The videos' rows; what `out` has is not made again."""
    prompts = (world / "prompts.txt").read_text(encoding="utf-8").splitlines()
    videos = plan_videos(prompts[:2] if tiny else prompts, videos_per_prompt=2, seed=SEED)
    generate_videos(world / "video_model", videos, out, sampling=replace(SAMPLING, **options))
    return list(read_rows(out / METADATA_FILE))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("world", type=Path, help="Folder of lift-trl mini-world.")
    parser.add_argument("--out", type=Path, default=Path("runs/sampling_options"), help="Folder of the videos.")
    parser.add_argument("--tiny", action="store_true", help="Four videos of each.")
    args = parser.parse_args()
    frames: dict[tuple[str, int], np.ndarray] = {}
    rewards: dict[tuple[str, int], float] = {}
    print("| option | oracle's reward | against plain | pixel, of 255 |\n|---|---|---|---|")
    for name, options in OPTIONS.items():
        folder = args.out / name.replace(": ", "-")
        rows = sample(args.world, folder, options, tiny=args.tiny)
        found, differences = {}, []
        for row in rows:
            place, path = (row["prompt"], row["seed"]), folder / row["file_name"]
            (score,) = OracleJudge().score([str(path)], [row["prompt"]])
            found[place], shown = score.reward, read_video(path).frames.astype(np.float32)
            frames.setdefault(place, shown)
            differences.append(np.abs(shown - frames[place]).mean())
        rewards = rewards or found
        gain = bootstrap_mean([found[place] - rewards[place] for place in found], [prompt for prompt, _ in found])
        low, high = gain.ci95 or (gain.value, gain.value)
        print(
            f"| `{name}` | {np.mean(list(found.values())):.3f} | {gain.value:+.3f} [{low:+.3f}, {high:+.3f}] | "
            f"{np.mean(differences):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
