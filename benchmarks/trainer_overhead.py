"""What the trainer costs beside the model: its steps against a bare PyTorch loop over the same cached batches.

Prints ratios within one run: `ratio` (trainer's steps a second over the bare loop's, median of alternated runs),
`read_share` (reading and collating the cache, as a share of a step) and `memory_ratio` (anonymous memory after a pass
over 10,000 small cached rows, over that with 100).
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peft import LoraConfig
from transformers import PrinterCallback

from lift_trl.alignment.data.cache import CacheKeys, encoding_dtype
from lift_trl.alignment.data.cache_format import (
    ENCODING_VERSION,
    SCHEMA,
    SHARDS_DIR,
    TEXT_DIR,
    tensor_bytes,
    text_columns,
)
from lift_trl.alignment.data.clips import ClipSize
from lift_trl.alignment.data.text_cache import TextCache
from lift_trl.alignment.data.video_dataset import CachedVideoDataset, collate
from lift_trl.alignment.objectives import per_sample_loss
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.reward_weighted_trainer import RewardWeightedVideoTrainer
from lift_trl.alignment.training.draws import draw_rows
from lift_trl.engines import Processes
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.records import content_id
from lift_trl.runtime import process_state
from lift_trl.store.manifest import METADATA_FILE, Artifact, write_rows
from lift_trl.video_models import open_pipeline


SIZE = ClipSize(9, 64, 64, 8.0)
BATCH, STEPS, ROUNDS, MEMORY_ROUNDS = 32, 6, 5, 3
ROWS_PER_SHARD = 100


def write_cache(folder: Path, pipeline: Path, num_rows: int) -> Path:
    """A finished cache of `num_rows` random posteriors; what a VAE would write, without waiting for one."""
    source = open_pipeline(pipeline)
    keys = CacheKeys.of(source, SIZE, encoding_dtype(source, process_state().device.type))
    TextCache(folder / TEXT_DIR, keys.text).embed(source, [""], Processes(process_state()), keys.dtype)
    text = TextCache(folder / TEXT_DIR, keys.text).stored("")
    generator = torch.Generator().manual_seed(0)
    (folder / SHARDS_DIR).mkdir(parents=True)
    rows = []
    for first in range(0, num_rows, ROWS_PER_SHARD):
        shard = []
        for index in range(first, min(first + ROWS_PER_SHARD, num_rows)):
            latent = torch.randn(3, 8, 16, 16, generator=generator)
            key = content_id(index)
            rows.append({"id": key, "key": key, "prompt": "", "is_real": False, "labels": None, "reward": 0.5})
            shard.append(
                {"key": key, "prompt": "", "latent_mean": tensor_bytes(latent), "latent_logvar": tensor_bytes(latent - 6),
                 "latent_shape": list(latent.shape), **text_columns(text if index == first else None)}
            )  # fmt: skip
        table = pa.Table.from_pylist(shard, schema=SCHEMA)
        path = folder / SHARDS_DIR / f"{content_id('shard', first)}.parquet"
        pq.write_table(table, path, compression="NONE", use_dictionary=False, row_group_size=10)
    write_rows(folder / METADATA_FILE, rows)
    config = {
        "num_frames": SIZE.num_frames,
        "height": SIZE.height,
        "width": SIZE.width,
        "fps": SIZE.fps,
        "encoding_version": ENCODING_VERSION,
        "dtype": "float32",
        "num_generated": num_rows,
        "num_real": 0,
    }
    Artifact("cache", {**config, "text_fingerprint": keys.text, "video_fingerprint": keys.video}).save(folder)
    return folder


def make_trainer(pipeline: Path, cache: Path, output_dir: Path, max_steps: int) -> RewardWeightedVideoTrainer:
    args = RewardWeightedVideoConfig(
        str(output_dir), max_steps=max_steps, per_device_train_batch_size=BATCH, report_to="none", save_strategy="no",
        logging_steps=STEPS, disable_tqdm=True,
    )  # fmt: skip
    trainer = RewardWeightedVideoTrainer(
        pipeline, args, train_dataset=CachedVideoDataset(cache), peft_config=LoraConfig(r=16, lora_alpha=16)
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trainer_seconds(pipeline: Path, cache: Path, output_dir: Path) -> float:
    """Seconds of a step of the trainer, start-up left out: between the ends of its first and last step."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: object, **kwargs: object) -> None:
            ends.append(time.perf_counter())

    trainer = make_trainer(pipeline, cache, output_dir, STEPS + 1)
    trainer.add_callback(Clock())
    trainer.train()
    return (ends[-1] - ends[0]) / STEPS


