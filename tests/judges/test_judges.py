"""The released judges at tiny size, against numbers that the published code gave on the same inputs.

Golden numbers: KwaiVGI/VideoAlign at 219ab9d (`Qwen2VLRewardModelBT.forward` over PEFT's unmerged LoRA, its prompt, frames,
sizes), TIGER-AI-Lab/VideoScore2 (`ll_based_soft_score_normed`) and CodeGoat24/UnifiedReward at ed52f98 (frames, question and
message of its `point_score_APS_video_generation.py`, without JPEG, through stock processor and `generate`), run once outside
of the project.
"""

import hashlib
import json
import math

import numpy as np
import pytest
import torch

from lift_trl.alignment.score import score_videos
from lift_trl.cli import main as main_of_cli
from lift_trl.hub.artifact_cards import artifact_card
from lift_trl.judges import JUDGES, load_judge
from lift_trl.judges.arguments import SecondJudgeArguments
from lift_trl.judges.audit import audit
from lift_trl.judges.native import Scale, UnreadableAnswerError, fit, frames_at
from lift_trl.judges.second_judge import judge_systems
from lift_trl.judges.unified_reward import UnifiedReward, read_scores
from lift_trl.judges.video_reward import VideoReward
from lift_trl.judges.video_score2 import VideoScore2
from lift_trl.report.inputs import ReportArguments, build_report
from lift_trl.rubric import Label
from lift_trl.store.manifest import Artifact, Manifest, write_rows
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import Clip, write_video
from recipes.score import ScoreArguments, main
from tests.critic.rendered_clips import write_square
from tests.critic.tiny_vila import load_file, rename_key, wave
from tests.judges import tiny_judges as tiny


PROMPT = "A fox {runs}, 'fast'."
FRAMES = np.fromfunction(lambda f, y, x, c: (y * 5 + x * 2 + c * 40 + f * 17) % 256, (9, 64, 96, 3)).astype(np.uint8)

GOLDEN_SOFT = [3.5528648, 2.0513769, 3.3977248]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return tiny.write_video_reward(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def video_reward(released):
    return load_judge("video_reward", model=str(released))


@pytest.fixture(scope="module")
def chat_model(released):
    """Any chat VLM in the released layout: the base of the judge above."""
    return released.parent / "Qwen2-VL-2B-Instruct"


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    rows = [
        {"id": f"clip{i}", "video": write_square(folder / f"{i}.mp4", colour, num_frames=9 + i).name, "prompt": colour}
        for i, colour in enumerate(("red", "green", "blue"))
    ]
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def test_video_reward_equals_the_published_code(video_reward, monkeypatch):
    """On decoded frames, since no encoder keeps them: the reading of files is tested below."""
    clip = Clip(FRAMES[[0, 3, 5, 8]], np.array([0, 3, 5, 8]) / 8, 8.0)
    monkeypatch.setattr("lift_trl.judges.video_reward.frames_at", lambda *_: clip)
    expected = [-0.2521775960922241, -1.0266185998916626, 2.471299171447754]
    raw = video_reward.raw(b"", PROMPT)
    torch.testing.assert_close(raw, torch.tensor(expected), atol=2e-5, rtol=0)
    values = video_reward.judge(b"", PROMPT).values
    norm = [(tiny.NORM[f"{a}_mean"], tiny.NORM[f"{a}_std"]) for a in ("VQ", "MQ", "TA")]
    assert list(values.values()) == pytest.approx([(v - m) / s for v, (m, s) in zip(expected, norm)], abs=1e-4)


def test_a_head_of_one_output_is_read_at_every_token(tmp_path, monkeypatch):
    clip = Clip(FRAMES[[0, 3, 5, 8]], np.array([0, 3, 5, 8]) / 8, 8.0)
    monkeypatch.setattr("lift_trl.judges.video_reward.frames_at", lambda *_: clip)
    raw = load_judge("video_reward", model=str(tiny.write_video_reward(tmp_path, outputs=1))).raw(b"", PROMPT)
    expected = [-0.25217771530151367, -0.6958662271499634, -3.4196135997772217]
    torch.testing.assert_close(raw, torch.tensor(expected), atol=2e-5, rtol=0)


def test_questions_are_those_that_the_judges_were_trained_with(video_reward):
    asked = video_reward.question.replace("{prompt}", PROMPT)
    assert hashlib.sha256(asked.encode()).hexdigest()[:16] == "a9cbaf894c5d628a"


def test_frames_and_sizes_equal_the_published_code(tmp_path):
    golden = {
        (49, 8.0): [0, 4, 9, 13, 17, 22, 26, 31, 35, 39, 44, 48],
        (81, 16.0): [0, 9, 18, 27, 36, 44, 53, 62, 71, 80],
        (7, 8.0): [0, 2, 4, 6],
        (3, 8.0): [0, 2],
        (33, 30.0): [0, 11, 21, 32],
    }
    for (total, fps), indices in golden.items():
        path = tmp_path / f"{total}.mp4"
        write_video(path, np.zeros((total, 16, 32, 3), np.uint8), fps=fps)
        assert np.rint(frames_at(path, 2.0).times_s * fps).tolist() == indices
    for (height, width), most, size in (((480, 720), 200704, (364, 532)), ((64, 96), 130000, (280, 392))):
        clip = Clip(np.zeros((2, height, width, 3), np.uint8), np.arange(2.0), 8.0)
        sized = fit(clip, factor=28, min_pixels=128 * 28 * 28, max_pixels=most)
        assert sized.frames.shape == (2, *size, 3)
    write_video(tmp_path / "one.mp4", np.zeros((1, 16, 32, 3), np.uint8), fps=8)
    with pytest.raises(ValueError, match="has 1 frames, and this judge needs 2"):
        frames_at(tmp_path / "one.mp4", 2.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.rm_head.weight", None),
        (
            "base_model.model.model.layers.1.mlp.up_proj.base_layer.weight",
            "base_model.model.model.layers.1.mlp.up.weight",
        ),
        ("base_model.model.visual.merger.mlp.0.bias", None),
    ],
)
def test_a_missing_or_renamed_weight_is_refused(tmp_path, released, old, new):
    folder = tmp_path / "VideoReward"
    (folder / "checkpoint-7").mkdir(parents=True)
    weights = torch.load(released / "checkpoint-120/model.pth", weights_only=True)
    value = weights.pop(old)
    torch.save({**weights, **({new: value} if new else {})}, folder / "checkpoint-7/model.pth")
    (folder / "model_config.json").write_text((released / "model_config.json").read_text())
    with pytest.raises(ValueError, match="missing, left over"):
        load_judge("video_reward", model=str(folder))


