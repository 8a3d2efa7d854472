"""Every documented form of rated clips loads to the same records, and every bad row is listed with its remedy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, Video

from lift_trl.records import RatedVideo, StoredVideo, content_id, hra_features
from lift_trl.rubric import Dimension, Label
from lift_trl.store.clip_rows import video_digest
from lift_trl.store.rated_videos import BadRowsError, check_rated_videos, load_rated_videos, raw_rows
from lift_trl.store.video_io import write_video
from tests.hub.fixtures import LocalHub


SEMANTIC, MOTION, FIDELITY = Dimension
LABELS = {SEMANTIC: Label.GOOD, MOTION: Label.BAD, FIDELITY: Label.NORMAL}
WIDE = {dimension.value: label.value for dimension, label in LABELS.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, grey in enumerate((40, 120, 200)):
        write_video(tmp_path / f"{number}.mp4", np.full((4, 16, 16, 3), grey, np.uint8), fps=8)
    return tmp_path


def write_jsonl(folder: Path, *rows: object, end: str = "\n") -> None:
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + end)


def problems(data: object) -> list[str]:
    return [str(error) for error in check_rated_videos(data).errors]  # type: ignore[arg-type]


def annotation(dimension: str, label: str, annotator: str = "a") -> dict[str, str | None]:
    return {
        "dimension": dimension,
        "label": label,
        "reason": "why",
        "annotator": annotator,
        "created_at": None,
        "ui_version": None,
    }


def test_a_clip_that_raters_left_unfinished_is_left_out_and_counted(folder, caplog):
    whole, part = ([annotation(name, "Good") for name in Dimension][:count] for count in (3, 2))
    rows = [{"file_name": f"{i}.mp4", "prompt": "p", "annotations": a} for i, a in enumerate((whole, part))]
    write_jsonl(folder, *rows)
    (video,) = load_rated_videos(folder)
    assert video.video == folder / "0.mp4"
    assert (
        "1 clips lack labels and are left out, first" in caplog.text and "no label for video_fidelity" in caplog.text
    )
    write_jsonl(folder, rows[1])
    with pytest.raises(BadRowsError, match="no label for video_fidelity"):
        load_rated_videos(folder)


def test_labels_rewards_and_real_clips_of_a_folder(folder: Path):
    write_jsonl(
        folder,
        {"file_name": "0.mp4", "prompt": " a fox ", **WIDE},
        {"file_name": "1.mp4", "caption": "a dog", "reward": 0.25},
        {"file_name": "2.mp4", "prompt": "a cat", "source": "real"},
    )
    fox, dog, cat = load_rated_videos(folder)
    assert (fox.prompt, fox.labels, fox.video) == ("a fox", LABELS, folder / "0.mp4")
    assert fox.reward() == pytest.approx((0.9 + 0.05 + 0.2) / 3)
    assert (dog.labels, dog.reward(), dog.is_real) == (None, 0.25, False)
    assert cat.is_real and np.isnan(cat.reward())
    assert len({fox.id, dog.id, cat.id}) == 3


def test_a_last_line_without_newline_is_a_row(folder: Path):
    rows = [{"file_name": f"{n}.mp4", "prompt": "p", "reward": 0.5} for n in range(2)]
    write_jsonl(folder, *rows, end="")
    assert len(load_rated_videos(folder)) == 2


def test_a_broken_line_is_listed_and_the_others_are_read(folder: Path):
    good = json.dumps({"file_name": "0.mp4", "prompt": "p", "reward": 0.5})
    (folder / "metadata.jsonl").write_text(f'{good}\n{{"file_name": \n[1]\n{good.replace("0.mp4", "1.mp4")}\n')
    checked = check_rated_videos(folder)
    assert len(checked.videos) == 2
    assert [("row 2" in e.where, "row 3" in e.where) for e in checked.errors] == [(True, False), (False, True)]
    assert all("JSON" in error.problem for error in checked.errors)


def test_csv_of_a_spreadsheet_with_byte_order_mark(folder: Path):
    text = "file_name,prompt,reward,is_real\n0.mp4,a fox,0.5,\n1.mp4,a dog,,TRUE\n"
    (folder / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    fox, dog = load_rated_videos(folder)
    assert (fox.reward(), fox.is_real, dog.is_real) == (0.5, False, True)


def test_parquet_metadata_with_names_or_with_embedded_clips(folder: Path):
    pq.write_table(
        pa.Table.from_pylist([{"file_name": "0.mp4", "prompt": "p", "reward": 0.5}]), folder / "metadata.parquet"
    )
    assert load_rated_videos(folder)[0].video == folder / "0.mp4"
    data = (folder / "0.mp4").read_bytes()
    row = {"video": {"bytes": data, "path": "0.mp4"}, "prompt": "p", "reward": 0.5}
    pq.write_table(pa.Table.from_pylist([row]), folder / "metadata.parquet")
    assert load_rated_videos(folder)[0].video == data


def test_published_rows_pool_raters_by_majority_with_ties_to_the_lower_label(folder: Path):
    data = (folder / "0.mp4").read_bytes()
    ratings = [annotation(d, Label.GOOD, rater) for d in Dimension for rater in "ab"]
    ratings += [
        annotation(MOTION, Label.BAD, "c"),
        annotation(FIDELITY, Label.BAD, "c"),
        annotation(FIDELITY, Label.BAD, "d"),
    ]
    row = {"id": "x", "video": {"bytes": data, "path": "0.mp4"}, "caption": "c", "source": "synthetic"}
    dataset = Dataset.from_list([{**row, "annotations": ratings}], features=hra_features())
    (video,) = load_rated_videos(dataset)
    assert video.labels == {SEMANTIC: Label.GOOD, MOTION: Label.GOOD, FIDELITY: Label.BAD}
    assert isinstance(video.video, StoredVideo)  # the bytes stay in the dataset's file
    assert (video.id, video.video.read()) == ("x", data)


def test_a_folder_of_parquet_shards_is_read_as_it_is(folder: Path):
    data = (folder / "0.mp4").read_bytes()
    row = {"id": "x", "video": {"bytes": data, "path": "0.mp4"}, "caption": "c", "source": "real", "annotations": []}
    shard = folder / "published" / "data" / "train-00000-of-00001.parquet"
    shard.parent.mkdir(parents=True)
    Dataset.from_list([row], features=hra_features()).to_parquet(shard)
    (video,) = load_rated_videos(folder / "published")
    assert isinstance(video.video, StoredVideo)
    assert (video.id, video.is_real, video.video.read()) == ("x", True, data)


def published(folder: Path, split: str, *names: str) -> None:
    """Rows of real clips as the `split` of published LiFT-HRA in `folder`."""
    rows = [
        {
            "id": name,
            "video": {"bytes": (folder.parent / f"{name}.mp4").read_bytes(), "path": f"{name}.mp4"},
            **{"caption": "c", "source": "real", "annotations": []},
        }
        for name in names
    ]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shard = folder / "data" / f"{split}-00000-of-00001.parquet"
    Dataset.from_list(rows, features=hra_features()).to_parquet(shard)


def test_of_a_folder_with_splits_the_one_named_train_is_taken(folder: Path):
    published(folder / "hra", "train", "0", "1")
    published(folder / "hra", "test", "2")
    assert [video.id for video in load_rated_videos(folder / "hra")] == ["0", "1"]
    (folder / "hra" / "data" / "train-00000-of-00001.parquet").unlink()
    published(folder / "hra", "validation", "0")
    with pytest.raises(ValueError, match=r"hra: has the splits validation, test and none named train"):
        load_rated_videos(folder / "hra")


def push(hub: LocalHub, folder: Path, name: str) -> str:
    hub.api().create_repo(name, repo_type="dataset", exist_ok=True)
    return hub.api().upload_folder(repo_id=name, repo_type="dataset", folder_path=folder).oid


def test_a_repo_of_the_hub_is_read_as_its_folder_is(hub: LocalHub, folder: Path):
    published(folder / "hra", "train", "0", "1")
    published(folder / "hra", "test", "2")
    push(hub, folder / "hra", "dev/published")
    assert [(v.id, v.video.read()) for v in load_rated_videos("dev/published")] == [
        (name, (folder / f"{name}.mp4").read_bytes()) for name in "01"
    ]
    clips = folder / "clips"
    clips.mkdir()
    (folder / "0.mp4").rename(clips / "0.mp4")
    write_jsonl(clips, {"file_name": "0.mp4", "prompt": "a fox", **WIDE})
    first = push(hub, clips, "dev/own-clips")
    write_jsonl(clips, {"file_name": "0.mp4", "prompt": "a fox", "reward": 2.0})
    push(hub, clips, "dev/own-clips")
    local = RatedVideo(content_id(video_digest(clips / "0.mp4"), "a fox", False), b"", "a fox", LABELS)
    (video,) = load_rated_videos(f"dev/own-clips@{first}")
    assert replace(video, video=b"") == local
    assert problems("dev/own-clips") == [
        "dev/own-clips, row 1: reward 2.0 is not in [0, 1]; score the clip again or leave the row out."
    ]
    with pytest.raises(FileNotFoundError, match="dev/none: no such folder, and no such dataset on the Hub"):
        load_rated_videos("dev/none")


def tidy(folder: Path, **more: object) -> list[dict[str, object]]:
    return [
        {"video": str(folder / "0.mp4"), "caption": "c", "dimension": dimension.value, "label": label.value, **more}
        for dimension, label in LABELS.items()
    ]


def test_tidy_rows_are_one_clip_whether_or_not_each_row_has_an_id_of_its_own(folder: Path):
    own = [{**row, "id": f"row-{n}"} for n, row in enumerate(tidy(folder))]
    shared = tidy(folder, id="clip")
    (a,), (b,) = load_rated_videos(Dataset.from_list(own)), load_rated_videos(Dataset.from_list(shared))
    assert a.labels == b.labels == LABELS
    assert b.id == "clip" and a.id not in {row["id"] for row in own}


def test_class_labels_and_decoding_video_columns_of_a_dataset(folder: Path):
    features = Features(
        {"video": Video(), "prompt": Value("string"), **{d.value: ClassLabel(names=list(Label)) for d in Dimension}}
    )
    rows = [{"video": str(folder / "0.mp4"), "prompt": "p", **WIDE}]
    (video,) = load_rated_videos(Dataset.from_list(rows, features=features))
    assert (video.labels, video.video) == (LABELS, folder / "0.mp4")


def test_several_splits_are_refused_and_a_single_one_is_taken(folder: Path):
    dataset = Dataset.from_list([{"video": str(folder / "0.mp4"), "prompt": "p", "reward": 0.5}])
    assert len(load_rated_videos(DatasetDict(train=dataset))) == 1
    with pytest.raises(ValueError, match=r"splits train, test; .*\[\"train\"\]"):
        load_rated_videos(DatasetDict(train=dataset, test=dataset))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "p", "reward": 0.5}, "no clip; fill the column file_name"),
        ({"file_name": "9.mp4", "prompt": "p", "reward": 0.5}, "no such video file"),
        ({"file_name": "0.mp4", "prompt": "  ", "reward": 0.5}, "no prompt"),
        ({"file_name": "0.mp4", "prompt": "p"}, "no rating"),
        ({"file_name": "0.mp4", "prompt": "p", "reward": "high"}, "is no number"),
        ({"file_name": "0.mp4", "prompt": "p", "reward": True}, "reward True is no number"),
        ({"file_name": 5, "prompt": "p", "reward": 0.5}, "the clip is 5, which is no path"),
        ({"file_name": ["0.mp4"], "prompt": "p", "reward": 0.5}, "the clip is ['0.mp4'], which is no path"),
        ({"file_name": "0.mp4", "prompt": "p", "reward": float("nan")}, "no rating"),
        ({"file_name": "0.mp4", "prompt": "p", "reward": 1.5}, "not in [0, 1]"),
        ({"file_name": "0.mp4", "prompt": "p", **WIDE, MOTION: "fine"}, "'fine' is unknown"),
        ({"file_name": "0.mp4", "prompt": "p", SEMANTIC: "Good"}, "no label for motion_smoothness, video_fidelity"),
        ({"file_name": "0.mp4", "prompt": "p", "is_real": "perhaps"}, "use true or false"),
        ({"file_name": "0.mp4", "prompt": "p", "annotations": [{"label": "Good"}]}, "dimension"),
        ({"file_name": "0.mp4", "prompt": "p", "annotations": "Good"}, "list"),
        ({"file_name": "0.mp4", "prompt": "p", "annotations": [annotation("beauty", "Good")]}, "'beauty' is unknown"),
        ({"file_name": "0.mp4", "prompt": "p", "dimension": MOTION, "label": None}, "is unknown"),
    ],
)
def test_each_bad_row_is_listed_with_its_place_and_remedy(folder: Path, row: dict[str, object], problem: str):
    write_jsonl(folder, {"file_name": "1.mp4", "prompt": "p", "reward": 0.5}, row)
    checked = check_rated_videos(folder)
    assert len(checked.videos) == 1
    (error,) = checked.errors
    assert error.where.endswith("row 2") and problem in error.problem


def test_doubles_are_listed(folder: Path):
    row = {"file_name": "0.mp4", "prompt": "p", "reward": 0.5}
    write_jsonl(folder, row, row, {**row, "file_name": "2.mp4", "id": "x"}, {**row, "file_name": "1.mp4", "id": "x"})
    first, second = check_rated_videos(folder).errors
    assert "row 2" in first.where and "row 1" in first.problem
    assert "row 4" in second.where and "row 3" in second.problem and "'x'" in second.problem


def test_no_file_is_the_clip_of_two_rows(folder: Path):
    (folder / "link.mp4").symlink_to(folder / "0.mp4")
    rows = [("0.mp4", "a fox"), ("1.mp4", "a dog"), ("./0.mp4", "a cat"), ("link.mp4", "an owl")]
    write_jsonl(folder, *({"file_name": name, "prompt": prompt, "reward": 0.5} for name, prompt in rows))
    checked = check_rated_videos(folder)
    assert [video.prompt for video in checked.videos] == ["a fox", "a dog"]
    assert [error.where[-5:] for error in checked.errors] == ["row 3", "row 4"]
    assert all("is taken by" in error.problem and "row 1" in error.problem for error in checked.errors)


def test_empty_and_missing_metadata(folder: Path):
    (folder / "metadata.jsonl").write_text("")
    assert problems(folder) == [f"{folder}: holds no row."]
    (folder / "metadata.jsonl").unlink()
    for given in (folder, folder / "gone", folder / "0.mp4"):
        with pytest.raises(FileNotFoundError, match="no metadata.jsonl or .*Put one beside the clips"):
            load_rated_videos(given)


def test_the_error_shows_ten_rows_and_keeps_all(folder: Path):
    write_jsonl(folder, *({"file_name": "none.mp4", "prompt": "p"} for _ in range(13)))
    with pytest.raises(BadRowsError, match="and 3 more") as caught:
        load_rated_videos(folder)
    assert len(caught.value.errors) == 13


def test_ids_follow_content_and_not_names(folder: Path):
    (folder / "copy.mp4").write_bytes((folder / "0.mp4").read_bytes())
    write_jsonl(folder, {"file_name": "0.mp4", "prompt": "p", "reward": 0.5})
    (first,) = load_rated_videos(folder)
    write_jsonl(folder, {"file_name": "copy.mp4", "prompt": "p", "reward": 0.1})
    assert load_rated_videos(folder)[0].id == first.id
    write_jsonl(folder, {"file_name": "copy.mp4", "prompt": "q", "reward": 0.1})
    assert load_rated_videos(folder)[0].id != first.id
    assert len(first.id) == len(content_id("x")) == 16


def test_raw_rows_name_the_clips_of_a_folder(folder: Path):
    write_jsonl(folder, {"file_name": "0.mp4", "prompt": "p"})
    ((where, row),) = list(raw_rows(folder))
    assert where.endswith("metadata.jsonl, row 1") and row == {
        "file_name": "0.mp4",
        "prompt": "p",
        "video": folder / "0.mp4",
    }
