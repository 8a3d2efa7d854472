"""Encoded videos to the experiment trackers, as files: raw frames would need moviepy, whose 2.x broke TensorBoard."""

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from ...store.video_io import read_video


def log_videos(videos: Mapping[str, Path], *, step: int, report_to: Sequence[str], logging_dir: Path) -> None:
    """
    Hands mp4 files to those of `report_to` that show videos: tensorboard (as animated GIF), trackio, wandb.

    Args:
        videos: name to file.
        step: the optimiser step that they were sampled at.
        report_to: the Trainer's own setting.
        logging_dir: where TensorBoard's event files go.
    """
    if "tensorboard" in report_to:
        _log_tensorboard(videos, step, logging_dir)
    for name in [name for name in ("trackio", "wandb") if name in report_to]:
        tracker = import_module(name)
        clips = {title: tracker.Video(str(path), format="mp4") for title, path in videos.items()}
        # As their callbacks log: with a `step` of ours, wandb would drop what is behind its own count.
        tracker.log({**clips, "train/global_step": step})


def _log_tensorboard(videos: Mapping[str, Path], step: int, logging_dir: Path) -> None:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logging_dir)) as writer:
        for name, path in videos.items():
            clip = read_video(path)
            first, *rest = [Image.fromarray(frame) for frame in clip.frames]
            buffer = io.BytesIO()
            first.save(buffer, "GIF", save_all=True, append_images=rest, duration=round(1000 / clip.fps), loop=0)
            image = Summary.Image(
                height=first.height, width=first.width, colorspace=3, encoded_image_string=buffer.getvalue()
            )
            writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
