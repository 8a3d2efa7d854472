"""The report's figures, as SVG text. Okabe-Ito colours plus markers, hatches or labels, so that no fact hangs on colour."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..rubric import words
from ..statistics.intervals import Estimate
from ..statistics.win_rate import WinRate
from .data import CalibrationBin, Curve, LabelRate


#: Okabe and Ito (2008): blue, vermilion, green, purple, sky blue, orange.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
INK, QUIET, GRID = "#1b1f24", "#5b6570", "#dfe3e8"
#: Colour and hatch of the worst label, of those between (paler the better), and of the best.
WORST, BETWEEN, BEST = ("#D55E00", "///"), (("#d9dde2", ""), ("#f0b27a", "..")), ("#0072B2", "")
WIDTH = 5.0  # inches, 480 px: a phone shrinks it by a quarter only
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "text.color": INK,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "lift_trl",
}


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """The figure as SVG, the same bytes each time."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def label_bars(rates: Sequence[LabelRate]) -> str:
    """Stacked bars of the label shares, one bar a dimension and system."""
    systems = list(dict.fromkeys(rate.system for rate in rates))
    share = {(r.system, r.dimension, r.label): r.rate.value for r in rates}
    dimensions, labels = (list(dict.fromkeys(values)) for values in zip(*((r.dimension, r.label) for r in rates)))
    with rc_context(_STYLE):
        figure, axes = _figure(0.7 + 0.32 * len(dimensions) * (len(systems) + 0.7))
        ticks, names = [], []
        for d, dimension in enumerate(dimensions):
            top = d * (len(systems) + 0.8)
            axes.text(0, top - 0.62, words(dimension), weight="bold", va="center")
            for s, system in enumerate(systems):
                ticks.append(top + s)
                names.append(system)
                left = 0.0
                for label in reversed(labels):
                    value = share[system, dimension, label]
                    colour, hatch = style = label_style(label, labels)
                    named = label if d == s == 0 else None
                    axes.barh(
                        top + s, value, 0.74, left, color=colour, hatch=hatch, edgecolor="white", lw=0.8, label=named
                    )
                    if value >= 0.08:
                        ink = "white" if style in (WORST, BEST) else INK
                        box = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
                        axes.text(
                            left + value / 2, top + s, f"{value:.0%}", ha="center", va="center", color=ink, bbox=box
                        )
                    left += value
        axes.set_yticks(ticks, names)
        axes.set_ylim(ticks[-1] + 0.6, -1.1)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        _legend_above(axes, len(labels))
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def label_style(label: str, labels: Sequence[str]) -> tuple[str, str]:
    """
    Colour and hatch of one of `labels`, worst first.

    >>> [label_style(label, "abc") for label in "abc"] == [WORST, BETWEEN[0], BEST]
    True
    """
    place = labels.index(label)
    return WORST if place == 0 else BEST if place == len(labels) - 1 else BETWEEN[(len(labels) - 2 - place) % 2]


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2, handlelength=1.4
    )


def reward_histogram(rewards: Mapping[str, Sequence[float]]) -> str:
    """Outlined histograms of the clips' rewards, one line style a system, means marked."""
    with rc_context(_STYLE):
        figure, axes = _figure(2.7)
        values = [value for row in rewards.values() for value in row]
        edges = np.linspace(min(0.0, *values), max(1.0, *values), 21).tolist()
        for i, (system, row) in enumerate(rewards.items()):
            colour, line = PALETTE[i % 6], LINES[i % 4]
            weights = np.full(len(row), 1 / len(row))
            axes.hist(row, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.12)
            axes.hist(row, edges, weights=weights, histtype="step", color=colour, ls=line, lw=1.8, label=system)
            below: Any = {"clip_on": False, "transform": axes.get_xaxis_transform()}
            axes.plot(float(np.mean(row)), -0.02, MARKERS[i % 6], color=colour, **below)
        axes.set_xlabel("reward of a clip (markers: means)")
        axes.set_ylabel("share of clips")
        axes.yaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.grid(axis="y")
        _legend_above(axes, 3)
        return _svg(figure)


