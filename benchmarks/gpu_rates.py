"""A card's rates for `lift-trl estimate --rates`, measured on layers of CogVideoX-2B for `benchmarks/gpu.py`."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from torch.nn import functional as F
from transformers import TrainerCallback

from lift_trl.estimate.gpus import Gpu, load_gpus
from lift_trl.estimate.weightless.meter import linear, metering


@dataclass(frozen=True)
class Measured:
    """Seconds of a run, and at its highest the bytes of tensors and those that torch held; `None` on a CPU."""

    seconds: float
    allocated: int | None = None
    reserved: int | None = None


class Clock(TrainerCallback):
    """Times what a device does, a trainer's steps for one, and its highest point of memory meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu, self.seconds, self.begun = device.type == "cuda", list[float](), 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.begun = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.begun)

    def measured(self) -> Measured:
        """The median of all runs but the first, which warms up; the memory of the last."""
        seconds = median(self.seconds[1:])
        if not self.on_gpu:
            return Measured(seconds)
        return Measured(seconds, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())

    def run(self, work: Callable[[], Any], times: int) -> Measured:
        """`work` once to warm up, and so many times more."""
        for _ in range(1 + times):
            self.on_step_begin()
            work()
            self.on_step_end()
        return self.measured()


def probes(tiny: bool) -> dict[str, Callable[[], Callable[[], Any]]]:
    """For each kind of work: makes the tensors of a layer of CogVideoX-2B, and gives what computes with them."""
    tokens, heads, channels = (256, 2, 16) if tiny else (17776, 30, 128)
    pixels = (4, 24, 32) if tiny else (10, 480, 720)

    def attention() -> Callable[[], Any]:
        q, k, v = (torch.randn(1, heads, tokens, 64, requires_grad=True) for _ in range(3))
        return lambda: torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), (q, k, v), v.detach())

    def matmul() -> Callable[[], Any]:
        hidden = torch.randn(tokens, 64 * heads, requires_grad=True)
        weight, grad = torch.randn(256 * heads, 64 * heads), torch.randn(tokens, 256 * heads)
        return lambda: torch.autograd.grad(F.linear(hidden, weight), hidden, grad)

    def conv() -> Callable[[], Any]:
        video, weight = torch.randn(1, channels, *pixels), torch.randn(channels, channels, 3, 3, 3)
        return lambda: F.conv3d(video, weight)

    def traffic() -> Callable[[], Any]:
        hidden = torch.randn(tokens, 256 * heads)
        return lambda: F.gelu(F.layer_norm(hidden, hidden.shape[-1:])) + hidden

    return {"attention": attention, "matmul": matmul, "conv": conv, "traffic": traffic}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors made here are of `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def measure_rates(name: str, device: torch.device, tiny: bool) -> Gpu:
    """The card: TFLOP/s and TB/s of each kind of work, as the meter counts it."""
    rates = {}
    for kind, build in probes(tiny).items():
        with default_dtype(torch.bfloat16), metering() as meter:
            run, built = build(), meter.count()
            run()
            work = linear([(1.0, meter.count()), (-1.0, built)])
        with default_dtype(torch.bfloat16), device:
            seconds = Clock(device).run(build(), 10).seconds
        done = work.traffic_bytes if kind == "traffic" else getattr(work, f"{kind}_flops")
        rates[kind] = done / seconds / 1e12
    on_gpu = device.type == "cuda"
    memory = torch.cuda.mem_get_info()[1] if on_gpu else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known = load_gpus().get(name)
    return Gpu(name, memory / 1e9, **rates, price=known.price if known else 0.0, source="measured")


def write_rates(gpu: Gpu, device: str, out: Path) -> None:
    """The file that `--rates` reads."""
    rates = {key: value for key, value in asdict(gpu).items() if key != "name"}
    out.mkdir(parents=True, exist_ok=True)
    (out / "rates.yaml").write_text(
        f"# {device}, torch {torch.__version__}\n" + yaml.safe_dump({gpu.name: rates}, sort_keys=False),
        encoding="utf-8",
    )
    print(f"{gpu.name}: " + ", ".join(f"{key} {value}" for key, value in rates.items()), flush=True)
