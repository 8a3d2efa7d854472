import base64
import json
import math
import re
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import yaml

from lift_trl.alignment.score import score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.judges import VIDEO_SCORE_ASPECTS
from lift_trl.records import CriticScore, EvalRow, Judgement
from lift_trl.report.data import (
    CalibrationBin,
    ClipRow,
    Confusion,
    Curve,
    Paired,
    Report,
    SystemFacts,
    calibration_bins,
    mean_row,
    paired_delta,
)
from lift_trl.report.figures import calibration, least_confidence
from lift_trl.report.judges import clip_label_rates
from lift_trl.report.page import save_report, to_html
from lift_trl.report.sections import sections
from lift_trl.report.tables import critic_order_table, critic_table, paper, vbench_table
from lift_trl.report.verdict import (
    default_summary,
    limits_in_words,
    made_in_words,
    means_in_words,
    nearest_limit,
    p_in_words,
    side_effects,
    system_verdicts,
    unit_in_words,
)
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.statistics.drift import DriftAlarm, clip_statistics, drift_alarms, drift_rows
from lift_trl.statistics.intervals import Estimate
from lift_trl.statistics.win_rate import Vote, win_rates
from lift_trl.store.manifest import Artifact, write_rows
from lift_trl.store.system_clips import SystemClip
from lift_trl.vbench.score import PairedDelta
from lift_trl.vbench.suite import DIMENSIONS
from tests import real_folder
from tests.critic.tiny_models import build_vlm
from tests.own_rubric import OWN
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


def scores(labels):
    """One score a clip, the same label on all dimensions."""
    return {
        f"p{i}#0": CriticScore(str(i), "c", tuple(Judgement(d, label) for d in Dimension))
        for i, label in enumerate(labels)
    }


def rated(labels):
    """Two clips a prompt, each with one label on all dimensions."""
    return [
        SystemClip(f"p{i}", f"p{i // 2}", Path(f"{i}.mp4"), dict.fromkeys(Dimension, label), None)
        for i, label in enumerate(labels)
    ]


def pair(judge, a, b, value, *, half=0.05, p=0.001, n=10, measure="reward"):
    return Paired(judge, a, b, measure, value, (value - half, value + half), n, p)


def alarm(system, change, level="watch", measure="motion_energy", ci95=None):
    return DriftAlarm(measure, system, "base", 0.5, 0.5 * (1 + change), Estimate(change, ci95, 10), level)


