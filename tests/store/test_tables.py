"""Tables as people and pandas write them: missing is missing, and a row that does not fit is a bad row, by every route."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from lift_trl.records import RatedVideo
from lift_trl.rubric import Dimension
from lift_trl.store.rated_videos import BadRowsError, check_rated_videos, load_rated_videos
from lift_trl.store.tables import table_rows, text_lines
from lift_trl.store.video_io import write_video


ROUTES = ("jsonl", "csv", "parquet", "dataset")
NAN = float("nan")
MISSING = (None, NAN, "", "  ", "nan", "NaN", "NaT", "<NA>", "None", "null")
ROW = {"file_name": "0.mp4", "prompt": "a red fox", "reward": 0.05}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, grey in enumerate((40, 120, 200)):
        write_video(tmp_path / f"{number}.mp4", np.full((2, 16, 16, 3), grey, np.uint8), fps=8)
    return tmp_path


def by(route: str, folder: Path, *rows: dict[str, object]) -> "Dataset | Path":
    """`rows` as that route brings them to `load_rated_videos`."""
    if route == "dataset":
        named = [{**row, "video": str(folder / str(row["file_name"]))} for row in rows]
        return Dataset.from_list([{k: v for k, v in row.items() if k != "file_name"} for row in named])
    path = folder / f"metadata.{route}"
    if route == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif route == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [names, *([str("" if row.get(name) is None else row[name]) for name in names] for row in rows)]
        path.write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def problems(data: object) -> list[str]:
    return [error.problem for error in check_rated_videos(data).errors]  # type: ignore[arg-type]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_what_is_missing_in_a_column_is_missing(folder: Path, route: str, missing: object):
    """A clip is real, unscored or named only if a cell says so; a rating of NaN is none, and no prompt is "nan"."""
    given = dict.fromkeys(("is_real", "source", "unscored", "id", "video_id", "expected_reward", "caption"), missing)
    (fox,) = load_rated_videos(by(route, folder, ROW | given | dict.fromkeys(Dimension, missing)))
    assert (fox.is_real, fox.prompt, fox.reward(), fox.labels) == (False, "a red fox", 0.05, None)
    assert fox.expected_reward is None and len(fox.id) == 16
    for column, problem in (("prompt", "no prompt"), ("reward", "no rating")):
        (found,) = problems(by(route, folder, ROW | given | {column: missing}))
        assert problem in found
    (captioned,) = load_rated_videos(by(route, folder, ROW | {"prompt": missing, "caption": "a grey fox"}))
    assert captioned.prompt == "a grey fox"


@pytest.mark.parametrize("route", ROUTES)
def test_pandas_makes_numbers_of_booleans_and_keys_beside_missing_cells(folder: Path, route: str):
    rows = [
        ROW | {"is_real": 0.0, "id": 7.0},
        {"file_name": "1.mp4", "prompt": "a street", "reward": NAN, "is_real": 1.0, "id": NAN},
        {"file_name": "2.mp4", "prompt": "a dog", "reward": 0.5, "is_real": NAN, "id": 0.0},
    ]
    fox, street, dog = load_rated_videos(by(route, folder, *rows))
    keys = ("7.0", "0.0") if route == "csv" else ("7", "0")  # in a text table a key is what stands there
    assert (fox.is_real, dog.is_real) == (False, False) and (fox.id, dog.id) == keys
    assert street.is_real and street.scalar_reward is None and len(street.id) == 16


def test_ratings_with_missing_reasons_and_raters(folder: Path):
    ratings = [{"dimension": d, "label": "Good", "reason": NAN, "annotator": NAN} for d in Dimension]
    for annotations in (NAN, "nan"):
        (found,) = problems(by("jsonl", folder, {**ROW, "reward": None, "annotations": annotations}))
        assert "no rating" in found
    (video,) = load_rated_videos(by("jsonl", folder, {**ROW, "reward": None, "annotations": ratings}))
    assert set(video.labels.values()) == {"Good"}
    ratings[1]["label"] = NAN
    assert "is unknown" in problems(by("jsonl", folder, {**ROW, "reward": None, "annotations": ratings}))[0]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"reward": "62%"}, "reward '62%' is no number; give a number in [0, 1], as 0.62"),
        ({"reward": "0,62"}, "reward '0,62' is no number"),
        ({"reward": 62}, "not in [0, 1]"),
        ({"reward": float("inf")}, "not in [0, 1]"),
        ({"prompt": 5}, "the prompt is 5, which is no text"),
        ({"prompt": ["a fox"]}, "the prompt is ['a fox'], which is no text"),
        ({"is_real": "perhaps"}, "is_real='perhaps'; use true or false"),
        ({"is_real": 2}, "is_real=2; use true or false"),
        ({"is_real": []}, "is_real=[]; use true or false"),
        ({"is_real": False, "source": "real"}, "is_real is False, but source 'real'"),
        ({"is_real": True, "source": "synthetic"}, "is_real is True, but source 'synthetic'"),
        ({"unscored": "cannot be decoded"}, "unscored is 'cannot be decoded', yet there is a rating"),
        ({"Is_Real": True}, "the column 'Is_Real' would not be read; rename it to 'is_real'"),
        ({" reward": 0.9}, "the column ' reward' would not be read"),
    ],
)
def test_a_value_that_does_not_say_what_it_means_is_a_bad_row(folder: Path, columns: dict[str, object], problem: str):
    (found,) = problems(by("jsonl", folder, ROW | columns))
    assert problem in found


def test_texts_for_booleans_are_read_in_any_case(folder: Path):
    rows = [ROW | {"file_name": f"{i}.mp4", "is_real": text} for i, text in enumerate(("False", "TRUE", "0"))]
    assert [video.is_real for video in load_rated_videos(by("jsonl", folder, *rows))] == [False, True, False]


def write_csv(folder: Path, text: str, encoding: str = "utf-8", name: str = "metadata.csv") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder


def test_rows_that_do_not_fit_their_header_are_bad_rows(folder: Path):
    text = (
        "file_name,reward,prompt\n"
        "0.mp4,0.9,A fox runs through snow, then it stops\n"  # cut at the comma before
        '1.mp4,0.8, "A dog, which runs"\n'
        "2.mp4,0.7\n"
        ",,\n"
        '2.mp4,0.7,"A cat" runs\n'
        "2.mp4,0.7,A cat\n"
    )
    checked = check_rated_videos(write_csv(folder, text))
    assert [video.prompt for video in checked.videos] == ["A dog, which runs", "A cat"]
    assert [error.where[-5:] for error in checked.errors] == ["row 1", "row 3", "row 4"]
    many, few, quoted = (error.problem for error in checked.errors)
    assert many == "4 cells, 3 columns; put a text that holds ',', such as the caption, in quotes."
    assert few.startswith("2 cells, 3 columns") and "Double each quotation mark" in quoted


def test_a_quote_that_is_not_closed_swallows_no_row_unseen(folder: Path):
    text = 'file_name,reward,prompt\n0.mp4,0.9,A fox\n1.mp4,0.9,"A dog\n2.mp4,0.9,A cat\n'
    checked = check_rated_videos(write_csv(folder, text))
    assert [video.prompt for video in checked.videos] == ["A fox"]
    (error,) = checked.errors
    assert "row 2" in error.where and "close them" in error.problem


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_another_encoding_is_named_with_file_line_and_remedy(folder: Path, encoding: str, suffix: str):
    csv = "file_name,prompt,reward\n0.mp4,a caf\u00e9,0.5\n"
    text = (
        csv
        if suffix == "csv"
        else json.dumps(ROW) + "\n" + json.dumps(ROW | {"prompt": "a caf\u00e9"}, ensure_ascii=False)
    )
    write_csv(folder, text, encoding, f"metadata.{suffix}")
    line = 1 if "16" in encoding else 2
    message = rf"metadata\.{suffix}, line {line}: byte .* is not UTF-8.*\(UTF-16, cp1252\)\. Save the file as UTF-8"
    with pytest.raises(ValueError, match=message):
        load_rated_videos(folder)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_is_named_with_file_and_remedy(folder: Path, separator: str):
    text = "file_name,prompt,reward\n0.mp4,a fox,0.5\n".replace(",", separator)
    with pytest.raises(
        ValueError, match=r"metadata\.csv: the header is one cell, .*; save the table with ',' between"
    ):
        load_rated_videos(write_csv(folder, text))


def test_a_header_that_a_spreadsheet_writes(folder: Path):
    """A byte order mark, spaces behind commas, a column of row numbers, empty columns and rows, Windows' line ends."""
    text = "\ufeff, file_name, prompt, reward,,\r\n0,0.mp4, a fox, 0.5,,\r\n\r\n,,,,,\r\n1,1.mp4,a caf\u00e9,1,,\r\n"
    fox, coffee = load_rated_videos(write_csv(folder, text))
    assert (fox.prompt, fox.reward(), coffee.prompt, coffee.reward()) == ("a fox", 0.5, "a caf\u00e9", 1.0)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file_name,prompt,reward,prompt", "two columns are named 'prompt'; rename or delete one"),
        ("file_name,Prompt,reward,x", "the column 'Prompt' would not be read; rename it to 'prompt'"),
        ("File Name,prompt,reward,x", "the column 'File Name' would not be read; rename it to 'file_name'"),
    ],
)
def test_headers_that_would_be_misread_are_refused_once(folder: Path, header: str, message: str):
    with pytest.raises(ValueError, match=rf"metadata\.csv: {message}") as caught:
        load_rated_videos(write_csv(folder, f"{header}\n0.mp4,a fox,0.5,b\n1.mp4,a dog,0.5,b\n"))
    assert not isinstance(caught.value, BadRowsError)


