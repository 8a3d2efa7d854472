"""`load_hra` on every form, its errors, and splits that never divide a video."""

import json
import re
import stat
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Video, load_dataset

from lift_trl.cli import main
from lift_trl.critic.examples import rated_clips, read_examples
from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import load_hra, split_by_video, split_new_videos, tidy_features
from lift_trl.feedback.validate import validate
from lift_trl.records import Annotation
from lift_trl.rubric import Dimension, Label
from lift_trl.store.rated_videos import BadRowsError
from tests.feedback.conftest import conversation, critic_row, write_authors_json, write_clip


SEMANTIC, MOTION, FIDELITY = Dimension


def zip_clips(archive: Path, clips: dict[str, Path]) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(archive, "w") as file:
        for name, path in clips.items():
            file.writestr(ZipInfo(name), path.read_bytes())
    return archive


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """A folder as `Fudan-FUXI/LiFT-HRA-10K`: one JSON, clips in two zips."""
    folder = tmp_path / "LiFT-HRA"
    write_authors_json(
        folder / "LiFT-HRA-data.json", ["videos/a.mp4", "videos/b.mp4", "videos/AkQlXiOmKhM-Scene-0009.mp4"]
    )
    clips = {
        name: write_clip(tmp_path / "made" / f"{name}.mp4", grey) for name, grey in (("a", 40), ("b", 90), ("v", 200))
    }
    zip_clips(folder / "videos" / "HRA_part1.zip", {"HRA_part1/a.mp4": clips["a"]})
    zip_clips(folder / "videos" / "HRA_part2.zip", {"b.mp4": clips["b"], "AkQlXiOmKhM-Scene-0009.mp4": clips["v"]})
    return folder


def test_authors_folder_with_zips(authors: Path, tmp_path: Path):
    train = load_hra(authors)["train"]
    assert train.features == tidy_features() and set(train.column_names) == set(Annotation.__dataclass_fields__)
    assert train.features["video"] == Video(decode=False)
    row = train[1]
    assert (row["video_id"], row["dimension"], row["label"], row["reason"]) == ("a", MOTION, Label.BAD, "Jumps.")
    assert (row["caption"], row["annotator"]) == ("A waiter\nnods, please, in scene 0.", "LiFT-HRA-data")
    assert train["source"] == ["synthetic"] * 6 + ["real"] * 3
    assert Path(row["video"]["path"]).read_bytes() == (tmp_path / "made" / "a.mp4").read_bytes()
    assert len({row["video"]["path"] for row in train}) == 3  # nine rows, three files


def test_the_source_argument_overrides_the_name_of_the_clip(authors: Path):
    assert set(load_hra(authors, source="real")["train"]["source"]) == {"real"}
    with pytest.raises(ValueError, match="'synthetic' or 'real'"):
        load_hra(authors, source="fake")


def test_loose_clips_come_before_zips(authors: Path):
    write_clip(authors / "videos" / "a.mp4", 7)
    assert load_hra(authors)["train"][0]["video"]["path"] == str(authors / "videos" / "a.mp4")


@pytest.mark.parametrize(
    "name", ["../out.mp4", "a/../../out.mp4", "/etc/out.mp4", "C:/out.mp4", "..\\out.mp4", "\\out.mp4"]
)
def test_a_zip_member_that_leaves_the_folder_is_refused(authors: Path, tmp_path: Path, name: str):
    zip_clips(authors / "videos" / "HRA_part3.zip", {name: tmp_path / "made" / "a.mp4"})
    before = sorted(tmp_path.rglob("*.mp4"))
    with pytest.raises(ValueError, match="leaves the folder"):
        load_hra(authors)
    after = [path for path in tmp_path.rglob("*.mp4") if path not in before]
    assert all("home" in path.parts for path in after) and not any(path.name == "out.mp4" for path in after)


