"""Our trainer against another script for CogVideoX, which you point to; nothing of it is kept here.

    python -m benchmarks.other_trainers DIFFUSERS/examples/cogvideo/train_cogvideox_lora.py
    python -m benchmarks.other_trainers LIFT/CogVideo/finetune/train.py --of authors

Diffusers' script trains a LoRA, of rank 16. That of LiFT's authors (CodeGoat24/LiFT) trains the transformer's blocks, each
clip weighted by its score, and encodes clips and prompts at every step. Ours does what the other does. The model is a
CogVideoX of 10 M parameters (float32, CPU, one thread), batches have 2 clips of 17x128x192, and both run by their command
lines. A step is what a longer run takes more than a shorter one. Prints CPU seconds (user + sys) a step and before the
first one (the cache, which ours makes once, by itself; the authors' script also saves the pipeline at its end), and peak
memory, with ratios: ours over theirs.
"""

import argparse
import json
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
# Both scripts read clips by decord, which is no longer made: what they ask of it, by PyAV. They import it before the first
# step, in which the authors' brings the scores to a GPU by name: here, the CPU.
DECORD = """
import av, torch
torch.Tensor.cuda = lambda tensor: tensor
class bridge:
    set_bridge = staticmethod(lambda name: None)
class VideoReader:
    def __init__(self, uri, width=None, height=None):
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


def diffusers_options(folder: Path, clips: int) -> list[str]:
    """Clips and training as diffusers' script takes them."""
    for name, lines in (("prompts.txt", "clip {}"), ("videos.txt", "{}.mp4")):
        (folder / "clips" / name).write_text("".join(lines.format(i) + "\n" for i in range(clips)), encoding="utf-8")
    data = ["--instance_data_root", str(folder / "clips")]
    return [*data, "--caption_column", "prompts.txt", "--video_column", "videos.txt", "--rank", "16"]


def authors_options(folder: Path, clips: int) -> list[str]:
    """Clips with scores as the script of LiFT's authors takes them: `videos/`, and the last two parts of a path."""
    (folder / "videos").mkdir()
    (folder / "videos" / "clips").symlink_to(folder / "clips")
    rows = [{"caption": f"clip {i}", "video": f"clips/{i}.mp4", "score": 0.5} for i in range(clips)]
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return ["--instance_data_root", str(folder), "--data_json", str(folder / "data.json")]


#: Whose script -> its options, and those that make ours do the same.
SCRIPTS = {"diffusers": (diffusers_options, ["--lora_r", "16"]), "authors": (authors_options, ["--use_peft", "false"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("script", type=Path, help="The other script.")
    parser.add_argument("--of", choices=SCRIPTS, default="diffusers", help="Whose it is.")
    parser.add_argument("--steps", type=int, nargs=2, default=(2, 8), help="Steps of the shorter and the longer run.")
    parser.add_argument("--clips", type=int, default=8, help="Clips to train on.")
    args = parser.parse_args()
    few, many = args.steps
    frames, height, width = map(str, SIZE)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        model = build(folder / "model", num_layers=6, num_heads=6)
        write_clips(folder / "clips", args.clips, SIZE)
        (folder / "decord.py").write_text(DECORD, encoding="utf-8")
        options_of, method = SCRIPTS[args.of]
        data = options_of(folder, args.clips)

        def theirs(steps: int) -> Cost:
            base = ["--pretrained_model_name_or_path", str(model), "--output_dir", str(folder / "theirs")]
            size = ["--max_num_frames", frames, "--height", height, "--width", width, "--mixed_precision", "no"]
            training = ["--train_batch_size", "2", "--max_train_steps", str(steps), "--optimizer", "adamw"]
            return run(args.script, *base, *data, *size, *training, path=folder)

        def ours(steps: int) -> Cost:
            base = ["--model_name_or_path", str(model), "--cache", str(folder / "cache")]
            training = ["--per_device_train_batch_size", "2", "--max_steps", str(steps), *method]
            out = ["--output_dir", str(folder / f"ours{steps}"), "--save_strategy", "no", "--report_to", "none"]
            return run(ROOT / "recipes" / "align.py", *base, *training, *out)

        size = ["--num_frames", frames, "--height", height, "--width", width]
        base = ["--model_name_or_path", str(model), "--output_dir", str(folder / "cache")]
        cache = run(ROOT / "recipes" / "cache.py", *base, "--videos", str(folder / "clips"), *size)
        costs = {name: (train(few), train(many)) for name, train in (("ours", ours), ("theirs", theirs))}
    print_table(costs, few, many)
    print(f"cache_once_cpu_s {cache.seconds:.1f}")


def print_table(costs: dict[str, tuple[Cost, Cost]], few: int, many: int) -> None:
    """What a step takes, what comes before it, and the peak, of runs of `few` and of `many` steps."""
    step = {name: (b.seconds - a.seconds) / (many - few) for name, (a, b) in costs.items()}
    start = {name: a.seconds - few * step[name] for name, (a, _) in costs.items()}
    peak = {name: b.peak_mb for name, (_, b) in costs.items()}
    print("| | ours | theirs | ratio |\n|---|---|---|---|")
    for what, values in (("CPU s a step", step), ("CPU s before the first step", start), ("peak MB", peak)):
        print(f"| {what} | {values['ours']:.2f} | {values['theirs']:.2f} | {values['ours'] / values['theirs']:.2f} |")


if __name__ == "__main__":
    main()
