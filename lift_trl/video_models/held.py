"""A text-to-video model that is in memory already."""

import hashlib
import json
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from safetensors import safe_open
from transformers import PreTrainedModel

from ..records import content_id
from ..store.quantization import Quantization, layers_within, quantize
from .files import CheckpointFiles
from .source import PipelineSource


class HeldPipeline(PipelineSource):
    """
    A `PipelineSource` of a pipeline in memory. The caller's stays as it is: what is cast, moved or changed is a copy.

    Args:
        pipeline: with all of its components.
        network: which of two networks a run trains (Wan2.2-A14B); there is nothing to choose for others.

    Raises:
        ValueError: as `PipelineSource`.
    """

    reloads = False

    def __init__(self, pipeline: DiffusionPipeline, *, network: str | None = None) -> None:
        self.pipeline = pipeline
        # A pipeline that was built in memory has no name.
        name = pipeline.name_or_path
        files = CheckpointFiles(str(name)) if name else None
        super().__init__(type(pipeline).__name__, pipeline.config, files=files, network=network)

    def load(
        self,
        *components: str,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        private: bool = False,
        quantization: Quantization | None = None,
    ) -> DiffusionPipeline:
        """As `PipelineSource.load`: another pipeline around the components."""
        pipe: Any = copy(self.pipeline)
        kept = self.adapter.always_loaded
        for name in self._component_names():
            part = pipe.components[name] if name in (*components, *kept) else None
            if not isinstance(part, torch.nn.Module):
                part = deepcopy(part) if name in kept else part
            else:
                as_asked = part.dtype == dtype and part.device == torch.device(device)
                # A shallow copy shares the weights, but has settings of its own, such as the VAE's tiling. transformers puts
                # hooks on the shared layers once for each copy, and hidden states would be counted twice: those are shared.
                shared = part if isinstance(part, PreTrainedModel) else copy(part)
                in_8_bits = quantization if name in self.adapter.networks else None
                part = shared if as_asked and not private and in_8_bits is None else deepcopy(part)
                part = part if as_asked else _cast(part, dtype).to(device)
                if in_8_bits is not None:
                    quantize(part, in_8_bits, whole=layers_within(part, _kept_in_float32(part, dtype)))
            setattr(pipe, name, part)
        return pipe

    def fingerprint(self, *components: str) -> str:
        """As `PipelineSource.fingerprint`: that of the files while the weights are as there, else over the tensors."""
        if self.files is not None and self._is_as_stored(self.files.folder(*components), components):
            return self.files.fingerprint(*components)
        return content_id(*(_hash_part(self.pipeline.components[name]) for name in components))

    def _is_as_stored(self, folder: Path, components: tuple[str, ...]) -> bool:
        """Whether the pipeline in memory still has the weights of the files that it was loaded from."""
        for name in components:
            part = self.pipeline.components[name]
            if isinstance(part, SchedulerMixin) and not _is_configured_as(part, folder / name):
                return False
            weights = part.state_dict() if isinstance(part, torch.nn.Module) else {}
            for path in (folder / name).glob("*.safetensors"):
                with safe_open(str(path), framework="pt") as file:
                    for key in file.keys():
                        if key not in weights:  # it has another name where a LoRA is on it
                            return False
                        if not torch.equal(weights[key].cpu(), file.get_tensor(key).to(weights[key].dtype)):
                            return False
        return True

    def _config(self, component: str) -> dict[str, Any]:
        return dict(self.pipeline.components[component].config)


def _cast(part: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """`part` with its weights in `dtype`, but for those that its class keeps in float32, as `from_pretrained` loads them."""
    kept = _kept_in_float32(part, dtype)
    for name, tensor in part.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if kept.intersection(name.split(".")) else dtype)
    return part


def _kept_in_float32(part: torch.nn.Module, dtype: torch.dtype) -> set[str]:
    """Names of modules and weights that a class keeps in float32 where the others are in `dtype`."""
    # Private in diffusers 0.42 and transformers 5.24: _keep_in_fp32_modules, _keep_in_fp32_modules_strict. When they go,
    # `test_a_pipeline_in_memory_keeps_what_its_class_keeps_in_float32` fails.
    kept: set[str] = set()
    if isinstance(part, ModelMixin):
        kept = set(part._keep_in_fp32_modules or ())
    elif isinstance(part, PreTrainedModel):
        kept = set(part._keep_in_fp32_modules_strict or ())
        kept |= set(part._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    return kept


def _is_configured_as(scheduler: Any, folder: Path) -> bool:
    """Whether a scheduler in memory has the class and the settings of the folder that it came from."""
    stored = json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8"))
    own = {**scheduler.config, "_class_name": type(scheduler).__name__}
    return all(own.get(key) == value for key, value in stored.items() if key != "_diffusers_version")


def _hash_part(part: Any) -> str:
    """sha256 over the tensors of a module in memory, over a scheduler's settings, or over a tokenizer's vocabulary."""
    if isinstance(part, SchedulerMixin):
        return content_id(type(part).__name__, json.dumps(dict(part.config), sort_keys=True, default=str))
    if not isinstance(part, torch.nn.Module):
        return content_id(type(part).__name__, json.dumps(sorted(part.get_vocab().items())))
    digest = hashlib.sha256(type(part).__name__.encode())
    for name, tensor in part.state_dict().items():
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + data.numpy().tobytes())
    return digest.hexdigest()
