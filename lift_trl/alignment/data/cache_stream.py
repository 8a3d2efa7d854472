"""The rows of a cache as a stream, from the Hub or a folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow.parquet as pq
import yaml

from ...hub.parents import hub_parent
from ...remote import is_remote
from ...store.manifest import ARTIFACT_FILE, METADATA_FILE
from .cache_format import SCHEMA, SHARDS_DIR, TEXT_COLUMNS, check_encoding


if TYPE_CHECKING:
    import datasets


def stream_cached_videos(repo_or_folder: str) -> "datasets.IterableDataset":
    """
    The rows of a cache as a `datasets.IterableDataset`, streamed from the Hub or a folder; every row carries its text.

    `datasets.distributed.split_dataset_by_node` splits it by shards where their number divides by the world size, else
    by rows; `state_dict` and `load_state_dict` go on at the next row. Yields the columns of the shards, and the rating as
    `id, is_real, labels (JSON), reward, expected_reward`. Of a repo it is the newest commit at the time of the call.

    Raises:
        FileNotFoundError: if there is no finished cache.
        ValueError: if another version of this package encoded it.
    """
    from datasets import Features, IterableDataset, Value

    is_folder = is_remote(repo_or_folder) or Path(repo_or_folder).is_dir()
    root = repo_or_folder if is_folder else f"hf://{hub_parent(repo_or_folder, repo_type='dataset')}"
    files, folder = fsspec.url_to_fs(root)
    paths = sorted(files.glob(f"{folder}/{SHARDS_DIR}/*.parquet"))
    missing = [name for name in (METADATA_FILE, ARTIFACT_FILE) if not files.exists(f"{folder}/{name}")]
    if missing or not paths:
        raise FileNotFoundError(f"{repo_or_folder}: no finished cache ({(missing or [SHARDS_DIR])[0]} is missing).")
    check_encoding(yaml.safe_load(files.read_text(f"{folder}/{ARTIFACT_FILE}"))["config"], repo_or_folder)
    ratings: dict[str, list[dict[str, Any]]] = {}
    for line in files.read_text(f"{folder}/{METADATA_FILE}", encoding="utf-8").split("\n")[:-1]:
        # (not splitlines: a prompt may hold other line ends)
        row = json.loads(line)
        ratings.setdefault(row["key"], []).append({name: row.get(name) for name in _RATING})
    features = Features.from_arrow_schema(SCHEMA) | {name: Value(kind) for name, kind in _RATING.items()}
    del features["key"]
    arguments = {"paths": paths, "root": root, "ratings": ratings}
    return IterableDataset.from_generator(_rows, features=Features(features), gen_kwargs=arguments)


_RATING = {
    "id": "string",
    "is_real": "bool",
    "labels": "string",
    "reward": "float64",
    "expected_reward": "float64",
}


def _rows(paths: Sequence[str], root: str, ratings: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """
    The rows of some shards, each joined with its rating and its text.

    The join is here, below all that a stream can be put through, since the text of a prompt stands in one row of a shard
    only: a stream that is filtered, shuffled, split or goes on in the middle does not pass that row.
    """
    files, _ = fsspec.url_to_fs(root)
    for path in paths:
        with files.open(path, "rb") as opened, pq.ParquetFile(opened) as shard:
            held: tuple[str, dict[str, Any]] | None = None
            for group in range(shard.num_row_groups):
                for row in shard.read_row_group(group, use_threads=False).to_pylist():
                    if row["has_text"]:
                        held = row["prompt"], {name: row[name] for name in TEXT_COLUMNS}
                    elif held is None or held[0] != row["prompt"]:
                        held = row["prompt"], _text(shard, row["prompt"])
                    for rating in ratings.get(row.pop("key"), []):
                        yield {**row, **held[1], **rating, "labels": json.dumps(rating["labels"])}


def _text(shard: pq.ParquetFile, prompt: str) -> dict[str, Any]:
    """The text columns of `prompt`, from whichever row of the shard carries them."""
    for group in range(shard.num_row_groups):
        places = shard.read_row_group(group, columns=["prompt", "has_text"], use_threads=False).to_pylist()
        for number, row in enumerate(places):
            if row["prompt"] == prompt and row["has_text"]:
                table = shard.read_row_group(group, columns=list(TEXT_COLUMNS), use_threads=False)
                return dict(table.slice(number, 1).to_pylist()[0])
    raise ValueError(
        f"no row of the shard carries the text of {prompt!r}. Run recipes/cache.py again, and push the cache."
    )
