"""What each system is, its figures, and its paired difference to the base; which plain fine-tuning it is compared with."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..records import EvalRow, placeless
from ..rubric import words
from ..store.manifest import ARTIFACT_FILE, RUN_FILE, STATE_FILE, Artifact, read_json
from ..store.system_clips import SystemClip
from ..vbench.score import PairedDelta
from .data import SystemFacts, mean_row, paired_delta


_PLAIN = "sft"
#: How long a run was, of its Trainer's state.
_STEPS = ("max_steps", "train_batch_size")
#: What a run and its control share; the clips' weights are what they differ in.
_SHARED = (
    *("model", "adapter", "network", "clips", "real_weight", "learning_rate", "caption_dropout", "seed"),
    *("lora_r", "lora_alpha", "lora_target_modules", *_STEPS),
)


class Compared(NamedTuple):
    """The mean of each system, and each system's paired difference to the base."""

    rows: list[EvalRow]
    deltas: list[PairedDelta]


def system_facts(name: str, clips: Sequence[SystemClip]) -> SystemFacts:
    """What `clips` are of: their own folder says which model and LoRA made them, the LoRA's which objective trained it."""
    made = _made(clips)
    counts = Counter(clip.prompt for clip in clips)
    each = sorted(set(counts.values()))
    return SystemFacts(
        name=name,
        model=made.parents.get("model", "") if made else "",
        adapter=_adapter(made),
        objective=str(_training(made).get("objective", "")),
        settings=_settings(made.config) if made else "",
        clips=len(clips),
        prompts=len(counts),
        seeds=str(each[0]) if len(each) == 1 else f"{each[0]} to {each[-1]}",
        made=time.strftime("%Y-%m-%d", time.gmtime(clips[0].video.stat().st_mtime)),
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
        for name, run in trained.items()
        if plain["objective"] == _PLAIN != run["objective"] and all(run.get(k) == plain.get(k) for k in _SHARED)
    }


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


def _adapter(made: Artifact | None) -> str:
    return made.parents.get("adapter", "").partition("@")[0] if made else ""


def _training(made: Artifact | None) -> Mapping[str, Any]:
    """What the LoRA's folder says of its training; nothing where it lies elsewhere by now."""
    adapter = _adapter(made)
    file, steps = Path(adapter) / RUN_FILE, Path(adapter) / STATE_FILE
    if not (adapter and file.is_file()):
        return {}
    state = read_json(steps) if steps.is_file() else {}
    run = read_json(file)
    start = placeless(run.get("adapter") or "")
    return {**run, "adapter": start, **{name: state.get(name) for name in _STEPS}}


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
