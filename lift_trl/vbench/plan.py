"""What to generate for VBench: prompts, file names, seeds; and the folder of hard links that VBench is given."""

import errno
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..records import content_id, seed_from
from ..remote import local_copy
from ..store.disk.outputs import write_new_text
from ..store.manifest import METADATA_FILE, Artifact, check_kind, read_rows, rows_text, write_text
from ..store.tables import numbered_rows
from .suite import FLICKERING, Suite, SuitePrompt, select_dimensions


logger = logging.getLogger(__name__)

PLAN_KIND = "vbench-plan"
#: Seeds fit a uint32, so that every generator, JSON reader and table keeps them exactly.
_SEED_RANGE = 2**32


@dataclass(frozen=True)
class PlannedVideo:
    """
    One clip to generate.

    Attributes:
        id: 16 hex digits of (prompt text, seed).
        prompt: what the model is given.
        prompt_en: VBench's prompt: what the file is called and what scoring compares with.
        file_name: `{prompt_en}-{index}.mp4`.
    """

    id: str
    prompt: str
    prompt_en: str
    index: int
    file_name: str
    seed: int
    dimensions: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """
    All clips of one evaluation, with what was decided.

    Attributes:
        videos: in the suite's order, samples of a prompt together.
        rows: VBench's rows of these prompts, whole, since VBench-Long takes a clip's length from *all* dimensions of its
            prompt; what VBench is given to read.
        config: the settings, the suite's sha256 and the notes on duplicates and collisions.
    """

    videos: tuple[PlannedVideo, ...]
    rows: tuple[Mapping[str, Any], ...]
    config: Mapping[str, Any]

    @property
    def dimensions(self) -> tuple[str, ...]:
        return select_dimensions(self.config["dimensions"])

    def save(self, folder: Path | str) -> None:
        """
        Writes `metadata.jsonl` (rows with `prompt`, `seed`, `file_name`), `full_info/` and `artifact.yaml`, that last.

        Raises:
            FileExistsError: if `folder` holds another plan, or rows of something else.
        """
        root = Path(folder)
        check_kind(root, PLAN_KIND)
        write_new_text(root / METADATA_FILE, rows_text(asdict(video) for video in self.videos))
        write_new_text(root / "full_info" / "rows.jsonl", rows_text(self.rows))
        Artifact(PLAN_KIND, config=dict(self.config)).save(root)

    @classmethod
    def load(cls, folder: Path | str) -> "Plan":
        """
        Reads a plan.

        Raises:
            FileNotFoundError: if `folder` holds none.
            ValueError: if it is another kind of artefact.
        """
        artifact = Artifact.load(folder)
        if artifact.kind != PLAN_KIND:
            raise ValueError(f"{folder}: holds a {artifact.kind}, no {PLAN_KIND}. Run `lift-trl eval plan` first.")
        rows = read_rows(Path(folder) / METADATA_FILE)
        videos = tuple(PlannedVideo(**{**row, "dimensions": tuple(row["dimensions"])}) for row in rows)
        return cls(videos, tuple(read_rows(Path(folder) / "full_info" / "rows.jsonl")), artifact.config)


def make_plan(
    suite: Suite,
    *,
    dimensions: str | Sequence[str] = "all",
    samples: int = 5,
    flicker_samples: int = 25,
    limit_per_dimension: int | None = None,
    seed: int = 0,
) -> Plan:
    """
    The clips that VBench needs of `suite` for `dimensions`.

    Every sample has a seed of its own, made of (`seed`, `prompt_en`, index), so that two systems and two machines plan
    the same. Prompts of temporal flickering get `flicker_samples` samples: VBench keeps the first five static ones.

    Args:
        limit_per_dimension: draw at least this many prompts of each dimension instead of all, the same ones for every
            system (stratified by dimension, keyed on the seed). Scores of such a draw are estimates of VBench's.

    Raises:
        ValueError: if a count is less than 1.
    """
    given = {"samples": samples, "flicker_samples": flicker_samples, "limit_per_dimension": limit_per_dimension}
    for name, value in given.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; give 1 or more.")
    chosen = select_dimensions(dimensions)
    prompts = draw_prompts(suite.prompts, chosen, limit_per_dimension, seed)
    videos = []
    for prompt in prompts:
        wanted = tuple(d for d in chosen if d in prompt.dimensions)
        count = max(flicker_samples if d == FLICKERING else samples for d in wanted)
        videos += [_planned(prompt, wanted, index, seed) for index in range(count)]
    rows = tuple(row for prompt in prompts for row in prompt.rows)
    config = {
        "dimensions": list(chosen),
        "prompts": suite.prompt_set,
        **given,
        "seed": seed,
        "suite_sha256": suite.sha256,
        "notes": list(suite.notes),
    }
    return Plan(tuple(videos), rows, config)


