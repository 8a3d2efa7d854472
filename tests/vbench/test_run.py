"""Our runner around a stand-in for the package `vbench` (its real code needs another environment), and the real one."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lift_trl.store.video_io import read_video
from lift_trl.vbench.env import (
    LONG_REMEDY,
    PYTHONS,
    REQUIREMENTS,
    VBenchEnvironment,
    check_environment,
    make_environment,
    needed_weights,
)
from lift_trl.vbench.plan import link_videos, make_plan, write_full_info
from lift_trl.vbench.results import load_results
from lift_trl.vbench.run import VBenchJob, pending_dimensions, run_vbench
from lift_trl.vbench.suite import DIMENSIONS, SUBSETS


# A package with the interface and the output files of vbench 0.1.5. It "measures" the size of each file.
STAND_IN = """
import json, os, time
CALLS = os.environ["STAND_IN_CALLS"]
class VBench:
    def __init__(self, device, full_info, output):
        self.full_info, self.output = full_info, output
    def evaluate(self, videos_path, name, dimension_list, local, mode, **kwargs):
        with open(CALLS, "a") as file:
            file.write(dimension_list[0] + "\\n")
        if dimension_list == ["human_action"]:
            raise ZeroDivisionError("no clip found")
        if dimension_list == [os.environ.get("STAND_IN_SLOW")]:
            time.sleep(60)
        paths = [os.path.join(videos_path, name) for name in sorted(os.listdir(videos_path))]
        rows = [{"video_path": path, "video_results": os.path.getsize(path) / 1e6} for path in paths]
        score = sum(row["video_results"] for row in rows) / len(rows)
        if os.environ.get("STAND_IN_NAN") == name:
            rows[0]["video_results"] = float("nan")
        json.dump(json.load(open(self.full_info)), open(os.path.join(self.output, name + "_full_info.json"), "w"))
        json.dump({dimension_list[0]: [score, rows]}, open(os.path.join(self.output, name + "_eval_results.json"), "w"))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One for all tests, since looking into it imports torch."""
    root = tmp_path_factory.mktemp("environment")
    checkout, cache = root / "checkout", root / "cache"
    (checkout / "vbench").mkdir(parents=True)
    (checkout / "vbench" / "__init__.py").write_text(STAND_IN)
    for weight in needed_weights(["human_action", "overall_consistency"]):
        (cache / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (cache / weight.path).write_bytes(b"weights")
    return VBenchEnvironment(Path(sys.executable), cache, checkout)


@pytest.fixture
def job(suite, tmp_path, make_clip, monkeypatch):
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    plan = make_plan(suite, samples=1, flicker_samples=1)
    for video in plan.videos:
        make_clip(tmp_path / "clips" / video.file_name, seed=video.seed % 1000)
    link_videos(plan, tmp_path / "clips", tmp_path / "videos")
    write_full_info(plan, tmp_path / "info.json")
    dimensions = ("temporal_flickering", "human_action", "aesthetic_quality", "overall_consistency")
    return VBenchJob(
        tmp_path / "videos", tmp_path / "info.json", tmp_path / "out", dimensions, device="cpu", static_filter=False
    )


def calls(tmp_path):
    return (tmp_path / "calls").read_text().split()


def test_one_failure_loses_nothing_and_finished_ones_are_kept(job, environment, tmp_path):
    runs = {run.dimension: run for run in run_vbench(job, environment)}
    assert {name: run.status for name, run in runs.items()} == {
        "temporal_flickering": "done", "human_action": "failed", "aesthetic_quality": "not ready",
        "overall_consistency": "done",
    }  # fmt: skip
    assert "ZeroDivisionError: no clip found" in runs["human_action"].message
    assert "sa_0_4_vit_l_14_linear.pth is missing; fetch https://" in runs["aesthetic_quality"].message
    assert sorted(path.name for path in job.output.glob("*_eval_results.json")) == [
        "overall_consistency_eval_results.json", "temporal_flickering_eval_results.json",
    ]  # fmt: skip
    run = json.loads((job.output / "run.json").read_text())
    assert run["protocol"] == "vbench" and run["stamps"]["vbench"] == "checkout" and run["stamps"]["torch"][:2] == "2."
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    assert f"ViCLIP/ViClip-InternVid-10M-FLT.pth {digest}" in run["stamps"]["weights_sha256"]

    first = (job.output / "overall_consistency_eval_results.json").read_bytes()
    again = {run.dimension: run for run in run_vbench(job, environment)}
    # The failed one is tried again, the finished ones are not.
    assert calls(tmp_path) == ["temporal_flickering", "human_action", "overall_consistency", "human_action"]
    assert again["overall_consistency"].status == "done"
    assert (job.output / "overall_consistency_eval_results.json").read_bytes() == first
    assert json.loads((job.output / "run.json").read_text())["stamps"] == run["stamps"]


def test_a_result_of_other_clips_or_settings_is_not_taken_for_this_one(job, environment, tmp_path, make_clip):
    job = replace(job, dimensions=("temporal_flickering", "overall_consistency"))
    run_vbench(job, environment)
    result = job.output / "temporal_flickering_eval_results.json"
    before = json.loads(result.read_text())
    # Another clip under the same name; only the dimension that reads it is measured again.
    make_clip(tmp_path / "new.mp4", seed=77, num_frames=12)
    (tmp_path / "new.mp4").replace(job.videos / "a still lake-0.mp4")
    run_vbench(job, environment)
    assert calls(tmp_path) == ["temporal_flickering", "overall_consistency", "temporal_flickering"]
    assert json.loads(result.read_text())["temporal_flickering"][0] != before["temporal_flickering"][0]
    assert json.loads((job.output / "stale" / result.name).read_text()) == before
    # Filtered flickering is another figure, and needs a GPU.
    (filtered, kept) = run_vbench(replace(job, static_filter=True), environment)
    assert (filtered.status, kept.status) == ("not ready", "done") and not result.exists()
    # Other rows of a prompt are other prompts: VBench-Long would cut its clips to another length.
    rows = json.loads(job.full_info.read_text())
    job.full_info.write_text(json.dumps([{**row, "auxiliary_info": {}} for row in rows]))
    assert set(pending_dimensions(job)) == {"temporal_flickering", "overall_consistency"}


def test_a_result_without_a_figure_has_failed(job, environment, monkeypatch):
    monkeypatch.setenv("STAND_IN_NAN", "temporal_flickering")
    (run,) = run_vbench(replace(job, dimensions=("temporal_flickering",)), environment)
    assert run.status == "failed" and "is nan, no number. Run it again." in run.message
    assert not (job.output / "temporal_flickering_eval_results.json").exists()


# Like VBench-Long, it trusts the clips that it finds split, and reads the ending from the first name listed.
STAND_IN_LONG = """
import json, os
class VBenchLong:
    def __init__(self, device, full_info, output):
        self.output = output
    def evaluate(self, videos_path, name, **kwargs):
        split = os.path.join(videos_path, "split_clip")
        if not os.path.isdir(split):
            os.mkdir(split)
            if os.environ.get("STAND_IN_DIES"):
                os._exit(9)
            open(os.path.join(split, "whole"), "w").close()
        assert os.listdir(videos_path)[0].endswith(".mp4"), "ending of all clips"
        names = [n for n in os.listdir(videos_path) if n.endswith(".mp4")]
        rows = [{"video_path": os.path.join(videos_path, n), "video_results": len(os.listdir(split))} for n in names]
        json.dump({name: [1.0, [], rows]}, open(os.path.join(self.output, name + "_eval_results.json"), "w"))
