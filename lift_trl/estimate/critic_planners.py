"""Plans of the critic's stages: training it, and scoring with it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config

from ..alignment.data.clips import ClipSize
from ..critic.critic_config import LiFTCriticConfig
from ..critic.settings import ADAPTER_CONFIG, CriticSettings, load_settings
from ..hub_source import pinned
from ..rubric import Dimension
from .plan import Job, Part, Plan
from .recipe import Recipe
from .stages.critic import CriticStages
from .stages.judges import count_judge
from .video_planners import video_stages
from .weightless.configured_vlm import ConfiguredVLM
from .weightless.depth import at_batch


# Of a clip where no YAML says: that of LiFT-HRA.
_SIZE = ClipSize(49, 480, 720, 8.0)
# As `LiFTCritic` cuts a reason; shorter ones cost less.
_REASON_TOKENS = 64
_BYTES_A_SCORE = 3000  # one row with three reasons, at most


def plan_critic_training(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
    """The trainer's steps over all epochs: a row for each of a clip's dimensions."""
    vlm = ConfiguredVLM(recipe.require("model_name_or_path"), revision=recipe.settings.get("model_revision"))
    args, lora = _critic_args(recipe.settings), _lora(recipe.settings)
    stages = CriticStages(vlm, args.critic_settings(), _SIZE.height, _SIZE.width)
    one, two = stages.steps(args, lora, _dtype(recipe.settings))
    batch = args.per_device_train_batch_size
    count = at_batch(one, two, batch)
    steps = job.clips * len(Dimension) / batch * args.num_train_epochs
    if args.max_steps > 0:
        steps = args.max_steps * args.gradient_accumulation_steps
    gathered = vlm.gathered_bytes(_dtype(recipe.settings))
    part = Part("training step", count, steps, batch, (one, two), unit="rows", gathered=gathered)
    trained = count.peak.get("trained weights", 0.0)
    rows = batch * num_gpus * args.gradient_accumulation_steps
    notes = [
        f"{rows} rows a step, {len(Dimension)} rows a clip; clips of {_SIZE.height} x {_SIZE.width} pixels",
        "evaluations, and decoding on the CPU, are not counted",
    ]
    if recipe.settings.get("preferences"):
        notes.append(
            "pairs are not counted: each is two prompts, without answers, for each dimension that it compares"
        )
    return Plan(
        "train_critic",
        vlm.name_or_path,
        [part],
        {"a checkpoint (weights and optimiser)": 3 * trained},
        notes,
    )


def plan_scoring(recipe: Recipe, job: Job, num_gpus: int) -> Plan:
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
    part = scoring_part(recipe, recipe.require("critic"), job.clips, settings.get("batch_size", 8), size, reasons)
    return Plan("score", settings["critic"], [part], disk, notes)


def scoring_part(recipe: Recipe, critic: str, clips: int, batch: int, size: ClipSize, reasons: bool) -> Part:
    """`clips` through the critic that `recipe` names."""
    stages = _critic_stages(recipe, critic, size)
    tokens = _REASON_TOKENS if reasons and stages.settings.with_reason else 0
    one, two = (stages.scoring(number, reason_tokens=tokens) for number in (1, 2))
    count = at_batch(one, two, batch)
    return Part(f"scoring ({stages.vlm.name_or_path})", count, clips / batch, batch, (one, two))


def _critic_stages(recipe: Recipe, critic: str, clip: ClipSize) -> CriticStages:
    """A critic that is there, or the one that a YAML beside `recipe` will train."""
    size = clip.height, clip.width
    if (Path(critic) / ADAPTER_CONFIG).is_file():
        lora = LoraConfig.from_pretrained(critic)
        return CriticStages(ConfiguredVLM(lora.base_model_name_or_path), load_settings(critic), *size, lora=lora)
    if not Path(critic).is_dir() and (writer := recipe.writer_of(critic)) is not None:
        settings = _critic_args(writer.settings).critic_settings()
        return CriticStages(
            ConfiguredVLM(writer.require("model_name_or_path")), settings, *size, lora=_lora(writer.settings)
        )
    if not Path(critic).is_dir() and pinned(critic).repo_id.count("/") != 1:
        raise ValueError(
            f"{recipe.path}: critic {critic!r} is no folder yet, and no YAML beside this one writes it. Train it first, "
            "or name its base on the Hub."
        )
    return CriticStages(
        ConfiguredVLM(critic, revision=recipe.settings.get("critic_revision")), CriticSettings(), *size
    )


def _clip_size(recipe: Recipe) -> ClipSize:
    """Of the clips that are scored, where a YAML beside this one generates them."""
    writer = recipe.writer_of(str(recipe.settings.get("videos")))
    if writer is None or "model_name_or_path" not in writer.settings:
        return _SIZE
    return video_stages(writer.settings).size


def _critic_args(settings: Mapping[str, Any]) -> LiFTCriticConfig:
    names = {one.name for one in fields(LiFTCriticConfig) if one.init}
    given = {name: value for name, value in settings.items() if name in names}
    given |= {"fp16": False, "bf16": True, "use_cpu": True, "report_to": [], "eval_strategy": "no"}
    return LiFTCriticConfig(**given)


def _lora(settings: Mapping[str, Any]) -> LoraConfig | None:
    """As the recipe reads it; the modules are those of the family, unless the YAML names some."""
    names = {one.name for one in fields(ModelConfig) if one.init}
    lora = get_peft_config(ModelConfig(**{k: v for k, v in settings.items() if k in names}))
    assert lora is None or isinstance(lora, LoraConfig)  # TRL makes no other
    return lora


def _dtype(settings: Mapping[str, Any]) -> torch.dtype:
    found: torch.dtype = getattr(torch, settings.get("dtype", "float32"))
    return found
