"""One rated clip from its row, or from its tidy rows: what each column may hold, and what to say of all else."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..records import RatedVideo, StoredVideo, VideoSource, content_id
from ..rubric import LIFT, Rubric
from .disk.digest import file_digest
from .video_io import describe


class UnscoredError(ValueError):
    """Raters labelled some dimensions of a clip, but not all."""


def rated_video(rows: list[Mapping[str, Any]], rubric: Rubric = LIFT) -> RatedVideo:
    """One clip from its row, or from its tidy rows, rated by `rubric`. Raises `ValueError` that says what is wrong."""
    row = rows[0]
    video, prompt = _video(row), row_caption(row)
    if prompt is None:
        raise ValueError(f"{describe(video)}: no prompt; fill the column prompt (or caption).")
    if row.get("unscored") not in (None, False):
        raise ValueError(f"{describe(video)}: unscored is {row['unscored']!r:.80}, yet there is a rating; clear one.")
    is_real = row_is_real(row)
    labels = None if is_real else _labels(rows, rubric)
    reward = None if is_real or labels else _reward(row, "reward")
    expected = None if is_real else _reward(row, "expected_reward")
    if not is_real and labels is None and reward is None:
        raise ValueError(
            f"{describe(video)}: no rating; give reward, or the labels {', '.join(rubric.dimensions)}, or set is_real: true."
        )
    given = row_id(row)
    if any(row_id(other) != given for other in rows):
        given = None  # tidy rows with an id each: none of them is the clip's
    name = given or content_id(video_digest(video), prompt, is_real)
    return RatedVideo(name, video, prompt, labels, reward, is_real, expected, rubric)


def row_caption(row: Mapping[str, Any]) -> str | None:
    """The text of a row of `raw_rows`, `None` where it is missing. Raises `ValueError` for what is no text."""
    text = row.get("caption") if row.get("prompt") is None else row["prompt"]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"the prompt is {text!r:.80}, which is no text; write it in quotes.")
    return text and text.strip()


def row_id(row: Mapping[str, Any]) -> str | None:
    """The row's own key, `None` where it is missing."""
    return _name(row.get("id") if row.get("video_id") is None else row["video_id"])


def row_is_real(row: Mapping[str, Any]) -> bool:
    """Whether a row of `raw_rows` is a real clip. Raises `ValueError` for a value that does not say, or says both."""
    value, source = row.get("is_real"), row.get("source")
    is_real = None if value is None else _FLAGS.get(str(value).strip().lower())
    if value is not None and is_real is None:
        raise ValueError(f"is_real={value!r}; use true or false.")
    named = source.strip().lower() if isinstance(source, str) else None
    if is_real is not None and named in ("real", "synthetic") and is_real != (named == "real"):
        raise ValueError(f"is_real is {value!r}, but source {source!r}; correct one of them.")
    return named == "real" if is_real is None else is_real


#: Booleans as people and tables write them; where cells are missing, pandas makes numbers of them.
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def _name(value: Any) -> str | None:
    """A key as text; pandas makes 7.0 of a 7 where other cells of the column are missing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value).strip()


def is_rated(row: Mapping[str, Any], rubric: Rubric = LIFT) -> bool:
    """Whether a row has a reward or a label, be it right or wrong."""
    return any(row.get(column) is not None for column in ("reward", "label", *rubric.dimensions))


def is_unscored(row: Mapping[str, Any], rubric: Rubric = LIFT) -> bool:
    """Whether a critic could not score the clip of a row, and says why; such a clip has no reward and is not trained on."""
    return row.get("unscored") not in (None, False) and not is_rated(row, rubric)


def _video(row: Mapping[str, Any]) -> VideoSource | StoredVideo:
    video = row.get("video")
    if isinstance(video, Mapping):
        video = video.get("bytes") or video.get("path")
    if not video:
        raise ValueError("no clip; fill the column file_name (folder) or video (dataset).")
    if isinstance(video, bytes | StoredVideo):
        return video
    if not Path(video).is_file():
        raise FileNotFoundError(f"{video}: no such video file. Correct the path or leave the row out.")
    return Path(video)


def video_digest(video: VideoSource | StoredVideo) -> str:
    """sha256 of the file's bytes, in hexadecimal."""
    if isinstance(video, StoredVideo):
        video = video.read()
    if isinstance(video, bytes):
        return hashlib.sha256(video).hexdigest()
    return file_digest(video)