def test_a_lora_without_its_other_half_is_refused(tmp_path, released):
    weights = torch.load(released / "checkpoint-120/model.pth", weights_only=True)
    weights.pop("base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight")
    folder = tmp_path / "VideoReward"
    (folder / "checkpoint-7").mkdir(parents=True)
    torch.save(weights, folder / "checkpoint-7/model.pth")
    (folder / "model_config.json").write_text((released / "model_config.json").read_text())
    with pytest.raises(ValueError, match="lora_A without lora_B"):
        load_judge("video_reward", model=str(folder))


@pytest.mark.parametrize("judge", ["unified_reward", "video_score2"])
def test_a_written_judge_with_a_missing_weight_is_refused(tmp_path, judge):
    model, processor = tiny.build_qwen2_vl()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    key = next(k for k in load_file(tmp_path / "model.safetensors") if k.endswith("layers.1.mlp.up_proj.weight"))
    rename_key(tmp_path / "model.safetensors", key, None)
    with pytest.raises(ValueError, match="not in the file"):
        load_judge(judge, model=str(tmp_path))


@pytest.mark.parametrize("judge", ["unified_reward", "video_score2"])
def test_an_answer_that_cannot_be_read_is_unscored(chat_model, clips, judge):
    """A random model writes noise."""
    loaded = load_judge(judge, model=str(chat_model))
    loaded.max_new_tokens = 6
    (score,) = loaded.score([clips / "0.mp4"], ["red"], with_reason=True)
    assert math.isnan(score.reward) and "answer" in score.unscored or "digits" in score.unscored
    assert score.columns() == {
        "reward": None, "expected_reward": None, "unscored": score.unscored, "critic": loaded.name,
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Alignment Score (1-5): 3\nPhysics Score (1-5): 4",
        "Alignment Score (1-5): 3\nPhysics Score (1-5): 4\nStyle Score (1-5): 6",
        "Alignment Score (1-5): 3\nAlignment Score (1-5): 2\nPhysics Score (1-5): 4\nStyle Score (1-5): 5",
        "Alignment Score (1-5): X\nPhysics Score (1-5): 4\nStyle Score (1-5): 5",
        "Alignment Score (1-5): 3 or 4\nPhysics Score (1-5): 4\nStyle Score (1-5): 5",
    ],
)
def test_unified_reward_takes_no_other_answer(answer):
    with pytest.raises(UnreadableAnswerError, match="is not once a number from 1 to 5"):
        read_scores(answer)


