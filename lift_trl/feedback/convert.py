"""Any form of LiFT-HRA, or clips with captions, to a folder that `datasets.load_dataset` reads as it is.

Parquet shards with one row a clip: the file's bytes once, and every rater's label and reason in `annotations`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..hub_source import pinned
from ..records import hra_features
from ..remote import local_copy
from ..rubric import Rubric
from ..store.disk.outputs import check_new_folder, new_folder
from ..store.manifest import Artifact
from ..store.rated_videos import BadRowsError, RowError
from .bad_rows import BadRows, check_bad_rows
from .hra import held_out_videos
from .sources import HraClip, HraSource, MissingVideos, read_hra


MAX_SHARD_BYTES = 500_000_000
_RATING = ("dimension", "label", "reason", "annotator", "created_at", "ui_version")


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote: clips and ratings in each split, and clips without their file."""

    folder: Path
    num_clips: Mapping[str, int]
    num_annotations: Mapping[str, int]
    num_missing: int


def convert(
    src: Path | str,
    dst: Path | str,
    *,
    revision: str | None = None,
    source: str | None = None,
    video_dir: Path | str | None = None,
    video_column: str | None = None,
    caption_column: str | None = None,
    missing_videos: MissingVideos = "raise",
    bad_rows: BadRows = "raise",
    test_fraction: float | None = None,
    train_on: Path | str | None = None,
    rubric: Rubric | Path | str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Converted:
    """
    Writes `src` as published LiFT-HRA into the new folder `dst`; after a push, `load_dataset("user/name")` reads the same.

    The folder appears whole or not at all, and the same input gives the same Parquet files.

    Args:
        src: any form that `load_hra` reads, or a CSV, TSV, JSON or JSON-lines file of clips and captions (real clips).
        dst: a folder that does not exist yet, or is empty.
        revision, source, video_dir, missing_videos, bad_rows, rubric: as in `load_hra`.
        video_column, caption_column: columns of a file of captions, found by their usual names by default.
        test_fraction: share of the clips that go to a split `test`, by the hash of their ids.
        train_on: another source; its clips form `train` and the rest `test` (`Fudan-FUXI/LiFT-HRA-10K` for the 20K).
        max_shard_bytes: size of the clips at which a new Parquet file begins.

    Raises:
        BadRowsError: naming each bad row, the reason and the remedy, unless they are dropped. Nothing is written then.
        FileExistsError: if `dst` holds something.
        ValueError: if both `test_fraction` and `train_on` are given, or a split would be empty.
    """
    target = Path(dst)
    check_new_folder(target)
    origin = HraSource(src, revision, source, video_dir, video_column, caption_column, rubric)
    data = read_hra(origin, missing_videos=missing_videos)
    check_bad_rows(data, bad_rows, src)
    missing = [clip for part in data.splits.values() for clip in part if not _has_file(clip)]
    if missing and missing_videos != "keep":
        raise BadRowsError([RowError(clip.where, f"{clip.id}: its file would not be stored.") for clip in missing])
    splits = _resplit(data.splits, test_fraction=test_fraction, train_on=train_on)
    config = {
        "source": source,
        "missing_videos": missing_videos,
        "test_fraction": test_fraction,
        "train_on": None if train_on is None else Path(train_on).name,
        "num_clips": {split: len(clips) for split, clips in splits.items()},
    }
    here = Path(local_copy(src))
    name = here.name if here.exists() else f"datasets/{pinned(src).repo_id}"
    parents = {name: data.revision or rows_digest(data.splits)}
    artifact = Artifact("hra", config, parents, rubric=data.rubric)
    write_hra(target, splits, artifact, max_shard_bytes=max_shard_bytes)
    return Converted(
        folder=target,
        num_clips={split: len(part) for split, part in splits.items()},
        num_annotations={split: sum(len(clip.annotations) for clip in part) for split, part in splits.items()},
        num_missing=len(missing),
    )


def write_hra(
    folder: Path,
    splits: Mapping[str, list[HraClip]],
    artifact: Artifact,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes clips and ratings as `data/<split>-00000-of-0000N.parquet`; `folder` appears whole or not at all."""
    with new_folder(folder) as partial:
        (partial / "data").mkdir()
        for split, clips in splits.items():
            shards = _shards(clips, max_shard_bytes)
            for number, shard in enumerate(shards):
                _write_shard(partial / "data" / f"{split}-{number:05d}-of-{len(shards):05d}.parquet", shard)
        artifact.save(partial)


def published_row(clip: HraClip) -> dict[str, Any]:
    """The row of a clip, as `records.hra_features` describes it. A clip without its file keeps its path only."""
    path = Path(str(clip.video))
    video: dict[str, bytes | str | None]
    if _has_file(clip):
        video = {"bytes": path.read_bytes(), "path": f"{clip.id.replace('/', '_')}{path.suffix or '.mp4'}"}
    else:
        video = {"bytes": None, "path": path.name if path.is_absolute() else path.as_posix()}
    return {
        "id": clip.id,
        "video": video,
        "caption": clip.caption,
        "source": clip.source,
        "annotations": [{name: getattr(row, name) for name in _RATING} for row in clip.annotations],
    }


def rows_digest(splits: Mapping[str, Iterable[HraClip]]) -> str:
    """sha256 over ids, captions and ratings: what a dataset that came from no repository is known by."""
    digest = hashlib.sha256()
    for split, clips in splits.items():
        for clip in clips:
            ratings = [[getattr(row, name) for name in _RATING] for row in clip.annotations]
            digest.update(json.dumps([split, clip.id, clip.caption, clip.source, ratings]).encode())
    return f"sha256:{digest.hexdigest()}"


def _has_file(clip: HraClip) -> bool:
    path = Path(str(clip.video))
    return path.is_absolute() and path.is_file()


def _resplit(
    splits: Mapping[str, list[HraClip]], *, test_fraction: float | None, train_on: Path | str | None
) -> dict[str, list[HraClip]]:
    """The splits as they are, or a new `train` and `test` by video."""
    if test_fraction is None and train_on is None:
        return dict(splits)
    if test_fraction is not None and train_on is not None:
        raise ValueError("test_fraction and train_on both decide the split; give one of them.")
    clips = [clip for part in splits.values() for clip in part]
    if test_fraction is not None:
        held = held_out_videos((clip.id for clip in clips), test_fraction=test_fraction)
    else:
        known = read_hra(HraSource(str(train_on)), missing_videos="keep", fetch_videos=False).splits
        held = {clip.id for clip in clips} - {clip.id for part in known.values() for clip in part}
    divided = {
        "train": [clip for clip in clips if clip.id not in held],
        "test": [clip for clip in clips if clip.id in held],
    }
    if not all(divided.values()):
        sizes = ", ".join(f"{split} {len(part)}" for split, part in divided.items())
        raise ValueError(
            f"a split would be empty ({sizes} clips); choose another train_on. With two clips or more, any test_fraction "
            "divides them."
        )
    return divided


def _shards(clips: list[HraClip], max_shard_bytes: int) -> list[list[HraClip]]:
    """`clips` in order, cut before the sum of their files passes `max_shard_bytes`."""
    shards: list[list[HraClip]] = [[]]
    size = 0
    for clip in clips:
        weight = Path(str(clip.video)).stat().st_size if _has_file(clip) else 0
        if shards[-1] and size + weight > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(clip)
        size += weight
    return shards


def _write_shard(path: Path, clips: list[HraClip]) -> None:
    """One Parquet file, ten clips a row group, so that readers need the memory of ten clips only."""
    schema = hra_features().arrow_schema
    # As `Dataset.to_parquet`: pages with an index for the Hub's viewer, cut by content so that a changed row uploads little.
    with pq.ParquetWriter(path, schema, write_page_index=True, use_content_defined_chunking=True) as writer:
        for start in range(0, len(clips), 10):
            rows = [published_row(clip) for clip in clips[start : start + 10]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
