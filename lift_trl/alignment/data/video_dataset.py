"""Cached rows as training samples: random access over a folder, or over a repo that is downloaded."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from torch.utils.data import Dataset

from ...hub_source import pinned
from ...records import RatedVideo, TextCondition, TrainBatch, content_id
from ...remote import local_copy
from ...store.manifest import ARTIFACT_FILE, METADATA_FILE, Artifact, read_rows
from ..objectives import OBJECTIVES, Objective, ObjectiveArguments, RatedRows, TrainingRows
from .cache_format import (
    PAIRS_FILE,
    POSTERIOR_COLUMNS,
    TEXT_COLUMNS,
    TEXT_DIR,
    check_encoding,
    decode_posterior,
    decode_text,
    open_shard,
    shard_paths,
    video_from_row,
)
from .ratings import Ratings
from .text_cache import TextCache


_OPEN_FILES = 32


class _Location(NamedTuple):
    """Where the cached rows are: arrays over clips, shard number, row group and row in it, for posterior and text."""

    shard: np.ndarray
    group: np.ndarray
    row: np.ndarray
    text_group: np.ndarray
    text_row: np.ndarray


class _Role(NamedTuple):
    """A row of a batch: what its draws are keyed on, its preference, how many rows further its partner stands."""

    draw_id: str | None = None
    preference: Tensor | None = None
    partner: Tensor = torch.tensor(0)


class CachedVideoDataset(Dataset[dict[str, Any]]):
    """
    The rows of a finished cache, for random access.

    An index of some 50 bytes a clip is held in memory; posteriors and text are read from the Parquet files when asked
    for, a clip costs one read of its row group.

    Args:
        path: a folder that `cache_videos` wrote, or the id of a dataset repo on the Hub that holds one.

    Raises:
        FileNotFoundError: if the cache is not finished.
        ValueError: if a row of `metadata.jsonl` is missing or is in no shard, a shard is damaged, or another version of this
            package encoded the clips.
    """

    def __init__(self, path: Path | str, *, revision: str | None = None) -> None:
        folder = Path(local_copy(path))
        if not folder.is_dir() and isinstance(path, str) and path.count("/") == 1 and not path.startswith((".", "/")):
            folder = _downloaded(path, revision)
        if not folder.is_dir() or not (folder / METADATA_FILE).is_file():
            raise FileNotFoundError(
                f"{path}: no finished cache ({METADATA_FILE} is missing). Run recipes/cache.py again; it goes on where it "
                "stopped."
            )
        self.folder = folder
        self.artifact = Artifact.load(folder)
        check_encoding(self.artifact.config, path)
        self.rubric = self.artifact.rubric
        self.videos: list[RatedVideo] = []
        keys: list[str] = []
        for row in read_rows(folder / METADATA_FILE):
            self.videos.append(video_from_row(row, self.rubric))
            keys.append(row["key"])
        num_rows = self.artifact.config["num_generated"] + self.artifact.config["num_real"]
        if len(keys) != num_rows:
            raise ValueError(
                f"{folder / METADATA_FILE}: {len(keys)} rows, {ARTIFACT_FILE} says {num_rows}. Run recipes/cache.py again; "
                "it writes the file anew."
            )
        self._paths = shard_paths(folder)
        self._location = self._locate(keys)
        self._files: dict[int, pq.ParquetFile] = {}
        self._ratings = Ratings.of(self.videos, None)
        self._use(TrainingRows.all(len(self.videos)))

    def weighted(self, args: ObjectiveArguments, objective: Objective | None = None) -> "CachedVideoDataset":
        """
        The same clips as `objective` (by default that of `args`) trains on them: rows or pairs, with their weights.

        Raises:
            ValueError: if the ratings are not what the objective needs.
        """
        view = object.__new__(CachedVideoDataset)
        view.__dict__.update(self.__dict__)
        weights = args.clip_dimension_weights()
        view._ratings = Ratings.of(self.videos, weights, expected=args.expected_reward)
        ids, prompts = [video.id for video in self.videos], [video.prompt for video in self.videos]
        ordered = weights and self.rubric.check_dimension_weights(weights)
        best = self.rubric.rewards[self.rubric.best]
        rows = RatedRows(*view._ratings, ids, prompts, self._pairs(ids), ordered, best)
        view._use((objective or OBJECTIVES[args.objective]).select(rows, args))
        return view

    def _use(self, rows: TrainingRows) -> None:
        """Trains on `rows`: a unit is a pair (preferred, other) or one clip (and -1)."""
        self.training_rows = rows
        self._kept = rows.keep.nonzero().flatten().numpy()
        singles = (rows.keep & (self._ratings.is_real | (len(rows.pairs) == 0))).nonzero()
        alone = torch.cat([singles, torch.full_like(singles, -1)], dim=1)
        self._units = torch.cat([rows.pairs, alone]).numpy()

    def _pairs(self, ids: Sequence[str]) -> list[tuple[int, int]] | None:
        """Positions of the pairs that people chose, where the cache holds any."""
        path = self.folder / PAIRS_FILE
        if not path.is_file():
            return None
        place = {name: position for position, name in enumerate(ids)}
        named = [(row["chosen"], row["rejected"]) for row in read_rows(path)]
        if missing := {name for pair in named for name in pair}.difference(place):
            raise ValueError(
                f"{path}: names {len(missing)} clips that the cache lacks, first {min(missing)!r}. Run recipes/cache.py "
                "again with the same --preferences."
            )
        return [(place[chosen], place[rejected]) for chosen, rejected in named]

    def text_cache(self) -> TextCache:
        """The prompts embedded beside the clips': the empty one, and those of validation."""
        return TextCache(self.folder / TEXT_DIR, self.artifact.config["text_fingerprint"])

    @property
    def ratings(self) -> Ratings:
        """Ratings of the kept rows."""
        return Ratings(*(column[self._kept] for column in self._ratings))

    @property
    def weight(self) -> Tensor:
        """Weights of the kept rows, float32 [N]."""
        return self.training_rows.weight[self._kept]

    def __len__(self) -> int:
        """Pairs and single clips."""
        return len(self._units)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row of a clip; of a pair that of the preferred one."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of a batch (the data loader calls this), two for each pair; what they share is read once."""
        tables: dict[tuple[int, int, Sequence[str]], pa.Table] = {}

        def read(shard: int, group: int, row: int, columns: tuple[str, ...]) -> dict[str, Any]:
            place = (shard, group, columns)
            if place not in tables:
                tables[place] = self._file(shard).read_row_group(group, columns=list(columns), use_threads=False)
            return {name: _value(tables[place].column(name)[row]) for name in columns}

        rows, chosen = [], self.training_rows
        for position, unit in self._places(indices):
            shard, group, row, text_group, text_row = (int(column[position]) for column in self._location)
            rows.append(
                {
                    **decode_posterior(read(shard, group, row, (*POSTERIOR_COLUMNS, "latent_shape"))),
                    "text": decode_text(read(shard, text_group, text_row, TEXT_COLUMNS)),
                    "weight": chosen.weight[position],
                    "advantage": chosen.advantage[position],
                    "preference": chosen.preference[position] if unit.preference is None else unit.preference,
                    "partner": unit.partner,
                    "reward": self._ratings.reward[position],
                    "dimension_reward": self._ratings.dimension_reward[position],
                    "is_real": self._ratings.is_real[position],
                    "id": self.videos[position].id,
                    "draw_id": unit.draw_id or self.videos[position].id,
                }
            )
        return rows

    def _places(self, indices: Sequence[int]) -> Iterator[tuple[int, "_Role"]]:
        """Positions of the clips of the units, and what each is there for."""
        for preferred, other in self._units[list(indices)].tolist():
            if other < 0:
                yield preferred, _Role()
                continue
            draw_id = content_id("pair", *sorted((self.videos[preferred].id, self.videos[other].id)))
            yield preferred, _Role(draw_id, torch.tensor(1), torch.tensor(1))
            yield other, _Role(draw_id, torch.tensor(-1), torch.tensor(-1))

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay behind: each data loader worker opens its own.
        return {**self.__dict__, "_files": {}}

    def _locate(self, keys: Sequence[str]) -> _Location:
        index = _shard_index(self._paths)
        missing = [video.id for video, key in zip(self.videos, keys, strict=True) if key not in index]
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} clips of {METADATA_FILE} are in no shard, first {missing[0]!r}. "
                "Run recipes/cache.py again; it encodes what is missing."
            )
        columns = np.array([index[key] for key in keys], dtype=np.int32).reshape(len(keys), 5)
        return _Location(*columns.T)

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard not in self._files:
            if len(self._files) == _OPEN_FILES:
                # The one opened first; a file's footer takes memory, and opening it again a fraction of a millisecond.
                self._files.pop(next(iter(self._files))).close()
            self._files[shard] = open_shard(self._paths[shard])
        return self._files[shard]


