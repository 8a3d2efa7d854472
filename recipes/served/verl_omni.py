"""A served critic as the reward function of verl-omni: custom_reward_function.path=recipes/served/verl_omni.py, with
reward_kwargs of server_url and, where the batch names no frame rate, fps.

Its own HTTP client sends pickles; this one sends JSON with an mp4. Checked against `compute_score` of
verl_omni/utils/reward_score/videoalign.py and http_scorer_client.py of verl-project/verl-omni at dc5e749 and 0ef63e5.
"""

import asyncio
import os
from typing import Any

from lift_trl.serving.client import encode_clip, rewards, score_clips


async def compute_score(
    data_source: Any = None,
    solution_image: Any = None,
    ground_truth: str | None = None,
    extra_info: dict[str, Any] | None = None,
    *,
    server_url: str,
    fps: float | None = None,
    **kwargs: Any,
) -> dict[str, float]:
    """The reward of one clip, [T, C, H, W], uint8 or in [0, 1], under the prompt `ground_truth`."""
    fps = fps if fps is not None else (extra_info or {})["fps"]
    frames = solution_image.permute(0, 2, 3, 1).cpu()
    frames = (frames.float() if frames.is_floating_point() else frames).numpy()

    def ask() -> dict[str, float]:
        clip = encode_clip(frames, fps=float(fps))
        rows = score_clips(server_url, [ground_truth or ""], [clip], token=os.environ.get("LIFT_TRL_TOKEN"))
        return {"score": rewards(rows)[0]}

    return await asyncio.get_running_loop().run_in_executor(None, ask)
