"""Ten minutes on one card: how right `lift-trl estimate` is there, and the card's rates for its `--rates`.

The true CogVideoX-2B and Wan2.1-1.3B with random weights, at their own sizes of clip, in bfloat16, through the project's own
code; nothing is fetched. Each part prints peak memory and seconds, measured against counted: the seconds by the rates that
are measured first. A part that fails, or takes longer than its share, is named and passed over. `OUT/rates.yaml` is for
`lift-trl estimate --gpu NAME --rates OUT/rates.yaml`. `--tiny` runs every part on a CPU with tiny models: a check of this
script. Counting runs beside, in a process that sees no GPU.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import PartialState
from peft import LoraConfig
from transformers import PrinterCallback

from benchmarks.gpu_rates import Clock, Measured, measure_rates, write_rates
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.alignment.sampling.generate import PromptSeed, load_pipeline, sample_batch
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.estimate.gpus import Gpu
from lift_trl.estimate.plan import Job, Part
from lift_trl.estimate.planners import plan_of
from lift_trl.estimate.recipe import Recipe
from lift_trl.estimate.stages.stand_in import EncodedShapes, write_cache
from lift_trl.estimate.video_planners import video_stages
from lift_trl.estimate.weightless.configured import ConfiguredSource
from lift_trl.estimate.weightless.meter import Count, Meter
from lift_trl.mini.checkpoints import VIDEO_MODELS, WEIGHTS
from lift_trl.runtime import process_state, release_memory
from lift_trl.store.quantization import Quantization


Models = dict[str, dict[str, Any]]
Settings = tuple[tuple[str, Any], ...]
_RATES_BUDGET = 60  # seconds; with those of the parts below, ten minutes
_TRUE: Models = {"cogvideox": {"model_name_or_path": "THUDM/CogVideoX-2b"},
                 "wan": {"model_name_or_path": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}}  # fmt: skip
_TINY_SIZE = {"num_frames": 9, "height": 48, "width": 48}
_TINY: Models = {
    family: {"model_name_or_path": str(WEIGHTS / name), **_TINY_SIZE} for family, name in VIDEO_MODELS.items()
}


class RandomSource(ConfiguredSource):
    """A checkpoint's models as its configuration describes them, with random weights, on a device."""

    def __init__(self, name: str, device: torch.device) -> None:
        super().__init__(name)
        self.device, self.meter = device, Meter()  # which is never entered, so it counts nothing

    def _build(self, component: str, dtype: torch.dtype, quantization: Quantization | None) -> torch.nn.Module:
        with self.device:
            model = super()._build(component, dtype, quantization).to(self.device)
        for module in model.modules():  # a counted model has nothing in its weights
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        return model


# ---- Parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A stage of `lift-trl estimate` with settings of its YAML, clips at once, and the seconds that it may take."""

    family: str
    stage: str
    batch: int
    budget: int
    model: Settings
    own: Settings

    @property
    def name(self) -> str:
        return f"{self.family} {self.stage}, batch {self.batch}"


def works(models: Models) -> list[Work]:
    """In order of worth."""

    def work(family: str, stage: str, batch: int, budget: int, own: dict[str, Any]) -> Work:
        return Work(family, stage, batch, budget, tuple(models[family].items()), tuple(own.items()))

    lora = {"cache": "", "activation_checkpointing": True, "lora_r": 128, "lora_alpha": 128}
    return [
        work("cogvideox", "align", 1, 120, lora),
        work("cogvideox", "align", 2, 90, lora),
        work("cogvideox", "cache", 1, 60, {}),
        work("cogvideox", "generate", 1, 120, {"num_inference_steps": 4}),
        work("wan", "align", 1, 75, lora),
        work("wan", "align", 2, 75, lora),
    ]


@cache
def planned(stage: str, settings: Settings) -> Part:
    """As `lift-trl estimate` counts it, in a process that sees no GPU."""
    return plan_of(Recipe(Path(f"{stage}.yaml"), dict(settings)), Job(), stage=stage).parts[-1]


def count(work: Work) -> Count:
    found = planned(work.stage, work.model + work.own)
    return found.count if found.linear_in is None else found.linear_in[work.batch - 1]


@cache
def encoded_shapes(settings: Settings) -> EncodedShapes:
    return video_stages(dict(settings)).shapes


