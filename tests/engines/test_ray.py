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
NUM_CLIPS = 15
BY_TWO = {"with_reason": True, "batch_size": 2}


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


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Rows of clips; the judge looks at no pixel."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_CLIPS):
        (folder / f"{number}.mp4").write_bytes(b"clip %d" % number)
    rows = [{"id": f"c{i}", "file_name": f"{i}.mp4", "prompt": "x" * (4 + i)} for i in range(NUM_CLIPS)]
    write_rows(folder / METADATA_FILE, rows)
    return folder


@pytest.fixture(scope="module")
def scored(clips, tmp_path_factory):
    """By one process, without a fault."""
    folder = tmp_path_factory.mktemp("scored")
    return score_videos(MortalJudge(folder / "log"), clips, folder / "whole", **BY_TWO)


def test_videos_are_those_of_one_process(cluster, whole, videos, pipeline_dir, tmp_path):  # noqa: F811
    folder = generate_videos(pipeline_dir, videos, tmp_path / "ray", sampling=FAST, workers=ray_workers(1))
    assert files_of(folder) == files_of(whole)


def fails_and_goes_on(first, second, judge, clips, out) -> int:
    """The rows that a run by `first` leaves that fails at the eighth clip; `judge` and `second` finish it."""
    refusing = MortalJudge(out.with_suffix(".refused"), refuses="7.mp4").source()
    with pytest.raises(ValueError, match="7.mp4 is refused"):
        score_videos(refusing, clips, out, workers=first, **BY_TWO)
    kept = [row["id"] for row in read_rows(out / PARTS_DIR / "rank0.jsonl")]
    assert kept == [f"c{i}" for i in range(len(kept))] and not (out / "artifact.yaml").exists()
    score_videos(judge.source(), clips, out, workers=second, **BY_TWO)
    return len(kept)


def test_workers_finish_what_a_process_began_and_a_clip_that_was_judged_as_one_died_has_one_row(
    cluster, clips, scored, tmp_path
):
    """Room for two: the third that is asked for comes late, or not at all, and nobody waits for it."""
    judge = MortalJudge(tmp_path / "log", dies_at="11.mp4")
    kept = fails_and_goes_on(Processes(PartialState(cpu=True)), ray_workers(3), judge, clips, tmp_path / "out")
    assert kept == 6 and files_of(tmp_path / "out") == files_of(scored)
    seen = judged(tmp_path / "log")
    names = [name for _, name in seen]
    assert set(names) == {f"{i}.mp4" for i in range(6, NUM_CLIPS)} and str(os.getpid()) not in dict(seen)
    # the batch that was lost
    assert names.count("11.mp4") == names.count("10.mp4") == 2 and len(names) == NUM_CLIPS - 6 + 2


def test_a_process_finishes_what_workers_began(cluster, clips, scored, tmp_path):
    """Batches are those of the whole list, so a clip is judged in the same company by whoever goes on."""
    judge, processes = MortalJudge(tmp_path / "log"), Processes(PartialState(cpu=True))
    kept = fails_and_goes_on(ray_workers(1), processes, judge, clips, tmp_path / "out")
    # Of the second task, four batches in all, one had been scored.
    assert kept == 4 and files_of(tmp_path / "out") == files_of(scored)


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
