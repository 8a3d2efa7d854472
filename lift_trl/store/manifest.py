"""Artefacts on disk: `artifact.yaml` (what it is, how it was made) and append-only rows, a row only after its file."""

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ..published import published, published_words
from ..rubric import LIFT, Rubric
from .rubrics.form import rubric_from_plain, rubric_to_plain
from .tables import numbered_rows


SCHEMA_VERSION = 1
ARTIFACT_FILE = "artifact.yaml"
METADATA_FILE = "metadata.jsonl"
PARTS_DIR = ".parts"
#: The settings of the run that trained it, beside each saved model.
RUN_FILE = "run.json"
#: What a Trainer writes beside it.
STATE_FILE = "trainer_state.json"
#: Artefacts that mean nothing under another rubric: ratings, what was taught with them, what follows from either.
RATED_KINDS = ("hra", "critic", "scored", "cache", "correction")
#: What to do about an artefact that cannot be read.
REMAKE = "Run the stage that made the folder again."
_PACKAGES = (
    "lift_trl",
    "torch",
    "transformers",
    "trl",
    "diffusers",
    "datasets",
    "peft",
    "accelerate",
    "huggingface_hub",
)


def library_versions() -> dict[str, str | None]:
    """Versions of the packages that decide results, `None` where one is not installed."""

    def find(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: find(package) for package in _PACKAGES}


def command_line(argv: Sequence[str] | None = None) -> str:
    """
    The command that runs this process, as it may be published; `""` where nobody typed one (a notebook, a test).

    Absolute paths keep their name only; tokens, passwords and signatures are left out. Scripts run under `accelerate
    launch`, which does for one process too.

    >>> command_line(["recipes/cache.py", "--config", "/srv/ada/cache.yaml", "--hub_token", "hf_x"])
    'accelerate launch recipes/cache.py --config cache.yaml --hub_token ...'
    """
    program, *words = sys.argv if argv is None else argv
    path = Path(program)
    if path.stem == "lift-trl":
        shown = ["lift-trl"]
    elif path.suffix == ".py" and "site-packages" not in path.parts:
        shown = ["accelerate", "launch", path.name if path.is_absolute() else program]
    else:
        return ""
    return shlex.join([*shown, *published_words(words)])


