"""A tiny real `WanPipeline`, the flow model of the mini world, built from its configurations with random weights."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from .checkpoints import LATENT_CHANNELS, SPATIAL_COMPRESSION, TEXT_DIM, TEXT_ENCODER, build_prompt_tokenizer


#: Wan 2.1's own at 480 pixels, in its scheduler's configuration.
FLOW_SHIFT = 3.0


def build_tiny_wan_pipeline(
    save_directory: str | Path | None = None, *, seed: int = 0, num_layers: int = 2
) -> WanPipeline:
    """
    A `WanPipeline` (Wan 2.1's layout) of real classes with random weights, float32 on the CPU.

    Call it with `max_sequence_length=6`, the captions' length; height and width are multiples of 16 and a clip has 4N+1
    frames.

    Args:
        save_directory: where to save the checkpoint folder; nothing is written for `None`.
        seed: of the random weights.
        num_layers: blocks of the transformer, 66 thousand parameters each.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = WanPipeline(
            tokenizer=build_prompt_tokenizer(),
            text_encoder=build_text_encoder(),
            vae=build_vae(),
            scheduler=build_scheduler(),
            transformer=build_transformer(num_layers=num_layers),
        )
    pipeline.set_progress_bar_config(disable=True)
    if save_directory is not None:
        pipeline.save_pretrained(save_directory)
    return pipeline


def build_text_encoder() -> UMT5EncoderModel:
    """A one-layer UMT5 encoder, random."""
    return UMT5EncoderModel(UMT5Config(**TEXT_ENCODER)).eval().requires_grad_(False)


def build_vae() -> AutoencoderKLWan:
    """A causal video VAE, 4x in time and 4x in space, 8 latent channels, 0.64 M parameters, latents not yet normalised."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=4,
        scale_factor_spatial=SPATIAL_COMPRESSION,
    ).eval()


def build_transformer(*, num_layers: int = 6, num_heads: int = 2, head_dim: int = 32) -> WanTransformer3DModel:
    """The denoiser of `num_heads * head_dim` channels."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=num_heads,
        attention_head_dim=head_dim,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_DIM,
        freq_dim=64,
        ffn_dim=4 * num_heads * head_dim,
        num_layers=num_layers,
        rope_max_seq_len=64,
    ).eval()


def build_scheduler() -> UniPCMultistepScheduler:
    """The scheduler of Wan 2.1: flow matching, noise levels shifted by 3."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=FLOW_SHIFT
    )
