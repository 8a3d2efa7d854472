import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import pytest
import yaml

from lift_trl.report.commands import evaluate, report
from lift_trl.report.inputs import ReportArguments, build_report, named_paths
from lift_trl.report.systems import describe_clip
from lift_trl.rubric import Dimension
from lift_trl.store.system_clips import load_system
from lift_trl.store.video_io import write_video
from lift_trl.vbench.commands import CheckArguments, PlanArguments, VBenchArguments, check, plan
from lift_trl.vbench.env import needed_weights
from lift_trl.vbench.plan import Plan
from tests.clips import clip
from tests.processes import Job
from tests.vbench.test_run import STAND_IN
from tests.vbench.test_score import write_all, write_dimension


def write_system(folder, make_clip, rewards, *, labels=None, seed=0):
    rows = []
    for number, (prompt, reward) in enumerate(rewards):
        make_clip(folder / "videos" / f"{number}.mp4", seed=seed + number)
        row = {"file_name": f"videos/{number}.mp4", "prompt": prompt, "seed": number}
        row |= dict.fromkeys(Dimension, labels[number]) if labels else {"reward": reward} if reward is not None else {}
        rows.append(row)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_plan_and_check(suite_file, tmp_path):
    said = plan(
        PlanArguments(str(suite_file), str(tmp_path / "plan"), prompts="lift_opt", samples=2, flicker_samples=2)
    )
    assert said.splitlines()[0].startswith("14 clips of 7 prompts for 16 dimensions")
    assert "first text wins" in said
    found = check(CheckArguments(str(tmp_path / "plan"), str(tmp_path / "none"), python=sys.executable))
    assert not found.ok
    kinds = {problem.kind for problem in found.problems}
    assert {"missing", "package", "samples", "case"} <= kinds  # vbench is not installed beside us


def test_a_report_from_folders(tmp_path, make_clip):
    prompts = [f"prompt {i}" for i in range(10)]
    base = write_system(tmp_path / "base", make_clip, [(p, 0.2) for p in prompts])
    tuned = write_system(tmp_path / "rwl", make_clip, [(p, 0.2 + 0.05 * i) for i, p in enumerate(prompts)], seed=50)
    votes = [
        {"id": str(i), "prompt": p, "video_a": str(tuned / f"videos/{i}.mp4"), "video_b": str(base / f"videos/{i}.mp4"),
         "choice": "a" if i < 8 else "tie", "dimension": None, "voter": "v", "created_at": "2026-01-01T00:00:00Z"}
        for i, p in enumerate(prompts)
    ]  # fmt: skip
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in votes))
    figures = {
        "suite": "critic",
        "metric": "critic/overall/accuracy",
        "system": "c",
        "value": 0.7,
        "n": 9,
        "ci95": [0.5, 0.9],
    }
    (tmp_path / "figures.jsonl").write_text(json.dumps(figures) + "\n")
    (tmp_path / "trainer_state.json").write_text(
        json.dumps({"log_history": [{"step": s, "loss": 1 / s} for s in (1, 2, 4)]})
    )
    made = build_report(
        ReportArguments(
            report_dir=str(tmp_path / "report"),
            systems=[f"base={base}", f"rwl={tuned}"],
            votes=[f"people={tmp_path / 'votes.jsonl'}"],
            figures=[str(tmp_path / "figures.jsonl")],
            training=[f"rwl={tmp_path / 'trainer_state.json'}"],
            num_clips=3,
        )
    )
    (delta,) = made.deltas
    assert (delta.base_value, delta.value) == pytest.approx((0.2, 0.425)) and delta.estimate.excludes_zero
    assert (made.win_rates[0].win.value, made.win_rates[0].tie.value) == pytest.approx((0.8, 0.2))
    assert [len(made.clips), len(made.drift), len(made.curves)] == [3, 5, 1]
    assert made.clips[0].notes == {"base": "reward 0.20", "rwl": "reward 0.20"}
    assert made.rows[-1].ci95 == (0.5, 0.9) and made.stamps["system base"] == base.name  # a report is published


