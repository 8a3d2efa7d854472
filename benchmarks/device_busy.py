"""How much of the time the device is busy in caching, generation and scoring, with a device that only sleeps.

No GPU is used or measured: where one would compute, the process sleeps twice as long as a clip takes to decode (or to
write). Files, decoding, processing, x264, hashing and Parquet are the project's own. Prints `device_busy_<stage>`: time
slept over the time from the first sleep to the end of the last, and beside it what one thread alone would reach. `--tiny` is
a matter of seconds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from lift_trl.alignment.data import cache
from lift_trl.alignment.data.clips import ClipSize, load_clip
from lift_trl.alignment.sampling import generate
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings
from lift_trl.mini.checkpoints import WEIGHTS, build_tiny_pipeline
from lift_trl.records import LatentPosterior
from lift_trl.store.manifest import write_rows
from lift_trl.store.video_io import write_video
from lift_trl.video_models import PipelineSource, open_pipeline


class SleepingDevice:
    """Sleeps in place of computing, and remembers when."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begun, self.ended, self.runs = seconds, 0.0, 0.0, 0

    def run(self) -> None:
        """One clip's work."""
        self.begun = self.begun or time.monotonic()
        time.sleep(self.seconds)
        self.ended, self.runs = time.monotonic(), self.runs + 1

    @property
    def busy(self) -> float:
        """Part of the time that it slept."""
        return self.runs * self.seconds / (self.ended - self.begun)


def write_clips(folder: Path, number: int, size: tuple[int, int, int]) -> None:
    """Clips of a pattern that moves."""
    ground = np.random.default_rng(0).integers(0, 255, (*size[1:], 3), dtype=np.uint8)
    for index in range(number):
        frames = np.stack([np.roll(ground, index + 3 * frame, axis=1) for frame in range(size[0])])
        write_video(folder / f"{index}.mp4", frames, fps=8)
    rows = [{"id": f"{i}", "file_name": f"{i}.mp4", "prompt": f"clip {i}", "reward": 0.5} for i in range(number)]
    write_rows(folder / "metadata.jsonl", rows)


def seconds_of(work: Callable[[], Any]) -> float:
    """The median of three runs."""
    times = []
    for _ in range(3):
        start = time.monotonic()
        work()
        times.append(time.monotonic() - start)
    return sorted(times)[1]


def caching(source: PipelineSource, clips: Path, size: tuple[int, int, int], out: Path) -> SleepingDevice:
    """`cache_videos`, where the VAE sleeps."""
    shape = ClipSize(*size, source.adapter.fps)
    device = SleepingDevice(2 * seconds_of(lambda: load_clip(clips / "0.mp4", shape, source.adapter)))
    latents = torch.zeros(1, (size[0] - 1) // 4 + 1, 16, size[1] // 8, size[2] // 8)  # as of the real CogVideoX

    def encode(pipe: Any, clip: torch.Tensor) -> LatentPosterior:
        device.run()
        return LatentPosterior(latents, latents)

    # A clip is scaled to floats where the VAE is: on the device too.
    with patch.object(source.adapter, "encode_video", encode), patch.object(cache, "scaled", lambda clip: clip):
        cache.cache_videos(source, str(clips), out, num_frames=size[0], height=size[1], width=size[2])
    return device


def generation(source: PipelineSource, number: int, size: tuple[int, int, int], out: Path) -> SleepingDevice:
    """`generate_videos`, where the sampler sleeps."""
    frames = np.random.default_rng(0).integers(0, 255, (1, *size, 3), dtype=np.uint8)
    device = SleepingDevice(2 * seconds_of(lambda: write_video(out / "one.mp4", frames[0], fps=8)))

    def sample(*_: Any) -> np.ndarray:
        device.run()
        return frames

    sampling = Sampling(*size, num_inference_steps=2, guidance_scale=1.0)
    with patch.object(generate, "sample_batch", sample):
        generate.generate_videos(source, generate.plan_videos(["a"], videos_per_prompt=number), out, sampling=sampling)
    return device


def scoring(clips: Path, out: Path) -> SleepingDevice:
    """`score_videos` with a `LiFTCritic`, where its model sleeps."""
    critic = LiFTCritic.from_pretrained(WEIGHTS / "vlm", batch_size=2)
    critic.settings = CriticSettings(num_frames=8)
    work = [(clips / "0.mp4", "a"), (clips / "1.mp4", "b")]
    device = SleepingDevice(2 * seconds_of(lambda: critic._prepare(work)))
    judge, answers = critic._judge, []

    def sleeping(encoded: Any, with_reason: bool) -> Any:
        answers[:] = answers or judge(encoded, with_reason)  # once, for the form of an answer
        device.run()
        return answers[: len(encoded.trees)]

    with patch.object(critic, "_judge", sleeping):
        score_videos(critic, clips, out, batch_size=2)
    return device


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="Few small clips.")
    args = parser.parse_args()
    number, size = (6, (9, 64, 96)) if args.tiny else (40, (49, 240, 360))
    with tempfile.TemporaryDirectory() as folder:
        clips, out = Path(folder) / "clips", Path(folder)
        write_clips(clips, number, size)
        source = open_pipeline(build_tiny_pipeline(seed=0))
        for name, device in (
            ("cache", caching(source, clips, size, out / "cache")),
            ("generate", generation(source, number, size, out / "generated")),
            ("score", scoring(clips, out / "scored")),
        ):
            print(f"device_busy_{name} {device.busy:.2f} (one thread alone: {2 / 3:.2f}; {device.runs} runs)")


if __name__ == "__main__":
    main()