def test_a_column_of_a_dataset_in_capitals_is_refused(folder: Path):
    rows = [{"video": str(folder / "0.mp4"), "prompt": "a fox", "Reward": 0.5, "is_real": True}]
    with pytest.raises(ValueError, match="dataset: the column 'Reward' would not be read; rename it to 'reward'"):
        load_rated_videos(Dataset.from_list(rows))


def test_a_name_that_stands_twice_in_a_json_row_is_a_bad_row(folder: Path):
    (folder / "metadata.jsonl").write_text('{"file_name": "0.mp4", "prompt": "a", "prompt": "b", "reward": 0.5}\n')
    assert problems(folder) == ["'prompt' stands twice in the row; delete one."]


@pytest.mark.parametrize("other", ["metadata.csv", "metadata.parquet", "metadata.tsv"])
def test_two_metadata_files_side_by_side_are_refused(folder: Path, other: str):
    by("jsonl", folder, ROW)
    (folder / other).write_text("file_name,prompt,reward\n0.mp4,a fox,0.9\n")
    with pytest.raises(ValueError, match=r"metadata\.(csv|jsonl) and metadata\.\w+ stand side by side"):
        load_rated_videos(folder)


def test_a_parquet_file_that_is_none_is_named(folder: Path):
    (folder / "metadata.parquet").write_bytes(b"PAR1 half a download")
    with pytest.raises(ValueError, match=r"metadata\.parquet: no readable Parquet file"):
        load_rated_videos(folder)


def test_unscored_rows_are_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture):
    rows = [ROW, {"file_name": "1.mp4", "prompt": "a dog", "unscored": "cannot be decoded"}]
    assert [video.prompt for video in load_rated_videos(by("jsonl", folder, *rows))] == ["a red fox"]
    assert "1 unscored clips are left out" in caplog.text


def test_a_dataset_with_a_format_is_read_as_it_is(folder: Path):
    data = by("dataset", folder, ROW | {"is_real": NAN}).with_format("numpy")  # type: ignore[union-attr]
    (fox,) = load_rated_videos(data)
    assert isinstance(fox, RatedVideo) and (fox.is_real, fox.reward()) == (False, 0.05)


def test_lines_of_a_text_file_lose_a_byte_order_mark_only(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("\ufeffa fox\r\na dog\u2028that runs\n".encode())
    assert [line.strip() for line in text_lines(tmp_path / "a.txt")] == ["a fox", "a dog\u2028that runs"]
    with pytest.raises(ValueError, match=r"a\.txt: tables are read from"):
        table_rows(tmp_path / "a.txt")
