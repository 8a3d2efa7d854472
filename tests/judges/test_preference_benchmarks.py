import json
from pathlib import Path

import pytest

from lift_trl.alignment.score import score_videos
from lift_trl.judges.preference_benchmarks import (
    benchmark_rows,
    evaluate_pairs,
    load_genai_bench,
    load_videogen_rewardbench,
    pair_rewards,
    pairwise_accuracy,
    write_pair_videos,
)
from lift_trl.records import CriticScore, Judgement, content_id
from lift_trl.rubric import Dimension, Label
from lift_trl.statistics.figures import read_figures
from lift_trl.store.manifest import read_rows, write_rows
from tests.critic.rendered_clips import write_square
from tests.critic.tiny_models import build_vlm
from tests.judges import tiny_judges
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


# Header and row as published by KwaiVGI/VideoGen-RewardBench.
REWARDBENCH = """path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall,fps_A,num_frames_A,fps_B,num_frames_B
videos/kling/0.mp4,videos/minimax/0.mp4,kling,minimax,a metal ball rolls,A,A,same,A,30.0,153,25.0,141
videos/kling/0.mp4,videos/pika/0.mp4,kling,pika,a metal ball rolls,B,A,A,B,30.0,153,24.0,72
"""
GENAI = [
    {
        "prompt": "a fox",
        "left_model": "x",
        "right_model": "y",
        "left_video": "l.mp4",
        "right_video": "r.mp4",
        "vote_type": vote,
    }
    for vote in ("leftvote", "rightvote", "tievote", "bothbad_vote")
]


class TableJudge:
    """A reward model that reads labels from a table: (semantic, motion, fidelity) by file name."""

    name = "table@main"

    def __init__(self, table):
        self.table, self.asked = table, []

    def score(self, videos, captions, *, with_reason=False):
        self.asked += list(zip(videos, captions))
        scores = []
        for video in videos:
            labels = next((labels for part, labels in self.table.items() if part in str(video)), None)
            judgements = (
                () if labels is None else tuple(Judgement(d, Label(name)) for d, name in zip(Dimension, labels))
            )
            scores.append(CriticScore(str(video), "table", judgements, None if labels else "no such video"))
        return scores


def rewards_by(judge, pairs, folder):
    """As recipes/evaluate_critic.py has it: list the videos, score them, read the rewards."""
    scored = score_videos(judge, write_pair_videos(pairs, folder / "videos"), folder / "scored", batch_size=2)
    return pair_rewards(read_rows(scored / "metadata.jsonl"))


def test_videogen_rewardbench_by_dimension(tmp_path):
    path = tmp_path / "videogen-rewardbench.csv"
    path.write_text(REWARDBENCH)
    pairs = load_videogen_rewardbench(path)
    assert pairs[0].preferences == {"VQ": 1, "MQ": 1, "TA": 0, "Overall": 1}
    assert pairs[1].video_b == str(tmp_path / "videos/pika/0.mp4")

    judge = TableJudge(
        {"kling": ("Good", "Good", "Bad"), "minimax": ("Good", "Bad", "Bad"), "pika": ("Bad", "Bad", "Good")}
    )
    rewards = rewards_by(judge, pairs, tmp_path)
    assert len(judge.asked) == len(rewards) == 3  # kling stands in two pairs
    found = {accuracy.aspect: accuracy for accuracy in evaluate_pairs(pairs, rewards)}
    assert found["MQ"].without_ties.value == 1.0
    assert found["VQ"].without_ties.value == 0.5  # kling against minimax is a tie for the judge
    assert (found["TA"].num_pairs, found["TA"].num_decided) == (2, 1)
    assert found["TA"].with_ties.value == 1.0
    rows = benchmark_rows(list(found.values()), benchmark="videogen-rewardbench", system="table")
    assert {row.metric for row in rows} >= {
        "videogen-rewardbench/VQ_with_ties",
        "videogen-rewardbench/Overall_without_ties",
    }


def test_a_benchmark_that_was_moved_is_not_scored_again_and_another_video_is(tmp_path, monkeypatch):
    (here := tmp_path / "here").mkdir()
    (here / "videogen-rewardbench.csv").write_text(REWARDBENCH)
    for number, name in enumerate(("kling", "minimax", "pika")):
        write_square(here / "videos" / name / "0.mp4", "red", seed=number)
    table = {"kling": ("Good",) * 3, "minimax": ("Bad",) * 3, "pika": ("Normal",) * 3}

    def run(folder):
        """The videos that are scored, and the rewards' order on the whole clip."""
        judge, pairs = TableJudge(table), load_videogen_rewardbench(folder / "videogen-rewardbench.csv")
        rewards = rewards_by(judge, pairs, tmp_path / "run")
        (found,) = [one for one in evaluate_pairs(pairs, rewards) if one.aspect == "Overall"]
        listed = {row["video"] for row in read_rows(tmp_path / "run" / "videos" / "metadata.jsonl")}
        rows = list(read_rows(tmp_path / "run" / "scored" / "metadata.jsonl"))
        assert {str((tmp_path / "run" / "scored" / row["video"]).resolve()) for row in rows} == listed
        return sorted(Path(video).parent.name for video, _ in judge.asked), found.without_ties.value

    assert run(here) == (["kling", "minimax", "pika"], 0.5)
    there = here.rename(tmp_path / "there")
    assert run(there) == ([], 0.5)
    monkeypatch.chdir(there)
    assert run(Path(".")) == ([], 0.5)
    write_square(there / "videos" / "pika" / "0.mp4", "blue", seed=7)
    assert run(there) == (["pika"], 0.5)
    (there / "videos" / "minimax" / "0.mp4").unlink()
    del table["minimax"]
    assert run(there) == (["kling", "minimax"], 0.0)  # a whole batch; one pair is left, which the judge orders wrongly
    table["minimax"] = ("Bad",) * 3
    write_square(there / "videos" / "minimax" / "0.mp4", "red", seed=1)
    assert run(there) == (["kling", "minimax"], 0.5)


