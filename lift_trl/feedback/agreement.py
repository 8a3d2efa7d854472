"""What a set of ratings looks like: labels by dimension and category, ratings by rater, agreement, plots."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..rubric import Dimension, Label, majority_label
from .categories import subject_category


if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

#: What stands for the names of raters who gave none.
UNNAMED = "(unnamed)"
#: Subject category of captions that name no subject of the lists.
OTHER = "other"
# Okabe and Ito's palette, distinct for every kind of colour vision; the hatches for prints without colour.
_COLOURS = dict(zip(Label, ("#D55E00", "#F0E442", "#0072B2")))
_HATCHES = dict(zip(Label, ("//", "", "..")))


@dataclass(frozen=True)
class FeedbackStatistics:
    """
    Figures of a set of ratings.

    Attributes:
        labels: number of each label by dimension.
        labels_by_category: the same by category of the caption's subject.
        annotators: number of ratings by rater; those that name none stand under `UNNAMED`.
        alpha: Krippendorff's alpha (ordinal) by dimension, 1 for perfect agreement, 0 for chance; `None` where no clip
            has two raters, or all ratings are one label.
    """

    num_videos: int
    num_ratings: int
    labels: Mapping[Dimension, Mapping[Label, int]]
    labels_by_category: Mapping[str, Mapping[Dimension, Mapping[Label, int]]]
    annotators: Mapping[str, int]
    alpha: Mapping[Dimension, float | None]

    def as_dict(self) -> dict[str, Any]:
        """All figures as plain data, for JSON and cards."""
        return {
            "num_videos": self.num_videos,
            "num_ratings": self.num_ratings,
            "labels": _plain(self.labels),
            "labels_by_category": {name: _plain(table) for name, table in self.labels_by_category.items()},
            "annotators": dict(self.annotators),
            "alpha": {dimension.value: value for dimension, value in self.alpha.items()},
        }


def feedback_statistics(rows: Iterable[Row]) -> FeedbackStatistics:
    """
    Figures of tidy rows (`load_hra(...)["train"]`).

    >>> row = {"video_id": "a", "caption": "a dog", "dimension": "motion_smoothness", "label": "Bad", "annotator": "x"}
    >>> feedback_statistics([row]).labels[Dimension.MOTION_SMOOTHNESS][Label.BAD]
    1
    """
    rows = list(rows)
    categories = {row["caption"]: subject_category(row["caption"]) or OTHER for row in rows}
    by_category: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_category[categories[row["caption"]]].append(row)
    return FeedbackStatistics(
        num_videos=len({row["video_id"] for row in rows}),
        num_ratings=len(rows),
        labels=label_histogram(rows),
        labels_by_category={name: label_histogram(part) for name, part in sorted(by_category.items())},
        annotators=dict(sorted(Counter(row["annotator"] or UNNAMED for row in rows).items())),
        alpha={dimension: krippendorff_alpha(rows, dimension) for dimension in Dimension},
    )


def label_histogram(rows: Iterable[Row]) -> dict[Dimension, dict[Label, int]]:
    """Number of each label by dimension, zeros included."""
    counts = Counter((row["dimension"], row["label"]) for row in rows)
    return {dimension: {label: counts[dimension, label] for label in Label} for dimension in Dimension}


def krippendorff_alpha(rows: Iterable[Row], dimension: Dimension) -> float | None:
    """
    Krippendorff's alpha with the ordinal metric (Bad < Normal < Good) over all clips rated in `dimension`.

    A rater who rated a clip twice counts once, with the majority of these labels, ties to the lower. Ratings without a name
    are of as many raters: nothing says that two of them are of one person. `None` where alpha is not defined: no
    clip has two raters, or all ratings are one label.

    Raises:
        ImportError: if the package `krippendorff` is not installed.
    """
    try:
        import krippendorff
    except ImportError as error:
        raise ImportError("raters' agreement needs krippendorff: pip install 'lift-trl[eval]'") from error
    given: dict[tuple[str, str], list[Label]] = defaultdict(list)
    unnamed: Counter[str] = Counter()
    for row in rows:
        if row["dimension"] == dimension:
            unnamed[row["video_id"]] += not row["annotator"]
            rater = row["annotator"] or f"{UNNAMED} {unnamed[row['video_id']]}"
            given[rater, row["video_id"]].append(Label(row["label"]))
    line = {rater: n for n, rater in enumerate(sorted({rater for rater, _ in given}))}
    column = {video: n for n, video in enumerate(sorted({video for _, video in given}))}
    data = np.full((len(line), len(column)), np.nan)
    for (rater, video), labels in given.items():
        data[line[rater], column[video]] = majority_label(labels).rank
    pairable = data[:, (~np.isnan(data)).sum(axis=0) >= 2]
    if pairable.size == 0 or len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=pairable, level_of_measurement="ordinal", value_domain=[0, 1, 2]))


def plot_labels(statistics: FeedbackStatistics, path: Path | str | None = None) -> "Figure":
    """
    Labels by dimension (left) and by category of the subject (right) as stacked bars in per cent, counts beside them.

    Args:
        path: where to save the picture (the suffix decides the format); nothing is saved for `None`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_dimension = {dimension.words: statistics.labels[dimension] for dimension in Dimension}
    by_category = {
        name: {label: sum(table[dimension][label] for dimension in Dimension) for label in Label}
        for name, table in statistics.labels_by_category.items()
    }
    _stacked_bars(left, by_dimension)
    _stacked_bars(right, by_category)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(Label), frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _stacked_bars(axes: Any, table: Mapping[str, Mapping[Label, int]]) -> None:
    names = [f"{name} ({sum(counts.values())})" for name, counts in table.items()]
    start = np.zeros(len(table))
    for label in Label:
        width = np.array([100 * counts[label] / max(1, sum(counts.values())) for counts in table.values()])
        colour, hatch = _COLOURS[label], _HATCHES[label]
        axes.barh(names, width, left=start, label=label.value, color=colour, hatch=hatch, edgecolor="white")
        start += width
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of ratings [%]")
    axes.spines[["top", "right"]].set_visible(False)


def _plain(table: Mapping[Dimension, Mapping[Label, int]]) -> dict[str, dict[str, int]]:
    return {d.value: {label.value: count for label, count in counts.items()} for d, counts in table.items()}