@pytest.fixture
def full(tmp_path, make_clip):
    """A report with every section, of three systems."""
    good, bad = Label.GOOD, Label.BAD
    base, tuned = scores([bad] * 6 + [good] * 4), scores([bad] * 2 + [good] * 8)
    rewards = {name: {k: s.reward for k, s in found.items()} for name, found in (("base", base), ("rwl", tuned))}
    prompts = {key: key for key in base}
    signs = {key: int(np.sign(tuned[key].reward - base[key].reward)) for key in base}
    votes = [
        Vote(key, key, dimension, sign, "critic") for key, sign in signs.items() for dimension in (*Dimension, None)
    ]
    names = ("base", "rwl", "sft")
    clips = {name: make_clip(tmp_path / f"{name}.mp4", seed) for seed, name in enumerate(names)}
    others = {name: make_clip(tmp_path / f"{name}2.mp4", 9 + seed) for seed, name in enumerate(names)}
    statistics = {name: {"p0#0": clip_statistics(path)} for name, path in clips.items()}
    judges = [
        pair("oracle", "rwl", "base", 0.15),
        pair("oracle", "sft", "base", 0.01, p=0.4),
        pair("oracle", "rwl", "sft", 0.14),
        pair("critic", "rwl", "base", 0.1),
        pair("critic", "sft", "base", 0.09),
    ]
    dimensions = [
        pair(j, a, "base", 0.1, measure=str(d)) for j in ("oracle", "critic") for a in names[1:] for d in Dimension
    ]
    typical = ClipRow(
        "a square moves", {name: clips[name] for name in ("base", "rwl")}, {}, "median gain +0.10 by oracle"
    )
    worst = ClipRow(
        "a square moves", {name: others[name] for name in ("base", "rwl")}, {}, "worst loss -0.10 by oracle"
    )
    return Report(
        title="Base <b>against</b> tuned",
        base="base",
        judge="oracle",
        roles={"oracle": dict.fromkeys(names[1:], "independent"), "critic": dict.fromkeys(names[1:], "training")},
        systems=tuple(SystemFacts(name, "tiny", "", "", "9 frames", 20, 10, "2", "2026-11-28") for name in names),
        controls={"rwl": "sft"},
        verdict_clips={"rwl": (typical, worst)},
        rows=(
            *drift_rows(statistics, prompts),
            *(mean_row("reward", "mean_reward", name, values, prompts) for name, values in rewards.items()),
            *(EvalRow("vbench", f"vbench/{d}", s, 0.9, 5, (0.8, 1.0)) for d in list(DIMENSIONS)[:4] for s in rewards),
            EvalRow("vbench", f"vbench/{list(DIMENSIONS)[4]}", "rwl", 0.9, 5, (0.8, 1.0)),
            EvalRow("videoscore", "videoscore/VQ", "rwl", 2.5, 4),
            EvalRow("critic", "critic/overall/accuracy", "tiny", 0.75, 40, (0.6, 0.85)),
            EvalRow("critic against oracle", "overall/auc_good", "critic", 0.88, 10, (0.8, 0.9)),
            EvalRow("videogen-rewardbench", "videogen-rewardbench/MQ_with_ties", "tiny", 0.6, 100, (0.5, 0.7)),
        ),
        label_rates=clip_label_rates({"base": rated([bad] * 6 + [good] * 4), "rwl": rated([bad] * 2 + [good] * 8)}),
        rewards={name: tuple(values.values()) for name, values in rewards.items()},
        deltas=(paired_delta("reward", "mean_reward", ("base", rewards["base"]), ("rwl", rewards["rwl"]), prompts),),
        paired=(*judges, *dimensions),
        win_rates=tuple(win_rates(votes, judge="critic", first="rwl", second="base")),
        clips=tuple(
            ClipRow(f"clip {i}", clips if i % 2 else others, {"rwl": "reward 0.90"}, "spread") for i in range(6)
        ),
        calibration={"tiny": (CalibrationBin(0.5, 0.4, 10), CalibrationBin(0.9, 0.8, 30))},
        confusion={"oracle": Confusion(LIFT.labels, ((1, 2, 3), (4, 5, 6), (7, 8, 9)))},
        drift=tuple(drift_alarms(statistics, prompts, base="base")),
        curves=(Curve("loss", "rwl", (1.0, 2.0), (0.5, math.nan)),),
        stamps={"base": "tiny@main"},
        notes=("made by a test",),
    )


def test_calibration_does_not_depend_on_the_order_of_the_answers():
    """Rows of a run that was killed stand in another order; its figures must be those of the undisturbed run."""
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.3, 0.4, 60), rng.random(60) < 0.5
    expected = calibration_bins(confidence.tolist(), right.tolist())
    for _ in range(10):
        order = rng.permutation(60)
        assert calibration_bins(confidence[order].tolist(), right[order].tolist()) == expected


def test_figures_from_scores():
    """Two clips of each of two prompts agree: the interval is that of two prompts, not of four clips."""
    four = rated([Label.GOOD, Label.GOOD, Label.BAD, Label.BAD])
    rates = {(r.dimension, r.label): r.rate for r in clip_label_rates({"base": four})}
    assert rates[Dimension.VIDEO_FIDELITY, Label.GOOD] == Estimate(0.5, (0.0, 1.0), 2)
    assert rates[Dimension.VIDEO_FIDELITY, Label.NORMAL].value == 0
    assert clip_label_rates({"base": [clip._replace(labels=None) for clip in four]}) == ()
    delta = paired_delta(
        "reward", "m", ("a", {"k": 0.2, "l": 0.4}), ("b", {"k": 0.5, "l": 0.5, "m": 9.0}), {"k": "p", "l": "q"}
    )
    assert (delta.base_value, delta.value, delta.estimate.value) == pytest.approx((0.3, 0.5, 0.2))
    with pytest.raises(ValueError, match="no clip key"):
        paired_delta("reward", "m", ("a", {"k": 0.2}), ("b", {"l": 0.2}), {})
    assert calibration_bins([0.4, 0.45, 1.0], [True, False, True]) == (
        CalibrationBin(pytest.approx(0.425), 0.5, 2), CalibrationBin(1.0, 1.0, 1),
    )  # fmt: skip


