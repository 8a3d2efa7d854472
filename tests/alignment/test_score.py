"""`score_videos`: what is written, what is never rewarded, and that a killed run is finished by another."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate import PartialState

from lift_trl.alignment.score import score_videos
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings
from lift_trl.records import CriticScore, Judgement, content_id
from lift_trl.rubric import REWARDS, Dimension, Label
from lift_trl.runtime import process_state
from lift_trl.store.manifest import METADATA_FILE, Artifact, read_rows, write_rows
from lift_trl.store.rated_videos import load_rated_videos
from tests.critic.rendered_clips import write_square
from tests.critic.tiny_models import build_vlm
from tests.processes import Job, recipe


class LengthJudge:
    """A judge that is no model: Good where the caption is long. It counts what it was asked, and may die."""

    def __init__(self, name="length", dies_after=math.inf):
        self.name, self.asked, self.dies_after = name, [], dies_after

    def score(self, videos, captions, *, with_reason=False):
        scores = []
        for video, caption in zip(videos, captions, strict=True):
            if len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(str(video))
            if not video.is_file():
                scores.append(CriticScore("", self.name, unscored="no such file"))
                continue
            label = Label.GOOD if len(caption) > 8 else Label.BAD
            reason = "because" if with_reason else ""
            scores.append(CriticScore("", self.name, tuple(Judgement(d, label, reason=reason) for d in Dimension)))
        return scores


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "clips"
    rows = []
    for number in range(5):
        write_square(source / f"{number}.mp4", "red", seed=number)
        rows.append({"id": f"clip{number}", "file_name": f"{number}.mp4", "prompt": "x" * (4 + 2 * number)})
    write_rows(source / METADATA_FILE, rows)
    return source


class SizeJudge:
    """Good where the clip's file has many bytes, wherever it lies."""

    name = "size"

    def score(self, videos, captions, *, with_reason=False):
        sizes = [len(video if isinstance(video, bytes) else video.read_bytes()) for video in videos]
        rates = [[Judgement(d, Label.GOOD if size > 9000 else Label.BAD) for d in Dimension] for size in sizes]
        return [CriticScore("", self.name, tuple(rated)) for rated in rates]


@pytest.mark.parametrize("form", ["published", "bytes in metadata", "paths in metadata"])
def test_clips_of_parquet_files_are_scored(folder, tmp_path, form):
    """A folder of Parquet as LiFT-HRA is published holds its clips; a metadata.parquet may, or names them beside it."""
    rows = list(read_rows(folder / METADATA_FILE))
    files = {row["id"]: folder / row["file_name"] for row in rows}
    files["clip3"].write_bytes(files["clip3"].read_bytes() + bytes(9000))  # a box that players pass over
    short = {name for name, file in files.items() if file.stat().st_size <= 9000}
    assert short == set(files) - {"clip3"}
    holds = form != "paths in metadata"
    videos = [
        {"bytes": files[row["id"]].read_bytes() if holds else None, "path": row["file_name"]} for row in rows
    ]  # fmt: skip
    table = [{"id": row["id"], "prompt": row["prompt"], "video": video} for row, video in zip(rows, videos)]
    source = folder if form == "paths in metadata" else tmp_path / "parquet"
    (folder / METADATA_FILE).unlink()
    name = "data/train-00000-of-00001.parquet" if form == "published" else "metadata.parquet"
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), source / name)
    scored = scored_rows(score_videos(SizeJudge(), str(source), tmp_path / "scored", batch_size=2))
    assert {name for name, row in scored.items() if row["reward"] > 0.5} == {"clip3"} and scored.keys() == files.keys()


def scored_rows(folder):
    return {row["id"]: row for row in read_rows(folder / METADATA_FILE)}


def test_rows_hold_labels_rewards_and_reasons_and_can_be_loaded(folder, tmp_path):
    out = score_videos(LengthJudge(), folder, tmp_path / "scored", with_reason=True, batch_size=2)
    rows = scored_rows(out)
    assert list(rows) == [f"clip{i}" for i in range(5)]
    assert [rows[f"clip{i}"]["reward"] for i in range(5)] == pytest.approx([0.05] * 3 + [0.9] * 2)
    assert rows["clip4"]["reasons"] == dict.fromkeys([d.value for d in Dimension], "because")
    videos = load_rated_videos(out)
    assert [video.id for video in videos] == list(rows)
    assert videos[4].labels == dict.fromkeys(Dimension, Label.GOOD)
    assert videos[0].video.samefile(folder / "0.mp4")
    artifact = Artifact.load(out)
    assert artifact.kind == "scored" and artifact.config["num_scored"] == 5 and artifact.config["num_unscored"] == 0


def test_what_cannot_be_scored_has_no_reward(folder, tmp_path):
    (folder / "2.mp4").unlink()
    out = score_videos(LengthJudge(), folder, tmp_path / "scored")
    row = scored_rows(out)["clip2"]
    assert row["reward"] is None and row["unscored"] == "no such file"
    assert not set(row) & {dimension.value for dimension in Dimension}
    assert Artifact.load(out).config["num_unscored"] == 1
    assert "NaN" not in (out / METADATA_FILE).read_text()


def test_real_clips_pass_without_a_score(folder, tmp_path):
    rows = [{**row, "is_real": row["id"] == "clip1"} for row in read_rows(folder / METADATA_FILE)]
    write_rows(folder / METADATA_FILE, rows)
    judge = LengthJudge()
    out = score_videos(judge, folder, tmp_path / "scored")
    assert len(judge.asked) == 4
    assert [video.is_real for video in load_rated_videos(out)] == [False, True, False, False, False]
    assert Artifact.load(out).config["num_scored"] == 4
    # A critic that is measured on rated real clips must score them.
    with pytest.raises(ValueError, match="score_real"):
        score_videos(judge, folder, out, score_real=True)
    every = score_videos(judge, folder, tmp_path / "every", score_real=True)
    assert scored_rows(every)["clip1"]["reward"] == pytest.approx(0.05)
    assert Artifact.load(every).config["num_scored"] == 5


