"""What a set of ratings looks like: labels by dimension and category, ratings by rater, agreement, plots."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..rubric import LIFT, Rubric, words
from ..store.clip_rows import one_a_rater
from .categories import subject_category


if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: What stands for the names of raters who gave none.
UNNAMED = "(unnamed)"
#: Subject category of captions that name no subject of the lists.
OTHER = "other"
# Worst first. Okabe and Ito's palette, distinct for every kind of colour vision; the hatches for prints without colour.
_COLOURS, _HATCHES = ("#D55E00", "#F0E442", "#0072B2"), ("//", "", "..")


@dataclass(frozen=True)
class FeedbackStatistics:
    """
    Figures of a set of ratings; what one rater said of a clip in a dimension several times counts once, as in training.

    Attributes:
        labels: number of each label by dimension.
        labels_by_category: the same by category of the caption's subject.
        annotators: number of ratings by rater; those that name none stand under `UNNAMED`.
        alpha: Krippendorff's alpha (ordinal) by dimension, 1 for perfect agreement, 0 for chance; `None` where no clip
            has two raters, or all ratings are one label.
    """

    num_videos: int
    num_ratings: int
    labels: Mapping[str, Mapping[str, int]]
    labels_by_category: Mapping[str, Mapping[str, Mapping[str, int]]]
    annotators: Mapping[str, int]
    alpha: Mapping[str, float | None]


def feedback_statistics(rows: Iterable[Row], rubric: Rubric = LIFT) -> FeedbackStatistics:
    """
    Figures of tidy rows (`load_hra(...)["train"]`) with the labels of `rubric`.

    >>> row = {"video_id": "a", "caption": "a dog", "dimension": "motion_smoothness", "label": "Bad", "annotator": "x"}
    >>> feedback_statistics([row]).labels["motion_smoothness"]["Bad"]
    1
    """
    rows = _once(rows, rubric)
    categories = {row["caption"]: subject_category(row["caption"]) or OTHER for row in rows}
    by_category: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_category[categories[row["caption"]]].append(row)
    return FeedbackStatistics(
        num_videos=len({row["video_id"] for row in rows}),
        num_ratings=len(rows),
        labels=label_histogram(rows, rubric),
        labels_by_category={name: label_histogram(part, rubric) for name, part in sorted(by_category.items())},
        annotators=dict(sorted(Counter(row["annotator"] or UNNAMED for row in rows).items())),
        alpha={dimension: krippendorff_alpha(rows, dimension, rubric) for dimension in rubric.dimensions},
    )


def _once(rows: Iterable[Row], rubric: Rubric) -> list[Row]:
    """`rows` with one for each rater, clip and dimension (`one_a_rater`)."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["video_id"], row["dimension"]].append(row)
    return [
        {**group[0], "annotator": rater, "label": label}
        for group in groups.values()
        for rater, label in one_a_rater(((row["annotator"], row["label"]) for row in group), rubric)
    ]


def label_histogram(rows: Iterable[Row], rubric: Rubric = LIFT) -> dict[str, dict[str, int]]:
    """Number of each label by dimension, zeros included."""
    counts = Counter((row["dimension"], row["label"]) for row in rows)
    return {dimension: {label: counts[dimension, label] for label in rubric.labels} for dimension in rubric.dimensions}


def krippendorff_alpha(rows: Iterable[Row], dimension: str, rubric: Rubric = LIFT) -> float | None:
    """
    Krippendorff's alpha with the ordinal metric (worst label < ... < best) over all clips rated in `dimension`.

    A rater who rated a clip several times counts once (`store.clip_rows.one_a_rater`). `None` where alpha is not defined:
    no clip has two raters, or all ratings are one label.

    Raises:
        ValueError: if the package `krippendorff` is not installed.
    """
    try:
        import krippendorff
    except ImportError as error:
        raise ValueError("raters' agreement needs krippendorff: pip install 'lift-trl[eval]'") from error
    given: dict[str, list[int]] = defaultdict(list)
    for row in _once((row for row in rows if row["dimension"] == dimension), rubric):
        given[row["video_id"]].append(rubric.rank(row["label"]))
    ranks = range(len(rubric.labels))
    counts = np.array([[own.count(rank) for rank in ranks] for own in given.values() if len(own) > 1])
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal", value_domain=list(ranks)))


def plot_labels(statistics: FeedbackStatistics, path: Path | str | None = None) -> "Figure":
    """
    Labels by dimension (left) and by category of the subject (right) as stacked bars in per cent, counts beside them.

    Args:
        path: where to save the picture (the suffix decides the format); nothing is saved for `None`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_dimension = {words(dimension): counts for dimension, counts in statistics.labels.items()}
    labels = list(next(iter(by_dimension.values())))
    by_category = {
        name: {label: sum(counts[label] for counts in table.values()) for label in labels}
        for name, table in statistics.labels_by_category.items()
    }
    _stacked_bars(left, by_dimension)
    _stacked_bars(right, by_category)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(labels), frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _stacked_bars(axes: Any, table: Mapping[str, Mapping[str, int]]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    names = [f"{name} ({sum(counts.values())})" for name, counts in table.items()]
    start = np.zeros(len(table))
    labels = list(next(iter(table.values())))
    # Any other number of labels: a scale that colour-blind eyes and prints see as one, dark to light.
    scale = [to_hex(colour) for colour in colormaps["cividis"](np.linspace(0, 1, len(labels)))]
    is_three = len(labels) == len(_COLOURS)
    for rank, label in enumerate(labels):
        width = np.array([100 * counts[label] / max(1, sum(counts.values())) for counts in table.values()])
        colour, hatch = (_COLOURS[rank], _HATCHES[rank]) if is_three else (scale[rank], "")
        axes.barh(names, width, left=start, label=str(label), color=colour, hatch=hatch, edgecolor="white")
        start += width
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of ratings [%]")
    axes.spines[["top", "right"]].set_visible(False)