def test_an_archive_that_cannot_be_unpacked_is_named_with_the_remedy(
    authors: Path, capsys: pytest.CaptureFixture[str]
):
    """With a password, by a method that Python lacks, with a bit that fell over, cut off: one line each."""
    archive = authors / "videos" / "HRA_part2.zip"
    whole = archive.read_bytes()
    entries = [found.start() for found in re.finditer(b"PK\x01\x02", whole)]  # of the table of contents, at the end
    header = whole.index(b"PK\x03\x04")
    start = header + 30 + int.from_bytes(whole[header + 26 : header + 28], "little")  # of the first member's data
    for change, message in (
        ({place + 8: 1 for place in [*entries]} | {6: 1}, "needs a password. Unpack it beside"),
        (
            {place + 10: 9 for place in [*entries]} | {8: 9},
            "is packed in a way that is not read here .*Unpack it beside",
        ),
        ({start + 40: whole[start + 40] ^ 0xFF}, r"no readable zip file .*Fetch it again"),
    ):
        broken = bytearray(whole)
        for place, value in change.items():
            broken[place] = value
        archive.write_bytes(broken)
        assert main(["validate", "--no-decode", str(authors)]) == 1
        assert re.search(f"HRA_part2.zip: .*{message}", capsys.readouterr().out), message


def test_clips_behind_a_link_to_another_disk_are_found(authors: Path, tmp_path: Path):
    """Loose clips and zips, and a link that leads back."""
    (authors / "videos").rename(tmp_path / "disk")
    (authors / "videos").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(authors)
    (tmp_path / "disk" / "latest").symlink_to(tmp_path / "disk")
    rows = load_hra(authors)["train"]
    assert rows.num_rows > 0 and all(Path(video["path"]).is_file() for video in rows["video"])
    (archive,) = tmp_path.glob("disk/HRA_part1.zip")
    with ZipFile(archive) as file:
        file.extractall(tmp_path / "disk")
    archive.unlink()
    (tmp_path / "disk" / "a_link").symlink_to("HRA_part1")  # the same clips again
    again = load_hra(authors)["train"]
    assert again.num_rows == rows.num_rows
    assert any(Path(video["path"]).is_relative_to(authors / "videos" / "HRA_part1") for video in again["video"])


def test_a_parquet_file_that_was_cut_off_is_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [
        {"id": str(n), "video": {"bytes": bytes(99), "path": None}, "caption": "a fox", "source": "real"}
        for n in range(9)
    ]
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.Table.from_pylist(rows), whole)
    for number, (name, part) in enumerate(
        (
            ("metadata.parquet", 0.9),
            ("data/train-0.parquet", 0.9),
            ("metadata.parquet", 0.0),
            ("data/train-1.parquet", 0.5),
        )
    ):
        folder = tmp_path / str(number)
        (folder / name).parent.mkdir(parents=True)
        data = whole.read_bytes()
        (folder / name).write_bytes(data[: int(part * len(data))] + (data[-8:] if part else b""))
        assert main(["validate", "--no-decode", str(folder)]) == 1
        said = capsys.readouterr()
        assert "Write or fetch it again" in said.out + said.err and str(folder) in said.out + said.err


