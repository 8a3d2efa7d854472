"""`lift-trl validate` says what each row is good for, as the loaders do; `lift-trl convert` writes what they read."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from lift_trl.cli import main
from lift_trl.feedback.hra import load_hra
from lift_trl.rubric import LIFT, Dimension
from lift_trl.store.rated_videos import BadRowsError, load_rated_videos
from lift_trl.store.rubrics.of_data import write_rubric
from tests.feedback.conftest import write_authors_json, write_clip
from tests.own_rubric import OWN


SEMANTIC, MOTION, FIDELITY = Dimension
LABELS = dict.fromkeys(Dimension, "Good")
ROW = {"file_name": "a.mp4", "prompt": "a red fox"}
FITS_ALIGNMENT, FITS_HRA, FITS_BOTH, FITS_NEITHER = (True, False), (False, True), (True, True), (False, False)


def refuses(load: object, folder: Path) -> bool:
    try:
        load(folder)  # type: ignore[operator]
    except BadRowsError:
        return True
    return False


@pytest.mark.parametrize(
    ("row", "fits", "problem"),
    [
        (ROW | LABELS, FITS_BOTH, None),
        (ROW | {MOTION: "Bad"}, FITS_HRA, "not for alignment: no label for semantic_consistency, video_fidelity"),
        (
            ROW | {"dimension": MOTION, "label": "Bad"},
            FITS_HRA,
            "not for alignment: no label for semantic_consistency",
        ),
        (ROW | LABELS | {"source": "fake"}, FITS_ALIGNMENT, "not as LiFT-HRA: source 'fake' is unknown"),
        (
            ROW | LABELS | {"reasons": "It jumps."},
            FITS_ALIGNMENT,
            "not as LiFT-HRA: reasons 'It jumps.' is no mapping",
        ),
        (ROW | {"reward": 0.5}, FITS_ALIGNMENT, "not as LiFT-HRA: "),
        (ROW | {"is_real": True}, FITS_BOTH, None),
        (ROW, FITS_NEITHER, "a.mp4: no rating"),
        (ROW | LABELS | {"file_name": "cut.mp4"}, FITS_NEITHER, "truncated"),
    ],
)
def test_validate_says_what_the_loaders_do(
    row: dict[str, object],
    fits: tuple[bool, bool],
    problem: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:700])
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["validate", str(tmp_path)]) == (0 if any(fits) else 1)
    *problems, alignment, hra = capsys.readouterr().out.splitlines()
    assert len(problems) == (fits != FITS_BOTH)
    assert all("metadata.jsonl, row 1: " in line and str(problem) in line for line in problems)
    assert alignment.startswith(f"for alignment: {fits[0]:d} clips") and alignment.endswith(
        f", {not fits[0]:d} bad rows"
    )
    assert hra.startswith(f"as LiFT-HRA: {fits[1]:d} clips") and hra.endswith(f", {not fits[1]:d} bad rows")
    if row["file_name"] != "cut.mp4":  # the loaders decode nothing
        assert (not refuses(load_rated_videos, tmp_path), not refuses(load_hra, tmp_path)) == fits


def test_rows_that_all_serve_one_use_are_no_list_of_complaints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [ROW | {"file_name": f"{number}.mp4", "reward": 0.5} for number in range(5)]
    for number in range(5):
        write_clip(tmp_path / f"{number}.mp4", 50 * number)
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["validate", str(tmp_path)]) == 0
    complaint, alignment, hra = capsys.readouterr().out.splitlines()
    assert "row 1: not as LiFT-HRA: " in complaint and complaint.endswith("(as 4 other rows)")
    assert alignment == "for alignment: 5 clips can be used (0 real), 0 bad rows"
    assert hra == "as LiFT-HRA: 0 clips with 0 ratings can be used, 5 bad rows"


def test_a_clip_that_is_not_rated_in_full_keeps_no_other_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_clip(tmp_path / "a.mp4")
    write_clip(tmp_path / "b.mp4", 200)
    write_clip(tmp_path / "c.mp4", 150)
    rated = [ROW | {"dimension": dimension, "label": "Good"} for dimension in Dimension]
    rows = [
        *rated,
        ROW | {"file_name": "b.mp4", "dimension": MOTION, "label": "Bad"},
        ROW | {"file_name": "c.mp4", "reward": 0.5},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        main(["validate", str(tmp_path)]) == 0
    )  # load_hra refuses row 5, load_rated_videos leaves the clip of row 4 out
    unrated, reward, alignment, hra = capsys.readouterr().out.splitlines()
    assert "row 4: not for alignment: no label for" in unrated and "row 5: not as LiFT-HRA: " in reward
    assert alignment == "for alignment: 2 clips can be used (0 real), 1 bad rows"
    assert hra == "as LiFT-HRA: 2 clips with 4 ratings can be used, 1 bad rows"
    assert not refuses(load_rated_videos, tmp_path) and refuses(load_hra, tmp_path)


def test_labels_of_a_rubric_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Named, as beside the metadata; without it they are no labels, and a rubric that the folder contradicts is refused."""
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4")
    row = ROW | {"colour_match": "Fair", "steadiness": "Great", "reasons": {"colour_match": "It is orange."}}
    (tmp_path / "clips" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    write_rubric(OWN, tmp_path)
    named = ["--rubric", str(tmp_path / "rubric.yaml")]
    assert main(["validate", str(tmp_path / "clips")]) == 1
    assert "no rating" in capsys.readouterr().out
    assert main(["validate", str(tmp_path / "clips"), *named]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "for alignment: 1 clips can be used (0 real), 0 bad rows",
        "as LiFT-HRA: 1 clips with 2 ratings can be used, 0 bad rows",
    ]
    write_rubric(LIFT, tmp_path / "clips")
    assert main(["validate", str(tmp_path / "clips"), *named]) == 1
    assert "differ: " in (said := capsys.readouterr().err) and "colour_match" in said and "motion_smoothness" in said


def test_clips_elsewhere_and_missing_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "ratings"
    folder.mkdir()
    write_clip(tmp_path / "clips" / "a.mp4")
    rows = [ROW | LABELS, ROW | LABELS | {"file_name": "gone.mp4"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["validate", str(folder), "--videos", str(tmp_path / "clips")]) == 1
    neither, elsewhere, _, hra = capsys.readouterr().out.splitlines()
    assert "row 2: " in neither and "not for alignment" not in neither and "row 1: not for alignment: " in elsewhere
    assert hra == "as LiFT-HRA: 1 clips with 3 ratings can be used, 1 bad rows"
    options = ["--videos", str(tmp_path / "clips"), "--missing-videos", "keep"]
    assert main(["validate", str(folder), *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "as LiFT-HRA: 2 clips with 6 ratings can be used, 0 bad rows"


def test_validate_and_convert_the_authors_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_clip(tmp_path / "src" / "videos" / "a.mp4")
    source = write_authors_json(tmp_path / "src" / "data.json", ["videos/a.mp4", "videos/b.mp4"])
    assert main(["validate", str(source)]) == 1
    problem, verdict = capsys.readouterr().out.splitlines()
    assert "data.json, row 4: videos/b.mp4: no such clip" in problem
    assert verdict == "as LiFT-HRA: 1 clips with 3 ratings can be used, 1 bad rows"

    assert main(["convert", str(source), str(tmp_path / "hra")]) == 1
    assert "videos/b.mp4: no such clip" in capsys.readouterr().err and not (tmp_path / "hra").exists()
    write_clip(tmp_path / "src" / "videos" / "b.mp4", 200)
    assert main(["convert", str(source), str(tmp_path / "hra")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("train: 2 clips, 6 ratings\n") and out.endswith("; 0 clips without their file\n")
    rows = load_dataset(str(tmp_path / "hra"), split="train")
    assert rows["id"][:] == ["a", "b"] and [rating["label"] for rating in rows[0]["annotations"]] == [
        "Good",
        "Bad",
        "Normal",
    ]
    assert main(["validate", str(tmp_path / "hra")]) == 0
    assert capsys.readouterr().out == "as LiFT-HRA: 2 clips with 6 ratings can be used, 0 bad rows\n"
