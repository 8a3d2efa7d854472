"""Small real things to train on: a tiny CogVideoX checkpoint, rendered clips, and a cache of them."""

import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.records import RatedVideo
from lift_trl.rubric import Dimension, Label
from lift_trl.store.video_io import write_video
from lift_trl.video_models import StoredPipeline


SIZE = {"num_frames": 9, "height": 32, "width": 32}
GOOD, NORMAL, BAD = Label.GOOD, Label.NORMAL, Label.BAD
#: Labels of the six sampled clips (semantic, motion, fidelity), and their rewards by equation 2.
LABELS = [
    (GOOD, GOOD, GOOD),
    (GOOD, GOOD, BAD),
    (BAD, NORMAL, BAD),
    (GOOD, NORMAL, NORMAL),
    (BAD, BAD, BAD),
    (GOOD, GOOD, GOOD),
]
REWARDS = [0.9, (0.9 + 0.9 + 0.05) / 3, (0.05 + 0.2 + 0.05) / 3, (0.9 + 0.2 + 0.2) / 3, 0.05, 0.9]


def moving_square(path: Path, seed: int, *, num_frames: int = 9, size: int = 32, fps: float = 8) -> Path:
    """An mp4 of a square that moves over a coloured ground."""
    rng = np.random.default_rng(seed)
    frames = np.empty((num_frames, size, size, 3), dtype=np.uint8)
    frames[:] = rng.integers(0, 90, 3)
    colour, x, y = rng.integers(128, 255, 3), int(rng.integers(0, size // 2)), int(rng.integers(0, size // 2))
    for index in range(num_frames):
        left = min(x + index, size - 8)
        frames[index, y : y + 8, left : left + 8] = colour
    write_video(path, frames, fps=fps)
    return path


class WatchedSource(StoredPipeline):
    """A source that remembers what was loaded, and allows no load while a network of an earlier one is in memory."""

    def __init__(self, model) -> None:
        super().__init__(model)
        self.loads: list[tuple[str, ...]] = []
        self._networks: list[weakref.ref] = []

    def in_memory(self) -> list[str]:
        """Classes of the loaded networks that are not freed."""
        return [type(ref()).__name__ for ref in self._networks if ref() is not None]

    def load(self, *components, **options):
        assert self.in_memory() == []
        pipe = super().load(*components, **options)
        self.loads.append(components)
        parts = [pipe.components[name] for name in components]
        self._networks += [weakref.ref(part) for part in parts if isinstance(part, torch.nn.Module)]
        return pipe


def lora_metadata(file: Path) -> dict:
    """The adapter configuration (`transformer.r`, `transformer.lora_alpha`, ...) that a diffusers LoRA file carries."""
    with safe_open(file, framework="pt") as content:
        return json.loads(content.metadata()["lora_adapter_metadata"])


@pytest.fixture(scope="session")
def pipeline_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    # Latents are scaled, as in all released checkpoints.
    pipe = build_tiny_pipeline(seed=0)
    pipe.vae.register_to_config(scaling_factor=0.7)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rated_videos(tmp_path_factory) -> list[RatedVideo]:
    """Six sampled clips on three prompts, and two real ones."""
    folder = tmp_path_factory.mktemp("clips")
    prompts = ["a red circle moving left", "a blue square moving up", "a green triangle moving down"]
    videos = [
        RatedVideo(f"clip-{i}", moving_square(folder / f"{i}.mp4", i), prompts[i % 3], dict(zip(Dimension, labels)))
        for i, labels in enumerate(LABELS)
    ]
    videos += [
        RatedVideo(f"real-{i}", moving_square(folder / f"real-{i}.mp4", 90 + i), prompts[i], is_real=True)
        for i in range(2)
    ]
    return videos


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory, pipeline_dir, rated_videos) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "train"
    return cache_videos(pipeline_dir, rated_videos, folder, **SIZE, rows_per_shard=3)


@pytest.fixture
def cached(cache_dir) -> CachedVideoDataset:
    return CachedVideoDataset(cache_dir)


def make_trainer(
    pipeline,
    output_dir: Path,
    dataset,
    *,
    peft_config="default",
    eval_dataset=None,
    adapter=None,
    objective_of_own=None,
    callbacks=None,
    **overrides,
) -> RewardWeightedVideoTrainer:
    """A trainer on the tiny checkpoint: LoRA with alpha != r, no trackers, a batch of four."""
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        **overrides,
    }
    if peft_config == "default":
        peft_config = LoraConfig(r=4, lora_alpha=16)
    return RewardWeightedVideoTrainer(
        pipeline,
        RewardWeightedVideoConfig(str(output_dir), **settings),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        callbacks=callbacks,
        peft_config=peft_config,
        adapter=adapter,
        objective=objective_of_own,
    )


def trainable(trainer) -> dict:
    """Copies of the trainable parameters."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
