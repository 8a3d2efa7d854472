"""One line a family: a name and a builder of a tiny real pipeline. A new adapter is checked by adding one."""

from collections.abc import Callable

from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel, DiffusionPipeline

from lift_trl.mini.checkpoints import build_tiny_pipeline


def _cogvideox_2b() -> CogVideoXPipeline:
    return build_tiny_pipeline(seed=0)


def _cogvideox_5b() -> CogVideoXPipeline:
    return build_tiny_pipeline(seed=0, rotary=True)


def _cogvideox_1_5() -> CogVideoXPipeline:
    """Rotary positions and patches over two latent frames, as in CogVideoX 1.5."""
    pipe = build_tiny_pipeline(seed=0, rotary=True)
    config = {**pipe.transformer.config, "patch_size_t": 2}
    pipe.register_modules(transformer=CogVideoXTransformer3DModel.from_config(config).eval())
    return pipe


VIDEO_MODELS: dict[str, Callable[[], DiffusionPipeline]] = {
    "cogvideox-2b": _cogvideox_2b,
    "cogvideox-5b": _cogvideox_5b,
    "cogvideox-1.5": _cogvideox_1_5,
}
