"""From folders to a report: which clips are compared, whose votes count, what is stamped."""

import json

import pytest

from lift_trl.evaluation.report_inputs import ReportArguments, build_report, load_system, pair_systems
from lift_trl.rubric import Dimension


def write_rows(folder, make_clip, rows):
    """A folder of clips with `rows`; each has `seed` (of the picture), and its clip is `videos/{number}.mp4`."""
    for number, row in enumerate(rows):
        make_clip(folder / "videos" / f"{number}.mp4", seed=number)
        rows[number] = {"file_name": f"videos/{number}.mp4", **row}
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rated(rewards, prompt="p", **more):
    """One row a clip, `None` where the critic could not score it."""
    return [
        {"prompt": prompt, "reward": r, **({"unscored": "no label"} if r is None else {}), **more} for r in rewards
    ]


def test_an_unscored_clip_shifts_no_other(tmp_path, make_clip):
    """Three clips of one prompt, the same rewards in both systems; the base's first could not be scored."""
    base = write_rows(tmp_path / "base", make_clip, rated([None, 0.5, 0.9]))
    tuned = write_rows(tmp_path / "rwl", make_clip, rated([0.1, 0.5, 0.9]))
    assert [clip.key for clip in load_system(base)] == ["p#1", "p#2"]
    made = build_report(ReportArguments(str(tmp_path / "r"), [f"base={base}", f"rwl={tuned}"], drift=False))
    assert made.deltas[0].estimate.value == pytest.approx(0)
    assert {name: path.name for name, path in made.clips[0].clips.items()} == {"base": "1.mp4", "rwl": "1.mp4"}
    assert "base: 1 of 3 clips is unscored and left out." in made.notes


@pytest.mark.parametrize("name", ["id", "seed"])
def test_clips_are_paired_by_id_or_seed_where_rows_have_one(tmp_path, make_clip, name):
    rows = [{**row, name: f"{number}"} for number, row in enumerate(rated([0.1, 0.5, 0.9]))]
    base = write_rows(tmp_path / "base", make_clip, rows[:])
    # Another order, and one clip less.
    tuned = write_rows(tmp_path / "rwl", make_clip, [rows[2], rows[0]])
    made = build_report(ReportArguments(str(tmp_path / "r"), [f"base={base}", f"rwl={tuned}"], drift=False))
    assert made.deltas[0].estimate.value == pytest.approx(0) and made.deltas[0].base_value == pytest.approx(0.5)


def test_ids_of_other_prompts_pair_nothing(tmp_path, make_clip):
    """Ids that count the rows of each folder are no ids of a plan."""
    first = [{**rated([0.2], p)[0], "id": str(i)} for i, p in enumerate("ab")]
    second = [{**rated([0.2], p)[0], "id": str(i)} for i, p in enumerate("ba")]
    systems = {
        "base": load_system(write_rows(tmp_path / "base", make_clip, first)),
        "rwl": load_system(write_rows(tmp_path / "rwl", make_clip, second)),
    }
    paired = pair_systems(systems)
    assert {name: [clip.key for clip in clips] for name, clips in paired.items()} == {
        "base": ["a#0", "b#0"], "rwl": ["b#0", "a#0"],
    }  # fmt: skip


def test_a_folder_without_a_usable_clip_says_why(tmp_path, make_clip):
    folder = write_rows(tmp_path / "base", make_clip, rated([None, None]))
    with pytest.raises(ValueError, match="2 clips are unscored.*no label"):
        load_system(folder)
    rows = [{**rated([None])[0], **dict.fromkeys(Dimension, "Fine")}]
    rows[0].pop("unscored")
    with pytest.raises(ValueError, match="row 1"):
        load_system(write_rows(tmp_path / "bad", make_clip, rows))