def test_every_section_and_only_those_with_data(full):
    found = sections(full)
    assert [part.id for part in found if not part.folded] == [
        "systems", "differences", "clips", "trust", "benchmarks",
    ]  # fmt: skip
    assert [part.id for part in found if part.folded] == [
        "vbench-figures", "videoscore-figures", "pairs", "wins", "labels", "rewards", "drift", "critic", "reliability",
        "more-clips", "curves",
        "suite-critic-against-oracle", "suite-videogen-rewardbench", "made",
    ]  # fmt: skip
    assert [len(part.clips) for part in found if part.clips] == [3, 3]
    (said,) = [part for part in found if part.id == "benchmarks"]
    assert said.title == "VBench (vbench) and VideoScore"
    assert said.text.startswith(
        "VBench (vbench): 4 of 16 dimensions measured, protocol vbench. VideoScore: a judge that"
    )
    assert sections(Report("empty", "base")) == []


def test_the_files(full, tmp_path):
    page = save_report(full, tmp_path / "report").read_text()
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["deltas"][0]["estimate"]["value"] == pytest.approx(0.34) and data["curves"][0]["values"] == [0.5, None]
    assert data["label_rates"][0]["rate"]["n"] == 5 and data["clips"][1]["clips"] == {
        name: f"{name}.mp4" for name in ("base", "rwl", "sft")
    }
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| semantic consistency | rwl | 80% (40-100) |" in markdown and "base.mp4" in markdown
    assert markdown.count("<details>") == markdown.count("</details>") == 14
    assert "| oracle: Good | 9 | 8 | 7 |" in markdown
    assert "&lt;b&gt;against&lt;/b&gt;" in page and "<b>against" not in page
    # Each clip is there once, however often it is shown.
    clips = re.findall(r'"data:video/mp4;base64,([^"]+)"', page)
    rows = [*full.verdict_clips["rwl"], *full.clips]
    paths = list(dict.fromkeys(path for row in rows for path in row.clips.values()))
    assert [base64.b64decode(clip) for clip in clips] == [path.read_bytes() for path in paths]
    shown = re.findall(r'data-clip="(\d+)"', page)
    assert [paths[int(number)] for number in shown] == [path for row in rows for path in row.clips.values()]
    # Self-contained: nothing is fetched.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page) and "@import" not in page
    assert str(tmp_path) not in page + markdown + json.dumps(data)


def test_each_pair_of_systems_has_bars_of_its_own():
    """Three systems: the judge's name stands thrice, so each pair is a figure that names its own two."""
    votes = [Vote(f"p{i}", f"p{i}", None, 1, "v") for i in range(3)]
    pairs = [("rwl", "base"), ("sft", "base"), ("rwl", "sft")]
    report = Report(
        "t", "base", win_rates=tuple(r for a, b in pairs for r in win_rates(votes, judge="critic", first=a, second=b))
    )
    section = next(part for part in sections(report) if part.id == "wins")
    assert [f"{a} against {b}" in graphic.alt for (a, b), graphic in zip(pairs, section.graphics)] == [True] * 3


def test_ids_of_sections_are_valid_html():
    rows = (EvalRow("critic against second judge", "overall/accuracy", "critic", 0.5, 9),)
    (section,) = sections(Report("t", "base", rows=rows))
    assert section.id == "suite-critic-against-second-judge"


def test_the_page_is_the_same_each_time(full):
    assert to_html(full, sections(full)) == to_html(full, sections(full))


def test_a_report_says_which_rubric_its_labels_are_of(full, tmp_path):
    for rubric in (LIFT, OWN):
        save_report(replace(full, rubric=rubric), tmp_path / rubric.id)
        assert Artifact.load(tmp_path / rubric.id).rubric == rubric
        assert json.loads((tmp_path / rubric.id / "report.json").read_text())["rubric"] == rubric.id


def test_the_verdicts(full):
    """By the judge that gave no reward, corrected for two systems; the training reward only agrees or does not."""
    full = replace(full, drift=(alarm("rwl", -0.4, "alarm"), alarm("rwl", 0.1, "ok", "saturation"),
                                alarm("rwl", -0.26, "watch", "sharpness"), alarm("sft", 0.0, "ok")))  # fmt: skip
    rwl, sft = system_verdicts(full)
    assert (rwl.word, sft.word) == ("better", "no clear difference")
    assert (rwl.p_value, sft.p_value) == (0.002, 0.4)
    assert rwl.difference.judge == "oracle" and rwl.training.judge == "critic" and rwl.agrees
    assert rwl.control.value == 0.14 and rwl.control.b == "sft" and sft.control is None
    assert side_effects(rwl) == {"alarm": "motion energy -40%", "watch": "sharpness -26%"} and side_effects(sft) == {}
    told = default_summary(full)
    assert told[0].startswith(
        "rwl against base: better, drift alarm; +0.150 (95% interval +0.100 to +0.200) by oracle, which gave no "
    )
    assert "10 prompts x 2 seeds, Holm's p 0.002; training reward (critic) +0.100" in told[0]
    assert "against plain fine-tuning (sft) +0.140" in told[0]
    assert (rwl.headline, sft.headline) == ("better, drift alarm", "no clear difference")
    assert rwl._replace(drift=rwl.drift[1:]).headline == "better"  # to be watched
    assert p_in_words(rwl._replace(p_value=0.0008)) == "Holm's p < 0.001"


