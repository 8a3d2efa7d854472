"""`lift-trl serve`: of many at once each gets its own answer, a killed server is an error; and the three recipes."""

import asyncio
import base64
import http.server
import json
import os
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from lift_trl.cli import main
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.records import CriticScore, Judgement, NativeScore
from lift_trl.rubric import Dimension, Label
from lift_trl.serving import server
from lift_trl.serving.client import encode_clip, rewards, score_clips
from tests.critic.rendered_clips import COLOURS, write_square
from tests.critic.tiny_models import build_vlm
from tests.processes import Job, free_port


TOKEN = "s3cret"
NUM_REQUESTS = 100


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    build_vlm("idefics3", save_directory=folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_square(folder / f"{c}.mp4", c, seed=i, num_frames=9 + i).read_bytes() for i, c in enumerate(COLOURS)]


def serve(checkpoint, port):
    os.environ["LIFT_TRL_TOKEN"] = TOKEN
    sys.exit(main(["serve", str(checkpoint), "--port", str(port)]))


def start(checkpoint, log):
    port = free_port()
    job = Job(log, serve, checkpoint, port)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 300
    while time.monotonic() < until and job.running():
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5)
            return job, url
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start: {job.output}")


def test_a_hundred_at_once_and_a_killed_server(checkpoint, clips, tmp_path, record_property):
    critic = LiFTCritic.from_pretrained(checkpoint)
    captions = [f"A {colour} square, seen {n} times." for n in range(4) for colour in COLOURS]
    asked = [(clips[n % len(clips)], captions[n % len(captions)]) for n in range(NUM_REQUESTS)]
    known = dict(zip(dict.fromkeys(asked), critic.score(*map(list, zip(*dict.fromkeys(asked))))))
    job, url = start(checkpoint, tmp_path / "log")
    try:

        def ask(pair):
            began_s = time.monotonic()
            (row,) = score_clips(url, [pair[1]], [pair[0]], token=TOKEN)
            return row, time.monotonic() - began_s

        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            answers = list(pool.map(ask, asked))
        for pair, (row, _) in zip(asked, answers):
            assert row["critic"] == critic.name and row["unscored"] is None
            assert row["expected_reward"] == pytest.approx(known[pair].expected_reward, abs=1e-4)
            assert row["probs"][Dimension.MOTION_SMOOTHNESS][Label.BAD] == pytest.approx(
                known[pair]["motion_smoothness"].probs[Label.BAD], abs=1e-4
            )
        latencies = sorted(latency_s for _, latency_s in answers)
        record_property(
            "latency_s", f"median {latencies[50]:.2f}, p95 {latencies[95]:.2f}, largest {latencies[-1]:.2f}"
        )
        print(f"latency of {NUM_REQUESTS} at once: median {latencies[50]:.2f} s, p95 {latencies[95]:.2f} s")

        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            waiting = [pool.submit(ask, pair) for pair in asked]
            next(iter(waiting)).result()
            job.kill()
            right, lost = 0, 0
            for pair, future in zip(asked, waiting):
                error = future.exception(timeout=60)
                if error is None:
                    assert future.result()[0]["expected_reward"] == pytest.approx(
                        known[pair].expected_reward, abs=1e-4
                    )
                    right += 1
                else:
                    assert isinstance(error, ConnectionError) and url in str(error), error
                    lost += 1
        assert right + lost == NUM_REQUESTS and right and lost
    finally:
        job.kill()


class LengthJudge:
    """No model: the reward is the caption's length in tenths, unscored where a clip is no mp4. Some captions fail it."""

    name = "length@1"

    def __init__(self):
        self.batches, self.clips = [], []
        self.gate = threading.Event()
        self.gate.set()

    def score(self, videos, captions, *, with_reason=False):
        self.gate.wait(30)
        self.batches.append(list(captions))
        self.clips += videos
        if "break" in captions:
            raise KeyError("a bug")
        if "short" in captions:
            return []
        return [
            NativeScore("", self.name, {"length": len(c)}, {"length": len(c) / 10}, "long" if with_reason else "")
            if b"ftyp" in v[:32] and c != "dark"
            else NativeScore("", self.name, unscored="no video")
            for v, c in zip(videos, captions)
        ]


