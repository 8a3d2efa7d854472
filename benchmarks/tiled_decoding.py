"""What `vae_tiling` costs in the mini world: `python -m benchmarks.tiled_decoding`.

The mini world's clips have 48 pixels a side, which no tiles fit. Here five by eight of them stand side by side, are
encoded by the shipped CogVideoX's VAE, and are decoded whole and in tiles: 240 x 384 pixels, in tiles of 120 x 180,
which are half of the real VAE's and overlap as they do, so that seams run through clips. Prints the oracle's mean
reward of the clips as drawn, decoded whole and decoded in tiles, with the difference to whole and its 95 % interval
(bootstrap over clips), and a pixel's mean and largest difference to whole (of 255). `--tiny` decodes one such grid in
place of three.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from lift_trl.mini.checkpoints import load_pipeline
from lift_trl.mini.oracle import judge
from lift_trl.mini.shapes import CLEAN, SIZE, draw_clip
from lift_trl.rubric import LIFT
from lift_trl.statistics.intervals import bootstrap_mean


ROWS, COLUMNS = 5, 8
TILE = (120, 180)


def in_grid(clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Clips [N, F, H, W, 3] side by side, [F, H * ROWS, W * COLUMNS, 3]."""
    _, frames, height, width, _ = clips.shape
    cells = clips.reshape(ROWS, COLUMNS, frames, height, width, 3).transpose(2, 0, 3, 1, 4, 5)
    return cells.reshape(frames, ROWS * height, COLUMNS * width, 3)


def from_grid(grid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The clips of `in_grid`."""
    cells = grid.reshape(len(grid), ROWS, SIZE, COLUMNS, SIZE, 3).transpose(1, 3, 0, 2, 4, 5)
    return cells.reshape(ROWS * COLUMNS, len(grid), SIZE, SIZE, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="One grid of clips.")
    grids = 1 if parser.parse_args().tiny else 3
    vae, rng = load_pipeline().vae, np.random.default_rng(0)
    rewards: dict[str, list[float]] = {"as drawn": [], "decoded whole": [], "vae_tiling: true": []}
    differences = []
    for _ in range(grids):
        clips = [draw_clip(rng, CLEAN) for _ in range(ROWS * COLUMNS)]
        drawn = np.stack([clip.video for clip in clips])
        pixels = torch.from_numpy(in_grid(drawn)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        grid = {"as drawn": in_grid(drawn)}
        with torch.no_grad():
            vae.disable_tiling()
            latents = vae.encode(pixels).latent_dist.mode()
            for way in ("decoded whole", "vae_tiling: true"):
                decoded = vae.decode(latents).sample[0].permute(1, 2, 3, 0)
                grid[way] = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
                vae.enable_tiling(*TILE)
        whole, tiled = (grid[way].astype(np.float32) for way in ("decoded whole", "vae_tiling: true"))
        differences.append(np.abs(tiled - whole))
        for way, shown in grid.items():
            rewards[way] += [
                LIFT.mean_reward(judge(video, clip.caption))
                for video, clip in zip(from_grid(shown), clips, strict=True)
            ]
    print("| clips | oracle's reward | against whole |\n|---|---|---|")
    for way, found in rewards.items():
        gain = bootstrap_mean(
            np.subtract(found, rewards["decoded whole"]).tolist(), [str(i) for i in range(len(found))]
        )
        low, high = gain.ci95 or (gain.value, gain.value)
        print(f"| {way} | {np.mean(found):.3f} | {gain.value:+.3f} [{low:+.3f}, {high:+.3f}] |")
    print(f"pixel_mean_of_255 {np.mean(differences):.3f}")
    print(f"pixel_largest_of_255 {np.max(differences):.0f}")


if __name__ == "__main__":
    main()
