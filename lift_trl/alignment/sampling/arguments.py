"""How a command line asks for videos. Read before anything is loaded."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...documented import documented
from ...kernels import AttentionKernel, CompileBackend
from ...store.quantization import Quantization


if TYPE_CHECKING:
    from .settings import Sampling


class SizeAndArithmetic(Protocol):
    """What the settings of a training say too: see `Sampling`."""

    num_frames: int | None
    height: int | None
    width: int | None
    quantization: Quantization | None
    compile_blocks: CompileBackend | None
    attention_kernel: AttentionKernel | None
    tf32: bool | None


@documented
@dataclass(kw_only=True)
class SamplerArguments:
    """
    How videos are sampled, beside their size and the arithmetic of the denoising network.

    Args:
        num_inference_steps (`int`, *optional*, defaults to `50`):
            Steps of the sampler.
        guidance_scale (`float` or `None`, *optional*, defaults to `None`):
            Classifier-free guidance, by default the family's; 1 or less does without.
        negative_prompt (`str` or `None`, *optional*, defaults to `None`):
            What guidance leads away from; by default the family's own text, if any.
        scheduler (`str` or `None`, *optional*, defaults to `None`):
            A scheduler class of diffusers instead of the checkpoint's own; its steps trail.
        pipeline_options (`dict[str, Any]` or `str`, *optional*, defaults to `{}`):
            Further arguments of the pipeline's call, as JSON or in a YAML.
        enlarge (`int`, *optional*, defaults to `1`):
            Store each pixel as so many by so many (tiny videos).
        first_block_cache (`float` or `None`, *optional*, defaults to `None`):
            Steps whose first block changes by less reuse the other blocks; 0.05 is usual.
        vae_tiling (`bool` or `None`, *optional*, defaults to `None`):
            Decode in tiles, which saves memory; by default above 256 x 256 pixels.
    """

    num_inference_steps: int = 50
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    scheduler: str | None = None
    pipeline_options: dict[str, Any] | str = field(default_factory=dict)
    enlarge: int = 1
    first_block_cache: float | None = None
    vae_tiling: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        """`pipeline_options`, read where they are JSON."""
        given = self.pipeline_options
        return given if isinstance(given, dict) else dict(json.loads(given))

    def sampling(self, rest: SizeAndArithmetic, *, batch_size: int) -> "Sampling":
        """
        All of it.

        Raises:
            ValueError: for what is not allowed, or not together.
        """
        from .settings import Sampling  # with diffusers behind it: not for `--help`

        return Sampling(
            num_frames=rest.num_frames,
            height=rest.height,
            width=rest.width,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            negative_prompt=self.negative_prompt,
            scheduler=self.scheduler,
            pipeline_options=self.options,
            batch_size=batch_size,
            enlarge=self.enlarge,
            quantization=rest.quantization,
            first_block_cache=self.first_block_cache,
            compile_blocks=rest.compile_blocks,
            attention_kernel=rest.attention_kernel,
            tf32=rest.tf32,
            vae_tiling=self.vae_tiling,
        )
