"""The clip of a row is the one that it names: no file stands in for another, and what is converted is inside."""

import json
import unicodedata
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from lift_trl.cli import main
from lift_trl.feedback.clips import ClipFinder
from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import held_out_videos, load_hra, split_by_video
from lift_trl.feedback.validate import validate
from lift_trl.records import hra_features
from lift_trl.rubric import Dimension
from lift_trl.store.rated_videos import BadRowsError, check_rated_videos, load_rated_videos
from tests.feedback.conftest import write_authors_json, write_clip
from tests.feedback.test_hra import rows_of
from tests.feedback.test_hub_round_trip import push
from tests.hub.fixtures import LocalHub


LABELS = {dimension.value: "Good" for dimension in Dimension}


def captions(path: Path, *videos: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("video,caption\n" + "".join(f"{name},clip {number}\n" for number, name in enumerate(videos)))
    return path


def metadata(folder: Path, *rows: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def form(kind: str, folder: Path, *videos: str) -> Path:
    """Rows that name `videos`, in one of the forms of LiFT-HRA."""
    if kind == "authors":
        return write_authors_json(folder / "data.json", list(videos))
    if kind == "captions":
        return captions(folder / "captions.csv", *videos)
    return metadata(folder, *({"file_name": name, "prompt": f"clip {n}", **LABELS} for n, name in enumerate(videos)))


@pytest.mark.parametrize("kind", ["authors", "captions", "metadata"])
def test_a_path_is_never_found_by_its_name(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    write_clip(tmp_path / "a" / "0001.mp4", 40)
    source = form(kind, tmp_path, "a/0001.mp4", "b/0001.mp4")
    for load in (load_hra, lambda path: convert(path, tmp_path / "out")):
        with pytest.raises(BadRowsError, match=r"b/0001\.mp4: no such clip") as caught:
            load(source)
        assert len(caught.value.errors) == 1
    assert not (tmp_path / "out").exists()
    assert main(["validate", str(source)]) == (0 if kind == "metadata" else 1) or kind == "metadata"
    assert "b/0001.mp4: no such " in capsys.readouterr().out
    assert main(["convert", str(source), str(tmp_path / "out")]) == 1
    write_clip(tmp_path / "b" / "0001.mp4", 200)
    convert(source, tmp_path / "out")
    stored = [row["video"]["bytes"] for row in load_dataset(str(tmp_path / "out"), split="train")]
    assert stored == [(tmp_path / folder / "0001.mp4").read_bytes() for folder in "ab"]


@pytest.mark.parametrize("reference", ["/elsewhere/0001.mp4", "../x/0001.mp4", "a/../b/0001.mp4", "A/0001.MP4"])
def test_nor_by_a_path_of_another_machine_or_case(tmp_path: Path, reference: str):
    write_clip(tmp_path / "set" / "a" / "0001.mp4")
    for kind in ("authors", "captions", "metadata"):
        with pytest.raises(BadRowsError, match="no such clip"):
            load_hra(form(kind, tmp_path / "set", reference))
        (tmp_path / "set" / "metadata.jsonl").unlink(missing_ok=True)


def test_a_bare_name_may_stand_in_any_subfolder_if_only_one_does(tmp_path: Path):
    clip = write_clip(tmp_path / "deep" / "er" / "0001.mp4")
    finder = ClipFinder(tmp_path, tmp_path / "home")
    for name in ("0001.mp4", "0001", "videos/0001.mp4", f"{tmp_path.name}/deep/er/0001.mp4", "deep/er/0001"):
        assert finder.find(name) == clip
    write_clip(tmp_path / "0001.mp4.mp4", 90)
    write_clip(tmp_path / "other" / "0002.mp4", 120)
    write_clip(tmp_path / "0002.mp4", 200)
    finder = ClipFinder(tmp_path, tmp_path / "home")
    assert finder.find("0001.mp4") == clip and finder.find("0002.mp4") == tmp_path / "0002.mp4"
    write_clip(tmp_path / "third" / "0001.mp4", 30)
    with pytest.raises(ValueError, match=r"0001\.mp4: 2 files have this name, as .* Give the path"):
        ClipFinder(tmp_path, tmp_path / "home").find("0001.mp4")


def test_names_of_another_unicode_form_are_the_same(tmp_path: Path):
    """A Mac writes an accent as a letter of its own."""
    composed = "caf\u00e9.mp4"
    clip = write_clip(tmp_path / "x" / unicodedata.normalize("NFD", composed))
    finder = ClipFinder(tmp_path, tmp_path / "home")
    assert (
        finder.find(composed)
        == finder.find(f"x/{composed}")
        == finder.find(unicodedata.normalize("NFD", composed))
        == clip
    )


@pytest.mark.parametrize("second", ["0001", "./0001.mp4", "videos/0001.mp4", "link.mp4"])
def test_no_file_serves_two_clips(tmp_path: Path, second: str):
    clip = write_clip(tmp_path / "videos" / "0001.mp4")
    (tmp_path / "videos" / "link.mp4").symlink_to(clip)
    rows = [
        {"video": name, "prompt": f"clip {n}", "video_id": f"id{n}", **LABELS}
        for n, name in enumerate(("0001.mp4", second))
    ]
    (error,) = validate(metadata(tmp_path, *rows)).hra.errors
    assert error.where.endswith("row 2") and "is the clip of" in error.problem and "row 1 already" in error.problem


def test_clips_of_one_name_in_two_folders_are_two_clips(tmp_path: Path):
    for number, folder in enumerate("ab"):
        write_clip(tmp_path / folder / "0001.mp4", 100 * number)
    rows = [{"video": f"{folder}/0001.mp4", "prompt": "the same prompt", **LABELS} for folder in "ab"]
    loaded = load_hra(metadata(tmp_path, *rows))["train"]
    assert len(set(loaded["video_id"])) == 2
    assert [Path(row["video"]["path"]).parent.name for row in loaded] == ["a"] * 3 + ["b"] * 3


def test_members_of_zips_are_found_like_files(tmp_path: Path):
    clip = write_clip(tmp_path / "made" / "0001.mp4")
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(clip, "a/0001.mp4")
    clip.unlink()
    finder = ClipFinder(tmp_path, tmp_path / "home")
    assert finder.find("a/0001.mp4") == finder.find("0001.mp4") is not None
    assert finder.find("b/0001.mp4") is None


def test_the_folder_that_is_given_comes_before_the_one_of_the_table(tmp_path: Path):
    write_clip(tmp_path / "table" / "0001.mp4", 10)
    wanted = write_clip(tmp_path / "clips" / "0001.mp4", 200)
    source = metadata(tmp_path / "table", {"file_name": "0001.mp4", "prompt": "a fox", **LABELS})
    assert load_hra(source, video_dir=tmp_path / "clips")["train"][0]["video"]["path"] == str(wanted)


# ---- relative folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("videos", ["clips", "clips/", "./clips", "../here/clips"])
@pytest.mark.parametrize("named", ["0001.mp4", "clips/0001.mp4"])
def test_the_line_of_the_documentation_stores_the_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: str, named: str, capsys: pytest.CaptureFixture[str]
):
    clip = write_clip(tmp_path / "here" / "clips" / "0001.mp4")
    captions(tmp_path / "here" / "captions.csv", named)
    monkeypatch.chdir(tmp_path / "here")
    assert main(["convert", "captions.csv", "real", "--videos", videos]) == 0
    assert "0 clips without their file" in capsys.readouterr().out
    (row,) = load_dataset("real", split="train")
    assert row["video"]["bytes"] == clip.read_bytes()
    monkeypatch.chdir(tmp_path)
    (video,) = load_rated_videos("here/real")
    assert video.is_real


def test_every_command_takes_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_clip(tmp_path / "here" / "clips" / "0001.mp4")
    metadata(tmp_path / "here" / "table", {"file_name": "0001.mp4", "prompt": "a fox", **LABELS})
    monkeypatch.chdir(tmp_path / "here")
    assert main(["validate", "table", "--videos", "clips"]) == 0
    assert main(["convert", "table", "out", "--videos", "clips"]) == 0
    loaded = load_hra("table", video_dir="clips")["train"]
    monkeypatch.chdir(tmp_path)
    assert Path(loaded[0]["video"]["path"]).is_file()
    assert load_rated_videos("here/out")[0].reward() == pytest.approx(0.9)


def test_paths_of_a_published_folder_count_from_it_and_not_from_where_we_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_clip(tmp_path / "videos" / "a.mp4")  # of another set
    source = write_authors_json(tmp_path / "src" / "data.json", ["videos/a.mp4"])
    convert(source, tmp_path / "hra", missing_videos="keep")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRowsError, match=r"hra/videos/a\.mp4: no such video file"):
        load_rated_videos("hra")
    with pytest.raises(BadRowsError, match=r"videos/a\.mp4: no such clip"):
        load_hra("hra")
    clip = write_clip(tmp_path / "hra" / "videos" / "a.mp4", 200)
    assert [video.video for video in load_rated_videos("hra")] == [clip]


@pytest.mark.parametrize("place", ["{}/secret.mp4", "../secret.mp4", "{}/{}/lift_trl/../../secret.mp4"])
def test_a_dataset_of_the_hub_names_no_file_of_this_machine(hub: LocalHub, tmp_path: Path, place: str):
    write_clip(tmp_path / "secret.mp4")
    row = {
        "id": "a",
        "video": {"bytes": None, "path": place.format(tmp_path, "home")},
        "caption": "c",
        "source": "real",
    }
    (tmp_path / "bad" / "data").mkdir(parents=True)
    table = pa.Table.from_pylist([{**row, "annotations": []}], schema=hra_features().arrow_schema)
    pq.write_table(table, tmp_path / "bad" / "data" / "train-00000-of-00001.parquet")
    name = push(hub, tmp_path / "bad", "dev/names-a-file")
    with pytest.raises(BadRowsError, match="no such clip"):
        load_hra(name)
    (error,) = check_rated_videos(name).errors
    assert "outside of" in error.problem or "no such video file" in error.problem


# ---- small sets ------------------------------------------------------------------------------------------------------


def test_sets_of_two_clips_and_more_are_divided_and_keep_their_split_as_they_grow():
    for start in range(40):
        names = [f"clip{start}-{n}" for n in range(12)]
        for fraction in (0.01, 0.3, 0.99):
            before: set[str] = set()
            for count in range(2, len(names) + 1):
                held = held_out_videos(names[:count], test_fraction=fraction)
                assert 0 < len(held) < count
                assert held & set(names[: count - 1]) == before & set(names[: count - 1]) or count == 2
                before = held
    six = split_by_video(rows_of(*(f"video{n}" for n in range(6))), test_fraction=0.3)
    assert six["train"].num_rows > 0 and six["test"].num_rows > 0
    assert not set(six["train"]["video_id"]) & set(six["test"]["video_id"])


def test_one_clip_cannot_be_divided_and_the_message_says_what_can(tmp_path: Path):
    with pytest.raises(ValueError, match="With two videos or more, any test_fraction divides them"):
        split_by_video(rows_of("a"), test_fraction=0.5)
    write_clip(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="With two clips or more, any test_fraction divides them"):
        convert(captions(tmp_path / "captions.csv", "a.mp4"), tmp_path / "out", test_fraction=0.5)
    write_clip(tmp_path / "b.mp4", 200)
    both = captions(tmp_path / "captions.csv", "a.mp4", "b.mp4")
    result = convert(both, tmp_path / "out", test_fraction=0.3)
    assert result.num_clips == {"train": 1, "test": 1}


# ---- captions and LiFT-HRA, as people and pandas write them ----------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json"])
@pytest.mark.parametrize("missing", ["", "nan", "None", float("nan")], ids=repr)
def test_a_missing_caption_is_a_bad_row_by_every_route(tmp_path: Path, suffix: str, missing: object):
    write_clip(tmp_path / "a.mp4")
    write_clip(tmp_path / "b.mp4", 200)
    rows = [{"video": "a.mp4", "caption": "a fox"}, {"video": "b.mp4", "caption": missing}]
    path = tmp_path / f"captions.{suffix}"
    if suffix in ("csv", "tsv"):
        mark = "," if suffix == "csv" else "\t"
        path.write_text(
            "".join(mark.join(map(str, line)) + "\n" for line in [rows[0], *(row.values() for row in rows)])
        )
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadRowsError, match=rf"captions\.{suffix}, row 2: no clip or no caption") as caught:
        convert(path, tmp_path / "out")
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize("content", ["video,caption\na.mp4,A fox runs, then stops\n", "video;caption\na.mp4;a fox\n"])
def test_a_captions_table_that_would_be_cut_or_misread_is_refused(tmp_path: Path, content: str):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "captions.csv").write_text(content)
    with pytest.raises(ValueError, match=r"captions\.csv.*(3 cells, 2 columns|one cell, 'video;caption')"):
        convert(tmp_path / "captions.csv", tmp_path / "out")


