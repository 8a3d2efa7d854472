"""Base and aligned clips of one prompt and seed, made on demand: whether this machine can, and how."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import HfApi

from ..protocols import RewardModel
from ..records import CriticScore, content_id
from ..store.video_io import write_video


LORA_FILE = "pytorch_lora_weights.safetensors"
#: Without a GPU only models of this size are run: a real one would take hours a clip.
MAX_CPU_GB = 0.5
#: What activations need besides the weights.
HEADROOM = 1.25
MAX_PROMPT_CHARS = 1000
#: Clips that are kept on the disk for those who ask for the same again.
MAX_KEPT = 400


class Plan(NamedTuple):
    """How the model runs here: `gpu`, `offload` (one component at a time), `cpu` or `no`, and why, for the visitor."""

    how: str
    why: str

    @property
    def is_live(self) -> bool:
        return self.how != "no"


def plan_for(component_gb: Mapping[str, float], *, gpu_gb: float | None) -> Plan:
    """
    How a pipeline of these components (weights in GB) runs on a machine with `gpu_gb` of GPU memory (`None`: no GPU).

    >>> plan_for({"text_encoder": 9.5, "transformer": 3.4, "vae": 0.4}, gpu_gb=12.0).how
    'offload'
    """
    total, largest = sum(component_gb.values()), max(component_gb.values(), default=0.0)
    if gpu_gb is None:
        if total <= MAX_CPU_GB:
            return Plan("cpu", f"The model is small ({1000 * total:.0f} MB) and runs on this machine's CPU.")
        return Plan("no", f"This machine has no GPU, and the model has {total:.1f} GB.")
    if total * HEADROOM <= gpu_gb:
        return Plan("gpu", "Both clips are made for you, on a GPU.")
    if largest * HEADROOM <= gpu_gb:
        return Plan(
            "offload",
            f"The model ({total:.1f} GB) goes through the GPU ({gpu_gb:.0f} GB) part by part: it takes longer.",
        )
    return Plan("no", f"The model has {total:.1f} GB and does not fit this machine's GPU of {gpu_gb:.0f} GB.")


def component_sizes(model: str) -> dict[str, float]:
    """GB of weights in each folder of a diffusers checkpoint (a folder, or a model of the Hub)."""
    if Path(model).is_dir():
        sizes = {
            path.relative_to(model).as_posix(): path.stat().st_size for path in Path(model).rglob("*.safetensors")
        }
    else:
        files = HfApi().model_info(model, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in files if file.rfilename.endswith(".safetensors")}
    found: dict[str, float] = {}
    for name, size in sizes.items():
        # Variants (`...fp16.safetensors`) are other copies of the same weights.
        if name.count("/") == 1 and ".fp16" not in name and ".bf16" not in name:
            component = name.split("/")[0]
            found[component] = found.get(component, 0.0) + size / 1e9
    return found


def gpu_memory_gb() -> float | None:
    """Memory of the GPU, `None` without one. On ZeroGPU it is there only inside a decorated call, so it is known."""
    if os.environ.get("SPACES_ZERO_GPU"):
        return 70.0
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory / 1e9)


class ComparedClips(NamedTuple):
    """The two clips of a prompt and seed, and the critic's verdict on each (`None` without a critic)."""

    id: str
    paths: tuple[Path, Path]
    scores: tuple[CriticScore | None, CriticScore | None]


@dataclass
class PairGenerator:
    """
    Makes the base model's clip and an adapter's clip of one prompt and one seed.

    Args:
        pipe: a diffusers text-to-video pipeline, on its device.
        adapters: name for the visitor -> LoRA (a folder or a model of the Hub).
        critic: judges both clips, where there is one.
        arguments: of every call of `pipe`: frames, size, steps, guidance.
        fps: of the files.
        output_dir: where clips are kept.
    """

    pipe: Any
    adapters: Mapping[str, str]
    critic: RewardModel | None
    arguments: Mapping[str, Any]
    fps: float
    output_dir: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.adapters:
            raise ValueError("no adapter to compare with; name one, as in ADAPTERS=lift=user/my-lora.")
        for index, source in enumerate(self.adapters.values()):
            self.pipe.load_lora_weights(source, weight_name=LORA_FILE, adapter_name=f"adapter_{index}")
        self.pipe.disable_lora()

    def make(self, prompt: str, seed: int, adapter: str) -> ComparedClips:
        """
        The clips; at once if they were made before.

        Raises:
            ValueError: if the prompt is empty or too long, the seed negative, or there is no such adapter.
        """
        prompt = prompt.strip()
        if not prompt or len(prompt) > MAX_PROMPT_CHARS:
            raise ValueError(f"The prompt has {len(prompt)} characters; write between 1 and {MAX_PROMPT_CHARS}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"Seed {seed} is out of range; use a whole number from 0 to {2**32 - 1}.")
        if adapter not in self.adapters:
            raise ValueError(f"There is no adapter {adapter[:80]!r}; choose one of {', '.join(self.adapters)}.")
        with self._lock:
            paths = (self._clip(prompt, seed, None), self._clip(prompt, seed, adapter))
            scores = tuple(self._score(path, prompt) for path in paths)
        return ComparedClips(content_id(prompt, seed, adapter), paths, (scores[0], scores[1]))

    def _clip(self, prompt: str, seed: int, adapter: str | None) -> Path:
        source = "" if adapter is None else self.adapters[adapter]
        settings = json.dumps(dict(self.arguments), sort_keys=True, default=str)
        base = self.pipe.config.get("_name_or_path")
        path = self.output_dir / f"{content_id(prompt, seed, source, base, settings)}.mp4"
        if path.is_file():
            path.touch()
            return path
        import torch

        if adapter is None:
            self.pipe.disable_lora()
        else:
            self.pipe.enable_lora()
            self.pipe.set_adapters([f"adapter_{list(self.adapters).index(adapter)}"])
        generator = torch.Generator("cpu").manual_seed(seed)
        frames = self.pipe(prompt, generator=generator, output_type="np", **self.arguments).frames[0]
        write_video(path, (np.asarray(frames).clip(0, 1) * 255).round().astype(np.uint8), fps=self.fps)
        self._forget_old()
        return path

    def _score(self, path: Path, prompt: str) -> CriticScore | None:
        return None if self.critic is None else self.critic.score([path], [prompt], with_reason=True)[0]

    def _forget_old(self) -> None:
        clips = sorted(self.output_dir.glob("*.mp4"), key=lambda path: path.stat().st_mtime)
        for path in clips[:-MAX_KEPT]:
            path.unlink()
