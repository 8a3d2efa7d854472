"""The parts of a report below its verdicts, in reading order; what only a careful reader wants is folded."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..rubric import words
from ..statistics.drift import MEASURES
from ..statistics.drift import SUITE as DRIFT_SUITE
from ..vbench.score import PairedDelta
from ..vbench.suite import DIMENSIONS, PROTOCOLS
from . import figures, tables
from .data import CRITIC_SUITE, REWARD_SUITE, REWARDS_ORDER, TRAINING_JUDGE, VIDEOSCORE_SUITE, ClipRow, Report
from .tables import Table
from .verdict import AS_CLAUSE, AS_OWN_HEAD


#: Rows of clips that are seen without unfolding.
NUM_OPEN_CLIPS = 3


class Graphic(NamedTuple):
    """A figure as SVG text, and the words that stand for it where it cannot be seen."""

    svg: str
    alt: str


class Section(NamedTuple):
    """One part of the report; HTML and Markdown show the same."""

    id: str
    title: str
    text: str = ""
    graphics: tuple[Graphic, ...] = ()
    tables: tuple[Table, ...] = ()
    clips: tuple[ClipRow, ...] = ()
    folded: bool = False


def sections(report: Report) -> list[Section]:
    """The parts that `report` has data for."""
    makers = (
        *(_systems, _forest, _clips, _trust, _benchmarks),
        *(_vbench, _videoscore, _pairs, _wins, _labels, _rewards, _drift, _critic, _reliability, _more_clips, _curves),
        *(_others, _made),
    )
    return [section for make in makers for section in make(report)]


def _systems(report: Report) -> Iterator[Section]:
    if report.systems:
        yield Section("systems", "The systems", tables=(tables.systems_table(report.systems, report.controls),))


def _forest(report: Report) -> Iterator[Section]:
    judges = [judge for judge in (report.judge, TRAINING_JUDGE) if judge]
    measures = dict.fromkeys(("reward", "preference", *(p.measure for p in report.paired)))
    found = {(p.a, p.measure, p.judge): p.estimate for p in report.paired if p.b == report.base}
    rows = [
        (system, words(measure), {j: e for j in judges if (e := found.get((system, measure, j)))})
        for system in dict.fromkeys(a for a, _, _ in found)
        for measure in measures
    ]
    rows = [row for row in rows if row[2]]
    if not rows:
        return
    chart = Graphic(
        figures.judges_forest(rows, judges, unit=f"difference to {report.base}, 95% interval over prompts"),
        f"Differences of each system to {report.base} by measure, {' and '.join(judges)}; figures under Pairs.",
    )
    filled = f"Filled: {report.judge}, {AS_CLAUSE[report.role(report.judge)]}; its reward is the primary measure. "
    own = AS_OWN_HEAD[report.role(TRAINING_JUDGE)]
    text = f"Hollow: {TRAINING_JUDGE}, {own}. All but the primary measure is exploratory: no verdict."
    text = filled + text if report.judge else text.removeprefix("Hollow: ").capitalize()
    overall = [rate for rate in report.win_rates if rate.dimension is None and rate.second == report.base]
    wins = [tables.win_table(overall)] if overall else []
    yield Section("differences", f"Against {report.base}", text, (chart,), tuple(wins))


def _clips(report: Report) -> Iterator[Section]:
    if report.clips:
        text = "Chosen by a rule: the worst loss, the largest drift, the largest gain, then spread over the prompts."
        yield Section("clips", "Clips", text, clips=report.clips[:NUM_OPEN_CLIPS])


def _more_clips(report: Report) -> Iterator[Section]:
    if report.clips[NUM_OPEN_CLIPS:]:
        yield Section("more-clips", "More clips", clips=report.clips[NUM_OPEN_CLIPS:], folded=True)


def _trust(report: Report) -> Iterator[Section]:
    against = [row for row in report.rows if report.judge and row.suite == f"critic against {report.judge}"]
    critic = [row for row in report.rows if row.suite == CRITIC_SUITE]
    rewards = [row for row in against if row.metric == REWARDS_ORDER]
    found = [tables.rewards_order_table(rewards)] if rewards else []
    labelled = [row for row in against if row not in rewards]
    found += [t for rows in (labelled, critic) if (t := tables.critic_order_table(rows, report.rubric, num_metrics=3))]
    found += [tables.confusion_table(judge, counts) for judge, counts in report.confusion.items()]
    found += [tables.agreement_table(report.agreements)] if report.agreements else []
    graphics = (_drift_forest(report),) if report.drift else ()
    if found or graphics:
        text = "How far the critic orders clips as others do, and whether tuning changed what no reward asked for."
        yield Section("trust", "Can I trust it?", text, graphics, tuple(found))


def _drift_forest(report: Report) -> Graphic:
    many = len({a.system for a in report.drift}) > 1
    names = [f"{MEASURES[a.measure].title}{f', {a.system}' if many else ''}" for a in report.drift]
    limits = [(MEASURES[a.measure].lower, MEASURES[a.measure].upper) for a in report.drift]
    unit = f"drift: change against {report.drift[0].base}; bars are the limits"
    svg = figures.drift_forest(names, [a.change for a in report.drift], limits, unit=unit)
    return Graphic(svg, "Relative changes of pixel statistics with intervals and limits; figures under Drift.")


def _benchmarks(report: Report) -> Iterator[Section]:
    """What VBench and VideoScore say, in a sentence each; their figures, which are folded, may fill two screens."""
    said = {}
    for suite in PROTOCOLS:
        rows = [row for row in report.rows if row.suite == suite]
        if rows:
            values = {(row.system, row.metric.removeprefix(f"{suite}/")) for row in rows}
            systems = dict.fromkeys(row.system for row in rows)
            names = [name for name in DIMENSIONS if all((system, name) in values for system in systems)]
            text = f"{len(names)} of {len(DIMENSIONS)} dimensions measured, protocol {suite}. {_moved(report, suite)}"
            said[f"VBench ({suite})"] = text.rstrip()
    if any(row.suite == VIDEOSCORE_SUITE for row in report.rows):
        text = "a judge that took no part in the tuning: a reward that rises while these fall is no better video."
        said["VideoScore"] = f"{text} {_moved(report, VIDEOSCORE_SUITE)}".rstrip()
    if said:
        text = " ".join(f"{name}: {what}" for name, what in said.items())
        yield Section("benchmarks", " and ".join(said), text)


def _moved(report: Report, suite: str) -> str:
    """
    `rwl against base: 3 of 5 up, 1 down. Counted where the interval excludes 0: exploratory.`, of each pair of systems;
    empty where nothing was compared.
    """
    deltas = [delta for delta in report.deltas if delta.suite == suite]
    counts = []
    for system, base in dict.fromkeys((delta.system, delta.base) for delta in deltas):
        intervals = [d.estimate.ci95 for d in deltas if (d.system, d.base) == (system, base)]
        up, down = (
            sum(ci is not None and sign * ci[side] > 0 for ci in intervals) for side, sign in ((0, 1), (1, -1))
        )
        counts.append(f"{system} against {base}: {up} of {len(intervals)} up, {down} down")
    return f"{'; '.join(counts)}. Counted where the interval excludes 0: exploratory." if counts else ""


def _vbench(report: Report) -> Iterator[Section]:
    for suite in PROTOCOLS:
        rows = [row for row in report.rows if row.suite == suite]
        if rows:
            deltas = [delta for delta in report.deltas if delta.suite == suite]
            graphics = (_delta_forest(deltas, unit="raw values"),) if deltas else ()
            found = (tables.vbench_table(rows, suite), *_stamps(report, suite))
            yield Section(f"{suite}-figures", f"Figures: VBench ({suite})", "", graphics, found, folded=True)


def _videoscore(report: Report) -> Iterator[Section]:
    rows = [row for row in report.rows if row.suite == VIDEOSCORE_SUITE]
    if rows:
        deltas = [delta for delta in report.deltas if delta.suite == VIDEOSCORE_SUITE]
        graphics = (_delta_forest(deltas, unit="difference on the scale 1 to 4"),) if deltas else ()
        found = (tables.videoscore_table(rows), *_stamps(report, VIDEOSCORE_SUITE))
        yield Section("videoscore-figures", "Figures: VideoScore", "", graphics, found, folded=True)


def _delta_forest(deltas: list[PairedDelta], *, unit: str) -> Graphic:
    """Differences of pairs of systems; the pair is named once where there is only one."""
    names = [tables.metric_words(delta.suite, delta.metric) for delta in deltas]
    pairs = [f"{delta.system} - {delta.base}" for delta in deltas]
    unit = f"{unit}, 95% interval"
    if len(set(pairs)) == 1:
        unit = f"{pairs[0]}: {unit}"
    else:
        names = [f"{name}\n{pair}" for name, pair in zip(names, pairs)]
    svg = figures.forest(names, [delta.estimate for delta in deltas], unit=unit)
    return Graphic(svg, f"Paired differences, {unit}; figures below.")


def _stamps(report: Report, suite: str) -> list[Table]:
    stamps = report.suite_stamps.get(suite)
    return [tables.stamp_table(stamps)] if stamps else []


def _pairs(report: Report) -> Iterator[Section]:
    deltas = [delta for delta in report.deltas if delta.suite != REWARD_SUITE]
    found = [tables.paired_table(report.paired)] if report.paired else []
    found += [tables.delta_table(deltas)] if deltas else []
    if found:
        text = "Each system against the base and against the others, on the same prompts and seeds. Exploratory."
        yield Section("pairs", "Pairs of systems", text, tables=tuple(found), folded=True)


def _wins(report: Report) -> Iterator[Section]:
    if not report.win_rates:
        return
    graphics = []
    for first, second in dict.fromkeys((rate.first, rate.second) for rate in report.win_rates):
        mine = [rate for rate in report.win_rates if (rate.first, rate.second) == (first, second)]
        alt = f"Bars of wins, ties and losses of {first} against {second}; figures below."
        graphics.append(Graphic(figures.win_bars(mine), alt))
    found = [tables.win_table(report.win_rates)]
    found += [tables.strength_table(report.strengths)] if report.strengths else []
    text = "Which clip of a pair is preferred, by judge."
    yield Section("wins", "Win rates", text, tuple(graphics), tuple(found), folded=True)


def _labels(report: Report) -> Iterator[Section]:
    if report.label_rates:
        graphic = Graphic(figures.label_bars(report.label_rates), "Stacked bars of the label shares; figures below.")
        table = tables.label_table(report.label_rates)
        text = "What the critic says of each system's clips, by dimension."
        yield Section("labels", "Label shares", text, (graphic,), (table,), folded=True)


def _rewards(report: Report) -> Iterator[Section]:
    if report.rewards:
        graphic = Graphic(figures.reward_histogram(report.rewards), "Histogram of rewards by system.")
        means = [row for row in report.rows if row.suite == REWARD_SUITE]
        found = (tables.rows_table(means),) if means else ()
        yield Section("rewards", "Training reward of each clip", "", (graphic,), found, folded=True)


def _drift(report: Report) -> Iterator[Section]:
    if report.drift:
        steadiness = [row for row in report.rows if row.metric == f"{DRIFT_SUITE}/steadiness"]
        found = (tables.drift_table(report.drift), *((tables.steadiness_table(steadiness),) if steadiness else ()))
        text = "Has tuning made the clips still, soft, pale or all alike? Not VBench."
        yield Section("drift", "Drift", text, tables=found, folded=True)


def _critic(report: Report) -> Iterator[Section]:
    rows = [row for row in report.rows if row.suite == CRITIC_SUITE]
    if rows:
        order = tables.critic_order_table(rows, report.rubric)
        found = (tables.critic_table(rows, report.rubric), *([order] if order else []))
        yield Section("critic", "The critic against people", "Held-out human ratings.", tables=found, folded=True)


def _reliability(report: Report) -> Iterator[Section]:
    if report.calibration:
        chart = Graphic(figures.calibration(report.calibration), "Accuracy against confidence.")
        text = "Whether the critic knows when it is right."
        table = tables.reliability_table(report.calibration)
        yield Section("reliability", "Reliability of the critic", text, (chart,), (table,), folded=True)


def _curves(report: Report) -> Iterator[Section]:
    groups = dict.fromkeys(curve.group for curve in report.curves)
    graphics = tuple(
        Graphic(figures.curves([c for c in report.curves if c.group == group]), f"Curve: {group}.") for group in groups
    )
    if graphics:
        yield Section("curves", "Curves", "", graphics, folded=True)


def _others(report: Report) -> Iterator[Section]:
    shown = {*PROTOCOLS, VIDEOSCORE_SUITE, CRITIC_SUITE, REWARD_SUITE, *([DRIFT_SUITE] if report.drift else [])}
    rows = [row for row in report.rows if row.suite not in shown]
    for suite in dict.fromkeys(row.suite for row in rows):
        mine = [row for row in rows if row.suite == suite]
        yield Section(f"suite-{_slug(suite)}", f"Figures: {suite}", tables=(tables.rows_table(mine),), folded=True)


def _slug(text: str) -> str:
    """`text` for an id of HTML, which holds no space."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _made(report: Report) -> Iterator[Section]:
    if report.stamps:
        yield Section("made", "How it was made", tables=(tables.made_table(report.stamps),), folded=True)