@pytest.fixture
def judge():
    return LengthJudge()


def post(client, *, token=TOKEN, **body):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return client.post("/v1/score", json=body, headers=headers)


def b64(data):
    return base64.b64encode(data).decode()


def test_what_is_refused_and_what_is_unscored(judge, clips, monkeypatch):
    monkeypatch.setattr(server, "MAX_BYTES", 40_000)
    clip = {"prompt": "abc", "video": b64(clips[0])}
    with TestClient(server.build_app(judge, token=TOKEN)) as client:
        assert client.get("/health").json() == {"status": "ok", "critic": "length@1"}
        for token in (None, "other", TOKEN + "x"):
            assert post(client, token=token, clips=[clip]).status_code == 401
        good = post(client, clips=[clip, {"prompt": "abcdef", "video": b64(b"nothing")}], with_reason=True)
        assert good.status_code == 200 and good.json()["critic"] == "length@1"
        first, second = good.json()["scores"]
        assert first["reward"] == 0.3 and first["reason"] == "long" and first["aspects"] == {"length": 3}
        assert second["reward"] is None and second["unscored"] == "no video"
        for body, why in (
            ({"clips": []}, "at least 1 item"),
            ({"clips": [{"prompt": "a"}]}, "give either video"),
            ({"clips": [{**clip, "url": "http://x"}]}, "give either video"),
            ({"clips": [{"prompt": "a", "video": "!!"}]}, "base64"),
            ({"clips": [{**clip, "more": 1}]}, "clips.0.more"),
            ({"clips": [clip] * 65}, "at most 64"),
        ):
            answer = post(client, **body)
            assert answer.status_code in (413, 422) and (why in answer.json()["error"] or answer.status_code == 413)
        long = post(client, clips=[{"prompt": "a", "video": b64(bytes(50_000))}])
        assert long.status_code == 413 and "longer than 40000 bytes" in long.json()["error"]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        pickled = client.post("/v1/score", content=b"\x80\x04\x95\x00", headers=headers)
        assert pickled.status_code == 422 and "JSON" in pickled.json()["error"]


def test_a_batch_that_fails_takes_no_other_along(judge, clips):
    with TestClient(server.build_app(judge, batch_size=2)) as client:
        broken = post(client, clips=[{"prompt": "break", "video": b64(clips[0])}])
        assert broken.status_code == 500 and broken.json()["error"] == "the model failed: KeyError: 'a bug'"
        short = post(client, clips=[{"prompt": "short", "video": b64(clips[0])}])
        assert short.json()["error"] == "the model failed: ValueError: 0 scores of 1 clips"
        assert post(client, clips=[{"prompt": "abc", "video": b64(clips[0])}]).json()["scores"][0]["reward"] == 0.3


