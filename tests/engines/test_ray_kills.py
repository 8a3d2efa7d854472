"""Ten workers of Ray, killed and started at random on machines that come and go; and `accelerate launch` in turn."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest
from accelerate import PartialState

from lift_trl.alignment.sampling.generate import generate_videos, plan_videos, read_prompts
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import score_videos
from lift_trl.engines import EngineArguments
from lift_trl.store.manifest import METADATA_FILE, PARTS_DIR, write_rows
from tests.alignment.conftest import pipeline_dir  # noqa: F401  (fixture)
from tests.engines.mortal import PRIVATE, MortalJudge, PatientJudge, files_of, judged
from tests.structure.source import ROOT


pytestmark = pytest.mark.slow
NUM_WORKERS = 10


class Chaos:
    """
    Kills the worker that was last seen, or a machine for which another comes, in random order.

    In the main thread: Ray starts no machine in another.
    """

    def __init__(self, cluster, log, seed: int) -> None:
        self.cluster, self.log, self.random = cluster, log, random.Random(seed)
        self.machines = [cluster.add_node(num_cpus=1) for _ in range(3)]
        self.strikes = ["worker"] * 7 + ["machine"] * 3
        self.random.shuffle(self.strikes)
        self.killed = []

    def reign(self, run: Future) -> None:
        """Strikes as the work goes on, and where nothing has moved for ten seconds."""
        seen, struck = 0, time.monotonic()
        while self.strikes and not run.done():
            lines = judged(self.log) if self.log.is_file() else []
            if lines and (len(lines) >= seen + 3 or time.monotonic() > struck + 10):
                self.strike(int(lines[-1][0]))
                seen, struck = len(lines), time.monotonic()
            time.sleep(0.05)

    def strike(self, latest: int) -> None:
        if self.strikes[0] == "worker" and psutil.pid_exists(latest):
            os.kill(latest, signal.SIGKILL)
            self.killed.append(self.strikes.pop(0))
        elif "machine" in self.strikes:
            self.machines.append(self.cluster.add_node(num_cpus=1))
            self.cluster.remove_node(self.machines.pop(self.random.randrange(3)), allow_graceful=False)
            self.strikes.remove("machine")
            self.killed.append("machine")


@pytest.fixture
def cluster():
    """A head that computes nothing; machines are added to it."""
    os.environ |= PRIVATE
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_ten_workers_that_are_killed_and_started_at_random(cluster, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    rows = [{"id": f"c{i}", "file_name": f"{i}.mp4", "prompt": "x" * (4 + i % 9)} for i in range(90)]
    for row in rows:
        (clips / row["file_name"]).write_bytes(row["id"].encode())
    write_rows(clips / METADATA_FILE, rows)
    options = {"with_reason": True, "batch_size": 2}
    one = score_videos(MortalJudge(tmp_path / "one.log"), clips, tmp_path / "one", **options)
    chaos = Chaos(cluster, tmp_path / "log", seed=5)
    judge = PatientJudge(tmp_path / "log", seconds=0.2)
    workers = EngineArguments(engine="ray", num_workers=NUM_WORKERS).workers(PartialState(cpu=True))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(score_videos, judge.source(), clips, tmp_path / "ray", workers=workers, **options)
        chaos.reign(run)
        folder = run.result()
    assert files_of(folder) == files_of(one)
    assert len({process for process, _ in judged(tmp_path / "log")}) >= NUM_WORKERS
    assert sorted(chaos.killed) == ["machine"] * 3 + ["worker"] * 7


def sampling_workers() -> list[psutil.Process]:
    """Ray's processes that are at a task of ours, as their titles say."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.name().startswith("ray::_Worker.r")]


def test_workers_that_are_killed_while_they_sample(cluster, pipeline_dir, tmp_path):  # noqa: F811
    """Four of three that work at a time, each in the middle of its videos: of some the file is there, and no row."""
    cluster.add_node(num_cpus=3)
    videos = plan_videos(("a red circle moving left", "a blue square moving up"), videos_per_prompt=18, seed=5)
    sampling = Sampling(num_inference_steps=30, guidance_scale=3.0, batch_size=2)
    whole = generate_videos(pipeline_dir, videos, tmp_path / "whole", sampling=sampling)
    workers = EngineArguments(engine="ray", num_workers=3).workers(PartialState(cpu=True))
    out, killed, seen = tmp_path / "out", [], 0
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(generate_videos, pipeline_dir, videos, out, sampling=sampling, workers=workers)
        while not run.done() and len(killed) < 4:
            files = len(list(out.rglob("*.mp4")))
            busy = [process for process in sampling_workers() if process.pid not in killed]
            if files > seen and busy:
                busy[len(killed) % len(busy)].kill()
                killed.append(busy[len(killed) % len(busy)].pid)
                seen = files
            time.sleep(0.02)
        run.result()
    assert len(killed) == 4
    assert files_of(out) == files_of(whole)


def test_what_accelerate_began_ray_finishes_and_the_other_way_round(pipeline_dir, tmp_path):  # noqa: F811
    """The recipe as users start it, killed once its first videos are there."""
    (tmp_path / "prompts.txt").write_text("a red circle moving left\na blue square moving up\n")
    sampling = Sampling(num_inference_steps=40, guidance_scale=3.0, batch_size=2)
    videos = read_prompts(tmp_path / "prompts.txt", videos_per_prompt=8, seed=3)
    whole = generate_videos(pipeline_dir, videos, tmp_path / "whole", sampling=sampling)
    launch = ["-m", "accelerate.commands.launch", "--config_file", "recipes/configs/accelerate/cpu_2.yaml"]
    recipe = ["recipes/generate.py", f"--model_name_or_path={pipeline_dir}", f"--prompts={tmp_path / 'prompts.txt'}"]
    recipe += ["--videos_per_prompt=8", "--seed=3", "--batch_size=2", "--num_inference_steps=40", "--guidance_scale=3"]
    accelerate, ray = [*launch, *recipe], [*recipe, "--engine=ray", "--num_workers=2"]
    for number, (first, second) in enumerate(((accelerate, ray), (ray, accelerate))):
        out = tmp_path / str(number)
        environment = {**os.environ, **PRIVATE, "PYTHONPATH": str(ROOT)}
        begun = subprocess.Popen(
            [sys.executable, *first, f"--output_dir={out}"], cwd=ROOT, env=environment, start_new_session=True
        )
        while not any(path.stat().st_size for path in (out / PARTS_DIR).glob("*.jsonl")):
            assert begun.poll() is None
            time.sleep(0.05)
        family = [begun, *psutil.Process(begun.pid).children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family[1:], timeout=30)
        begun.wait()
        assert not (out / METADATA_FILE).exists()
        subprocess.run([sys.executable, *second, f"--output_dir={out}"], cwd=ROOT, env=environment, check=True)
        assert files_of(out) == files_of(whole)
