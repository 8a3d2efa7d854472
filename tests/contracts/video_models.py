"""One line a family: a name and a builder of a tiny real pipeline. A new adapter is checked by adding one.

Latents are scaled, and by channel where a family does so: with factors of 1 a forgotten scale would not be seen.
"""

from collections.abc import Callable

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from lift_trl.mini.checkpoints import TEXT_DIM, build_prompt_tokenizer, build_text_encoder, build_tiny_pipeline


def _cogvideox(**settings) -> CogVideoXPipeline:
    pipe = build_tiny_pipeline(seed=0, **settings)
    pipe.vae.register_to_config(scaling_factor=0.7)
    pipe = CogVideoXPipeline(**pipe.components)  # which keeps the factor that its VAE had
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _cogvideox_1_5() -> CogVideoXPipeline:
    """Rotary positions and patches over two latent frames, as in CogVideoX 1.5."""
    pipe = _cogvideox(rotary=True)
    # Not by from_config of a changed configuration: it sets what was a default there, such as this, to the default again.
    config = {k: v for k, v in pipe.transformer.config.items() if not k.startswith("_")} | {
        "patch_size_t": 2, "sample_height": 300, "sample_width": 300,
    }  # fmt: skip
    torch.manual_seed(0)
    pipe.register_modules(transformer=CogVideoXTransformer3DModel(**config).eval())
    return pipe


def build_wan(*, ti2v: bool = False, euler: bool = False, experts: bool = False) -> WanPipeline:
    """
    Wan 2.1 with its own scheduler or Euler's, 2.2 TI2V-5B (patches in the VAE, one timestep a token) or A14B (`experts`).
    """
    torch.manual_seed(0)
    latent_channels = 12 if ti2v else 4
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=latent_channels,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.1 * channel - 0.2 for channel in range(latent_channels)],
        latents_std=[0.5 + 0.3 * channel for channel in range(latent_channels)],
        scale_factor_temporal=4,
        scale_factor_spatial=8 if ti2v else 4,
        **({"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12} if ti2v else {}),
    ).eval()
    settings = {
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": latent_channels, "text_dim": TEXT_DIM,
        "out_channels": latent_channels, "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
    }  # fmt: skip
    networks = [WanTransformer3DModel(**settings).eval() for _ in range(2 if experts else 1)]
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0 if ti2v else 3.0
    )
    pipe = WanPipeline(
        tokenizer=build_prompt_tokenizer(),
        text_encoder=UMT5EncoderModel(_t5(UMT5Config)).eval().requires_grad_(False),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0) if euler else scheduler,
        transformer=networks[0],
        transformer_2=networks[-1] if experts else None,
        expand_timesteps=ti2v,
        boundary_ratio=0.875 if experts else None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_ltx() -> LTXPipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False, False, False),
        downsample_type=("conv", "conv"),
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        patch_size=2,
        scaling_factor=0.9,
    ).eval()
    vae.latents_mean.copy_(torch.linspace(-0.4, 0.5, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 1.7, 8))
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24, num_layers=2,
        caption_channels=TEXT_DIM,
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=0.1,
    )  # fmt: skip
    pipe = LTXPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=build_text_encoder(),
        tokenizer=build_prompt_tokenizer(),
        transformer=transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _hunyuan_video_1_5() -> HunyuanVideo15Pipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 16, 16), layers_per_block=1, spatial_compression_ratio=4,
        temporal_compression_ratio=4, downsample_match_channel=False, upsample_match_channel=False, scaling_factor=1.3,
    ).eval()  # fmt: skip
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_refiner_layers=1,
        text_embed_dim=TEXT_DIM, text_embed_2_dim=TEXT_DIM, image_embed_dim=8, rope_axes_dim=(4, 4, 4), target_size=64,
        task_type="t2v",
    ).eval()  # fmt: skip
    tokenizer = build_prompt_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }} moving{% endif %}{% endfor %}"
    )
    language_model = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=32,
            hidden_size=TEXT_DIM,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=1,
            rope_parameters={"rope_type": "default", "mrope_section": [4, 2, 2]},
        )  # fmt: skip
    )
    pipe = HunyuanVideo15Pipeline(
        text_encoder=language_model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=T5EncoderModel(_t5(T5Config)).eval().requires_grad_(False),
        tokenizer_2=build_prompt_tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
    pipe.prompt_template_encode_start_idx, pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 0, 8, 6
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _t5(config: type) -> T5Config | UMT5Config:
    return config(
        vocab_size=32, d_model=TEXT_DIM, d_kv=16, num_heads=2, num_layers=1, d_ff=32, dropout_rate=0.0, use_cache=False,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False,
    )  # fmt: skip


VIDEO_MODELS: dict[str, Callable[[], DiffusionPipeline]] = {
    "cogvideox-2b": _cogvideox,
    "cogvideox-5b": lambda: _cogvideox(rotary=True),
    "cogvideox-1.5": _cogvideox_1_5,
    "wan-2.1": build_wan,
    "wan-2.1-euler": lambda: build_wan(euler=True),
    "wan-2.2-ti2v": lambda: build_wan(ti2v=True),
    "ltx": build_ltx,
    "hunyuan-1.5": _hunyuan_video_1_5,
}
