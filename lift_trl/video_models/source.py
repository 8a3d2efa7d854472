"""Where the parts of a text-to-video model come from: the interface that files and memory share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..protocols import VideoModel
from ..store.quantization import Quantization
from .cogvideox import CogVideoX
from .files import CheckpointFiles
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


class PipelineSource(ABC):
    """
    A text-to-video model whose parts are loaded one at a time: `StoredPipeline` from files, `HeldPipeline` from memory.

    T5 and the VAE are needed only to encode, the transformer only to train: each `load` brings just the named parts
    into memory, and the caller drops them before the next one.

    Args:
        class_name: of the pipeline.
        index: its components, as `model_index.json` lists them.
        files: of the checkpoint; `None` of a pipeline that was built in memory.
        network: which of two networks a run trains.

    Attributes:
        adapter: the family's `VideoModel`.
        reloads: whether every load brings the weights as they were at first, whatever became of those of an earlier one.

    Raises:
        ValueError: if no adapter serves the pipeline's class, or it refuses the checkpoint, or there is no such network.
    """

    reloads = True

    def __init__(
        self, class_name: str, index: Mapping[str, Any], *, files: CheckpointFiles | None, network: str | None
    ) -> None:
        self.class_name = class_name
        self.files = files
        self.name = files.name if files else ""
        if class_name not in ADAPTERS:
            raise ValueError(
                f"{self.name}: no adapter for {class_name}; there is one for {', '.join(ADAPTERS)}. "
                "docs/add_a_video_model.md says how to add yours."
            )
        self._index = dict(index)
        self.adapter = self._make_adapter()
        if network is not None and network not in self.adapter.networks:
            raise ValueError(f"network={network!r}: {self.name} has {' and '.join(self.adapter.networks)}.")
        self._network = network

    def _make_adapter(self) -> VideoModel:
        try:
            return ADAPTERS[self.class_name](self._config("transformer"), self._config("vae"), self._index)
        except ValueError as error:
            raise ValueError(f"{self.name or self.class_name}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        """For another process: without the adapter, which may hold what does not pickle."""
        return {name: value for name, value in self.__dict__.items() if name != "adapter"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.adapter = self._make_adapter()

    @abstractmethod
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

        Args:
            private: the components will be changed (trained, given a LoRA): they must not be shared with anyone.
            quantization: of the linear layers of networks among the components.

        Raises:
            ValueError: if `quantization` needs what is not installed.
        """

    @abstractmethod
    def fingerprint(self, *components: str) -> str:
        """
        16 hex digits over the content of the components.

        Equal weights give an equal fingerprint wherever they are stored; a changed weight changes it.
        """

    @abstractmethod
    def _config(self, component: str) -> dict[str, Any]:
        """The configuration of a component, with the defaults of its class."""

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

    @property
    def on_hub(self) -> bool:
        """Whether the name is a Hub id, rather than a folder or none."""
        return self.files is not None and self.files.on_hub

    @property
    def identity(self) -> str:
        """`repo@commit` of a Hub id, else the folder or class name: for manifests and cards."""
        return self.files.identity if self.files else self.class_name

    def _component_names(self) -> list[str]:
        return [name for name, spec in self._index.items() if isinstance(spec, list | tuple)]
