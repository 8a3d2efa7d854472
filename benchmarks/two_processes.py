"""How much more two processes do than one, in generation and in scoring, one thread each.

Nothing is simulated: `generate_videos` on a small CogVideoX (CPU, float32) and `score_videos` with the mini world's VLM,
under `accelerate launch`, each process on a core of its own. Timed is the stage alone, from files to `artifact.yaml`, with
loading, without the imports. Prints `work_ratio_<stage>`, the wall time of one process over that of two, and
`cpu_ratio_<stage>`: what it would be if each had a core to itself, 2 x CPU seconds of one / CPU seconds of both. Where
others use the machine, only the second means much.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel

from benchmarks.device_busy import write_clips
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import CriticSource, score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.mini.checkpoints import WEIGHTS, build_tiny_pipeline
from lift_trl.runtime import leaving_processes, process_state


ROOT = Path(__file__).resolve().parents[1]


def write_model(folder: Path, *, tiny: bool) -> None:
    """The tiny pipeline; with a network of 10 M parameters where it is to be work."""
    pipe = build_tiny_pipeline(seed=0)
    if not tiny:
        config = {**pipe.transformer.config, "num_layers": 6, "num_attention_heads": 6, "attention_head_dim": 64}
        torch.manual_seed(0)
        pipe.transformer = CogVideoXTransformer3DModel.from_config(config)
    pipe.save_pretrained(folder)


def stage(name: str, folder: Path, out: Path, num: int) -> None:
    """Runs one stage in this process and writes its seconds."""
    state = process_state()
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[state.process_index % len(cores)]})
    state.wait_for_everyone()
    wall, cpu = time.monotonic(), time.process_time()
    if name == "generate":
        videos = plan_videos(["a", "b"], videos_per_prompt=num // 2)
        sampling = Sampling(num_inference_steps=5, guidance_scale=3.0, batch_size=2)
        generate_videos(folder / "model", videos, out, sampling=sampling, state=state)
    else:
        critic = CriticSource(*LiFTCritic.when_needed(str(WEIGHTS / "vlm"), batch_size=4))
        score_videos(critic, folder / "clips", out, with_reason=True, batch_size=4, state=state)
    figures = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
    (folder / f"{out.name}.{state.process_index}.json").write_text(json.dumps(figures), encoding="utf-8")


def measure(name: str, folder: Path, num_processes: int, num: int) -> tuple[float, float]:
    """Wall seconds of the slowest process, CPU seconds of all."""
    out = folder / f"{name}-{num_processes}"
    config = f"recipes/configs/accelerate/{'cpu' if num_processes == 1 else 'cpu_2'}.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--module"]
    command = [*launch, "benchmarks.two_processes", "--stage", name, str(folder), str(out), "--num", str(num)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"{out.name}.*.json")]
    assert len(found) == num_processes
    return max(one["wall_s"] for one in found), sum(one["cpu_s"] for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="Few small videos.")
    parser.add_argument(
        "--num", type=int, default=0, help="Videos of a stage, a multiple of 8; of clips 12 times more."
    )
    parser.add_argument("--stage", nargs=3, metavar=("STAGE", "FOLDER", "OUT"), help="What a process runs.")
    args = parser.parse_args()
    if args.stage:
        name, folder, out = args.stage
        with leaving_processes():
            stage(name, Path(folder), Path(out), args.num)
        return
    num = args.num or (8 if args.tiny else 64)
    # A clip is scored in a fifteenth of the time that a video takes, and loading is part of both.
    clips = num if args.tiny else 12 * num
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_model(folder / "model", tiny=args.tiny)
        write_clips(folder / "clips", clips, (9, 64, 96) if args.tiny else (17, 128, 192))
        for name, count in (("generate", num), ("score", clips)):
            (one_wall, one_cpu), (two_wall, two_cpu) = (measure(name, folder, n, count) for n in (1, 2))
            print(f"{name}: one {one_wall:.1f} s ({one_cpu:.1f} CPU s), two {two_wall:.1f} s ({two_cpu:.1f} CPU s)")
            print(f"work_ratio_{name} {one_wall / two_wall:.2f}")
            print(f"cpu_ratio_{name} {2 * one_cpu / two_cpu:.2f}")


if __name__ == "__main__":
    main()
