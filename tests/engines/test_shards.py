"""Shards: jobs that know nothing of one another do their parts, and a run of the whole finishes."""

import pytest
from accelerate import PartialState

from lift_trl.alignment.score import score_videos
from lift_trl.engines import EngineArguments, Processes, Shard
from lift_trl.store.manifest import METADATA_FILE, write_rows
from tests.engines.mortal import MortalJudge, files_of, judged


def test_shards_in_any_order_and_a_run_that_does_what_they_left(tmp_path):
    clips, state = tmp_path / "clips", PartialState(cpu=True)
    clips.mkdir()
    rows = [{"id": f"c{i}", "file_name": f"{i}.mp4", "prompt": "x" * (4 + 2 * i)} for i in range(9)]
    for row in rows:
        (clips / row["file_name"]).write_bytes(row["id"].encode())
    write_rows(clips / METADATA_FILE, rows)
    options = {"with_reason": True, "batch_size": 2}
    whole = score_videos(MortalJudge(tmp_path / "whole.log"), clips, tmp_path / "whole", **options)
    out, log = tmp_path / "out", tmp_path / "log"
    for number in (2, 0, 2):  # the last one is started a second time, the one between never ran
        workers = Processes(state, Shard(number, 3))
        score_videos(MortalJudge(log), clips, out, workers=workers, **options)
        assert not (out / "artifact.yaml").exists()
    assert [name for _, name in judged(log)] == ["4.mp4", "5.mp4", "0.mp4", "1.mp4", "6.mp4", "7.mp4"]
    score_videos(MortalJudge(log), clips, out, **options)
    assert files_of(out) == files_of(whole)
    assert [name for _, name in judged(log)][6:] == ["2.mp4", "3.mp4", "8.mp4"]


@pytest.mark.parametrize("text", ["3", "3/3", "-1/3", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="NUMBER/OF"):
        EngineArguments(shard=text).workers(PartialState(cpu=True))


def test_ray_has_no_shards():
    with pytest.raises(ValueError, match="leave it out"):
        EngineArguments(engine="ray", shard="0/2").workers(PartialState(cpu=True))
