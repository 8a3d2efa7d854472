"""Ray's workers: each item once and byte for byte what one process makes, though workers die and come late."""

import os
import subprocess
import sys

import pytest
from accelerate import PartialState

from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import score_videos
from lift_trl.engines import Processes, find_workers
from lift_trl.store.manifest import METADATA_FILE, PARTS_DIR, read_rows, write_rows
from tests.alignment.conftest import pipeline_dir  # noqa: F401  (fixture)
from tests.engines.mortal import MortalJudge, MortalSource
from tests.structure.source import ROOT


FAST = Sampling(num_inference_steps=2, guidance_scale=1.0, batch_size=3)
PROMPTS = ("a red circle moving left", "a blue square moving up")


@pytest.fixture(scope="module")
def cluster():
    """Room for three workers on this machine."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    import ray

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def ray_workers(num_workers=None):
    return find_workers("ray", num_workers, PartialState(cpu=True))


@pytest.fixture(scope="module")
def videos():
    return plan_videos(PROMPTS, videos_per_prompt=4, seed=3)


@pytest.fixture(scope="module")
def whole(pipeline_dir, videos, tmp_path_factory):  # noqa: F811
    return generate_videos(pipeline_dir, videos, tmp_path_factory.mktemp("generated") / "whole", sampling=FAST)


@pytest.fixture
def clips(tmp_path):
    """Rows of nine clips; the judge looks at no pixel."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.mp4").write_bytes(b"clip %d" % number)
    rows = [{"id": f"c{i}", "file_name": f"{i}.mp4", "prompt": "x" * (4 + 2 * i)} for i in range(9)]
    write_rows(folder / METADATA_FILE, rows)
    return folder


def files_of(folder):
    """The bytes of everything but `artifact.yaml`, which names the command."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "artifact.yaml"
    }


def judged(log):
    """(process, clip) of each judgement."""
    return [tuple(line.split()) for line in log.read_text().splitlines()]


def test_videos_are_those_of_one_process_though_a_worker_died(cluster, whole, videos, pipeline_dir, tmp_path):  # noqa: F811
    source = MortalSource(pipeline_dir, tmp_path / "log")
    folder = generate_videos(source, videos, tmp_path / "ray", sampling=FAST, workers=ray_workers(2))
    assert files_of(folder) == files_of(whole)
    workers = (tmp_path / "log").read_text().split()
    assert len(set(workers)) == len(workers) >= 2 and str(os.getpid()) not in workers


def test_a_clip_that_was_judged_when_its_worker_died_has_one_row(cluster, clips, tmp_path):
    here = score_videos(MortalJudge(tmp_path / "here"), clips, tmp_path / "one", with_reason=True, batch_size=2)
    judge = MortalJudge(tmp_path / "log", dies_at="3.mp4")
    workers = ray_workers(3)
    folder = score_videos(judge.source(), clips, tmp_path / "ray", with_reason=True, batch_size=2, workers=workers)
    assert files_of(folder) == files_of(here)
    seen = [name for _, name in judged(tmp_path / "log")]
    assert sorted(set(seen)) == [f"{i}.mp4" for i in range(9)]
    assert seen.count("3.mp4") == 2 and len(seen) <= 9 + 2  # of the batch that was lost


def test_workers_without_room_do_not_hold_the_others_up(cluster, clips, tmp_path):
    judge = MortalJudge(tmp_path / "log", seconds=0.05)
    score_videos(judge.source(), clips, tmp_path / "ray", batch_size=1, workers=ray_workers(9))
    seen = judged(tmp_path / "log")
    assert len(seen) == 9 and len({process for process, _ in seen}) <= 9


def test_what_a_worker_raises_is_raised_and_what_was_done_stays(cluster, clips, tmp_path):
    class Refusing(MortalJudge):
        def score(self, videos, captions, *, with_reason=False):
            if "8.mp4" in [video.name for video in videos]:
                raise ValueError("the eighth is refused")
            return super().score(videos, captions, with_reason=with_reason)

    refusing = Refusing(tmp_path / "log").source()
    with pytest.raises(ValueError, match="the eighth is refused"):
        score_videos(refusing, clips, tmp_path / "out", batch_size=1, workers=ray_workers(1))
    assert len(list(read_rows(tmp_path / "out" / PARTS_DIR / "rank0.jsonl"))) == 8
    assert not (tmp_path / "out" / "artifact.yaml").exists()


def test_a_run_of_processes_is_finished_by_ray_and_the_other_way_round(cluster, clips, tmp_path):
    """Batches are those of the whole list: a clip is judged in the same company by whoever goes on."""

    class CutOff:
        """Processes whose run is cut off after some rows."""

        def __init__(self, inner, after):
            self.inner, self.after, self.device_type = inner, after, "cpu"

        def run(self, load, units, append):
            rows = []

            def cut(row):
                if len(rows) == self.after:
                    raise KeyboardInterrupt
                rows.append(row)
                append(row)

            self.inner.run(load, units, cut)

    whole_run = score_videos(MortalJudge(tmp_path / "0"), clips, tmp_path / "whole", with_reason=True, batch_size=2)
    processes = Processes(PartialState(cpu=True))
    for name, first, second in (("a", processes, ray_workers(2)), ("b", ray_workers(2), processes)):
        options = {"with_reason": True, "batch_size": 2}
        judge, out = MortalJudge(tmp_path / f"{name}.log"), tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            score_videos(judge.source(), clips, out, workers=CutOff(first, 3), **options)
        score_videos(judge.source(), clips, out, workers=second, **options)
        assert files_of(out) == files_of(whole_run)


def test_the_recipes_take_ray(cluster, whole, videos, pipeline_dir, tmp_path):  # noqa: F811
    """As a user runs it, on the cluster that is there."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    options = {
        "model_name_or_path": pipeline_dir,
        "prompts": tmp_path / "prompts.txt",
        "output_dir": tmp_path / "out",
        "videos_per_prompt": 4,
        "seed": 3,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "batch_size": 3,
        "engine": "ray",
        "num_workers": 1,
    }
    command = [sys.executable, "recipes/generate.py", *(f"--{name}={value}" for name, value in options.items())]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert files_of(tmp_path / "out") == files_of(whole)


def test_a_wrong_engine_is_refused_with_the_remedy(monkeypatch):
    state = PartialState(cpu=True)
    for engine, number, message in (
        ("slurm", None, "accelerate or ray"),
        ("accelerate", 2, "num_processes"),
        ("ray", 0, "num_workers=0"),
    ):
        with pytest.raises(ValueError, match=message):
            find_workers(engine, number, state)
    monkeypatch.setattr("lift_trl.engines.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lift-trl\[ray\]'"):
        find_workers("ray", None, state)
