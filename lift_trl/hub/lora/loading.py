"""A LoRA put on a diffusers pipeline, and counted: what is not applied in full is refused, with the keys."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from huggingface_hub import HfApi, hf_hub_download
from peft import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ...hub_source import pinned
from ...store.disk.outputs import check_new_folder, new_folder
from ...store.manifest import RUN_FILE
from ...store.weights import damaged, shown, unapplied
from .files import DIFFUSERS_LORA_FILE, PEFT_WEIGHTS_FILE, lora_network, read_peft_adapter
from .origin import adapter_identity


# Not accelerate's logger, which raises where no launcher state was made: a Space and `lift-trl export` have none.
logger = logging.getLogger(__name__)

_PREFIX = "transformer."
_NETWORKS = ("transformer", "transformer_2")


class FoundLora(NamedTuple):
    """A LoRA's file on this disk, `repo@commit` or `folder@hash` of what it is, and the network that it names, if any."""

    file: Path
    identity: str
    network: str | None

    @property
    def place(self) -> str:
        """Its folder, or `repo@commit`."""
        folder = self.identity.rpartition("@")[0]
        return folder if Path(folder).is_dir() else self.identity


def find_lora(lora: Path | str) -> FoundLora:
    """
    The file that `load_lora_weights` reads, of a folder or a repo; of a repo at the commit that its identity names.

    Raises:
        FileNotFoundError: if there is none, or only what PEFT reads.
        ValueError: if there are several, or the file is damaged.
    """
    folder, identity = Path(lora), adapter_identity(lora)
    repo, _, commit = identity.rpartition("@")
    if folder.is_dir():
        names = [path.name for path in folder.glob("*.safetensors")]
    else:
        names = [name for name in HfApi().list_repo_files(repo, revision=commit) if name.endswith(".safetensors")]
    readable = sorted(name for name in names if name != PEFT_WEIGHTS_FILE and "/" not in name)
    if DIFFUSERS_LORA_FILE in readable:
        readable = [DIFFUSERS_LORA_FILE]
    if not readable:
        raise FileNotFoundError(
            f"{lora}: holds no LoRA that a pipeline reads ({DIFFUSERS_LORA_FILE})"
            + (
                f", only {PEFT_WEIGHTS_FILE}: make one of it with lift-trl export --format diffusers."
                if names
                else "."
            )
        )
    if len(readable) > 1:
        raise ValueError(
            f"{lora}: holds {', '.join(readable)}, and nothing says which to load. Put one of them into a folder of its own."
        )
    if folder.is_dir():
        file = folder / readable[0]
    else:
        file = Path(hf_hub_download(repo, readable[0], revision=commit))
    return FoundLora(file, identity, lora_network(file))


def find_loras(adapter: Path | str | Sequence[Path | str] | None, networks: Sequence[str]) -> tuple[FoundLora, ...]:
    """
    The LoRAs (`find_lora`) of a pipeline with these `networks`, at most one of each, in the networks' order.

    Raises:
        FileNotFoundError, ValueError: as `find_lora` and `network_of`; if two are of one network.
    """
    names = [] if adapter is None else [adapter] if isinstance(adapter, str | Path) else adapter
    found: dict[str, FoundLora] = {}
    for lora in map(find_lora, names):
        network = network_of(lora, networks)
        if other := found.get(network):
            raise ValueError(f"{other.file} and {lora.file} are both LoRAs of {network}. Name one a network.")
        found[network] = lora._replace(network=network)
    return tuple(found[network] for network in networks if network in found)


def network_of(lora: FoundLora, networks: Sequence[str]) -> str:
    """
    Which of a pipeline's `networks` is the one of `lora`.

    Raises:
        ValueError: if `lora` is of a network that is not there, or says nothing and there are two.
    """
    if lora.network is not None:
        if lora.network in networks:
            return lora.network
        raise ValueError(
            f"{lora.file}: is a LoRA of {lora.network}, and this pipeline has {' and '.join(networks)} only. It is the LoRA "
            "of another model."
        )
    if len(networks) > 1:
        raise ValueError(
            f"{lora.file}: does not say whether it is a LoRA of {' or of '.join(networks)}, and this pipeline has both. Put "
            f'it into a folder of its own, with a {RUN_FILE} of {{"network": "{networks[0]}"}} or {{"network": '
            f'"{networks[1]}"}}.'
        )
    return networks[0]


def load_lora(pipe: Any, lora: FoundLora, *, name: str) -> str:
    """
    Puts `lora` on its network of `pipe` as adapter `name`, beside those that are active, and checks every tensor.

    Returns:
        The network: `transformer`, or `transformer_2` of a pipeline that has two.

    Raises:
        ValueError: if the file is damaged, holds no LoRA of this transformer or more than that, or if a tensor of it was
            not applied; names the keys; or as `network_of`. The pipeline is then as it was.
    """
    network = network_of(lora, [part for part in _NETWORKS if getattr(pipe, part, None) is not None])
    transformer = getattr(pipe, network)
    given = _read(pipe, lora.file)
    _check_fit(transformer, given, lora.file)
    # Private in diffusers 0.42: _hf_peft_config_loaded; when it goes,
    # `test_a_second_lora_stands_beside_the_first_at_its_scale` fails.
    active = transformer.active_adapters() if transformer._hf_peft_config_loaded else []
    source: dict[str, Any] = {"weight_name": lora.file.name, "adapter_name": name}
    if isinstance(pipe, LoraBaseMixin):
        source |= {} if network == "transformer" else {f"load_into_{network}": True}
        pipe.load_lora_weights(str(lora.file.parent), **source)
    else:  # HunyuanVideo 1.5's pipeline has no LoRA loader in diffusers 0.42
        transformer.load_lora_adapter(str(lora.file.parent), prefix="transformer", **source)
    applied = get_peft_model_state_dict(transformer, adapter_name=name, save_embedding_layers=False)
    if left := unapplied(given, applied):
        transformer.delete_adapters(name)
        if not active:
            transformer.unload_lora()
        raise ValueError(
            f"{lora.file}: {len(left)} of {len(given)} tensors were not applied to {type(transformer).__name__}: "
            f"{shown(left)}. What would be sampled is not this LoRA's."
        )
    transformer.set_adapter([*active, name])
    if not any(bool(tensor.any()) for key, tensor in given.items() if "lora_A" not in key):
        logger.warning("%s: changes nothing, all its lora_B are zero (it was never trained)", lora.file)
    return network