def measure(work: Work, shapes: EncodedShapes, folder: Path, state: PartialState) -> Measured:
    """One part in earnest."""
    settings, device = dict(work.model + work.own), state.device
    source, size = RandomSource(settings["model_name_or_path"], device), video_stages(settings).size
    dtype, clock = source.adapter.dtype, Clock(device)
    write_cache(folder / "cache", source, size, 6 * work.batch, shapes, dtype)
    dataset = CachedVideoDataset(folder / "cache")
    if work.stage == "cache":
        pipe, clip = source.load("vae", dtype=dtype), torch.zeros(1, size.num_frames, 3, size.height, size.width)
        return clock.run(lambda: source.adapter.encode_video(pipe, clip), 3)
    if work.stage == "generate":
        steps = settings["num_inference_steps"]
        sampling = Sampling(size.num_frames, size.height, size.width, steps, negative_prompt="").sized(source)
        pipe, texts = load_pipeline(source, (), sampling, dtype, state.device), dataset.text_cache()
        return clock.run(lambda: sample_batch(pipe, source, [PromptSeed("", 0)], texts, sampling, dtype, device), 1)
    args = RewardWeightedVideoConfig(
        str(folder / "run"), max_steps=4, bf16=True, use_cpu=device.type == "cpu", report_to=[], save_strategy="no",
        disable_tqdm=True, logging_steps=100, per_device_train_batch_size=work.batch, activation_checkpointing=True,
    )  # fmt: skip
    lora = LoraConfig(r=settings["lora_r"], lora_alpha=settings["lora_alpha"])
    trainer = RewardWeightedVideoTrainer(source, args, train_dataset=dataset, peft_config=lora, callbacks=[clock])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.measured()


# ---- Report -----------------------------------------------------------------------------------------------------------


@contextmanager
def attempt(name: str, seconds: int, failed: list[str]) -> Iterator[None]:
    """The body, within its time; where it fails, that is printed and its name noted."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than its {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    except (RuntimeError, TimeoutError, ValueError) as error:  # out of memory is a RuntimeError
        print(f"{name}: FAILED, {type(error).__name__}: {str(error).partition(chr(10))[0]}", flush=True)
        failed.append(name)
    finally:
        signal.alarm(0)
    release_memory()


def line(work: Work, counted: Count, measured: Measured, gpu: Gpu | None) -> str:
    """Measured against counted, of one work."""
    memory = "not measured on a CPU"
    if measured.allocated is not None and measured.reserved is not None:
        memory = f"{measured.allocated / 1e9:.3g} measured ({measured.reserved / 1e9:.3g} held by torch)"
    seconds = f"{gpu.seconds(counted):.3g}" if gpu else "no"
    return (
        f"{work.name}: {counted.peak_bytes / 1e9:.3g} GB counted, {memory}; "
        f"{seconds} s counted, {measured.seconds:.3g} measured"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for rates.yaml (default: runs/gpu)")
    parser.add_argument("--gpu", help="the card's name in rates.yaml; one that estimate knows keeps its price")
    parser.add_argument("--tiny", action="store_true", help="tiny models on a CPU: a check of this script")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs every part on a CPU")
    state, todo = process_state(use_cpu=args.tiny), works(_TINY if args.tiny else _TRUE)
    device = "a CPU at tiny sizes, no figures of any worth" if args.tiny else torch.cuda.get_device_name()
    name = args.gpu or ("tiny-cpu" if args.tiny else re.sub(r"\W+", "-", device.lower()))
    gpu, failed = None, list[str]()
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        with patch.dict(os.environ, CUDA_VISIBLE_DEVICES=""):  # for the pool's process, which starts here
            shapes = [pool.submit(encoded_shapes, work.model) for work in todo]
            counts = [pool.submit(count, work) for work in todo]
        with attempt("rates", _RATES_BUDGET, failed):
            gpu = measure_rates(name, state.device, args.tiny)
            write_rates(gpu, device, args.out)
        for work, encoded, counted in zip(todo, shapes, counts, strict=True):
            with tempfile.TemporaryDirectory() as folder, attempt(work.name, work.budget, failed):
                measured = measure(work, encoded.result(), Path(folder), state)
                signal.alarm(0)  # counting, beside the card, has time
                print(line(work, counted.result(), measured, gpu), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
