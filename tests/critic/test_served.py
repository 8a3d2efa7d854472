"""A served critic against a server over the tiny model, and against a real `transformers serve`."""

import math
import runpy
import sys
import time
import urllib.request

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils.import_utils import is_serve_available

from lift_trl.critic.conversation import render_prompt
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.served import LABEL_TOKENS, ServedCritic, label_mass
from lift_trl.critic.settings import CriticSettings
from lift_trl.records import placeless
from lift_trl.rubric import LIFT, Dimension, Label, UnparsableAnswerError, format_answer
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from lift_trl.store.video_io import sample_frames
from recipes import score as recipe
from tests.critic.chat_server import serve
from tests.critic.rendered_clips import write_square
from tests.critic.tiny_models import build_vlm
from tests.processes import Job, free_port


CAPTIONS = ["A red square.", "A blue square moves."]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return [write_square(folder / f"{colour}.mp4", colour) for colour in ("red", "blue")]


def pieces_of(processor):
    """What each token says, in small letters and without blanks."""
    return [processor.tokenizer.decode([i]).strip().lower() for i in range(len(processor.tokenizer))]


def beginnings(pieces):
    """The tokens that begin each label, in any case and with or without a blank."""
    return {label: [i for i, p in enumerate(pieces) if p and label.lower().startswith(p)] for label in Label}


@pytest.fixture(scope="module")
def critic():
    model, processor = build_vlm("qwen2_5_vl")
    # So that labels are among the 20 likeliest beginnings, as they are of a critic that has learned the format.
    others = set(range(len(processor.tokenizer))) - {
        i for ids in beginnings(pieces_of(processor)).values() for i in ids
    }
    model.lm_head.weight.data[sorted(others)] *= 0.01
    return LiFTCritic(model, processor, settings=CriticSettings(num_frames=4, native_video=False), name="tiny")


@pytest.fixture
def server(critic):
    with serve(critic) as server:
        yield server


def test_two_models_of_one_server_are_two_critics():
    first, second = (ServedCritic(name, base_url="http://127.0.0.1:1/v1").name for name in ("user/a", "user/b"))
    assert placeless(first) != placeless(second)


def test_log_probabilities_give_the_probabilities_of_the_model(critic, server, clips):
    served = ServedCritic("tiny", base_url=server.url, num_frames=4)
    server.replies = [f"{Label.GOOD}."] * 6
    scores = served.score(clips, CAPTIONS)
    assert [score.unscored for score in scores] == [None, None]
    assert len(server.requests) == 6
    for request in server.requests:
        assert request["path"] == "/v1/chat/completions" and request["model"] == "tiny"
        assert request["temperature"] == 0 and request["max_tokens"] == LABEL_TOKENS
        # Never the user's own token.
        assert {n.title(): v for n, v in request["headers"].items()}["Authorization"] == "Bearer none"
    pieces = pieces_of(critic.processor)
    for score, clip, caption in zip(scores, clips, CAPTIONS):
        first = first_token_probs(critic, clip, caption)
        for judgement, row in zip(score.judgements, first):
            likeliest = set(row.topk(20).indices.tolist())
            mass = {}
            for label, ids in beginnings(pieces).items():
                given = [i for i in ids if i in likeliest]
                whole = [i for i in given if pieces[i] == label.lower()]
                mass[label] = sum(float(row[i]) for i in whole or given)
            assert judgement.label_mass == pytest.approx(sum(mass.values()), rel=1e-3)
            assert judgement.probs == pytest.approx({k: v / sum(mass.values()) for k, v in mass.items()}, rel=1e-3)
            assert judgement.label == max(mass, key=mass.get)


def first_token_probs(critic, path, caption):
    """[3, V]: the model's own distribution over the first token of each answer."""
    clip = sample_frames(path, 4)
    rows = []
    for dimension in Dimension:
        prompt = render_prompt(critic.adapter, critic.processor, list(clip.frames), LIFT.question(dimension, caption))
        with torch.inference_mode():
            rows.append(critic.model(**critic.adapter.encode(critic.processor, [prompt], [clip])).logits[0, -1])
    return torch.stack(rows).softmax(-1)


