"""lift_trl: align text-to-video models with human feedback (LiFT, arXiv 2412.04814)."""

from importlib import import_module
from typing import Any


__version__ = "0.1.0.dev0"

# Public name -> module. Imported on first use, so that `import lift_trl` costs no torch.
_EXPORTS = {
    "Annotation": "records",
    "CachedVideoDataset": "alignment.data.video_dataset",
    "CriticScore": "records",
    "Dimension": "rubric",
    "Judgement": "records",
    "Label": "rubric",
    "LiFTCritic": "critic.lift_critic",
    "LiFTCriticConfig": "critic.critic_config",
    "LiFTCriticTrainer": "critic.critic_trainer",
    "RatedVideo": "records",
    "RewardModel": "protocols",
    "RewardWeightedVideoConfig": "alignment.reward_weighted_config",
    "RewardWeightedVideoTrainer": "alignment.reward_weighted_trainer",
    "ServedCritic": "critic.served",
    "VideoModel": "protocols",
    "cache_videos": "alignment.data.cache",
    "generate_videos": "alignment.sampling.generate",
    "load_hra": "feedback.hra",
    "load_rated_videos": "store.rated_videos",
    "score_videos": "alignment.score",
    "stream_cached_videos": "alignment.data.cache_stream",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