@dataclass(frozen=True)
class Artifact:
    """
    What an artefact folder says of itself.

    Attributes:
        kind: `hra`, `critic`, `generated`, `scored`, `cache`, `lora` or `report`.
        config: the settings that made it.
        parents: the artefacts and models that it came from, name to revision or hash; or role to `repo@revision`, where a
            dataset of the Hub is `datasets/user/name`.
        command: what made it, `""` if it was called from Python.
        made_on: the day (UTC, `2026-01-31`); `""` where an earlier lift_trl made it. Files lose theirs when they are copied.
        rubric: the dimensions, labels, rewards and questions that it was made with. LiFT's stands in the file by its id.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=library_versions)
    command: str = field(default_factory=command_line)
    made_on: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    schema_version: int = SCHEMA_VERSION
    rubric: Rubric = LIFT

    @property
    def is_rated(self) -> bool:
        """Whether it means nothing under another rubric."""
        return self.kind in RATED_KINDS

    def save(self, folder: Path | str) -> None:
        """Writes `artifact.yaml` into `folder`. (YAML: any visible `*.json` there would break `load_dataset(folder)`.)"""
        write_text(Path(folder) / ARTIFACT_FILE, self.to_yaml())

    def published(self) -> "Artifact":
        """The same without folders of this machine and without secrets in `config`, `parents` and `command`."""
        command = shlex.join(published_words(shlex.split(self.command)))  # an earlier lift_trl noted more
        return replace(self, config=published(self.config), parents=published(self.parents), command=command)

    def to_yaml(self) -> str:
        """What stands in `artifact.yaml`."""
        rubric = (
            self.rubric.id if self.rubric.id == LIFT.id else {"id": self.rubric.id, **rubric_to_plain(self.rubric)}
        )
        content = json.loads(json.dumps({**asdict(self), "rubric": rubric}))
        return str(yaml.safe_dump(content, sort_keys=False))

    @classmethod
    def load(cls, folder: Path | str) -> "Artifact":
        """
        Reads `artifact.yaml` of `folder`.

        Raises:
            FileNotFoundError: if `folder` is no artefact.
            ValueError: if the file is damaged, or was written by another schema version, or holds ratings or rewards of
                another version of LiFT's rubric.
        """
        path = Path(folder) / ARTIFACT_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: no {ARTIFACT_FILE}; the folder is no finished artefact of lift_trl.")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: no YAML ({' '.join(str(error).split())}). {REMAKE}") from error
        if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
            raise ValueError(f"{path}: does not say the artefact's kind. {REMAKE}")
        if content.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: schema version {content.get('schema_version')}, this lift_trl reads {SCHEMA_VERSION}. "
                "Make the artefact again, or use the lift_trl that wrote it."
            )
        unknown = content.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(f"{path}: unknown entries {', '.join(sorted(map(str, unknown)))}. {REMAKE}")
        mappings = [name for name in ("config", "parents", "versions") if not isinstance(content.get(name, {}), dict)]
        if mappings:
            raise ValueError(f"{path}: {', '.join(mappings)} is no mapping. {REMAKE}")
        rubric = _rubric(path, content["kind"], content.get("rubric", LIFT.id))
        return cls(**{"command": "", "made_on": "", **content, "rubric": rubric})  # folders made earlier do not say


def _rubric(path: Path, kind: str, stored: Any) -> Rubric:
    """The rubric of an artefact: LiFT's by its id, one's own by all that it holds."""
    if isinstance(stored, dict):
        try:
            rubric = rubric_from_plain({name: value for name, value in stored.items() if name != "id"})
        except ValueError as error:
            raise ValueError(f"{path}: its rubric is damaged ({error}). {REMAKE}") from error
        if rubric.id != stored.get("id"):
            raise ValueError(
                f"{path}: its rubric has the id {stored.get('id')}, and what it holds {rubric.id}. {REMAKE}"
            )
        return rubric
    if kind in RATED_KINDS and stored != LIFT.id:
        raise ValueError(
            f"{path}: a {kind} artefact of rubric {stored}, and this is rubric {LIFT.id}: dimensions, labels, rewards or "
            "questions differ. Use the lift_trl that wrote it, or make the artefact again."
        )
    return LIFT


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` so that the file is whole or absent, even after a power cut."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


@contextmanager
def naming_what_failed(target: Path | str, kept: str) -> Iterator[None]:
    """
    The operating system's errors of the body (a full disk) with the file that was to be written and the remedy.

    Args:
        kept: what was not written, and what stays.
    """
    try:
        yield
    except FileNotFoundError:
        raise  # of what is read: it names its file
    except OSError as error:
        raise OSError(
            error.errno,
            f"{target}: {error.strerror or error}. {kept}. Free disk space (or name another output_dir) and run the same "
            "command again",
        ) from error


def check_kind(folder: Path | str, *kinds: str) -> None:
    """
    Raises `FileExistsError` if `folder` is an artefact of none of `kinds`, whose page would be replaced. One that is
    damaged, or of another version, is made again by its own stage.
    """
    try:
        found = Artifact.load(folder).kind
    except (FileNotFoundError, ValueError):
        return
    if found not in kinds:
        raise FileExistsError(
            f"{folder}: holds an artefact of kind {found}, and {' or '.join(kinds)} would take its place. Name a new "
            "folder. Nothing was written."
        )


def remove_partials(folder: Path | str) -> None:
    """Deletes what killed processes had half written (`.name.tmp`), once none writes to `folder` any more."""
    for partial in Path(folder).rglob(".*.tmp"):
        partial.unlink()


def read_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """
    The rows of a JSON-lines file that was written whole, by us or by people: the last line needs no end.

    Raises:
        ValueError: naming file and line if a line is no JSON object.
    """
    return (row for _, row in numbered_rows(path))


def read_log(path: Path | str) -> Iterator[dict[str, Any]]:
    """As `read_rows`, of a file that processes append to: half a last line, of a killed one, is passed over."""
    return (row for _, row in numbered_rows(path, is_log=True))


def read_json(path: Path | str) -> Any:
    """
    The content of a JSON file.

    Raises:
        ValueError: naming the file, if it is none, or was cut off.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no JSON ({error}). Write the file again, or name another one.") from error


