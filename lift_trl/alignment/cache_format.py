"""The cache on disk: Parquet shards of posteriors and text, one `metadata.jsonl` of ratings joined by id.

    cache/
      artifact.yaml            model, sizes, fingerprints
      metadata.jsonl           one row a clip: id, key, prompt, is_real, labels or reward   (no tensor)
      pairs.jsonl              only if people compared clips: one row a pair: chosen, rejected (ids)
      shards/<hash>.parquet    one row a clip: key, posterior; text once a prompt          (no reward)
      text/<hash>.safetensors  the empty prompt and validation prompts

Shards hold no reward, so that a new critic re-encodes nothing. Rows of one prompt stand together in a shard and only the
first of them carries the text, so that a shard can be streamed alone. Tensors are raw bytes (Arrow has no bfloat16).
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..records import RatedVideo, TextCondition
from ..rubric import Dimension, Label


SHARDS_DIR = "shards"
PAIRS_FILE = "pairs.jsonl"
TEXT_DIR = "text"

POSTERIOR_COLUMNS = ("latent_mean", "latent_logvar")
TEXT_COLUMNS = ("prompt_embeds", "prompt_mask", "text_shape")

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("prompt", pa.string()),
        ("latent_mean", pa.binary()),  # bfloat16, unscaled, transformer layout
        ("latent_logvar", pa.binary()),
        ("latent_shape", pa.list_(pa.int32())),
        ("prompt_embeds", pa.binary()),  # bfloat16 [L, D]; null after the first row of a prompt
        ("prompt_mask", pa.binary()),  # bool [L]
        ("text_shape", pa.list_(pa.int32())),
    ]
)


def tensor_bytes(tensor: Tensor) -> bytes:
    """`tensor` as raw bfloat16 bytes, or raw bytes where it is boolean."""
    if tensor.dtype == torch.bool:
        return tensor.cpu().numpy().tobytes()
    return tensor.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes()


def tensor_from_bytes(data: Any, shape: list[int], dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The tensor of `shape` that `tensor_bytes` wrote; owns its memory."""
    if dtype == torch.bool:
        return torch.from_numpy(np.frombuffer(data, dtype=np.bool_).copy()).view(shape)
    return torch.from_numpy(np.frombuffer(data, dtype=np.int16).copy()).view(torch.bfloat16).view(shape)


def decode_posterior(row: Mapping[str, Any]) -> dict[str, Tensor]:
    """`latent_mean` and `latent_logvar` (bfloat16, unscaled) of a shard's row."""
    return {name: tensor_from_bytes(row[name], row["latent_shape"]) for name in POSTERIOR_COLUMNS}


def decode_text(row: Mapping[str, Any]) -> dict[str, Tensor]:
    """`prompt_embeds` (bfloat16 [L, D]) and `prompt_mask` (bool [L]) of a shard's row that carries text."""
    return {
        "prompt_embeds": tensor_from_bytes(row["prompt_embeds"], row["text_shape"]),
        "prompt_mask": tensor_from_bytes(row["prompt_mask"], row["text_shape"][:1], torch.bool),
    }


def text_columns(text: TextCondition | None) -> dict[str, Any]:
    """The text columns of a row: of one prompt ([L, D] and [L]), or nulls."""
    if text is None:
        return dict.fromkeys(TEXT_COLUMNS)
    return {
        "prompt_embeds": tensor_bytes(text.prompt_embeds),
        "prompt_mask": tensor_bytes(text.prompt_mask),
        "text_shape": list(text.prompt_embeds.shape),
    }


def metadata_row(video: RatedVideo, key: str) -> dict[str, Any]:
    """One line of `metadata.jsonl`."""
    return {
        "id": video.id,
        "key": key,
        "prompt": video.prompt,
        "is_real": video.is_real,
        "labels": {d.value: video.labels[d].value for d in Dimension} if video.labels else None,
        "reward": video.scalar_reward,
        "expected_reward": video.expected_reward,
    }


def video_from_row(row: Mapping[str, Any]) -> RatedVideo:
    """The rating of a line of `metadata.jsonl`; the clip itself is left behind, its posterior is in a shard."""
    labels = {Dimension(d): Label(label) for d, label in row["labels"].items()} if row["labels"] else None
    return RatedVideo(
        row["id"], b"", sys.intern(row["prompt"]), labels, row["reward"], row["is_real"], row.get("expected_reward")
    )


class DamagedShardError(ValueError):
    """A shard that is not whole: a disk was full, or a copy broke off."""


def open_shard(path: Path) -> pq.ParquetFile:
    """
    A finished shard, mapped into memory.

    Raises:
        DamagedShardError: if the file is cut short or was written over.
    """
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own complaint (a permission, too many open files) tells nothing of the content
        raise DamagedShardError(
            f"{path}: the shard is damaged ({error}). Run recipes/cache.py again; it encodes the shard's clips anew."
        ) from error


def shard_paths(folder: Path | str) -> list[Path]:
    """The finished shards of a cache, in a fixed order."""
    return sorted((Path(folder) / SHARDS_DIR).glob("*.parquet"))