def test_the_recipe_scores_a_folder(folder, tmp_path):
    """`recipes/score.py` as a user runs it; the artefact is what the library gives."""
    build_vlm("idefics3", save_directory=tmp_path / "critic")
    options = {"critic": tmp_path / "critic", "videos": folder, "output_dir": tmp_path / "scored", "batch_size": 3}
    printed = Job(tmp_path / "log", recipe, "score", **options, with_reason=False).finish()
    assert f"Scores are in {tmp_path / 'scored'}" in printed
    critic = LiFTCritic.from_pretrained(tmp_path / "critic")
    here = scored_rows(score_videos(critic, folder, tmp_path / "here", batch_size=3))
    rows = scored_rows(tmp_path / "scored")
    assert list(rows) == list(here) and all(row["unscored"] is None for row in rows.values())
    for name, row in rows.items():
        assert row["expected_reward"] == pytest.approx(here[name]["expected_reward"], abs=1e-4)
        assert row["critic"] == critic.name


def test_a_killed_run_is_finished_and_no_clip_scored_twice(folder, tmp_path):
    out = tmp_path / "scored"
    first = LengthJudge(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        score_videos(first, folder, out, batch_size=1)
    assert not (out / "artifact.yaml").exists()
    second = LengthJudge()
    score_videos(second, folder, out, batch_size=1)
    assert len(first.asked) == 3 and sorted(first.asked + second.asked) == sorted(
        str(folder / f"{i}.mp4") for i in range(5)
    )
    third = LengthJudge()
    score_videos(third, folder, out)
    assert third.asked == [] and len(scored_rows(out)) == 5


@pytest.mark.parametrize("earlier", [False, True], ids=["moved", "by an earlier lift_trl"])
def test_scores_go_on_with_the_same_weights_wherever_they_lie(folder, tmp_path, earlier):
    state = content_id("weights")
    out, first = tmp_path / "scored", LengthJudge(f"/old disk/critic@{state}", dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        score_videos(first, folder, out, batch_size=1)
    if earlier:  # it knew critics by their folders too
        part = out / ".parts" / "rank0.jsonl"
        write_rows(part, [{**row, "scoring": content_id(first.name, False)} for row in read_rows(part)])
    for name in (f"/old disk/critic@{content_id('other')}", f"critic@{state} in int8", "critic@v1", "critic"):
        with pytest.raises(ValueError, match="scores of another reward model"):
            score_videos(LengthJudge(name), folder, out, batch_size=1)
    again = LengthJudge(first.name if earlier else f"renamed@{state}")
    score_videos(again, folder, out, batch_size=1)
    assert len(again.asked) == 3


def test_scores_of_another_critic_are_not_taken_for_ones_own(folder, tmp_path):
    score_videos(LengthJudge(), folder, tmp_path / "scored")
    with pytest.raises(ValueError, match="another reward model"):
        score_videos(LengthJudge("other"), folder, tmp_path / "scored")
    with pytest.raises(ValueError, match="with_reason"):
        score_videos(LengthJudge(), folder, tmp_path / "scored", with_reason=True)


def test_a_repeated_id_is_refused(folder, tmp_path):
    rows = list(read_rows(folder / METADATA_FILE))
    write_rows(folder / METADATA_FILE, [*rows, {**rows[0], "file_name": "1.mp4"}])
    with pytest.raises(ValueError, match="clip0.*stands twice"):
        score_videos(LengthJudge(), folder, tmp_path / "scored")


def test_a_critic_scores_a_folder_as_it_scores_its_clips(folder, tmp_path):
    critic = LiFTCritic(*build_vlm("idefics3"), settings=CriticSettings(num_frames=4), name="tiny")
    (folder / "3.mp4").write_bytes(b"no video")
    rows = scored_rows(score_videos(critic, folder, tmp_path / "scored", batch_size=2))
    scores = critic.score([folder / f"{i}.mp4" for i in range(5)], ["x" * (4 + 2 * i) for i in range(5)])
    assert scores[3].unscored and rows["clip3"]["unscored"] == scores[3].unscored
    for number in (0, 1, 2, 4):
        row, score = rows[f"clip{number}"], scores[number]
        assert row["reward"] == score.reward == pytest.approx(sum(REWARDS[j.label] for j in score.judgements) / 3)
        for judgement in score.judgements:
            assert row["probs"][judgement.dimension] == pytest.approx(judgement.probs, abs=1e-4)
        assert row["expected_reward"] == pytest.approx(score.expected_reward, abs=1e-4)


def score_a_part(folder, out):
    state, judge = process_state(), LengthJudge()
    score_videos(judge, folder, out, batch_size=1, state=state)
    Path(out, f".asked{state.process_index}").write_text(json.dumps(judge.asked))
    state.destroy_process_group()


def test_two_processes_share_the_work(folder, tmp_path):
    """Two real processes of one gloo job, each scoring its part into one folder."""
    out = tmp_path / "scored"
    Job(tmp_path / "log", score_a_part, folder, out, num_processes=2).finish()
    asked = [json.loads((out / f".asked{rank}").read_text()) for rank in range(2)]
    assert [len(a) for a in asked] == [3, 2] and len(scored_rows(out)) == 5
    single = score_videos(LengthJudge(), folder, tmp_path / "single", state=PartialState(cpu=True))
    assert scored_rows(out) == scored_rows(single)