def write_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes `rows` as JSON lines, whole or not at all."""
    write_text(path, rows_text(rows))


def rows_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """`rows` as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class Manifest:
    """
    Rows of an artefact that several processes write: each appends to its own part, the main process merges at the end.

    The law of resuming: the payload is written and renamed first, then its row is appended. So a row exists if and only
    if its payload is whole; work that is pending is all ids without a row in any part.
    """

    def __init__(self, folder: Path | str, *, rank: int = 0) -> None:
        self.folder = Path(folder)
        self._part = self.folder / PARTS_DIR / f"rank{rank}.jsonl"

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds `row` (which has an `id`) durably: it survives kill -9 right after."""
        self._part.parent.mkdir(parents=True, exist_ok=True)
        data = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with open(self._part, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    start = _last_line_start(self._part)
                    file.seek(start)
                    try:
                        json.loads(file.read())
                        data = b"\n" + data  # only its end was not written any more
                    except ValueError:
                        file.truncate(start)  # half a line of a killed process; its payload is made again
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """All rows written so far, by whichever process, each id once (the first wins)."""
        paths = sorted((self.folder / PARTS_DIR).glob("rank*.jsonl"))
        merged = self.folder / METADATA_FILE
        rows: dict[str, dict[str, Any]] = {}
        for path in [merged, *paths] if merged.is_file() else paths:
            for row in read_rows(path) if path == merged else read_log(path):
                if "id" not in row:
                    raise ValueError(f"{path}: rows without id, which no stage wrote. Name a new output_dir.")
                rows.setdefault(row["id"], row)
        return list(rows.values())

    def done_ids(self) -> set[str]:
        """Ids whose payload is whole."""
        return {row["id"] for row in self.rows()}

    def ids_made_by(self, column: str, settings: Set[str], *, others: str) -> set[str]:
        """
        As `done_ids`, where each row names in `column` the settings that it was made by.

        Args:
            settings: what they may be called; an earlier lift_trl may have had another name for the same.
            others: what the folder holds where they are not `settings`, in words.

        Raises:
            ValueError: if a row was made by other settings.
        """
        rows = self.rows()
        if any(row.get(column) not in settings for row in rows):
            raise ValueError(f"{self.folder}: holds {others}. Name a new output_dir, or delete this one.")
        return {row["id"] for row in rows}

    def merge(
        self, order: Iterable[str], *, now: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    ) -> list[dict[str, Any]]:
        """
        Writes `metadata.jsonl` with the rows of `order`, in that order, and removes the parts, and the halves of files that
        killed processes left. Main process only, when the others have written their last.

        Args:
            now: id -> columns that hold now whatever an earlier run wrote: where a clip lies that was moved since.

        Raises:
            ValueError: if a row of `order` is missing.
        """
        by_id = {row["id"]: row for row in self.rows()}
        wanted = list(order)
        missing = [unit for unit in wanted if unit not in by_id]
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} rows are missing, first {missing[0]!r}. Run the stage again."
            )
        rows = [{**by_id[unit], **now.get(unit, {})} for unit in wanted]
        write_rows(self.folder / METADATA_FILE, rows)
        for path in (self.folder / PARTS_DIR).glob("rank*.jsonl"):
            path.unlink()
        remove_partials(self.folder)
        return rows


def _last_line_start(path: Path) -> int:
    """Position after the last newline of `path`."""
    return path.read_bytes().rfind(b"\n") + 1
