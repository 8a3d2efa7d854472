import math
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import CogVideoXPipeline
from torch.testing import assert_close

from lift_trl.alignment.data.cache import cache_videos, cached_keys, clip_parents
from lift_trl.alignment.data.cache_format import decode_posterior, decode_text, shard_paths
from lift_trl.alignment.data.cache_stream import stream_cached_videos
from lift_trl.alignment.data.clips import ClipSize, load_clip, read_clip
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.video_models import open_pipeline
from tests.alignment.conftest import SIZE, WatchedSource, moving_square
from tests.processes import Job


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shard_paths(folder)}


def test_posterior_and_text_equal_the_pipelines_own(cached, pipeline_dir, rated_videos):
    source = open_pipeline(pipeline_dir)
    pipe = source.load("tokenizer", "text_encoder", "vae", dtype=torch.float32)
    for index in (0, 4, 7):
        video, row = rated_videos[index], cached[index]
        clip = load_clip(video.video, ClipSize(9, 32, 32, 8.0), source.adapter)
        with torch.no_grad():
            posterior = pipe.vae.encode(clip.transpose(0, 1)[None]).latent_dist
            embeds, _ = pipe.encode_prompt(video.prompt, do_classifier_free_guidance=False, max_sequence_length=6)
        assert_close(row["latent_mean"], (0.7 * posterior.mean[0]).transpose(0, 1).bfloat16())
        logvar = posterior.logvar[0] + 2 * math.log(0.7)
        assert_close(row["latent_logvar"], logvar.transpose(0, 1).bfloat16())
        assert_close(row["text"]["prompt_embeds"], embeds[0])
        assert row["id"] == video.id and bool(row["is_real"]) == video.is_real


def test_a_cache_of_another_version_is_refused_and_encoded_anew(tmp_path, pipeline_dir, rated_videos):
    folder = cache_videos(pipeline_dir, rated_videos[:2], tmp_path / "c", **SIZE)
    artifact = (folder / "artifact.yaml").read_text()
    for old, found in (("encoding_version: 2", "version 2"), ("", "version before 3")):
        (folder / "artifact.yaml").write_text(artifact.replace("encoding_version: 3", old))
        for load in (CachedVideoDataset, stream_cached_videos):
            with pytest.raises(ValueError, match=rf"{folder}: .*{found}.*reads 3\). Run recipes/cache.py again"):
                load(str(folder))
    cache_videos(pipeline_dir, rated_videos[:2], folder, **SIZE)
    assert len(CachedVideoDataset(folder)) == 2


def test_shards_hold_no_reward_and_text_once_a_prompt(cache_dir):
    shards = shard_paths(cache_dir)
    assert [pq.read_metadata(path).num_rows for path in shards] != [8] and len(shards) == 3
    for path in shards:
        rows = pq.read_table(path).to_pylist()
        assert not {"reward", "labels"} & set(rows[0])
        carriers = [row["prompt"] for row in rows if row["text"] is not None]
        assert [row["has_text"] for row in rows] == [row["text"] is not None for row in rows]
        assert carriers == list(dict.fromkeys(row["prompt"] for row in rows))
        assert decode_text(rows[0])["prompt_embeds"].dtype == torch.float32
        assert decode_posterior(rows[0])["latent_mean"].dtype == torch.bfloat16


def test_a_second_run_encodes_nothing(cache_dir, pipeline_dir, rated_videos):
    before = {path: path.stat().st_mtime_ns for path in shard_paths(cache_dir)}
    cache_videos(pipeline_dir, rated_videos, cache_dir, **SIZE, rows_per_shard=3)
    assert before == {path: path.stat().st_mtime_ns for path in shard_paths(cache_dir)}


def test_the_text_encoder_has_left_before_the_vae_comes_and_the_vae_at_the_end(tmp_path, pipeline_dir, rated_videos):
    source, prompt = WatchedSource(pipeline_dir), rated_videos[0].prompt
    cache_videos(source, rated_videos[:2], tmp_path / "c", **SIZE, extra_prompts=["a fox", prompt])
    assert source.loads == [("tokenizer", "text_encoder"), ("vae",)]
    assert source.in_memory() == []
    # A prompt of a clip that validation samples too stands in a shard and beside it; no other clip's does.
    texts = CachedVideoDataset(tmp_path / "c").text_cache()
    assert texts.missing(["", "a fox", prompt, rated_videos[1].prompt]) == [rated_videos[1].prompt]
    assert len(list(texts.folder.iterdir())) == 3
    assert_close(dict(texts.load(prompt)), dict(CachedVideoDataset(tmp_path / "c")[0]["text"]))
    cache_videos(source, rated_videos[:2], tmp_path / "c", **SIZE, extra_prompts=["a fox", "a bird"])
    assert source.loads[2:] == [("tokenizer", "text_encoder")] and texts.missing(["a bird"]) == []


