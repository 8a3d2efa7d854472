"""A text-to-video model whose parts are read from files, each when it is needed."""

import json
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, TorchAoConfig
from transformers import PreTrainedModel

from ..store.quantization import Quantization, torchao_type
from ..store.weights import load_whole
from .files import CheckpointFiles
from .source import PipelineSource


class StoredPipeline(PipelineSource):
    """
    A `PipelineSource` of a folder or of a repo on the Hub.

    Args:
        model: a Hub id or a folder.
        revision: branch, tag or commit of a Hub id.
        network: which of two networks a run trains (Wan2.2-A14B); there is nothing to choose for others.

    Raises:
        ValueError: as `PipelineSource`; when a part is loaded, if its file lacks weights.
    """

    files: CheckpointFiles

    def __init__(self, model: str | Path, *, revision: str | None = None, network: str | None = None) -> None:
        files = CheckpointFiles(str(model), revision)
        index = DiffusionPipeline.load_config(files.folder())
        super().__init__(index["_class_name"], index, files=files, network=network)

    def load(
        self,
        *components: str,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        private: bool = False,
        quantization: Quantization | None = None,
    ) -> DiffusionPipeline:
        """As `PipelineSource.load`; whatever is loaded is the caller's own."""
        wanted = (*components, *self.adapter.always_loaded)
        folder = self.files.folder(*wanted)
        # All of their weights from the files: a pipeline by itself fills what is missing at random.
        parts = {
            name: load_whole(self._class(name), folder / name, dtype=dtype, **self._quantized(name, quantization))
            for name in self._models(components)
        }
        absent = {name: None for name in self._component_names() if name not in wanted}
        # By its own class: DiffusionPipeline (0.42) knows no optional parts, so it would load Wan's transformer whatever is
        # given in its place.
        pipeline_class = getattr(import_module("diffusers"), self.class_name)
        pipe: DiffusionPipeline = pipeline_class.from_pretrained(folder, dtype=dtype, **absent, **parts)
        for name in components:
            if isinstance(part := pipe.components[name], torch.nn.Module):
                part.requires_grad_(False).eval().to(device)
        return pipe

    def fingerprint(self, *components: str) -> str:
        """As `PipelineSource.fingerprint`, over the components' files."""
        return self.files.fingerprint(*components)

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

    def _config(self, component: str) -> dict[str, Any]:
        path = self.files.folder() / component / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: missing, so {self.name} is no complete diffusers checkpoint. Fetch it again."
            )
        return dict(_with_defaults(self._class(component), path.read_text(encoding="utf-8")))


@cache
def _with_defaults(model: Any, text: str) -> dict[str, Any]:
    """A configuration file's fields; those that it leaves out are the model class's defaults."""
    # diffusers tells them only of a model that is built, which takes longer than all else of a source.
    with torch.device("meta"):
        return dict(model.from_config(json.loads(text)).config)