def win_bars(rates: Sequence[WinRate]) -> str:
    """Stacked bars of the win, tie and loss shares of one system against one other, a bar a dimension, judge by judge."""
    first, second = rates[0].first, rates[0].second
    blue, red = BEST[0], WORST[0]
    parts = (
        (f"{first} wins", blue, "", "white"),
        ("tie", "#d9dde2", "", INK),
        (f"{second} wins", red, "///", "white"),
    )
    judges = list(dict.fromkeys(rate.judge for rate in rates))
    with rc_context(_STYLE):
        figure, axes = _figure(0.8 + 0.32 * (len(rates) + 0.8 * len(judges)))
        # A line for each judge's name above its bars.
        rows = [number + 0.8 * judges.index(rate.judge) for number, rate in enumerate(rates)]
        for row, rate in zip(rows, rates):
            left = 0.0
            for (name, colour, hatch, ink), value in zip(parts, (rate.win.value, rate.tie.value, rate.loss.value)):
                named = name if row == 0 else None
                axes.barh(row, value, 0.74, left, color=colour, hatch=hatch, edgecolor="white", label=named)
                if value >= 0.08:
                    box = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
                    axes.text(left + value / 2, row, f"{value:.0%}", ha="center", va="center", color=ink, bbox=box)
                left += value
        for judge in judges:
            top = next(row for row, rate in zip(rows, rates) if rate.judge == judge)
            axes.text(0, top - 0.62, judge, weight="bold", va="center")
        axes.set_yticks(rows, [words(rate.dimension or "overall") for rate in rates])
        axes.set_ylim(rows[-1] + 0.6, -1.1)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.tick_params(axis="y", length=0)
        _legend_above(axes, 3)
        return _svg(figure)


def forest(names: Sequence[str], estimates: Sequence[Estimate], *, unit: str) -> str:
    """Differences with their intervals around a zero line: filled where the interval excludes 0, hollow elsewhere."""
    with rc_context(_STYLE):
        lines = max(name.count("\n") + 1 for name in names)
        figure, axes = _figure(0.8 + (0.15 + 0.17 * lines) * len(names))
        axes.axvline(0, color=INK, lw=0.9)
        for row, estimate in enumerate(estimates):
            apart = estimate.excludes_zero
            colour = QUIET if not apart else PALETTE[0] if estimate.is_above_zero else PALETTE[1]
            marker = "o" if not apart else ">" if estimate.is_above_zero else "<"
            if estimate.ci95 is not None:
                axes.plot(estimate.ci95, (row, row), color=colour, lw=2, solid_capstyle="round")
            face = colour if apart else "white"
            axes.plot(estimate.value, row, marker, color=colour, markerfacecolor=face, ms=7)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def judges_forest(rows: Sequence[tuple[str, str, Mapping[str, Estimate]]], judges: Sequence[str], *, unit: str) -> str:
    """
    Differences by system and measure; in each row a filled mark for the first of `judges` and a hollow one for the second.

    Args:
        rows: (system, measure, judge -> difference), the rows of one system together.
    """
    with rc_context(_STYLE):
        systems = list(dict.fromkeys(system for system, _, _ in rows))
        places = [number + 0.9 * (systems.index(system) + 1) for number, (system, _, _) in enumerate(rows)]
        figure, axes = _figure(0.7 + 0.3 * (places[-1] + 1))
        axes.axvline(0, color=INK, lw=0.9)
        for i, judge in enumerate(judges):
            colour, marker, shift = PALETTE[i], MARKERS[i], 0.26 * (i - (len(judges) - 1) / 2)
            named = judge
            for place, (_, _, found) in zip(places, rows):
                if judge not in found:
                    continue
                estimate = found[judge]
                if estimate.ci95 is not None:
                    axes.plot(estimate.ci95, (place + shift,) * 2, color=colour, lw=1.8, solid_capstyle="round")
                face = "white" if i else colour
                axes.plot(estimate.value, place + shift, marker, color=colour, markerfacecolor=face, ms=6, label=named)
                named = "_"  # one entry of the legend is enough
        for system in systems:
            top = next(place for place, row in zip(places, rows) if row[0] == system)
            axes.annotate(system, (0, top - 0.85), (-4, 0), axes.get_yaxis_transform(), "offset points", weight="bold",
                          ha="right", va="center", annotation_clip=False)  # fmt: skip
        axes.set_yticks(places, [measure for _, measure, _ in rows])
        axes.set_ylim(places[-1] + 0.6, 0)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        _legend_above(axes, 2)
        return _svg(figure)


