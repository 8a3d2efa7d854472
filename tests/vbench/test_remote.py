"""The command lines that others run: asserted as text; the one for a terminal is run in test_commands.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lift_trl.vbench.remote import docker_commands, hf_jobs_commands
from lift_trl.vbench.run import VBenchJob


PENDING = {"temporal_flickering": "k1", "scene": "k2"}


@pytest.fixture
def job(tmp_path: Path) -> VBenchJob:
    return VBenchJob(tmp_path / "my videos", tmp_path / "info" / "full_info.json", tmp_path / "out", tuple(PENDING))


def test_docker(job):
    docker = docker_commands(job, PENDING, Path("/cache dir"))
    assert len(docker) == 2 and docker[0][:6] == ["docker", "run", "--rm", "--gpus", "all", "-e"]
    assert f"{job.videos.resolve()}:/videos:ro" in docker[0]
    assert "pip install -q vbench==0.1.5 torch==2.5.1 torchvision==0.20.1" in docker[0][-1]
    assert docker[0][-1].endswith(
        "python -I /worker.py --videos /videos --full_info /full_info.json --dimension temporal_flickering "
        "--output /output --mode vbench_standard --device cuda --key k1 --static_filter "
        "--weights raft_model/models/raft-things.pth"
    )


def test_hf_jobs_keep_systems_and_protocols_apart(job):
    flicker, scene, sync = hf_jobs_commands(job, PENDING, "me/vbench", "base/vbench")
    assert flicker[:5] == ["hf", "jobs", "run", "--flavor", "a10g-large"]
    assert "hf://buckets/me/vbench:/bucket:rw" in scene
    assert "--dimension scene --output /tmp/output" in scene[-1] and "--static_filter" not in scene[-1]
    assert scene[-1].endswith(
        "&& mkdir -p /bucket/output/base/vbench && cp /tmp/output/*_stamp.json /bucket/output/base/vbench "
        "&& cp /tmp/output/*_eval_results.json /bucket/output/base/vbench"
    )
    assert sync == ["hf", "buckets", "sync", "hf://buckets/me/vbench/output/base/vbench", str(job.output)]


def test_hf_accepts_the_options(job):
    """The client's own parser reads our options (nothing is submitted)."""
    hf = shutil.which("hf", path=str(Path(sys.executable).parent))
    command, *_, sync = hf_jobs_commands(job, PENDING, "me/vbench", "base/vbench")
    for words, wanted in ((command[1:3], {part for part in command[:-3] if part.startswith("-")}), (sync[1:3], set())):
        shown = subprocess.run(
            [hf, *words, "--help"], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
        )
        assert all(option in shown.stdout for option in wanted)
