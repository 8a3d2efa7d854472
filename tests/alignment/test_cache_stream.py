"""A streamed row carries the text of its own prompt, whatever the stream is put through."""

import itertools
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.cache_format import SCHEMA, decode_text, shard_paths
from lift_trl.alignment.data.cache_stream import stream_cached_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.records import RatedVideo
from tests.alignment.conftest import SIZE, moving_square


@pytest.fixture(scope="module")
def many(tmp_path_factory, pipeline_dir):
    """Eleven clips of three prompts in shards of four: a prompt goes over a shard's end, the last shard is short."""
    folder = tmp_path_factory.mktemp("many")
    prompts = ["a red circle moving left", "a blue square moving up", "a green triangle moving down"]
    clips = [
        RatedVideo(f"c{i}", moving_square(folder / f"{i}.mp4", i), prompts[i % 3], None, 0.1 + i / 20, False, i / 11)
        for i in range(11)
    ]
    return cache_videos(pipeline_dir, clips, folder / "cache", **SIZE, rows_per_shard=4)


@pytest.fixture(scope="module")
def expected(many):
    dataset = CachedVideoDataset(many)
    return {video.id: (video.prompt, dataset[index]) for index, video in enumerate(dataset.videos)}


def check(rows, expected) -> list[str]:
    """Each row against random access; returns the ids."""
    ids = []
    for row in rows:
        prompt, known = expected[row["id"]]
        text = decode_text(row)
        assert row["prompt"] == prompt and text.keys() == known["text"].keys(), row["id"]
        assert all(torch.equal(text[name], known["text"][name]) for name in text), row["id"]
        assert row["reward"] == pytest.approx(float(known["reward"]))
        assert row["expected_reward"] == pytest.approx(int(row["id"][1:]) / 11) and row["labels"] == "null"
        ids.append(row["id"])
    return ids


@pytest.mark.parametrize(
    ("change", "shuffles"),
    [
        (lambda stream: stream, False),
        (lambda stream: stream.filter(lambda row: int(row["id"][1:]) % 2 == 1), False),
        (lambda stream: stream.skip(3).take(5), False),
        (lambda stream: stream.repeat(2), False),
        (lambda stream: stream.shuffle(seed=3, buffer_size=5), True),
        (lambda stream: stream.shuffle(seed=1, buffer_size=2).skip(2), True),
    ],
    ids=["plain", "filter", "skip, take", "repeat", "shuffle", "shuffle, skip"],
)
def test_whatever_a_stream_is_put_through(many, expected, change, shuffles):
    stream = change(stream_cached_videos(str(many)))
    whole = check(stream, expected)
    assert len(whole) in (11, 5, 9, 22)
    for seen in range(1, len(whole)):
        first = iter(stream)
        assert check(itertools.islice(first, seen), expected) == whole[:seen]
        again = change(stream_cached_videos(str(many)))
        again.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        rest = check(again, expected)
        # datasets does not keep the rows of a shuffle's buffer: it is filled anew with those that follow.
        assert rest == whole[seen:] if not shuffles else set(rest) <= set(whole)


@pytest.mark.parametrize("world_size", [2, 3])
def test_split_over_processes_and_workers(many, expected, world_size):
    parts = [split_dataset_by_node(stream_cached_videos(str(many)), rank, world_size) for rank in range(world_size)]
    ids = [check(part, expected) for part in parts]
    assert sorted(itertools.chain(*ids)) == sorted(expected)
    stream = pickle.loads(pickle.dumps(stream_cached_videos(str(many))))
    assert sorted(check(DataLoader(stream, batch_size=None, num_workers=2), expected)) == sorted(expected)


def test_a_shard_in_another_order_is_read_by_its_prompts(many, expected, tmp_path):
    """The row that carries a prompt's text may stand behind the others, in a row group of its own."""
    copy = tmp_path / "cache"
    (copy / "shards").mkdir(parents=True)
    for name in ("metadata.jsonl", "artifact.yaml"):
        (copy / name).write_bytes((many / name).read_bytes())
    for path in shard_paths(many):
        rows = pq.read_table(path).to_pylist()[::-1]
        with pq.ParquetWriter(copy / "shards" / path.name, SCHEMA) as writer:
            for row in rows:
                writer.write_table(pa.Table.from_pylist([row], schema=SCHEMA))
    assert sorted(check(stream_cached_videos(str(copy)), expected)) == sorted(expected)
    dataset = CachedVideoDataset(copy)
    for index, video in enumerate(dataset.videos):
        text, known = dataset[index]["text"], expected[video.id][1]["text"]
        assert all(torch.equal(text[name], known[name]) for name in known)


def test_what_is_no_cache_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished cache"):
        stream_cached_videos(str(tmp_path))
