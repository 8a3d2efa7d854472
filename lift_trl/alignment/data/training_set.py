"""What `RewardWeightedVideoTrainer` is given, as a cached dataset with the objective's weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.logging import get_logger

from ...store.rated_videos import load_rated_videos
from ...video_models import PipelineSource
from ..objectives import Objective
from ..reward_weighted_config import RewardWeightedVideoConfig
from .cache import CacheKeys, cache_videos
from .clips import ClipSize
from .ratings import rubric_of
from .video_dataset import CachedVideoDataset


if TYPE_CHECKING:
    from datasets import Dataset

logger = get_logger(__name__)

#: Where in `output_dir` raw rows and validation prompts are encoded to. It holds prompts and ratings, and is never pushed.
CACHE_DIR = "_cache"


def prepare_dataset(
    dataset: "CachedVideoDataset | Dataset | Path | str | None",
    source: PipelineSource,
    args: RewardWeightedVideoConfig,
    split: str,
    objective: Objective,
) -> CachedVideoDataset | None:
    """
    `dataset` cached by the model of `source`, as `objective` trains on it.

    Raises:
        ValueError: if it is a stream, was cached by another model or in another size, or cannot be weighted as asked.
    """
    if dataset is None:
        return None
    if isinstance(dataset, CachedVideoDataset):
        _check_cache(dataset, source, args)
    else:
        dataset = CachedVideoDataset(_cache(dataset, source, args, split))
    weights = args.clip_dimension_weights()
    generated = [video for video in dataset.videos if not video.is_real]
    if args.expected_reward and (missing := sum(video.expected_reward is None for video in generated)):
        raise ValueError(
            f"expected_reward: {missing} clips have none. Score them with recipes/score.py, or leave expected_reward out."
        )
    if weights and (unlabelled := sum(not video.labels for video in generated)):
        raise ValueError(
            f"dimension_weights act on labels, but {unlabelled} clips have only a reward. Leave dimension_weights out, or "
            "give the labels of these clips."
        )
    chosen = dataset.weighted(args, objective)
    if notes := chosen.training_rows.notes:
        logger.info("%s, %s: %s", split, objective.name, ", ".join(f"{name} {n:g}" for name, n in notes.items()))
    for warning in chosen.training_rows.warnings:
        logger.warning("%s, %s: %s", split, objective.name, warning)
    return chosen


def prepare_evaluation(
    dataset: Any, source: PipelineSource, args: RewardWeightedVideoConfig, objective: Objective
) -> Any:
    """As `prepare_dataset`; of a dict each of its sets, by name, as the Trainer takes them."""
    if not isinstance(dataset, dict):
        return prepare_dataset(dataset, source, args, "eval", objective)
    return {name: prepare_dataset(one, source, args, f"eval_{name}", objective) for name, one in dataset.items()}


def first_dataset(*datasets: Any) -> CachedVideoDataset:
    """
    The first dataset there is; evaluation sets may be a dict of several.

    Raises:
        ValueError: if there is none.
    """
    for dataset in datasets:
        for one in dataset.values() if isinstance(dataset, dict) else [dataset]:
            if one is not None:
                return one
    raise ValueError("give a train_dataset or an eval_dataset: rated clips, or a CachedVideoDataset.")


def _cache(dataset: Any, source: PipelineSource, args: RewardWeightedVideoConfig, split: str) -> Path:
    """The folder that raw rows are encoded into."""
    from datasets import IterableDataset, IterableDatasetDict

    if isinstance(dataset, IterableDataset | IterableDatasetDict):
        raise ValueError(
            f"the {split} dataset is a stream, but weights need the counts of all its rows: load it without "
            "streaming=True, or encode it with recipes/cache.py and pass CachedVideoDataset(folder or repo)."
        )
    videos = load_rated_videos(dataset)
    rubric_of(videos).check_dimension_weights(args.clip_dimension_weights())
    return cache_videos(
        source,
        videos,
        Path(args.cache_dir or Path(args.output_dir or ".") / CACHE_DIR) / split,
        num_frames=args.num_frames,
        height=args.height,
        width=args.width,
        fps=args.fps,
        extra_prompts=args.validation_prompts or (),
        state=args.distributed_state,
    )


def _check_cache(dataset: CachedVideoDataset, source: PipelineSource, args: RewardWeightedVideoConfig) -> None:
    config, encoder = dataset.artifact.config, dataset.artifact.parents.get("model")
    for name in ("num_frames", "height", "width", "fps"):
        if getattr(args, name) not in (None, config[name]):
            raise ValueError(
                f"{name}={getattr(args, name)}, but {dataset.folder} was encoded with {name}={config[name]}. Leave {name} "
                "out, or encode it again with recipes/cache.py."
            )
    if args.cache_dir is not None:
        logger.warning(
            "cache_dir=%s is not used: %s is encoded already. Leave it out.", args.cache_dir, dataset.folder
        )
    if source.on_hub and encoder == source.identity:
        return  # the same commit: nothing to hash, so text encoder and VAE need not be fetched
    size = ClipSize(*(config[name] for name in ("num_frames", "height", "width", "fps")))
    keys = CacheKeys.of(source, size, getattr(torch, config["dtype"]))
    if (keys.text, keys.video) != (config["text_fingerprint"], config["video_fingerprint"]):
        raise ValueError(
            f"{dataset.folder}: was encoded by {encoder}, whose VAE or text encoder is not that of {source.name}. Encode it "
            "again with recipes/cache.py, or name the model that made it."
        )
