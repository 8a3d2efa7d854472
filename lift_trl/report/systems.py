"""What each system is, its figures, and its paired difference to the base; which plain fine-tuning it is compared with."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..hub.lora.origin import ADAPTERS, CRITICS, LENGTH, TRAINING, adapter_identity, training_of
from ..published import published
from ..records import EvalRow, placeless
from ..rubric import words
from ..store.manifest import ARTIFACT_FILE, Artifact
from ..store.system_clips import SystemClip
from ..vbench.score import PairedDelta
from .data import SystemFacts, mean_row, paired_delta


_PLAIN = "sft"
#: What a run and its control share; the clips' weights are what they differ in.
_SHARED = (
    *("model", "adapter", "network", "clips", "real_weight", "learning_rate", "caption_dropout", "seed"),
    *("lora_r", "lora_alpha", "lora_target_modules", *LENGTH),
)
#: What a reader asks of a training first, `clips` by their hash, `adapter` the LoRA that it began with.
_TOLD = (
    *("objective", "max_steps", "train_batch_size", "learning_rate", "real_weight", "lora_r", "seed", "clips"),
    "adapter",
)

#: Names of critics; `None` where they are not known.
Names = frozenset[str] | None


class Compared(NamedTuple):
    """The mean of each system, and each system's paired difference to the base."""

    rows: list[EvalRow]
    deltas: list[PairedDelta]


def system_facts(name: str, clips: Sequence[SystemClip]) -> SystemFacts:
    """What `clips` are of: their own folder says which model and LoRA made them, and what trained that LoRA."""
    made = _made(clips)
    counts = Counter(clip.prompt for clip in clips)
    each = sorted(set(counts.values()))
    return SystemFacts(
        name=name,
        model=published(made.parents.get("model", "")) if made else "",
        adapter=", ".join(published(identity.rpartition("@")[0]) for identity in _adapters(made).values()),
        objective=", ".join(dict.fromkeys(str(run["objective"]) for run in _training(made))),
        settings=_settings(made.config) if made else "",
        clips=len(clips),
        prompts=len(counts),
        seeds=str(each[0]) if len(each) == 1 else f"{each[0]} to {each[-1]}",
        made=made.made_on if made else "",
    )


def plain_controls(systems: Mapping[str, Sequence[SystemClip]]) -> dict[str, str]:
    """
    System -> the plain fine-tuning of the same clips with the same settings (objective `sft`), where one is among `systems`:
    what it gains as well, the rewards did not teach.
    """
    trained = {name: found for name, clips in systems.items() if (found := _training(_made(clips)))}
    return {
        name: control
        for control, plain in trained.items()
        for name, runs in trained.items()
        if len(runs) == len(plain) and all(_is_control(*both) for both in zip(plain, runs, strict=True))
    }


def training_critics(clips: Sequence[SystemClip]) -> Names:
    """Whose rewards the LoRAs that made `clips` were trained on; none where there is no LoRA."""
    made = _made(clips)
    found = [run.get(CRITICS) for run in _training(made)]
    if made is None or (_adapters(made) and not found) or None in found:
        return None
    return frozenset(str(name) for critics in found for name in critics or ())


def training_stamps(systems: Mapping[str, Sequence[SystemClip]]) -> dict[str, str]:
    """What trained the LoRAs of each system, where that is known."""
    return {
        f"training {name}": "; ".join(
            ", ".join(f"{key.replace('_', ' ')} {run[key]}" for key in _TOLD if run.get(key) not in (None, ""))
            for run in runs
        )
        for name, clips in systems.items()
        if (runs := _training(_made(clips)))
    }


def training_notes(facts: Sequence[SystemFacts]) -> list[str]:
    """Which LoRAs nothing is known of."""
    return [
        f"{fact.name}: what trained its LoRA ({fact.adapter}) is not known, so it is compared with no plain fine-tuning. "
        "Where the LoRA has its run.json, recipes/generate.py with the same output_dir writes it down and samples nothing."
        for fact in facts
        if fact.adapter and not fact.objective
    ]


def _is_control(plain: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    return plain["objective"] == _PLAIN != run["objective"] and all(run.get(k) == plain.get(k) for k in _SHARED)


def _settings(config: Mapping[str, Any]) -> str:
    """What a reader asks of the sampling first."""
    texts = {
        "num_frames": "{num_frames} frames",
        "width": "{width}x{height} px",
        "num_inference_steps": "{num_inference_steps} steps",
        "guidance_scale": "guidance {guidance_scale}",
    }
    return ", ".join(text.format(**config) for key, text in texts.items() if config.get(key) is not None)


def _made(clips: Sequence[SystemClip]) -> Artifact | None:
    """The record beside the clips; `None` where they come from elsewhere."""
    folder = clips[0].video.parent.parent
    return Artifact.load(folder) if (folder / ARTIFACT_FILE).is_file() else None


def _adapters(made: Artifact | None) -> dict[str, str]:
    """`folder@hash` or `repo@commit` of each LoRA that made the clips, by its role."""
    return {role: made.parents[role] for role in ADAPTERS if role in made.parents} if made else {}


def _training(made: Artifact | None) -> list[Mapping[str, Any]]:
    """What trained each LoRA that made the clips; nothing where that is not known of all of them."""
    found = [_run(role, identity, made) for role, identity in _adapters(made).items() if made]
    return [{**run, "adapter": placeless(run.get("adapter") or "")} for run in found] if all(found) else []


def _run(role: str, identity: str, made: Artifact) -> Mapping[str, Any]:
    """As the clips' own record has it; where that has nothing (an earlier lift_trl), the folder of that very LoRA."""
    recorded = made.config.get(TRAINING, {}).get(role)
    if recorded is not None:
        return dict(recorded)
    place, _, content = identity.rpartition("@")
    folder = Path(place)
    is_lora = any(folder.glob("*.safetensors"))
    return training_of(folder) if is_lora and adapter_identity(folder).rpartition("@")[2] == content else {}


def values_of(
    systems: Mapping[str, Sequence[SystemClip]], value: Callable[[SystemClip], float | None]
) -> dict[str, dict[str, float]]:
    """System -> clip key -> value; clips without one are left out, and systems without any."""
    found = {
        name: {clip.key: number for clip in clips if (number := value(clip)) is not None}
        for name, clips in systems.items()
    }
    return {name: values for name, values in found.items() if values}


def compare_means(
    metric: str, values: Mapping[str, Mapping[str, float]], prompts: Mapping[str, str], *, suite: str, base: str
) -> Compared:
    """The means of `values` (of `values_of`) and the differences to `base` over the clips that both have."""
    rows = [mean_row(suite, metric, name, mine, prompts) for name, mine in values.items()]
    deltas = [
        paired_delta(suite, metric, (base, values[base]), (name, mine), prompts)
        for name, mine in values.items()
        if name != base and base in values
    ]
    return Compared(rows, deltas)


def describe_clip(clip: SystemClip) -> str:
    """A clip's reward and labels in one line (`reward 0.90, all Good`), empty where it has none."""
    parts = [] if clip.reward is None else [f"reward {clip.reward:.2f}"]
    if clip.labels and len(clip.labels) > 1 and len(set(clip.labels.values())) == 1:
        parts.append(f"all {next(iter(clip.labels.values()))}")
    elif clip.labels:
        parts += [f"{words(dimension)} {label}" for dimension, label in clip.labels.items()]
    return ", ".join(parts)
