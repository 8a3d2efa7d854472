"""Which files of a folder are its artefact and are pushed; logs, states and secrets that lie beside them stay here."""

import logging
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ...store.inspect import PAIRS_FILE
from ...store.manifest import ARTIFACT_FILE, METADATA_FILE, RUN_FILE, read_rows
from ...store.rubrics.of_data import RUBRIC_FILE
from ..private import SPACE_DATA, is_private


logger = logging.getLogger(__name__)

README = "README.md"
REPORT_PAGE = "report.html"
#: What people lay beside any artefact for others to read.
_EVERY_KIND = (ARTIFACT_FILE, README, RUBRIC_FILE, "LICENSE*", "NOTICE*")
#: Kind -> the files that make it, a `*` within one folder. The clips of `generated` are those of its rows.
FILES: dict[str, tuple[str, ...]] = {
    "hra": ("data/*.parquet",),
    "generated": (METADATA_FILE,),
    "scored": (METADATA_FILE,),
    "cache": (METADATA_FILE, PAIRS_FILE, "shards/*.parquet", "text/*.safetensors"),
    "report": ("report.md", "report.json", REPORT_PAGE, "model-index.yaml"),
    "critic": (
        *("*.safetensors", "*.safetensors.index.json", "config.json", "*_config.json", "evaluation.md", "evaluation.jsonl"),
        # of the processor, as transformers saves one
        *("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"),
        *("special_tokens_map.json", "chat_template.json", "*.jinja", "additional_chat_templates/*.jinja"),
    ),
    "lora": (
        *("pytorch_lora_weights.safetensors", "adapter_config.json", "adapter_model.safetensors", RUN_FILE),
        "comfyui_lora.safetensors",
        *("transformer/config.json", "transformer/*.safetensors", "transformer/*.safetensors.index.json"),
    ),
}  # fmt: skip
#: A Space is whatever its author wrote, code called `core/` or `token.py` among it; what is hidden, a run's or a secret
#: stays. Each is the name of a file, or of a folder on the way to it.
_NEVER_OF_A_SPACE = (
    *(".*", "__pycache__", "*.tmp", "*.pyc", "checkpoint-*", "wandb", SPACE_DATA),
    *("*.log", "nohup.out", "slurm-*", "events.out.tfevents*", "core.[0-9]*"),
    *("token", "*.token", "secret", "secrets", "*.pem", "*.key"),
    *(
        f"{name}.{end}"
        for name in ("token", "secret", "secrets")
        for end in ("txt", "json", "toml", "yaml", "yml", "ini")
    ),
)
#: The same, of what lies at its top.
_NEVER_AT_ITS_TOP = ("_*", "runs", "logs")
#: A crash's dump; a folder of that name is code.
_DUMP = "core"


def artifact_files(folder: Path, kind: str) -> Iterator[str]:
    """
    The files of `folder` that are pushed of an artefact of `kind`, relative, sorted: those that make it.

    What people said on a page stays in any case.
    """
    private = {path.parent for path in folder.rglob(".gitignore") if is_private(path.parent)}
    clips = _clips(folder) if kind == "generated" else frozenset()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        goes = name in clips or (_is_written(name) if kind == "space" else _is_made(name, kind))
        if goes and path.is_file() and private.isdisjoint(path.parents):
            yield name


def note_what_stays(folder: Path, kind: str, pushed: Collection[str]) -> None:
    """Names what lies beside an artefact and is not `pushed`, but for what is hidden: it may have been meant to go."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    left = [
        name
        for name in names
        if name.as_posix() not in pushed and name.parts[0][0] != "_" and all(part[0] != "." for part in name.parts)
    ]
    going = {name.split("/")[0] for name in pushed if "/" in name}
    # Of a folder of which nothing goes the name will do.
    shown = dict.fromkeys(
        f"{name.parts[0]}/" if len(name.parts) > 1 and name.parts[0] not in going else name.as_posix() for name in left
    )
    if shown:
        text = ", ".join([*shown][:5]) + (", ..." if len(shown) > 5 else "")
        logger.warning("%s: %d files are no part of a %s and stay here: %s", folder, len(left), kind, text)


def _is_made(name: str, kind: str) -> bool:
    path = PurePosixPath(name)
    return any(
        path.parent == PurePosixPath(pattern).parent and fnmatchcase(path.name, PurePosixPath(pattern).name)
        for pattern in (*_EVERY_KIND, *FILES[kind])
    )


def _is_written(name: str) -> bool:
    parts = PurePosixPath(name).parts
    never = any(fnmatchcase(part, pattern) for part in parts for pattern in _NEVER_OF_A_SPACE)
    return not never and parts[-1] != _DUMP and not any(fnmatchcase(parts[0], one) for one in _NEVER_AT_ITS_TOP)


def _clips(folder: Path) -> frozenset[str]:
    rows = read_rows(folder / METADATA_FILE) if (folder / METADATA_FILE).is_file() else ()
    return frozenset(str(row["file_name"]) for row in rows if row.get("file_name"))
