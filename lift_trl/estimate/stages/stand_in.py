"""A cache of clips that hold nothing, as `cache_videos` would leave it: the shapes are counted, the values mean nothing."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ...alignment.data.cache import CacheKeys
from ...alignment.data.cache_format import (
    ENCODING_VERSION,
    SCHEMA,
    SHARDS_DIR,
    TEXT_DIR,
    metadata_row,
    tensor_bytes,
    text_bytes,
    text_columns,
)
from ...alignment.data.clips import ClipSize
from ...alignment.data.text_cache import TextCache
from ...records import RatedVideo, TextCondition
from ...rubric import Dimension, Label
from ...store.manifest import METADATA_FILE, Artifact, write_rows
from ...video_models import PipelineSource


class Shape(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "Shape":
        """Of the first of a batch."""
        return cls(tuple(tensor.shape[1:]), tensor.dtype)

    def ones(self) -> Tensor:
        """Ones, of which no part is taken for padding."""
        return torch.ones(self.shape, dtype=self.dtype)


class EncodedShapes(NamedTuple):
    """What is cached of a clip: either tensor of its posterior, and the tensors of its prompt by name."""

    latents: Shape
    text: Mapping[str, Shape]


def write_cache(
    folder: Path, source: PipelineSource, size: ClipSize, num_clips: int, shapes: EncodedShapes, dtype: torch.dtype
) -> None:
    """
    `num_clips` rows that share one encoded clip, three a prompt: one is best in all, one worst, and one real. So every
    objective finds rows.
    """
    keys = CacheKeys.of(source, size, dtype)
    text = text_bytes(TextCondition({name: shape.ones() for name, shape in shapes.text.items()}))
    texts = TextCache(folder / TEXT_DIR, keys.text)
    texts.folder.mkdir(parents=True)
    texts.path("").write_bytes(text)
    posterior = tensor_bytes(shapes.latents.ones())
    row = {"key": "clip", "prompt": "a clip", "latent_mean": posterior, "latent_logvar": posterior}
    row |= {"latent_shape": list(shapes.latents.shape), **text_columns(text)}
    (folder / SHARDS_DIR).mkdir()
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), folder / SHARDS_DIR / "clip.parquet")
    labels: list[dict[str, str] | None] = [dict.fromkeys(Dimension, label) for label in (Label.GOOD, Label.BAD)]
    labels.append(None)
    videos = [RatedVideo(f"{i}", b"", f"clip {i // 3}", labels[i % 3], is_real=i % 3 == 2) for i in range(num_clips)]
    write_rows(folder / METADATA_FILE, [metadata_row(video, "clip") for video in videos])
    real = sum(video.is_real for video in videos)
    config = {**asdict(size), "encoding_version": ENCODING_VERSION, "dtype": str(dtype).removeprefix("torch.")}
    config |= {"text_fingerprint": keys.text, "video_fingerprint": keys.video}
    config |= {"num_generated": num_clips - real, "num_real": real}
    Artifact(kind="cache", config=config, parents={"model": source.identity}).save(folder)
