"""One line a family: a name and a builder of a tiny real pipeline. A new adapter is checked by adding one."""

from collections.abc import Callable

from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel, DiffusionPipeline

from lift_trl.mini.checkpoints import build_tiny_pipeline


def _with_a_scale(pipe: CogVideoXPipeline) -> CogVideoXPipeline:
    """Latents are scaled by .7, as in CogVideoX-5B: with the mini world's 1 a forgotten scale would not be seen."""
    pipe.vae.register_to_config(scaling_factor=0.7)
    return pipe


def _cogvideox_2b() -> CogVideoXPipeline:
    return _with_a_scale(build_tiny_pipeline(seed=0))


def _cogvideox_5b() -> CogVideoXPipeline:
    return _with_a_scale(build_tiny_pipeline(seed=0, rotary=True))


def _cogvideox_1_5() -> CogVideoXPipeline:
    """Rotary positions and patches over two latent frames, as in CogVideoX 1.5."""
    pipe = _cogvideox_5b()
    config = {**pipe.transformer.config, "patch_size_t": 2}
    pipe.register_modules(transformer=CogVideoXTransformer3DModel.from_config(config).eval())
    return pipe


VIDEO_MODELS: dict[str, Callable[[], DiffusionPipeline]] = {
    "cogvideox-2b": _cogvideox_2b,
    "cogvideox-5b": _cogvideox_5b,
    "cogvideox-1.5": _cogvideox_1_5,
}
