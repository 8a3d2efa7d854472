"""`build_world` writes folders that the other stages read as they are."""

import json

import numpy as np
import pytest
import torch
from datasets import load_dataset
from diffusers import DiffusionPipeline, WanPipeline
from transformers import AutoProcessor

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.cli import main
from lift_trl.mini.annotator import RATERS
from lift_trl.mini.checkpoints import VIDEO_MODELS, load_pipeline
from lift_trl.mini.language import STILL
from lift_trl.mini.shapes import SCENES, DefectRates, draw_clip
from lift_trl.mini.world import CONTROL_EVERY, build_world, rate_folder, write_clips
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.store.manifest import METADATA_FILE, read_rows
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import read_video


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"), num_rated=12, num_real=3, trained=False)


def test_rated_clips_load_with_labels_and_reasons(world):
    videos = load_rated_videos(world.rated)
    assert len(videos) == 12 and all(set(video.labels) == set(Dimension) for video in videos)
    assert len({label for video in videos for label in video.labels.values()}) > 1
    rows = [json.loads(line) for line in (world.rated / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        assert len(row["annotations"]) == 3 * len(RATERS)
        for dimension in Dimension:
            fitting = [
                a["reason"] for a in row["annotations"] if (a["dimension"], a["label"]) == (dimension, row[dimension])
            ]
            assert row["reasons"][dimension] == fitting[0]


def test_real_clips_are_clean_and_load_as_real(world):
    videos = load_rated_videos(world.real)
    assert [video.is_real for video in videos] == [True] * 3
    clip = read_video(videos[0].video)
    assert clip.frames.shape == (9, 192, 192, 3) and clip.fps == 8


def test_the_world_of_wan_has_its_frame_rate_and_can_be_cached_as_it_is(tmp_path):
    world = build_world(tmp_path / "world", family="wan", num_rated=8, num_real=1, trained=False)
    assert type(WanPipeline.from_pretrained(world.video_model)) is WanPipeline
    rate_folder(world.rated, tmp_path / "rated", controls=True)
    clips = [*load_rated_videos(tmp_path / "rated"), *load_rated_videos(world.real)]
    assert {read_video(clip.video).fps for clip in clips} == {16.0}
    assert any("controls" in str(clip.video) for clip in clips)
    cache_videos(str(world.video_model), clips, tmp_path / "cache", num_frames=9, height=48, width=48)


def test_a_family_that_the_world_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'ltx': the mini world has cogvideox and wan"):
        build_world(tmp_path / "world", family="ltx")
    assert not (tmp_path / "world").exists()


def test_the_command_writes_the_trained_model_of_the_family_asked_for(tmp_path, capsys):
    assert main(["mini-world", str(tmp_path / "world"), "--family", "wan"]) == 0
    written = DiffusionPipeline.from_pretrained(tmp_path / "world" / "video_model").transformer.state_dict()
    trained = load_pipeline("wan").transformer.state_dict()
    assert written.keys() == trained.keys() and all(torch.equal(written[name], trained[name]) for name in trained)
    with pytest.raises(SystemExit):
        main(["mini-world", str(tmp_path / "other"), "--family", "ltx"])
    error = capsys.readouterr().err
    assert all(family in error for family in VIDEO_MODELS)


def test_clips_load_with_datasets(world):
    dataset = load_dataset(str(world.rated), split="train")
    assert len(dataset) == 12 and set(dataset["semantic_consistency"]) <= set(Label)


def test_checkpoints_and_prompts_are_there(world):
    assert world.prompts.read_text().splitlines() == [scene.prompt for scene in SCENES]
    assert (world.video_model / "model_index.json").is_file()
    assert type(AutoProcessor.from_pretrained(world.vlm)).__name__ == "Idefics3Processor"


def test_the_same_seed_gives_the_same_world(world, tmp_path):
    again = build_world(tmp_path, num_rated=12, num_real=3, trained=False)
    for folder in ("rated", "real"):
        for path in sorted((world.rated.parent / folder).glob("*.mp4")):
            assert np.array_equal(read_video(path).frames, read_video(tmp_path / folder / path.name).frames)
        assert (world.rated.parent / folder / METADATA_FILE).read_text() == (
            tmp_path / folder / METADATA_FILE
        ).read_text()
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (world.video_model / weights).read_bytes() == (again.video_model / weights).read_bytes()


def test_the_oracle_rates_a_folder_as_the_renderings_were_made(world, tmp_path):
    assert rate_folder(world.rated, tmp_path / "oracle", oracle=True) == 12
    rng = np.random.default_rng([0, 1])
    clips = [draw_clip(rng, DefectRates(), SCENES[index]) for index in range(12)]
    rows = list(read_rows(tmp_path / "oracle" / METADATA_FILE))
    assert [{d: row[d] for d in Dimension} for row in rows] == [clip.labels for clip in clips]
    assert [row["reward"] for row in rows] == [LIFT.mean_reward(clip.labels) for clip in clips]
    assert (tmp_path / "oracle" / rows[0]["file_name"]).is_file()


def test_raters_get_a_blank_and_a_frozen_clip_among_a_models_own(tmp_path):
    """Of two dozen, with what they must earn; the others are as they were."""
    rng = np.random.default_rng(7)
    write_clips(
        tmp_path / "clips", [draw_clip(rng, DefectRates(), SCENES[i % 5]) for i in range(CONTROL_EVERY)], seed=3
    )
    assert rate_folder(tmp_path / "clips", tmp_path / "rated", controls=True) == CONTROL_EVERY
    rows = list(read_rows(tmp_path / "rated" / METADATA_FILE))
    kinds = [row.get("id", "").rpartition("-")[2] for row in rows]
    assert {n: kind for n, kind in enumerate(kinds) if kind} == {7: "blank", 19: "frozen"}
    for index, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        frames = read_video(tmp_path / "rated" / row["file_name"]).frames.astype(int)
        spread = np.abs(np.diff(frames, axis=0)).max()
        labels = {dimension: row[dimension] for dimension in Dimension}
        if kind == "blank":
            assert np.ptp(frames) <= 3 and set(labels.values()) == {Label.BAD}
        elif kind == "frozen":
            assert spread <= 30 and labels[Dimension.MOTION_SMOOTHNESS] == Label.BAD
            assert row["reasons"][Dimension.MOTION_SMOOTHNESS] == STILL
            assert labels[Dimension.SEMANTIC_CONSISTENCY] != Label.GOOD  # its direction is not what the caption says
        else:
            assert (tmp_path / "rated" / row["file_name"]).resolve() == tmp_path / "clips" / f"{index:05d}.mp4"
        assert row["seed"] == 3 and row["prompt"] == SCENES[index % 5].prompt
    assert load_rated_videos(tmp_path / "rated")[7].labels[Dimension.VIDEO_FIDELITY] == Label.BAD
    again = tmp_path / "again"
    rate_folder(tmp_path / "clips", again, controls=True)
    assert (again / METADATA_FILE).read_text() == (tmp_path / "rated" / METADATA_FILE).read_text()
