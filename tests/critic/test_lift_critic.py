"""`LiFTCritic` on files: what is unscored, what TRL gets, what is refused."""

import math
from threading import Event

import av
import numpy as np
import pytest
import torch

from benchmarks.critic_scoring import NUM_TOKENS, authors_procedure
from lift_trl.alignment.score import score_videos
from lift_trl.critic.lift_critic import LiFTCritic, judgements
from lift_trl.critic.settings import CriticSettings, load_settings
from lift_trl.judges.audit import audit
from lift_trl.rubric import LIFT, REWARDS, Dimension, Label
from lift_trl.store.manifest import Artifact, read_rows, write_rows
from lift_trl.store.video_io import write_video
from tests.critic.rendered_clips import write_square
from tests.critic.tiny_models import build_vlm
from tests.processes import Job
from tests.waits import host_waits


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    build_vlm("idefics3", save_directory=folder)
    return folder


@pytest.fixture(scope="module")
def critic(checkpoint):
    return LiFTCritic.from_pretrained(checkpoint, batch_size=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_square(folder / f"{c}.mp4", c, num_frames=n) for c, n in (("red", 9), ("blue", 17), ("green", 2))]


CAPTIONS = ["A red square.", "A blue square moves to the right of the picture.", "Green."]


def test_scores_are_probabilities_of_the_three_labels(critic, clips):
    scores = critic.score(clips, CAPTIONS)
    for score in scores:
        assert [j.dimension for j in score.judgements] == list(Dimension) and score.unscored is None
        for judgement in score.judgements:
            assert sum(judgement.probs.values()) == pytest.approx(1) and judgement.reason == ""
            assert judgement.label == max(judgement.probs, key=judgement.probs.get)
            assert 0 <= judgement.label_mass <= 1
        assert score.reward == pytest.approx(sum(REWARDS[j.label] for j in score.judgements) / 3)
        assert 0.05 <= score.expected_reward <= 0.9
    assert scores == critic.score(clips, CAPTIONS)


def test_paths_and_bytes_and_any_batch_size_give_equal_scores(checkpoint, critic, clips):
    alone = LiFTCritic.from_pretrained(checkpoint, batch_size=1)
    for one, other in zip(
        critic.score([str(c) for c in clips], CAPTIONS), alone.score([c.read_bytes() for c in clips], CAPTIONS)
    ):
        for a, b in zip(one.judgements, other.judgements):
            assert a.probs == pytest.approx(b.probs, abs=1e-4)


def test_a_clip_is_decoded_once_and_a_batch_runs_through_the_tower_once(critic, clips, monkeypatch):
    """The work behind the speed, in calls: the authors' procedure on two clips, and ours."""
    calls = {}

    def counted(name):
        calls[name] = 0

        def count(*_):
            calls[name] += 1

        return count

    def calls_of(work):
        opened, open_file = counted("decodes"), av.open
        with monkeypatch.context() as patch:
            patch.setattr(av, "open", lambda *args, **options: opened() or open_file(*args, **options))
            modules = {"tower": critic.model.model.vision_model, "language_model": critic.model.get_decoder()}
            hooks = [module.register_forward_hook(counted(name)) for name, module in modules.items()]
            work()
        for hook in hooks:
            hook.remove()
        return dict(calls)

    asked = 2 * len(Dimension)
    theirs = calls_of(lambda: authors_procedure(critic, clips[:2], end_ids=[]))
    assert theirs == {"decodes": asked, "tower": asked, "language_model": asked * NUM_TOKENS}
    ours = calls_of(lambda: critic.score(clips[:2], CAPTIONS[:2]))
    assert ours == {"decodes": 2, "tower": 1, "language_model": 2}  # one pass of what is shared, one of the rest
    monkeypatch.setattr(critic, "end_ids", frozenset())
    ours = calls_of(lambda: critic.score(clips[:2], CAPTIONS[:2], with_reason=True))
    opening = max(len(tokens.rest) for tokens in critic._labels.values())
    assert ours["decodes"] == 2 and ours["tower"] == 1
    assert NUM_TOKENS <= ours["language_model"] - 2 <= NUM_TOKENS + opening