def test_new_ratings_reencode_nothing_and_a_new_clip_only_itself(tmp_path, pipeline_dir, rated_videos):
    cache_videos(pipeline_dir, rated_videos[:4], tmp_path / "c", **SIZE)
    first = shard_bytes(tmp_path / "c")
    rescored = [replace(video, labels=None, scalar_reward=0.3) for video in rated_videos[:5]]
    cache_videos(pipeline_dir, rescored, tmp_path / "c", **SIZE)
    second = shard_bytes(tmp_path / "c")
    new = set(second) - set(first)
    assert len(new) == 1 and {name: second[name] for name in first} == first
    assert pq.read_metadata(tmp_path / "c" / "shards" / new.pop()).num_rows == 1
    assert_close(CachedVideoDataset(tmp_path / "c").ratings.reward, torch.full((5,), 0.3))


def test_everything_that_changes_the_bytes_changes_the_key(tmp_path, pipeline_dir, rated_videos):
    def keys(name, *, model=pipeline_dir, videos=rated_videos[:1], **size):
        return cached_keys(cache_videos(model, videos, tmp_path / name, **{**SIZE, **size}))

    other_model = tmp_path / "other"
    build_tiny_pipeline(other_model, seed=1)
    variants = [
        keys("base"),
        keys("height", height=40),
        keys("frames", num_frames=1),
        keys("fps", fps=4.0, num_frames=1),
        keys("model", model=other_model),
        keys("prompt", videos=[replace(rated_videos[0], prompt="a fox")]),
        keys("bytes", videos=[replace(rated_videos[0], video=rated_videos[1].video)]),
    ]
    assert len(set().union(*variants)) == len(variants)
    assert keys("again") == variants[0]


def test_cache_of_a_folder_a_pipeline_and_bytes_agree(tmp_path, pipeline_dir, rated_videos):
    in_memory = [replace(video, video=video.video.read_bytes()) for video in rated_videos[:2]]
    one = cache_videos(pipeline_dir, in_memory, tmp_path / "one", **SIZE)
    two = cache_videos(pipeline_dir, rated_videos[:2], tmp_path / "two", **SIZE)
    assert shard_bytes(one) == shard_bytes(two)
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    three = cache_videos(pipe, rated_videos[:2], tmp_path / "three", **SIZE)
    assert_close(CachedVideoDataset(three)[0]["latent_mean"], CachedVideoDataset(one)[0]["latent_mean"])


def test_a_repo_of_the_hub_is_cached_as_its_folder_is_and_named_as_a_parent(hub, tmp_path, pipeline_dir):
    moving_square(tmp_path / "clips" / "a.mp4", 3)
    (tmp_path / "clips" / "metadata.csv").write_text("file_name,prompt,reward\na.mp4,a fox,0.5\n")
    hub.api().create_repo("dev/clips-to-cache", repo_type="dataset")
    commit = hub.api().upload_folder(repo_id="dev/clips-to-cache", repo_type="dataset", folder_path=tmp_path / "clips")
    local = cache_videos(pipeline_dir, tmp_path / "clips", tmp_path / "local", **SIZE)
    remote = cache_videos(pipeline_dir, "dev/clips-to-cache", tmp_path / "remote", **SIZE)
    assert shard_bytes(remote) == shard_bytes(local)
    assert (remote / "metadata.jsonl").read_bytes() == (local / "metadata.jsonl").read_bytes()
    named = {"clips-to-cache": f"datasets/dev/clips-to-cache@{commit.oid}"}
    assert clip_parents(["dev/clips-to-cache"]) == clip_parents([f"dev/clips-to-cache@{commit.oid}"]) == named


@pytest.mark.parametrize("num_frames, nearest", [(13, "9 and 17"), (0, "1 and 9")])
def test_illegal_frame_counts_name_the_nearest_legal(tmp_path, pipeline_dir, rated_videos, num_frames, nearest):
    with pytest.raises(ValueError, match=f"Nearest legal values: {nearest}"):
        cache_videos(pipeline_dir, rated_videos, tmp_path, num_frames=num_frames, height=32, width=32)


def test_illegal_sizes_name_the_nearest_legal(tmp_path, pipeline_dir, rated_videos):
    with pytest.raises(ValueError, match="width=30: must be a multiple of 8. Nearest legal value: 32"):
        cache_videos(pipeline_dir, rated_videos, tmp_path, num_frames=9, height=32, width=30)


