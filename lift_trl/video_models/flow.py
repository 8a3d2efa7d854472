"""What flow-matching families share: x_t = (1 - s) x_0 + s noise, target noise - x_0, the network's clock at 1000 s.

s in (0, 1] is the noise level. Which levels a family trains on is its density; a quantile of it is what the trainer draws.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..records import NoisySample


def check_flow(scheduler: Any, family: str) -> None:
    """
    Raises `ValueError` unless `scheduler` samples a flow.

    FlowMatchEuler has no `prediction_type`; from_config keeps foreign keys, so the class and `use_flow_sigmas` tell.
    """
    config = scheduler.config
    is_flow = config.get("use_flow_sigmas", False) and config.get("prediction_type") == "flow_prediction"
    if not (is_flow or type(scheduler).__name__.startswith("FlowMatchEuler")):
        raise ValueError(
            f"{type(scheduler).__name__} (prediction_type {config.get('prediction_type')!r}) does not sample a flow; "
            f"{family} needs FlowMatchEulerDiscreteScheduler, or UniPCMultistepScheduler with use_flow_sigmas. Restore the "
            "checkpoint's own scheduler_config.json."
        )
    if config.get("stochastic_sampling", False):
        raise ValueError(
            f"{family}: a scheduler with stochastic_sampling draws noise anew at every step, as checkpoints distilled to a "
            "few steps need it; training them as a flow undoes that. Use the checkpoint that was not distilled."
        )
    if config.get("invert_sigmas", False):
        raise ValueError(
            f"{family}: a scheduler with invert_sigmas runs its clock backwards, which no adapter here knows."
        )


def shift_of(scheduler: Any) -> float:
    """The checkpoint's own shift of noise levels: `flow_shift` of UniPC, `shift` of FlowMatchEuler."""
    name = "flow_shift" if scheduler.config.get("use_flow_sigmas", False) else "shift"
    return float(scheduler.config[name])


def noise_levels(scheduler: Any, quantiles: Tensor, num_tokens: int) -> Tensor:
    """
    float32 [B]: the noise levels at `quantiles` (i64 [B]) of the density that the checkpoint was made for.

    A scheduler with one shift: uniform levels, shifted; quantile k is entry k of its own table of 1000. One whose shift
    grows with the number of tokens: logit-normal around that shift, with deviation 1; quantile k is the middle of its part.

    Source: FlowMatchEulerDiscreteScheduler.__init__ of diffusers 0.42; timestep_samplers.py of Lightricks/LTX-Video-Trainer.
    """
    config = scheduler.config
    num = config.num_train_timesteps
    if not config.get("use_dynamic_shifting", False):
        shift = shift_of(scheduler)
        level = (quantiles.float() + 1) / num
        return shift * level / (1 + (shift - 1) * level)
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mean = config.base_shift + slope * (num_tokens - config.base_image_seq_len)
    middle = (quantiles.double() + 0.5) / num
    return torch.sigmoid(mean + math.sqrt(2) * torch.erfinv(2 * middle - 1)).float()


def corrupt(scheduler: Any, latents: Tensor, noise: Tensor, levels: Tensor) -> NoisySample:
    """The straight path at `levels` (float32 [B]) and its velocity, in float32; timesteps are not rounded."""
    x0, noise = latents.float(), noise.float()
    level = levels.view(-1, *[1] * (x0.ndim - 1))
    return NoisySample((1 - level) * x0 + level * noise, levels * scheduler.config.num_train_timesteps, noise - x0)


def check_frames(num_frames: int, step: int, family: str) -> None:
    """Raises `ValueError` naming the nearest legal counts unless `num_frames` is `step` * N + 1."""
    if num_frames < 1 or (num_frames - 1) % step:
        below = 1 + step * (max(num_frames - 1, 0) // step)
        raise ValueError(
            f"num_frames={num_frames}: {family} takes {step}N + 1 frames (other counts are cut without an error). Nearest "
            f"legal values: {below} and {below + step}."
        )


def check_multiple(height: int, width: int, multiple: int) -> None:
    """Raises `ValueError` naming the nearest legal value unless both are multiples of `multiple` pixels."""
    for name, value in (("height", height), ("width", width)):
        if value < multiple or value % multiple:
            nearest = max(multiple, multiple * math.floor(value / multiple + 0.5))
            raise ValueError(f"{name}={value}: must be a multiple of {multiple}. Nearest legal value: {nearest}.")
