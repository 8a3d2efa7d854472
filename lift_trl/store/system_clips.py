"""The clips of each system as folders hold them, and which clip of one system is compared with which of another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..records import RatedVideo
from ..remote import local_copy
from ..rubric import LIFT, Rubric
from .clip_rows import is_rated, row_id
from .rated_videos import BadRowsError, RowError, check_rated_videos, raw_rows
from .rubrics.of_data import check_same, find_rubric


class SystemClip(NamedTuple):
    """
    One clip of a system.

    Attributes:
        key: pairs it with the other systems' clips: its prompt and how many-th clip of it, until `pair_systems`.
        id: the row's own, or made of the clip.
        seed: as the row has it, empty where it has none.
        aspects: what a judge with outputs of its own says (`second_judge.py`), by the output's name.
        rubric: what the labels are of.
    """

    key: str
    prompt: str
    video: Path
    labels: Mapping[str, str] | None
    reward: float | None
    id: str = ""
    seed: str = ""
    aspects: Mapping[str, float] = {}
    rubric: Rubric = LIFT


class ListedClip(NamedTuple):
    """What a folder's metadata says of a clip: `place` counts the clips of one prompt, those that are unscored too."""

    prompt: str
    video: Path
    place: int
    row: Mapping[str, Any]

    def clip(self, rated: RatedVideo | None = None) -> SystemClip:
        """The clip with what `rated` says of it."""
        return SystemClip(
            key=f"{self.prompt}#{self.place}",
            prompt=self.prompt,
            video=self.video,
            labels=None if rated is None else rated.labels,
            reward=None if rated is None or rated.is_real else rated.reward(),
            id=row_id(self.row) or "",
            seed="" if self.row.get("seed") is None else str(self.row["seed"]),
            aspects=self.row.get("aspects") or {},
            rubric=rated.rubric if rated else LIFT,
        )


def load_system(folder: Path) -> list[SystemClip]:
    """
    The clips of a folder with `metadata.*`, with labels or rewards where it has them. Clips that a critic could not score
    are left out, but counted: they shift no other clip of their prompt.

    Raises:
        FileNotFoundError: if there is no metadata.
        ValueError: naming the rows, if clips are missing or ratings malformed; if no clip is left.
    """
    folder = Path(local_copy(folder))
    listed = list_clips(folder)
    usable = [entry for entry in listed if not entry.row.get("unscored")]
    if not usable:
        raise ValueError(
            f"{folder}: all {len(listed)} clips are unscored, the first for: {listed[0].row['unscored']}."
        )
    rubric = find_rubric(folder)
    if not any(is_rated(entry.row, rubric) or entry.row.get("annotations") for entry in usable):
        return [entry.clip() for entry in usable]
    checked = check_rated_videos(folder, rubric=rubric)
    if checked.errors:
        raise BadRowsError(checked.errors)
    places = {(entry.video, entry.prompt): entry for entry in usable}
    return [places[Path(str(video.video)), video.prompt].clip(video) for video in checked.videos]


def num_unscored(folder: Path) -> tuple[int, int]:
    """How many clips of `folder` are unscored, and how many there are."""
    listed = list_clips(folder)
    return sum(bool(entry.row.get("unscored")) for entry in listed), len(listed)


def list_clips(folder: Path) -> list[ListedClip]:
    """
    Every clip that the metadata of `folder` names, unscored ones too, once each: tidy ratings name one in several rows.

    Raises:
        BadRowsError: naming the rows that have no clip or no prompt.
    """
    seen: Counter[str] = Counter()
    found: dict[tuple[Path, str], ListedClip] = {}
    errors = []
    for where, row in raw_rows(folder):
        text = row if isinstance(row, str) else "no clip or no prompt; fill the columns file_name and prompt."
        video = None if isinstance(row, str) else row.get("video")
        prompt = None if isinstance(row, str) else row.get("prompt") or row.get("caption")
        if isinstance(row, str) or not isinstance(video, str | Path) or not prompt:
            errors.append(RowError(where, text))
            continue
        prompt, video = str(prompt).strip(), Path(video)
        if (video, prompt) not in found:
            found[video, prompt] = ListedClip(prompt, video, seen[prompt], row)
            seen[prompt] += 1
    if errors or not found:
        raise BadRowsError(errors or [RowError(str(folder), "holds no row.")])
    return list(found.values())


def numbered_seed(name: str) -> tuple[str, int] | None:
    """
    The seed that a vote names a clip by, and which of the clips of that prompt and seed it is; `None` where it is no seed.

    The comparison names clips on demand so, which have no file of their own, and numbers clips that share a seed.

    >>> numbered_seed("7"), numbered_seed("7 #2"), numbered_seed("#2"), numbered_seed("7 #b")
    (('7', 0), ('7', 1), ('', 1), None)
    """
    seed, _, number = name.partition("#")
    if number and not (number.isdecimal() and int(number)):
        return None
    return seed.strip(), int(number or 1) - 1


def pair_systems(systems: Mapping[str, Sequence[SystemClip]]) -> dict[str, list[SystemClip]]:
    """
    The systems with keys under which their clips are compared: prompt and id where all systems have ids in common, else
    prompt and seed, else prompt and how many-th clip of it.

    Generated clips have the same id in every system: it is made of prompt and seed.
    """
    for name in ("id", "seed"):
        keyed = {
            system: [clip._replace(key=f"{clip.prompt}#{getattr(clip, name)}") for clip in clips]
            for system, clips in systems.items()
        }
        keys = {system: {clip.key for clip in clips} for system, clips in keyed.items()}
        is_key = all(len(keys[system]) == len(clips) for system, clips in keyed.items())
        is_key &= all(getattr(clip, name) for clips in systems.values() for clip in clips)
        base, *others = keys.values()
        if is_key and all(base & other for other in others):
            return keyed
    return {system: list(clips) for system, clips in systems.items()}


def prompts_of(systems: Mapping[str, Sequence[SystemClip]]) -> dict[str, str]:
    """The prompt of each clip key."""
    return {clip.key: clip.prompt for clips in systems.values() for clip in clips}


def rubric_of_systems(systems: Mapping[str, Sequence[SystemClip]]) -> Rubric:
    """
    The rubric of all clips with labels, LiFT's where there are none.

    Raises:
        ValueError: naming both, if the labels of two systems mean different things.
    """
    labelled = [(name, clip.rubric) for name, clips in systems.items() for clip in clips if clip.labels]
    rubric = labelled[0][1] if labelled else LIFT
    for name, other in labelled:
        check_same(rubric, other, f"the rubrics of {labelled[0][0]} and {name}")
    return rubric
