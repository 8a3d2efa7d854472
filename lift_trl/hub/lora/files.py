"""PEFT adapter folders: training goes on from them, and they become LoRA files of other tools (diffusers, ComfyUI)."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...hub_source import pinned
from ...store.manifest import RUN_FILE, read_json
from ...store.weights import damaged, read_tensors
from .options import check_lora_options


logger = get_logger(__name__)

DIFFUSERS_LORA_FILE = "pytorch_lora_weights.safetensors"
COMFYUI_LORA_FILE = "comfyui_lora.safetensors"
PEFT_WEIGHTS_FILE = "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."
# In the header of a file. Of its own, beside the JSON that diffusers reads: diffusers and ComfyUI pass over it.
_NETWORK_KEY = "lift_trl_network"


def read_peft_adapter(adapter_dir: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Weights and configuration of a PEFT folder, keys as the transformer names its modules (`...to_q.lora_A.weight`).

    Raises:
        FileNotFoundError: if the folder holds no adapter.
        ValueError: if the file is cut off, a tensor is empty (a sharded run saved without gathering its parameters), or it
            was trained with an option that does not come back from its file.
    """
    path = Path(adapter_dir) / PEFT_WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing. Name a folder that the trainer saved: output_dir or a checkpoint of it."
        )
    weights = {key.removeprefix(_PEFT_PREFIX): tensor for key, tensor in read_tensors(path).items()}
    empty = [key for key, tensor in weights.items() if tensor.numel() == 0]
    if empty or not weights:
        raise ValueError(
            f"{path}: {len(empty)} of {len(weights)} tensors are empty; the adapter was not gathered when saved."
        )
    config = LoraConfig.from_pretrained(str(adapter_dir))
    check_lora_options(config, where=str(adapter_dir))
    return weights, config.to_dict()


def load_adapter(model: PeftModel, adapter: Path | str, *, network: str) -> None:
    """
    Puts the weights of an earlier LoRA into the adapter of `model`, which then computes what base and LoRA computed.

    Args:
        adapter: folder that the trainer saved, or a repo that holds one.
        network: the part of the pipeline that `model` is.

    Raises:
        FileNotFoundError: if there is no PEFT adapter.
        ValueError: if it has another rank, another scale or other targets than `model`'s, or another network's shapes, or
            says that it is another network's.
    """
    folder = Path(adapter)
    source = pinned(adapter)
    if not folder.is_dir() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source.repo_id):
        files = ["adapter_*", DIFFUSERS_LORA_FILE]
        folder = Path(snapshot_download(source.repo_id, revision=source.revision, allow_patterns=files))
    weights, config = read_peft_adapter(folder)
    named = lora_network(folder / DIFFUSERS_LORA_FILE)
    if named not in (None, network):
        raise ValueError(
            f"{adapter}: is a LoRA of {named}, and this run trains {network}. Name one of {network}, or give "
            f"network: {named}."
        )
    own = model.peft_config["default"].to_dict()
    for name in ("r", "lora_alpha", "use_rslora", "alpha_pattern"):
        if config[name] != own[name]:
            raise ValueError(
                f"{adapter}: its LoRA has {name}={config[name]}, this run's has {name}={own[name]}. Training goes on with "
                f"the values that it began with: give {name}={config[name]} (in a YAML, r is lora_r)."
            )
    base, own_base = config["base_model_name_or_path"], own["base_model_name_or_path"]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    wanted = {key.removeprefix(_PEFT_PREFIX): tuple(tensor.shape) for key, tensor in state.items()}
    given = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    if wrong := sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key)):
        raise ValueError(
            f"{adapter}: {len(wrong)} tensors do not fit {own_base}, first {wrong[0]} (shape there {given.get(wrong[0])}, "
            f"here {wanted.get(wrong[0])}). It was trained on {base}, on {_json_values(config)['target_modules']}: "
            "name that model and these lora_target_modules."
        )
    if base != own_base:
        logger.warning(
            "%s was trained on %s, this run's base is %s; fine if the weights are the same", adapter, base, own_base
        )
    set_peft_model_state_dict(model, {f"{_PEFT_PREFIX}{key}": tensor for key, tensor in weights.items()})


