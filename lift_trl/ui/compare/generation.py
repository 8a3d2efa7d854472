"""Base and aligned clips of one prompt and seed, made on demand: whether this machine can, and how."""

import json
import math
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import HfApi

from ...hub_source import find_file, pinned
from ...protocols import LabelModel
from ...records import CriticScore, content_id
from ...store.manifest import read_json
from ...store.video_io import write_video


#: Without a GPU only models of this size are run: a real one would take hours a clip.
MAX_CPU_GB = 0.5
#: What activations need besides the weights.
HEADROOM = 1.25
MAX_PROMPT_CHARS = 1000
#: Memory of ZeroGPU's default slice. Source: huggingface.co/docs/hub/spaces-zerogpu.
ZERO_GPU_GB = 48.0
#: Moving the models to a borrowed GPU, decoding, and the critic [ours].
GPU_START_S = 20
#: Clips that are kept on the disk for those who ask for the same again.
MAX_KEPT = 400
_WEIGHTS = re.compile(r"\.(safetensors|bin)$")
_ADAPTER = "adapter_config.json"


class Plan(NamedTuple):
    """How the model runs here: `gpu`, `offload` (one component at a time), `cpu` or `no`, and why, for the visitor."""

    how: str
    why: str

    @property
    def is_live(self) -> bool:
        return self.how != "no"


def plan_for(component_gb: Mapping[str, float], *, gpu_gb: float | None, critic_gb: float = 0.0) -> Plan:
    """
    How a pipeline of these components (weights in GB) runs on a machine with `gpu_gb` of GPU memory (`None`: no GPU).

    Args:
        critic_gb: weights of the critic, which stays on the GPU whole.

    >>> plan_for({"text_encoder": 9.5, "transformer": 3.4, "vae": 0.4}, gpu_gb=12.0).how
    'offload'
    """
    total, largest = sum(component_gb.values()) + critic_gb, max(component_gb.values()) + critic_gb
    if gpu_gb is None:
        if total <= MAX_CPU_GB:
            return Plan("cpu", f"The model is small ({1000 * total:.0f} MB) and runs on this machine's CPU.")
        return Plan("no", f"No clips are made here: this machine has no GPU for the models ({total:.1f} GB).")
    if total * HEADROOM <= gpu_gb:
        return Plan("gpu", "Both clips are made for you, on a GPU.")
    if largest * HEADROOM <= gpu_gb:
        return Plan(
            "offload",
            f"The model ({total:.1f} GB) goes through the GPU ({gpu_gb:.0f} GB) part by part: it takes longer.",
        )
    return Plan("no", f"No clips are made here: the models ({total:.1f} GB) do not fit a GPU of {gpu_gb:.0f} GB.")


def component_sizes(model: str) -> dict[str, float]:
    """
    GB of weights in each folder of a diffusers checkpoint (a folder, or a model of the Hub).

    Raises:
        ValueError: if there are none.
    """
    found: dict[str, float] = defaultdict(float)
    for name, gb in _weights(model, depth=1).items():
        found[name.split("/")[0]] += gb
    return dict(found)


def critic_size(critic: str) -> float:
    """
    GB of a critic's weights, those of the model that it adapts among them.

    Raises:
        ValueError: if there are none.
    """
    adapter = find_file(critic, _ADAPTER)
    base = read_json(adapter)["base_model_name_or_path"] if adapter else None
    return sum(_weights(critic, depth=0).values()) + (critic_size(base) if base else 0.0)


def _weights(model: str, *, depth: int) -> dict[str, float]:
    """GB of each file of weights that lies so many folders deep; of a folder's two formats the safe one."""
    if Path(model).is_dir():
        files = {path.relative_to(model).as_posix(): path.stat().st_size for path in Path(model).rglob("*.*")}
    else:
        repo, revision = pinned(model)
        siblings = HfApi().model_info(repo, revision=revision, files_metadata=True).siblings or []
        files = {file.rfilename: file.size or 0 for file in siblings}
    # Variants (`...fp16.safetensors`) are other copies of the same weights.
    sizes = {
        name: size / 1e9
        for name, size in files.items()
        if name.count("/") == depth and _WEIGHTS.search(name) and ".fp16" not in name and ".bf16" not in name
    }
    if not sizes:
        raise ValueError(f"{model}: no weights (*.safetensors or *.bin) where a checkpoint has them; name another.")
    safe = {os.path.dirname(name) for name in sizes if name.endswith(".safetensors")}
    return {
        name: gb for name, gb in sizes.items() if name.endswith(".safetensors") or os.path.dirname(name) not in safe
    }


def gpu_memory_gb() -> float | None:
    """Memory of the GPU, `None` without one. On ZeroGPU it is there only inside a decorated call, so it is known."""
    if os.environ.get("SPACES_ZERO_GPU"):
        return ZERO_GPU_GB
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory / 1e9)


class ComparedClips(NamedTuple):
    """The two clips of a prompt and seed, and the critic's verdict on each (`None` without a critic)."""

    id: str
    paths: tuple[Path, Path]
    scores: tuple[CriticScore | None, CriticScore | None]