def test_systems_stand_in_the_order_in_which_they_were_named(full):
    base, rwl, sft = full.systems
    assert [v.system for v in system_verdicts(replace(full, systems=(base, sft, rwl)))] == ["sft", "rwl"]
    assert [v.system for v in system_verdicts(full)] == ["rwl", "sft"]


def test_what_comes_nearest_to_its_limit_is_named(full):
    """By its own limit on its own side: brightness may fall by a quarter, sharpness rise by a half."""
    drift = (alarm("rwl", -0.2, "ok"), alarm("rwl", 0.35, "ok", "sharpness"), alarm("rwl", -0.19, "ok", "brightness"))
    (rwl, _) = system_verdicts(replace(full, drift=drift))
    assert nearest_limit(rwl) == "nearest: brightness -19%"
    assert nearest_limit(rwl._replace(drift=drift[:2])) == "nearest: sharpness +35%"
    assert nearest_limit(rwl._replace(drift=())) == ""
    assert "motion energy -30%, sharpness -25% or +50%, " in limits_in_words()


def test_what_a_system_is_is_said(full):
    (rwl, _) = system_verdicts(full)
    facts = rwl.facts
    assert made_in_words(rwl) == "no LoRA; 9 frames"
    assert made_in_words(rwl._replace(facts=facts._replace(adapter="runs/lora"))) == "LoRA, its training not known"
    tuned = facts._replace(adapter="runs/lora", objective="kto")
    assert made_in_words(rwl._replace(facts=tuned)) == "LoRA trained with objective kto"
    assert (
        made_in_words(rwl._replace(facts=facts._replace(settings=""))) == made_in_words(rwl._replace(facts=None)) == ""
    )


def test_a_control_that_was_compared_the_other_way_round(full):
    """The report compares the systems in their order; a control that stands first is still the one that is taken off."""
    turned = pair("oracle", "sft", "rwl", -0.14)._replace(ci95=(-0.2, -0.1), b_value=0.7)
    (rwl, _) = system_verdicts(replace(full, paired=(*full.paired[:2], turned, *full.paired[3:])))
    assert (rwl.control.a, rwl.control.b, rwl.control.value, rwl.control.ci95) == ("rwl", "sft", 0.14, (0.1, 0.2))
    assert means_in_words(rwl.control) == "from 0.560 to 0.700" and means_in_words(rwl.difference) == ""
    people = replace(full, judge="eve", paired=(pair("eve", "rwl", "base", 0.2, measure="preference"),))
    assert (unit_in_words(full), unit_in_words(people)) == ("mean reward (0 to 1)", "wins minus losses (-1 to 1)")


@pytest.mark.parametrize("others", [("rwl", "sft"), ("rwl",)])
def test_what_is_an_alarm_is_said_once_beside_one_system_and_beside_several(full, others):
    names = ("base", *others)
    paired = tuple(p for p in full.paired if {p.a, p.b} <= set(names))
    report = replace(full, systems=tuple(f for f in full.systems if f.name in names), paired=paired)
    assert len(system_verdicts(report)) == len(others)
    page = to_html(report, sections(report))
    assert page.count("An alarm: motion energy -30%, sharpness -25% or +50%") == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"value": -0.15, "ci95": (-0.2, -0.1)}, "worse"),
        ({"n": 7}, "too few prompts"),
        ({"p_value": 0.03}, "no clear difference"),  # of two systems
        ({"ci95": (-0.01, 0.3)}, "no clear difference"),
    ],
)
def test_a_verdict_needs_all_it_needs(full, change, word):
    rwl = full.paired[0]._replace(**change)
    (first, _) = system_verdicts(replace(full, paired=(rwl, *full.paired[1:])))
    assert first.word == word
    assert first.agrees is (word != "worse")