def _labels(rows: list[Mapping[str, Any]], rubric: Rubric) -> dict[str, str] | None:
    """The label of each dimension, several raters pooled (`pooled_label`); `None` where the row has no label at all."""
    given: dict[str, list[tuple[Any, Any]]] = {}
    annotations = rows[0].get("annotations")
    if rows[0].get("dimension") is not None:
        annotations = rows
    if annotations is not None:
        if not isinstance(annotations, list) or not all(isinstance(rating, Mapping) for rating in annotations):
            raise ValueError(
                f"annotations are {annotations!r:.80}; give a list of {{dimension, label, reason, annotator}}."
            )
        for rating in annotations:
            dimension = rubric.parse_dimension(rating.get("dimension"))
            label = rubric.parse_label(str(rating.get("label")))
            given.setdefault(dimension, []).append((rating.get("annotator"), label))
    else:
        for dimension in rubric.dimensions:
            if rows[0].get(dimension) is not None:
                given[dimension] = [(None, rubric.parse_label(str(rows[0][dimension])))]
    if not given:
        return None
    missing = [dimension for dimension in rubric.dimensions if dimension not in given]
    if missing:
        kind = ValueError if annotations is None else UnscoredError
        raise kind(f"no label for {', '.join(missing)}; a clip needs one for each dimension, or give reward instead.")
    return {dimension: pooled_label(given[dimension], rubric) for dimension in rubric.dimensions}


def one_a_rater(ratings: Iterable[tuple[Any, Any]], rubric: Rubric = LIFT) -> list[tuple[str, str]]:
    """
    (rater, label) of each rater of one clip in one dimension, from all that were given: a rater who rated it several times
    counts once, with the label that he gave most often, ties to the lower. Ratings without a name are of as many raters:
    nothing says that two of them are of one person.

    Args:
        ratings: (rater, label) as rows hold them; the rater `None` or `""` where there is no name.

    Raises:
        ValueError: if a label is unknown.

    >>> one_a_rater([("ann", "Bad"), ("ben", "good"), ("ben", "Good"), ("", "Good")])
    [('ann', <Label.BAD: 'Bad'>), ('ben', <Label.GOOD: 'Good'>), ('', <Label.GOOD: 'Good'>)]
    """
    given: dict[str | int, list[str]] = {}
    for number, (rater, label) in enumerate(ratings):
        given.setdefault(_name(rater) or number, []).append(rubric.parse_label(str(label)))
    return [(who if isinstance(who, str) else "", rubric.majority_label(own)) for who, own in given.items()]


def pooled_label(ratings: Iterable[tuple[Any, Any]], rubric: Rubric = LIFT) -> str:
    """
    The label that most raters gave, each of whom counts once (`one_a_rater`); ties go to the lower.

    >>> pooled_label([("ann", "Bad"), ("ben", "Good"), ("ben", "Good")])
    <Label.BAD: 'Bad'>
    """
    return rubric.majority_label(label for _, label in one_a_rater(ratings, rubric))


def _reward(row: Mapping[str, Any], column: str) -> float | None:
    """The reward in `column`, in [0, 1]."""
    value = row.get(column)
    if value is None:
        return None
    try:
        reward = float(value)
    except (TypeError, ValueError):
        reward = None
    if reward is None or isinstance(value, bool):
        raise ValueError(f"{column} {value!r} is no number; give a number in [0, 1], as 0.62.")
    if math.isnan(reward) or not 0 <= reward <= 1:
        raise ValueError(f"{column} {reward} is not in [0, 1]; score the clip again or leave the row out.")
    return reward
