"""What gives rewards, by the name that a user writes: a released judge, or a critic of the disk or the Hub."""

from typing import Any

import torch
from accelerate.logging import get_logger

from .alignment.score import CriticSource, NamedRewardModel
from .critic.lift_critic import LiFTCritic
from .judges import JUDGES, judge_name, load_judge, named_judge
from .runtime import process_state


logger = get_logger(__name__)


def reward_source(
    name: str,
    *,
    revision: str | None = None,
    scale: str | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> CriticSource:
    """
    A critic, chat VLM or released judge, in memory only while it scores.

    Args:
        name: `video_reward` or another of `JUDGES`; the same with weights of its own, `video_reward=FOLDER`; or a
            critic's or chat VLM's folder or repo[@revision].
        scale: of a judge, as `load_judge` takes it.
        device: that of the process that scores, by default.
        options: how a critic is held, as `LiFTCritic.from_pretrained` takes them. A judge is held as it was released.

    Raises:
        ValueError, FileNotFoundError: if there is no such judge or critic, or `scale` is given for a critic.
    """
    if (judge := named_judge(name)) is not None:
        if not_taken := [option for option in ("quantization", "device_map") if options.get(option)]:
            logger.warning("%s is held as it was released: %s is a critic's", judge.name, " and ".join(not_taken))
        return judge_source(judge.name, model=judge.model, revision=revision, scale=scale, device=device)
    if scale is not None:
        raise ValueError(
            f"critic {name!r}: scale={scale!r} is of the values of {', '.join(JUDGES)}; leave it out, or name one of these."
        )
    return CriticSource(*LiFTCritic.when_needed(name, revision=revision, device=device, **options))


def judge_source(
    judge: str,
    *,
    model: str | None = None,
    revision: str | None = None,
    scale: str | None = None,
    device: torch.device | str | None = None,
) -> CriticSource:
    """A released judge in memory only while it scores; `model`, `revision` and `scale` as `load_judge` takes them."""
    options = {"model": model, "revision": revision, "scale": scale}

    def load() -> NamedRewardModel:
        return load_judge(judge, **options, device=device or process_state().device)

    return CriticSource(judge_name(judge, **options), load)
