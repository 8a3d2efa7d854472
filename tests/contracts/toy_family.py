"""A family that the package does not know: all of it is this file, and one line in the table of adapters."""

import torch
from diffusers import WanPipeline

from lift_trl.protocols import VideoModel
from lift_trl.records import LatentPosterior, NoisySample, TextCondition
from tests.contracts.video_models import build_wan


class ToyPipeline(WanPipeline):
    """A pipeline class of its own name."""


class Toy(VideoModel):
    fps, dtype, guidance_scale, negative_prompt = 6.0, torch.bfloat16, 2.5, "a green triangle moving down"
    lora_target_modules = ("to_q", "to_v")
    default_size = (5, 32, 48)

    def __init__(self, transformer_config, vae_config, pipeline_config):
        self._mean, self._std = (
            torch.tensor(vae_config[name]).view(-1, 1, 1, 1) for name in ("latents_mean", "latents_std")
        )

    def check_size(self, num_frames, height, width):
        if num_frames % 4 != 1 or height % 16 or width % 16:
            raise ValueError("a toy takes 4N + 1 frames of 16 by 16 pixels. Nearest legal values: 5 and 9.")

    @torch.no_grad()
    def encode_text(self, pipe, prompts):
        return TextCondition(prompt_embeds=pipe.encode_prompt(prompts, None, False, max_sequence_length=6)[0])

    @torch.no_grad()
    def encode_video(self, pipe, video):
        posterior = pipe.vae.encode(video.transpose(1, 2)).latent_dist
        return LatentPosterior((posterior.mean - self._mean) / self._std, posterior.logvar - 2 * self._std.log())

    def corrupt(self, scheduler, latents, noise, quantiles):
        level = ((quantiles + 1) / 1000).view(-1, 1, 1, 1, 1)
        return NoisySample((1 - level) * latents + level * noise, quantiles + 1, noise - latents)

    def predict(self, transformer, noisy, text):
        return transformer(noisy.x_t, noisy.timesteps, text["prompt_embeds"].to(noisy.x_t.dtype)).sample


def build_toy() -> ToyPipeline:
    pipe = ToyPipeline(**build_wan(euler=True).components)
    pipe.set_progress_bar_config(disable=True)
    return pipe
