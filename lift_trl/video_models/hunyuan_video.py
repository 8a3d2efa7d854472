"""HunyuanVideo 1.5, text-to-video.

B batch, F frames, C channels, H height, W width, L text tokens, D embedding width. Latents are [B, C, F', H/16, W/16].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15AttnBlock
from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor
from torch import Tensor

from ..protocols import VideoModel
from ..records import LatentPosterior, NoisySample, TextCondition
from . import flow


# HunyuanVideo15Pipeline.__init__: places of an image's tokens, and what they are for text-to-video is zero.
_IMAGE_TOKENS = 729
_EMBEDDINGS = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")


class HunyuanVideo15(VideoModel):
    """
    HunyuanVideo 1.5 behind the `VideoModel` protocol.

    Args:
        transformer_config: configuration of `HunyuanVideo15Transformer3DModel`.
        vae_config: configuration of `AutoencoderKLHunyuanVideo15`.
        pipeline_config: not used.

    Raises:
        ValueError: for a checkpoint that makes videos of images, or a distilled one.
    """

    fps = 24.0
    dtype = torch.bfloat16
    guidance_scale = 6.0
    lora_target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    text_components = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    # Of diffusers 0.42: the pipeline's constructor reads its VAE's configuration.
    always_loaded = ("scheduler", "guider", "vae")

    def __init__(
        self,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any],
        pipeline_config: Mapping[str, Any],
    ) -> None:
        if transformer_config["task_type"] != "t2v":
            raise ValueError(
                f"this HunyuanVideo 1.5 checkpoint is made for {transformer_config['task_type']!r}: only text-to-video is "
                "supported. Use one whose transformer's task_type is 't2v'."
            )
        if transformer_config["use_meanflow"]:
            raise ValueError(
                "this HunyuanVideo 1.5 checkpoint is distilled (use_meanflow): its network takes two timesteps, and the "
                "flow loss does not train it. Use the checkpoint that it was distilled from."
            )
        self._scaling_factor: float = vae_config["scaling_factor"]
        self._frame_step: int = vae_config["temporal_compression_ratio"]
        self._spatial: int = vae_config["spatial_compression_ratio"]
        self._patch: int = transformer_config["patch_size"]
        self._image_dim: int = transformer_config["image_embed_dim"]
        self._target_size: int = transformer_config["target_size"]

    @property
    def default_size(self) -> tuple[int, int, int]:
        """121 frames (HunyuanVideo15Pipeline.__call__) in 16:9 of the checkpoint's own resolution."""
        processor = HunyuanVideo15ImageProcessor(vae_scale_factor=self._spatial)
        height, width = processor.calculate_default_height_width(9, 16, self._target_size)
        return 121, height, width

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """Raises `ValueError`, naming the nearest legal value, for other than 4N + 1 frames or whole patches."""
        flow.check_frames(num_frames, self._frame_step, "HunyuanVideo 1.5")
        flow.check_multiple(height, width, self._spatial * self._patch)

    def sampling_arguments(self, num_frames: int, height: int, width: int, guidance_scale: float) -> dict[str, Any]:
        """The size; guidance is the pipeline's guider (`prepare_sampling`)."""
        return {"num_frames": num_frames, "height": height, "width": width}

    def prepare_sampling(self, pipe: Any, guidance_scale: float) -> None:
        """Sets the guider's scale; one clip at a time is decoded, as in `encode_video`."""
        _prepare_attention(pipe.vae)
        pipe.guider = pipe.guider.new(guidance_scale=guidance_scale)

    @torch.no_grad()
    def encode_text(self, pipe: Any, prompts: Sequence[str]) -> TextCondition:
        """
        `prompt_embeds` (of Qwen2.5-VL) and `prompt_embeds_2` (of ByT5: texts in quotes, to be written), [B, L, D], and their
        masks, bool [B, L]; what is masked is never read, and zero.
        """
        embeddings = pipe.encode_prompt(list(prompts), device=pipe.text_encoder.device, batch_size=len(prompts))
        text = TextCondition(zip(_EMBEDDINGS, embeddings, strict=True))
        for name in ("prompt_embeds", "prompt_embeds_2"):
            mask = name.replace("embeds", "embeds_mask")
            text[mask] = text[mask].bool()
            text[name] = text[name] * text[mask][..., None]
        return text

    @torch.no_grad()
    def encode_video(self, pipe: Any, video: Tensor) -> LatentPosterior:
        """`video` (float32 [B, F, 3, H, W] in [-1, 1]) as the VAE's posterior, scaled, [B, C, F', H/16, W/16]."""
        _prepare_attention(pipe.vae)
        posterior = pipe.vae.encode(video.transpose(1, 2).to(pipe.vae.device, pipe.vae.dtype)).latent_dist
        scale = torch.tensor(self._scaling_factor)
        return LatentPosterior(posterior.mean.float() * scale, posterior.logvar.float() + 2 * scale.log())

    def corrupt(self, scheduler: Any, latents: Tensor, noise: Tensor, quantiles: Tensor) -> NoisySample:
        """The straight path at quantiles of uniform noise levels, shifted as the checkpoint's scheduler shifts them."""
        flow.check_flow(scheduler, "HunyuanVideo 1.5")
        return flow.corrupt(scheduler, latents, noise, flow.noise_levels(scheduler, quantiles, latents[0, 0].numel()))

    def predict(self, transformer: Any, noisy: NoisySample, text: TextCondition) -> Tensor:
        """The transformer's velocity, like `noisy.target`: without an image its latents, mask and embeddings are zero."""
        x_t = noisy.x_t
        no_image = x_t.new_zeros(len(x_t), x_t.shape[1] + 1, *x_t.shape[2:])
        prediction: Tensor = transformer(
            hidden_states=torch.cat([x_t, no_image], dim=1),
            timestep=noisy.timesteps,
            encoder_hidden_states=text["prompt_embeds"].to(x_t.dtype),
            encoder_attention_mask=text["prompt_embeds_mask"].to(x_t.dtype),
            encoder_hidden_states_2=text["prompt_embeds_2"].to(x_t.dtype),
            encoder_attention_mask_2=text["prompt_embeds_mask_2"].to(x_t.dtype),
            image_embeds=x_t.new_zeros(len(x_t), _IMAGE_TOKENS, self._image_dim),
            return_dict=False,
        )[0]
        return prediction


def _prepare_attention(vae: Any) -> None:
    """One clip at a time, since the mask of two does not broadcast in diffusers 0.42; each mask in few steps."""
    vae.enable_slicing()
    for module in vae.modules():
        if isinstance(module, HunyuanVideo15AttnBlock):
            module.prepare_causal_attention_mask = causal_mask


def causal_mask(
    n_frame: int, n_hw: int, dtype: torch.dtype, device: torch.device, batch_size: int | None = None
) -> Tensor:
    """
    What `HunyuanVideo15AttnBlock.prepare_causal_attention_mask` of diffusers 0.42 gives, [N, N] or [B, N, N] with N =
    `n_frame * n_hw`: 0 for the positions of a frame and of those before it, else minus infinity. Filled a frame at a time,
    not a position: a clip of 121 frames has 31 and, in each tile, 7,936.
    """
    mask = torch.full((n_frame * n_hw,) * 2, float("-inf"), dtype=dtype, device=device)
    for start in range(0, n_frame * n_hw, n_hw):
        mask[start : start + n_hw, : start + n_hw] = 0
    return mask if batch_size is None else mask.expand(batch_size, -1, -1)