def export_diffusers_lora(adapter_dir: Path | str, output_dir: Path | str, *, network: str | None = None) -> Path:
    """
    Writes `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights` reads, with rank and alpha as metadata, and
    the name of the network that it belongs to.

    Without that metadata diffusers silently scales a LoRA whose alpha differs from its rank wrongly. The file is the same
    for every pipeline, also for those without a `save_lora_weights` of their own.

    Args:
        network: the part of the pipeline that it belongs to; what `adapter_dir` says for `None`.
    """
    weights, config = read_peft_adapter(adapter_dir)
    described = {f"transformer.{key}": value for key, value in _json_values(config).items()}
    return _write(
        {f"transformer.{key}": tensor for key, tensor in weights.items()},
        Path(output_dir) / DIFFUSERS_LORA_FILE,
        network or lora_network(Path(adapter_dir) / DIFFUSERS_LORA_FILE),
        {LORA_ADAPTER_METADATA_KEY: json.dumps(described, indent=2, sort_keys=True)},
    )


def export_comfyui_lora(adapter_dir: Path | str, output_dir: Path | str, *, module_name: Callable[[str], str]) -> Path:
    """
    Writes `comfyui_lora.safetensors`: keys under `diffusion_model.`, and one `.alpha` a module, which ComfyUI divides by
    the rank (PEFT divides by its root for `use_rslora`).

    Args:
        module_name: ComfyUI's name of a module (`VideoModel.comfyui_name`).

    Raises:
        ValueError: for what ComfyUI does not read.
    """
    weights, config = read_peft_adapter(adapter_dir)
    if unread := [key for key in weights if not key.endswith((".lora_A.weight", ".lora_B.weight"))]:
        raise ValueError(
            f"{adapter_dir}: ComfyUI reads a LoRA's two matrices, and this one has {len(unread)} tensors more (use_dora or "
            f"lora_bias), first {unread[0]}. Give ComfyUI the merged model: --format merged."
        )
    converted: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        module, part = key[: key.index(".lora_")], key[key.index(".lora_") :]
        converted[f"diffusion_model.{module_name(module)}{part}"] = tensor
    for key in [key for key in weights if key.endswith(".lora_A.weight")]:
        module, rank = key.removesuffix(".lora_A.weight"), weights[key].shape[0]
        alpha = config["alpha_pattern"].get(
            get_pattern_key(config["alpha_pattern"].keys(), module), config["lora_alpha"]
        )
        converted[f"diffusion_model.{module_name(module)}.alpha"] = torch.tensor(
            alpha * math.sqrt(rank) if config["use_rslora"] else float(alpha)
        )
    network = lora_network(Path(adapter_dir) / DIFFUSERS_LORA_FILE)
    return _write(converted, Path(output_dir) / COMFYUI_LORA_FILE, network, {})


def lora_network(file: Path) -> str | None:
    """
    The part of the pipeline that a LoRA's file, or else the `run.json` beside it, names: `transformer`, or `transformer_2`
    of a pipeline with two; `None` where neither does.

    Raises:
        ValueError: if the file is damaged.
    """
    named = _header(file).get(_NETWORK_KEY) if file.is_file() else None
    run = file.parent / RUN_FILE
    return named or (read_json(run).get("network") if run.is_file() else None)


def _header(file: Path) -> dict[str, str]:
    """The metadata in a file's header."""
    try:
        with safe_open(str(file), framework="pt") as content:
            return content.metadata() or {}
    except SafetensorError as error:
        raise damaged(file, error) from error


def _write(tensors: dict[str, Tensor], file: Path, network: str | None, metadata: dict[str, str]) -> Path:
    """Writes `tensors` as `file`, with `network` in its header where that is known."""
    file.parent.mkdir(parents=True, exist_ok=True)
    named = {} if network is None else {_NETWORK_KEY: network}
    save_file(tensors, file, metadata={"format": "pt", **metadata, **named})
    return file


def _json_values(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with sets as sorted lists and enums as their values."""
    return dict(
        json.loads(json.dumps(config, default=lambda value: sorted(value) if isinstance(value, set) else value.value))
    )
