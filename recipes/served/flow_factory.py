"""A served critic as a reward of Flow-Factory. In its YAML:

    rewards:
      - name: lift
        reward_model: recipes.served.flow_factory.LiftReward
        server_url: http://127.0.0.1:8000
        video_fps: 8
        batch_size: 8

Checked against src/flow_factory/rewards/abc.py of X-GenGroup/Flow-Factory at 5f6cda1.
"""

import os

import numpy as np
import torch
from flow_factory.rewards.abc import PointwiseRewardModel, RewardModelOutput

from lift_trl.serving.client import encode_clip, rewards, score_clips


class LiftReward(PointwiseRewardModel):
    required_fields = ("prompt", "video")
    use_tensor_inputs = False

    def __call__(self, prompt: list[str], video: list | None = None, **kwargs: object) -> RewardModelOutput:
        if video is None:
            raise ValueError("LiftReward judges videos, and this batch has none.")
        clips = [
            encode_clip(np.stack([np.asarray(frame.convert("RGB")) for frame in frames]), fps=self.config.video_fps)
            for frames in video
        ]
        rows = score_clips(self.config.server_url, prompt, clips, token=os.environ.get("LIFT_TRL_TOKEN"))
        return RewardModelOutput(
            rewards=torch.tensor(rewards(rows), dtype=torch.float32, device=self.device),
            extra_info={"critic": rows[0]["critic"]},
        )
