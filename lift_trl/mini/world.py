"""Writes the mini world to disk: a video model, a chat VLM, prompts, rated clips and real clips, each in its usual form."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..records import seed_from
from ..rubric import LIFT, Dimension
from ..store.manifest import METADATA_FILE, read_rows, write_text
from ..store.video_io import read_video, write_video
from ..video_models import StoredPipeline
from .annotator import first_reason, pooled_labels, rate_clip
from .checkpoints import VIDEO_MODELS, build_tiny_pipeline, build_tiny_vlm, load_pipeline, load_vlm
from .oracle import judge
from .shapes import CLEAN, SCENES, Clip, DefectRates, Scene, Video, draw_clip, enlarge, parse_prompt
from .wan import build_tiny_wan_pipeline


FPS = 8.0
#: Of so many clips that the raters get, one is shown blank and one frozen, so that a critic learns what earns nothing.
CONTROL_EVERY = 24


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
    directory: str | Path,
    *,
    family: str = "cogvideox",
    num_rated: int = 48,
    num_real: int = 96,
    seed: int = 0,
    trained: bool = True,
) -> World:
    """
    Writes a mini world to `directory` and returns where everything is.

    Args:
        directory: made if missing; files of the same names are replaced.
        family: of the video model, "cogvideox" or "wan"; the clips have its frames a second.
        num_rated: rendered clips with defects, rated by the world's raters.
        num_real: rendered clips without defects.
        seed: of the clips, and of the weights where they are random.
        trained: the checkpoints of the package; random weights of the same kind if false, as tests use them.

    Raises:
        ValueError: for another family.
    """
    if family not in VIDEO_MODELS:
        raise ValueError(f"family={family!r}: the mini world has {' and '.join(VIDEO_MODELS)}.")
    root = Path(directory)
    world = World(root / "video_model", root / "vlm", root / "prompts.txt", root / "rated", root / "real")
    root.mkdir(parents=True, exist_ok=True)
    if trained:
        load_pipeline(family).save_pretrained(world.video_model)
        model, processor = load_vlm()
        model.save_pretrained(world.vlm)
        processor.save_pretrained(world.vlm)
    else:
        build = build_tiny_wan_pipeline if family == "wan" else build_tiny_pipeline
        build(world.video_model, seed=seed)
        build_tiny_vlm(world.vlm, seed=seed)
    world.prompts.write_text("".join(f"{scene.prompt}\n" for scene in SCENES), encoding="utf-8")
    fps = StoredPipeline(str(world.video_model)).adapter.fps
    rng = np.random.default_rng([seed, 1])
    write_clips(world.rated, (draw_clip(rng, DefectRates(), _scene(i)) for i in range(num_rated)), fps=fps)
    rate_folder(world.rated, world.rated)
    rng = np.random.default_rng([seed, 2])
    write_clips(world.real, (draw_clip(rng, CLEAN, _scene(i)) for i in range(num_real)), fps=fps, is_real=True)
    return world


def write_clips(directory: Path, clips: Iterable[Clip], *, fps: float = FPS, **columns: Any) -> None:
    """Writes each clip, enlarged, as mp4, and `metadata.jsonl` with file_name, prompt and `columns` in every row."""
    rows = []
    for index, clip in enumerate(clips):
        name = f"{index:05d}.mp4"
        write_video(directory / name, enlarge(clip.video), fps=fps)
        rows.append({"file_name": name, "prompt": clip.caption.prompt, **columns})
    _write_rows(directory, rows)


def rate_folder(source: str | Path, destination: str | Path, *, oracle: bool = False, controls: bool = False) -> int:
    """
    Lets the raters rate the clips of `source`, for instance samples of the base model; returns how many clips.

    `source/metadata.jsonl` names `file_name` and `prompt`. `destination/metadata.jsonl` gets the same rows with the pooled
    label of each dimension, `reasons` (of the raters' that fit it, the first) and `annotations` (every rater's). Clips stay
    where they are: `file_name` is relative to `destination`.

    Args:
        oracle: write the oracle's labels and the `reward` they give instead of the raters': the truth that a critic's
            scores are compared with, never its training data.
        controls: show one clip of `CONTROL_EVERY` blank and one frozen in its place, as `destination/controls/*.mp4`.
    """
    source, destination = Path(source), Path(destination)
    rows = []
    for index, row in enumerate(read_rows(source / METADATA_FILE)):
        if not row.get("file_name") or not row.get("prompt"):
            raise ValueError(f"{source / METADATA_FILE}, row {index + 1}: no file_name or no prompt; fill them in.")
        path = source / row["file_name"]
        shown = read_video(path)
        video = shown.frames
        if controls and (kind := _CONTROLS.get(index % CONTROL_EVERY)):
            row, path, video = _control(row, kind, video, shown.fps, destination)
        clip_id = str(row.get("id", row["file_name"]))
        try:
            judged = _oracle_columns(video, row["prompt"]) if oracle else _rater_columns(clip_id, video, row["prompt"])
        except ValueError as error:
            raise ValueError(f"{path}: no clip of the mini world: {error}") from error
        rows.append({**row, "file_name": os.path.relpath(path, destination), **judged})
    if not rows:
        raise ValueError(f"{source / METADATA_FILE}: holds no row. Name a folder of clips of the mini world.")
    _write_rows(destination, rows)
    return len(rows)


def _blank(rng: np.random.Generator, video: Video) -> Video:
    return np.full_like(video, rng.integers(256))


def _frozen(rng: np.random.Generator, video: Video) -> Video:
    return np.repeat(video[rng.integers(len(video))][None], len(video), axis=0)


_Control = Callable[[np.random.Generator, Video], Video]
_CONTROLS: Mapping[int, _Control] = {7: _blank, 19: _frozen}


def _control(
    row: dict[str, Any], change: _Control, video: Video, fps: float, destination: Path
) -> tuple[dict[str, Any], Path, Video]:
    """The row, file and frames of a control clip made of `video`: under an id of its own, without the old clip's hash."""
    name = f"{row.get('id', Path(row['file_name']).stem)}-{change.__name__.strip('_')}"
    path = destination / "controls" / f"{name}.mp4"
    write_video(path, change(np.random.default_rng(seed_from(name)), video), fps=fps)
    kept = {key: value for key, value in row.items() if key != "sha256"}
    return {**kept, "id": name}, path, read_video(path).frames


def _rater_columns(clip_id: str, video: Video, prompt: str) -> dict[str, Any]:
    ratings = rate_clip(clip_id, video, prompt)
    labels = pooled_labels(ratings)
    return {
        **{dimension.value: labels[dimension].value for dimension in Dimension},
        "reasons": {d.value: first_reason(ratings, d, labels[d]) for d in Dimension},
        "annotations": [rating._asdict() for rating in ratings],
    }


def _oracle_columns(video: Video, prompt: str) -> dict[str, Any]:
    labels = judge(video, parse_prompt(prompt))
    named = {dimension.value: label.value for dimension, label in labels.items()}
    return {**named, "reward": LIFT.mean_reward(named), "critic": "oracle"}


def _scene(index: int) -> Scene:
    return SCENES[index % len(SCENES)]


def _write_rows(directory: Path, rows: list[dict[str, Any]]) -> None:
    write_text(directory / METADATA_FILE, "".join(json.dumps(row) + "\n" for row in rows))
