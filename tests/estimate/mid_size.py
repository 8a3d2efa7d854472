"""A CogVideoX of tens of millions of parameters whose step is run in earnest.

`python mid_size.py BATCH CHECKPOINTING SETTINGS`, the last as JSON, prints what a later step of the trainer took, in bytes:
everything that the process has more at its highest point than before the trainer loaded the model.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel, ConfigMixin
from peft import LoraConfig
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

from lift_trl.alignment.data.clips import ClipSize
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.estimate.stages.stand_in import write_cache
from lift_trl.estimate.stages.video import VideoStages
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.video_models import open_pipeline


SIZE = ClipSize(9, 96, 128, 8.0)
LORA = {"r": 48, "lora_alpha": 16}


def build_pipeline(num_layers: int = 6, heads: int = 12):
    """The tiny pipeline around a transformer of 51 million parameters, float32."""
    pipe = build_tiny_pipeline(size=96, num_frames=9, num_layers=1)
    own = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    config = {**own, "num_layers": num_layers, "num_attention_heads": heads}
    config |= {"attention_head_dim": 64, "sample_height": 24, "sample_width": 32, "time_embed_dim": 256}
    # Not `from_config`: what was a default of the tiny one would be the class's again.
    pipe.transformer = CogVideoXTransformer3DModel(**config)
    return pipe


def save_configs(pipe, folder: Path) -> Path:
    """The configuration files alone."""
    pipe.save_config(folder)
    for name, part in pipe.components.items():
        if isinstance(part, PreTrainedModel):
            part.config.save_pretrained(folder / name)
        elif isinstance(part, ConfigMixin):
            part.save_config(folder / name)
    return folder


def settings(folder: Path, batch: int, checkpointing: bool, **more) -> RewardWeightedVideoConfig:
    return RewardWeightedVideoConfig(
        str(folder), per_device_train_batch_size=batch, activation_checkpointing=checkpointing, max_steps=2,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=100, optim="adamw_torch",
        **more,
    )  # fmt: skip


def resident(name: str) -> int:
    """`VmRSS` or `VmHWM` of this process, bytes."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


class Watch(TrainerCallback):
    """The highest point of the second step."""

    highest = 0

    def on_step_begin(self, args, state, control, **kwargs):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew

    def on_step_end(self, args, state, control, **kwargs):
        self.highest = resident("VmHWM")


def run(pipe, folder: Path, batch: int, checkpointing: bool, shapes, **more) -> Watch:
    source = open_pipeline(pipe)
    write_cache(folder / "cache", source, SIZE, 6 * batch, shapes, torch.float32)
    watch, dataset = Watch(), CachedVideoDataset(folder / "cache")
    trainer = RewardWeightedVideoTrainer(
        source, settings(folder, batch, checkpointing, **more), train_dataset=dataset,
        peft_config=LoraConfig(**LORA), callbacks=[watch],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return watch


def main(batch: int, checkpointing: bool, more: dict[str, str]) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = build_pipeline(num_layers=1, heads=1)
        shapes = VideoStages(str(save_configs(small, folder / "small")), SIZE).shapes
        run(small, folder / "warm", 1, checkpointing, shapes, **more)  # libraries and their workspaces
        pipe = build_pipeline()
        before = resident("VmRSS")  # the trainer makes a copy of it
        watch = run(pipe, folder / "measured", batch, checkpointing, shapes, **more)
    print(json.dumps({"bytes": watch.highest - before}))


if __name__ == "__main__":
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") != "65536":  # what is freed must leave the process
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})
    main(int(sys.argv[1]), sys.argv[2] == "true", json.loads(sys.argv[3]))