def _pair_id(paths: tuple[Path, Path], adapter: str) -> str:
    """Of the two clips; their names hold models, revisions, prompt and seed."""
    return content_id(*(path.stem for path in paths), adapter)


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
        transformer_gb: weights of what denoises; how long that will take follows from it.
        base_revision: of the base's weights. Clips of other weights are other clips, whatever the model is called.
        lend: `spaces.GPU` on ZeroGPU, where a GPU is there only while a function that it wraps runs, in another process.
    """

    pipe: Any
    adapters: Mapping[str, str]
    critic: LabelModel | None
    arguments: Mapping[str, Any]
    fps: float
    output_dir: Path
    transformer_gb: float
    base_revision: str = ""
    lend: Callable[..., Any] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _kept: dict[str, ComparedClips] = field(default_factory=dict, init=False, repr=False)
    _revisions: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _networks: set[str] = field(default_factory=set, init=False, repr=False)
    _clip_s: float | None = field(default=None, init=False, repr=False)  # what the last clips took, each

    def __post_init__(self) -> None:
        if not self.adapters:
            raise ValueError("no adapter to compare with; name one, as in ADAPTERS=lift=user/my-lora.")
        from ...hub.lora.loading import choose_adapter, find_lora, load_lora  # here: a gallery needs no model

        for index, (name, source) in enumerate(self.adapters.items()):
            lora = find_lora(source)
            self._revisions[name] = lora.identity.rpartition("@")[2]
            self._networks.add(load_lora(self.pipe, lora, name=f"adapter_{index}"))
        choose_adapter(self.pipe, self._networks, None)
        # The same inputs for both, as `spaces` asks. What another process changes of this object is lost: it returns it.
        self._run = self.lend(duration=self.gpu_seconds)(self._make) if self.lend else self._make

    def make(self, prompt: str, seed: int, adapter: str) -> ComparedClips:
        """
        The clips; at once, and without a GPU, if they were made before.

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
        paths = (self._path(prompt, seed, None), self._path(prompt, seed, adapter))
        made = ComparedClips(_pair_id(paths, adapter), paths, (None, None))
        with self._lock:
            there = all(path.is_file() for path in paths)
            if there and (self.critic is None or made.id in self._kept):
                made = self._kept.get(made.id, made)
                for path in paths:
                    path.touch()  # the oldest are forgotten first
            else:
                start_s, missing = time.monotonic(), self._num_missing(prompt, seed, adapter)
                made = self._run(prompt, seed, adapter)
                self._clip_s = (time.monotonic() - start_s) / missing if missing else self._clip_s
                self._kept[made.id] = made
                for old in list(self._kept)[:-MAX_KEPT]:
                    del self._kept[old]
        return made

    def seconds(self, prompt: str, seed: int, adapter: str) -> float | None:
        """
        How long `make` is going to take: as long as the last clips here, before the first as on an A100. `None` on a machine
        without a GPU that has made none yet, or for what `make` refuses.
        """
        if adapter not in self.adapters or not prompt.strip():
            return None
        missing = self._num_missing(prompt.strip(), seed, adapter)
        if not missing or self._clip_s is not None:
            return missing * (self._clip_s or 0.0)
        has_gpu = self.lend is not None or self.pipe.device.type != "cpu"
        return float(self.gpu_seconds(prompt.strip(), seed, adapter)) if has_gpu else None

    def _num_missing(self, prompt: str, seed: int, adapter: str) -> int:
        """How many of the two clips are not there."""
        return sum(not self._path(prompt, seed, name).is_file() for name in (None, adapter))

    def gpu_seconds(self, prompt: str, seed: int, adapter: str) -> int:
        """
        How long `make` needs a GPU: for the clips that are not there yet, and for the critic.

        Source: a line through the two timings on an A100 in the README of THUDM/CogVideo, 50 steps of 49 x 480 x 720: 90 s
        (2B, transformer of 3.4 GB) and 180 s (5B, 11.1 GB).
        """
        missing = self._num_missing(prompt, seed, adapter)
        size = math.prod(self.arguments[name] for name in ("num_frames", "height", "width")) / (49 * 480 * 720)
        step_s = (1.0 + 0.234 * self.transformer_gb) * size
        return GPU_START_S + math.ceil(missing * self.arguments["num_inference_steps"] * step_s)

    def _make(self, prompt: str, seed: int, adapter: str) -> ComparedClips:
        paths = (self._clip(prompt, seed, None), self._clip(prompt, seed, adapter))
        first, second = (self._score(path, prompt) for path in paths)
        return ComparedClips(_pair_id(paths, adapter), paths, (first, second))

    def _path(self, prompt: str, seed: int, adapter: str | None) -> Path:
        weights = "" if adapter is None else self._revisions[adapter]
        settings = json.dumps({**self.arguments, "fps": self.fps}, sort_keys=True, default=str)
        base = self.pipe.name_or_path
        return self.output_dir / f"{content_id(prompt, seed, weights, base, self.base_revision, settings)}.mp4"

    def _clip(self, prompt: str, seed: int, adapter: str | None) -> Path:
        path = self._path(prompt, seed, adapter)
        if path.is_file():
            path.touch()
            return path
        import torch

        from ...hub.lora.loading import choose_adapter

        name = None if adapter is None else f"adapter_{list(self.adapters).index(adapter)}"
        choose_adapter(self.pipe, self._networks, name)
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
