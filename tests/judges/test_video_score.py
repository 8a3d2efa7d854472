import math
import shutil

import pytest
import torch

from lift_trl.judges.video_score import Idefics2ForVideoRegression, RegressionJudge, to_label
from lift_trl.rubric import Dimension, Label
from lift_trl.store.weights import weights_revision


def test_weights_have_the_published_names(judge_checkpoint):
    from safetensors import safe_open

    with safe_open(judge_checkpoint / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "score.weight" in names
    assert {name.split(".")[1] for name in names - {"score.weight"}} == {"vision_model", "connector", "text_model"}


def test_scores_follow_the_head(tiny_judge, tmp_path, make_clip):
    video = make_clip(tmp_path / "a.mp4", size=28)
    before = list(tiny_judge.judge(video, "a b c").values.values())
    assert len(before) == 5 and all(map(math.isfinite, before))
    with torch.no_grad():
        tiny_judge.model.score.weight *= 2
    after = list(tiny_judge.judge(video, "a b c").values.values())
    assert after == pytest.approx([2 * value for value in before], rel=1e-4)
    other = tiny_judge.judge(make_clip(tmp_path / "b.mp4", seed=5, size=28), "a b c").values.values()
    assert list(other) != pytest.approx(after)


def test_it_is_a_reward_model(tiny_judge, tmp_path, make_clip):
    video = make_clip(tmp_path / "a.mp4", size=28)
    good, lost = tiny_judge.score([video, tmp_path / "none.mp4"], ["a b", "c d"], with_reason=True)
    raw = list(tiny_judge.judge(video, "a b").values.values())
    assert good.labels == {
        Dimension.SEMANTIC_CONSISTENCY: to_label(raw[3]),
        Dimension.MOTION_SMOOTHNESS: to_label(raw[1]),
        Dimension.VIDEO_FIDELITY: to_label(raw[0]),
    }
    assert good["video_fidelity"].reason == f"{raw[0]:.2f} of 4" and good.critic == tiny_judge.name
    assert math.isnan(lost.reward) and "no such video" in lost.unscored
    with pytest.raises(ValueError, match="one caption for each video"):
        tiny_judge.score([video], [])


def test_its_name_says_which_weights_it_has(judge_checkpoint, tmp_path):
    folder = shutil.copytree(judge_checkpoint, tmp_path / "moved")
    first, moved = (
        RegressionJudge.from_pretrained(str(where), dtype=torch.float32) for where in (judge_checkpoint, folder)
    )
    assert moved.name == f"{folder}@{weights_revision(judge_checkpoint)}"
    first.model.score.weight.data += 1
    first.model.save_pretrained(folder)
    assert RegressionJudge.from_pretrained(str(folder), dtype=torch.float32).name != moved.name


def test_labels_by_threshold():
    assert [to_label(v) for v in (0.0, 1.49, 1.5, 2.49, 2.5, 4.0)] == [
        Label.BAD, Label.BAD, Label.NORMAL, Label.NORMAL, Label.GOOD, Label.GOOD,
    ]  # fmt: skip


def test_what_is_not_finite_has_no_label():
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="has no label"):
            to_label(value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("output", [0, 2, 4])
def test_a_judge_that_gives_no_number_gives_no_label(tiny_judge, tmp_path, make_clip, output, value):
    """Of an overflow in half precision each comparison is false, and the last label was Good."""
    with torch.no_grad():
        tiny_judge.model.score.weight[output] = value
    (score,) = tiny_judge.score([make_clip(tmp_path / "a.mp4", size=28)], ["a b"])
    assert score.labels is None and math.isnan(score.reward) and "not finite" in score.unscored


def test_it_refuses_what_its_text_cannot_hold(tiny_judge, judge_checkpoint, tmp_path, make_clip):
    video = make_clip(tmp_path / "a.mp4", size=28)
    for caption, why in (("", "the caption is empty"), (" ", "empty"), ("a <image> b", "'<image>'")):
        assert why in tiny_judge.score([video], [caption])[0].unscored
    own = {"name": "x", "num_frames": 3}
    braces = RegressionJudge(
        tiny_judge.model, tiny_judge.processor, question='{"a": {prompt}, {0} {b} }} {prompt}', **own
    )
    same = RegressionJudge(
        tiny_judge.model, tiny_judge.processor, question='{"a": c {prompt}, {0} {b} }} c {prompt}', **own
    )
    assert braces.judge(video, "c {prompt}").values == same.judge(video, "{prompt}").values
    for question, why in (("a <image> {prompt}", "holds '<image>'"), ("a {promt}", "no {prompt}")):
        with pytest.raises(ValueError, match=why):
            RegressionJudge(tiny_judge.model, tiny_judge.processor, question=question, **own)


def test_another_head_is_refused(judge_checkpoint, tmp_path):
    from transformers import AutoConfig

    folder = shutil.copytree(judge_checkpoint, tmp_path / "three")
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = 3
    Idefics2ForVideoRegression(config).save_pretrained(folder)
    with pytest.raises(ValueError, match="3 outputs"):
        RegressionJudge.from_pretrained(str(folder), dtype=torch.float32)


def test_a_head_that_was_never_trained_is_refused(judge_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(judge_checkpoint, tmp_path / "untrained")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 not in the file: score.weight"):
        RegressionJudge.from_pretrained(str(folder), dtype=torch.float32)