def test_scores_by_the_videos_paths_go_on_where_they_lie(tmp_path):
    """As an earlier lift_trl listed them."""
    (tmp_path / "b.csv").write_text(REWARDBENCH)
    for number, name in enumerate(("kling", "minimax", "pika")):
        write_square(tmp_path / "videos" / name / "0.mp4", "red", seed=number)
    pairs = load_videogen_rewardbench(tmp_path / "b.csv")
    wanted = dict.fromkeys((video, pair.prompt) for pair in pairs for video in (pair.video_a, pair.video_b))
    rows = [{"id": content_id(*unit), "prompt": unit[1], "video": unit[0]} for unit in wanted]
    write_rows(tmp_path / "videos_listed" / "metadata.jsonl", rows)
    assert list(read_rows(write_pair_videos(pairs, tmp_path / "videos_listed") / "metadata.jsonl")) == rows
    rewards = {row["id"]: {"Overall": 0.5} for row in rows}
    assert evaluate_pairs(pairs, rewards)[0].num_pairs == 2


def test_unscored_pairs_are_left_out_never_counted_as_ties(tmp_path, caplog):
    path = tmp_path / "b.csv"
    path.write_text(REWARDBENCH)
    pairs = load_videogen_rewardbench(path)
    rewards = rewards_by(TableJudge({"kling": ("Good",) * 3, "pika": ("Bad",) * 3}), pairs, tmp_path)
    assert {accuracy.num_pairs for accuracy in evaluate_pairs(pairs, rewards)} == {1}
    assert "1 of 2 pairs are left out" in caplog.text
    with pytest.raises(ValueError, match="none of 2 pairs has both videos scored"):
        evaluate_pairs(pairs, {})


def test_rewards_are_expected_where_the_critic_gives_probabilities(tmp_path):
    motion = Dimension.MOTION_SMOOTHNESS
    row = {"id": "x", "unscored": None, "expected_reward": 0.6, **dict.fromkeys(Dimension, "Good")}
    row["probs"] = {motion: {"Good": 0.5, "Normal": 0.0, "Bad": 0.5}}
    assert pair_rewards([row]) == {"x": {"VQ": 0.9, "MQ": pytest.approx(0.475), "TA": 0.9, "Overall": 0.6}}
    assert pair_rewards([{"id": "y", "unscored": "no label"}]) == {}


def test_a_judge_in_its_own_terms_answers_by_its_native_values():
    """A squashed value would part ties otherwise than the published evaluation; overall is the sum, as there."""
    rows = [
        {"id": "a", "unscored": None, "reward": 0.5, "aspects": {"VQ": 3.5, "MQ": -2.0, "TA": 0.25}},
        {"id": "b", "unscored": None, "reward": 0.5, "aspects": {"alignment": 2.0, "physics": 3.0, "style": 4.5}},
        {
            "id": "c",
            "unscored": None,
            "reward": 0.5,
            "aspects": {"visual_quality": 1.5, "alignment": 2.5, "physical_sense": 5.0},
        },
    ]
    assert pair_rewards(rows) == {
        "a": {"VQ": 3.5, "MQ": -2.0, "TA": 0.25, "Overall": 1.75},
        "b": {"VQ": 4.5, "MQ": 3.0, "TA": 2.0, "Overall": 9.5},
        "c": {"VQ": 1.5, "MQ": 5.0, "TA": 2.5, "Overall": 9.0},
    }