def test_videos_and_dimensions_are_asked_apart(server, clips):
    served = ServedCritic("tiny", base_url=server.url, num_frames=4, max_workers=1)
    server.replies = [f"{Label.GOOD}."] * 6
    served.score(clips, CAPTIONS)
    texts = [request["messages"][0]["content"][-1]["text"] for request in server.requests]
    assert len(set(texts)) == 6 and [CAPTIONS[0] in text for text in texts] == [True] * 3 + [False] * 3
    frames = [tuple(part["image_url"]["url"] for part in r["messages"][0]["content"][:-1]) for r in server.requests]
    assert [len(f) for f in frames] == [4] * 6 and frames[0] == frames[1] == frames[2] != frames[3]


def test_without_log_probabilities_the_written_answer_is_parsed(server, clips):
    served = ServedCritic("tiny", base_url=server.url, logprobs=False, num_frames=4, max_workers=1)
    reason = "The square jumps."
    server.replies = [format_answer(label, reason) for label in (Label.GOOD, Label.BAD, Label.NORMAL)]
    score = served.score(clips[:1], CAPTIONS[:1], with_reason=True)[0]
    assert [j.label for j in score.judgements] == [Label.GOOD, Label.BAD, Label.NORMAL]
    assert all(j.probs is None and j.reason == reason for j in score.judgements)
    assert score.reward == score.expected_reward == pytest.approx((0.9 + 0.05 + 0.2) / 3)
    assert "logprobs" not in server.requests[0]


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("answer", ["", "The video is good.", "Good-looking panda", "No obvious problems."])
def test_an_answer_without_a_label_is_unscored(answer, logprobs, server, clips):
    """Also with log-probabilities, where "No" alone would look like the beginning of a label."""
    served = ServedCritic("tiny", base_url=server.url, logprobs=logprobs, num_frames=4, max_workers=1)
    server.replies = [format_answer(Label.GOOD, ""), answer, format_answer(Label.GOOD, "")]
    score = served.score(clips[:1], CAPTIONS[:1])[0]
    assert "does not begin with one of" in score.unscored and math.isnan(score.reward)


