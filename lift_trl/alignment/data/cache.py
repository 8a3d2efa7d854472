"""Videos to a cache of VAE posteriors and text embeddings: encode once, train many times, with T5 and VAE gone."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.logging import get_logger
from torch import Tensor

from ...engines import Processes
from ...hub.parents import hub_parent
from ...prefetch import ahead
from ...records import RatedVideo, content_id
from ...remote import local_copy
from ...rubric import Rubric
from ...runtime import process_state, release_memory
from ...store.clip_rows import video_digest
from ...store.manifest import (
    ARTIFACT_FILE,
    METADATA_FILE,
    Artifact,
    check_kind,
    naming_what_failed,
    read_rows,
    remove_partials,
    write_rows,
)
from ...store.rated_videos import hub_dataset, load_rated_videos
from ...store.sharding import chunks, share
from ...store.video_io import describe
from ...video_models import PipelineSource, open_pipeline
from .cache_format import (
    ENCODING_VERSION,
    SCHEMA,
    SHARDS_DIR,
    TEXT_DIR,
    DamagedShardError,
    metadata_row,
    open_shard,
    shard_paths,
    tensor_bytes,
    text_columns,
)
from .clips import ClipSize, check_clips, read_clip, scaled
from .ratings import rubric_of
from .text_cache import TextCache


if TYPE_CHECKING:
    from datasets import Dataset
    from diffusers import DiffusionPipeline

logger = get_logger(__name__)

# Row groups of about this size: small rows share one, a row of real size has its own and can be read alone.
_ROW_GROUP_BYTES = 1 << 18
_WORK_DIR = ".text"
# The largest size that the families' small checkpoints were trained on (Wan's 480 x 832) is encoded whole.
_TILED_PIXELS = 480 * 832


def is_tiled(size: ClipSize) -> bool:
    """
    Whether the VAE encodes a clip of this size in tiles, which bounds its memory (480 x 720 takes 7 GB without, 768 x 1360
    three times as much) and changes the latents a little where tiles meet, so that it belongs to the keys.
    """
    return size.height * size.width > _TILED_PIXELS


@dataclass(frozen=True)
class CacheKeys:
    """What the bytes of a cache depend on, beside videos and prompts."""

    text: str
    video: str
    size: ClipSize
    dtype: torch.dtype

    @classmethod
    def of(cls, source: PipelineSource, size: ClipSize, dtype: torch.dtype) -> "CacheKeys":
        """Fingerprints of `source`'s text encoder and VAE, with precision and encoding version."""
        text = content_id(source.fingerprint(*source.adapter.text_components), dtype, ENCODING_VERSION)
        tiled = ["tiled"] if is_tiled(size) else []
        video = content_id(source.fingerprint("vae"), dtype, size, ENCODING_VERSION, *tiled)
        return cls(text, video, size, dtype)

    def row(self, video: RatedVideo) -> str:
        """The key of one clip: changes with the file's bytes, the prompt, the models, the size or the precision."""
        return content_id(video_digest(video.video), video.prompt, self.text, self.video)


