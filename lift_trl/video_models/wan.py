"""Wan: 2.1 text-to-video (1.3B and 14B), 2.2 TI2V-5B as text-to-video, and either network of 2.2 T2V-A14B.

B batch, F frames, C channels, H height, W width, L text tokens, D embedding width. Latents are [B, C, F', H/s, W/s].
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..protocols import VideoModel
from ..records import LatentPosterior, NoisySample, TextCondition
from . import flow


# Default of WanPipeline.__call__ (of encode_prompt it is 226). Zeros after a prompt are attended to, so the length matters.
_TEXT_LENGTH = 512
# Of A14B: the network of the high noise levels, and that of the low ones.
_EXPERTS = ("transformer", "transformer_2")
# Source: the keys of the authors' checkpoints, as diffusers 0.42 reads them (convert_wan_to_diffusers.py).
_COMFYUI_NAMES = {
    **{f"attn1.{ours}": f"self_attn.{theirs}" for ours, theirs in zip(("to_q", "to_k", "to_v", "to_out.0"), "qkvo")},
    **{f"attn2.{ours}": f"cross_attn.{theirs}" for ours, theirs in zip(("to_q", "to_k", "to_v", "to_out.0"), "qkvo")},
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


class Wan(VideoModel):
    """
    The Wan family behind the `VideoModel` protocol.

    Args:
        transformer_config: configuration of `WanTransformer3DModel`.
        vae_config: configuration of `AutoencoderKLWan`.
        pipeline_config: `model_index.json`: `expand_timesteps` tells TI2V-5B, `boundary_ratio` the two networks of A14B.

    Raises:
        ValueError: for a checkpoint that makes videos of images.
    """

    dtype = torch.bfloat16
    guidance_scale = 5.0  # WanPipeline.__call__
    # The example of WanPipeline in diffusers 0.42, in the words of the authors' own Chinese one.
    negative_prompt = (
        "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
        "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
        "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
        "legs, many people in the background, walking backwards"
    )
    # Self- and cross-attention of every block.
    lora_target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(
        self,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any],
        pipeline_config: Mapping[str, Any],
    ) -> None:
        channels, latent_channels = transformer_config["in_channels"], vae_config["z_dim"]
        if channels != latent_channels or transformer_config.get("image_dim"):
            raise ValueError(
                f"this Wan checkpoint takes an image (in_channels={channels} of {latent_channels} latent channels): "
                "image-to-video is not supported. Use a text-to-video checkpoint, for instance "
                "Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
            )
        self._is_ti2v = bool(pipeline_config.get("expand_timesteps"))
        self._boundary: float | None = pipeline_config.get("boundary_ratio")
        if self._boundary is not None:
            self.networks = _EXPERTS
        self.fps = 24.0 if self._is_ti2v else 16.0
        self._frame_step: int = vae_config["scale_factor_temporal"]
        # The pipeline itself refuses what 16 does not divide.
        self._multiple = math.lcm(16, vae_config["scale_factor_spatial"] * transformer_config["patch_size"][1])
        self._mean = torch.tensor(vae_config["latents_mean"]).view(-1, 1, 1, 1)
        self._std = torch.tensor(vae_config["latents_std"]).view(-1, 1, 1, 1)

    @property
    def default_size(self) -> tuple[int, int, int]:
        """Of WanPipeline and, for TI2V-5B, of its model card; no configuration names it."""
        return (121, 704, 1280) if self._is_ti2v else (81, 480, 832)

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """Raises `ValueError`, naming the nearest legal value, for other than 4N + 1 frames or whole patches."""
        flow.check_frames(num_frames, self._frame_step, "Wan")
        flow.check_multiple(height, width, self._multiple)

    def quantile_range(self, scheduler: Any, network: str) -> tuple[float, float]:
        """All, or of A14B the noise levels from the boundary up (`transformer`) or below it (`transformer_2`)."""
        if self._boundary is None:
            return super().quantile_range(scheduler, network)
        shift = flow.shift_of(scheduler)
        quantile = self._boundary / (shift - (shift - 1) * self._boundary)  # the inverse of the shift
        return (quantile, 1.0) if network == _EXPERTS[0] else (0.0, quantile)

    def comfyui_name(self, module: str) -> str:
        """The authors' own name of a module of a block, or `ValueError` for one outside the blocks."""
        found = re.fullmatch(r"(blocks\.\d+)\.(.+)", module)
        if found is None or found[2] not in _COMFYUI_NAMES:
            raise ValueError(
                f"{module}: ComfyUI's name for it is not known here. Use --format diffusers or merged, or train the modules "
                f"of the blocks: {', '.join(_COMFYUI_NAMES)}."
            )
        return f"{found[1]}.{_COMFYUI_NAMES[found[2]]}"

    @torch.no_grad()
    def encode_text(self, pipe: Any, prompts: Sequence[str]) -> TextCondition:
        """`prompt_embeds` [B, L, D], zero after each prompt; L is 512, or what the tokenizer takes at most."""
        prompt_embeds, _ = pipe.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=min(_TEXT_LENGTH, pipe.tokenizer.model_max_length),
            device=pipe.text_encoder.device,
        )
        return TextCondition(prompt_embeds=prompt_embeds)

    @torch.no_grad()
    def encode_video(self, pipe: Any, video: Tensor) -> LatentPosterior:
        """`video` (float32 [B, F, 3, H, W] in [-1, 1]) as the VAE's posterior, each channel normalised."""
        posterior = pipe.vae.encode(video.transpose(1, 2).to(pipe.vae.device, pipe.vae.dtype)).latent_dist
        mean, std = self._mean.to(pipe.vae.device), self._std.to(pipe.vae.device)
        return LatentPosterior((posterior.mean.float() - mean) / std, posterior.logvar.float() - 2 * std.log())

    def corrupt(self, scheduler: Any, latents: Tensor, noise: Tensor, quantiles: Tensor) -> NoisySample:
        """The straight path at quantiles of uniform noise levels, shifted as the checkpoint's scheduler shifts them."""
        flow.check_flow(scheduler, "Wan")
        return flow.corrupt(scheduler, latents, noise, flow.noise_levels(scheduler, quantiles, latents[0, 0].numel()))

    def predict(self, transformer: Any, noisy: NoisySample, text: TextCondition) -> Tensor:
        """
        The transformer's velocity, like `noisy.target`.

        One timestep a clip: TI2V-5B's pipeline gives one a token, all alike for text-to-video, at 6 times the width each.
        """
        prediction: Tensor = transformer(
            hidden_states=noisy.x_t,
            timestep=noisy.timesteps,
            encoder_hidden_states=text["prompt_embeds"].to(noisy.x_t.dtype),
            return_dict=False,
        )[0]
        return prediction