def test_the_training_reward_alone_decides_nothing(full):
    alone = replace(full, judge="", paired=tuple(p for p in full.paired if p.judge == "critic"))
    rwl, sft = system_verdicts(alone)
    assert rwl.word == sft.word == "not judged independently" and rwl.training.value == 0.1
    page = to_html(alone, sections(alone))
    assert "No independent judge took part" in page and "\u25b2" not in page


def test_the_summary_names_the_system_of_each_alarm(full):
    nan = DriftAlarm("saturation", "sft", "base", 0.0, 0.25, Estimate(math.nan, None, 1), "watch")
    told = default_summary(replace(full, drift=(alarm("rwl", -0.47), alarm("sft", -0.4), nan)))
    assert told[0].endswith("side effects: motion energy -47%, watch.")
    assert told[1].endswith("side effects: motion energy -40%, watch; saturation from 0 to 0.25, watch.")
    still = default_summary(replace(full, drift=(alarm("rwl", 0.0, "ok"),)))
    assert still[0].endswith("side effects: none of 1 pixel statistics reaches its limit.")


def test_the_papers_tables_in_form(full):
    table = vbench_table(full.rows, "vbench")
    assert len(table.rows) == 19 and table.columns[1:3] == ("base", "rwl")
    by_name = {row[0]: row[1:] for row in table.rows}
    assert by_name["subject consistency"][:3] == ("90.00 (80.00 to 100.00)", "90.00 (80.00 to 100.00)", "94.58")
    assert by_name["total score"] == ("",) * 6  # 4 of 16 dimensions: no total, and the paper's table has none
    assert all(table.columns[i].startswith("paper: ") for i in table.reference) and len(table.reference) == 4
    draw = [EvalRow("vbench", "vbench/quality_score_estimate", "rwl", 0.8, 10)]
    assert vbench_table([*full.rows, *draw], "vbench").rows[-1][:3] == ("quality score estimate", "", "80.00")
    custom = vbench_table([EvalRow("vbench-custom", "vbench-custom/scene", "base", 0.5, 9)], "vbench-custom")
    assert custom.rows == (("scene", "50.00"),) and custom.reference == ()
    critic = critic_table([row for row in full.rows if row.suite == "critic"])
    assert critic.rows[0] == ("tiny", "", "", "", "75% (60-85)", "")
    assert critic.rows[-1][1:5] == ("90.23%", "94.89%", "95.53%", "93.55%")
    assert set(paper()["vbench"]["rows"]) <= set(DIMENSIONS)


def test_a_critic_of_a_rubric_of_ones_own_has_its_own_columns():
    """Neither LiFT's three empty columns nor the paper's figures, and the rubric's best and worst label by their names."""
    parts = (*OWN.dimensions, "overall")
    rows = [
        EvalRow("critic", f"critic/{p}/{m}", "c", 0.75, 9) for p in parts for m in ("accuracy", "auc_good", "auc_bad")
    ]
    assert critic_table(rows, OWN).columns == ("critic", "colour match", "steadiness", "average", "calibration error")
    assert critic_table(rows, OWN).rows == (("c", "75%", "75%", "75%", ""),)
    assert critic_order_table(rows, OWN).columns[2:4] == ("AUC of Great", "AUC of Awful")
    page = to_html(made := Report("t", "base", rows=tuple(rows), rubric=OWN), sections(made))
    assert "AUC of Great" in page and "AUC of Good" not in page and "motion smoothness" not in page
    # A report without labelled clips knows no rubric, and claims none.
    assert critic_table(rows).columns == critic_table(rows, OWN).columns and len(critic_table(rows).rows) == 1
    assert critic_order_table(rows).columns[2:4] == ("AUC of the best label", "AUC of the worst label")
    lift = [EvalRow("critic", "critic/motion_smoothness/accuracy", "c", 0.75, 9)]
    assert len(critic_table(lift).columns) == 6 and len(critic_table(lift).rows) > 1


def test_answers_of_little_confidence_are_in_the_picture():
    """Four labels and more: the likeliest may have less than the third that it has of three."""
    bins = {"a": (CalibrationBin(0.62, 0.5, 40),), "b": (CalibrationBin(0.17, 0.6, 10), CalibrationBin(0.55, 0.6, 10))}
    assert least_confidence(bins) == 0.1 and least_confidence({"a": bins["a"]}) == 0.3
    assert ">0.2<" in calibration(bins).replace("\n", "") or "<!-- 0.2 -->" in calibration(bins)