def cache_videos(
    model: "str | Path | DiffusionPipeline | PipelineSource",
    videos: "Sequence[RatedVideo] | Dataset | Path | str",
    output_dir: Path | str,
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    rows_per_shard: int = 100,
    extra_prompts: Sequence[str] = (),
    parents: Mapping[str, str] | None = None,
    state: PartialState | None = None,
) -> Path:
    """
    Encodes rated and real videos with the VAE and text encoder of `model`; returns `output_dir`.

    The unit of resuming is a finished shard: kill the run at any point, with any number of processes, and call it
    again. Rows that an earlier run encoded under the same settings are kept; changed clips, prompts, models or sizes
    are encoded anew, and so are those of a damaged shard. Shards of which no row is used are deleted at the end. Memory
    does not grow with the dataset.

    Args:
        videos: rated clips, or anything that `load_rated_videos` takes.
        num_frames: frames of every clip; the checkpoint's own by default, as are height and width.
        height: pixels; clips are resized to cover height and width, and centre-cropped.
        width: pixels.
        fps: frames a second to sample at, by time; the model family's own by default.
        rows_per_shard: 100 rows of 49 x 480 x 720 are 0.5 GB.
        extra_prompts: further prompts to embed (for validation); the empty prompt always is.
        parents: what the clips and their ratings came from (`clip_parents`).

    Raises:
        ValueError: naming every clip that cannot be read or is too short, or two rubrics, before a model is loaded.
    """
    source = open_pipeline(model)
    state = state or process_state()
    rated = list(videos) if isinstance(videos, list | tuple) else load_rated_videos(videos)
    size = ClipSize.of(source.adapter, num_frames, height, width, fps)
    with state.local_main_process_first():  # it fetches what is on the Hub, the others find it
        keys = CacheKeys.of(source, size, encoding_dtype(source, state.device.type))
    folder = Path(output_dir)
    _check_folder(folder)
    if len({video.id for video in rated}) < len(rated):
        twice = next(video.id for video in rated if sum(other.id == video.id for other in rated) > 1)
        raise ValueError(
            f"clip id {twice!r} stands twice in the sources; ratings are joined by id. Rename or delete one."
        )
    rubric = rubric_of(rated)
    rows = [metadata_row(video, keys.row(video)) for video in rated]

    plan = _plan(folder, rated, rows, rows_per_shard, state)
    logger.info("%d clips, %d shards to encode of at most %d rows", len(rows), len(plan), rows_per_shard)
    check_clips((video.video for shard in plan for _, video in shard), size, source.adapter)
    # One load of the text encoder for all: shards carry the texts of their clips, those that stand alone are kept as files.
    texts, alone = TextCache(folder / _WORK_DIR, keys.text), TextCache(folder / TEXT_DIR, keys.text)
    lacking = alone.missing(["", source.adapter.negative_prompt, *extra_prompts])
    prompts = [*(video.prompt for shard in plan for _, video in shard), *lacking]
    texts.embed(source, prompts, Processes(state), keys.dtype)
    mine = share(plan, rank=state.process_index, world_size=state.num_processes)
    if mine:
        _encode_shards(folder, mine, texts, source, keys, state)
    state.wait_for_everyone()
    if state.is_main_process:
        texts.move(lacking, alone)
        _finish(folder, rows, source, keys, parents or {}, rubric)
    state.wait_for_everyone()
    return folder


def _check_folder(folder: Path) -> None:
    """Raises `FileExistsError` where a cache would take the place of something else: of the clips' own rows, say."""
    check_kind(folder, "cache")
    rows = folder / METADATA_FILE
    if (folder / ARTIFACT_FILE).is_file() or not rows.is_file():
        return
    if not all("key" in row for row in read_rows(rows)):
        raise FileExistsError(f"{rows}: rows that are no cache's would be replaced. Name a new output_dir.")


def encoding_dtype(source: PipelineSource, device_type: str) -> torch.dtype:
    """The family's precision on an accelerator, float32 on a CPU."""
    return torch.float32 if device_type == "cpu" else source.adapter.dtype


def cached_keys(folder: Path | str) -> set[str]:
    """Keys of all rows in finished shards."""
    return {key for path in shard_paths(folder) for key in _shard_keys(path)}


def _shard_keys(path: Path) -> list[str]:
    with open_shard(path) as shard:
        keys: list[str] = shard.read(columns=["key"]).column("key").to_pylist()
    return keys


def _delete_damaged(folder: Path) -> None:
    """Deletes shards that are not whole; their clips are encoded again."""
    for path in shard_paths(folder):
        try:
            _shard_keys(path)
        except DamagedShardError as error:
            logger.warning("%s", error)
            path.unlink()


def _plan(
    folder: Path,
    videos: Sequence[RatedVideo],
    rows: Sequence[dict[str, Any]],
    rows_per_shard: int,
    state: PartialState,
) -> list[list[tuple[str, RatedVideo]]]:
    """Shards to write: (key, video) not yet cached, each key once, rows of one prompt together.

    All shards but the last have the same number of rows, so what is left after a kill is cut at the same places.
    """
    if state.is_main_process:
        _delete_damaged(folder)
    state.wait_for_everyone()
    done = cached_keys(folder)
    # Every process must have seen the same finished shards before any of them writes another.
    state.wait_for_everyone()
    todo = {row["key"]: video for row, video in zip(rows, videos, strict=True) if row["key"] not in done}
    return chunks(sorted(todo.items(), key=lambda item: (item[1].prompt, item[0])), rows_per_shard) if todo else []


def _encode_shards(
    folder: Path,
    shards: Sequence[Sequence[tuple[str, RatedVideo]]],
    texts: TextCache,
    source: PipelineSource,
    keys: CacheKeys,
    state: PartialState,
) -> None:
    pipe: Any = source.load("vae", dtype=keys.dtype, device=state.device)
    if is_tiled(keys.size):
        pipe.vae.enable_tiling()
    # Across shards, so that the VAE does not wait at their ends; in 8 bits, a quarter of what it takes.
    videos = (video.video for shard in shards for _, video in shard)
    clips = ahead(lambda video: read_clip(video, keys.size, source.adapter), videos)
    for number, shard in enumerate(shards, start=1):
        _write_shard(folder, shard, _encode_rows(shard, clips, texts, source, pipe, keys))
        logger.info("shard %d of %d written (%d rows)", number, len(shards), len(shard), main_process_only=False)
    del pipe
    release_memory()


