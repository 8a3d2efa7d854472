"""LTX-Video 0.9.x: text-to-video with a VAE that packs 8 frames of 32 x 32 pixels into one token.

B batch, F frames, C channels, H height, W width, L text tokens, D embedding width. Latents are [B, C, F', H/32, W/32] here,
as the VAE gives them; the network takes them packed into tokens.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import LTXPipeline
from torch import Tensor

from ..protocols import VideoModel
from ..records import LatentPosterior, NoisySample, TextCondition
from . import flow


# Default of LTXPipeline.__call__.
_TEXT_LENGTH = 128


class LTX(VideoModel):
    """
    LTX-Video behind the `VideoModel` protocol.

    Args:
        transformer_config: configuration of `LTXVideoTransformer3DModel`.
        vae_config: configuration of `AutoencoderKLLTXVideo`.
        pipeline_config: not used; image-to-video checkpoints name other pipeline classes, most distilled ones too.
    """

    fps = 25.0  # LTXPipeline.__call__
    dtype = torch.bfloat16
    guidance_scale = 3.0  # LTXPipeline.__call__
    negative_prompt = "worst quality, inconsistent motion, blurry, jittery, distorted"  # the example of LTXPipeline
    default_size = (161, 512, 704)  # LTXPipeline.__call__
    lora_target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(
        self,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any],
        pipeline_config: Mapping[str, Any],
    ) -> None:
        self._patches = (transformer_config["patch_size"], transformer_config["patch_size_t"])
        halvings = 2 ** sum(vae_config["spatio_temporal_scaling"])
        self._frame_step: int = vae_config["temporal_compression_ratio"] or vae_config["patch_size_t"] * halvings
        self._spatial: int = vae_config["spatial_compression_ratio"] or vae_config["patch_size"] * halvings
        self._scaling_factor: float = vae_config["scaling_factor"]
        self._decodes_with_noise: bool = vae_config["timestep_conditioning"]

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """Raises `ValueError`, naming the nearest legal value, for other than 8N + 1 frames or whole tokens."""
        flow.check_frames(num_frames, self._frame_step * self._patches[1], "LTX-Video")
        # The pipeline itself refuses what 32 does not divide.
        flow.check_multiple(height, width, math.lcm(32, self._spatial * self._patches[0]))

    def check_fps(self, fps: float) -> None:
        """Raises `ValueError` for other than the family's own: positions in time are counted in seconds."""
        if fps != self.fps:
            raise ValueError(
                f"fps={fps:g}: LTX-Video counts positions in seconds and is trained at {self.fps:g} frames a second here. "
                "Leave fps out."
            )

    def sampling_arguments(self, num_frames: int, height: int, width: int, guidance_scale: float) -> dict[str, Any]:
        """Size, guidance and frame rate, and from 0.9.1 on the noise that the VAE decodes with."""
        arguments = super().sampling_arguments(num_frames, height, width, guidance_scale) | {
            "frame_rate": int(self.fps)
        }
        # Source: the example of diffusers' documentation of LTX-Video 0.9.1.
        noise = {"decode_timestep": 0.05, "decode_noise_scale": 0.025} if self._decodes_with_noise else {}
        return arguments | noise

    def comfyui_name(self, module: str) -> str:
        """The authors' own name of a module; those of the blocks are diffusers'."""
        for name, own in (("proj_in", "patchify_proj"), ("time_embed", "adaln_single")):
            module = re.sub(rf"^{name}(?=\.|$)", own, module)
        return module

    @torch.no_grad()
    def encode_text(self, pipe: Any, prompts: Sequence[str]) -> TextCondition:
        """`prompt_embeds` [B, L, D] and `prompt_attention_mask` bool [B, L]; what is masked is never read, and zero."""
        prompt_embeds, mask, _, _ = pipe.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=min(_TEXT_LENGTH, pipe.tokenizer.model_max_length),
            device=pipe.text_encoder.device,
        )
        return TextCondition(prompt_embeds=prompt_embeds * mask[..., None], prompt_attention_mask=mask)

    @torch.no_grad()
    def encode_video(self, pipe: Any, video: Tensor) -> LatentPosterior:
        """
        `video` (float32 [B, F, 3, H, W] in [-1, 1]) as the VAE's posterior, normalised by channel, [B, C, F', H/32, W/32].

        Mean and deviation of the channels are buffers of the VAE, not configuration.
        """
        vae = pipe.vae
        posterior = vae.encode(video.transpose(1, 2).to(vae.device, vae.dtype)).latent_dist
        mean, std = (part.float().view(-1, 1, 1, 1) for part in (vae.latents_mean, vae.latents_std))
        std = std / self._scaling_factor
        return LatentPosterior((posterior.mean.float() - mean) / std, posterior.logvar.float() - 2 * std.log())

    def corrupt(self, scheduler: Any, latents: Tensor, noise: Tensor, quantiles: Tensor) -> NoisySample:
        """The straight path at quantiles of a logit-normal, whose mean grows with the clip's number of tokens."""
        flow.check_flow(scheduler, "LTX-Video")
        num_tokens = latents[0, 0].numel() // (self._patches[0] ** 2 * self._patches[1])
        return flow.corrupt(scheduler, latents, noise, flow.noise_levels(scheduler, quantiles, num_tokens))

    def predict(self, transformer: Any, noisy: NoisySample, text: TextCondition) -> Tensor:
        """The transformer's velocity, like `noisy.target`."""
        num_frames, height, width = noisy.x_t.shape[2:]
        # Private in diffusers 0.42: _pack_latents, _unpack_latents. When they go,
        # `test_the_adapter_calls_the_network_as_the_pipeline_does` fails.
        prediction: Tensor = transformer(
            hidden_states=LTXPipeline._pack_latents(noisy.x_t, *self._patches),
            encoder_hidden_states=text["prompt_embeds"].to(noisy.x_t.dtype),
            timestep=noisy.timesteps,
            encoder_attention_mask=text["prompt_attention_mask"],
            num_frames=num_frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self._frame_step / int(self.fps), self._spatial, self._spatial),
            return_dict=False,
        )[0]
        return LTXPipeline._unpack_latents(prediction, num_frames, height, width, *self._patches)