"""


def test_vbench_long_starts_afresh_after_a_kill(job, environment, tmp_path, monkeypatch):
    (environment.checkout / "vbench2_beta_long").mkdir()
    (environment.checkout / "vbench2_beta_long" / "__init__.py").write_text(STAND_IN_LONG)
    job = replace(job, protocol="vbench-long", dimensions=("overall_consistency",))
    (job.videos / ".DS_Store").write_text("")
    command = environment.worker(*job.options("overall_consistency", "key"))
    job.output.mkdir()
    monkeypatch.setenv("STAND_IN_DIES", "1")
    assert subprocess.run(command, env=environment.variables()).returncode == 9
    monkeypatch.delenv("STAND_IN_DIES")
    assert subprocess.run(command, env=environment.variables()).returncode == 0
    (result,) = load_results(job.output, protocol="vbench-long")[0].values()
    assert [video.value for video in result.videos] == [1.0, 1.0, 1.0]  # the split was not half-made
    assert {v.prompt_en for v in result.videos} == {
        "A fantasy landscape",
        "a fantasy landscape",
        "the bund, oil painting",
    }
    assert not [path for path in job.videos.iterdir() if path.is_dir()]


def test_the_preflight_of_vbench_long_names_its_packages(environment):
    found = environment.probe()
    assert {"scenedetect", "moviepy", "dreamsim", "dinov2"} <= set(found)
    complete = {
        "scenedetect": "0.6.4",
        "moviepy": "1.0.3",
        "torchvision": "0.20.1+cu121",
        "dreamsim": "0.2.1",
        "dinov2": True,
    }
    names = ("human_action", "subject_consistency")

    def missing(environment=environment, **changed):
        problems = check_environment(environment, names, {**found, **complete, **changed}, long=True)
        return [(p.where, p.message, p.fatal) for p in problems if p.kind in ("package", "hub")]

    assert missing() == []
    (old,) = missing(moviepy="2.1.2")
    assert old == ("vbench2_beta_long", f"needs moviepy older than 2.0, found 2.1.2; {LONG_REMEDY}", True)
    (new,) = missing(torchvision="0.29.1")
    assert new[1].startswith("needs torchvision older than 0.26, found 0.29.1; pip install")
    (absent,) = missing(scenedetect=None)
    assert absent[1].startswith("needs scenedetect, which is not installed") and absent[2]
    assert [where for where, _, _ in missing(dreamsim=None)] == ["subject_consistency"]
    (dino,) = missing(dinov2=False)
    assert dino[0] == "subject_consistency" and "torch.hub" in dino[1] and not dino[2]
    (checkout,) = missing(VBenchEnvironment(environment.python, environment.cache))
    assert "needs a git checkout; give vbench_checkout" in checkout[1]


def test_custom_input_refuses_what_needs_vbenchs_prompts(job):
    with pytest.raises(ValueError, match="scene need VBench's own prompts"):
        replace(job, dimensions=("scene", "temporal_style"), protocol="vbench-custom")


def test_the_preflight_names_exactly_what_is_missing(environment):
    found = environment.probe()
    problems = check_environment(environment, tuple(DIMENSIONS), found, static_filter=True)
    weights = {(p.where, p.message.split(" is missing")[0]) for p in problems if p.kind == "weights"}
    expected = {
        (name, str(environment.cache / weight.path))
        for weight, names in needed_weights(tuple(DIMENSIONS), static_filter=True).items()
        for name in names
        if not (environment.cache / weight.path).exists()
    }
    assert weights == expected and len(weights) == 15
    assert {p.where for p in problems if "detectron2" in p.message} == set(DIMENSIONS) - set(SUBSETS["no-detectron"])
    assert any(p.kind == "gpu" and p.where == "temporal_flickering" and p.fatal for p in problems)
    # Nothing fatal for what is complete.
    assert not [p for p in check_environment(environment, ("human_action", "temporal_flickering"), found) if p.fatal]
    bare = VBenchEnvironment(environment.python, environment.cache)
    (missing,) = check_environment(bare, ("scene",), {**found, "vbench": None})
    assert "pip install vbench==0.1.5" in missing.message


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(1800)  # an installation of 6 GB
def test_the_real_vbench_measures_flickering_as_its_formula_says(real_data, tmp_path):
    """Installs vbench 0.1.5 with its pins (about 6 GB, minutes) unless LIFT_TRL_VBENCH_ENV names such an environment."""
    folder = Path(os.environ.get("LIFT_TRL_VBENCH_ENV") or tmp_path / "env")
    ready = (folder / "bin" / "python").exists()
    if not ready and not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        pytest.skip(
            "vbench 0.1.5 has no wheels for this Python: set LIFT_TRL_VBENCH_ENV to an environment that has it"
        )
    python = folder / "bin" / "python" if ready else make_environment(folder, requirements=REQUIREMENTS)
    environment = VBenchEnvironment(python, tmp_path / "cache")
    stamp = environment.probe()
    assert stamp["vbench"] == "0.1.5" and stamp["numpy"].startswith("1.26") and stamp["transformers"] == "4.33.2"

    clips = sorted((real_data / "clips").glob("*.mp4"))
    (tmp_path / "videos").mkdir()
    for clip in clips:
        shutil.copy(clip, tmp_path / "videos")
    names = SUBSETS["custom6"]
    job = VBenchJob(
        tmp_path / "videos",
        Path(stamp["vbench_folder"]) / "VBench_full_info.json",
        tmp_path / "out",
        ("temporal_flickering", *names),
        protocol="vbench-custom",
        device="cpu",
        static_filter=False,
    )
    runs = {run.dimension: run for run in run_vbench(job, environment)}
    assert runs["temporal_flickering"].status == "done", runs["temporal_flickering"].message
    for name in names:
        missing = {str(environment.cache / weight.path) for weight in DIMENSIONS[name].weights}
        assert runs[name].status == "not ready"
        assert all(f"{path} is missing; fetch " in runs[name].message for path in missing)

    (result,) = load_results(tmp_path / "out", protocol="vbench-custom")[0].values()
    by_hand = {}
    for clip in clips:
        frames = read_video(clip).frames.astype(np.float64)
        by_hand[clip.stem] = (255 - np.abs(np.diff(frames, axis=0)).mean((1, 2, 3)).mean()) / 255
    assert len(result.videos) == len(clips)
    # "base-1" reads as sample 1 of the prompt "base". VBench decodes by OpenCV, we by PyAV: the colours differ by rounding.
    measured = {f"{video.prompt_en}-{video.sample}": video.value for video in result.videos}
    assert measured == pytest.approx(by_hand, abs=5e-4)
    assert result.reported == pytest.approx(np.mean(list(by_hand.values())), abs=2e-4)
