"""Faster arithmetic for a denoising network: its blocks compiled, the kernel of its attention, TF32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


#: Backends of `torch.compile`: `inductor` makes kernels; the other two make none, and tell whether a model compiles at all.
CompileBackend = Literal["inductor", "aot_eager", "eager"]
#: `cudnn` and `flash` take half precision on a GPU, `efficient` also float32 and masks; `math` is the arithmetic itself.
AttentionKernel = Literal["cudnn", "flash", "efficient", "math"]
_KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def check_kernels(compile_blocks: str | None, attention_kernel: str | None) -> None:
    """Raises `ValueError` for what is neither `None` nor one of `CompileBackend` or `AttentionKernel`, or not for both."""
    for name, value, allowed in (
        ("compile_blocks", compile_blocks, get_args(CompileBackend)),
        ("attention_kernel", attention_kernel, get_args(AttentionKernel)),
    ):
        if value is not None and value not in allowed:
            raise ValueError(f"{name}={value!r}; give one of {', '.join(allowed)}, or leave it out.")
    if compile_blocks is not None and attention_kernel == "math":
        # torch 2.14: the backward pass that it traces takes gradients for contiguous that are not.
        raise ValueError(
            "attention_kernel='math' cannot be compiled: leave compile_blocks out, or name another kernel."
        )


def compile_blocks(network: nn.Module, backend: CompileBackend) -> None:
    """
    Compiles each block of `network` where it is: blocks are alike, so one is compiled for all, and no weight is renamed.

    (diffusers 0.42's `compile_repeated_blocks` knows not all of the families.)
    """
    for blocks in network.children():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                block.compile(backend=backend)


@contextmanager
def attending_by(kernel: AttentionKernel | None) -> Iterator[None]:
    """
    Attention by this kernel alone; as torch chooses for `None`.

    (diffusers 0.42's `set_attention_backend` does not reach CogVideoX's attention, which calls torch's itself.)

    Raises:
        ValueError: where torch refuses the kernel on this device, in this precision or with a mask.
    """
    if kernel is None:
        yield
        return
    try:
        with sdpa_kernel(_KERNELS[kernel]):
            yield
    except RuntimeError as error:
        # torch 2.14's words on a GPU and on a CPU
        if "No available kernel" not in str(error) and "No viable backend" not in str(error):
            raise
        raise ValueError(
            f"attention_kernel={kernel!r} cannot run here: this device, precision or mask is not for it. Name another one "
            f"of {', '.join(get_args(AttentionKernel))}, or leave it out."
        ) from error


@contextmanager
def in_tf32(wanted: bool | None) -> Iterator[None]:
    """Products of float32 with 10 bits of mantissa (TF32, on GPUs that have it) in the body, if `wanted`."""
    before = torch.get_float32_matmul_precision()
    if wanted:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
