"""Our runner around a stand-in for the package `vbench` (its real code needs another environment), and the real one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lift_trl.evaluation.vbench_env import (
    MARKER,
    REQUIREMENTS,
    VBenchEnvironment,
    check_environment,
    fetch_weights,
    make_environment,
    needed_weights,
    sha256,
)
from lift_trl.evaluation.vbench_eval import DIMENSIONS, STATIC_FILTER_WEIGHTS, SUBSETS, WeightFile
from lift_trl.evaluation.vbench_plan import link_videos, make_plan, write_full_info
from lift_trl.evaluation.vbench_results import read_results
from lift_trl.evaluation.vbench_run import VBenchJob, docker_commands, hf_jobs_commands, run_vbench
from lift_trl.evaluation.vbench_score import vbench_rows
from lift_trl.store.video_io import read_video


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
        time.sleep(float(os.environ.get("STAND_IN_SLEEP", "0")))
        paths = [os.path.join(videos_path, name) for name in sorted(os.listdir(videos_path))]
        rows = [{"video_path": path, "video_results": os.path.getsize(path) / 1e6} for path in paths]
        score = sum(row["video_results"] for row in rows) / len(rows)
        json.dump(json.load(open(self.full_info)), open(os.path.join(self.output, name + "_full_info.json"), "w"))
        json.dump({dimension_list[0]: [score, rows]}, open(os.path.join(self.output, name + "_eval_results.json"), "w"))
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "vbench").mkdir(parents=True)
    (checkout / "vbench" / "__init__.py").write_text(STAND_IN)
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    cache = tmp_path / "cache"
    for weight in needed_weights(["human_action", "scene"]):
        (cache / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (cache / weight.path).write_bytes(b"weights")
    return VBenchEnvironment(Path(sys.executable), cache, checkout)


@pytest.fixture
def job(suite, tmp_path, make_clip):
    plan = make_plan(suite, samples=1, flicker_samples=1)
    for video in plan.videos:
        make_clip(tmp_path / "clips" / video.file_name, seed=video.seed % 1000)
    link_videos(plan, tmp_path / "clips", tmp_path / "videos")
    write_full_info(plan, tmp_path / "info.json")
    dimensions = ("temporal_flickering", "human_action", "aesthetic_quality", "scene")
    return VBenchJob(
        tmp_path / "videos", tmp_path / "info.json", tmp_path / "out", dimensions, device="cpu", static_filter=False
    )


def calls(tmp_path):
    return (tmp_path / "calls").read_text().split()


def test_one_failure_loses_nothing_and_finished_ones_are_kept(job, environment, tmp_path):
    runs = {run.dimension: run for run in run_vbench(job, environment)}
    assert {name: run.status for name, run in runs.items()} == {
        "temporal_flickering": "done", "human_action": "failed", "aesthetic_quality": "not ready", "scene": "done",
    }  # fmt: skip
    assert "ZeroDivisionError: no clip found" in runs["human_action"].message
    assert "sa_0_4_vit_l_14_linear.pth is missing; fetch https://" in runs["aesthetic_quality"].message
    assert sorted(path.name for path in job.output.glob("*_eval_results.json")) == [
        "scene_eval_results.json", "temporal_flickering_eval_results.json",
    ]  # fmt: skip
    stamp = json.loads((job.output / "scene_stamp.json").read_text())
    assert stamp["vbench"] == "checkout" and stamp["torch"].startswith("2.")
    assert json.loads((job.output / "run.json").read_text())["protocol"] == "vbench"

    first = (job.output / "scene_eval_results.json").read_bytes()
    run_vbench(job, environment)
    # The failed one is tried again, the finished ones are not.
    assert calls(tmp_path) == ["temporal_flickering", "human_action", "scene", "human_action"]
    assert (job.output / "scene_eval_results.json").read_bytes() == first


RESUMABLE = """
import sys
from pathlib import Path
from lift_trl.evaluation.vbench_env import VBenchEnvironment
from lift_trl.evaluation.vbench_run import VBenchJob, run_vbench
videos, info, output, cache, checkout = map(Path, sys.argv[1:])
job = VBenchJob(videos, info, output, ("temporal_flickering", "scene"), device="cpu", static_filter=False)
run_vbench(job, VBenchEnvironment(Path(sys.executable), cache, checkout))
"""


def test_a_killed_evaluation_is_resumed_to_the_same_result(job, environment, tmp_path):
    def start(output, sleep):
        arguments = [job.videos, job.full_info, output, environment.cache, environment.checkout]
        command = [sys.executable, "-c", RESUMABLE, *map(str, arguments)]
        return subprocess.Popen(command, env={**os.environ, "STAND_IN_SLEEP": sleep}, start_new_session=True)

    killed = start(tmp_path / "killed", "30")
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("*_eval_results.json"))
    for output in ("killed", "whole"):
        assert start(tmp_path / output, "0").wait() == 0
    rows = [vbench_rows(read_results(tmp_path / output), "x") for output in ("killed", "whole")]
    assert rows[0] == rows[1] and len(rows[0]) == 2


def test_custom_input_refuses_what_needs_vbenchs_prompts(job):
    with pytest.raises(ValueError, match="scene need VBench's own prompts"):
        VBenchJob(job.videos, job.full_info, job.output, job.dimensions, protocol="vbench-custom")


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
    assert weights == expected and len(weights) == 18
    assert {p.where for p in problems if "detectron2" in p.message} == set(DIMENSIONS) - set(SUBSETS["no-detectron"])
    assert any(p.kind == "gpu" and p.where == "temporal_flickering" and p.fatal for p in problems)
    # Nothing fatal for what is complete.
    assert not [p for p in check_environment(environment, ("human_action", "temporal_flickering"), found) if p.fatal]
    bare = VBenchEnvironment(environment.python, environment.cache)
    assert [p.where for p in check_environment(bare, ("scene",), found, long=True) if p.fatal] == ["vbench2_beta_long"]
    (missing,) = check_environment(bare, ("scene",), {**found, "vbench": None})
    assert "pip install vbench==0.1.5" in missing.message


def test_weights_are_fetched_whole_and_hashed(tmp_path, monkeypatch):
    import zipfile

    served = tmp_path / "raft.zip"
    with zipfile.ZipFile(served, "w") as archive:
        archive.writestr("models/raft-small.pth", b"other")
        archive.writestr("models/raft-things.pth", b"raft")
    musiq = tmp_path / "musiq.pth"
    musiq.write_bytes(b"musiq")
    wanted = {
        WeightFile("raft_model/models/raft-things.pth", served.as_uri()): ("dynamic_degree",),
        WeightFile("pyiqa_model/musiq.pth", musiq.as_uri(), sha256(musiq)[:8]): ("imaging_quality",),
    }
    monkeypatch.setattr("lift_trl.evaluation.vbench_env.needed_weights", lambda *args, **kwargs: wanted)
    hashes = fetch_weights(("dynamic_degree", "imaging_quality"), tmp_path / "cache")
    assert (tmp_path / "cache" / "raft_model/models/raft-things.pth").read_bytes() == b"raft"
    assert hashes["pyiqa_model/musiq.pth"] == sha256(musiq)
    (tmp_path / "cache" / "pyiqa_model/musiq.pth").write_bytes(b"truncat")
    with pytest.raises(ValueError, match="not the published file"):
        fetch_weights(("imaging_quality",), tmp_path / "cache")


def test_flickering_needs_raft_only_when_filtered():
    assert needed_weights(["temporal_flickering"]) == {}
    assert tuple(needed_weights(["temporal_flickering"], static_filter=True)) == STATIC_FILTER_WEIGHTS


def test_a_failed_installation_says_why_and_leaves_no_marker(tmp_path):
    with pytest.raises(RuntimeError, match="no-such-distribution-of-lift"):
        make_environment(tmp_path / "env", requirements=("--no-index", "no-such-distribution-of-lift"))
    assert not (tmp_path / "env" / MARKER).exists()


def test_container_command_lines(job):
    """What a user runs elsewhere; this project has run neither."""
    filtered = VBenchJob(job.videos, job.full_info, job.output, ("temporal_flickering", "scene"))
    docker = docker_commands(filtered, Path("/cache dir"))
    assert len(docker) == 2 and docker[0][:6] == ["docker", "run", "--rm", "--gpus", "all", "-e"]
    assert f"{job.videos.resolve()}:/videos:ro" in docker[0]
    assert "pip install -q vbench==0.1.5 torch==2.5.1 torchvision==0.20.1" in docker[0][-1]
    assert docker[0][-1].endswith(
        "python -I /worker.py --videos /videos --full_info /full_info.json --dimension temporal_flickering "
        "--output /output --mode vbench_standard --device cuda --static_filter"
    )
    jobs = hf_jobs_commands(filtered, "me/vbench")
    assert jobs[1][:5] == ["hf", "jobs", "run", "--flavor", "a10g-large"]
    assert "hf://buckets/me/vbench:/bucket:rw" in jobs[1]
    assert "--dimension scene --output /bucket/output" in jobs[1][-1] and "--static_filter" not in jobs[1][-1]


def test_hf_accepts_the_job_options(job):
    """The client's own parser reads our options (nothing is submitted)."""
    hf = shutil.which("hf", path=str(Path(sys.executable).parent))
    listed = subprocess.run(
        [hf, "jobs", "run", "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    ).stdout
    command = hf_jobs_commands(job, "me/vbench")[0]
    for option in {part for part in command[:-3] if part.startswith("-")}:
        assert option in listed, option


@pytest.mark.slow
@pytest.mark.real
def test_the_real_vbench_measures_flickering_as_its_formula_says(real_data, tmp_path):
    """Installs vbench 0.1.5 with its pins (about 6 GB, minutes) unless LIFT_TRL_VBENCH_ENV names such an environment."""
    folder = Path(os.environ.get("LIFT_TRL_VBENCH_ENV") or tmp_path / "env")
    ready = (folder / "bin" / "python").exists()
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

    (result,) = read_results(tmp_path / "out", protocol="vbench-custom").values()
    by_hand = {}
    for clip in clips:
        frames = read_video(clip).frames.astype(np.float64)
        by_hand[clip.stem] = (255 - np.abs(np.diff(frames, axis=0)).mean((1, 2, 3)).mean()) / 255
    assert len(result.videos) == len(clips) == 10
    # "base-1" reads as sample 1 of the prompt "base". VBench decodes by OpenCV, we by PyAV: the colours differ by rounding.
    measured = {f"{video.prompt_en}-{video.sample}": video.value for video in result.videos}
    assert measured == pytest.approx(by_hand, abs=5e-4)
    assert result.reported == pytest.approx(np.mean(list(by_hand.values())), abs=2e-4)
