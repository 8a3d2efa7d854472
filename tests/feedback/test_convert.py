"""What `convert` writes, `datasets.load_dataset` reads as it is: each clip once, every rating kept."""

import csv
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import DatasetDict, load_dataset

from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import load_hra
from lift_trl.records import hra_features
from lift_trl.rubric import Dimension
from lift_trl.store.manifest import Artifact
from lift_trl.store.rated_videos import BadRowsError, load_rated_videos
from lift_trl.store.video_io import probe_video
from tests.feedback.conftest import write_authors_json, write_clip


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    for number, name in enumerate("abcd"):
        write_clip(tmp_path / "src" / "videos" / f"{name}.mp4", 40 * number)
    return write_authors_json(
        tmp_path / "src" / "LiFT-HRA-data.json", [f"videos/{name}.mp4" for name in "abcd"]
    ).parent


def test_load_dataset_reads_the_folder_as_it_is(authors: Path, tmp_path: Path):
    result = convert(authors, tmp_path / "hra")
    assert (result.num_clips, result.num_annotations, result.num_missing) == ({"train": 4}, {"train": 12}, 0)
    dataset = load_dataset(str(tmp_path / "hra"))
    assert isinstance(dataset, DatasetDict) and dataset["train"].features == hra_features()
    row = dataset["train"][1]
    assert (row["id"], row["caption"], row["source"]) == ("b", "A waiter\nnods, please, in scene 1.", "synthetic")
    assert row["video"] == {"bytes": (authors / "videos" / "b.mp4").read_bytes(), "path": "b.mp4"}
    assert probe_video(row["video"]["bytes"]).num_frames == 4
    assert [(r["dimension"], r["label"], r["reason"]) for r in row["annotations"]] == [
        *zip(Dimension, ("Good", "Bad", "Normal"), ("Fine.", "Jumps.", "Blur."))
    ]


def test_each_clip_is_stored_once(authors: Path, tmp_path: Path):
    convert(authors, tmp_path / "hra")
    (shard,) = (tmp_path / "hra" / "data").iterdir()
    for clip in (authors / "videos").iterdir():
        assert shard.read_bytes().count(clip.read_bytes()[:64]) <= 4  # all clips begin alike
    table = pq.read_table(shard)
    assert table.num_rows == 4 and sum(len(v["bytes"]) for v in table["video"].to_pylist()) == sum(
        clip.stat().st_size for clip in (authors / "videos").iterdir()
    )


def test_the_same_input_gives_the_same_bytes(authors: Path, tmp_path: Path):
    for name in ("one", "two"):
        convert(authors, tmp_path / name, test_fraction=0.5)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    artifact = Artifact.load(tmp_path / "one")
    assert artifact.kind == "hra" and artifact.parents["src"].startswith("sha256:")
    assert str(tmp_path) not in (tmp_path / "one" / "artifact.yaml").read_text()


def test_converting_a_converted_folder_changes_nothing(authors: Path, tmp_path: Path):
    convert(authors, tmp_path / "one", test_fraction=0.5)
    convert(tmp_path / "one", tmp_path / "two")
    assert digests(tmp_path / "one" / "data") == digests(tmp_path / "two" / "data")


def test_shards_hold_at_most_the_bytes_asked_for(authors: Path, tmp_path: Path):
    size = max(clip.stat().st_size for clip in (authors / "videos").iterdir())
    convert(authors, tmp_path / "hra", max_shard_bytes=2 * size)
    shards = sorted((tmp_path / "hra" / "data").iterdir())
    assert [shard.name for shard in shards] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert load_dataset(str(tmp_path / "hra"), split="train")["id"] == ["a", "b", "c", "d"]


def test_the_split_by_another_dataset(authors: Path, tmp_path: Path):
    smaller = write_authors_json(tmp_path / "10K" / "LiFT-HRA-data.json", ["videos/b.mp4", "videos/d.mp4"]).parent
    convert(authors, tmp_path / "hra", train_on=smaller)
    dataset = load_dataset(str(tmp_path / "hra"))
    assert (dataset["train"]["id"], dataset["test"]["id"]) == (["b", "d"], ["a", "c"])
    with pytest.raises(ValueError, match="give one of them"):
        convert(authors, tmp_path / "x", train_on=smaller, test_fraction=0.5)
    with pytest.raises(ValueError, match="split would be empty"):
        convert(authors, tmp_path / "x", train_on=authors)
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_over_or_by_halves(authors: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        convert(authors, tmp_path / "full")
    (authors / "videos" / "a.mp4").unlink()
    with pytest.raises(BadRowsError, match="no such clip"):
        convert(authors, tmp_path / "hra")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "src"]
    (tmp_path / ".hra.partial" / "data").mkdir(parents=True)  # a run that was killed
    (tmp_path / ".hra.partial" / "data" / "train-00000-of-00009.parquet").write_bytes(b"half")
    convert(authors, tmp_path / "hra", missing_videos="drop")
    assert load_dataset(str(tmp_path / "hra"), split="train")["id"] == ["b", "c", "d"]


