"""Our trainer against diffusers' own CogVideoX LoRA script, which you point to; nothing of it is kept here.

    python -m benchmarks.other_trainers DIFFUSERS/examples/cogvideo/train_cogvideox_lora.py

Both train a LoRA of rank 16 on a CogVideoX of 10 M parameters (float32, CPU, one thread), batches of 2 clips of 17x128x192,
by their command lines. A step is what a longer run takes more than a shorter one. Prints CPU seconds (user + sys) a step and
before the first one (the cache, which ours makes once, by itself), and peak memory, with ratios: ours over theirs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.device_busy import write_clips
from benchmarks.quantized_base import build


ROOT = Path(__file__).resolve().parents[1]
SIZE = (17, 128, 192)
# The script reads clips by decord, which is no longer made: what it asks of it, by PyAV.
DECORD = """
import av, torch
class bridge:
    set_bridge = staticmethod(lambda name: None)
class VideoReader:
    def __init__(self, uri):
        with av.open(uri) as file:
            self.frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    def __len__(self):
        return len(self.frames)
    def get_batch(self, places):
        return torch.stack([torch.from_numpy(self.frames[place]) for place in places])
"""


class Cost(NamedTuple):
    """Of one run: CPU seconds (user + sys), and the most memory that it had, MB."""

    seconds: float
    peak_mb: float


def run(script: Path | str, *options: str, path: Path | None = None) -> Cost:
    """A python script by itself."""
    paths = [str(ROOT), *([str(path)] if path else [])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(script), *options]
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)  # what is printed here are figures
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{script} ended with {os.waitstatus_to_exitcode(status)}.")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("script", type=Path, help="train_cogvideox_lora.py of diffusers' examples.")
    parser.add_argument("--steps", type=int, nargs=2, default=(2, 8), help="Steps of the shorter and the longer run.")
    parser.add_argument("--clips", type=int, default=8, help="Clips to train on.")
    args = parser.parse_args()
    few, many = args.steps
    frames, height, width = map(str, SIZE)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        model = build(folder / "model", num_layers=6, num_heads=6)
        write_clips(folder / "clips", args.clips, SIZE)
        (folder / "clips" / "prompts.txt").write_text(
            "".join(f"clip {i}\n" for i in range(args.clips)), encoding="utf-8"
        )
        (folder / "clips" / "videos.txt").write_text(
            "".join(f"{i}.mp4\n" for i in range(args.clips)), encoding="utf-8"
        )
        (folder / "decord.py").write_text(DECORD, encoding="utf-8")

        def theirs(steps: int) -> Cost:
            data = [
                "--instance_data_root",
                str(folder / "clips"),
                "--caption_column",
                "prompts.txt",
                "--video_column",
                "videos.txt",
            ]
            size = ["--max_num_frames", frames, "--height", height, "--width", width]
            training = [
                "--train_batch_size",
                "2",
                "--max_train_steps",
                str(steps),
                "--optimizer",
                "adamw",
                "--rank",
                "16",
            ]
            base = ["--pretrained_model_name_or_path", str(model), "--output_dir", str(folder / "theirs")]
            return run(args.script, *base, *data, *size, *training, "--mixed_precision", "no", path=folder)

        def ours(steps: int) -> Cost:
            base = ["--model_name_or_path", str(model), "--cache", str(folder / "cache")]
            training = ["--per_device_train_batch_size", "2", "--max_steps", str(steps), "--lora_r", "16"]
            out = ["--output_dir", str(folder / f"ours{steps}"), "--save_strategy", "no", "--report_to", "none"]
            return run(ROOT / "recipes" / "align.py", *base, *training, *out)

        size = ["--num_frames", frames, "--height", height, "--width", width]
        base = ["--model_name_or_path", str(model), "--output_dir", str(folder / "cache")]
        cache = run(ROOT / "recipes" / "cache.py", *base, "--videos", str(folder / "clips"), *size)
        costs = {name: (train(few), train(many)) for name, train in (("ours", ours), ("theirs", theirs))}
    step = {name: (b.seconds - a.seconds) / (many - few) for name, (a, b) in costs.items()}
    start = {name: a.seconds - few * step[name] for name, (a, _) in costs.items()}
    peak = {name: b.peak_mb for name, (_, b) in costs.items()}
    print("| | ours | theirs | ratio |\n|---|---|---|---|")
    for what, values in (("CPU s a step", step), ("CPU s before the first step", start), ("peak MB", peak)):
        print(f"| {what} | {values['ours']:.2f} | {values['theirs']:.2f} | {values['ours'] / values['theirs']:.2f} |")
    print(f"cache_once_cpu_s {cache.seconds:.1f}")


if __name__ == "__main__":
    main()
