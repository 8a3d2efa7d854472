"""CogVideoX: 2B (sin-cos positions, fp16), 5B (rotary positions, bf16) and 1.5 (rotary, temporal patches).

B batch, F frames, C channels, H height, W width, L text tokens, D embedding width. Latents are [B, F', C, H/8, W/8].
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from diffusers import CogVideoXPipeline
from torch import Tensor

from ..protocols import VideoModel
from ..records import LatentPosterior, NoisySample, TextCondition


# The VAE encodes 8 frames at a time after the first one; with 4N + 1 frames and N odd it decodes to another length.
_FRAME_STEP = 8
# Default of CogVideoXPipeline.__call__.
_PIPELINE_TEXT_LENGTH = 226


class CogVideoX(VideoModel):
    """
    The CogVideoX family behind the `VideoModel` protocol.

    Args:
        transformer_config: configuration of `CogVideoXTransformer3DModel`.
        vae_config: configuration of `AutoencoderKLCogVideoX`.
        pipeline_config: not used.
    """

    lora_target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    guidance_scale = 6.0

    def __init__(
        self,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any],
        pipeline_config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._transformer_config = SimpleNamespace(**transformer_config)
        self._scaling_factor: float = vae_config["scaling_factor"]
        self._spatial_factor = 2 ** (len(vae_config["block_out_channels"]) - 1)
        self._patch_size_t: int | None = transformer_config.get("patch_size_t")
        self._rotary = bool(transformer_config["use_rotary_positional_embeddings"])
        # The released 2B is fp16 and uses sin-cos positions; the 5B models are bf16 and rotary.
        self.dtype = torch.bfloat16 if self._rotary else torch.float16
        self.fps = 16.0 if self._patch_size_t else 8.0
        self._rotary_embedding = lru_cache(maxsize=4)(self._make_rotary_embedding)

    @property
    def default_size(self) -> tuple[int, int, int]:
        """Frames, height and width (pixels) that the checkpoint was trained on."""
        config = self._transformer_config
        if self._patch_size_t:
            return 81, 768, 1360  # 1.5's configuration names the largest grid, not the training size
        return (
            config.sample_frames,
            config.sample_height * self._spatial_factor,
            config.sample_width * self._spatial_factor,
        )

    def sampling_arguments(self, num_frames: int, height: int, width: int, guidance_scale: float) -> dict[str, Any]:
        """Size and guidance, and the checkpoint's text length where it is not the pipeline's default."""
        length = self._transformer_config.max_text_seq_length
        own = {} if length == _PIPELINE_TEXT_LENGTH else {"max_sequence_length": length}
        return {**super().sampling_arguments(num_frames, height, width, guidance_scale), **own}

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """
        Checks that the VAE and the transformer can take a clip of this size.

        Raises:
            ValueError: if `num_frames` is not 1 or 8N + 1, or height and width do not divide into patches; names the
                nearest legal value.
        """
        if num_frames < 1 or (num_frames - 1) % _FRAME_STEP:
            below = 1 + _FRAME_STEP * (max(num_frames - 1, 0) // _FRAME_STEP)
            raise ValueError(
                f"num_frames={num_frames}: CogVideoX takes 1 or 8N + 1 frames (other counts decode to another length "
                f"without an error). Nearest legal values: {below} and {below + _FRAME_STEP}."
            )
        multiple = math.lcm(8, self._spatial_factor * self._transformer_config.patch_size)
        for name, value in (("height", height), ("width", width)):
            if value < multiple or value % multiple:
                raise ValueError(
                    f"{name}={value}: must be a multiple of {multiple}. Nearest legal value: "
                    f"{max(multiple, multiple * math.floor(value / multiple + 0.5))}."
                )

    @torch.no_grad()
    def encode_text(self, pipe: Any, prompts: Sequence[str]) -> TextCondition:
        """`prompt_embeds` [B, L, D], L the family's fixed length. There is no mask: what follows the text is attended to."""
        prompt_embeds, _ = pipe.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self._transformer_config.max_text_seq_length,
            device=pipe.text_encoder.device,
        )
        return TextCondition(prompt_embeds=prompt_embeds)

    @torch.no_grad()
    def encode_video(self, pipe: Any, video: Tensor) -> LatentPosterior:
        """`video` (float32 [B, F, 3, H, W] in [-1, 1]) as the VAE's posterior, scaled, [B, F', C, H/8, W/8]."""
        video_BCFHW = video.transpose(1, 2).to(pipe.vae.device, pipe.vae.dtype)
        posterior = pipe.vae.encode(video_BCFHW).latent_dist
        mean = posterior.mean.float().transpose(1, 2) * self._scaling_factor
        logvar = posterior.logvar.float().transpose(1, 2) + 2 * math.log(self._scaling_factor)
        return LatentPosterior(self._pad_frames(mean), self._pad_frames(logvar))

    def corrupt(self, scheduler: Any, latents: Tensor, noise: Tensor, quantiles: Tensor) -> NoisySample:
        """
        x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise and the velocity v = sqrt(abar) noise - sqrt(1 - abar) x_0.

        The usual CogVideoX loss |x0_hat - x0|^2 / (1 - abar) equals |v_hat - v|^2; the v form keeps its precision at
        small t, and its schedule is float32 here whatever the base's precision. Timesteps are uniform, so a quantile is one.

        Raises:
            ValueError: if the checkpoint's scheduler does not predict v.
        """
        if scheduler.config.prediction_type != "v_prediction":
            raise ValueError(
                f"scheduler predicts {scheduler.config.prediction_type!r}; CogVideoX needs 'v_prediction'. Restore the "
                "checkpoint's own scheduler_config.json."
            )
        x0 = latents.float()
        x_t = scheduler.add_noise(x0, noise.float(), quantiles)
        return NoisySample(x_t, quantiles, scheduler.get_velocity(x0, noise.float(), quantiles))

    def predict(self, transformer: Any, noisy: NoisySample, text: TextCondition) -> Tensor:
        """The transformer's velocity, like `noisy.target`."""
        _, num_frames, _, height, width = noisy.x_t.shape
        rotary = self._rotary_embedding(num_frames, height, width, noisy.x_t.device) if self._rotary else None
        prediction: Tensor = transformer(
            hidden_states=noisy.x_t,
            encoder_hidden_states=text["prompt_embeds"].to(noisy.x_t.dtype),
            timestep=noisy.timesteps,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return prediction

    def comfyui_name(self, module: str) -> str:
        """The same: ComfyUI-CogVideoXWrapper reads diffusers' names."""
        return module

    def _pad_frames(self, latents: Tensor) -> Tensor:
        """Latent frames made divisible by the temporal patch (1.5 only) by repeating the first one in front."""
        missing = -latents.shape[1] % (self._patch_size_t or 1)
        return torch.cat([latents[:, :1]] * missing + [latents], dim=1) if missing else latents

    def _make_rotary_embedding(self, num_frames: int, height: int, width: int, device: torch.device) -> Any:
        # The pipeline's own rule, which needs only a configuration and the VAE's factor.
        # Private in diffusers 0.42: _prepare_rotary_positional_embeddings; when it goes,
        # `test_the_adapter_calls_the_network_as_the_pipeline_does` fails.
        pipe = SimpleNamespace(
            transformer=SimpleNamespace(config=self._transformer_config), vae_scale_factor_spatial=self._spatial_factor
        )
        return CogVideoXPipeline._prepare_rotary_positional_embeddings(
            pipe, height * self._spatial_factor, width * self._spatial_factor, num_frames, device
        )