def test_clips_that_cannot_be_used_are_all_named_before_a_model_is_loaded(tmp_path, pipeline_dir, rated_videos):
    cut, short = tmp_path / "cut.mp4", moving_square(tmp_path / "short.mp4", 5, num_frames=8)
    cut.write_bytes(moving_square(tmp_path / "w.mp4", 3, num_frames=30, size=64).read_bytes()[:1500])
    videos = [*rated_videos[:2], *(replace(rated_videos[2], id=path.stem, video=path) for path in (cut, short))]
    source = WatchedSource(pipeline_dir)
    with pytest.raises(ValueError, match=r"2 clips cannot be used") as caught:
        cache_videos(source, videos, tmp_path / "c", **SIZE)
    named = {Path(line.split(": ")[0].strip()).name: line for line in str(caught.value).splitlines()[1:]}
    assert set(named) == {"cut.mp4", "short.mp4"} and source.loads == []
    assert "truncated" in named["cut.mp4"] and "num_frames=1." in named["short.mp4"]


def test_a_clip_that_only_decoding_finds_bad_is_named_and_finished_shards_stay(tmp_path, pipeline_dir, rated_videos):
    videos = [replace(video, prompt="a") for video in rated_videos[:3]]
    broken = tmp_path / "broken.mp4"
    data = bytearray(moving_square(broken, 3, num_frames=30, size=64).read_bytes())
    place = data.index(b"mdat") + 800
    data[place : place + 400] = bytes(400)
    broken.write_bytes(data)
    videos.append(replace(rated_videos[3], video=broken, prompt="z"))
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        cache_videos(pipeline_dir, videos, tmp_path / "c", **SIZE, rows_per_shard=3)
    finished = shard_bytes(tmp_path / "c")
    assert len(finished) == 1
    with pytest.raises(FileNotFoundError, match="no finished cache"):
        CachedVideoDataset(tmp_path / "c")
    cache_videos(pipeline_dir, videos[:3], tmp_path / "c", **SIZE, rows_per_shard=3)
    assert shard_bytes(tmp_path / "c") == finished


def test_the_next_clips_are_decoded_while_the_vae_encodes_also_across_shards(
    tmp_path, pipeline_dir, rated_videos, monkeypatch
):
    begun, events = [], [Event() for _ in range(6)]

    def watched(video, size, model):
        begun.append(video)
        events[len(begun) - 1].set()
        return read_clip(video, size, model)

    monkeypatch.setattr("lift_trl.alignment.data.cache.read_clip", watched)
    source = open_pipeline(pipeline_dir)
    encode, encoded = source.adapter.encode_video, []

    def waiting(pipe, clip):
        encoded.append(clip.dtype)
        assert events[min(len(encoded) + 1, 5)].wait(20), "the two clips after this one were not begun"
        return encode(pipe, clip)

    source.adapter.encode_video = waiting
    folder = cache_videos(source, rated_videos[:6], tmp_path / "c", **SIZE, rows_per_shard=2)
    assert encoded == [torch.float32] * 6
    monkeypatch.undo()
    whole = cache_videos(pipeline_dir, rated_videos[:6], tmp_path / "whole", **SIZE, rows_per_shard=2)
    assert shard_bytes(folder) == shard_bytes(whole)


def cache_on_a_full_disk(*args):
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
    cache_videos(*args, **SIZE)


def test_full_disk_is_named_and_nothing_half_written_stays(tmp_path, pipeline_dir, rated_videos):
    folder = tmp_path / "c"
    cache_videos(pipeline_dir, rated_videos[:1], folder, **SIZE)
    done = shard_bytes(folder)
    run = Job(tmp_path / "log", cache_on_a_full_disk, pipeline_dir, rated_videos, folder)
    assert run.wait() == [1] and "The shard was not written; finished shards are kept" in run.output
    assert shard_bytes(folder) == done
    assert [path.name for path in (folder / "shards").iterdir()] == list(done)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_killed_runs_resume_to_the_same_bytes(tmp_path, pipeline_dir, rated_videos):
    """kill -9 after each of the first shards, then finish: shards and metadata equal those of one whole run."""
    whole = cache_videos(pipeline_dir, rated_videos, tmp_path / "whole", **SIZE, rows_per_shard=2)
    folder = tmp_path / "killed"
    job = Job(tmp_path / "log", cache_videos, pipeline_dir, rated_videos, folder, **SIZE, rows_per_shard=2)
    deadline = time.monotonic() + 120
    while not shard_paths(folder) and job.running() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert job.kill() == [-signal.SIGKILL]
    assert 1 <= len(shard_paths(folder)) < 4 and not (folder / "metadata.jsonl").exists()
    cache_videos(pipeline_dir, rated_videos, folder, **SIZE, rows_per_shard=2)
    assert shard_bytes(folder) == shard_bytes(whole)
    assert (folder / "metadata.jsonl").read_bytes() == (whole / "metadata.jsonl").read_bytes()
    assert not (folder / ".text").exists()


