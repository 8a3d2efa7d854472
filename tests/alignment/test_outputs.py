"""Where stages write: a folder of something else stays as it is."""

import pytest

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.score import CriticSource, score_videos
from lift_trl.runtime import fit
from lift_trl.store.disk.outputs import claim_folder, new_folder
from lift_trl.store.manifest import METADATA_FILE, Artifact, write_rows
from lift_trl.store.rated_videos import load_rated_videos
from tests.alignment.conftest import SIZE, make_trainer, moving_square


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    moving_square(folder / "0.mp4", 0)
    write_rows(folder / METADATA_FILE, [{"file_name": "0.mp4", "prompt": "a fox", "reward": 0.5}])
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def no_critic():
    raise AssertionError("loaded before the folder was looked at")


def test_rows_of_clips_are_replaced_neither_by_a_cache_nor_by_scores(clips, pipeline_dir):
    before = contents(clips)
    with pytest.raises(FileExistsError, match="metadata.jsonl: rows that are no cache's"):
        cache_videos(pipeline_dir, load_rated_videos(clips), clips, **SIZE)
    with pytest.raises(ValueError, match="metadata.jsonl: rows without id"):
        score_videos(CriticSource("x", no_critic), clips, clips)
    assert contents(clips) == before


def test_no_stage_replaces_another_stages_artefact(clips, pipeline_dir, tmp_path):
    folder = tmp_path / "critic"
    Artifact("critic").save(folder)
    before = contents(folder)
    for stage in (
        lambda: cache_videos(pipeline_dir, load_rated_videos(clips), folder, **SIZE),
        lambda: score_videos(CriticSource("x", no_critic), clips, folder),
        lambda: generate_videos(pipeline_dir, plan_videos(["a fox"]), folder),
    ):
        with pytest.raises(FileExistsError, match="holds an artefact of kind critic"):
            stage()
    assert contents(folder) == before


def test_no_training_replaces_another_stages_artefact(pipeline_dir, cache_dir, tmp_path):
    Artifact("generated").save(tmp_path)
    before = contents(tmp_path)
    trainer = make_trainer(pipeline_dir, tmp_path, CachedVideoDataset(cache_dir), max_steps=1)
    with pytest.raises(FileExistsError, match="kind generated, and critic or lora would take its place"):
        fit(trainer)
    assert contents(tmp_path) == before


def test_a_new_folder_is_whole_or_absent_also_where_an_empty_one_stands(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), new_folder(".") as partial:
        (partial / "half").touch()
        raise ZeroDivisionError
    assert [*(tmp_path / "out").iterdir()] == []
    with new_folder(tmp_path / "out") as partial:
        (partial / "whole").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    with pytest.raises(FileExistsError, match="is not empty"), new_folder(tmp_path / "out"):
        pass


def test_a_folder_is_claimed_once(tmp_path):
    claim_folder(tmp_path / "a", ".mark", "one")
    claim_folder(tmp_path / "a", ".mark", "one")
    with pytest.raises(FileExistsError, match="made with one, not two"):
        claim_folder(tmp_path / "a", ".mark", "two")