def test_labels_and_unrated_clips(tmp_path, make_clip):
    rated = write_system(tmp_path / "a", make_clip, [("p", 0), ("p", 0)], labels=["Good", "Bad"])
    clips = load_system(rated)
    assert [clip.key for clip in clips] == ["p#0", "p#1"]
    assert [clip.reward for clip in clips] == pytest.approx([0.9, 0.05])
    assert [describe_clip(clip) for clip in clips] == ["reward 0.90, all Good", "reward 0.05, all Bad"]
    mixed = clips[0]._replace(labels={**clips[0].labels, Dimension.VIDEO_FIDELITY: "Bad"}, reward=None)
    assert describe_clip(mixed) == "semantic consistency Good, motion smoothness Good, video fidelity Bad"
    plain = write_system(tmp_path / "b", make_clip, [("p", None)])
    assert load_system(plain)[0].reward is None
    made = build_report(ReportArguments(str(tmp_path / "r"), [f"base={plain}", f"rwl={rated}"], drift=False))
    assert made.deltas == () and {rate.system for rate in made.label_rates} == {"rwl"}
    (rated / "videos" / "1.mp4").unlink()
    with pytest.raises(ValueError, match="1.mp4"):
        load_system(rated)


def test_malformed_entries_are_refused(tmp_path):
    for entries in (["runs/base"], ["=x"], ["a=x", "a=y"]):
        with pytest.raises(ValueError, match="name=path"):
            named_paths(entries)
    with pytest.raises(ValueError, match="base=FOLDER"):
        build_report(ReportArguments(str(tmp_path)))
    for settings, message in (
        ({"runner": "conda"}, "venv, python"),
        ({"runner": "python", "plan": "p"}, "needs python"),
        ({"runner": "hf-jobs", "plan": "p"}, "needs bucket"),
        ({"runner": "hf-jobs", "plan": "p", "bucket": "me/b", "fetch": True}, "use fetch=false"),
        ({"runner": "docker", "vbench_checkout": "VBench"}, "leave vbench_checkout out"),
        ({"runner": "none", "fetch": True}, "needs a runner, or a plan"),
    ):
        with pytest.raises(ValueError, match=message):
            VBenchArguments(**settings)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The stand-in for the package vbench; one for all tests, since looking into an environment imports torch."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "vbench").mkdir()
    (folder / "vbench" / "__init__.py").write_text(STAND_IN)
    return folder


