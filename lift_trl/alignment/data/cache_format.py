"""The cache on disk: Parquet shards of posteriors and text, one `metadata.jsonl` of ratings joined by id.

    cache/
      artifact.yaml            model, sizes, fingerprints
      metadata.jsonl           one row a clip: id, key, prompt, is_real, labels or reward   (no tensor)
      pairs.jsonl              only if people compared clips: one row a pair: chosen, rejected (ids)
      shards/<hash>.parquet    one row a clip: key, posterior; text once a prompt          (no reward)
      text/<hash>.safetensors  the empty prompt and validation prompts

Shards hold no reward, so that a new critic re-encodes nothing. Rows of one prompt stand together in a shard and only the
first of them carries the text, so that a shard can be streamed alone. Posteriors are raw bytes (Arrow has no bfloat16),
texts safetensors: named tensors in the precision that they were embedded in, without the zeros at their end.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load, save
from torch import Tensor

from ...records import RatedVideo, TextCondition
from ...rubric import Rubric
from ...store.inspect import PAIRS_FILE as PAIRS_FILE
from ...store.manifest import write_rows


SHARDS_DIR = "shards"
TEXT_DIR = "text"

#: A change of how clips are read, encoded or stored must change every key. 3: the network's scale, named text tensors.
ENCODING_VERSION = 3
POSTERIOR_COLUMNS = ("latent_mean", "latent_logvar")
TEXT_COLUMNS = ("text", "has_text")
_LENGTH = ".length"

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("prompt", pa.string()),
        ("latent_mean", pa.binary()),  # bfloat16, the network's scale and layout
        ("latent_logvar", pa.binary()),
        ("latent_shape", pa.list_(pa.int32())),
        ("text", pa.binary()),  # safetensors; null after the first row of a prompt
        ("has_text", pa.bool_()),
    ]
)


def tensor_bytes(tensor: Tensor) -> bytes:
    """`tensor` as raw bfloat16 bytes."""
    return tensor.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes()


def tensor_from_bytes(data: Any, shape: list[int]) -> Tensor:
    """The bfloat16 tensor of `shape` that `tensor_bytes` wrote; owns its memory."""
    return torch.from_numpy(np.frombuffer(data, dtype=np.int16).copy()).view(torch.bfloat16).view(shape)


def decode_posterior(row: Mapping[str, Any]) -> dict[str, Tensor]:
    """`latent_mean` and `latent_logvar` (bfloat16, in the network's scale) of a shard's row."""
    return {name: tensor_from_bytes(row[name], row["latent_shape"]) for name in POSTERIOR_COLUMNS}


def text_bytes(text: TextCondition) -> bytes:
    """The tensors of one prompt as safetensors, each without the zeros at the end of its first axis."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in text.items():
        filled = (tensor != 0).flatten(1).any(dim=1) if tensor.ndim > 1 else tensor != 0
        length = int(filled.nonzero().max()) + 1 if filled.any() else 0
        tensors[name] = tensor[:length].cpu().contiguous().clone()
        tensors[name + _LENGTH] = torch.tensor(len(tensor))
    return save(tensors)


def text_from_bytes(data: bytes) -> TextCondition:
    """What `text_bytes` was given, zeros and all."""
    stored = load(data)
    text = TextCondition()
    for name in [name for name in stored if not name.endswith(_LENGTH)]:
        text[name] = stored[name].new_zeros(int(stored[name + _LENGTH]), *stored[name].shape[1:])
        text[name][: len(stored[name])] = stored[name]
    return text


def decode_text(row: Mapping[str, Any]) -> TextCondition:
    """The text of a shard's row that carries it."""
    return text_from_bytes(bytes(row["text"]))


def text_columns(text: bytes | None) -> dict[str, Any]:
    """The text columns of a row: of one prompt, as `text_bytes` made it, or null."""
    return {"text": text, "has_text": text is not None}


def check_encoding(config: Mapping[str, Any], name: object) -> None:
    """Raises `ValueError` for a cache that another version of this package encoded; `config` is its artefact's."""
    if (found := config.get("encoding_version")) != ENCODING_VERSION:
        raise ValueError(
            f"{name}: its clips were encoded in another form (version {found or 'before 3'}, this lift_trl reads "
            f"{ENCODING_VERSION}). Run recipes/cache.py again with the same YAML; it encodes them anew."
        )


def metadata_row(video: RatedVideo, key: str) -> dict[str, Any]:
    """One line of `metadata.jsonl`."""
    return {
        "id": video.id,
        "key": key,
        "prompt": video.prompt,
        "is_real": video.is_real,
        "labels": {str(d): str(video.labels[d]) for d in video.rubric.dimensions} if video.labels else None,
        "reward": video.scalar_reward,
        "expected_reward": video.expected_reward,
    }


def video_from_row(row: Mapping[str, Any], rubric: Rubric) -> RatedVideo:
    """The rating of a line of `metadata.jsonl`, labels of `rubric`; of the clip there is the posterior, in a shard."""
    given = row["labels"]
    labels = {d: rubric.parse_label(given[d]) for d in rubric.dimensions} if given else None
    prompt, reward, expected = sys.intern(row["prompt"]), row["reward"], row.get("expected_reward")
    return RatedVideo(row["id"], b"", prompt, labels, reward, row["is_real"], expected, rubric)


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


def save_pairs(folder: Path | str, pairs: Sequence[tuple[str, str]]) -> None:
    """Writes the pairs into a cache's folder, before the cache is finished; none removes those of an earlier run."""
    path = Path(folder) / PAIRS_FILE
    if pairs:
        write_rows(path, [{"chosen": chosen, "rejected": rejected} for chosen, rejected in pairs])
    else:
        path.unlink(missing_ok=True)
