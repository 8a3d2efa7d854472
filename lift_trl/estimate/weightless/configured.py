"""A checkpoint as its configuration files describe it: the true models, with nothing in them."""

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from ...hub_source import pinned
from ...store.quantization import Quantization, layers_within, quantize
from ...video_models import StoredPipeline
from .meter import Meter


#: Configurations that come with the package, so that the recipes' models are counted without a network.
PACKAGED = Path(__file__).parents[1] / "checkpoints"
#: Layers in place of a checkpoint's own: (component, key of its configuration) -> number.
Depths = Mapping[tuple[str, str], int]


def config_folder(name_or_path: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint's configuration files: a folder of the user, the package's, or some KB of the Hub."""
    folders = [Path(name_or_path), PACKAGED / name_or_path]
    if found := next((folder for folder in folders if folder.is_dir()), None):
        return found
    source = pinned(name_or_path, revision)
    with source.named("model"):
        return Path(snapshot_download(source.repo_id, revision=source.revision, allow_patterns=["*.json", "*.jinja"]))


class ConfiguredSource(StoredPipeline):
    """
    A `StoredPipeline` whose models are built from their configurations under a meter.

    Args:
        name_or_path: Hub id, or folder with at least the configuration files.
        revision: branch, tag or commit of a Hub id.
        network: the part that a run trains, where there are two.
        depths: layers to build in place of the checkpoint's own.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        revision: str | None = None,
        network: str | None = None,
        depths: Depths | None = None,
    ) -> None:
        super().__init__(str(config_folder(name_or_path, revision)), network=network)
        self.depths = dict(depths or {})
        self.meter: Meter | None = None
        # On the CPU a family's half precision is bfloat16, which takes as many bytes as float16.
        self.released_dtype = self.adapter.dtype
        if self.adapter.dtype == torch.float16:
            self.adapter.dtype = torch.bfloat16
        # Schedulers and guiders: made outside of the meter, since their numbers matter.
        classes: dict[str, Any] = {name: self._class(name) for name in self._component_names()}
        self._settings = {
            name: found.from_config(_without_scipy(found.load_config(str(Path(self.name) / name))))
            for name, found in classes.items()
            if found is not None and issubclass(found, ConfigMixin) and not issubclass(found, ModelMixin)
        }
        # Models that a pipeline asks for its sizes wherever it is made; they wait on the host.
        with torch.device("meta"):
            self._waiting = {
                name: classes[name].from_config(self._read(name))
                for name in self.adapter.always_loaded
                if name not in self._settings
            }

    def _class(self, component: str) -> type | None:
        """As `StoredPipeline._class`; also of what diffusers names by its own module, as guiders."""
        library, class_name = self._index[component]
        return _find(library, class_name) if str(library).startswith("diffusers.") else super()._class(component)

    def load(
        self,
        *components: str,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        private: bool = False,
        quantization: Quantization | None = None,
    ) -> DiffusionPipeline:
        """As `PipelineSource.load`; the named models have shapes and types only."""
        parts: dict[str, Any] = {**dict.fromkeys(self._component_names()), **self._waiting}
        for name in components:
            parts[name] = _tokenizer() if "tokenizer" in name else self._build(name, dtype, quantization)
        return _find("diffusers", self.class_name)(**{**parts, **self._settings})

    def fingerprint(self, *components: str) -> str:
        """The same for all: there are no weights."""
        return "counted"

    def layers(self) -> dict[tuple[str, str], int]:
        """How many layers of each kind the checkpoint has."""
        return {
            (component, key): value
            for component in self._component_names()
            if (Path(self.name) / component / "config.json").is_file()
            for key, value in self._config_of(component).items()
            if key.startswith("num_") and key.endswith("layers") and isinstance(value, int)
        }

    def _read(self, component: str) -> dict[str, Any]:
        config = json.loads((Path(self.name) / component / "config.json").read_text(encoding="utf-8"))
        for (_, key), number in ((which, n) for which, n in self.depths.items() if which[0] == component):
            # Some configurations list a value for each layer.
            lists = {
                name: one for name, one in config.items() if isinstance(one, list) and len(one) == config.get(key)
            }
            config |= {name: (one * number)[:number] for name, one in lists.items()} | {key: number}
        return dict(config)

    def _config_of(self, component: str) -> dict[str, Any]:
        """With the class's defaults filled in."""
        library, class_name = self._index[component]
        if library == "diffusers":
            return self._config(component)
        return dict(_find(library, class_name).config_class(**self._read(component)).to_dict())

    def _build(self, component: str, dtype: torch.dtype, quantization: Quantization | None) -> torch.nn.Module:
        assert self.meter is not None, "load under a meter"
        library, class_name = self._index[component]
        model_class, config = _find(library, class_name), self._read(component)
        in_8_bits = quantization if component in self.adapter.networks else None
        # Weights are quantised before they come to a device.
        loading = self.meter.on_host() if in_8_bits else nullcontext()
        with self.meter.taking("weights"), loading, undrawn(dtype):
            if library == "diffusers":
                model = model_class.from_config(config)
            else:
                model = model_class(model_class.config_class(**config))
                model.tie_weights()
            if in_8_bits is None:
                torch.nn.Module.to(model, dtype)  # buffers too, as `from_pretrained` does where it quantises nothing
            # transformers keeps some layers of a float16 model in float32, diffusers those of any.
            # Private in diffusers 0.42 and transformers 5.24: _keep_in_fp32_modules; when it goes,
            # `test_a_part_is_of_the_published_size` fails.
            kept = set(model_class._keep_in_fp32_modules or ())
            if dtype != torch.float32 and (library == "diffusers" or self.released_dtype == torch.float16):
                for name, parameter in model.named_parameters():
                    if kept.intersection(name.split(".")):
                        parameter.data = parameter.data.float()
            if in_8_bits is not None:
                quantize(model, in_8_bits, whole=layers_within(model, kept))
        return model.requires_grad_(False).eval()


def _without_scipy(config: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule of no beta distribution. How many noise levels there are is counted, not which."""
    return {key: False if key == "use_beta_sigmas" else value for key, value in config.items()}


def _find(library: str, class_name: str) -> Any:
    return getattr(importlib.import_module(library), class_name)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: text encoders pad to a fixed length, so the words and the chat around them cost nothing."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "</s>": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    return tokenizer


@contextmanager
def undrawn(dtype: torch.dtype) -> Iterator[None]:
    """
    Models made here are of `dtype`, and nothing is drawn for their weights: without contents, torch would draw a truncated
    normal again and again, for ever. Weights that transformers ties at the end of drawing are tied by `tie_weights`.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            yield
    finally:
        torch.set_default_dtype(before)