def test_a_kept_reference_comes_back_and_names_no_folder_of_this_machine(authors: Path, tmp_path: Path):
    (authors / "videos" / "a.mp4").unlink()
    result = convert(authors, tmp_path / "hra", missing_videos="keep")
    assert result.num_missing == 1
    row = load_dataset(str(tmp_path / "hra"), split="train")[0]
    assert row["video"] == {"bytes": None, "path": "videos/a.mp4"} and len(row["annotations"]) == 3
    with pytest.raises(BadRowsError, match="no such clip"):
        load_hra(tmp_path / "hra")


def test_every_raters_row_is_kept(tmp_path: Path):
    write_clip(tmp_path / "own" / "a.mp4")
    rows = [
        {
            "file_name": "a.mp4",
            "caption": "c",
            "dimension": d,
            "label": label,
            "annotator": who,
            "reason": who,
            **stamp,
        }
        for who, label in (("x", "good"), ("y", "Bad"))
        for d in Dimension
        for stamp in ({"created_at": "2026-01-02T03:04:05Z", "ui_version": "1"},)
    ]
    (tmp_path / "own" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(tmp_path / "own", tmp_path / "hra")
    (row,) = load_dataset(str(tmp_path / "hra"), split="train")
    assert [(a["annotator"], a["label"], a["created_at"], a["ui_version"]) for a in row["annotations"][::3]] == [
        ("x", "Good", "2026-01-02T03:04:05Z", "1"),
        ("y", "Bad", "2026-01-02T03:04:05Z", "1"),
    ]
    (rated,) = load_rated_videos(tmp_path / "hra")
    assert set(rated.labels.values()) == {"Bad"}  # a tie goes to the lower label


def captions_file(folder: Path, kind: str) -> Path:
    table = [{"video": "a.mp4", "caption": 'a "red" fox'}, {"video": "sub/b", "caption": "a dog"}]
    path = folder / f"captions.{kind}"
    if kind in ("csv", "tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["video", "caption"], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(table)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table))
    else:
        path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_clips_with_captions_become_real_rows(tmp_path: Path, kind: str):
    write_clip(tmp_path / "clips" / "a.mp4", 10)
    write_clip(tmp_path / "clips" / "sub" / "b.mp4", 200)
    convert(captions_file(tmp_path, kind), tmp_path / "real", video_dir=tmp_path / "clips")
    rows = load_dataset(str(tmp_path / "real"), split="train")
    assert rows["caption"][:] == ['a "red" fox', "a dog"] and rows["source"][:] == ["real", "real"]
    assert rows["annotations"][:] == [[], []] and rows["id"][:] == ["a", "sub/b"]
    assert all(video.is_real for video in load_rated_videos(tmp_path / "real"))


def test_known_and_named_columns_and_a_mapping(tmp_path: Path):
    write_clip(tmp_path / "AkQlXiOmKhM-Scene-0009.mp4")
    vidgen = [{"vid": "AkQlXiOmKhM-Scene-0009", "caption": "a car"}]
    own = [{"clip": "AkQlXiOmKhM-Scene-0009.mp4", "says": "a car"}]
    for number, (content, columns) in enumerate(
        (
            (vidgen, {}),
            (own, {"video_column": "clip", "caption_column": "says"}),
            ({"AkQlXiOmKhM-Scene-0009.mp4": "a car"}, {}),
        )
    ):
        (tmp_path / "captions.json").write_text(json.dumps(content))
        convert(tmp_path / "captions.json", tmp_path / f"real{number}", **columns)
        (row,) = load_dataset(str(tmp_path / f"real{number}"), split="train")
        assert (row["caption"], row["id"]) == ("a car", "AkQlXiOmKhM-Scene-0009")
    (tmp_path / "captions.json").write_text(json.dumps(own))
    with pytest.raises(ValueError, match=r"no column video or .* among clip, says; name it by video_column"):
        convert(tmp_path / "captions.json", tmp_path / "x")


def test_a_table_much_longer_than_the_folder_drops_what_is_absent(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "OpenVid.csv").write_text("video,caption,fps\na.mp4,a fox,24\nz.mp4,a dog,24\n,a cat,24\n")
    with pytest.raises(BadRowsError, match="2 bad rows") as caught:
        convert(tmp_path / "OpenVid.csv", tmp_path / "real")
    assert [error.where[-5:] for error in caught.value.errors] == ["row 3", "row 2"]
    (tmp_path / "OpenVid.csv").write_text("video,caption,fps\na.mp4,a fox,24\nz.mp4,a dog,24\n")
    assert convert(tmp_path / "OpenVid.csv", tmp_path / "real", missing_videos="drop").num_clips == {"train": 1}