def _planned(prompt: SuitePrompt, dimensions: tuple[str, ...], index: int, seed: int) -> PlannedVideo:
    own_seed = seed_from(seed, prompt.prompt_en, index) % _SEED_RANGE
    return PlannedVideo(
        id=content_id(prompt.text, own_seed),
        prompt=prompt.text,
        prompt_en=prompt.prompt_en,
        index=index,
        file_name=f"{prompt.prompt_en}-{index}.mp4",
        seed=own_seed,
        dimensions=dimensions,
    )


def draw_prompts(
    prompts: Sequence[SuitePrompt], dimensions: Sequence[str], limit: int | None, seed: int
) -> list[SuitePrompt]:
    """
    The prompts of `dimensions`, or with `limit` the first `limit` of each dimension in one order keyed on `seed`.

    One order serves all dimensions, so that prompts which count for several are shared and few clips are needed.
    """
    needed = [prompt for prompt in prompts if set(prompt.dimensions) & set(dimensions)]
    if limit is None:
        return needed
    shuffled = sorted(needed, key=lambda prompt: content_id("draw", seed, prompt.prompt_en))
    drawn = {
        prompt.prompt_en
        for dimension in dimensions
        for prompt in [p for p in shuffled if dimension in p.dimensions][:limit]
    }
    return [prompt for prompt in needed if prompt.prompt_en in drawn]


def locate_videos(plan: Plan, source: Path | str) -> dict[str, Path]:
    """
    Where each planned clip lies: file name -> path, for those that exist.

    `source` is a `generated/` or `scored/` artefact (rows of its `metadata.jsonl` are joined by `id`) or a folder whose
    files already have VBench's names.

    Raises:
        ValueError: if a row of the metadata has no `id`.
    """
    root = Path(local_copy(source))
    metadata = root / METADATA_FILE
    if not metadata.is_file():
        # What the disk lists, not is_file(): on a case-insensitive disk one file would answer for two names.
        present = set(os.listdir(root))
        return {video.file_name: root / video.file_name for video in plan.videos if video.file_name in present}
    rows = {}
    for number, row in numbered_rows(metadata):
        if "id" not in row:
            raise ValueError(
                f"{metadata}, line {number}: no id; generate the clips of the plan by recipes/generate.py, "
                "or give a folder of clips under VBench's names, without metadata.jsonl."
            )
        rows[row["id"]] = root / str(row.get("file_name") or row["video"])
    return {v.file_name: rows[v.id] for v in plan.videos if v.id in rows and rows[v.id].is_file()}


def link_videos(plan: Plan, source: Path | str, target: Path | str) -> int:
    """
    Fills `target` with hard links (copies across disks) of the planned clips under VBench's names, and nothing else.

    VBench takes the ending of all files from whichever file it lists first, so one stray file makes every clip
    "missing". Other files in `target` are therefore refused.

    Returns:
        How many clips `target` holds.

    Raises:
        ValueError: if `target` holds other files, or its disk folds two names into one.
    """
    root = Path(target)
    root.mkdir(parents=True, exist_ok=True)
    located = locate_videos(plan, source)
    # Folders are VBench-Long's own (split_clip): it works within the folder of clips.
    present = {entry.name for entry in os.scandir(root) if not entry.is_dir()}
    stray = sorted(present - {video.file_name for video in plan.videos})
    if stray:
        raise ValueError(
            f"{root}: holds {len(stray)} files that are not planned, first {stray[0]!r}. Use an empty folder."
        )
    for name, path in located.items():
        link_file(path, root / name)
    present = {entry.name for entry in os.scandir(root) if not entry.is_dir()}
    folded = sorted(set(located) - present)
    if folded:
        raise ValueError(
            f"{root}: the disk stores {folded[0]!r} under another name (it ignores case or normalises Unicode). "
            "VBench has prompts that differ in case only; use a case-sensitive disk, for instance in a container."
        )
    return len(present)


def link_file(path: Path, link: Path) -> None:
    """Makes `link` a hard link to `path`, or a copy where their disks share no links."""
    if link.exists() and link.samefile(path):
        return
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP):
            raise
        logger.warning("%s and %s are on disks that share no links; copying.", path, link)
        partial = link.with_name(f".{os.getpid()}.tmp")
        partial.write_bytes(path.read_bytes())
        partial.replace(link)


def write_full_info(plan: Plan, path: Path | str) -> None:
    """Writes the JSON that VBench reads instead of its own: the planned prompts only, so that nothing is "missing"."""
    write_text(path, json.dumps(list(plan.rows), ensure_ascii=False, indent=1))
