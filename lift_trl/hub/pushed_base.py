"""The base model that a pushed adapter is loaded on: one that others have."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard


ADAPTER_CONFIG = "adapter_config.json"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SNIPPET_BASE = re.compile(r'DiffusionPipeline\.from_pretrained\(\s*"([^"]*)"')


def check_pushed_base(api: HfApi, folder: Path, readme: str, base_model: str | None) -> None:
    """
    Checks that what is pushed from `folder` names a base that is on the Hub, or is given one.

    Raises:
        ValueError: if the base is a folder of this machine and there is no `base_model`, or no such model on the Hub.
    """
    named = _named_base(folder, readme)
    if named is not None or base_model:
        check_base(api, folder, named or "", base_model, option="--base-model user/name")


def check_base(
    api: HfApi, folder: Path | str, named: str, given: str | None, *, option: str = "hub_base_model: user/name"
) -> None:
    """
    Checks that others find the base of what is pushed.

    Args:
        folder: what is pushed.
        named: the base that it was trained on, `""` of one that was built in memory.
        given: the name on the Hub that the user gives it.
        option: how the user gives it; by default in a trainer's configuration.

    Raises:
        ValueError: if `named` is no model on the Hub and there is no `given`, or that is none.
    """
    base = given or named
    is_id = _HUB_ID.fullmatch(base) is not None and (bool(given) or not Path(named).is_dir())
    if not is_id or not api.repo_exists(base):
        what = "is no model on the Hub" if is_id or given else "is a folder of this machine"
        raise ValueError(
            f"{folder}: its base model {base!r} {what if base else 'was built in memory'}, so nobody could load what is "
            f"pushed. Push the base first (its folder, by `hf upload`), and name it: {option}."
        )


def with_base(folder: Path, readme: str, base_model: str) -> Mapping[str, bytes]:
    """The card, and the adapter's configuration where there is one, with `base_model` as the base, by file name."""
    named = _named_base(folder, readme)
    card: Any = ModelCard(readme.replace(f'"{named}"', f'"{base_model}"') if named else readme)
    card.data.base_model = base_model
    changed = {"README.md": str(card).encode()}
    if (folder / ADAPTER_CONFIG).is_file():
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": base_model, "revision": None}
        changed[ADAPTER_CONFIG] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    return changed


def _named_base(folder: Path, readme: str) -> str | None:
    """The base that the adapter's configuration names, else the card's snippet; `None` where nothing is adapted."""
    if (folder / ADAPTER_CONFIG).is_file():
        named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        if named:
            return str(named)
    found = _SNIPPET_BASE.search(readme)
    return found[1] if found else None