def bare_seconds(pipeline: Path, cache: Path, output_dir: Path) -> float:
    """Seconds of a step of a plain loop that does the same arithmetic on batches that are in memory."""
    trainer = make_trainer(pipeline, cache, output_dir, 1)
    model, adapter, scheduler = trainer.model.train(), trainer.video_model, trainer.scheduler
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    dataset = trainer.train_dataset
    batches = [collate([dataset[(i * BATCH + k) % len(dataset)] for k in range(BATCH)]) for i in range(STEPS + 1)]
    ends = []
    for step, batch in enumerate(batches):
        draws = draw_rows(
            batch["id"], batch["latent_mean"].shape[1:], key=(0, step), num_timesteps=1000, caption_dropout=0.1
        )
        std = torch.exp(0.5 * batch["latent_logvar"].float())
        latents = batch["latent_mean"].float() + std * draws.posterior_noise
        noisy = adapter.corrupt(scheduler, latents, draws.noise, draws.timesteps)
        loss = (batch["weight"] * per_sample_loss(adapter.predict(model, noisy, batch["text"]), noisy.target)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / STEPS


def read_seconds(cache: Path) -> float:
    """Seconds to read and collate one batch."""
    dataset = CachedVideoDataset(cache)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    times = []
    for first in range(0, len(order) - BATCH, BATCH):
        start = time.perf_counter()
        collate(dataset.__getitems__(order[first : first + BATCH]))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def anonymous_mb(pipeline: Path, cache: Path, output_dir: Path) -> float:
    """RssAnon of a fresh process after training steps and 10,000 reads."""
    call = [sys.executable, __file__, json.dumps([str(pipeline), str(cache), str(output_dir)])]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def _measure_memory(pipeline: str, cache: str, output_dir: str) -> None:
    trainer = make_trainer(Path(pipeline), Path(cache), Path(output_dir), 2)
    trainer.train()
    for index in range(10_000):
        trainer.train_dataset[index % len(trainer.train_dataset)]
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(status.split("RssAnon:")[1].split()[0]) / 1024)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build_tiny_pipeline(root / "pipeline", num_layers=6, size=SIZE.height)
        small = write_cache(root / "small", root / "pipeline", 100)
        large = write_cache(root / "large", root / "pipeline", 10_000)
        pairs = [
            (
                trainer_seconds(root / "pipeline", small, root / "out"),
                bare_seconds(root / "pipeline", small, root / "out"),
            )
            for _ in range(ROUNDS)
        ]
        trainer, bare = (statistics.median(column) for column in zip(*pairs))
        # A process's memory varies by some 20 MB from run to run, so each is the median of alternated runs.
        runs = [
            [anonymous_mb(root / "pipeline", cache, root / "out") for cache in (small, large)]
            for _ in range(MEMORY_ROUNDS)
        ]
        memory = [statistics.median(column) for column in zip(*runs)]
        print(f"step_ms: {1000 * bare:.0f}")
        print(f"ratio: {statistics.median(bare / trainer for trainer, bare in pairs):.3f}")
        print(f"read_share: {read_seconds(small) / trainer:.4f}")
        print(f"memory_mb: {memory[0]:.0f} with 100 rows, {memory[1]:.0f} with 10,000")
        print(f"memory_ratio: {memory[1] / memory[0]:.3f}")


if __name__ == "__main__":
    _measure_memory(*json.loads(sys.argv[1])) if len(sys.argv) > 1 else main()
