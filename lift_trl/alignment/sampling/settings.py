"""How videos are sampled: what a user chooses, with the rest filled in from the model."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from diffusers import FirstBlockCacheConfig

from ...kernels import AttentionKernel, CompileBackend, check_kernels
from ...store.quantization import Quantization, check_quantization
from ...video_models import PipelineSource
from ..data.clips import ClipSize


# Tiling bounds the memory of decoding. A small clip needs none, and tiles of a few pixels overlap to a wrong width.
TILING_PIXELS = 256 * 256


@dataclass(frozen=True)
class Sampling:
    """
    How videos are sampled and stored.

    Args:
        num_frames (`int` or `None`, *optional*, defaults to `None`):
            Frames of a video; the checkpoint's own for `None`.
        height (`int` or `None`, *optional*, defaults to `None`):
            Pixels; the checkpoint's own for `None`.
        width (`int` or `None`, *optional*, defaults to `None`):
            Pixels; the checkpoint's own for `None`.
        num_inference_steps (`int`, *optional*, defaults to `50`):
            Steps of the sampler.
        guidance_scale (`float` or `None`, *optional*, defaults to `None`):
            Classifier-free guidance, the family's own for `None`; 1 or less does without.
        negative_prompt (`str` or `None`, *optional*, defaults to `None`):
            What guidance leads away from, the family's own for `None`.
        scheduler (`str` or `None`, *optional*, defaults to `None`):
            A scheduler class of diffusers instead of the checkpoint's own, with its settings and trailing time steps.
        pipeline_options (`dict[str, Any]`, *optional*, defaults to `{}`):
            Further arguments of the pipeline's call, such as `{"use_dynamic_cfg": True}`.
        batch_size (`int`, *optional*, defaults to `1`):
            Videos that are sampled together. Batches are fixed by the list of videos, so it belongs to the settings: other
            batches may change the last bits.
        enlarge (`int`, *optional*, defaults to `1`):
            Each pixel is stored as so many by so many, which keeps H.264 from deciding the looks of tiny videos.
        quantization (`str` or `None`, *optional*, defaults to `None`):
            int8 or float8: the denoising network's linear layers in 8 bits; saves memory, changes the videos.
        first_block_cache (`float` or `None`, *optional*, defaults to `None`):
            The relative change of the first block's output below which a step takes what the other blocks gave in an
            earlier step; saves their time, changes the videos.
        compile_blocks (`str` or `None`, *optional*, defaults to `None`):
            Backend of torch.compile for the denoising network's blocks: inductor (minutes at the start, less time a step),
            or aot_eager and eager to look for faults.
        attention_kernel (`str` or `None`, *optional*, defaults to `None`):
            cudnn, flash, efficient or math; as torch chooses for `None`.
        tf32 (`bool` or `None`, *optional*, defaults to `None`):
            Products of float32 in TF32, on GPUs that have it.
        vae_tiling (`bool` or `None`, *optional*, defaults to `None`):
            Decode in overlapping tiles: less memory, more time. By default where a frame has more than 256 x 256 pixels.
    """

    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int = 50
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    pipeline_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    enlarge: int = 1
    quantization: Quantization | None = None
    first_block_cache: float | None = None
    compile_blocks: CompileBackend | None = None
    attention_kernel: AttentionKernel | None = None
    tf32: bool | None = None
    vae_tiling: bool | None = None

    def __post_init__(self) -> None:
        if self.quantization is not None:
            check_quantization(self.quantization)
        if self.first_block_cache is not None and not self.first_block_cache > 0:
            raise ValueError(f"first_block_cache={self.first_block_cache}; give a number above 0, such as 0.05.")
        check_kernels(self.compile_blocks, self.attention_kernel)
        if self.first_block_cache is not None and self.compile_blocks is not None:
            raise ValueError(
                "compile_blocks and first_block_cache both change how blocks are called: give one of them."
            )
        for name in ("num_inference_steps", "batch_size", "enlarge"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give 1 or more.")

    def sized(self, source: PipelineSource) -> "Sampling":
        """With all filled in that was left to the model; its family has checked the size."""
        model = source.adapter
        size = ClipSize.of(model, self.num_frames, self.height, self.width, None)
        return replace(
            self,
            num_frames=size.num_frames,
            height=size.height,
            width=size.width,
            guidance_scale=model.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            negative_prompt=model.negative_prompt if self.negative_prompt is None else self.negative_prompt,
        )

    @property
    def key(self) -> str:
        """What of this decides a video's bytes, as JSON. Options that came later stand in it where they are set."""
        later = ("quantization", "first_block_cache", "compile_blocks", "attention_kernel", "tf32", "vae_tiling")
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None or k not in later}, sort_keys=True)

    @property
    def is_tiled(self) -> bool:
        """Whether a video of this size, which is filled in, is decoded in tiles."""
        assert self.height is not None and self.width is not None
        return self.height * self.width > TILING_PIXELS if self.vae_tiling is None else self.vae_tiling

    @property
    def is_guided(self) -> bool:
        """Whether the negative prompt plays a part."""
        return self.guidance_scale is None or self.guidance_scale > 1


@contextmanager
def reusing_blocks(pipe: Any, networks: Sequence[str], threshold: float | None) -> Iterator[None]:
    """
    The networks of `pipe` with `Sampling.first_block_cache` on, made anew: no video depends on the one before it.

    Source: ParaAttention's first-block cache, as in diffusers.
    """
    cached = [getattr(pipe, name) for name in networks] if threshold is not None else []
    for network in cached:
        network.enable_cache(FirstBlockCacheConfig(threshold))
    try:
        yield
    finally:
        for network in cached:
            network.disable_cache()