def test_a_zip_member_that_is_a_link_is_refused(authors: Path):
    link = ZipInfo("link.mp4")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(authors / "videos" / "HRA_part3.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="symbolic link"):
        load_hra(authors)


def test_a_broken_zip_and_two_clips_of_one_name_are_named(authors: Path, tmp_path: Path):
    zip_clips(authors / "videos" / "HRA_part3.zip", {"other/b.mp4": tmp_path / "made" / "a.mp4"})
    with pytest.raises(BadRowsError, match="2 files have this name"):
        load_hra(authors)
    (authors / "videos" / "HRA_part3.zip").write_bytes(b"PK half a download")
    with pytest.raises(ValueError, match="HRA_part3.zip: no readable zip file"):
        load_hra(authors)


def test_missing_clips_raise_unless_kept_or_dropped(tmp_path: Path):
    path = write_authors_json(tmp_path / "data.json", ["videos/a.mp4", "videos/b.mp4"])
    write_clip(tmp_path / "b.mp4")
    with pytest.raises(BadRowsError, match="a.mp4: no such clip.*missing_videos='keep'"):
        load_hra(path)
    kept = load_hra(path, missing_videos="keep")["train"]
    assert [row["video"]["path"] for row in kept][::3] == ["videos/a.mp4", str(tmp_path / "b.mp4")]
    assert set(load_hra(path, missing_videos="drop")["train"]["video_id"]) == {"b"}
    with pytest.raises(ValueError, match="'raise', 'keep' or 'drop'"):
        load_hra(path, missing_videos="ignore")  # type: ignore[arg-type]


def test_clips_in_another_folder(tmp_path: Path):
    path = write_authors_json(tmp_path / "json" / "data.json", ["videos/a.mp4"])
    write_clip(tmp_path / "clips" / "a.mp4")
    assert load_hra(path, video_dir=tmp_path / "clips")["train"].num_rows == 3


def test_a_row_cannot_name_a_file_outside_of_its_folder(tmp_path: Path):
    write_clip(tmp_path / "secret.mp4")
    path = write_authors_json(tmp_path / "inner" / "data.json", ["../secret.mp4"])
    with pytest.raises(BadRowsError, match="no such clip"):
        load_hra(path)


def test_critic_output(tmp_path: Path):
    labels = dict(zip(Dimension, (Label.GOOD, Label.NORMAL, Label.BAD)))
    write_clip(tmp_path / "0.mp4")
    (tmp_path / "critic_output_13b.json").write_text(json.dumps([critic_row("0.mp4", labels)]))
    rows = load_hra(tmp_path / "critic_output_13b.json")["train"]
    assert dict(zip(rows["dimension"], rows["label"])) == labels
    assert set(rows["annotator"]) == {"critic_output_13b"} and set(rows["video_id"]) == {"id_0.mp4"}


def test_a_point_in_a_name_is_no_suffix(tmp_path: Path):
    """'panda v1.5' and 'panda v1.6' are two clips, whether the file names their suffix or not."""
    for name, grey in (("panda v1.5", 40), ("panda v1.6", 200)):
        write_clip(tmp_path / "videos" / f"{name}.mp4", grey)
    rows = [
        conversation(f"videos/{name}", "A panda.", MOTION, "Bad. Jumps.") for name in ("panda v1.5", "panda v1.6.mp4")
    ]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    loaded = load_hra(tmp_path)["train"]
    assert loaded["video_id"] == ["panda v1.5", "panda v1.6"]
    assert [Path(row["video"]["path"]).name for row in loaded] == ["panda v1.5.mp4", "panda v1.6.mp4"]


def test_every_bad_row_of_a_json_is_listed(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    good = conversation("a.mp4", "A fox runs.", MOTION, "Good. Fine.")
    unasked = conversation("a.mp4", "A fox runs.", MOTION, "Good.")
    unasked["conversations"][0]["value"] = "<video>\n A fox runs."  # type: ignore[index]
    rows: list[object] = [
        good,
        conversation("a.mp4", "A fox runs.", MOTION, "Good-looking fox"),
        conversation("a.mp4", "A fox runs.", SEMANTIC, ""),
        unasked,
        conversation("a.mp4", "", SEMANTIC, "Good."),
        conversation("a.mp4", "Another caption.", SEMANTIC, "Good."),
        {"video": "a.mp4", "conversations": []},
        "text",
        {"video": "a.mp4"},
        conversation("b.mp4", "A fox runs.", MOTION, "Good."),
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows))
    errors = validate(path).hra.errors
    found = {int(error.where.rsplit(" ", 1)[1]): error.problem for error in errors}
    assert sorted(found) == list(range(2, 11))
    assert "does not begin with one of" in found[2] and "does not begin with one of" in found[3]
    assert "no question of the rubric" in found[4] and "no caption" in found[5] and "another caption" in found[6]
    assert "two, of 'human' and 'gpt'" in found[7] and "two forms" in found[8]
    assert "two forms" in found[9]
    assert "no such clip" in found[10]
    with pytest.raises(BadRowsError, match="9 bad rows"):
        load_hra(path)


def test_a_file_that_is_no_json_and_a_path_that_is_none(tmp_path: Path):
    (tmp_path / "data.json").write_text('[{"video": "a.mp4",},]')
    with pytest.raises(ValueError, match="comma after a last entry"):
        load_hra(tmp_path / "data.json")
    with pytest.raises(FileNotFoundError, match="user/name"):
        load_hra(tmp_path / "absent.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no Parquet and no JSON"):
        load_hra(tmp_path / "empty")


def test_decoding_finds_truncated_clips(authors: Path):
    clip = write_clip(authors / "videos" / "a.mp4")
    clip.write_bytes(clip.read_bytes()[:700])
    assert validate(authors, decode=False).hra.errors == []
    (error,) = validate(authors).hra.errors
    assert error.where.endswith("LiFT-HRA-data.json, row 1") and "a.mp4" in error.problem


def test_the_last_question_counts_and_captions_may_hold_its_words(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    caption = "A sign reads: Please identify the motion issues in this video"
    (tmp_path / "d.json").write_text(json.dumps([conversation("a.mp4", caption, FIDELITY, "bad: blur.")]))
    (row,) = load_hra(tmp_path / "d.json")["train"]
    assert (row["caption"], row["dimension"], row["label"]) == (caption, FIDELITY, Label.BAD)


def wide_row(**more: object) -> dict[str, object]:
    return {"file_name": "a.mp4", "prompt": "a fox", SEMANTIC: "Good", MOTION: "Bad", FIDELITY: "Normal", **more}


def test_own_clips_with_three_label_columns(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "metadata.jsonl").write_text(
        json.dumps(wide_row(reasons={MOTION: "It jumps."}, annotator="me")) + "\n"
    )
    rows = load_hra(tmp_path)["train"]
    assert rows["label"] == ["Good", "Bad", "Normal"] and rows["reason"] == ["", "It jumps.", ""]
    assert set(rows["annotator"]) == {"me"} and Path(rows[0]["video"]["path"]) == tmp_path / "a.mp4"
    (tmp_path / "metadata.jsonl").write_text(json.dumps(wide_row(reasons="It jumps.")) + "\n")
    assert "no mapping" in validate(tmp_path).hra.errors[0].problem


def test_own_tidy_rows_of_several_raters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_clip(tmp_path / "own" / "a.mp4")
    tidy = [
        {"file_name": "a.mp4", "caption": "a fox", "dimension": d, "label": label, "annotator": who, "id": f"{who}{d}"}
        for who, label in (("x", "Good"), ("y", "Bad"))
        for d in Dimension
    ]
    (tmp_path / "own" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tidy))
    monkeypatch.chdir(tmp_path)
    rows = load_hra("own")["train"]
    assert len(rows) == 6 and len(set(rows["video_id"])) == 1
    assert Path(rows[0]["video"]["path"]) == tmp_path / "own" / "a.mp4"


def test_published_form_gives_the_same_tidy_rows(authors: Path, tmp_path: Path):
    convert(authors, tmp_path / "hra", test_fraction=0.5)
    direct = load_hra(authors, test_fraction=0.5)
    published = load_hra(tmp_path / "hra")
    for split in ("train", "test"):
        for a, b in zip(direct[split], published[split], strict=True):
            clips = (Path(a.pop("video")["path"]).read_bytes(), Path(b.pop("video")["path"]).read_bytes())
            assert a == b and clips[0] == clips[1]
    (shard,) = (tmp_path / "hra" / "data").glob("test-*.parquet")
    assert load_hra(shard)["train"]["video_id"] == published["test"]["video_id"]
    with pytest.raises(ValueError, match="splits train, test already"):
        load_hra(tmp_path / "hra", test_fraction=0.5)


def rows_of(*names: str) -> Dataset:
    rows = [
        {**dict.fromkeys(Annotation.__dataclass_fields__, "x"), "video": f"{n}.mp4", "video_id": n, "dimension": d}
        for n in names
        for d in Dimension
    ]
    return Dataset.from_list(rows, features=tidy_features())


def test_split_by_video_divides_no_video_and_is_stable_when_the_data_grow():
    names = [f"clip{n}" for n in range(300)]
    small, large = (split_by_video(rows_of(*part), test_fraction=0.2) for part in (names[:200], names))
    train, test = set(large["train"]["video_id"]), set(large["test"]["video_id"])
    assert not train & test and train | test == set(names) and 40 <= len(test) <= 80
    assert large["train"].num_rows == 3 * len(train)
    assert set(small["test"]["video_id"]) <= test and set(small["train"]["video_id"]) <= train
    assert set(split_by_video(rows_of(*names), test_fraction=0.2, seed=1)["test"]["video_id"]) != test
    for fraction in (0, 1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_by_video(rows_of("a"), test_fraction=fraction)
    with pytest.raises(ValueError, match="choose another split"):
        split_by_video(rows_of("a"), test_fraction=0.5)


def test_the_10k_trains_and_what_the_20k_adds_tests():
    splits = split_new_videos(rows_of("a", "b"), rows_of("b", "c", "a", "d"))
    assert splits["train"]["video_id"] == ["a"] * 3 + ["b"] * 3
    assert splits["test"]["video_id"] == ["c"] * 3 + ["d"] * 3
    with pytest.raises(ValueError, match="share no video id"):
        split_new_videos(rows_of("part1/a"), rows_of("a"))
    with pytest.raises(ValueError, match="test 0"):
        split_new_videos(rows_of("a"), rows_of("a"))


def test_captions_alone_are_no_ratings_but_load_as_clips(tmp_path: Path):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.mp4,a fox\n")
    assert "no rating" in validate(tmp_path).hra.errors[0].problem
    (tmp_path / "metadata.csv").write_text("file_name,caption,annotations\na.mp4,a fox,Good\n")
    assert "annotations are 'Good'; give a list" in validate(tmp_path).hra.errors[0].problem
    (tmp_path / "metadata.csv").write_text("file_name,caption,is_real\na.mp4,a fox,TRUE\n")
    assert validate(tmp_path).hra.errors == [] and load_hra(tmp_path)["train"].num_rows == 0
    assert load_dataset("csv", data_files=str(tmp_path / "metadata.csv"), split="train")["caption"][0] == "a fox"


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """Four ratings of two clips: one without a sign after its label, two whose captions differ in white space."""
    folder = tmp_path / "spoiled"
    for name, grey in (("a", 40), ("b", 90)):
        write_clip(folder / f"{name}.mp4", grey)
    rows = [
        conversation("a.mp4", "A waiter nods.", SEMANTIC, "Bad The hand is missing."),
        conversation("a.mp4", "A waiter nods.", MOTION, "Bad\nIt jumps."),
        conversation("b.mp4", "A  waiter\nnods again.", SEMANTIC, "Good - all is there."),
        conversation("b.mp4", "A waiter nods again.", MOTION, "1. Normal: it hops."),
    ]
    (folder / "data.json").write_text(json.dumps(rows))
    return folder


def test_bad_rows_are_dropped_where_that_is_asked_for_with_a_count_and_a_list(
    spoiled: Path, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(BadRowsError, match="1 bad rows") as caught:
        load_hra(spoiled)
    assert "row 1" in str(caught.value)
    train = load_hra(spoiled, bad_rows="drop")["train"]
    assert [(row["video_id"], row["label"], row["reason"]) for row in train] == [
        ("a", Label.BAD, "It jumps."),
        ("b", Label.GOOD, "all is there."),
        ("b", Label.NORMAL, "it hops."),
    ]
    assert "1 bad rows are left out, 3 ratings are kept" in caplog.text
    (listed,) = (spoiled.parent / "home" / "lift_trl" / "bad_rows").iterdir()
    assert str(listed) in caplog.text
    assert listed.read_text().startswith(f"{spoiled / 'data.json'}, row 1: answer 'Bad The hand is missing.'")
    with pytest.raises(ValueError, match="'raise' or 'drop'"):
        load_hra(spoiled, bad_rows="keep")


def test_captions_that_differ_in_white_space_are_one(spoiled: Path):
    train = load_hra(spoiled, bad_rows="drop")["train"]
    assert set(train["caption"][1:]) == {"A  waiter\nnods again."}
    examples = read_examples(train)
    assert [clip.clip for clip in rated_clips(examples)] == ["a", "b"]
    rows = train.to_list()
    rows[2]["caption"] = "A waiter nods  again. "
    assert [clip.clip for clip in rated_clips(read_examples(Dataset.from_list(rows)))] == ["a", "b"]


def test_nothing_but_bad_rows_is_an_error_and_convert_drops_too(spoiled: Path, tmp_path: Path):
    result = convert(spoiled, tmp_path / "out", bad_rows="drop")
    assert result.num_annotations == {"train": 3}
    content = json.loads((spoiled / "data.json").read_text())
    (spoiled / "data.json").write_text(json.dumps(content[:1]))
    with pytest.raises(BadRowsError):
        load_hra(spoiled, bad_rows="drop")
