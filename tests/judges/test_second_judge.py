"""The second judge: its five scores and labels beside the critic's, from the clips to the report."""

import json

import pytest
import torch

from lift_trl.judges.arguments import SecondJudgeArguments
from lift_trl.judges.second_judge import judge_clips, judge_systems
from lift_trl.report.inputs import ReportArguments, build_report, named_paths
from lift_trl.report.page import to_markdown
from lift_trl.report.sections import sections
from lift_trl.store.manifest import read_rows


@pytest.fixture
def systems(tmp_path, make_clip):
    """Two systems with the same two prompts and ids; the critic could not score one clip of the base."""
    found = {}
    for offset, name in enumerate(("base", "rwl")):
        rows = []
        for number, prompt in enumerate(("a b", "c d")):
            make_clip(tmp_path / name / "videos" / f"{number}.mp4", seed=10 * offset + number, size=28)
            row = {
                "id": f"id{number}",
                "prompt": prompt,
                "video": f"videos/{number}.mp4",
                "reward": 0.5 + 0.1 * number,
            }
            rows.append(row if (name, number) != ("base", 1) else {**row, "reward": None, "unscored": "off format"})
        (tmp_path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[name] = tmp_path / name
    return found


def test_its_scores_stand_in_the_papers_table(systems, tiny_judge, tmp_path):
    entries = judge_systems(tiny_judge, systems, tmp_path / "judged")
    assert list(named_paths(entries)) == ["second judge/base", "second judge/rwl"]
    raw = {
        n: [list(tiny_judge.judge(f / "videos" / f"{i}.mp4", p).values.values()) for i, p in enumerate(("a b", "c d"))]
        for n, f in systems.items()
    }
    made = build_report(
        ReportArguments(str(tmp_path / "r"), [f"{n}={f}" for n, f in systems.items()], judges=entries, drift=False)
    )
    rows = {(row.metric, row.system): row.value for row in made.rows if row.suite == "videoscore"}
    for place, name in enumerate(("VQ", "TC", "DD", "TA", "FC")):
        assert rows[f"videoscore/{name}", "rwl"] == pytest.approx(sum(v[place] for v in raw["rwl"]) / 2, abs=1e-5)
    (delta,) = [d for d in made.deltas if d.metric == "videoscore/DD"]
    # The judge's own scores, the clip that the critic could not score included, paired by id.
    expected = sum(b[2] - a[2] for a, b in zip(raw["base"], raw["rwl"])) / 2
    assert delta.estimate.value == pytest.approx(expected, abs=1e-5) and delta.estimate.n == 2
    (section,) = [part for part in sections(made) if part.id == "videoscore-figures"]
    assert section.tables[0].rows[1][0] == "rwl" and section.tables[0].rows[-1][1:] == (
        "3.18",
        "2.99",
        "2.96",
        "3.04",
        "2.90",
    )
    assert ("question", "worded by lift_trl", "worded by lift_trl") in section.tables[-1].rows
    assert {rate.judge for rate in made.win_rates} == {"critic", "second judge"}
    assert "1 to 4" in to_markdown(made, sections(made))


def test_a_killed_judge_goes_on(systems, tiny_judge, tmp_path):
    folder = judge_clips(tiny_judge, systems["rwl"], tmp_path / "whole")
    rows = list(read_rows(folder / "metadata.jsonl"))
    part = tmp_path / "part"
    (part / ".parts").mkdir(parents=True)
    # One row is there; it is kept as it is, here with a figure that no model gave.
    kept = {**rows[0], "reward": 0.123}
    (part / ".parts" / "rank0.jsonl").write_text(json.dumps(kept) + "\n")
    judge_clips(tiny_judge, systems["rwl"], part)
    resumed = list(read_rows(part / "metadata.jsonl"))
    assert resumed[0]["reward"] == 0.123 and resumed[1] == rows[1]
    tiny_judge.name = f"/another disk/{tiny_judge.name}"
    judge_clips(tiny_judge, systems["rwl"], part)
    # The clips were moved: nothing is judged again, and the rows name them where they are.
    moved = systems["rwl"].rename(tmp_path / "elsewhere")
    judge_clips(tiny_judge, moved, part)
    again = list(read_rows(part / "metadata.jsonl"))
    assert again[0]["reward"] == 0.123 and [(part / row["video"]).is_file() for row in again] == [True, True]
    assert [{**row, "video": None} for row in again] == [{**row, "video": None} for row in resumed]
    tiny_judge.num_frames = 2
    with pytest.raises(ValueError, match="another judge"):
        judge_clips(tiny_judge, moved, part)


def test_a_missing_clip_is_unscored(systems, tiny_judge, tmp_path):
    (systems["rwl"] / "videos" / "1.mp4").unlink()
    rows = list(read_rows(judge_clips(tiny_judge, systems["rwl"], tmp_path / "out") / "metadata.jsonl"))
    assert rows[1]["reward"] is None and "no such video" in rows[1]["unscored"] and "aspects" not in rows[1]


def test_a_judge_that_gives_no_number_leaves_the_clips_unscored(systems, tiny_judge, tmp_path):
    with torch.no_grad():
        tiny_judge.model.score.weight[0] = torch.nan
    text = (judge_clips(tiny_judge, systems["rwl"], tmp_path / "out") / "metadata.jsonl").read_text()
    for row in map(json.loads, text.splitlines()):
        assert row["reward"] is None and "not finite" in row["unscored"] and "aspects" not in row
        assert "video_fidelity" not in row
    assert "NaN" not in text.replace("nan", "")


def test_the_judges_own_question(judge_checkpoint, tmp_path):
    question = tmp_path / "question.txt"
    question.write_text("Rate this video of {prompt}: ")
    args = SecondJudgeArguments(judge=str(judge_checkpoint), judge_frames=3, judge_prompt=str(question))
    judge = args.load("cpu")
    assert judge.question == "Rate this video of {prompt}: " and judge.num_frames == 3
    assert judge.model.dtype == torch.float32
    question.write_text("Rate this video: ")
    with pytest.raises(ValueError, match="no {prompt}"):
        args.load("cpu")
    for ignored in ({"judge_frames": 3}, {"judge_prompt": str(question)}):
        with pytest.raises(ValueError, match="frames and a question of its own"):
            SecondJudgeArguments(judge="video_reward", **ignored).load("cpu")
    with pytest.raises(ValueError, match="judge is not set"):
        SecondJudgeArguments().load("cpu")