def test_the_card_of_a_lora_takes_its_figures(full, tmp_path):
    from huggingface_hub import ModelCard

    lora = tmp_path / "lora_rwl"
    lora.mkdir()
    (lora / "README.md").write_text("---\nlibrary_name: diffusers\ntags:\n- lora\n---\n\n# lora_rwl\n\nText.\n")
    judged = (
        EvalRow("oracle", "oracle/mean_reward", "base", 0.46, 10, (0.4, 0.52)),
        EvalRow("oracle", "oracle/mean_reward", "rwl", 0.61, 10, (0.55, 0.67)),
        EvalRow("oracle", "oracle/semantic_consistency/Good", "rwl", 0.4, 10, (0.3, 0.5)),
        EvalRow("another", "another/mean_reward", "rwl", 0.2, 10, (0.1, 0.3)),
    )  # fmt: skip
    full = replace(full, rows=(*full.rows, *judged))
    folder = save_report(replace(full, cards={"rwl": lora}), tmp_path / "report").parent
    index = yaml.safe_load((folder / "model-index.yaml").read_text())["model-index"]
    assert [entry["name"] for entry in index] == ["base", "rwl"]
    assert [result["dataset"]["name"] for result in index[1]["results"]] == [
        "oracle, independent", "reward", "vbench", "videoscore",
    ]  # fmt: skip
    card = ModelCard.load(lora / "README.md")
    assert card.data.library_name == "diffusers" and card.data.model_name == "lora_rwl" and "Text." in card.text
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["videoscore/VQ"] == 2.5 and found["reward/mean_reward"] == pytest.approx(0.73)
    assert found["oracle/mean_reward"] == 0.61 and "oracle/semantic_consistency/Good" not in found
    (judged,) = (result for result in card.data.eval_results if result.metric_type == "oracle/mean_reward")
    assert (
        judged.dataset_name == "oracle, independent" and "(95% interval 0.5500 to 0.6700, n=10)" in judged.metric_name
    )
    before = (lora / "README.md").read_text()
    save_report(replace(full, cards={"rwl": lora}), tmp_path / "report")
    assert (lora / "README.md").read_text() == before
    people = replace(full, judge="eve", paired=(pair("eve", "rwl", "base", 0.2, measure="preference"),))
    save_report(replace(people, cards={"rwl": lora}), tmp_path / "people")
    found = {result.metric_type: result for result in ModelCard.load(lora / "README.md").data.eval_results}
    assert found["eve/net preference over base"].metric_value == 0.2
    assert found["eve/net preference over base"].dataset_name == "eve, perhaps independent"
    with pytest.raises(ValueError, match="no figures of 'sft'"):
        save_report(replace(full, cards={"sft": lora}), tmp_path / "report")
    with pytest.raises(FileNotFoundError, match="no such card"):
        save_report(replace(full, cards={"rwl": tmp_path / "none"}), tmp_path / "report")


@pytest.fixture(scope="module")
def real_report(real_data, tmp_path_factory, judge_checkpoint):
    """CogVideoX-2B and CogVideoX-2B-LiFT on the same prompts through the recipes' own path, with random critic and judge:
    the form is real, the labels are not."""
    root = tmp_path_factory.mktemp("pairs")
    pairs = json.loads((real_data / "pairs.json").read_text())
    build_vlm("idefics3", save_directory=root / "critic")
    critic = LiFTCritic.from_pretrained(str(root / "critic"), device="cpu")
    systems = []
    for name, column in (("base", "base"), ("lift", "aligned")):
        rows = [{"prompt": p["prompt"], "seed": i, "video": str(real_data / p[column])} for i, p in enumerate(pairs)]
        write_rows(root / name / "metadata.jsonl", rows)
        systems.append(f"{name}={score_videos(critic, root / name, root / f'scored_{name}')}")
    shared = {"dimension": None, "voter": "v", "created_at": "2026-01-01T00:00:00Z"}
    votes = []
    for i, pair in enumerate(pairs):
        sides = {side: f"{name}/{Path(pair[column]).name}" for side, name, column in (
            ("video_a", "lift", "aligned"), ("video_b", "base", "base"),
        )}  # fmt: skip
        choice = "a" if i < max(1, len(pairs) - 1) else "tie"
        votes.append({"id": str(i), "prompt": pair["prompt"], **sides, "choice": choice, "pair": str(i), **shared})
    write_rows(root / "votes.jsonl", votes)
    recipe = load_recipe(RECIPES / "evaluate.py")
    report_args, vbench_args, judge_args = recipe.ARGUMENTS
    report = report_args(
        report_dir=str(root / "report"), systems=systems, votes=[f"made-up votes={root / 'votes.jsonl'}"],
        title="CogVideoX-2B and CogVideoX-2B-LiFT, random critic and judge",
    )  # fmt: skip
    judge = judge_args(judge=str(judge_checkpoint), judge_dir=str(root / "judged"), judge_frames=3)
    recipe.main(report, vbench_args(), judge)
    return root / "report"