def test_the_next_batch_is_decoded_and_processed_while_one_is_scored(checkpoint, clips, monkeypatch, tmp_path):
    critic = LiFTCritic.from_pretrained(checkpoint, batch_size=1)
    alone = [critic.score([clip], [caption])[0].expected_reward for clip, caption in zip(clips, CAPTIONS)]
    encoded, judged = [Event() for _ in clips], []
    encode, judge = critic._encode, critic._judge

    def watched(frames, captions):
        batch = encode(frames, captions)
        encoded[CAPTIONS.index(captions[0])].set()
        return batch

    def waiting(batch, with_reason):
        judged.append(batch)
        assert encoded[min(len(judged), 2)].wait(20), "the next batch was not prepared"
        return judge(batch, with_reason)

    monkeypatch.setattr(critic, "_encode", watched)
    monkeypatch.setattr(critic, "_judge", waiting)
    assert [score.expected_reward for score in critic.score(clips, CAPTIONS)] == alone
    for event in encoded:
        event.clear()
    judged.clear()
    rows = [{"video": str(clip), "prompt": caption} for clip, caption in zip(clips, CAPTIONS)]
    write_rows(tmp_path / "clips" / "metadata.jsonl", rows)
    scored = score_videos(critic, tmp_path / "clips", tmp_path / "scored", batch_size=1)
    assert [row["expected_reward"] for row in read_rows(scored / "metadata.jsonl")] == alone


def test_a_reason_waits_for_the_device_once_a_token(critic, clips, monkeypatch):
    monkeypatch.setattr(critic, "end_ids", frozenset())
    with host_waits() as few:
        critic.score(clips, CAPTIONS, with_reason=False)
    monkeypatch.setattr(critic, "max_reason_tokens", 20)
    with host_waits() as many:
        critic.score(clips, CAPTIONS, with_reason=True)
    in_reasons = [place for place in many if "reasons.py" in place]
    opening = max(len(tokens.rest) for tokens in critic._labels.values())
    # Two batches of the three clips; the labels that were chosen are read once a batch.
    assert len(in_reasons) <= 2 * (20 + opening + 1), (len(few), in_reasons)


def test_what_cannot_be_scored_is_unscored_with_the_why_and_leaves_the_others_alone(critic, clips, tmp_path):
    broken, missing = tmp_path / "broken.mp4", tmp_path / "missing.mp4"
    broken.write_bytes(clips[0].read_bytes()[:700])
    scores = critic.score([broken, clips[0], missing, clips[1]], ["a", CAPTIONS[0], "b", " "])
    assert [score.unscored is None for score in scores] == [False, True, False, False]
    assert "broken.mp4" in scores[0].unscored and "missing.mp4" in scores[2].unscored
    assert "caption is empty" in scores[3].unscored
    assert all(math.isnan(scores[i].reward) for i in (0, 2, 3))
    plain = critic.score([clips[0]], [CAPTIONS[0]])[0]
    assert scores[1].judgements[0].probs == pytest.approx(plain.judgements[0].probs, abs=1e-4)


@pytest.mark.parametrize(("family", "token"), [("idefics3", "<image>"), ("qwen2_5_vl", "<|video_pad|>")])
def test_a_caption_that_would_stand_for_a_picture_is_unscored_alone(family, token, clips):
    critic = LiFTCritic(*build_vlm(family), settings=CriticSettings(num_frames=4))
    scores = critic.score(clips[:2], [f"A fox {token} runs.", CAPTIONS[1]])
    assert f"the caption holds '{token}'" in scores[0].unscored and scores[1].unscored is None


def test_the_reward_function_has_trls_signature(critic, clips, tmp_path):
    parts = [{"type": "text", "text": CAPTIONS[0]}]
    prompts = [CAPTIONS[0], [{"role": "user", "content": CAPTIONS[1]}], [{"role": "user", "content": parts}], "x"]
    videos = [clips[0], clips[1], clips[0], tmp_path / "none.mp4"]
    rewards = critic.reward_func(prompts, videos, completion_ids=None, trainer_state=None)
    scores = critic.score(videos[:3], [*CAPTIONS[:2], CAPTIONS[0]])
    assert rewards == [*(score.reward for score in scores), None]
    assert scores[0].judgements[0].probs == pytest.approx(scores[2].judgements[0].probs, abs=1e-4)
    assert critic.reward_func.__name__ == "reward_func"


def test_numbers_of_videos_and_captions_must_agree(critic, clips):
    with pytest.raises(ValueError, match="3 videos and 1 captions"):
        critic.score(clips, ["a"])
    assert critic.score([], []) == []


