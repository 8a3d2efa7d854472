"""`build_world` writes folders that the other stages read as they are."""

import json

import numpy as np
import pytest
from datasets import load_dataset
from transformers import AutoProcessor

from lift_trl.mini.annotator import RATERS
from lift_trl.mini.shapes import SCENES, DefectRates, draw_clip
from lift_trl.mini.world import build_world, rate_folder
from lift_trl.rubric import Dimension, Label, mean_reward
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
    assert [row["reward"] for row in rows] == [mean_reward(clip.labels) for clip in clips]
    assert (tmp_path / "oracle" / rows[0]["file_name"]).is_file()
