"""Iterated LiFT: generate, score, cache, align, and again, each round from the LoRA of the round before."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.logging import get_logger
from peft import LoraConfig
from transformers import IntervalStrategy

from ..hub.lora.origin import adapter_identity
from ..records import content_id, placeless, seed_from
from ..runtime import fit, release_memory
from ..store.manifest import ARTIFACT_FILE, METADATA_FILE, Artifact, read_rows
from ..store.rated_videos import load_rated_videos
from ..video_models import PipelineSource, open_pipeline
from .data.cache import cache_videos, clip_parents
from .data.video_dataset import CachedVideoDataset
from .guard import Curves, Guard, Verdicts, check_other, read_verdicts
from .objectives import Loss, Objective, choose_objective
from .reward_weighted_config import RUN_SETTINGS, RewardWeightedVideoConfig
from .reward_weighted_trainer import RewardWeightedVideoTrainer
from .sampling.generate import PromptSeed, generate_videos, read_prompts
from .sampling.settings import Sampling
from .score import CriticSource, score_videos


logger = get_logger(__name__)

#: The stages of a round and the folders of their artefacts.
GENERATED, SCORED, CACHE, LORA = "generated", "scored", "cache", "lora"
#: Where the guard's clips are, and what the other judge says of them.
GUARD, JUDGED = "guard", "judged"
# What a finished LoRA says of its training, and is compared by when the run is started again.
_TRAINING = (
    *(*RUN_SETTINGS, "max_steps", "num_train_epochs"),
    *("lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm"),
)
# Of a finished artefact what every version wrote down; a setting that is new is not compared with those of an earlier one.
_ALWAYS = ("model", "critic", "adapter", "clips")


def iterate(
    model: str | Path | PipelineSource,
    critic: CriticSource,
    prompts: Path | str,
    args: RewardWeightedVideoConfig,
    *,
    rounds: int,
    peft_config: LoraConfig,
    sampling: Sampling,
    videos_per_prompt: int = 1,
    real: Sequence[Path | str] = (),
    adapter: Path | str | None = None,
    critic_batch_size: int = 8,
    rows_per_shard: int = 100,
    guard: Guard | None = None,
    objective: Objective | Loss | None = None,
) -> Path:
    """
    Repeats generate, score, cache and align, from the last LoRA each time; returns the folder of the last one, or of the one
    that the guard goes back to.

    `round_1/`, `round_2/`, ... in `args.output_dir` hold `generated/`, `scored/`, `cache/` and `lora/`. Each round samples
    and trains with a seed of its own, made of `args.seed` and its number. Kill it at any time and call it again: finished
    artefacts are kept, an unfinished one goes on; more rounds are added to those that are there. One model is in memory at
    a time.

    Args:
        prompts: what `read_prompts` takes; no row may have a seed of its own.
        rounds: how often.
        sampling: how each round's videos are sampled; real clips are resized to the same size.
        peft_config: of every round's LoRA; a round goes on training the LoRA of the last one.
        real: folders or repos of clips that every round trains on beside its own samples.
        adapter: a LoRA that the first round starts from instead of the base.
        critic_batch_size: clips that the critic sees at once.
        guard: samples the base and every round on seeds of its own (`guard/`), lets another judge look, and warns, stops or
            goes back where the reward is exploited. `guard.md` in `output_dir` has both curves.
        objective: one of your own for each round's trainer, instead of that of `args`.

    Raises:
        RuntimeError: if the guard fires, is to go back to the best round, and no round in which it was silent is better
            than the start.
        ValueError: if an argument does not apply, the guard's judge is the critic, or a finished artefact was made with
            other settings.
    """
    if guard is not None:
        check_other(guard.judge, critic)
    source = open_pipeline(model)
    chosen = choose_objective(objective, args.objective)
    _check(source, args, rounds)
    sampling, state = sampling.sized(source), args.distributed_state
    seeds = [seed_from("round", args.seed, number) % 2**32 for number in range(1, rounds + 1)]
    plans = [read_prompts(prompts, videos_per_prompt=videos_per_prompt, seed=seed) for seed in seeds]
    if len({video.id for videos in plans for video in videos}) < sum(map(len, plans)):
        raise ValueError(
            f"{prompts}: rows with a seed would be the same videos in each round. Leave out the column seed."
        )
    if chosen.compares and max(Counter(video.prompt for video in plans[0]).values()) < 2:
        raise ValueError(
            f"objective={chosen.name!r} compares videos of one prompt, and videos_per_prompt={videos_per_prompt}: give 2 or "
            "more."
        )
    watch = None
    if guard is not None:
        watch = _Watch(guard, critic, source, prompts, args, sampling, critic_batch_size, adapter)
    for number, (seed, videos) in enumerate(zip(seeds, plans, strict=True), start=1):
        folder = Path(args.output_dir or ".") / f"round_{number}"
        logger.info("round %d of %d, from %s", number, rounds, adapter or "the base")
        _generate(source, videos, folder, sampling, adapter, state)
        _score(critic, videos, folder, critic_batch_size, state)
        _cache(source, [folder / SCORED, *real], folder / CACHE, sampling, rows_per_shard, args)
        own = copy(args)
        own.output_dir, own.seed = str(folder / LORA), seed
        _align(source, own, folder / CACHE, peft_config, adapter, chosen)
        adapter = folder / LORA
        if watch is not None and (kept := watch(number, adapter)) is not None:
            return kept
    return Path(str(adapter))


class _Watch:
    """The guard at work: called after each round, returns the LoRA to end with, or `None` to go on."""

    def __init__(
        self,
        guard: Guard,
        critic: CriticSource,
        source: PipelineSource,
        prompts: Path | str,
        args: RewardWeightedVideoConfig,
        sampling: Sampling,
        batch_size: int,
        start: Path | str | None,
    ) -> None:
        self.guard, self.critic, self.source, self.args = guard, critic, source, args
        self.sampling, self.batch_size = sampling, batch_size
        self.output_dir = Path(args.output_dir or ".")
        seed = seed_from("guard", args.seed) % 2**32
        self.videos = read_prompts(prompts, videos_per_prompt=guard.videos_per_prompt, seed=seed)
        self.curves = Curves(*self._verdicts(0, start))

    def _folder(self, number: int) -> Path:
        return self.output_dir / GUARD / (f"round_{number}" if number else "base")

    def _verdicts(self, number: int, adapter: Path | str | None) -> tuple[Verdicts, Verdicts]:
        """Of the critic and of the other judge."""
        folder, state = self._folder(number), self.args.distributed_state
        _generate(self.source, self.videos, folder, self.sampling, adapter, state)
        _score(self.critic, self.videos, folder, self.batch_size, state)
        _score(self.guard.judge, self.videos, folder, self.batch_size, state, name=JUDGED)
        return read_verdicts(folder / SCORED), read_verdicts(folder / JUDGED)

    def __call__(self, number: int, adapter: Path) -> Path | None:
        """
        Judges round `number`, whose LoRA is `adapter`.

        Raises:
            RuntimeError: if it is to go back to the best round and there is none but the start.
        """
        reward, judge = self._verdicts(number, adapter)
        drift = self.guard.drift
        warnings = () if drift is None else drift(self._folder(0) / GENERATED, self._folder(number) / GENERATED)
        check = self.curves.add(reward, judge, warnings)
        if self.args.distributed_state.is_main_process:
            self.curves.save(self.output_dir)
        for warning in warnings:
            logger.warning("round %d: %s", number, warning)
        logger.info("round %d: reward %.3f, other judge %.3f", number, check.reward, check.judge)
        if not check.reasons:
            return None
        message = f"round {number}: the reward is exploited: {'; '.join(check.reasons)}"
        logger.warning("%s. Look at %s before you use it.", message, self._folder(number) / GENERATED)
        if self.guard.action != "best":
            return adapter if self.guard.action == "stop" else None
        if self.curves.best == 0:
            raise RuntimeError(
                f"{message}. By the other judge no round is better than the start, those aside in which the reward is "
                f"exploited, so none is handed back: mend the reward, or set guard_action to warn or stop. "
                f"{self.output_dir / 'guard.md'} has the rounds, whose LoRAs are kept beside it."
            )
        return self.output_dir / f"round_{self.curves.best}" / LORA


def _check(source: PipelineSource, args: RewardWeightedVideoConfig, rounds: int) -> None:
    refused = [
        (rounds < 1, f"rounds={rounds}; give 1 or more."),
        (not source.reloads, "every round loads the model anew: give its folder or Hub id, not a pipeline."),
        (args.resume_from_checkpoint is not None, "resume_from_checkpoint: rounds find their own; leave it out."),
        (
            args.eval_strategy != IntervalStrategy.NO,
            f"eval_strategy={IntervalStrategy(args.eval_strategy).value}: rounds hold no clips out; leave it out.",
        ),
        (
            args.fps not in (None, source.adapter.fps),
            f"fps={args.fps}: the rounds' own videos have {source.adapter.fps:g} frames a second; leave it out.",
        ),
        (args.push_to_hub, "push_to_hub: there is a LoRA a round; leave it out and `lift-trl push` the one you want."),
    ]
    for is_wrong, message in refused:
        if is_wrong:
            raise ValueError(message)


def _is_finished(folder: Path, videos: Iterable[str] = (), **made_with: Any) -> bool:
    """
    Whether the artefact is whole.

    Raises:
        ValueError: if its rows are not of `videos` (ids; none: not looked at), or its `config` or `parents` differ from
            `made_with`.
    """
    if not (folder / ARTIFACT_FILE).is_file():
        return False
    remedy = f"Name another output_dir, or delete {folder} and the stages and rounds after it."
    artifact = Artifact.load(folder)
    found = {**artifact.config, **artifact.parents}
    for name, value in json.loads(json.dumps(made_with)).items():
        if (name in found or name in _ALWAYS) and _wherever(name, found.get(name)) != _wherever(name, value):
            raise ValueError(f"{folder}: was made with {name}={found.get(name)}, now {name}={value}. {remedy}")
    if (asked := list(videos)) and asked != [row["id"] for row in read_rows(folder / METADATA_FILE)]:
        raise ValueError(f"{folder}: was made of other prompts, seeds or real clips than are given now. {remedy}")
    logger.info("%s is finished and kept", folder)
    return True


def _wherever(name: str, value: Any) -> Any:
    """What is compared of a setting: the run, the model and the critic may have been moved to another disk or machine."""
    if name == "model":
        return Path(value).name  # that it is the same one was seen from the videos
    return placeless(value) if name in ("adapter", "critic") and value else value


def _generate(
    source: PipelineSource,
    videos: Sequence[PromptSeed],
    folder: Path,
    sampling: Sampling,
    adapter: Path | str | None,
    state: PartialState,
) -> None:
    lora = None if adapter is None else adapter_identity(adapter)
    ids, target = [video.id for video in videos], folder / GENERATED
    finished = _is_finished(target, ids, model=source.identity, adapter=lora, **asdict(sampling))
    # A model that is elsewhere now is compared by its weights there, and nothing is sampled.
    if not finished or Artifact.load(target).parents["model"] != source.identity:
        generate_videos(source, videos, target, sampling=sampling, adapter=adapter, state=state)


def _score(
    critic: CriticSource,
    videos: Sequence[PromptSeed],
    folder: Path,
    batch_size: int,
    state: PartialState,
    *,
    name: str = SCORED,
) -> None:
    if not _is_finished(folder / name, [video.id for video in videos], critic=critic.name):
        score_videos(critic, folder / GENERATED, folder / name, batch_size=batch_size, state=state)


def _cache(
    source: PipelineSource,
    clips: Sequence[Path | str],
    folder: Path,
    sampling: Sampling,
    rows_per_shard: int,
    args: RewardWeightedVideoConfig,
) -> None:
    size: dict[str, Any] = {name: asdict(sampling)[name] for name in ("num_frames", "height", "width")}
    videos = [video for data in clips for video in load_rated_videos(data)]
    if not _is_finished(folder, [video.id for video in videos], model=source.identity, **size):
        prompts, state = args.validation_prompts or (), args.distributed_state
        cache_videos(
            source,
            videos,
            folder,
            rows_per_shard=rows_per_shard,
            extra_prompts=prompts,
            parents=clip_parents(clips),
            state=state,
            **size,
        )


def _align(
    source: PipelineSource,
    args: RewardWeightedVideoConfig,
    cache: Path,
    peft_config: LoraConfig,
    adapter: Path | str | None,
    objective: Objective,
) -> None:
    folder = Path(str(args.output_dir))
    dataset = CachedVideoDataset(cache)
    config = {name: getattr(args, name) for name in (*_TRAINING, *objective.options)} | {"objective": objective.name}
    config["clips_per_step"] = args.num_clips_per_step
    targets = peft_config.target_modules
    targets = targets if targets is None or isinstance(targets, str) else sorted(targets)
    config |= {"r": peft_config.r, "lora_alpha": peft_config.lora_alpha, "target_modules": targets}
    config = json.loads(json.dumps(config))  # enumerations are their texts
    parents = {"model": source.identity, "clips": content_id(*(video.id for video in dataset.videos))}
    parents |= {} if adapter is None else {"adapter": adapter_identity(adapter)}
    if _is_finished(folder, **config, **parents):
        return
    trainer = RewardWeightedVideoTrainer(
        source, args, train_dataset=dataset, peft_config=peft_config, adapter=adapter, objective=objective
    )
    fit(trainer)
    if args.distributed_state.is_main_process:
        Artifact(kind="lora", config=config, parents=parents, rubric=dataset.rubric).save(folder)
    args.distributed_state.wait_for_everyone()
    trainer.accelerator.free_memory()
    del trainer
    release_memory()