def drift_forest(
    names: Sequence[str], changes: Sequence[Estimate], limits: Sequence[tuple[float, float | None]], *, unit: str
) -> str:
    """Relative changes with their intervals, and a bar at each limit; filled where the change is beyond it."""
    with rc_context(_STYLE):
        figure, axes = _figure(0.6 + 0.25 * len(names))
        axes.axvline(0, color=INK, lw=0.9)
        for row, (change, (lower, upper)) in enumerate(zip(changes, limits)):
            for limit in (lower, upper):
                if limit is not None:
                    axes.plot((limit, limit), (row - 0.32, row + 0.32), color=PALETTE[1], lw=2.2)
            if change.ci95 is not None:
                axes.plot(change.ci95, (row, row), color=PALETTE[0], lw=2, solid_capstyle="round")
            beyond = change.value < lower or (upper is not None and change.value > upper)
            face = PALETTE[0] if beyond else "white"
            axes.plot(change.value, row, "o", color=PALETTE[0], markerfacecolor=face, ms=6)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:+.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def calibration(bins: Mapping[str, Sequence[CalibrationBin]]) -> str:
    """Accuracy against confidence, one line a critic; the diagonal is perfect calibration; areas are counts."""
    with rc_context(_STYLE):
        figure, axes = _figure(3.2)
        axes.plot((0, 1), (0, 1), color=QUIET, ls=":", lw=1)
        for i, (critic, row) in enumerate(bins.items()):
            total = sum(b.n for b in row)
            x, y = [b.confidence for b in row], [b.accuracy for b in row]
            axes.plot(x, y, color=PALETTE[i % 6], ls=LINES[i % 4], lw=1.4)
            sizes = [20 + 260 * b.n / total for b in row]
            axes.scatter(x, y, sizes, color=PALETTE[i % 6], marker=MARKERS[i % 6], alpha=0.8, label=critic)
        axes.set(
            xlim=(least_confidence(bins), 1.02),
            ylim=(0, 1.05),
            xlabel="probability of the given label",
            ylabel="share that is right",
        )
        axes.grid()
        _legend_above(axes, 1)
        return _svg(figure)


def least_confidence(bins: Mapping[str, Sequence[CalibrationBin]]) -> float:
    """
    Where the axis of confidence begins. Of three labels the likeliest has a third at least, of more it may have less.

    >>> least_confidence({"critic": [CalibrationBin(0.24, 0.5, 40), CalibrationBin(0.55, 0.6, 10)]})
    0.2
    """
    return min([0.3, *(math.floor(10 * found.confidence) / 10 for row in bins.values() for found in row)])


def curves(lines: Sequence[Curve]) -> str:
    """The training curves of one group."""
    with rc_context(_STYLE):
        figure, axes = _figure(2.5)
        for i, line in enumerate(lines):
            style: Any = {"color": PALETTE[i % 6], "ls": LINES[i % 4]}
            axes.plot(line.steps, line.values, lw=1.6, label=line.name, **style)
        axes.set_xlabel(lines[0].unit)
        axes.set_ylabel(lines[0].group)
        axes.grid(axis="y")
        _legend_above(axes, 3)
        return _svg(figure)
