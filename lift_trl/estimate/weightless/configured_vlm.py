"""A vision-language model as its configuration files describe it: the true model with nothing in its weights."""

from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    LlavaForConditionalGeneration,
)
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from ...critic.settings import read_model_type
from ...critic_models.vila import DownsampleProjector, VilaConfig, vila_processor
from ...store.quantization import Quantization, quantize
from .configured import Depths, config_folder, undrawn
from .meter import Meter


# What a configuration calls its number of layers, and the lists of those that do more than the others.
_DEPTHS = ("depth", "num_hidden_layers")
_SPECIAL = ("fullatt_block_indexes", "deepstack_visual_indexes")
_PARTS = ("text_config", "vision_config")


class ConfiguredVLM:
    """
    A chat VLM whose model is built from its configuration under a meter.

    Args:
        name_or_path: Hub id, or folder with at least the configuration and the processor's files.
        revision: branch, tag or commit of a Hub id.
    """

    def __init__(self, name_or_path: str, *, revision: str | None = None) -> None:
        self.name_or_path = name_or_path
        self.folder = str(config_folder(name_or_path, revision))
        self.model_type = read_model_type(self.folder)

    def config(self, depths: Depths | None = None) -> Any:
        """The checkpoint's configuration, with other numbers of layers where `depths` names them."""
        kind: Any = VilaConfig if self._is_vila else AutoConfig
        config = kind.from_pretrained(self.folder)
        for name in _PARTS:
            part = getattr(config, name)
            key, special = _depth_keys(part)
            plain = (depths or {}).get((name, key))
            if plain is None:
                continue
            several = 0 if special is None else (depths or {}).get((name, special), 0)
            if kinds := part.to_dict().get("layer_types"):  # one for each layer
                part.layer_types = (kinds * (plain + several))[: plain + several]
            setattr(part, key, plain + several)
            if special is not None:
                setattr(part, special, list(range(plain, plain + several)))
        return config

    @cached_property
    def layers(self) -> Depths:
        """How many layers of each kind the checkpoint has: (part of the configuration, key) -> number."""
        config, found = self.config(), {}
        for name in _PARTS:
            part = getattr(config, name)
            key, special = _depth_keys(part)
            several = 0 if special is None else len(getattr(part, special))
            found[name, key] = getattr(part, key) - several
            if special is not None:
                found[name, special] = several
        return found

    @cached_property
    def processor(self) -> Any:
        """Its processor. Those that come with the package take each word for a token."""
        if not self._is_vila:
            return AutoProcessor.from_pretrained(self.folder)
        images, tokenizer = AutoImageProcessor.from_pretrained(self.folder), AutoTokenizer.from_pretrained(self.folder)
        return vila_processor(images, tokenizer, self.config().vision_config.patch_size)

    def empty(self, depths: Depths | None = None, *, dtype: torch.dtype = torch.float32) -> Any:
        """The model with whatever its weights begin with, in `dtype` whatever its configuration names."""
        config = self.config(depths)
        if not self._is_vila:
            return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
        for name in _PARTS:  # each part is made in what its own configuration names
            getattr(config, name).dtype = dtype
        model = LlavaForConditionalGeneration(config)
        sizes = config.vision_config.hidden_size, config.text_config.hidden_size
        model.model.multi_modal_projector = DownsampleProjector(*sizes)
        return model

    def gathered_bytes(self, dtype: torch.dtype) -> float:
        """What a card holds whole where weights are spread: two layers, in use and on its way, and what is in none."""
        with torch.device("meta"):
            model = self.empty()
        # What both FSDP and DeepSpeed read. Private in transformers 5.24: _no_split_modules; when it goes,
        # `test_a_critic_that_is_not_trained_yet_is_the_one_beside` fails.
        layers = [_size(part) for part in model.modules() if type(part).__name__ in model._no_split_modules]
        return float((_size(model) - sum(layers) + 2 * max(layers)) * dtype.itemsize)

    def build(
        self,
        meter: Meter,
        dtype: torch.dtype,
        depths: Depths | None = None,
        quantization: Quantization | None = None,
    ) -> Any:
        """The model in evaluation mode, its memory counted as weights."""
        # Weights are quantised before they come to a device.
        loading = meter.on_host() if quantization else nullcontext()
        with meter.taking("weights"), loading, undrawn(dtype):
            model = self.empty(depths, dtype=dtype)
            model.tie_weights()
            if quantization is not None:
                # Private in transformers 5.24: _keep_in_fp32_modules; when it goes,
                # `test_a_critic_in_8_bits_takes_what_is_counted` fails.
                kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
                if self._is_vila:  # made of parts: of the tower's the last is kept too, and the projector is none
                    kept = [*kept, "model.multi_modal_projector", "model.vision_tower.head.attention.out_proj"]
                names = (name for name, _ in model.named_modules())
                whole = {name for name in names if not should_convert_module(f"{name}.weight", kept)}
                quantize(model, quantization, whole=whole)
        model.generation_config = GenerationConfig(eos_token_id=self.processor.tokenizer.eos_token_id)
        return model.requires_grad_(False).eval()

    @property
    def _is_vila(self) -> bool:
        return self.model_type == VilaConfig.model_type


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _depth_keys(part: Any) -> tuple[str, str | None]:
    """What a part calls its number of layers, and its list of special ones."""
    values = part.to_dict()
    return next(key for key in _DEPTHS if key in values), next((key for key in _SPECIAL if values.get(key)), None)
