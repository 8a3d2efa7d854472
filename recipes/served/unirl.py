"""A served critic as the reward of UniRL. In its YAML:

    backend: {_target_: recipes.served.unirl.LiftRewardBackend, base_device: cpu, config: {
      _target_: recipes.served.unirl.LiftRewardSpec, url: http://127.0.0.1:8000, fps: 8}}

Checked against unirl/reward/base.py and unirl/types/reward.py of Tencent-Hunyuan/UniRL at 104aad6 and 17863c4.
"""

import os
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass

from unirl.reward.base import BaseRewardComponentSpec, RewardBackend
from unirl.types.reward import RewardRequest, RewardResponse

from lift_trl.serving.client import encode_clip, score_clips


@dataclass
class LiftRewardSpec(BaseRewardComponentSpec):
    url: str
    fps: float = 8.0
    token_env: str = "LIFT_TRL_TOKEN"


class LiftRewardBackend(RewardBackend):
    input_kind = "video"

    def __init__(self, *, config: LiftRewardSpec, base_device: str) -> None:
        super().__init__(model_name="lift")
        self.config = config

    def covers_prompt_video(self) -> bool:
        return True

    def is_available(self) -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"{self.config.url}/health", timeout=5).status == 200
        return False

    def compute_rewards(self, request: RewardRequest) -> RewardResponse:
        started_s, c = time.monotonic(), self.config
        clips = [encode_clip(v.permute(1, 2, 3, 0).float().cpu().numpy(), fps=c.fps) for v in request.videos]
        rows = score_clips(c.url, self.prompts(request), clips, token=os.environ.get(c.token_env))
        problems, done = [row["unscored"] for row in rows], [row["unscored"] is None for row in rows]
        # UniRL stops at what did not succeed, so the 0 is never trained on.
        values = [0.0 if row["reward"] is None else row["reward"] for row in rows]
        return RewardResponse(values, {"lift": values}, done, problems, time.monotonic() - started_s)