def loading_call(pipeline: str, network: str, lora: str) -> str:
    """
    Python that puts the LoRA file of `lora` (a repo or a folder) on `network` of `pipe`, which is a `pipeline` of diffusers.

    A pipeline without a LoRA loader (HunyuanVideo 1.5's in diffusers 0.42) has one in its transformer.
    """
    where = f'"{lora}", weight_name="{DIFFUSERS_LORA_FILE}"'
    if not hasattr(getattr(diffusers, pipeline, None), "load_lora_weights"):
        return f"pipe.{network}.load_lora_adapter({where})"
    target = "" if network == "transformer" else f", load_into_{network}=True"
    return f"pipe.load_lora_weights({where}{target})"


def choose_adapter(pipe: Any, networks: Collection[str], name: str | None) -> None:
    """Leaves adapter `name` of `networks`, which have adapters, as the only active one; none for `None`."""
    for network in networks:
        transformer = getattr(pipe, network)
        if name in transformer.peft_config:
            transformer.enable_lora()
            transformer.set_adapters([name])
        else:
            transformer.disable_lora()


def export_merged_pipeline(lora_dir: Path | str, base: str, output_dir: Path | str, *, dtype: torch.dtype) -> Path:
    """
    Writes a whole pipeline with the LoRA of `lora_dir` merged into its network of `base`, in `dtype`.

    The folder appears whole or not at all.

    Raises:
        FileExistsError: if `output_dir` holds something (the base itself, for instance).
        ValueError: if it is no LoRA of `base` (`load_lora`).
    """
    check_new_folder(output_dir)
    source = pinned(base)
    pipe: Any = DiffusionPipeline.from_pretrained(source.repo_id, revision=source.revision, dtype=dtype)
    network = load_lora(pipe, find_lora(lora_dir), name="merged")
    transformer = getattr(pipe, network)
    transformer.fuse_lora(safe_fusing=True)
    transformer.unload_lora()
    with new_folder(output_dir) as partial:
        pipe.save_pretrained(str(partial))
    return Path(output_dir)


def base_model(lora_dir: Path | str) -> str:
    """Hub id or folder of the model that the LoRA of a PEFT folder was trained on; `ValueError` where it does not say."""
    base = read_peft_adapter(lora_dir)[1]["base_model_name_or_path"]
    if not base:
        raise ValueError(f"{lora_dir}: does not say which model it was trained on. Give it: --base.")
    return str(base)


def _read(pipe: Any, file: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file by PEFT's names, as the pipeline's family reads it."""
    try:
        with safe_open(file, framework="pt") as content:
            keys, metadata = list(content.keys()), content.metadata() or {}
    except SafetensorError as error:
        raise damaged(file, error) from error
    scales = [key for key in keys if key.endswith("dora_scale")]
    if scales:
        # diffusers 0.42 leaves these keys out with a warning (lora_state_dict).
        raise ValueError(
            f"{file}: {len(scales)} of {len(keys)} tensors are DoRA's in a form that diffusers does not read: "
            f"{shown(scales)}. Use PEFT's (lora_magnitude_vector), or a merged pipeline."
        )
    weights: Mapping[str, Tensor] = (
        pipe.lora_state_dict(str(file.parent), weight_name=file.name)
        if isinstance(pipe, LoraBaseMixin)
        else load_file(file)
    )
    foreign = sorted(key for key in weights if not key.startswith(_PREFIX))
    if foreign or not weights:
        raise ValueError(
            f"{file}: {len(foreign)} of {len(weights)} tensors are none of a transformer's LoRA (of {_PREFIX}...): "
            f"{shown(foreign)}. Name a LoRA of this pipeline; of a folder of PEFT's, lift-trl export --format diffusers "
            "makes one."
        )
    if "lora_adapter_metadata" not in metadata and not any(key.endswith(".alpha") for key in keys):
        logger.warning("%s: names no alpha, so it is taken for the rank (scale 1)", file)
    own = {key.removeprefix(_PREFIX): tensor for key, tensor in weights.items()}
    return own if any("lora_A" in key for key in own) else convert_unet_state_dict_to_peft(own)


def _check_fit(transformer: torch.nn.Module, given: Mapping[str, Tensor], file: Path) -> None:
    """Raises `ValueError` if a tensor belongs to no layer of `transformer`, or to one of another size."""
    layers = dict(transformer.named_modules())

    def fits(key: str, tensor: Tensor) -> bool:
        module, lora, part = key.rpartition(".lora_")
        if not lora or module not in layers:
            return False
        weight: Any = layers[module].weight
        if part == "A.weight":
            return tensor.shape[1] == weight.shape[1]
        return tensor.shape[0] == weight.shape[0]

    if wrong := sorted(key for key, tensor in given.items() if not fits(key, tensor)):
        raise ValueError(
            f"{file}: {len(wrong)} of {len(given)} tensors fit no layer of {type(transformer).__name__} here: "
            f"{shown(wrong)}. It is the LoRA of another model."
        )
