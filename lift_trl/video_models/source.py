"""A diffusers text-to-video checkpoint (Hub id, folder or pipeline) whose parts are loaded one at a time."""

import gc
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin, TorchAoConfig
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import PreTrainedModel

from ..protocols import VideoModel
from ..records import content_id
from ..store.digest import file_digest
from ..store.quantization import Quantization, quantize, torchao_type
from ..store.weights import load_whole
from .cogvideox import CogVideoX
from .hunyuan_video import HunyuanVideo15
from .ltx import LTX
from .wan import Wan


# Pipeline class that a checkpoint's model_index.json names -> adapter. A new family is one file and one line here.
ADAPTERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], VideoModel]] = {
    "CogVideoXPipeline": CogVideoX,
    "HunyuanVideo15Pipeline": HunyuanVideo15,
    "LTXPipeline": LTX,
    "WanPipeline": Wan,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PipelineSource:
    """
    Where the parts of a text-to-video model come from.

    T5 and the VAE are needed only to encode, the transformer only to train: each `load` brings just the named parts
    into memory, and the caller drops them before the next one.

    Args:
        model: a Hub id, a folder, or a pipeline that is already in memory.
        revision: branch, tag or commit of a Hub id.
        network: which of two networks a run trains (Wan2.2-A14B); there is nothing to choose for others.

    Raises:
        ValueError: if no adapter serves the pipeline's class, or it refuses the checkpoint; when a part is loaded, if its
            file lacks weights.
    """

    def __init__(
        self, model: "str | Path | DiffusionPipeline", *, revision: str | None = None, network: str | None = None
    ) -> None:
        self.pipeline = model if isinstance(model, DiffusionPipeline) else None
        self.revision = revision
        self._folders: dict[tuple[str, ...], Path] = {}
        # A pipeline that was built in memory has no name.
        self.name = (
            str(model) if not isinstance(model, DiffusionPipeline) else str(model.config.get("_name_or_path") or "")
        )
        index = self.pipeline.config if self.pipeline is not None else DiffusionPipeline.load_config(self._folder())
        self.class_name: str = type(self.pipeline).__name__ if self.pipeline is not None else index["_class_name"]
        if self.class_name not in ADAPTERS:
            raise ValueError(
                f"{self.name}: no adapter for {self.class_name}; there is one for {', '.join(ADAPTERS)}. "
                "docs/add_a_video_model.md says how to add yours."
            )
        self._index = dict(index)
        try:
            self.adapter: VideoModel = ADAPTERS[self.class_name](
                self._config("transformer"), self._config("vae"), self._index
            )
        except ValueError as error:
            raise ValueError(f"{self.name or self.class_name}: {error}") from error
        if network is not None and network not in self.adapter.networks:
            raise ValueError(f"network={network!r}: {self.name} has {' and '.join(self.adapter.networks)}.")
        self._network = network

    @property
    def network(self) -> str:
        """
        The part that a run trains.

        Raises:
            ValueError: if there are two and none was chosen.
        """
        networks = self.adapter.networks
        if self._network is None and len(networks) > 1:
            raise ValueError(
                f"{self.name}: has two networks, {networks[0]} for the high noise levels and {networks[1]} for the low "
                f"ones, and one LoRA trains one of them. Give network: {networks[0]} or network: {networks[1]}."
            )
        return self._network or networks[0]

    def load(
        self,
        *components: str,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        private: bool = False,
        quantization: Quantization | None = None,
    ) -> DiffusionPipeline:
        """
        The pipeline with the named components in `dtype` on `device`, every other model left out (`None`).

        Of a pipeline that is in memory, the caller's stays as it is: what is cast or moved is a copy.

        Args:
            private: the components will be changed (trained, given a LoRA): copy them in any case.
            quantization: of the linear layers of networks among the components.

        Raises:
            ValueError: if `quantization` needs what is not installed.
        """
        if self.pipeline is not None:
            return self._from_memory(components, dtype, torch.device(device), private, quantization)
        wanted = (*components, *self.adapter.always_loaded)
        folder = self._folder(*wanted)
        # All of their weights from the files: a pipeline by itself fills what is missing at random.
        parts = {
            name: load_whole(self._class(name), folder / name, dtype=dtype, **self._quantized(name, quantization))
            for name in self._models(components)
        }
        absent = {name: None for name in self._component_names() if name not in wanted}
        pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, **absent, **parts)
        for name in components:
            if isinstance(part := pipe.components[name], torch.nn.Module):
                part.requires_grad_(False).eval().to(device)
        return pipe

    def _quantized(self, component: str, quantization: Quantization | None) -> dict[str, Any]:
        """The argument of `from_pretrained` that quantises `component`, if it is a network."""
        if quantization is None or component not in self.adapter.networks:
            return {}
        return {"quantization_config": TorchAoConfig(torchao_type(quantization))}

    def _models(self, components: Sequence[str]) -> list[str]:
        """Those of `components` that have weights."""
        models = (ModelMixin, PreTrainedModel)
        return [name for name in components if (found := self._class(name)) is not None and issubclass(found, models)]

    def _class(self, component: str) -> type | None:
        """The class of a component; `None` where it is defined beside its pipeline, which then loads it."""
        library, name = self._index[component]
        return getattr(import_module(library), name) if library in ("diffusers", "transformers") else None

    def _from_memory(
        self,
        components: Sequence[str],
        dtype: torch.dtype,
        device: torch.device,
        private: bool,
        quantization: Quantization | None,
    ) -> DiffusionPipeline:
        """As `load`, of the pipeline in memory: another pipeline around its components."""
        pipe: Any = copy(self.pipeline)
        kept = self.adapter.always_loaded
        for name in self._component_names():
            part = pipe.components[name] if name in (*components, *kept) else None
            if not isinstance(part, torch.nn.Module):
                part = deepcopy(part) if name in kept else part
            else:
                as_asked = part.dtype == dtype and part.device == device
                # A shallow copy shares the weights, but has settings of its own, such as the VAE's tiling. transformers puts
                # hooks on the shared layers once for each copy, and hidden states would be counted twice: those are shared.
                shared = part if isinstance(part, PreTrainedModel) else copy(part)
                in_8_bits = quantization if name in self.adapter.networks else None
                part = shared if as_asked and not private and in_8_bits is None else deepcopy(part)
                part = part if as_asked else _cast(part, dtype).to(device)
                if in_8_bits is not None:
                    quantize(part, in_8_bits)
            setattr(pipe, name, part)
        return pipe

    def fingerprint(self, *components: str) -> str:
        """
        16 hex digits over the content of the components' files (or, of a pipeline in memory, of their tensors).

        Equal weights give an equal fingerprint wherever they are stored; a changed weight changes it.
        """
        folder = None if self.name == "" else self._folder(*components)
        if self.pipeline is not None and (folder is None or not self._is_as_stored(folder, components)):
            return content_id(*(_hash_part(self.pipeline.components[name]) for name in components))
        assert folder is not None
        files = sorted(path for name in components for path in (folder / name).rglob("*") if path.is_file())
        return content_id(*(f"{path.relative_to(folder)} {_hash_file(path)}" for path in files))

    @property
    def on_hub(self) -> bool:
        """Whether the name is a Hub id, rather than a folder or a pipeline that was built in memory."""
        return self.name != "" and not Path(self.name).is_dir()

    @property
    def identity(self) -> str:
        """`repo@commit` of a Hub id, else the folder or class name: for manifests and cards."""
        if not self.on_hub:
            return self.name or self.class_name
        return f"{self.name}@{self._folder().name}"

    def _is_as_stored(self, folder: Path, components: Sequence[str]) -> bool:
        """Whether the pipeline in memory still has the weights of the files that it was loaded from."""
        assert self.pipeline is not None
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

    def _component_names(self) -> list[str]:
        return [name for name, spec in self._index.items() if isinstance(spec, list | tuple)]

    def _folder(self, *components: str) -> Path:
        """The local folder, with the files of `components` fetched if it is a Hub id."""
        if Path(self.name).is_dir():
            return Path(self.name)
        if components not in self._folders:
            patterns = ["model_index.json", "transformer/config.json", "vae/config.json"]
            patterns += [f"{name}/*" for name in components]
            found = snapshot_download(
                self.name,
                # What the revision meant at first is what it means for the whole of a run.
                revision=next((folder.name for folder in self._folders.values()), self.revision),
                allow_patterns=patterns,
                ignore_patterns=["*.bin", "*.ckpt", "*.msgpack"],
            )
            self._folders[components] = Path(found)
        return self._folders[components]

    def _config(self, component: str) -> dict[str, Any]:
        if self.pipeline is not None:
            return dict(self.pipeline.components[component].config)
        path = self._folder() / component / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: missing, so {self.name} is no complete diffusers checkpoint. Fetch it again."
            )
        # Fields that the file leaves out take the model class's defaults.
        found: Any = self._class(component)
        with torch.device("meta"):
            return dict(found.from_config(json.loads(path.read_text(encoding="utf-8"))).config)


def _cast(part: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """`part` with its weights in `dtype`, but for those that its class keeps in float32, as `from_pretrained` loads them."""
    # Private in diffusers 0.42 and transformers 5; a test compares with `from_pretrained`.
    kept: set[str] = set()
    if isinstance(part, ModelMixin):
        kept = set(part._keep_in_fp32_modules or ())
    elif isinstance(part, PreTrainedModel):
        kept = set(part._keep_in_fp32_modules_strict or ())
        kept |= set(part._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    for name, tensor in part.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if kept.intersection(name.split(".")) else dtype)
    return part


def release_memory() -> None:
    """Gives the memory of dropped models back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _hash_file(path: Path) -> str:
    """sha256 of the content. In the Hub's cache a large file is a link to a blob that is named by its sha256."""
    target = path.resolve()
    if _SHA256.fullmatch(target.name):
        return target.name
    return file_digest(target)


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
