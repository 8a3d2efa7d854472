"""Plans of the critic's stages: training it, and scoring with it."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config

from ..alignment.data.clips import ClipSize
from ..critic.critic_config import LiFTCriticConfig, model_init_kwargs
from ..critic.settings import ADAPTER_CONFIG, CriticSettings, load_settings
from ..hub_source import pinned
from ..judges import named_judge
from ..rubric import LIFT, Rubric
from ..store.quantization import Quantization
from ..store.rubrics.form import read_rubric
from ..store.rubrics.of_data import find_rubric
from .plan import Job, Part, Plan
from .recipe import Recipe
from .stages.critic import CriticStages
from .stages.judges import count_judge
from .video_planners import video_stages
from .weightless.configured_vlm import ConfiguredVLM
from .weightless.depth import at_batch
from .weightless.meter import Count, linear


# Of a clip where no YAML says: that of LiFT-HRA.
_SIZE = ClipSize(49, 480, 720, 8.0)
# As `LiFTCritic` cuts a reason; shorter ones cost less.
_REASON_TOKENS = 64
_CRITIC_BATCH = 8  # clips, where no YAML says: the recipes' own default
_BYTES_A_SCORE = 3000  # one row with three reasons, at most


def plan_train_critic(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """The trainer's steps over all epochs: a row for each of a clip's dimensions, and the pairs dealt out to them."""
    return _training_plan(recipe, job, num_gpus, _trained_stages(recipe))


def _trained_stages(recipe: Recipe) -> CriticStages:
    """Of the critic that `recipe` trains."""
    vlm = ConfiguredVLM(recipe.require("model_name_or_path"), revision=recipe.settings.get("model_revision"))
    settings = _critic_args(recipe.settings).critic_settings(_rubric(recipe.settings))
    return CriticStages(vlm, settings, _SIZE.height, _SIZE.width)


def _training_plan(recipe: Recipe, job: Job, num_gpus: int, stages: CriticStages) -> Plan:
    args, dtype, vlm = _critic_args(recipe.settings), _dtype(recipe.settings, stages.vlm), stages.vlm
    rubric = stages.settings.rubric
    rows = job.clips * len(rubric.dimensions)
    pairs = job.pairs if recipe.settings.get("preferences") else 0
    one, two, spared = _steps(recipe.settings, stages, pairs / rows)
    batch = args.per_device_train_batch_size
    # The peak is that of a batch whose every row has pairs, the work that of a mean one.
    count = linear([(1.0, at_batch(one, two, batch)), (-batch, spared)])
    rows_a_step = batch * num_gpus * args.gradient_accumulation_steps
    seen = args.max_steps * rows_a_step if args.max_steps > 0 else rows * args.num_train_epochs
    gathered = vlm.gathered_bytes(dtype)
    part = Part("training step", count, seen / batch, batch, (one, two), unit="rows", gathered=gathered)
    trained = count.peak.get("trained weights", 0.0)
    dimensions, pixels = len(rubric.dimensions), f"{_SIZE.height} x {_SIZE.width} pixels"
    notes = [
        f"{rows_a_step} rows a step, {dimensions} rows a clip; clips of {pixels}",
        "evaluations, and decoding on the CPU, are not counted",
    ]
    if pairs:
        notes.append(f"{pairs} pairs (--pairs) are taken to be compared overall, which is the most that a pair costs")
    disk = {"a checkpoint (weights and optimiser)": 3 * trained}
    return Plan("train_critic", vlm.name_or_path, [part], disk, notes)


def _steps(settings: Mapping[str, Any], stages: CriticStages, pairs_a_row: float) -> tuple[Count, Count, Count]:
    """Batches of one row and of two, with the most pairs that a row has; and what a mean row spares of the work."""
    args, lora, dtype = _critic_args(settings), _lora(settings), _dtype(settings, stages.vlm)
    most = math.ceil(pairs_a_row)
    one, two = (stages.step(args, lora, dtype, batch, pairs=most) for batch in (1, 2))
    if not most:
        return one, two, Count()
    without = stages.step(args, lora, dtype, 1)
    spared = linear([(1.0 - pairs_a_row / most, one), (pairs_a_row / most - 1.0, without)])
    return one, two, replace(spared, peaks={})


def plan_correct(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """
    Three critics, on either half of the ratings and on all of them, and what they say of the clips. Epochs are of that many
    ratings; of `max_steps` each critic has as many as the others.
    """
    stages = _trained_stages(recipe)
    plan = _training_plan(recipe, job, num_gpus, stages)
    (part,) = plan.parts
    times = 3 if _critic_args(recipe.settings).max_steps > 0 else 2
    scored = _scoring(stages, job.clips, _CRITIC_BATCH, reasons=stages.settings.with_reason)
    return replace(plan, stage="correct", parts=[replace(part, runs=times * part.runs), scored])


def plan_evaluate_critic(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """The held-out clips through a critic, which writes no reasons then."""
    plan = plan_score(replace(recipe, settings={**recipe.settings, "with_reason": False}), job, num_gpus)
    notes = [*plan.notes, "the clips of the sanity suite, which are scored again, are not counted"]
    return replace(plan, stage="evaluate_critic", notes=notes)


def plan_score(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """Each clip through a critic."""
    settings, size = recipe.settings, _clip_size(recipe)
    if settings.get("base_url"):
        raise ValueError(f"{recipe.path}: what answers at base_url is not counted. Name its weights as critic.")
    disk = {"scores, at most": float(job.clips * _BYTES_A_SCORE)}
    notes = [f"clips of {size.height} x {size.width} pixels; decoding, on the CPU, is not counted"]
    if settings.get("judge"):
        clip = count_judge(settings["judge"], size, model=settings.get("critic"))
        notes += [f"answers of {clip.num_tokens} tokens, the most there is"] if clip.num_tokens else []
        return Plan("score", settings["judge"], [Part("judging", clip.count, job.clips)], disk, notes)
    reasons = settings.get("with_reason", True)
    notes += [f"reasons of {_REASON_TOKENS} tokens each, the most there is"] if reasons else []
    revision, quantization = settings.get("critic_revision"), settings.get("quantization")
    stages = _critic_stages(recipe, recipe.require("critic"), size, quantization, revision)
    part = _scoring(stages, job.clips, settings.get("batch_size", _CRITIC_BATCH), reasons=reasons)
    return Plan("score", settings["critic"], [part], disk, notes)


def judging_part(recipe: Recipe, critic: str, num_videos: int, size: ClipSize) -> Part:
    """Videos through a critic or judge that `recipe` names: the labels alone."""
    if (judge := named_judge(critic)) is not None:
        return Part(f"judging ({judge.name})", count_judge(judge.name, size, model=judge.model).count, num_videos)
    settings = recipe.settings
    revision = settings.get("critic_revision") if critic == settings.get("critic") else None
    stages = _critic_stages(recipe, critic, size, settings.get("critic_quantization"), revision)
    return _scoring(stages, num_videos, recipe.settings.get("critic_batch_size", _CRITIC_BATCH), reasons=False)


def _scoring(stages: CriticStages, clips: int, batch: int, *, reasons: bool) -> Part:
    tokens = _REASON_TOKENS if reasons and stages.settings.with_reason else 0
    one, two = (stages.scoring(number, reason_tokens=tokens) for number in (1, 2))
    count = at_batch(one, two, batch)
    return Part(f"scoring ({stages.vlm.name_or_path})", count, clips / batch, batch, (one, two))


def _critic_stages(
    recipe: Recipe, critic: str, clip: ClipSize, quantization: Quantization | None, revision: str | None
) -> CriticStages:
    """A critic that is there, or the one that a YAML beside `recipe` will train."""
    size = clip.height, clip.width
    if (Path(critic) / ADAPTER_CONFIG).is_file():
        lora = LoraConfig.from_pretrained(critic)
        vlm = ConfiguredVLM(lora.base_model_name_or_path)
        return CriticStages(vlm, load_settings(critic), *size, lora=lora, quantization=quantization)
    if not Path(critic).is_dir() and (writer := recipe.writer_of(critic)) is not None:
        settings = _critic_args(writer.settings).critic_settings(_rubric(writer.settings))
        vlm = ConfiguredVLM(writer.require("model_name_or_path"))
        return CriticStages(vlm, settings, *size, lora=_lora(writer.settings), quantization=quantization)
    if not Path(critic).is_dir() and pinned(critic).repo_id.count("/") != 1:
        raise ValueError(
            f"{recipe.path}: critic {critic!r} is no folder yet, and no YAML beside this one writes it. Train it first, "
            "or name its base on the Hub."
        )
    given = recipe.settings.get("rubric")
    settings = CriticSettings(rubric=LIFT if given is None else read_rubric(given))
    vlm = ConfiguredVLM(critic, revision=revision)
    # Of a critic that its family loads with its LoRA, the folder holds both configurations.
    lora = LoraConfig.from_pretrained(vlm.folder) if (Path(vlm.folder) / ADAPTER_CONFIG).is_file() else None
    return CriticStages(vlm, settings, *size, lora=lora, quantization=quantization)


def _clip_size(recipe: Recipe) -> ClipSize:
    """Of the clips that are scored, where a YAML beside this one generates them."""
    writer = recipe.writer_of(str(recipe.settings.get("videos")))
    if writer is None or "model_name_or_path" not in writer.settings:
        return _SIZE
    return video_stages(writer.settings).size


def _rubric(settings: Mapping[str, Any]) -> Rubric:
    """As the recipes find it; ratings on the Hub are not asked for theirs."""
    given, ratings = settings.get("rubric"), settings.get("hra")
    if ratings is not None and Path(ratings).exists():
        return find_rubric(ratings, given)
    return LIFT if given is None else read_rubric(given)


def _critic_args(settings: Mapping[str, Any]) -> LiFTCriticConfig:
    names = {one.name for one in fields(LiFTCriticConfig) if one.init}
    given = {name: value for name, value in settings.items() if name in names}
    given |= {"fp16": False, "bf16": True, "use_cpu": True, "report_to": [], "eval_strategy": "no"}
    return LiFTCriticConfig(**given)


def _lora(settings: Mapping[str, Any]) -> LoraConfig | None:
    """
    As the recipe reads it; the modules are those of the family, unless the YAML names some. Of an earlier critic to go on
    from it is that critic's, where it is a folder.
    """
    adapter = settings.get("adapter")
    if adapter is not None and (Path(adapter) / ADAPTER_CONFIG).is_file():
        earlier = LoraConfig.from_pretrained(adapter)
        assert isinstance(earlier, LoraConfig)
        return replace(earlier, inference_mode=False)
    lora = get_peft_config(_model_args({**settings, "use_peft": settings.get("use_peft") or adapter is not None}))
    assert lora is None or isinstance(lora, LoraConfig)  # TRL makes no other
    return lora


def _model_args(settings: Mapping[str, Any]) -> ModelConfig:
    names = {one.name for one in fields(ModelConfig) if one.init}
    return ModelConfig(**{name: value for name, value in settings.items() if name in names and value is not None})


def _dtype(settings: Mapping[str, Any], vlm: ConfiguredVLM) -> torch.dtype:
    """Of the base that is trained on, `auto` that of its checkpoint; half precision is bfloat16, which a CPU runs."""
    plain = {name: value for name, value in settings.items() if not name.startswith("load_in_")}
    named = model_init_kwargs(_model_args(plain), settings.get("model_init_kwargs"))["dtype"]
    found = vlm.config().dtype if named == "auto" else named
    found = getattr(torch, found) if isinstance(found, str) else found or torch.float32
    assert isinstance(found, torch.dtype)
    return torch.bfloat16 if found == torch.float16 else found
