"""Copies trained checkpoints into the package: a video model of either family as float16, the VLM as float32.

The VLM's tower tells tenths of a pixel, which float16 rounds away (`weights/TRAINING.md`, part 7).

`python -m lift_trl.mini.train.export_weights --video-model runs/mini_base/video_model --vlm runs/mini_vlm/vlm`
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, WanPipeline
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..checkpoints import VIDEO_MODELS, WEIGHTS


#: What the package may grow by, in bytes.
MAX_BYTES = 12_000_000


def export_weights(video_model: Path | None, vlm: Path | None, directory: Path = WEIGHTS) -> int:
    """
    Writes the given checkpoints to `directory` and returns the bytes of all files there.

    Raises:
        ValueError: if they take more than 12 MB in all.
    """
    if video_model is not None:
        # Read as float16 and not cast: Wan's parts that must be float32 stay so.
        pipeline = DiffusionPipeline.from_pretrained(video_model, dtype=torch.float16)
        folder = directory / VIDEO_MODELS["wan" if isinstance(pipeline, WanPipeline) else "cogvideox"]
        shutil.rmtree(folder, ignore_errors=True)
        pipeline.save_pretrained(folder)
    if vlm is not None:
        shutil.rmtree(directory / "vlm", ignore_errors=True)
        model = AutoModelForImageTextToText.from_pretrained(vlm, dtype=torch.float32)
        model.save_pretrained(directory / "vlm")
        AutoProcessor.from_pretrained(vlm).save_pretrained(directory / "vlm")
    for path in directory.rglob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        # diffusers notes the folder that a model came from; it means nothing elsewhere.
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise ValueError(f"the weights take {size} bytes, more than {MAX_BYTES}; train smaller models.")
    return size


def main() -> None:
    """Reads the command line and exports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video-model", type=Path, help="Folder of the pipeline that train.base wrote.")
    parser.add_argument("--vlm", type=Path, help="Folder of the VLM that train.vlm wrote.")
    args = parser.parse_args()
    export_weights(args.video_model, args.vlm)


if __name__ == "__main__":
    main()
