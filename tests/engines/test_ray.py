"""Ray's workers: each item once and byte for byte what one process makes, though workers die and come late."""

import os

import pytest
from accelerate import PartialState

from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.score import score_videos
from lift_trl.engines import EngineArguments, Processes
from lift_trl.store.manifest import METADATA_FILE, PARTS_DIR, read_rows, write_rows
from tests.alignment.conftest import pipeline_dir  # noqa: F401  (fixture)
from tests.engines.mortal import PRIVATE, MortalJudge, files_of, judged


FAST = Sampling(num_inference_steps=2, guidance_scale=1.0, batch_size=3)
PROMPTS = ("a red circle moving left", "a blue square moving up")


@pytest.fixture(scope="module")
def cluster():
    """Room for two workers on this machine."""
    os.environ |= PRIVATE
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def ray_workers(num_workers=None):
    return EngineArguments(engine="ray", num_workers=num_workers).workers(PartialState(cpu=True))


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


def test_videos_are_those_of_one_process(cluster, whole, videos, pipeline_dir, tmp_path):  # noqa: F811
    folder = generate_videos(pipeline_dir, videos, tmp_path / "ray", sampling=FAST, workers=ray_workers(1))
    assert files_of(folder) == files_of(whole)


def test_a_clip_that_was_judged_when_its_worker_died_has_one_row(cluster, clips, tmp_path):
    """Room for two: the third that is asked for comes late, or not at all, and nobody waits for it."""
    options = {"with_reason": True, "batch_size": 2}
    here = score_videos(MortalJudge(tmp_path / "here"), clips, tmp_path / "one", **options)
    judge = MortalJudge(tmp_path / "log", dies_at="3.mp4")
    folder = score_videos(judge.source(), clips, tmp_path / "ray", workers=ray_workers(3), **options)
    assert files_of(folder) == files_of(here)
    seen = judged(tmp_path / "log")
    names = [name for _, name in seen]
    assert set(names) == {f"{i}.mp4" for i in range(9)} and str(os.getpid()) not in dict(seen)
    assert names.count("3.mp4") == names.count("2.mp4") == 2 and len(names) == 9 + 2  # the batch that was lost


def test_a_run_that_fails_keeps_its_rows_and_the_other_engine_finishes_it(cluster, clips, tmp_path):
    """Batches are those of the whole list, so a clip is judged in the same company by whoever goes on."""
    options = {"with_reason": True, "batch_size": 2}
    whole = score_videos(MortalJudge(tmp_path / "whole.log"), clips, tmp_path / "whole", **options)
    processes = Processes(PartialState(cpu=True))
    for name, first, second in (("a", processes, ray_workers(1)), ("b", ray_workers(1), processes)):
        out = tmp_path / name
        refusing = MortalJudge(tmp_path / "log", refuses="7.mp4").source()
        with pytest.raises(ValueError, match="7.mp4 is refused"):
            score_videos(refusing, clips, out, workers=first, **options)
        kept = [row["id"] for row in read_rows(out / PARTS_DIR / "rank0.jsonl")]
        # Of Ray's second task, three batches in all, one had been scored.
        assert kept == [f"c{i}" for i in range(6 if first is processes else 4)]
        assert not (out / "artifact.yaml").exists()
        score_videos(MortalJudge(tmp_path / "log").source(), clips, out, workers=second, **options)
        assert files_of(out) == files_of(whole)


def test_a_wrong_engine_is_refused_with_the_remedy(monkeypatch):
    state = PartialState(cpu=True)
    for engine, number, message in (
        ("slurm", None, "accelerate or ray"),
        ("accelerate", 2, "num_processes"),
        ("ray", 0, "num_workers=0"),
    ):
        with pytest.raises(ValueError, match=message):
            EngineArguments(engine=engine, num_workers=number).workers(state)
    monkeypatch.setattr("lift_trl.engines.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lift-trl\[ray\]'"):
        EngineArguments(engine="ray").workers(state)