def test_unified_reward_shows_sixteen_frames_or_all(chat_model, tmp_path):
    judge = load_judge("unified_reward", model=str(chat_model))
    for total, indices in ((49, [int(i * 49 / 16) for i in range(16)]), (5, [0, 1, 2, 3, 4])):
        write_video(tmp_path / f"{total}.mp4", np.zeros((total, 16, 32, 3), np.uint8), fps=8)
        assert np.rint(judge.frames(tmp_path / f"{total}.mp4").times_s * 8).tolist() == indices


def test_unified_reward_asks_and_is_answered_as_published(chat_model, monkeypatch):
    """37 frames, of which it is shown 16; greedy, so that each of the twelve tokens rests on those before it."""
    frames = np.fromfunction(lambda f, y, x, c: (y * 5 + x * 2 + c * 40 + f * 17) % 256, (37, 64, 96, 3))
    clip = Clip(frames.astype(np.uint8), np.arange(37) / 8, 8.0)
    monkeypatch.setattr("lift_trl.judges.unified_reward.read_video", lambda _: clip)
    judge = load_judge("unified_reward", model=str(chat_model))
    judge.max_new_tokens = 12
    written = []
    monkeypatch.setattr(judge, "read", lambda *given: written.append(given) or {})
    judge.judge(b"", PROMPT)
    ((_, tokens, logits),) = written
    assert tokens == [57, 295, 253, 401, 44, 36, 262, 473, 495, 428, 428, 428]
    highest = logits[[0, 3, 7, 11]].max(dim=-1).values.tolist()
    assert highest == pytest.approx([4.02541, 3.27664, 2.87701, 3.48518], abs=2e-5)
    assert logits.mean(dim=-1)[:3].tolist() == pytest.approx([0.01368, -0.12815, -0.03898], abs=2e-5)


def test_video_score2_reads_soft_scores_as_published(chat_model):
    judge = load_judge("video_score2", model=str(chat_model))
    answer = (
        "I first thought visual quality: 1; text-to-video alignment: 1, physical/common-sense consistency: 1. No.\n"
        "Visual quality: 4; text-to-video alignment: 3, physical/common-sense consistency: 5"
    )
    tokens = judge.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    vocabulary = len(judge.processor.tokenizer)
    logits = wave(torch.Size([len(tokens), vocabulary]), 0.2, 3.0)
    logits[torch.arange(len(tokens)), tokens] = 3.5  # greedy
    read = judge.read(answer, tokens, logits)
    assert list(read) == list(VideoScore2.aspects)
    assert list(read.values()) == pytest.approx(GOLDEN_SOFT, abs=1e-5)
    for bad in ("visual quality: 4; text-to-video alignment: 3", answer.replace(": 5", ": 7"), answer[:-1] + "4.5"):
        if "4.5" in bad or "7" in bad:
            bad = bad.split("\n")[1]
        tokens = judge.processor.tokenizer(bad, add_special_tokens=False)["input_ids"]
        with pytest.raises(UnreadableAnswerError):
            judge.read(bad, tokens, logits)


def test_scales():
    assert [Scale.parse("linear:1:5").reward(v) for v in (0.5, 1, 2, 5, 9)] == [0, 0, 0.25, 1, 1]
    normal = Scale.parse("normal:1:2")
    assert [normal.reward(v) for v in (1, 3, -1)] == pytest.approx([0.5, 0.8413447, 0.1586553], abs=1e-6)
    for text in ("linear:5:1", "normal:0:0", "log:1:2", "linear:1", "linear:nan:5"):
        with pytest.raises(ValueError, match="scale"):
            Scale.parse(text)