def test_ratings_are_not_lost_by_taking_their_table_for_captions(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    table = metadata(tmp_path, {"file_name": "a.mp4", "prompt": "a fox", "reward": 0.1}) / "metadata.jsonl"
    with pytest.raises(ValueError, match=r"metadata\.jsonl: holds ratings \(reward\).*name that folder"):
        convert(table, tmp_path / "out")


def test_missing_values_of_ratings_are_missing(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    nan = float("nan")
    row = {
        "file_name": "a.mp4",
        "caption": "a fox",
        "is_real": nan,
        "source": nan,
        "video_id": nan,
        "id": nan,
        **LABELS,
    }
    rows = load_hra(
        metadata(tmp_path, row | {"reasons": dict.fromkeys(LABELS, nan), "annotator": nan, "created_at": nan})
    )
    first = rows["train"][0]
    assert (first["source"], first["reason"], first["annotator"], first["created_at"]) == ("synthetic", "", "", None)
    assert first["video_id"] != "nan" and rows["train"].num_rows == 3
    tidy = {
        "file_name": "a.mp4",
        "caption": "a fox",
        "dimension": "motion_smoothness",
        "label": "Bad",
        "annotator": 7.0,
    }
    (only,) = load_hra(metadata(tmp_path, tidy | dict.fromkeys(LABELS, nan)))["train"]
    assert (only["label"], only["annotator"]) == ("Bad", "7")
    assert "no caption" in validate(metadata(tmp_path, {**row, "caption": "nan"})).hra.errors[0].problem


def test_what_serves_one_use_only_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Rewards, some of them with reasons in words, and a real clip."""
    for number in range(6):
        write_clip(tmp_path / f"{number}.mp4", 40 * number)
    rows = [
        {"file_name": f"{n}.mp4", "prompt": "a fox", "reward": 0.5, "reasons": f"Because of {n}."} for n in range(5)
    ]
    metadata(tmp_path, *rows, {"file_name": "5.mp4", "prompt": "a street", "is_real": True})
    assert main(["validate", str(tmp_path)]) == 0
    complaint, alignment, hra = capsys.readouterr().out.splitlines()
    assert "row 1: not as LiFT-HRA: no rating" in complaint and complaint.endswith("(as 4 other rows)")
    assert alignment == "for alignment: 6 clips can be used (1 real), 0 bad rows"
    assert hra == "as LiFT-HRA: 1 clips with 0 ratings can be used, 5 bad rows"