def _write_shard(folder: Path, shard: Sequence[tuple[str, RatedVideo]], rows: Iterator[dict[str, Any]]) -> None:
    """Writes one shard so that it is whole or absent."""
    target = folder / SHARDS_DIR / f"{content_id(*(key for key, _ in shard))}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # Uncompressed and plain: posteriors do not compress, and a reader maps them as they are.
        with (
            naming_what_failed(target, "The shard was not written; finished shards are kept"),
            open(partial, "wb") as file,
            pq.ParquetWriter(file, SCHEMA, compression="NONE", use_dictionary=False, write_statistics=False) as writer,
        ):
            for group in _row_groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _encode_rows(
    shard: Sequence[tuple[str, RatedVideo]],
    clips: Iterator[Tensor],
    texts: TextCache,
    source: PipelineSource,
    pipe: Any,
    keys: CacheKeys,
) -> Iterator[dict[str, Any]]:
    """The rows of a shard; `clips` are its own, in order, and maybe those of others after them."""
    for prompt, group in groupby(shard, key=lambda item: item[1].prompt):
        text = texts.stored(prompt)
        for index, (key, video) in enumerate(group):
            clip = scaled(next(clips).to(pipe.vae.device))
            posterior = source.adapter.encode_video(pipe, clip.unsqueeze(0))
            if not (posterior.mean.isfinite().all() and posterior.logvar.isfinite().all()):
                raise ValueError(f"{describe(video.video)}: the VAE's output is not finite in {keys.dtype}.")
            yield {
                "key": key,
                "prompt": prompt,
                "latent_mean": tensor_bytes(posterior.mean[0]),
                "latent_logvar": tensor_bytes(posterior.logvar[0]),
                "latent_shape": list(posterior.mean.shape[1:]),
                **text_columns(text if index == 0 else None),
            }


def _row_groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """`rows` in groups of about `_ROW_GROUP_BYTES`, so that a reader fetches little beside what it wants."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, bytes))
        if size >= _ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def clip_parents(clips: Sequence[Path | str]) -> dict[str, str]:
    """
    What rated clips came from: the commit of a dataset on the Hub; of an artefact's folder its own parents (critic, videos),
    named `<folder>/<parent>`.
    """
    parents: dict[str, str] = {}
    for source in clips:
        folder = Path(local_copy(source))
        if (folder / ARTIFACT_FILE).is_file():
            for name, revision in Artifact.load(folder).parents.items():
                parents[f"{folder.name}/{Path(name).name}"] = revision if "@" in revision else f"{name}@{revision}"
        elif not folder.exists() and (found := hub_dataset(str(source))):
            parents[Path(found[0]).name] = hub_parent(found[0], repo_type="dataset", revision=found[1])
    return parents


def _finish(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    source: PipelineSource,
    keys: CacheKeys,
    parents: Mapping[str, str],
    rubric: Rubric,
) -> None:
    """Metadata last: a cache with `artifact.yaml` is whole. What it does not use is deleted after that."""
    (folder / ARTIFACT_FILE).unlink(missing_ok=True)
    write_rows(folder / METADATA_FILE, rows)
    Artifact(
        kind="cache",
        config={
            **asdict(keys.size),
            "encoding_version": ENCODING_VERSION,
            "vae_tiling": is_tiled(keys.size),
            "dtype": str(keys.dtype).removeprefix("torch."),
            "text_fingerprint": keys.text,
            "video_fingerprint": keys.video,
            "num_generated": sum(not row["is_real"] for row in rows),
            "num_real": sum(row["is_real"] for row in rows),
        },
        parents={"model": source.identity, "clips": content_id(*(row["key"] for row in rows)), **parents},
        rubric=rubric,
    ).save(folder)
    shutil.rmtree(folder / _WORK_DIR, ignore_errors=True)
    remove_partials(folder)
    used = {row["key"] for row in rows}
    unused = [path for path in shard_paths(folder) if used.isdisjoint(_shard_keys(path))]
    for path in unused:
        path.unlink()
    if unused:
        logger.info("%d shards of other settings or clips deleted", len(unused))
