"""What `cache_videos` takes in memory as the dataset grows: small clips, a tiny model, each run in a fresh process.

Prints `cache_memory_ratio`: anonymous memory at its highest with 10 N clips, over that with N (N is the argument, 100 by
default).
"""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.store.manifest import write_rows
from lift_trl.store.video_io import write_video


SIZE = 32


def write_clips(folder: Path, num_clips: int) -> Path:
    """Rated clips of nine frames, each with a prompt of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(num_clips):
        frames = np.broadcast_to(rng.integers(0, 255, (9, 1, 1, 3), dtype=np.uint8), (9, SIZE, SIZE, 3))
        write_video(folder / f"{index}.mp4", frames, fps=8)
        rows.append({"file_name": f"{index}.mp4", "prompt": f"clip {index}", "reward": 0.5})
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def anonymous_mb() -> float:
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split("RssAnon:")[1].split()[0]) / 1024


def peak_mb(pipeline: Path, clips: Path, output_dir: Path) -> float:
    """The highest RssAnon of a fresh process while it encodes `clips`."""
    call = [sys.executable, __file__, str(pipeline), str(clips), str(output_dir)]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def _measure(pipeline: str, clips: str, output_dir: str) -> None:
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cache_videos(pipeline, clips, output_dir, num_frames=9, height=SIZE, width=SIZE, rows_per_shard=20)
    done.set()
    watcher.join()
    print(peak)


def main(num_clips: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build_tiny_pipeline(root / "pipeline", size=SIZE)
        few, many = (
            peak_mb(root / "pipeline", write_clips(root / f"{count}", count), root / f"cache_{count}")
            for count in (num_clips, 10 * num_clips)
        )
        print(f"cache_memory_mb: {few:.0f} with {num_clips} clips, {many:.0f} with {10 * num_clips}")
        print(f"cache_memory_ratio: {many / few:.3f}")


if __name__ == "__main__":
    _measure(*sys.argv[1:]) if len(sys.argv) == 4 else main(int(sys.argv[1]) if len(sys.argv) == 2 else 100)
