import base64
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from lift_trl.alignment.score import score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.records import CriticScore, EvalRow, Judgement
from lift_trl.report.data import (
    CalibrationBin,
    ClipRow,
    Curve,
    Report,
    calibration_bins,
    default_summary,
    label_rates,
    mean_row,
    paired_delta,
)
from lift_trl.report.page import save_report, sections, to_html
from lift_trl.report.tables import critic_table, paper, vbench_table, verdict
from lift_trl.rubric import Dimension, Label
from lift_trl.statistics.drift import DriftAlarm, clip_statistics, drift_alarms, drift_rows
from lift_trl.statistics.intervals import Estimate
from lift_trl.statistics.win_rate import Vote, critic_votes, win_rates
from lift_trl.store.manifest import write_rows
from lift_trl.vbench.suite import DIMENSIONS
from tests import real_folder
from tests.critic.tiny_models import build_vlm
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


def scores(labels):
    """One score a clip, the same label on all dimensions."""
    return {
        f"p{i}#0": CriticScore(str(i), "c", tuple(Judgement(d, label) for d in Dimension))
        for i, label in enumerate(labels)
    }


@pytest.fixture
def full(tmp_path, make_clip):
    """A report with every section."""
    good, bad = Label.GOOD, Label.BAD
    base, tuned = scores([bad] * 6 + [good] * 4), scores([bad] * 2 + [good] * 8)
    rewards = {name: {k: s.reward for k, s in found.items()} for name, found in (("base", base), ("rwl", tuned))}
    prompts = {key: key for key in base}
    clips = {name: make_clip(tmp_path / f"{name}.mp4", seed) for seed, name in enumerate(rewards)}
    statistics = {name: {"p0#0": clip_statistics(path)} for name, path in clips.items()}
    return Report(
        title="Base <b>against</b> tuned",
        base="base",
        rows=(
            *drift_rows(statistics, prompts),
            *(mean_row("reward", "mean_reward", name, values, prompts) for name, values in rewards.items()),
            *(EvalRow("vbench", f"vbench/{d}", s, 0.9, 5, (0.8, 1.0)) for d in list(DIMENSIONS)[:4] for s in rewards),
            EvalRow("videoscore", "videoscore/VQ", "rwl", 2.5, 4),
            EvalRow("critic", "critic/overall/accuracy", "tiny", 0.75, 40, (0.6, 0.85)),
            EvalRow("videogen-rewardbench", "videogen-rewardbench/MQ_with_ties", "tiny", 0.6, 100, (0.5, 0.7)),
        ),
        label_rates=label_rates({"base": list(base.values()), "rwl": list(tuned.values())}),
        rewards={name: tuple(values.values()) for name, values in rewards.items()},
        deltas=(paired_delta("reward", "mean_reward", ("base", rewards["base"]), ("rwl", rewards["rwl"]), prompts),),
        win_rates=tuple(win_rates(critic_votes(tuned, base, prompts), judge="critic", first="rwl", second="base")),
        clips=(ClipRow("a square moves", clips, {"rwl": "reward 0.90"}),),
        calibration={"tiny": (CalibrationBin(0.5, 0.4, 10), CalibrationBin(0.9, 0.8, 30))},
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
    rates = {
        (r.dimension, r.label): r.rate for r in label_rates({"base": list(scores([Label.GOOD, Label.BAD]).values())})
    }
    assert (
        rates[Dimension.VIDEO_FIDELITY, Label.GOOD].value == 0.5
        and rates[Dimension.VIDEO_FIDELITY, Label.NORMAL].value == 0
    )
    unscored = CriticScore("x", "c", unscored="broken file")
    with pytest.raises(ValueError, match="none of 1 clips"):
        label_rates({"base": [unscored]})
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
    assert [part.id for part in sections(full)] == [
        "labels", "rewards", "wins", "clips", "vbench", "videoscore", "drift", "critic",
        "suite-videogen-rewardbench", "curves",
    ]  # fmt: skip
    assert sections(Report("empty", "base")) == []


def test_the_files(full, tmp_path):
    page = save_report(full, tmp_path / "report").read_text()
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["deltas"][0]["estimate"]["value"] == pytest.approx(0.34) and data["curves"][0]["values"] == [0.5, None]
    assert data["label_rates"][0]["rate"]["n"] == 10 and data["clips"][0]["clips"] == {
        "base": "base.mp4",
        "rwl": "rwl.mp4",
    }
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| semantic consistency | rwl | 80% (49-94) |" in markdown and "base.mp4" in markdown
    assert "&lt;b&gt;against&lt;/b&gt;" in page and "<b>against" not in page
    clips = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert [base64.b64decode(clip) for clip in clips] == [path.read_bytes() for path in full.clips[0].clips.values()]
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
    (section,) = sections(report)
    assert [f"{a} against {b}" in graphic.alt for (a, b), graphic in zip(pairs, section.graphics)] == [True] * 3


def test_ids_of_sections_are_valid_html():
    rows = (EvalRow("critic against second judge", "overall/accuracy", "critic", 0.5, 9),)
    (section,) = sections(Report("t", "base", rows=rows))
    assert section.id == "suite-critic-against-second-judge"


def test_the_page_is_the_same_each_time(full):
    assert to_html(full, sections(full)) == to_html(full, sections(full))


def test_the_summary_says_what_is_sure(full):
    told = default_summary(full)
    assert told[0].startswith("Mean reward: rwl 0.730, +0.340 against base (95% interval +0.")
    assert "Critic: rwl wins 40%, ties 60% and loses 0% of 10 comparisons with base." in told
    assert replace(full, summary=("Mine.",)).summary == ("Mine.",)


def test_the_summary_names_the_system_of_each_alarm():
    def alarm(system, change, level="watch"):
        return DriftAlarm("motion_energy", system, "base", 0.5, 0.5 * (1 + change), Estimate(change, None, 1), level)

    nan = DriftAlarm("saturation", "sft", "base", 0.0, 0.25, Estimate(math.nan, None, 1), "watch")
    told = default_summary(Report("t", "base", drift=(alarm("rwl", -0.47), alarm("sft", -0.4), nan)))
    assert told == (
        "Drift of rwl against base: motion energy -47%, watch.",
        "Drift of sft against base: motion energy -40%, watch; saturation from 0 to 0.25, watch.",
    )
    assert default_summary(Report("t", "base", drift=(alarm("rwl", 0.0, "ok"),))) == (
        "No drift alarm for rwl in 1 pixel statistics.",
    )


def test_few_prompts_get_no_verdict():
    assert verdict(Estimate(0.1, (0.05, 0.15), 7)) == "few prompts"
    assert verdict(Estimate(0.1, (0.05, 0.15), 8)) == "better"
    assert verdict(Estimate(-0.1, (-0.2, -0.05), 8)) == "worse"
    assert verdict(Estimate(0.1, (-0.05, 0.15), 80)) == "not sure"


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


def test_the_card_of_a_lora_takes_its_figures(full, tmp_path):
    from huggingface_hub import ModelCard

    lora = tmp_path / "lora_rwl"
    lora.mkdir()
    (lora / "README.md").write_text("---\nlibrary_name: diffusers\ntags:\n- lora\n---\n\n# lora_rwl\n\nText.\n")
    folder = save_report(replace(full, cards={"rwl": lora}), tmp_path / "report").parent
    index = yaml.safe_load((folder / "model-index.yaml").read_text())["model-index"]
    assert [entry["name"] for entry in index] == ["base", "rwl"]
    assert [result["dataset"]["name"] for result in index[1]["results"]] == ["reward", "vbench", "videoscore"]
    card = ModelCard.load(lora / "README.md")
    assert card.data.library_name == "diffusers" and card.data.model_name == "lora_rwl" and "Text." in card.text
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["videoscore/VQ"] == 2.5 and found["reward/mean_reward"] == pytest.approx(0.73)
    before = (lora / "README.md").read_text()
    save_report(replace(full, cards={"rwl": lora}), tmp_path / "report")
    assert (lora / "README.md").read_text() == before
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
    assert [row["clips"] for row in report["clips"]] == [
        {"base": pair.base.name, "lift": pair.aligned.name} for pair in pairs
    ]
    assert report["notes"] == []


@pytest.mark.browser
def test_the_page_opens_and_plays(full, tmp_path, chromium):
    from playwright.sync_api import sync_playwright

    page_file = save_report(full, tmp_path / "report")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800})
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.goto(page_file.as_uri())
            page.get_by_role("button", name="Start all together").click()
            page.wait_for_function(
                "[...document.querySelectorAll('video')].every((v) => !v.paused && v.videoWidth > 0)"
            )
            page.get_by_role("button", name="Pause all").click()
            assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused)")
            # Nothing is wider than the screen; wide tables scroll within themselves.
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
            assert errors == []
        browser.close()