def test_native_values_flow_from_the_clips_to_a_report(video_reward, released, clips, tmp_path):
    """Scored by the recipe after a kill, trained with, audited, and the second judge of two systems."""

    class Dying(VideoReward):
        left = 2

        def judge(self, video, prompt):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().judge(video, prompt)

    config = json.loads((released / "model_config.json").read_text())
    dying = Dying(video_reward.model, video_reward.processor, config=config, name="", scale=Scale("linear", -3, 3))
    dying.name = f"{video_reward.name.partition('+')[0]}+linear:-3:3"
    with pytest.raises(KeyboardInterrupt):
        score_videos(dying, clips, tmp_path / "scored", batch_size=1)
    before = Manifest(tmp_path / "scored").rows()
    main(
        ScoreArguments(
            str(clips), str(tmp_path / "scored"), judge="video_reward", critic=str(released), scale="linear:-3:3",
            with_reason=False, batch_size=1,
        )
    )  # fmt: skip
    rows = Manifest(tmp_path / "scored").rows()
    assert len(before) == 2 and [r for r in rows if r["id"] in {b["id"] for b in before}] == before and len(rows) == 3
    for row in rows:
        assert row["reward"] == pytest.approx(sum(min(1, max(0, (v + 3) / 6)) for v in row["aspects"].values()) / 3)
    assert Artifact.load(tmp_path / "scored").config["critic"].endswith("+linear:-3:3")
    rated = load_rated_videos(tmp_path / "scored")
    assert [v.reward() for v in rated] == [row["reward"] for row in rows] and all(v.labels is None for v in rated)
    assert [v.expected_reward for v in rated] == [
        v.reward() for v in rated
    ]  # the reward of judges without probabilities

    card = artifact_card(tmp_path / "scored", "me/scores")
    mean = sum(row["aspects"]["MQ"] for row in rows) / 3
    assert f"{mean:.3f}" in card and "behind the `+`" in card and Label.GOOD not in card

    systems = {"base": clips, "tuned": tmp_path / "scored"}
    judge = SecondJudgeArguments(judge="video_reward", judge_model=str(released)).load("cpu")
    entries = judge_systems(judge, systems, tmp_path / "judged")
    made = build_report(
        ReportArguments(str(tmp_path / "r"), [f"{n}={f}" for n, f in systems.items()], judges=entries, drift=False)
    )
    found = {(row.metric, row.system): row.value for row in made.rows if row.suite == "second judge"}
    values = [video_reward.judge(clips / f"{i}.mp4", c).values for i, c in enumerate(("red", "green", "blue"))]
    for aspect in VideoReward.aspects:
        mean = sum(v[aspect] for v in values) / 3
        assert found[f"second judge/{aspect}", "tuned"] == pytest.approx(mean, abs=1e-4)
    assert {rate.judge for rate in made.win_rates} >= {"second judge"}
    assert {c.name for c in audit(video_reward, [clips / "0.mp4", clips / "1.mp4"], ["red", "green"])} >= {
        "repeated_run"
    }


def test_audit_and_serve_take_other_weights_and_another_scale(released, clips, capsys, monkeypatch):
    """A scale on which every clip has the same reward: half of it."""
    given = [f"video_reward={released}", "--scale", "normal:0:1e9"]
    assert main_of_cli(["audit", given[0], str(clips), *given[1:]]) == 1
    found = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert found["spread"].startswith("0.0000") and found["swapped_captions"].startswith(("0.0000", "-0.0000"))
    started = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: started.append(app))
    assert main_of_cli(["serve", *given]) == 0
    assert len(started) == 1 and "+normal:0:1e+09 at http://127.0.0.1:8000" in capsys.readouterr().out


def test_what_a_judge_does_not_take_is_unscored_or_refused(video_reward, clips, tmp_path, capsys):
    texts = {"": "the caption is empty", "a <|video_pad|>": "holds '<|video_pad|>'", "a <|VQ_reward|>": "holds"}
    for caption, why in texts.items():
        assert why in video_reward.score([clips / "0.mp4"], [caption])[0].unscored
    assert "no such" in video_reward.score([tmp_path / "none.mp4"], ["red"])[0].unscored.lower()
    with pytest.raises(ValueError, match="judge='video_reword' is unknown; use one of video_reward"):
        load_judge("video_reword")
    with pytest.raises(ValueError, match="nothing to score with"):
        ScoreArguments("a", "b")
    with pytest.raises(ValueError, match="judge_model and judge_scale are of"):
        SecondJudgeArguments(judge="TIGER-Lab/VideoScore", judge_scale="linear:1:4").load("cpu")
    assert main_of_cli(["audit", "runs/critic", str(clips), "--scale", "linear:1:5"]) == 1
    assert (
        "scale='linear:1:5' is of the values of video_reward, unified_reward, video_score2" in capsys.readouterr().err
    )
    assert set(JUDGES.values()) == {judge.__name__ for judge in (VideoReward, UnifiedReward, VideoScore2)}