def test_genai_bench(tmp_path):
    for text in (json.dumps(GENAI), "\n".join(map(json.dumps, GENAI))):
        (tmp_path / "genai.json").write_text(text)
        pairs = load_genai_bench(tmp_path / "genai.json")
        assert [pair.preferences["Overall"] for pair in pairs] == [1, -1, 0, 0]
        assert pairs[0].video_a == str(tmp_path / "l.mp4")
    # A line end of Unicode within a prompt ends no row; blank lines are none; half a row is named.
    prompts = ["a fox\u2028runs", "a bird"]
    lines = [json.dumps({**GENAI[0], "prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    (tmp_path / "genai.json").write_text("\n\n".join(lines), encoding="utf-8")
    assert [pair.prompt for pair in load_genai_bench(tmp_path / "genai.json")] == prompts
    (tmp_path / "genai.json").write_text("\n\n".join(lines)[:-4], encoding="utf-8")
    with pytest.raises(ValueError, match="genai.json, line 3: not JSON"):
        load_genai_bench(tmp_path / "genai.json")


def test_bad_rows_are_named(tmp_path):
    (tmp_path / "b.csv").write_text(REWARDBENCH.replace(",same,", ",tie,"))
    with pytest.raises(ValueError, match="line 2: TA='tie'"):
        load_videogen_rewardbench(tmp_path / "b.csv")
    (tmp_path / "g.json").write_text(json.dumps([{**GENAI[0], "vote_type": "left"}]))
    with pytest.raises(ValueError, match="row 1"):
        load_genai_bench(tmp_path / "g.json")
    with pytest.raises(ValueError, match="no pair"):
        pairwise_accuracy([], [])


def test_ties_are_calibrated_as_by_brute_force():
    import numpy as np

    generator = np.random.default_rng(0)
    for _ in range(50):
        human = generator.integers(-1, 2, 30)
        gaps = generator.choice([-0.4, -0.2, -0.1, 0.0, 0.1, 0.3], 30)
        thresholds = [-1.0, *np.unique(np.abs(gaps))]
        best = max(np.mean([h == 0 if abs(g) <= t else h * g > 0 for h, g in zip(human, gaps)]) for t in thresholds)
        assert pairwise_accuracy(human, gaps).with_ties.value == pytest.approx(best)
    assert pairwise_accuracy([0, 0], [0.1, 0.2]).without_ties is None


def test_the_recipe_writes_figures_for_the_report(tmp_path, make_clip):
    """A tiny real critic on GenAI-Bench's form, from the command line's arguments to rows that a report reads."""
    build_vlm("idefics3", save_directory=tmp_path / "critic")
    for seed, name in enumerate("lr"):
        make_clip(tmp_path / f"{name}.mp4", seed=seed)
    (tmp_path / "genai.json").write_text(json.dumps([*GENAI, {**GENAI[0], "left_video": "missing.mp4"}]))
    recipe = load_recipe(RECIPES / "evaluate_critic.py")
    (arguments,) = recipe.ARGUMENTS
    with pytest.raises(ValueError, match="name hra, videogen_rewardbench or genai_bench"):
        arguments(critic="c", output_dir="o")
    with pytest.raises(ValueError, match="a judge gives none"):
        arguments(judge="video_reward", output_dir="o", hra="x")
    with pytest.raises(ValueError, match="give critic, or judge as one of video_reward"):
        arguments(output_dir="o", hra="x")
    with pytest.raises(ValueError, match="scale is a judge's"):
        arguments(critic="c", output_dir="o", hra="x", scale="linear:1:5")
    recipe.main(
        arguments(
            critic=str(tmp_path / "critic"), output_dir=str(tmp_path / "out"), genai_bench=str(tmp_path / "genai.json")
        )
    )
    rows = read_figures(tmp_path / "out" / "figures.jsonl")
    assert [(row.metric, row.n) for row in rows] == [
        ("genai-bench/Overall_with_ties", 4), ("genai-bench/Overall_without_ties", 2),
    ]  # fmt: skip
    # One vote for each side: a critic that tells the clips apart is right once, one that does not never.
    assert rows[1].value in (0.0, 0.5)
    assert "genai-bench/Overall with ties" in (tmp_path / "out" / "report.md").read_text()


def test_the_recipe_measures_a_judge_of_other_weights_and_scale(tmp_path, make_clip, capsys):
    weights = tiny_judges.write_video_reward(tmp_path / "judge")
    for seed, name in enumerate("lr"):
        make_clip(tmp_path / f"{name}.mp4", seed=seed)
    (tmp_path / "genai.json").write_text(json.dumps(GENAI))
    recipe = load_recipe(RECIPES / "evaluate_critic.py")
    (arguments,) = recipe.ARGUMENTS
    given = {"critic": str(weights), "judge": "video_reward", "scale": "linear:-9:7"}
    recipe.main(arguments(**given, output_dir=str(tmp_path / "out"), genai_bench=str(tmp_path / "genai.json")))
    (scored,) = (tmp_path / "out").glob("*/scored/metadata.jsonl")
    for row in read_rows(scored):
        values = row["aspects"].values()
        assert row["reward"] == pytest.approx(sum(min(1, max(0, (v + 9) / 16)) for v in values) / 3)
        assert row["critic"].endswith("+linear:-9:7")
    systems = {row.system for row in read_figures(tmp_path / "out" / "figures.jsonl")}
    assert systems == {f"video_reward {weights} linear:-9:7"}
    said = capsys.readouterr().out
    assert f"score.py --judge video_reward --critic {weights} --scale linear:-9:7" in said
