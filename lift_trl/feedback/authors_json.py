"""The authors' JSON: LLaVA conversations (LiFT-HRA, VIDGEN rows) and the answers of their critics.

A conversation is `{"video": ..., "conversations": [{"from": "human", "value": "<video>\\n CAPTION QUESTION"},
{"from": "gpt", "value": "<label>. <reason>"}]}`, one question a row. A critic's row holds `video`,
`caption` and one answer a dimension.
Source: CodeGoat24/LiFT (dataset/, LiFT-Critic/test/) and the datasets of Fudan-FUXI.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..rubric import LIFT, OFFICIAL_NAMES
from ..store.clip_rows import row_id
from ..store.tables import present, text_lines
from .clips import VIDEO_SUFFIXES


class Rating(NamedTuple):
    """One answer on one clip. `reference` is the clip's path as the file gives it."""

    video_id: str
    reference: str
    caption: str
    dimension: str
    label: str
    reason: str


_TOPICS = {name.removesuffix(" issues"): dimension for name, dimension in OFFICIAL_NAMES.items()}
_QUESTION = re.compile(rf"Please identify the ({'|'.join(_TOPICS)}) issues? in (?:this|the) video", re.IGNORECASE)
# VIDGEN-1M names a clip by the YouTube id that it was cut from and the number of the scene.
_VIDGEN_NAME = re.compile(r"[\w-]{11}-Scene-\d+")


def is_authors_row(row: object) -> bool:
    """Whether a JSON row has one of the authors' two forms."""
    return isinstance(row, Mapping) and ("conversations" in row or any(name in row for name in OFFICIAL_NAMES))


def read_json(path: Path) -> Any:
    """
    The content of a JSON file.

    Raises:
        ValueError: naming the file, the line and the remedy if it is no JSON, or no UTF-8.
    """
    text = "".join(text_lines(path))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}). A comma after a last entry is a common cause.") from error


def parse_rows(path: Path, rows: list[Any]) -> Iterator[tuple[str, list[Rating] | str]]:
    """(where, ratings) of each row, or (where, what is wrong with it)."""
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if not is_authors_row(row):
            answers = ", ".join(OFFICIAL_NAMES)
            yield where, f"not one of the authors' two forms; it needs video, and conversations or {answers}."
            continue
        row = {
            name: present(value) if name in ("video", "video_id", "caption") else value for name, value in row.items()
        }
        try:
            yield where, _conversation(row) if "conversations" in row else _critic_answers(row)
        except (KeyError, TypeError, AttributeError) as error:
            yield where, f"a field is missing or of another kind ({type(error).__name__}: {error})."
        except ValueError as error:
            yield where, str(error)


def source_of(video_id: str) -> str:
    """
    `"real"` for a clip named as VIDGEN-1M names its clips, which the authors mixed in; else `"synthetic"`.

    >>> source_of("AkQlXiOmKhM-Scene-0009"), source_of("waiter_3")
    ('real', 'synthetic')
    """
    return "real" if _VIDGEN_NAME.fullmatch(PurePosixPath(video_id).name) else "synthetic"


def clip_id(reference: str) -> str:
    """
    The id of a clip: its path without the folder `videos` and without the suffix of a video file.

    >>> clip_id("videos/part1/waiter.mp4"), clip_id("panda v1.5")
    ('part1/waiter', 'panda v1.5')
    """
    path = PurePosixPath(reference)
    path = path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path
    parts = [part for part in path.parts if part not in (".", "/")]
    return "/".join(parts[1:] if len(parts) > 1 and parts[0] == "videos" else parts)


def _conversation(row: Mapping[str, Any]) -> list[Rating]:
    turns = row["conversations"]
    if [turn["from"] for turn in turns] != ["human", "gpt"]:
        raise ValueError(f"turns are from {[turn['from'] for turn in turns]}; one row has two, of 'human' and 'gpt'.")
    asked, answered = turns
    text = asked["value"].replace("<video>", "", 1)
    # The last one: a caption may hold the words of a question.
    found = list(_QUESTION.finditer(text))
    if not found:
        raise ValueError(
            f"no question of the rubric in {text[-80:]!r}; it reads 'Please identify the ... issues in this video'."
        )
    caption = text[: found[-1].start()].strip()
    answer = LIFT.parse_answer(answered["value"])
    return [_rating(row, clip_id(row["video"]), caption, _TOPICS[found[-1][1].lower()], answer)]


def _critic_answers(row: Mapping[str, Any]) -> list[Rating]:
    answers = {dimension: row[name] for name, dimension in OFFICIAL_NAMES.items() if name in row}
    name = row_id({"video_id": row.get("video_id")}) or clip_id(row["video"])
    return [
        _rating(row, name, row["caption"], dimension, LIFT.parse_answer(answers[dimension]))
        for dimension in OFFICIAL_NAMES.values()
        if dimension in answers
    ]


def _rating(row: Mapping[str, Any], name: str, caption: str, dimension: str, answer: Any) -> Rating:
    if not present(caption):
        raise ValueError(f"{row['video']}: no caption.")
    return Rating(name, str(row["video"]), caption.strip(), dimension, answer.label, answer.reason)
