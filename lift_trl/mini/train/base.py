"""Trains the mini world's denoiser on a defective corpus, resumably.

`python -m lift_trl.mini.train.base --vae runs/mini_vae/vae --out runs/mini_base`; with `--family wan` that of the tiny Wan.
"""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel, DiffusionPipeline, WanTransformer3DModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...protocols import VideoModel
from ...records import TextCondition
from ...rubric import Label
from ...video_models import HeldPipeline
from ..checkpoints import MAX_TEXT_TOKENS, build_tiny_pipeline
from ..oracle import observe
from ..shapes import ATTRIBUTES, NUM_FRAMES, SCENES, SIZE, Clip, DefectRates, draw_clip
from ..wan import build_tiny_wan_pipeline
from .runs import FlatMuon, Run, clip_and_step, cooldown, set_rate


NUM_CLIPS = 6000
#: Steps that draw only the corpus' flawless clips. On everything, a thousand steps had taught CogVideoX colour and some
#: direction but left shape at chance: wrong captions and static hide it. All other steps, the last ones above all, draw
#: everything.
FLAWLESS_STEPS = {"cogvideox": range(1150, 2400), "wan": range(1250)}
SHARD = 250
CAPTION_DROPOUT = 0.1
EMA_DECAY = 0.995
SAVE_EVERY_S = 120.0
#: Modules whose matrices Adam trains; Muon trains those of the blocks.
EDGES = ("patch_embed", "time_embedding", "condition_embedder", "norm_out", "proj_out")


@torch.no_grad()
def initialise(transformer: CogVideoXTransformer3DModel | WanTransformer3DModel) -> None:
    """Output zero, adaptive norms zero with gates of 0.3: every block starts as a small residual step."""
    transformer.proj_out.weight.zero_()
    transformer.proj_out.bias.zero_()
    if isinstance(transformer, WanTransformer3DModel):
        transformer.condition_embedder.time_proj.weight.zero_()
        transformer.condition_embedder.time_proj.bias.zero_()
        for block in transformer.blocks:
            # Six rows: shift, scale and gate of self-attention, then of the feed-forward. Cross-attention has no gate.
            block.scale_shift_table.zero_()[0, [2, 5]] = 0.3
            block.attn2.to_out[0].weight.mul_(0.3)
        return
    for block in transformer.transformer_blocks:
        for norm in (block.norm1, block.norm2):
            norm.linear.weight.zero_()
            norm.linear.bias.zero_()
            # Six chunks: shift, scale and gate of the video, then of the text.
            norm.linear.bias.view(6, -1)[[2, 5]] = 0.3


def draw_shard(seed: int, start: int) -> list[Clip]:
    """The clips of one shard of the defective corpus."""
    rng = np.random.default_rng([seed, start])
    return [draw_clip(rng, DefectRates()) for _ in range(SHARD)]


def flawless_rows(seed: int, num_clips: int) -> Tensor:
    """Indices of the corpus' clips without any defect."""
    clips = [clip for start in range(0, num_clips, SHARD) for clip in draw_shard(seed, start)]
    return torch.tensor([index for index, clip in enumerate(clips) if set(clip.labels.values()) == {Label.GOOD}])