@pytest.fixture
def two_systems(suite_file, tmp_path, make_clip, monkeypatch):
    plan(
        PlanArguments(
            str(suite_file), str(tmp_path / "plan"), dims=["temporal_flickering"], samples=1, flicker_samples=1
        )
    )
    videos = Plan.load(tmp_path / "plan").videos
    for offset, name in enumerate(("base", "rwl")):
        rows = []
        for number, video in enumerate(videos):
            make_clip(tmp_path / name / "videos" / f"{video.id}.mp4", seed=10 * offset + number)
            rows.append(
                {"prompt": video.prompt, "seed": video.seed, "video": f"videos/{video.id}.mp4", "id": video.id}
            )
        (tmp_path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    return ReportArguments(
        report_dir=str(tmp_path / "report"), systems=[f"base={tmp_path / 'base'}", f"rwl={tmp_path / 'rwl'}"]
    )


def vbench_arguments(tmp_path, **more):
    settings = {
        "plan": str(tmp_path / "plan"),
        "vbench_dir": str(tmp_path / "vbench"),
        "video_frames": 9,
        "device": "cpu",
    }
    return VBenchArguments(**{**settings, "static_filter": False, **more})


@pytest.fixture
def python(checkout):
    """Settings of a runner that has the stand-in for the package vbench."""
    return {"runner": "python", "python": sys.executable, "vbench_checkout": str(checkout)}


def calls(tmp_path):
    return (tmp_path / "calls").read_text().split()


def test_evaluate_runs_vbench_on_each_system_and_reports(two_systems, tmp_path, python):
    """From a plan and two folders of clips to the page, with the stand-in for the package vbench."""
    page = evaluate(two_systems, vbench_arguments(tmp_path, **python))
    assert page == tmp_path / "report" / "report.html" and "VBench (vbench)" in page.read_text()
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    flicker = {row["system"]: row["n"] for row in data["rows"] if row["metric"] == "vbench/temporal_flickering"}
    assert flicker == {"base": 2, "rwl": 2}
    assert [delta["metric"] for delta in data["deltas"]] == ["vbench/temporal_flickering"]
    assert not any("total_score" in row["metric"] for row in data["rows"])
    run = json.loads((tmp_path / "vbench" / "base" / "vbench" / "run.json").read_text())
    assert data["suite_stamps"]["vbench"]["base"].items() >= run["stamps"].items()
    assert run["planned"] == {"temporal_flickering": [2, 1, 2]}
    assert run["stamps"] | {"suite_sha256": "", "torch": ""} == {
        "prompts": "original", "samples": "1", "flicker_samples": "1", "limit_per_dimension": "none", "seed": "0",
        "suite_sha256": "", "static_filter": "False", "vbench": "checkout", "torch": "", "gpu": "none",
    }  # fmt: skip
    index = yaml.safe_load((tmp_path / "report" / "model-index.yaml").read_text())["model-index"]
    assert {entry["name"]: entry["results"][0]["dataset"]["name"] for entry in index} == {
        "base": "vbench",
        "rwl": "vbench",
    }
    assert not (tmp_path / "report" / "base_vbench_leaderboard.zip").exists()

    first = page.read_bytes()
    evaluate(two_systems, vbench_arguments(tmp_path, **python))
    assert calls(tmp_path) == ["temporal_flickering"] * 2 and page.read_bytes() == first
    # The same clips by another protocol are other figures, with results of their own.
    custom = replace(two_systems, protocol="vbench-custom")
    evaluate(custom, vbench_arguments(tmp_path, dims=["temporal_flickering"], **python))
    assert calls(tmp_path) == ["temporal_flickering"] * 4
    # A clip that is gone is not measured from an old link.
    (tmp_path / "rwl" / "metadata.jsonl").write_text(
        (tmp_path / "rwl" / "metadata.jsonl").read_text().splitlines()[0] + "\n"
    )
    evaluate(custom, vbench_arguments(tmp_path, dims=["temporal_flickering"], **python))
    assert len(list((tmp_path / "vbench" / "rwl" / "vbench-custom" / "videos").iterdir())) == 1


def test_any_clips_need_no_plan(two_systems, tmp_path, python):
    with pytest.raises(ValueError, match="needs plan"):
        evaluate(two_systems, vbench_arguments(tmp_path, plan=None, **python))
    custom = replace(two_systems, protocol="vbench-custom")
    page = evaluate(custom, vbench_arguments(tmp_path, plan=None, dims=["temporal_flickering"], **python))
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    (delta,) = data["deltas"]
    assert delta["metric"] == "vbench-custom/temporal_flickering" and delta["estimate"]["n"] == 2
    assert "Compare within it only" in page.read_text()


@pytest.mark.parametrize("protocol", ["vbench", "vbench-custom"])
def test_clips_that_lie_where_the_links_would_go_are_left_alone(two_systems, tmp_path, python, protocol):
    place = tmp_path / "runs" / "base" / protocol
    place.parent.mkdir(parents=True)
    (tmp_path / "base").rename(place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    systems = replace(two_systems, protocol=protocol, systems=[f"base={place}"])
    options = {"vbench_dir": str(tmp_path / "runs"), "dims": ["temporal_flickering"]}
    with pytest.raises(FileExistsError, match="videos is not empty"):
        evaluate(systems, vbench_arguments(tmp_path, **python, **options))
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_missing_clip_of_any_system_stops_before_vbench_runs(two_systems, tmp_path, python):
    shutil.rmtree(tmp_path / "rwl" / "videos")
    with pytest.raises(ValueError, match="0 of 2 clips found"):
        evaluate(two_systems, vbench_arguments(tmp_path, **python))
    with pytest.raises(ValueError, match="each name once"):
        evaluate(replace(two_systems, vbench=["base=x", "base=y"]), vbench_arguments(tmp_path, **python))
    with pytest.raises(ValueError, match="no clip is planned for human_action"):
        evaluate(two_systems, vbench_arguments(tmp_path, dims=["human_action"], **python))
    assert not (tmp_path / "calls").exists()


def test_links_are_never_made_over_the_clips(two_systems, tmp_path, python):
    links = tmp_path / "vbench" / "base" / "vbench" / "videos"
    shutil.copytree(tmp_path / "base", links)
    with pytest.raises(ValueError, match="is where the links of this evaluation go"):
        evaluate(replace(two_systems, systems=[f"base={links}"]), vbench_arguments(tmp_path, **python))
    assert (links / "metadata.jsonl").exists()


def test_vbench_by_hand(two_systems, tmp_path, python):
    """runner=none makes links, prompts and command lines; the same call reads what they wrote."""
    by_hand = vbench_arguments(tmp_path, **{**python, "runner": "none"})
    report_file = tmp_path / "report" / "report.json"
    evaluate(two_systems, by_hand)
    assert not json.loads(report_file.read_text())["deltas"]
    for system in ("base", "rwl"):
        root = tmp_path / "vbench" / system / "vbench"
        assert (root / "videos" / "a still lake-0.mp4").is_file() and (root / "info" / "full_info.json").is_file()
        (run,) = json.loads((root / "run.json").read_text())["runs"]
        assert (run["status"], run["message"]) == ("not ready", f"run {root / 'commands.sh'}")
        subprocess.run(["bash", str(root / "commands.sh")], check=True)
    evaluate(two_systems, by_hand)
    assert [d["metric"] for d in json.loads(report_file.read_text())["deltas"]] == ["vbench/temporal_flickering"]
    assert "worker.py" not in (root / "commands.sh").read_text()  # nothing is left to do


def test_given_results_are_not_measured_again(two_systems, tmp_path, python):
    systems = two_systems.systems[:1]
    evaluate(replace(two_systems, systems=systems), vbench_arguments(tmp_path, **python))
    given = [f"base={tmp_path / 'vbench' / 'base' / 'vbench'}"]
    evaluate(replace(two_systems, systems=systems, vbench=given), vbench_arguments(tmp_path, vbench_dir="x", **python))
    assert calls(tmp_path) == ["temporal_flickering"]


def test_container_command_lines_are_written_not_run(two_systems, tmp_path):
    report(two_systems)  # none, and no plan
    evaluate(two_systems, vbench_arguments(tmp_path, runner="docker"))
    script = (tmp_path / "vbench" / "base" / "vbench" / "commands.sh").read_text()
    assert "never run it" in script and script.count("docker run") == 1
    with pytest.raises(ValueError, match="docker cannot run vbench-long"):
        evaluate(replace(two_systems, protocol="vbench-long"), vbench_arguments(tmp_path, runner="docker"))


def evaluate_slowly(reports, vbench):
    """Of all that it starts, too, the second dimension takes long."""
    os.setsid()
    os.environ["STAND_IN_SLOW"] = "overall_consistency"
    evaluate(reports, vbench)


def test_an_evaluation_killed_between_two_dimensions_ends_with_the_same_report(
    two_systems, tmp_path, python, suite_file
):
    dimensions = ["temporal_flickering", "overall_consistency"]
    shutil.rmtree(tmp_path / "plan")  # of another choice of dimensions, which this one does not replace
    plan(PlanArguments(str(suite_file), str(tmp_path / "plan"), dims=dimensions, samples=1, flicker_samples=1))
    for offset, name in enumerate(("base", "rwl")):
        rows = []
        for number, video in enumerate(Plan.load(tmp_path / "plan").videos):
            source = tmp_path / name / "videos" / f"{video.id}.mp4"
            write_video(source, clip(10 * offset + number, num_frames=9 + number), fps=8)
            rows.append({"prompt": video.prompt, "seed": video.seed, "video": f"videos/{source.name}", "id": video.id})
        (tmp_path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for weight in needed_weights(dimensions):
        (tmp_path / "cache" / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / weight.path).write_bytes(b"weights")
    reports = replace(two_systems, drift=False, num_clips=1)
    vbench = vbench_arguments(tmp_path, video_frames=0, vbench_cache=str(tmp_path / "cache"), **python)
    killed = Job(tmp_path / "log", evaluate_slowly, reports, vbench)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "calls").exists() and len(calls(tmp_path)) == 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pids()[0], signal.SIGKILL)
    assert killed.wait() == [-signal.SIGKILL]
    assert [path.name for path in (tmp_path / "vbench").rglob("*_results.json")] == [
        "temporal_flickering_eval_results.json"
    ]

    evaluate(reports, vbench)
    # Of five runs one was cut short; the first dimension of the base was kept.
    assert calls(tmp_path) == [*dimensions, "overall_consistency", *dimensions]
    resumed = (tmp_path / "report" / "report.json").read_text()
    shutil.rmtree(tmp_path / "vbench")
    shutil.rmtree(tmp_path / "report")
    evaluate(reports, vbench)
    assert len(calls(tmp_path)) == 9
    assert (tmp_path / "report" / "report.json").read_text() == resumed
    assert len(json.loads(resumed)["deltas"]) == 2


def test_whole_results_come_with_the_leaderboards_zip(two_systems, tmp_path):
    write_all(tmp_path / "results")
    args = replace(two_systems, systems=two_systems.systems[:1], vbench=[f"base={tmp_path / 'results'}"], drift=False)
    report(args)
    archive = tmp_path / "report" / "base_vbench_leaderboard.zip"
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == 16
    write_dimension(tmp_path / "results", "scene", [0.5], samples=1)
    report(args)
    assert not archive.exists()


def test_a_second_judge(tmp_path, make_clip):
    columns = {"reward": 0.9, **dict.fromkeys(Dimension, "Good")}, {"reward": 0.05, **dict.fromkeys(Dimension, "Bad")}
    probs = {d.value: {"Bad": 0.1, "Normal": 0.1, "Good": 0.8} for d in Dimension}

    def rate(name, good):
        folder = tmp_path / name
        rows = []
        for i, is_good in enumerate(good):
            clip = make_clip(tmp_path / f"{i}.mp4", seed=i)
            row = {"id": str(i), "file_name": f"../{clip.name}", "prompt": f"p{i}", **columns[not is_good]}
            rows.append({**row, "probs": probs} if is_good else row)
        folder.mkdir()
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    systems = [f"base={rate('base', [0, 0, 0])}", f"rwl={rate('rwl', [1, 1, 1])}", f"sft={rate('sft', [1, 1, 0])}"]
    judges = [f"eye/base={rate('a', [0, 0, 0])}", f"eye/rwl={rate('b', [1, 1, 0])}", f"eye/sft={rate('c', [1, 0, 0])}"]
    args = ReportArguments(str(tmp_path / "r"), systems, judges, drift=False, num_clips=1)
    report(args)
    data = json.loads((tmp_path / "r" / "report.json").read_text())
    paired = {(p["judge"], p["a"], p["b"], p["measure"]): p for p in data["paired"]}
    assert len(paired) == 2 * 3 * 4
    assert paired["critic", "rwl", "base", "reward"]["ci95"] == pytest.approx([0.85, 0.85])
    assert paired["eye", "rwl", "base", "reward"]["value"] == pytest.approx(0.85 * 2 / 3)
    assert paired["eye", "rwl", "sft", "reward"]["value"] == pytest.approx(0.85 / 3)
    assert paired["eye", "rwl", "sft", "reward"]["b_value"] == pytest.approx((0.9 + 0.05 + 0.05) / 3)
    wins = {(w["judge"], w["first"], w["second"], w["dimension"]): w["win"]["value"] for w in data["win_rates"]}
    assert wins["eye", "sft", "base", None] == pytest.approx(1 / 3) and wins["critic", "rwl", "sft", None] > 0.3
    rows = {(row["suite"], row["metric"], row["system"]): row["value"] for row in data["rows"]}
    assert rows["eye", "eye/video_fidelity/Good", "rwl"] == pytest.approx(2 / 3)
    # Of the judge's 3 good and 6 bad clips the critic calls 3 and 4 so.
    assert rows["critic against eye", "overall/accuracy", "critic"] == pytest.approx(7 / 9)
    assert rows["critic against eye", "video_fidelity/balanced_accuracy", "critic"] == pytest.approx((1 + 4 / 6) / 2)
    assert data["calibration"]["critic against eye"] == [
        {"confidence": pytest.approx(0.8), "accuracy": pytest.approx(3 / 5), "n": 15}
    ]
    with pytest.raises(ValueError, match="judge/system=FOLDER"):
        build_report(ReportArguments(str(tmp_path / "r"), systems, ["eye/other=x"]))