@pytest.mark.real
def test_the_real_pairs(real_report, real_data):
    pairs = real_folder.pairs(real_data)
    count = len(pairs)
    page = (real_report / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2 * count and len(page) < 3 * count * 2**20
    report = json.loads((real_report / "report.json").read_text())
    rows = {(row["metric"], row["system"]): row for row in report["rows"]}
    clips = {"base": [pair.base for pair in pairs], "lift": [pair.aligned for pair in pairs]}
    for system, paths in clips.items():
        assert rows["drift/steadiness", system]["value"] == pytest.approx(real_folder.steadiness(paths), abs=1e-5)
    # A change is seen, but a few prompts are not enough to be sure.
    alarms = {alarm["measure"]: alarm for alarm in report["drift"]}
    base, lift = (real_folder.motion_energy(paths) for paths in clips.values())
    assert alarms["motion_energy"]["change"]["value"] == pytest.approx(lift / base - 1, abs=1e-4)
    assert set(alarms) == {"motion_energy", "sharpness", "saturation", "brightness", "diversity"}
    for alarm in alarms.values():
        assert alarm["level"] in (("ok", "watch") if count < 8 else ("ok", "watch", "alarm"))
    assert alarms["motion_energy"]["level"] == ("ok" if lift / base - 1 > -0.3 else "watch") or count >= 8
    # Each critic and judge rated all clips, and pairs them: the first base clip stands beside the first aligned one.
    assert rows["reward/mean_reward", "base"]["n"] == rows["videoscore/VQ", "lift"]["n"] == count
    assert {(win["judge"], win["num_pairs"]) for win in report["win_rates"]} == {
        ("critic", count), ("second judge", count), ("made-up votes", count),
    }  # fmt: skip
    assert {(row["judge"], row["with_ties"]["n"]) for row in report["agreements"]} == {
        ("critic", count),
        ("second judge", count),
    }
    # All are shown, the telling ones first.
    names = {"base": [pair.base.name for pair in pairs], "lift": [pair.aligned.name for pair in pairs]}
    shown = sorted((row["clips"] for row in report["clips"]), key=lambda clips: names["base"].index(clips["base"]))
    assert shown == [dict(zip(names, pair)) for pair in zip(*names.values())]
    assert report["notes"] == []


#: A laptop's and a phone's screen, and how many of them the report may take unfolded.
SCREENS = (((1280, 800), 6), ((390, 844), 9))


@pytest.fixture
def five(full):
    """Five systems as the quickstart has them, with VBench and VideoScore: each with its pairs of clips, drift, all rows."""
    names = ("rwl", "sft", "kto", "guided")
    rows = {name: tuple(ClipRow(r.prompt, {"base": r.clips["base"], name: r.clips["rwl"]}, {}, r.why)
                        for r in full.verdict_clips["rwl"]) for name in names}  # fmt: skip
    notes = dict.fromkeys(
        names, "reward 0.62, semantic consistency Good, motion smoothness Normal, video fidelity Bad"
    )
    measures = ("motion_energy", "sharpness", "saturation", "brightness", "diversity")
    measured = [*(("vbench", name) for name in DIMENSIONS), *(("videoscore", name) for name in VIDEO_SCORE_ASPECTS)]
    return replace(
        full,
        systems=tuple(full.systems[0]._replace(name=name) for name in ("base", *names)),
        controls={"rwl": "sft", "kto": "sft"},
        rows=(
            *(row for row in full.rows if row.suite not in ("vbench", "videoscore")),
            *(EvalRow(s, f"{s}/{m}", n, 0.5, 9, (0.4, 0.6)) for s, m in measured for n in ("base", *names)),
        ),
        deltas=(
            *full.deltas,
            *(
                PairedDelta(
                    s, f"{s}/{m}", "base", name, 0.5, 0.5 + change, Estimate(change, (change - 0.1, change + 0.1), 9)
                )
                for name in names
                for (s, m), change in zip(measured, cycle((0.2, 0.3, 0.0, -0.2)))
            ),
        ),
        suite_stamps={s: {name: {"vbench": "0.1.5", "torch": "2.5.1"} for name in names} for s, _ in measured},
        verdict_clips=rows,
        paired=tuple(
            pair(judge, name, "base", 0.1 + 0.01 * i, measure=measure)
            for judge in ("oracle", "critic")
            for i, name in enumerate(names)
            for measure in ("reward", *map(str, Dimension))
        ),
        drift=tuple(
            alarm(name, -0.4, "alarm" if i < 2 else "ok", measure, (-0.45, -0.35))
            for name in names
            for i, measure in enumerate(measures)
        ),
        clips=tuple(
            ClipRow(r.prompt, {n: r.clips.get(n, r.clips["sft"]) for n in ("base", *names)}, notes, r.why)
            for r in full.clips
        ),
    )


def test_a_benchmark_is_counted_up_and_down_where_its_interval_says_so(full):
    bounds = ((0.1, 0.3), (-0.1, 0.2), (-0.3, -0.1), (0.0, 0.2), (-0.2, -0.01), (-0.4, -0.2))
    deltas = [
        PairedDelta("vbench", f"vbench/{number}", "base", "rwl", 0.5, 0.6, Estimate(0.1, ci95, 9))
        for number, ci95 in enumerate((*bounds, None))
    ]
    rows = (EvalRow("vbench", "vbench/scene", "rwl", 0.6, 9),)
    (told,) = [p.text for p in sections(replace(full, rows=rows, deltas=tuple(deltas))) if p.id == "benchmarks"]
    assert "rwl against base: 1 of 7 up, 3 down." in told


@pytest.mark.browser
def test_the_first_screen_answers_for_five_systems(five, tmp_path, chromium):
    """Did each help, by how much by the judge that gave no reward, at what side effect: on a laptop and on a phone."""
    from playwright.sync_api import sync_playwright

    page_file = save_report(five, tmp_path / "report")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for (width, height), num_screens in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollHeight") <= num_screens * height
            assert page.evaluate("document.documentElement.scrollWidth") == width
            table = page.get_by_role("table", name="Each system at a glance")
            rows = table.get_by_role("row").all()[1:]
            assert [row.get_by_role("rowheader").inner_text().split()[0] for row in rows] == [
                "rwl",
                "sft",
                "kto",
                "guided",
            ]
            for row, gain in zip(rows, ("+0.100", "+0.110", "+0.120", "+0.130")):
                text = " ".join(row.inner_text().split())
                assert "better" in text and gain in text and "alarm: motion energy -40%, sharpness -40%" in text
            box = table.bounding_box()
            assert box["y"] + box["height"] < height and box["x"] + box["width"] <= width
            # What was measured besides stands in a sentence; its figures are folded.
            moved = "; ".join(f"{name} against base: 8 of 16 up, 4 down" for name in ("rwl", "sft", "kto", "guided"))
            assert (
                f"16 of 16 dimensions measured, protocol vbench. {moved}." in page.locator("#benchmarks").inner_text()
            )
            assert "kto against base: 3 of 5 up, 1 down" in page.locator("#benchmarks").inner_text()
            assert not page.locator("#vbench-figures table").first.is_visible()
            page.get_by_text("Figures: VBench (vbench)").click()
            assert page.locator("#vbench-figures table").first.is_visible()
            page.get_by_role("link", name="guided").click()
            page.wait_for_function("document.querySelector('#system-4').getBoundingClientRect().top < innerHeight")
        browser.close()


@pytest.mark.browser
def test_the_page_opens_and_plays(full, tmp_path, chromium):
    from playwright.sync_api import sync_playwright

    page_file = save_report(full, tmp_path / "report")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for (width, height), num_screens in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": height})
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollHeight") <= num_screens * height
            # The verdict's clips play beside it; those further down wait until they are seen.
            beside = "[...document.querySelectorAll('.verdict video')]"
            page.wait_for_function(f"{beside}.length === 4 && {beside}.every((v) => !v.paused && v.videoWidth > 0)")
            folded = page.locator("#more-clips video")
            assert folded.count() == 9 and folded.last.get_attribute("src") is None
            page.get_by_role("button", name="Pause all").click()
            assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused)")
            page.get_by_role("button", name="Start all together").click()
            page.wait_for_function(f"{beside}.every((v) => !v.paused)")
            page.get_by_text("More clips").click()
            folded.last.scroll_into_view_if_needed()
            page.wait_for_function("[...document.querySelectorAll('#more-clips video')].at(-1).videoWidth > 0")
            # Nothing is wider than the screen; wide tables scroll within themselves.
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
            assert errors == []
        browser.close()
