"""Trains the mini world's VAE from nothing: `python -m lift_trl.mini.train.vae --out runs/mini_vae`. Resumable.

`--family wan` trains the one of the tiny Wan.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from torch import Tensor, nn

from .. import checkpoints, wan
from ..shapes import DefectRates, draw_clip
from .runs import FlatMuon, Run, clip_and_step, cosine, set_rate


KL_WEIGHT = 2e-4
OBJECT_WEIGHT = 5.0
EDGE_WEIGHT = 4.0
SAVE_EVERY_S = 120.0
#: Clips that take no part in training; the figures and the scale of the latents are theirs.
NUM_HELD_OUT = 64
#: A channel of means that deviate by less than this is one that the KL term has emptied: its samples are noise.
UNUSED_STD = 0.1
#: bfloat16 saves a quarter of a step; the last steps are in float32, as the VAE is used.
BF16_SHARE = 0.8


def initialise(vae: AutoencoderKLCogVideoX | AutoencoderKLWan) -> None:
    """
    Starts near the identity with little posterior noise; the default starts lose most of a short run.

    Each residual branch begins at zero, the spatial norms (CogVideoX's) scale by 1, the other convolutions are 1.7 times as
    large, and the posterior's log-variance is -5.
    """
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv3d | nn.Conv2d):
            leaf = name.removesuffix(".conv").rsplit(".", 1)[-1]
            assert module.bias is not None
            if leaf == "conv2":
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
            elif leaf == "conv_y":
                nn.init.ones_(module.bias)
            elif module.kernel_size[-1] == 3:
                with torch.no_grad():
                    module.weight.mul_(1.7)
    head = vae.quant_conv if isinstance(vae, AutoencoderKLWan) else vae.encoder.conv_out.conv
    half = head.out_channels // 2
    with torch.no_grad():
        head.weight[half:].zero_()
        head.bias[half:].fill_(-5.0)


def draw_batch(seed: int, step: int, batch_size: int) -> Tensor:
    """Clips of the defective world as float32 `[B, 3, F, H, W]` in [-1, 1]."""
    rng = np.random.default_rng([seed, step])
    videos = np.stack([draw_clip(rng, DefectRates()).video for _ in range(batch_size)])
    return torch.from_numpy(videos).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def reconstruction_loss(decoded: Tensor, video: Tensor) -> Tensor:
    """L1 that counts the coloured object and its edges more, plus squared error, plus L1 on differences of neighbours."""
    saturation = video.amax(1, keepdim=True) - video.amin(1, keepdim=True)
    objects = (saturation > 0.6).float()
    edges = nn.functional.max_pool3d(objects, (1, 3, 3), 1, (0, 1, 1)) + nn.functional.max_pool3d(
        -objects, (1, 3, 3), 1, (0, 1, 1)
    )
    weight = 1 + (OBJECT_WEIGHT - 1) * objects + EDGE_WEIGHT * edges
    error = decoded - video
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (weight * error.abs()).mean() + 2 * error.square().mean() + gradients


@torch.no_grad()
def evaluate(vae: AutoencoderKLCogVideoX | AutoencoderKLWan) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of the round trip through the posterior mean, and the latents' deviation."""
    video = draw_batch(1_000_003, 0, NUM_HELD_OUT)
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in video.split(8)])
    decoded = torch.cat([vae.decode(part).sample for part in latents.split(8)]).clamp(-1, 1)
    psnr = -10 * torch.log10((decoded - video).square().mean() / 4)
    return {"psnr_db": psnr.item(), "latent_std": latents.std().item(), "latent_mean": latents.mean().item()}


@torch.no_grad()
def normalise(vae: AutoencoderKLCogVideoX | AutoencoderKLWan) -> None:
    """
    Writes the latents' scale into the configuration: one factor (CogVideoX), each channel's mean and deviation (Wan).

    Wan's unused channels become 0, without noise, and keep their scale: divided by their own deviation, they would be noise
    a hundred times as large as what the picture is in.
    """
    video = draw_batch(1_000_003, 0, NUM_HELD_OUT)
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in video.split(8)])
    if isinstance(vae, AutoencoderKLWan):
        mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
        unused = std < UNUSED_STD
        rows = unused.repeat(2)  # of the means, then of the log-variances
        vae.quant_conv.weight[rows] = 0
        vae.quant_conv.bias[rows] = torch.tensor([0.0, -12.0]).repeat_interleave(len(unused))[rows]
        mean[unused], std[unused] = 0, 1
        vae.register_to_config(
            latents_mean=[round(value, 4) for value in mean.tolist()],
            latents_std=[round(value, 4) for value in std.tolist()],
        )
    else:
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))


def train(out: Path, family: str, num_steps: int, batch_size: int, seed: int) -> None:
    """Trains for `num_steps` steps in all, or what is left of them, and saves the VAE to `out/vae`."""
    torch.manual_seed(seed)
    vae = wan.build_vae() if family == "wan" else checkpoints.build_vae()
    initialise(vae)
    vae.train()
    # Wan's norms have a scale of [C, 1, 1, 1]: vectors, too.
    kernels = [p for p in vae.parameters() if p.numel() > p.shape[0]]
    vectors = [p for p in vae.parameters() if p.numel() == p.shape[0]]
    muon, adam = FlatMuon(kernels, lr=0.03, momentum=0.9), torch.optim.Adam(vectors, lr=3e-3)
    run = Run(out, {"vae": vae, "muon": muon, "adam": adam})
    run.resume()
    saved_s = time.monotonic()
    while run.step < num_steps:
        set_rate((muon, adam), cosine(run.step, num_steps))
        video = draw_batch(seed, run.step, batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=run.step < BF16_SHARE * num_steps):
            posterior = vae.encode(video).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(run.step))
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loss = reconstruction_loss(decoded.float(), video)
        kl = (
            0.5
            * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).sum(1).mean()
        )
        clip_and_step(vae, (muon, adam), loss + KL_WEIGHT * kl)
        run.step += 1
        if run.step % 50 == 0:
            run.report(loss=loss.item(), kl=kl.item())
        if run.step % 500 == 0 or run.step == num_steps:
            run.report(**evaluate(vae))
        if time.monotonic() - saved_s > SAVE_EVERY_S or run.step == num_steps:
            run.save()
            saved_s = time.monotonic()
    normalise(vae)
    vae.save_pretrained(out / "vae")


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the run.")
    parser.add_argument("--family", choices=("cogvideox", "wan"), default="cogvideox")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train(args.out, args.family, args.steps, args.batch_size, args.seed)


if __name__ == "__main__":
    main()