def test_likelihoods_that_are_not_numbers_give_no_judgement():
    assert judgements(torch.full((3, 3), torch.nan), [""] * 3, LIFT) == ()
    assert judgements(torch.full((3, 3), -torch.inf), [""] * 3, LIFT) == ()
    verdicts = judgements(torch.tensor([[0.1, 0.2, 0.5]] * 3).log(), ["why"] * 3, LIFT)
    assert verdicts[0].label is Label.GOOD and verdicts[0].label_mass == pytest.approx(0.8)
    assert list(verdicts[0].probs.values()) == pytest.approx([0.125, 0.25, 0.625])


def test_a_broken_model_gives_no_score(checkpoint, clips):
    critic = LiFTCritic.from_pretrained(checkpoint)
    critic.model.lm_head.weight.data.fill_(torch.nan)
    score = critic.score(clips[:1], CAPTIONS[:1], with_reason=True)[0]
    assert score.unscored == "the critic's probabilities are not finite"


def test_eager_attention_gives_the_same(checkpoint, critic, clips):
    model, processor = build_vlm("idefics3")
    model.set_attn_implementation("eager")
    eager = LiFTCritic(model, processor).score(clips, CAPTIONS)
    for a, b in zip(eager, critic.score(clips, CAPTIONS)):
        assert a.judgements[0].probs == pytest.approx(b.judgements[0].probs, abs=1e-4)


def test_settings_come_with_the_critic(tmp_path):
    settings = CriticSettings(num_frames=3, with_reason=False, processor_kwargs={"do_image_splitting": False})
    settings.save(tmp_path, parents={"base": "local"})
    assert load_settings(str(tmp_path)) == settings
    Artifact(kind="generated").save(tmp_path)
    with pytest.raises(ValueError, match="not a critic"):
        load_settings(str(tmp_path))
    Artifact(kind="critic", config={"num_frames": 8, "dimensions": ["beauty"]}).save(tmp_path)
    with pytest.raises(ValueError, match="beauty"):
        load_settings(str(tmp_path))


def test_a_critic_trained_again_in_the_same_folder_is_another_critic(tmp_path):
    names = []
    for seed in (0, 0, 1):
        build_vlm("idefics3", seed=seed, save_directory=tmp_path)
        names.append(LiFTCritic.from_pretrained(tmp_path).name)
    assert names[0] == names[1] != names[2] and names[0].startswith(f"{tmp_path}@")


def print_unscored(critic):
    print(LiFTCritic.from_pretrained(critic).score(["none.mp4"], ["a"])[0].unscored)


def test_a_critic_works_by_itself_in_a_fresh_process(checkpoint, tmp_path):
    """No launcher, no accelerate state: accelerate's logger would raise at the first warning."""
    output = Job(tmp_path / "log", print_unscored, checkpoint).finish()
    assert "no such video file" in output and "unscored: none.mp4" in output


def test_a_clip_that_the_processor_refuses_is_unscored_alone_and_the_run_goes_on(clips, tmp_path):
    """Qwen's refuses 1280 x 4: its sides differ by more than 200 times."""
    critic = LiFTCritic(*build_vlm("qwen2_5_vl"), batch_size=4)
    narrow = tmp_path / "narrow.mp4"
    write_video(narrow, np.full((4, 4, 1280, 3), 90, np.uint8), fps=8)
    alone = critic.score(clips[:2], CAPTIONS[:2])
    first, refused, second, again = critic.score([clips[0], narrow, clips[1], narrow], ["a", "b", "c", "d"])
    assert "processor refuses the clip: absolute aspect ratio must be smaller than 200" in refused.unscored
    assert first.unscored is None and second.unscored is None and again.unscored == refused.unscored
    mixed = critic.score([clips[0], narrow, clips[1]], [CAPTIONS[0], "b", CAPTIONS[1]])
    for score, expected in zip((mixed[0], mixed[2]), alone):
        assert score.expected_reward == pytest.approx(expected.expected_reward, abs=1e-4)
    assert critic.score([narrow], ["b"], with_reason=True)[0].unscored == refused.unscored
    rows = [{"video": str(path), "prompt": caption} for path, caption in zip([narrow, *clips[:2]], "abc")]
    write_rows(tmp_path / "clips" / "metadata.jsonl", rows)
    scored = list(read_rows(score_videos(critic, tmp_path / "clips", tmp_path / "scored") / "metadata.jsonl"))
    assert [row["unscored"] is None for row in scored] == [False, True, True]
    checks = {check.name: check.value for check in audit(critic, [narrow, *clips[:2]], ["a", "b", "c"])}
    assert checks["unscored"] == pytest.approx(1 / 3) and math.isfinite(checks["swapped_captions"])