@torch.no_grad()
def encode_corpus(
    pipeline: DiffusionPipeline, adapter: VideoModel, directory: Path, seed: int, num_clips: int
) -> tuple[Tensor, Tensor]:
    """
    Posterior means of a defective corpus in the denoiser's scale, float32 `[N, ...]`, and each clip's caption's index `[N]`.

    Whole shards are kept in `directory`, so that a killed run goes on where it was.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, num_clips, SHARD):
        path = directory / f"{start:06d}.pt"
        if not path.exists():
            clips = draw_shard(seed, start)
            video = torch.from_numpy(np.stack([clip.video for clip in clips])).permute(0, 1, 4, 2, 3) / 127.5 - 1
            latents = torch.cat([adapter.encode_video(pipeline, part).mean for part in video.split(10)])
            captions = torch.tensor([SCENES.index(clip.caption) for clip in clips])
            temporary = path.with_suffix(".tmp")
            torch.save((latents, captions), temporary)
            temporary.replace(path)
        shards.append(torch.load(path, weights_only=True))
    return torch.cat([latents for latents, _ in shards]), torch.cat([captions for _, captions in shards])


@torch.no_grad()
def measure(pipeline: DiffusionPipeline, videos_per_prompt: int = 2, seed: int = 7) -> dict[str, float]:
    """Shares of sampled clips (20 steps, guidance 1) that follow the prompt in each attribute, and of Good labels."""
    scenes = list(SCENES) * videos_per_prompt
    seen = []
    for start in range(0, len(scenes), 24):
        frames = pipeline(
            prompt=[scene.prompt for scene in scenes[start : start + 24]],
            height=SIZE,
            width=SIZE,
            num_frames=NUM_FRAMES,
            num_inference_steps=20,
            guidance_scale=1.0,
            max_sequence_length=MAX_TEXT_TOKENS,
            generator=torch.Generator().manual_seed(seed + start),
            output_type="np",
        ).frames
        seen += [observe(np.round(video * 255).astype(np.uint8)) for video in frames]
    pairs = list(zip(scenes, seen, strict=True))
    figures = {name: np.mean([name not in s.wrong_attributes(scene) for scene, s in pairs]) for name in ATTRIBUTES}
    labels = [s.labels(scene) for scene, s in pairs]
    figures |= {d.value: np.mean([row[d].rank == 2 for row in labels]) for d in labels[0]}
    figures |= {name: np.median([getattr(s, name) for s in seen]) for name in ("wobble", "static", "misfit")}
    return {name: float(value) for name, value in figures.items()}


def build_pipeline(family: str, vae: Path, num_layers: int, seed: int) -> DiffusionPipeline:
    """A pipeline of `family` around the VAE of a folder; its denoiser is where training begins, its text encoder random."""
    build = build_tiny_wan_pipeline if family == "wan" else build_tiny_pipeline
    pipeline: DiffusionPipeline = build(seed=seed, num_layers=num_layers)
    pipeline.register_modules(vae=type(pipeline.vae).from_pretrained(vae).eval().requires_grad_(False))
    initialise(pipeline.transformer)
    return pipeline


def train(family: str, vae: Path, out: Path, num_steps: int, batch_size: int, num_layers: int, seed: int) -> None:
    """Trains for `num_steps` steps in all, or what is left of them, and saves the pipeline to `out/video_model`."""
    pipeline = build_pipeline(family, vae, num_layers, seed)
    adapter = HeldPipeline(pipeline).adapter
    latents, captions = encode_corpus(pipeline, adapter, out / "corpus", seed, NUM_CLIPS)
    flawless = flawless_rows(seed, NUM_CLIPS)
    # Every scene and, last, the empty caption.
    text = adapter.encode_text(pipeline, [scene.prompt for scene in SCENES] + [""])
    transformer = pipeline.transformer.train()
    average = AveragedModel(transformer, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    pipeline.register_modules(transformer=average.module)
    inner = {n: p for n, p in transformer.named_parameters() if p.ndim == 2 and not n.startswith(EDGES)}
    outer = [p for n, p in transformer.named_parameters() if n not in inner]
    muon = FlatMuon(inner.values(), lr=0.015, momentum=0.95)
    adam = torch.optim.Adam(outer, lr=2e-3, betas=(0.9, 0.99))
    run = Run(out, {"transformer": transformer, "average": average, "muon": muon, "adam": adam})
    run.resume()
    saved_s, losses = time.monotonic(), []
    while run.step < num_steps:
        set_rate((muon, adam), cooldown(run.step, num_steps))
        generator = torch.Generator().manual_seed(seed * 1_000_003 + run.step)
        pool = flawless if run.step in FLAWLESS_STEPS[family] else torch.arange(len(latents))
        rows = pool[torch.randint(len(pool), (batch_size,), generator=generator)]
        dropped = torch.rand(batch_size, generator=generator) < CAPTION_DROPOUT
        spoken = captions[rows].masked_fill(dropped, len(SCENES))
        caption = TextCondition({name: tensor[spoken] for name, tensor in text.items()})
        loss = denoising_loss(transformer, adapter, pipeline.scheduler, latents[rows], caption, generator)
        clip_and_step(transformer, (muon, adam), loss)
        average.update_parameters(transformer)
        run.step += 1
        losses.append(loss.item())
        if run.step % 50 == 0:
            run.report(loss=float(np.mean(losses)))
            losses.clear()
        if run.step % 500 == 0 or run.step == num_steps:
            run.report(**measure(pipeline))
        if time.monotonic() - saved_s > SAVE_EVERY_S or run.step == num_steps:
            run.save()
            pipeline.save_pretrained(out / "video_model")
            saved_s = time.monotonic()


def denoising_loss(
    transformer: nn.Module,
    adapter: VideoModel,
    scheduler: Any,
    latents: Tensor,
    text: TextCondition,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of the network's own target at quantiles of the noise level spread evenly over the batch."""
    batch_size = len(latents)
    steps = scheduler.config.num_train_timesteps
    shifted = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
    timesteps = (shifted * steps).long().clamp_(max=steps - 1)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = adapter.corrupt(scheduler, latents, noise, timesteps)
    output = adapter.predict(transformer, noisy, text)
    return nn.functional.mse_loss(output.float(), noisy.target)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="Folder of the VAE that train.vae wrote.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the run.")
    parser.add_argument("--family", choices=("cogvideox", "wan"), default="cogvideox")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train(args.family, args.vae, args.out, args.steps, args.batch_size, args.layers, args.seed)


if __name__ == "__main__":
    main()