def _downloaded(repo: str, revision: str | None) -> Path:
    source = pinned(repo, revision)
    try:
        with source.named():
            return Path(snapshot_download(source.repo_id, repo_type="dataset", revision=source.revision))
    except ValueError as error:
        raise FileNotFoundError(
            f"{repo}: no finished cache here, and no such dataset repo on the Hub (or none that this token reads). Correct "
            "the path, or run recipes/cache.py first."
        ) from error


def _value(scalar: pa.Scalar) -> Any:
    """A Python value; binary stays a view of Arrow's buffer, so that it is copied once."""
    return scalar.as_buffer() if isinstance(scalar, pa.BinaryScalar) else scalar.as_py()


def _shard_index(paths: Sequence[Path]) -> dict[str, tuple[int, int, int, int, int]]:
    """Key -> (shard, group, row, group of its text, row of its text in that group)."""
    index: dict[str, tuple[int, int, int, int, int]] = {}
    for shard, path in enumerate(paths):
        with open_shard(path) as file:
            texts: dict[str, tuple[int, int]] = {}
            places: dict[str, tuple[int, int, str]] = {}
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["key", "prompt", "has_text"])
                with_text = table.column("has_text").to_pylist()
                prompts = table.column("prompt").to_pylist()
                for row, key in enumerate(table.column("key").to_pylist()):
                    places[key] = (group, row, prompts[row])
                    if with_text[row]:
                        texts[prompts[row]] = (group, row)
            index |= {key: (shard, group, row, *texts[prompt]) for key, (group, row, prompt) in places.items()}
    return index


def collate(rows: Sequence[Mapping[str, Any]]) -> TrainBatch:
    """B rows of one cache stacked into a `TrainBatch`; the rows of a pair follow each other."""
    lists = {name: [row[name] for row in rows] for name in ("id", "draw_id")}
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name not in ("text", *lists)}
    stacked["partner"] = torch.arange(len(rows)) + stacked["partner"]
    stacked["counts"] = torch.ones(len(rows), dtype=torch.bool)
    text = TextCondition({name: torch.stack([row["text"][name] for row in rows]) for name in rows[0]["text"]})
    return TrainBatch(**stacked, **lists, text=text)  # type: ignore[typeddict-item]


def is_first(batch: TrainBatch) -> Tensor:
    """Of each row whether a unit, a clip or a pair, begins with it: bool [B]."""
    return batch["partner"] >= torch.arange(len(batch["partner"]), device=batch["partner"].device)


def num_units(batch: TrainBatch) -> Tensor:
    """How many clips and pairs of the batch count."""
    return (is_first(batch) & batch["counts"]).sum()
