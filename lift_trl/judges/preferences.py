"""Pairs of clips that people compared: the arena's votes, or a CSV with VideoGen-RewardBench's columns."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..records import RatedVideo, content_id
from ..remote import local_copy
from ..store.clip_rows import video_digest
from ..store.system_clips import ListedClip, list_clips, numbered_seed
from ..store.tables import table_rows
from ..store.votes import read_votes, tally


logger = logging.getLogger(__name__)

#: The benchmark's card calls its last column Overall, its evaluation script ALL.
_OVERALL = ("Overall", "ALL")
_SIGNS = {"A": 1, "B": -1, "same": 0}


class Preferences(NamedTuple):
    """
    What people prefer.

    Attributes:
        videos: each clip once, without a rating.
        pairs: ids (preferred, other), each pair of clips once.
        ties: pairs that nobody prefers a clip of, or as many one as the other: they are left out.
    """

    videos: list[RatedVideo]
    pairs: list[tuple[str, str]]
    ties: int


class _Choice(NamedTuple):
    """One vote: two files, a prompt, and the sign of what was chosen (1 the first, -1 the second, 0 neither)."""

    prompt: str
    first: Path
    second: Path
    sign: int


def load_preferences(
    source: Path | str, systems: Mapping[str, Path | str] | None = None, *, dimension: str | None = None
) -> Preferences:
    """
    As `read_preferences`.

    Raises:
        ValueError: also if no pair is left.
    """
    found = read_preferences(source, systems, dimension=dimension)
    if not found.pairs:
        raise ValueError(f"{source}: no pair in which one clip is preferred ({found.ties} ties). Collect more votes.")
    return found


def read_preferences(
    source: Path | str, systems: Mapping[str, Path | str] | None = None, *, dimension: str | None = None
) -> Preferences:
    """
    The pairs of `source`, all voters together: the clip that more of them chose.

    Args:
        source: a folder of votes (`*.jsonl`, as the arena writes them) or one such file; or a CSV with `path_A, path_B,
            prompt` and `Overall` (or VQ, MQ, TA) being A, B or same, paths relative to its folder.
        systems: folder of each system that the votes name as `system/path`, or `system/seed` where the comparison made
            the clips on demand: such a seed is looked up in the folder's metadata.
        dimension: which question counts, by the name that the rows have; by default the overall one.

    Raises:
        ValueError: naming the row, if a choice or a system is unknown.
        FileNotFoundError: naming the row, if a clip is not there.
    """
    path = Path(local_copy(source))
    choices = (
        _csv_choices(path, dimension) if path.suffix.lower() == ".csv" else _votes(path, systems or {}, dimension)
    )
    videos: dict[str, RatedVideo] = {}
    ids: dict[tuple[Path, str], str] = {}

    def clip(file: Path, prompt: str) -> str:
        if (file, prompt) not in ids:
            ids[file, prompt] = content_id(video_digest(file), prompt, False)
            videos.setdefault(ids[file, prompt], RatedVideo(ids[file, prompt], file, prompt))
        return ids[file, prompt]

    balance = tally((clip(one.first, one.prompt), clip(one.second, one.prompt), one.sign) for one in choices)
    pairs = [pair if sign > 0 else pair[::-1] for pair, sign in balance.items() if sign]
    used = {name for pair in pairs for name in pair}
    logger.info("%s: %d pairs, %d ties left out, %d clips", source, len(pairs), len(balance) - len(pairs), len(used))
    return Preferences([videos[name] for name in videos if name in used], pairs, len(balance) - len(pairs))


def questions_of(source: Path | str) -> list[str | None]:
    """
    What the choices of `source` may be on: every `dimension` of votes, `None` for the overall question; every column of a
    CSV.

    Raises:
        ValueError, FileNotFoundError: as `read_preferences`.
    """
    path = Path(local_copy(source))
    if path.suffix.lower() == ".csv":
        first = next(iter(table_rows(path)), {})
        return [] if isinstance(first, str) else [None if name in _OVERALL else name for name in first]
    return list(dict.fromkeys(row["dimension"] for _, row in read_votes(path)))


def _csv_choices(path: Path, dimension: str | None) -> Iterator[_Choice]:
    column = dimension or _OVERALL[0]
    for number, row in enumerate(table_rows(path), start=2):
        where = f"{path}, line {number}"
        if isinstance(row, str):
            raise ValueError(f"{where}: {row}")
        value = row.get(column) if dimension else next((row[name] for name in _OVERALL if name in row), None)
        missing = [name for name in ("path_A", "path_B", "prompt") if not row.get(name)]
        if missing or value not in _SIGNS:
            raise ValueError(
                f"{where}: {column}={value!r} or no {', '.join(missing) or 'choice'}; write path_A, path_B, prompt and "
                f"in {column} A, B or same."
            )
        first, second = (_existing(where, path.parent / row[name]) for name in ("path_A", "path_B"))
        yield _Choice(row["prompt"].strip(), first, second, _SIGNS[value])


def _votes(path: Path, systems: Mapping[str, Path | str], dimension: str | None) -> Iterator[_Choice]:
    @cache
    def listed(system: str) -> list[ListedClip]:
        return list_clips(Path(systems[system]))

    def clip(where: str, name: str, prompt: str) -> Path:
        system, _, rest = name.partition("/")
        if system not in systems or Path(rest).suffix:
            return _voted_clip(where, name, systems)
        seed, place = numbered_seed(rest) or ("", -1)
        made = [entry.video for entry in listed(system) if (entry.prompt, entry.clip().seed) == (prompt, seed)]
        if not 0 <= place < len(made):
            raise ValueError(
                f"{where}: {systems[system]} holds no clip of seed {rest!r} and this prompt. Make it with "
                "recipes/generate.py, or leave the row out."
            )
        return _existing(where, made[place])

    for vote in read_votes(path):
        where, row = vote
        if row["dimension"] != dimension:
            continue
        sign = vote.sign
        prompt = str(row["prompt"]).strip()
        first, second = (clip(where, str(row[name]), prompt) for name in ("video_a", "video_b"))
        yield _Choice(prompt, first, second, sign)


def _voted_clip(where: str, name: str, systems: Mapping[str, Path | str]) -> Path:
    """The file that a vote names: a path, or `system/path`."""
    system, _, rest = name.partition("/")
    if system in systems:
        return _existing(where, Path(systems[system]) / rest)
    if Path(name).is_file():
        return Path(name)
    raise ValueError(
        f"{where}: the system of {name!r} is none of {', '.join(systems) or 'those named'}. Name the folder of its clips: "
        f"--systems {system}=DIR."
    )


def _existing(where: str, path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{where}: {path} is not there. Correct the path, or leave the row out.")
    return path


def parse_systems(entries: Sequence[str]) -> dict[str, Path]:
    """
    `name=folder` entries as a mapping.

    Raises:
        ValueError: for an entry without a name or folder, or a name that stands twice.

    >>> parse_systems(["base=runs/eval_base"])
    {'base': PosixPath('runs/eval_base')}
    """
    systems: dict[str, Path] = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if not (name and equals and folder) or name in systems:
            raise ValueError(f"systems: {entry!r}; write name=folder, each name once, as in base=runs/eval_base.")
        systems[name] = Path(local_copy(folder))
    return systems