def test_a_broken_clip_is_unscored_and_asks_nothing(server, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    score = ServedCritic("tiny", base_url=server.url).score([tmp_path / "broken.mp4"], ["A fox."])[0]
    assert "broken.mp4" in score.unscored and server.requests == []


def test_a_failing_server_raises_and_gives_no_score(server, clips):
    server.status = 500
    with pytest.raises(HfHubHTTPError):
        ServedCritic("tiny", base_url=server.url).score(clips, CAPTIONS)


def test_tokens_that_begin_no_label_have_no_mass():
    tokens = [("Good", -1.0), ("The", -0.1), ("", -0.1), (" ", -0.1), ("Goodness", -0.1), ("b", -2.0)]
    mass = label_mass(tokens)
    assert mass == {Label.BAD: math.exp(-2), Label.NORMAL: 0.0, Label.GOOD: math.exp(-1)}
    tokens = [("No", -0.5), ("Normal", -2.0), (" normal", -2.0)]
    assert label_mass(tokens)[Label.NORMAL] == pytest.approx(2 * math.exp(-2))


def test_a_log_probability_that_is_no_number_is_no_label():
    """Beside a NaN each comparison is false, and the first label was the likeliest."""
    for value in (float("nan"), float("inf")):
        with pytest.raises(UnparsableAnswerError, match="of Normal is not finite"):
            label_mass([("Good", -0.7), ("Normal", value)])


def test_what_changes_the_scores_changes_the_name(server):
    """Scores are resumed under it."""
    options = [{}, {"logprobs": False}, {"num_frames": 4}, {"base_url": "http://localhost:1/v1"}, {"model": "big"}]
    names = [ServedCritic(**{"model": "tiny", "base_url": server.url, **option}).name for option in options]
    assert len(set(names)) == 5 and [name.split("@")[0] for name in names] == ["tiny"] * 4 + ["big"]
    assert names[0] == ServedCritic("tiny", base_url=server.url).name


def test_a_served_critic_is_a_reward_function_of_trl(server, clips):
    served = ServedCritic("tiny", base_url=server.url, logprobs=False, num_frames=4, max_workers=1)
    server.replies = [f"{Label.GOOD}."] * 3 + ["No obvious problems."] * 3
    content = [{"type": "text", "text": CAPTIONS[0]}]
    prompts = [[{"role": "user", "content": content}], CAPTIONS[1]]
    assert served.reward_func(prompts, clips, trainer_state=None) == [pytest.approx(0.9), None]
    assert server.requests[0]["messages"][0]["content"][-1]["text"].startswith(CAPTIONS[0])


def test_the_recipe_asks_a_server_with_its_key_and_frames(server, clips, tmp_path, monkeypatch):
    rows = [{"file_name": str(clip), "prompt": caption} for clip, caption in zip(clips, CAPTIONS)]
    write_rows(tmp_path / "clips" / METADATA_FILE, rows)
    monkeypatch.setenv("SERVER_KEY", "secret")
    server.replies = [f"{Label.GOOD}."] * 6
    folders = {"videos": str(tmp_path / "clips"), "output_dir": str(tmp_path / "scored")}
    served = {"base_url": server.url, "logprobs": False, "num_frames": 2, "api_key_env": "SERVER_KEY"}
    recipe.main(recipe.ScoreArguments(critic="tiny", **folders, **served))
    assert [row["reward"] for row in read_rows(tmp_path / "scored" / METADATA_FILE)] == pytest.approx([0.9, 0.9])
    for request in server.requests:
        assert {n.title(): v for n, v in request["headers"].items()}["Authorization"] == "Bearer secret"
        assert len(request["messages"][0]["content"]) == 2 + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "http://localhost:1/v1", "critic_revision": "main"}, "critic_revision is of a repo"),
        ({"num_frames": 4}, "num_frames and api_key_env are a server's"),
        ({"logprobs": False}, "add base_url"),
        (
            {"base_url": "http://localhost:1/v1", "api_key_env": "NO_SUCH_KEY"},
            "'NO_SUCH_KEY' is not in the environment",
        ),
    ],
)
def test_options_that_would_be_ignored_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        recipe.ScoreArguments("clips", "scored", critic="tiny", **options)


@pytest.mark.skipif(
    not is_serve_available(), reason="transformers serve needs openai: pip install transformers[serving]"
)
def test_transformers_serve_answers_and_refuses_log_probabilities(critic, clips, tmp_path):
    critic.model.save_pretrained(tmp_path / "vlm")
    critic.processor.save_pretrained(tmp_path / "vlm")
    port = free_port()
    job = Job(tmp_path / "log", transformers_serve, tmp_path / "vlm", port)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", job)
        served = ServedCritic(
            str(tmp_path / "vlm"),
            base_url=f"http://127.0.0.1:{port}/v1",
            logprobs=False,
            num_frames=4,
            max_tokens=8,
        )
        # A random model writes no label: what matters is that its answer came and was given no reward.
        score = served.score(clips[:1], CAPTIONS[:1])[0]
        assert "does not begin with one of" in score.unscored
        served.logprobs = True
        with pytest.raises(OSError):
            served.score(clips[:1], CAPTIONS[:1])
    finally:
        job.kill()


def transformers_serve(model, port):
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    sys.argv = ["transformers", "serve", str(model), *options]
    runpy.run_module("transformers.cli.transformers", run_name="__main__")


def wait_for(url, job, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not job.running():
            pytest.fail(job.output[-2000:])
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"{url} did not answer in {timeout_s} s")
