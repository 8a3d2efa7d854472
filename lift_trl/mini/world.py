"""Writes the mini world to disk: a video model, a chat VLM, prompts, rated clips and real clips, each in its usual form."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..rubric import Dimension
from ..store.manifest import METADATA_FILE, read_rows, write_text
from ..store.video_io import read_video, write_video
from .annotator import first_reason, pooled_labels, rate_clip
from .checkpoints import build_tiny_pipeline, build_tiny_vlm, load_pipeline, load_vlm
from .shapes import CLEAN, SCENES, Clip, DefectRates, Scene, draw_clip, enlarge


FPS = 8


class World(NamedTuple):
    """
    The folders and files of a mini world.

    Args:
        video_model: a diffusers checkpoint folder.
        vlm: a transformers checkpoint folder.
        prompts: a text file, one prompt a line.
        rated: rendered clips with `metadata.jsonl`: file_name, prompt, the three labels, reasons, annotations.
        real: rendered clips without defects with `metadata.jsonl`: file_name, prompt, is_real.
    """

    video_model: Path
    vlm: Path
    prompts: Path
    rated: Path
    real: Path


def build_world(
    directory: str | Path, *, num_rated: int = 48, num_real: int = 96, seed: int = 0, trained: bool = True
) -> World:
    """
    Writes a mini world to `directory` and returns where everything is.

    Args:
        directory: made if missing; files of the same names are replaced.
        num_rated: rendered clips with defects, rated by the world's raters.
        num_real: rendered clips without defects.
        seed: of the clips, and of the weights where they are random.
        trained: the checkpoints of the package; random weights of the same kind if false, as tests use them.
    """
    root = Path(directory)
    world = World(root / "video_model", root / "vlm", root / "prompts.txt", root / "rated", root / "real")
    root.mkdir(parents=True, exist_ok=True)
    if trained:
        load_pipeline().save_pretrained(world.video_model)
        model, processor = load_vlm()
        model.save_pretrained(world.vlm)
        processor.save_pretrained(world.vlm)
    else:
        build_tiny_pipeline(world.video_model, seed=seed)
        build_tiny_vlm(world.vlm, seed=seed)
    world.prompts.write_text("".join(f"{scene.prompt}\n" for scene in SCENES))
    rng = np.random.default_rng([seed, 1])
    write_clips(world.rated, (draw_clip(rng, DefectRates(), _scene(i)) for i in range(num_rated)))
    rate_folder(world.rated, world.rated)
    rng = np.random.default_rng([seed, 2])
    write_clips(world.real, (draw_clip(rng, CLEAN, _scene(i)) for i in range(num_real)), is_real=True)
    return world


def write_clips(directory: Path, clips: Iterable[Clip], **columns: Any) -> None:
    """Writes each clip, enlarged, as mp4, and `metadata.jsonl` with file_name, prompt and `columns` in every row."""
    rows = []
    for index, clip in enumerate(clips):
        name = f"{index:05d}.mp4"
        write_video(directory / name, enlarge(clip.video), fps=FPS)
        rows.append({"file_name": name, "prompt": clip.caption.prompt, **columns})
    _write_rows(directory, rows)


def rate_folder(source: str | Path, destination: str | Path) -> None:
    """
    Lets the raters rate the clips of `source`, for instance samples of the base model.

    `source/metadata.jsonl` names `file_name` and `prompt`. `destination/metadata.jsonl` gets the same rows with the pooled
    label of each dimension, `reasons` (of the raters' that fit it, the first) and `annotations` (every rater's). Clips stay
    where they are: `file_name` is relative to `destination`.
    """
    source, destination = Path(source), Path(destination)
    rows = []
    for row in read_rows(source / METADATA_FILE):
        path = source / row["file_name"]
        ratings = rate_clip(str(row.get("id", row["file_name"])), read_video(path).frames, row["prompt"])
        labels = pooled_labels(ratings)
        row = {**row, "file_name": os.path.relpath(path, destination)}
        row |= {dimension.value: labels[dimension].value for dimension in Dimension}
        row["reasons"] = {d.value: first_reason(ratings, d, labels[d]) for d in Dimension}
        row["annotations"] = [rating._asdict() for rating in ratings]
        rows.append(row)
    _write_rows(destination, rows)


def _scene(index: int) -> Scene:
    return SCENES[index % len(SCENES)]


def _write_rows(directory: Path, rows: list[dict[str, Any]]) -> None:
    write_text(directory / METADATA_FILE, "".join(json.dumps(row) + "\n" for row in rows))
