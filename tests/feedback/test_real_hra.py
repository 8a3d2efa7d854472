"""The authors' own files: VIDGEN rows and critic answers load, convert and come back through `datasets`.

The folder may hold other clips, answers and counts: expectations are worked out from what is there (tests/real_folder.py).
"""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from datasets import load_dataset

from lift_trl.feedback.agreement import feedback_statistics
from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import load_hra
from lift_trl.feedback.validate import validate
from lift_trl.rubric import Dimension, Label
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import probe_video
from tests.real_folder import conversations, critic_files, critic_labels, demo_clip, frames, hra_file, pairs, reward


pytestmark = pytest.mark.real
#: As VIDGEN-1M names a clip.
VIDGEN_NAME = re.compile(r"[\w-]{11}-Scene-\d+")


@pytest.fixture
def vidgen(real_data: Path) -> Path:
    return hra_file(real_data)


def critic_folder(real_data: Path, tmp_path: Path, answers: Path) -> Path:
    """A critic's answers beside the demo clips under the names that the answers give them."""
    folder = tmp_path / answers.stem
    folder.mkdir()
    shutil.copy(answers, folder)
    for name in critic_labels(answers):
        shutil.copy(demo_clip(real_data, name), folder / name)
    return folder


def test_vidgen_rows_load_as_they_stand_in_the_file(vidgen: Path, real_data: Path):
    expected = conversations(real_data)
    rows = load_hra(vidgen, missing_videos="keep")["train"]
    columns = ("video_id", "caption", "dimension", "label", "reason")
    assert sorted(zip(*(rows[name] for name in columns))) == sorted(expected) and expected
    names = {name: "real" if VIDGEN_NAME.fullmatch(Path(name).name) else "synthetic" for name in rows["video_id"]}
    assert all(row["source"] == names[row["video_id"]] for row in rows)
    assert not any("Please identify" in caption or "<video>" in caption for caption in rows["caption"])


def test_vidgen_clips_are_missed_by_name(vidgen: Path, real_data: Path):
    errors = validate(vidgen).hra.errors
    assert len(errors) == len({row.video for row in conversations(real_data)})
    assert all("no such clip" in error.problem for error in errors)
    assert validate(vidgen, missing_videos="keep").hra.errors == []


def test_vidgen_converts_and_comes_back_equal(vidgen: Path, real_data: Path, tmp_path: Path):
    expected = conversations(real_data)
    result = convert(vidgen, tmp_path / "hra", missing_videos="keep", test_fraction=0.1)
    assert sum(result.num_clips.values()) == len({row.video for row in expected}) == result.num_missing
    assert sum(result.num_annotations.values()) == len(expected)
    published = load_dataset(str(tmp_path / "hra"))
    assert not set(published["train"]["id"]) & set(published["test"]["id"])
    came_back = [
        (row["id"], row["caption"], rating["dimension"], rating["label"], rating["reason"])
        for split in published.values()
        for row in split
        for rating in row["annotations"]
    ]
    assert sorted(came_back) == sorted(expected)


def test_vidgen_rows_alone_have_no_agreement(vidgen: Path, real_data: Path):
    expected = Counter((row.dimension, row.label) for row in conversations(real_data))
    statistics = feedback_statistics(load_hra(vidgen, missing_videos="keep")["train"])
    for dimension in Dimension:
        assert statistics.labels[dimension] == {label: expected[dimension, label] for label in Label}
        by_category = [labels[dimension] for labels in statistics.labels_by_category.values()]
        assert all(sum(labels[label] for labels in by_category) == expected[dimension, label] for label in Label)
    assert statistics.alpha == dict.fromkeys(Dimension)  # one rater
    people = [
        row
        for row in conversations(real_data)
        if re.match(r"The video (features|shows) (a|two) (wo)?men?\b", row.caption)
    ]
    found = sum(sum(labels.values()) for labels in statistics.labels_by_category["human"].values())
    assert found >= len(people)


def test_critic_answers_and_their_rewards(real_data: Path, tmp_path: Path):
    assert critic_files(real_data)
    for answers in critic_files(real_data):
        expected = critic_labels(answers)
        rows = load_hra(critic_folder(real_data, tmp_path, answers))["train"]
        assert rows.num_rows == 3 * len(expected) and set(rows["annotator"]) == {answers.stem}
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            found.setdefault(Path(row["video"]["path"]).name, {})[row["dimension"]] = row["label"]
        assert found == expected


def test_critic_answers_convert_with_their_clips(real_data: Path, tmp_path: Path):
    for answers in critic_files(real_data):
        labels = critic_labels(answers)
        folder = critic_folder(real_data, tmp_path, answers)
        assert validate(folder).hra.errors == []
        convert(folder, tmp_path / f"hra-{answers.stem}")
        for row, name in zip(load_dataset(str(tmp_path / f"hra-{answers.stem}"), split="train"), labels, strict=True):
            clip = demo_clip(real_data, name)
            assert row["video"]["bytes"] == clip.read_bytes()
            info = probe_video(row["video"]["bytes"])
            assert (info.num_frames, info.height, info.width) == frames(clip).shape[:3]
        rewards = [video.reward() for video in load_rated_videos(tmp_path / f"hra-{answers.stem}")]
        assert rewards == pytest.approx([reward(given) for given in labels.values()])


def test_clips_with_captions_become_real_rows(real_data: Path, tmp_path: Path):
    expected = {pair.base.name: f"clip number {n}" for n, pair in enumerate(pairs(real_data))}
    table = "video,caption\n" + "".join(f"{name},{caption}\n" for name, caption in expected.items())
    (tmp_path / "captions.csv").write_text(table)
    convert(tmp_path / "captions.csv", tmp_path / "real", video_dir=real_data / "clips")
    videos = load_rated_videos(tmp_path / "real")
    assert [(video.prompt, video.is_real) for video in videos] == [(caption, True) for caption in expected.values()]
    assert [video.video.read() for video in videos] == [pair.base.read_bytes() for pair in pairs(real_data)]