def cut(path: Path, num_bytes: int) -> None:
    """Takes `num_bytes` from the end, as a full disk or a broken copy does."""
    path.write_bytes(path.read_bytes()[:-num_bytes])


def test_damage_is_named_with_the_remedy_and_the_next_run_mends_it(tmp_path, pipeline_dir, rated_videos):
    folder = cache_videos(pipeline_dir, rated_videos, tmp_path / "c", **SIZE, rows_per_shard=3)
    whole = shard_bytes(folder)
    metadata = (folder / "metadata.jsonl").read_bytes()
    shard = next(path for path in shard_paths(folder) if pq.read_metadata(path).num_rows == 3)
    text = next((folder / "text").iterdir())
    cut(shard, 100)
    with pytest.raises(ValueError, match=f"{shard.name}: the shard is damaged .*Run recipes/cache.py again"):
        CachedVideoDataset(folder)
    # Other shards of the same clips: the damaged one is not written over, so it must be deleted.
    cache_videos(pipeline_dir, rated_videos, folder, **SIZE, rows_per_shard=2)
    assert shard.name not in shard_bytes(folder) and len(CachedVideoDataset(folder)) == 8
    cache_videos(pipeline_dir, rated_videos, folder, **SIZE, rows_per_shard=3)
    assert {name: data for name, data in whole.items() if name != shard.name}.items() <= shard_bytes(folder).items()

    texts = CachedVideoDataset(folder).text_cache()
    (folder / "metadata.jsonl").write_bytes(b"".join(metadata.splitlines(keepends=True)[:7]))
    with pytest.raises(ValueError, match=r"metadata.jsonl: 7 rows, artifact.yaml says 8. Run recipes/cache.py again"):
        CachedVideoDataset(folder)
    cut(text, 10)
    with pytest.raises(ValueError, match=f"{text.name}: the embedding of '' is damaged .*Run recipes/cache.py again"):
        texts.load("")
    text.unlink()
    with pytest.raises(FileNotFoundError, match=f"{text.name}: no embedding of ''. Run recipes/cache.py again"):
        texts.load("")
    text.write_bytes(b"half")
    cut(folder / "metadata.jsonl", 5)
    cache_videos(pipeline_dir, rated_videos, folder, **SIZE, rows_per_shard=3)
    assert (folder / "metadata.jsonl").read_bytes() == metadata
    assert texts.load("")["prompt_embeds"].shape == CachedVideoDataset(folder)[0]["text"]["prompt_embeds"].shape


def test_what_no_row_uses_is_gone_at_the_end(tmp_path, pipeline_dir, rated_videos):
    """Halves that kill -9 left behind, and shards of other settings; not shards of which one row is still used."""
    folder = cache_videos(pipeline_dir, rated_videos[:3], tmp_path / "c", **SIZE)
    for name in ("shards/.a.parquet.1.tmp", "text/.b.safetensors.0.tmp", ".metadata.jsonl.1.tmp"):
        (folder / name).write_bytes(b"half")
    (used,) = shard_paths(folder)
    cache_videos(pipeline_dir, rated_videos[2:4], folder, **SIZE)
    assert used in shard_paths(folder) and len(shard_paths(folder)) == 2
    assert not list(folder.rglob("*.tmp"))
    cache_videos(pipeline_dir, rated_videos[2:4], folder, **{**SIZE, "height": 40})
    assert used not in shard_paths(folder) and len(shard_paths(folder)) == 1
    assert CachedVideoDataset(folder)[0]["latent_mean"].shape[-2:] == (10, 8)


def test_every_row_of_a_shard_has_the_text_of_its_own_prompt(tmp_path, pipeline_dir, rated_videos):
    """Also behind the second prompt of a shard."""
    dataset = CachedVideoDataset(cache_videos(pipeline_dir, rated_videos, tmp_path / "one_shard", **SIZE))
    source = open_pipeline(pipeline_dir)
    pipe = source.load(*source.adapter.text_components, dtype=torch.float32)
    assert len({video.prompt for video in dataset.videos}) == 3
    for row, video in zip((dataset[index] for index in range(len(dataset))), dataset.videos, strict=True):
        expected = source.adapter.encode_text(pipe, [video.prompt])["prompt_embeds"][0]
        torch.testing.assert_close(row["text"]["prompt_embeds"], expected, msg=video.prompt)
