"""Which LoRA a folder or repository holds, by its content, and what it says of the run that trained it."""

import json
from pathlib import Path
from typing import Any

from ...hub_source import find_file
from ...records import content_id
from ...store.manifest import RUN_FILE, STATE_FILE, read_json
from ..parents import hub_parent


#: Parents of sampled clips: a LoRA, and of a pipeline with two networks the second one.
ADAPTERS = ("adapter", "adapter_2")
#: Entry of the clips' `config`: what `training_of` each of them says.
TRAINING = "training"
#: Entry of `run.json`: the critics whose rewards a LoRA, and those that it began with, were trained on, `null` where that is
#: not known.
CRITICS = "critics"
#: Entry of `run.json`: the id of the rubric that its clips were rated by.
RUBRIC = "rubric"
#: How long a run was, of its Trainer's state.
LENGTH = ("max_steps", "train_batch_size")


def adapter_identity(adapter: str | Path) -> str:
    """
    `repo@commit` of a LoRA on the Hub, `folder@hash` of one on the disk, over the content of its weight files.

    The content, not the bytes: safetensors orders the metadata of a file at random, so a LoRA that is saved once more has
    other bytes.
    """
    if not Path(adapter).is_dir():
        return hub_parent(adapter)
    files = sorted(Path(adapter).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"{adapter}: holds no LoRA. Name the output_dir of recipes/align.py, or a checkpoint of it."
        )
    return f"{adapter}@{content_id(*(part for path in files for part in _content(path)))}"


def _content(path: Path) -> tuple[str, bytes]:
    """Header, sorted, and tensors of a safetensors file (8 bytes of the header's length, the header as JSON, tensors)."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True), data[end:]


def training_of(adapter: str | Path) -> dict[str, Any]:
    """
    The settings of the run that trained the LoRA of a folder or `repo@commit` (`run.json`), and how long it was; nothing
    where that does not say: a `run.json` of a person's, which names the network only, does not.

    Raises:
        ValueError, ConnectionError: as `find_file`; if a file is damaged.
    """
    run, state = (find_file(adapter, name) for name in (RUN_FILE, STATE_FILE))
    said = {} if run is None else read_json(run)
    length = {} if state is None else read_json(state)
    return {**{name: length.get(name) for name in LENGTH}, **said} if "objective" in said else {}
