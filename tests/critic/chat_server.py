"""A chat-completions server over a tiny model, with the log-probabilities that vLLM gives. For tests of `ServedCritic`."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from PIL import Image

from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.store.video_io import Clip


class ChatServer(ThreadingHTTPServer):
    """Answers with `critic`'s model. `replies`, if set, take the place of what the model writes."""

    def __init__(self, critic: LiFTCritic) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.critic, self.lock = critic, threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.replies: list[str] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        content = request["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        text = next(part["text"] for part in content if part["type"] == "text")
        pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]
        clip = Clip(np.stack(pixels), np.arange(len(pixels)) / 8, 8.0)
        critic = self.critic
        prompt = critic.processor.apply_chat_template(
            critic.adapter.prompt(list(clip.frames), text), tokenize=False, add_generation_prompt=True
        )
        inputs = dict(critic.adapter.encode(critic.processor, [prompt], [clip]))
        tokenizer = critic.processor.tokenizer
        with torch.inference_mode():
            output = critic.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=request["max_tokens"],
                output_logits=True,
                return_dict_in_generate=True,
            )
        ids = output.sequences[0, inputs["input_ids"].shape[1] :]
        message = self.replies.pop(0) if self.replies else tokenizer.decode(ids, skip_special_tokens=True)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": message}}
        if request.get("logprobs"):
            top = output.logits[0][0].log_softmax(-1).topk(request["top_logprobs"])
            best = [
                {"token": tokenizer.decode([i]), "logprob": p}
                for p, i in zip(top.values.tolist(), top.indices.tolist())
            ]
            choice["logprobs"] = {"content": [{**best[0], "top_logprobs": best}]}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return {
            "id": "0",
            "object": "chat.completion",
            "created": 0,
            "model": "t",
            "choices": [choice],
            "usage": usage,
        }


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append({"path": self.path, "headers": dict(self.headers), **request})
            reply = self.server.complete(request) if self.server.status == 200 else {"error": "out of memory"}
        body = json.dumps(reply).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve(critic: LiFTCritic) -> Iterator[ChatServer]:
    server = ChatServer(critic)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
