"""The authors' own files: VIDGEN rows and critic answers load, convert and come back through `datasets`."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from datasets import load_dataset

from lift_trl.feedback.agreement import feedback_statistics
from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import load_hra
from lift_trl.feedback.validate import validate
from lift_trl.rubric import Dimension, Label, mean_reward
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import probe_video


pytestmark = pytest.mark.real
SEMANTIC, MOTION, FIDELITY = Dimension


@pytest.fixture
def vidgen(real_data: Path) -> Path:
    return real_data / "hra" / "vidgen-data-800.json"


def critic_folder(real_data: Path, tmp_path: Path, name: str) -> Path:
    """A critic's answers beside the demo clips under the names that the answers give them."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(real_data / "critic" / f"{name}.json", folder)
    for number in range(2):
        shutil.copy(real_data / "clips" / f"demo-{number}.mp4", folder / f"{number}.mp4")
    return folder


def test_vidgen_rows_load_with_the_right_counts(vidgen: Path):
    rows = load_hra(vidgen, missing_videos="keep")["train"]
    assert Counter(rows["dimension"]) == {SEMANTIC: 276, MOTION: 262, FIDELITY: 262}
    assert len(set(rows["video_id"])) == 615
    assert set(rows["label"]) == {Label.GOOD} and set(rows["source"]) == {"real"}
    assert set(rows["reason"]) == {"There are no obvious problems."}
    assert not any("Please identify" in caption or "<video>" in caption for caption in rows["caption"])
    assert min(len(caption.split()) for caption in rows["caption"]) >= 20


def test_vidgen_clips_are_missed_by_name(vidgen: Path):
    errors = validate(vidgen).hra.errors
    assert len(errors) == 615 and all("no such clip" in error.problem for error in errors)
    assert validate(vidgen, missing_videos="keep").hra.errors == []


def test_vidgen_converts_and_comes_back_equal(vidgen: Path, tmp_path: Path):
    result = convert(vidgen, tmp_path / "hra", missing_videos="keep", test_fraction=0.1)
    assert sum(result.num_clips.values()) == 615 and sum(result.num_annotations.values()) == 800
    published = load_dataset(str(tmp_path / "hra"))
    assert not set(published["train"]["id"]) & set(published["test"]["id"])
    came_back = [
        (row["id"], row["caption"], rating["dimension"], rating["label"], rating["reason"])
        for split in published.values()
        for row in split
        for rating in row["annotations"]
    ]
    rows = load_hra(vidgen, missing_videos="keep")["train"]
    went = [(row["video_id"], row["caption"], row["dimension"], row["label"], row["reason"]) for row in rows]
    assert sorted(came_back) == sorted(went)


def test_vidgen_rows_alone_have_no_agreement(vidgen: Path):
    statistics = feedback_statistics(load_hra(vidgen, missing_videos="keep")["train"])
    assert statistics.labels[SEMANTIC] == {Label.BAD: 0, Label.NORMAL: 0, Label.GOOD: 276}
    assert statistics.alpha == dict.fromkeys(Dimension)
    people = sum(statistics.labels_by_category["human"][dimension][Label.GOOD] for dimension in Dimension)
    assert 400 < people <= 800


def test_critic_answers_and_their_rewards(real_data: Path, tmp_path: Path):
    rewards = {}
    for name in ("critic_output_13b", "critic_output_40b"):
        folder = critic_folder(real_data, tmp_path, name)
        rows = load_hra(folder)["train"]
        assert rows.num_rows == 6 and set(rows["annotator"]) == {name}
        labels: dict[str, dict[Dimension, Label]] = {}
        for row in rows:
            labels.setdefault(row["video_id"], {})[Dimension(row["dimension"])] = Label(row["label"])
        rewards[name] = [round(mean_reward(given), 2) for given in labels.values()]
    assert rewards == {"critic_output_13b": [0.62, 0.1], "critic_output_40b": [0.9, 0.1]}


def test_critic_answers_convert_with_their_clips(real_data: Path, tmp_path: Path):
    folder = critic_folder(real_data, tmp_path, "critic_output_13b")
    assert validate(folder).hra.errors == []
    convert(folder, tmp_path / "hra")
    first, second = load_dataset(str(tmp_path / "hra"), split="train")
    assert first["video"]["bytes"] == (real_data / "clips" / "demo-0.mp4").read_bytes()
    info = probe_video(second["video"]["bytes"])
    assert (info.num_frames, info.height, info.width, info.fps) == (49, 480, 720, 8)
    assert [video.reward() for video in load_rated_videos(tmp_path / "hra")] == pytest.approx([0.6166667, 0.1])


def test_clips_with_captions_become_real_rows(real_data: Path, tmp_path: Path):
    table = "video,caption\n" + "".join(f"base-{n}.mp4,clip number {n}\n" for n in range(1, 5))
    (tmp_path / "captions.csv").write_text(table)
    convert(tmp_path / "captions.csv", tmp_path / "real", video_dir=real_data / "clips")
    videos = load_rated_videos(tmp_path / "real")
    assert len(videos) == 4 and all(video.is_real for video in videos)
