"""Files of weights: whether they are whole, and whether a model took all that they hold."""

import json
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.hub import extract_commit_hash

from ..hub_source import find_file, pinned
from ..records import content_id
from .disk.digest import file_digest
from .manifest import STATE_FILE


_SHOWN_KEYS = 3
_TORCH_SUFFIXES = (".pt", ".pth", ".bin")
#: Where the optimiser's state is: alone, of FSDP (one file or a folder), of DeepSpeed.
_OPTIMIZER_FILES = ("optimizer.", "optimizer_", "global_step")


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """
    The tensors of a safetensors file.

    Raises:
        ValueError: naming the file, if it is cut off or damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise damaged(path, error) from error


def damaged(path: Path | str, error: Exception) -> ValueError:
    """What is to be raised where a file of weights cannot be read."""
    return ValueError(f"{path}: damaged ({error}). Copy or download it again, or name another one.")


def is_whole(path: Path) -> bool:
    """
    Whether a file of weights or of training state is as long as it was written; nothing of it is loaded.

    safetensors says its length at the beginning; what `torch.save` writes is a zip file, whose directory is at the end.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return True
        except SafetensorError:
            return False
    return path.suffix not in _TORCH_SUFFIXES or zipfile.is_zipfile(path)


def broken_file(checkpoint: Path) -> Path | None:
    """
    A file of a Trainer's checkpoint that is missing or cut off, or `None` where the checkpoint is whole.

    The Trainer writes weights, optimiser, schedule and random state, and `trainer_state.json` after them; a killed process
    or a full disk leaves it out, or half of any of them. Without an optimiser's state stock goes on with a fresh one.
    """
    files = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    for path in files.values():
        if not (_is_json(path) if path.suffix == ".json" else is_whole(path)):
            return path
    wanted = [STATE_FILE]
    if "scheduler.pt" in files and not any(name.startswith(_OPTIMIZER_FILES) for name in files):
        wanted.append("optimizer.pt")
    if "optimizer.pt" in files:
        wanted.append("scheduler.pt")
    return next((checkpoint / name for name in wanted if name not in files), None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def load_whole(model_class: Any, name: Path | str, **options: Any) -> Any:
    """
    `model_class.from_pretrained(name, **options)` of transformers or diffusers, with all of its weights from the file.

    Both libraries fill what is missing with random numbers and go on.

    Raises:
        ValueError: if weights of the model were not in the file, or of another shape, or the file held more than the model
            took; names the keys.
    """
    options |= {
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }  # mismatches are listed, and refused here
    model, info = model_class.from_pretrained(str(name), **options)
    kinds = {"missing_keys": "not in the file", "mismatched_keys": "of another shape", "unexpected_keys": "left over"}
    found = {words: sorted(map(str, info.get(kind) or ())) for kind, words in kinds.items()}
    if any(found.values()):
        what = "; ".join(f"{len(keys)} {words}: {shown(keys)}" for words, keys in found.items() if keys)
        raise ValueError(f"{name}: its weights and its config.json are of different models ({what}). Fetch it again.")
    return model


def unapplied(given: Mapping[str, Tensor], applied: Mapping[str, Tensor]) -> list[str]:
    """Keys of `given` and `applied` that only one of them has, or whose values differ (in the precision of `applied`)."""

    def is_same(key: str) -> bool:
        if key not in given or key not in applied:
            return False
        return torch.equal(applied[key].cpu(), given[key].to(applied[key].dtype).cpu())

    return sorted(key for key in given.keys() | applied.keys() if not is_same(key))


def check_keys(where: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises `ValueError` unless `found` holds all that is `wanted`, in its shapes, and nothing else."""
    shapes, others = ({key: tuple(value.shape) for key, value in weights.items()} for weights in (found, wanted))
    wrong = sorted(key for key in shapes.keys() | others.keys() if shapes.get(key) != others.get(key))
    if wrong:
        raise ValueError(
            f"{where}: {len(shapes)} weights, {len(others)} wanted, and {len(wrong)} are missing, left over or of another "
            f"shape: {shown(wrong)}. Download it again, or name the repository that was meant."
        )


def weights_revision(name_or_path: Path | str, revision: str | None = None) -> str:
    """What tells one state of a model from another: its commit on the Hub; for a folder, a hash of its weights."""
    folder = Path(name_or_path)
    if folder.is_dir():
        suffixes = (".safetensors", *_TORCH_SUFFIXES)
        files = sorted(path for path in folder.glob("*model*") if path.suffix in suffixes)
        # VILA and VideoReward keep weights in folders; beside weights of its own, a folder holds checkpoints.
        files = files or sorted(path for path in folder.glob("*/*model*") if path.suffix in suffixes)
        return content_id(*(part for path in files for part in (path.name, file_digest(path))))
    source = pinned(name_or_path, revision)
    for file in ("config.json", "adapter_config.json", "model_config.json"):  # the last is VideoReward's
        if (path := find_file(source.repo_id, file, revision=source.revision)) is not None:
            return extract_commit_hash(str(path), None) or source.revision or "main"
    return source.revision or "main"


def shown(keys: Collection[str]) -> str:
    """The first few of `keys`, and how many more there are."""
    more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
    return ", ".join(list(keys)[:_SHOWN_KEYS]) + more