def test_requests_share_batches_and_too_many_are_told_to_wait(judge, clips, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING", 6)
    clip = b64(clips[0])
    judge.gate.clear()
    with TestClient(server.build_app(judge, batch_size=4)) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(post, client, clips=[{"prompt": "a", "video": clip}])
        time.sleep(0.5)
        others = [pool.submit(post, client, clips=[{"prompt": "a" * n, "video": clip}] * 2) for n in (2, 3, 4)]
        time.sleep(0.5)
        full = post(client, clips=[{"prompt": "a", "video": clip}])
        assert full.status_code == 503 and full.headers["retry-after"] and "6 clips wait" in full.json()["error"]
        judge.gate.set()
        assert first.result().status_code == 200
        for n, other in zip((2, 3, 4), others):
            assert [row["reward"] for row in other.result().json()["scores"]] == [n / 10, n / 10]
    assert max(map(len, judge.batches)) == 4 and sum(map(len, judge.batches)) == 7


def test_urls_are_fetched_where_that_was_allowed(judge, clips, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clips[0])

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def do_GET(self):
            if self.path == "/ok/away":
                self.send_response(302)
                self.send_header("Location", "/clip.mp4")
                self.end_headers()
                return
            self.path = self.path.removeprefix("/ok")
            super().do_GET()

        def log_message(self, *args):
            pass

    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=files.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{files.server_port}"
    with TestClient(server.build_app(judge, allow_urls=[f"{base}/ok/"])) as client:
        urls = [
            f"{base}/ok/clip.mp4",
            f"{base}/clip.mp4",
            f"{base}/ok/none.mp4",
            f"{base}/ok/away",
            "file:///etc/hosts",
            f"{base}/ok/../clip.mp4",
            f"{base}/ok/%2e%2e/clip.mp4",
            f"{base}/okay/clip.mp4",
            f"{base}.evil/ok/clip.mp4",
            f"{base}@evil/ok/clip.mp4",
        ]
        rows = post(client, clips=[{"prompt": "abc", "url": url} for url in urls]).json()["scores"]
    files.shutdown()
    assert rows[0]["reward"] == 0.3 and all(row["reward"] is None for row in rows[1:])
    for row, why in zip(rows[1:], ("--allow-url", "404", "302", *["--allow-url"] * 6), strict=True):
        assert why in row["unscored"]
    with TestClient(server.build_app(judge)) as client:
        (row,) = post(client, clips=[{"prompt": "abc", "url": urls[0]}]).json()["scores"]
        assert "--allow-url" in row["unscored"]


def test_a_critics_row_holds_labels_probabilities_and_reasons(clips):
    class Fixed:
        name = "critic@9"

        def score(self, videos, captions, *, with_reason=False):
            probs = dict(zip(Label, (0.1, 0.2, 0.7)))
            judged = tuple(Judgement(d, Label.GOOD, probs, reason="fine", label_mass=0.9) for d in Dimension)
            return [CriticScore("", self.name, judged) for _ in videos]

    with TestClient(server.build_app(Fixed())) as client:
        (row,) = post(client, clips=[{"prompt": "abc", "video": b64(clips[0])}]).json()["scores"]
    assert row[Dimension.VIDEO_FIDELITY] == Label.GOOD and row["critic"] == "critic@9"
    assert row["probs"][Dimension.VIDEO_FIDELITY] == {"Bad": 0.1, "Normal": 0.2, "Good": 0.7}
    assert row["reasons"][Dimension.VIDEO_FIDELITY] == "fine" and row["reward"] == pytest.approx(0.9)


def test_strangers_need_a_token(capsys, monkeypatch):
    monkeypatch.delenv("LIFT_TRL_TOKEN", raising=False)
    assert main(["serve", "video_reward", "--host", "0.0.0.0"]) == 1
    assert "export a token first" in capsys.readouterr().err


def test_a_critic_may_be_held_in_8_bits(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("uvicorn.run", lambda app, **options: None)
    assert main(["serve", str(checkpoint), "--quantization", "int8"]) == 0
    assert " in int8 at http://127.0.0.1:8000" in capsys.readouterr().out


@pytest.fixture
def served(judge, monkeypatch):
    """The address of a real server of `judge` in this process."""
    port = free_port()
    app = server.build_app(judge, token=TOKEN)
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    monkeypatch.setenv("LIFT_TRL_TOKEN", TOKEN)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join()


def frames_of(clip, tmp_path):
    from lift_trl.store.video_io import read_video

    (tmp_path / "back.mp4").write_bytes(clip)
    return read_video(tmp_path / "back.mp4")


def module(monkeypatch, name, **content):
    """A module of a tool that is not installed, with the names that its repository has."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        made = sys.modules.get(path) or types.ModuleType(path)
        monkeypatch.setitem(sys.modules, path, made)
    for key, value in content.items():
        monkeypatch.setattr(made, key, value, raising=False)


VIDEO = np.linspace(0, 1, 5 * 33 * 48 * 3).reshape(5, 33, 48, 3)


def test_unirl(served, judge, monkeypatch, tmp_path):
    class RewardBackend:
        def __init__(self, model_name="", batch_size=8, timeout=60.0, prompt_source="generation", **kwargs):
            self.model_name, self.prompt_source = model_name, prompt_source

        def prompts(self, request):
            return list(request.prompt.texts)

    @dataclass
    class RewardResponse:
        rewards: list = field(default_factory=list)
        component_rewards: dict = field(default_factory=dict)
        successes: list = field(default_factory=list)
        errors: list = field(default_factory=list)
        compute_time: float = 0.0

    module(monkeypatch, "unirl.reward.base", RewardBackend=RewardBackend, BaseRewardComponentSpec=object)
    module(monkeypatch, "unirl.types.reward", RewardRequest=object, RewardResponse=RewardResponse)
    monkeypatch.delitem(sys.modules, "recipes.served.unirl", raising=False)
    from recipes.served.unirl import LiftRewardBackend, LiftRewardSpec

    backend = LiftRewardBackend(config=LiftRewardSpec(served, fps=5), base_device="cpu")
    # UniRL's `RewardRequest.videos` are [C, T, H, W] in [0, 1].
    video = torch.from_numpy(VIDEO).permute(3, 0, 1, 2)
    prompt = types.SimpleNamespace(texts=["a", "dark", "ccc"])
    answer = backend.compute_rewards(types.SimpleNamespace(videos=[video] * 3, prompt=prompt))
    assert answer.rewards == [0.1, 0.0, pytest.approx(0.3)] and answer.successes == [True, False, True]
    assert answer.errors == [None, "no video", None] and backend.is_available()
    assert not LiftRewardBackend(config=LiftRewardSpec("http://127.0.0.1:9"), base_device="cpu").is_available()
    clip = frames_of(judge.clips[0], tmp_path)
    assert clip.fps == 5 and clip.frames.shape == (5, 32, 48, 3)
    assert np.abs(clip.frames / 255 - VIDEO[:, :32]).mean() < 0.03


def test_flow_factory(served, judge, monkeypatch, tmp_path):
    class PointwiseRewardModel:
        def __init__(self, config, accelerator):
            self.config, self.device = config, "cpu"

    @dataclass
    class RewardModelOutput:
        rewards: torch.Tensor
        extra_info: dict | None = None

    names = {"PointwiseRewardModel": PointwiseRewardModel, "RewardModelOutput": RewardModelOutput}
    module(monkeypatch, "flow_factory.rewards.abc", **names)
    monkeypatch.delitem(sys.modules, "recipes.served.flow_factory", raising=False)
    from recipes.served.flow_factory import LiftReward

    model = LiftReward(types.SimpleNamespace(server_url=served, video_fps=6), None)
    pictures = [Image.fromarray((frame * 255).astype(np.uint8)) for frame in VIDEO]
    answer = model(prompt=["a", "bb"], video=[pictures, pictures], image=None)
    assert answer.rewards.tolist() == pytest.approx([0.1, 0.2]) and answer.extra_info == {"critic": judge.name}
    assert frames_of(judge.clips[1], tmp_path).fps == 6
    with pytest.raises(ValueError, match="1 of 2 clips are unscored: clip 1: no video"):
        model(prompt=["a", "dark"], video=[pictures, pictures])


def test_verl_omni(served, judge, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "recipes.served.verl_omni", raising=False)
    from recipes.served.verl_omni import compute_score

    # verl-omni's videos are [T, C, H, W].
    video = torch.from_numpy((VIDEO * 255).astype(np.uint8)).permute(0, 3, 1, 2)
    options = {"server_url": served, "extra_info": {"fps": 7.0}, "reward_model": None, "batch": None}
    answer = asyncio.run(compute_score("data", video, "a fox", **options))
    assert answer == {"score": 0.5} and judge.batches == [["a fox"]]
    assert frames_of(judge.clips[0], tmp_path).fps == 7
    with pytest.raises(KeyError, match="fps"):
        asyncio.run(compute_score("data", video, "a fox", server_url=served))


def test_frames_that_are_no_clip_are_refused():
    for frames in (VIDEO[0], VIDEO * 2, VIDEO - 1, np.full_like(VIDEO, np.nan)):
        with pytest.raises(ValueError, match="frames of"):
            encode_clip(frames, fps=8)
    with pytest.raises(ValueError, match="1 prompts and 2 clips"):
        score_clips("http://here", ["a"], [b"", b""])
    assert rewards([{"reward": 0.5}]) == [0.5]
    assert json.dumps(rewards([])) == "[]"
