"""The report's tables as text cells, the same for Markdown and HTML; the paper's figures as labelled reference columns."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..records import EvalRow
from ..rubric import LIFT, Rubric, words
from ..statistics.drift import MEASURES, NOT_VBENCH, DriftAlarm
from ..statistics.intervals import FEW_UNITS, Estimate
from ..statistics.win_rate import WinRate
from ..vbench.score import ESTIMATE, QUALITY, SEMANTIC, TOTAL, PairedDelta
from ..vbench.suite import DIMENSIONS
from .data import CRITIC_SUITE, CalibrationBin, Confusion, JudgeAgreement, LabelRate, Paired, Strength, SystemFacts


TEMPLATES = Path(__file__).with_name("templates")


_EXPLORATORY = "95% bootstrap interval over prompts, not corrected for how many there are."


class Table(NamedTuple):
    """A table: `columns[0]` heads the row names. `reference` columns are others' figures, shown set apart."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    reference: tuple[int, ...] = ()


@cache
def paper() -> Mapping[str, Any]:
    """The paper's figures (templates/paper_reference.yaml)."""
    content: Mapping[str, Any] = yaml.safe_load((TEMPLATES / "paper_reference.yaml").read_text(encoding="utf-8"))
    return content


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def percent(estimate: Estimate) -> str:
    """A share with its interval: `62 % (48-74)`."""
    if estimate.ci95 is None:
        return f"{estimate.value:.0%}"
    return f"{estimate.value:.0%} ({estimate.ci95[0] * 100:.0f}-{estimate.ci95[1] * 100:.0f})"


def with_interval(value: float, ci95: tuple[float, float] | None, digits: int = 3, sign: str = "") -> str:
    """A figure with its interval: `0.412 (0.395 to 0.430)`."""
    # Adding 0 turns a rounded -0 into 0.
    shown, *bounds = (f"{round(x, digits) + 0.0:{sign}.{digits}f}" for x in (value, *(ci95 or ())))
    return f"{shown} ({' to '.join(bounds)})" if bounds else shown


def systems_table(systems: Sequence[SystemFacts], controls: Mapping[str, str]) -> Table:
    """What each system is; a column that would be empty is left out."""
    columns = {
        "model": [s.model for s in systems],
        "LoRA": [s.adapter for s in systems],
        "objective": [s.objective or ("not known" if s.adapter else "") for s in systems],
        "control": [controls.get(s.name, "") for s in systems],
        "clips": [f"{s.clips}: {s.prompts} prompts x {s.seeds} seeds" for s in systems],
        "sampled with": [s.settings for s in systems],
        "made on": [s.made for s in systems],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    rows = tuple((s.name, *cells) for s, *cells in zip(systems, *columns.values()))
    return Table(("system", *columns), rows)


def made_table(stamps: Mapping[str, str]) -> Table:
    """What the report was made from."""
    return Table(("made from", "which"), tuple(stamps.items()))


def confusion_table(judge: str, found: Confusion) -> Table:
    """How often the critic gave which label where the judge gave which, over all dimensions."""
    order = range(len(found.labels))[::-1]
    rows = tuple((f"{judge}: {found.labels[i]}", *(str(found.counts[i][k]) for k in order)) for i in order)
    caption = "Labels of all clips and dimensions; on the diagonal the two agree."
    return Table((f"critic against {judge}", *(f"critic: {found.labels[k]}" for k in order)), rows, caption)


def label_table(rates: Sequence[LabelRate]) -> Table:
    """Label shares by dimension and system, with intervals."""
    cell = {(r.system, r.dimension, r.label): r.rate for r in rates}
    systems = dict.fromkeys(rate.system for rate in rates)
    labels = list(dict.fromkeys(rate.label for rate in rates))[::-1]
    rows = []
    for dimension in dict.fromkeys(rate.dimension for rate in rates):
        for system in systems:
            shares = [cell[system, dimension, label] for label in labels]
            rows.append((words(dimension), system, *map(percent, shares), str(shares[0].n)))
    caption = "Share of clips with each label, 95% interval over prompts in brackets."
    return Table(("dimension", "system", *labels, "prompts"), tuple(rows), caption)


def delta_table(deltas: Sequence[PairedDelta]) -> Table:
    """Paired differences of metrics."""
    rows = []
    for d in deltas:
        rows.append(
            (
                metric_words(d.suite, d.metric),
                f"{d.system} - {d.base}",
                number(d.base_value),
                number(d.value),
                with_interval(d.estimate.value, d.estimate.ci95, sign="+"),
                str(d.estimate.n),
            )
        )
    caption = f"Paired over the same prompts; {_EXPLORATORY}"
    return Table(("metric", "pair", "base", "system", "difference", "prompts"), tuple(rows), caption)


def paired_table(pairs: Sequence[Paired]) -> Table:
    """Paired differences by judge and measure."""
    rows = tuple(
        (
            p.judge,
            p.measure.replace("_", " "),
            f"{p.a} - {p.b}",
            with_interval(p.value, p.ci95, sign="+"),
            str(p.n),
        )
        for p in pairs
    )
    caption = f"Reward, or reward of one dimension's label; {_EXPLORATORY}"
    return Table(("judge", "measure", "pair", "difference", "prompts"), rows, caption)


def reliability_table(calibration: Mapping[str, Sequence[CalibrationBin]]) -> Table:
    """How often answers of each confidence were right."""
    rows = tuple(
        (name, number(b.confidence), number(b.accuracy), str(b.n)) for name, bins in calibration.items() for b in bins
    )
    caption = "Answers grouped by the probability of the given label; a reliable critic is right as often as it says."
    return Table(("critic", "mean confidence", "accuracy", "answers"), rows, caption)


def win_table(rates: Sequence[WinRate]) -> Table:
    """Win rates by judge and dimension; the majority where several people voted on a pair."""
    many = any(rate.num_votes != rate.num_pairs for rate in rates)
    rows = tuple(
        (
            r.judge,
            _dimension_words(r.dimension),
            f"{r.first} against {r.second}",
            *map(percent, (r.win, r.tie, r.loss)),
            *((f"{r.majority_win:.0%} / {r.majority_tie:.0%} / {r.majority_loss:.0%}",) if many else ()),
            f"{r.num_votes} / {r.num_pairs}" if many else str(r.num_pairs),
        )
        for r in rates
    )
    caption = (
        "Shares of votes with 95% intervals over prompts and, where several people voted, over them (bootstrap; Wilson's "
        "where every prompt has the same share)."
    )
    last = ("majority w/t/l", "votes / pairs") if many else ("pairs",)
    return Table(("judge", "dimension", "pair", "win", "tie", "loss", *last), rows, caption)


def strength_table(strengths: Sequence[Strength]) -> Table:
    """Bradley-Terry's strengths, one row a judge, one column a system."""
    cell = {(row.judge, row.system): row.strength for row in strengths}
    systems = tuple(dict.fromkeys(row.system for row in strengths))
    rows = []
    for judge in dict.fromkeys(row.judge for row in strengths):
        found = [cell.get((judge, system)) for system in systems]
        rows.append((judge, *("" if e is None else with_interval(e.value, e.ci95, 2, "+") for e in found)))
    caption = (
        "Bradley-Terry log-strengths from the votes on the whole clip, mean 0, ties as half a win, 95% bootstrap interval "
        "over prompts. A difference of 1.1 is odds of 3 to 1."
    )
    return Table(("strength by", *systems), tuple(rows), caption)


def agreement_table(agreements: Sequence[JudgeAgreement]) -> Table:
    """How often a judge votes as people do."""
    rows = tuple(
        (
            f"{a.judge} with {a.people}",
            _dimension_words(a.dimension),
            percent(a.with_ties),
            "" if a.without_ties is None else percent(a.without_ties),
            number(None if math.isnan(a.kappa) else a.kappa, 2),
            str(a.with_ties.n),
        )
        for a in agreements
    )
    caption = (
        "Share of pairs on which the judge votes as the majority of the people; without ties: of the pairs where people "
        "named a winner, a judge's tie is wrong. 95% interval over prompts; Cohen's kappa of win, tie and loss."
    )
    columns = ("agreement", "dimension", "with ties", "without ties", "kappa", "prompts")
    return Table(columns, rows, caption)


def _dimension_words(dimension: str | None) -> str:
    return words(dimension) if dimension else "overall"


def vbench_table(rows: Sequence[EvalRow], suite: str) -> Table:
    """
    VBench's 16 dimensions and totals in percent, ours and the paper's.

    Custom input has neither the paper's prompts nor its static filter: only what was measured is shown.
    """
    mine = {(row.system, row.metric.removeprefix(f"{suite}/")): row for row in rows if row.suite == suite}
    systems = tuple(dict.fromkeys(system for system, _ in mine))
    estimates = [
        name + ESTIMATE for name in (QUALITY, SEMANTIC, TOTAL) if any((s, name + ESTIMATE) in mine for s in systems)
    ]
    names: tuple[str, ...] = (*DIMENSIONS, QUALITY, SEMANTIC, TOTAL, *estimates)
    reference = paper()["vbench"]
    titles = tuple(reference["columns"])
    caption = (
        f"Protocol {suite}. Reference columns: {paper()['source']}, measured elsewhere with the paper's own protocol; "
        "blank where no figure is known. Quality, semantic and total only if all their dimensions are there and whole; an "
        "estimate is of fewer prompts or samples than VBench's protocol, and no VBench score."
    )
    if suite == "vbench-custom":
        names, titles = tuple(name for name in names if any((s, name) in mine for s in systems)), ()
        caption = f"Protocol {suite}: prompts of your own, flickering on moving clips too. Compare within it only."
    listed = []
    for name in names:
        cells = []
        for system in systems:
            row = mine.get((system, name))
            ci95 = None if row is None or row.ci95 is None else (100 * row.ci95[0], 100 * row.ci95[1])
            cells.append("" if row is None else with_interval(100 * row.value, ci95, 2))
        theirs = reference["rows"].get(name, [None] * len(titles))[: len(titles)]
        listed.append((name.replace("_", " "), *cells, *(number(value, 2) for value in theirs)))
    columns = ("percent", *systems, *(f"paper: {title}" for title in titles))
    return Table(columns, tuple(listed), caption, tuple(range(1 + len(systems), len(columns))))


def stamp_table(stamps: Mapping[str, Mapping[str, str]]) -> Table:
    """What the figures were measured with, one column a system; a stamp that differs is named below."""
    names = dict.fromkeys(name for mine in stamps.values() for name in mine)
    rows = tuple((name.replace("_", " "), *(mine.get(name, "") for mine in stamps.values())) for name in names)
    unlike = [row[0] for row in rows if len(set(row[1:])) > 1 and row[0] != "results"]
    caption = "What the figures were measured with."
    if unlike:
        caption += f" The systems differ in {', '.join(unlike)}: part of a difference may be theirs."
    return Table(("measured with", *stamps), rows, caption)


def videoscore_table(rows: Sequence[EvalRow]) -> Table:
    """VideoScore's five means, ours above the paper's."""
    reference = paper()["videoscore"]
    mine: dict[str, dict[str, EvalRow]] = {}
    for row in rows:
        mine.setdefault(row.system, {})[row.metric.rsplit("/", 1)[-1]] = row
    listed = [
        (s, *(with_interval(c[a].value, c[a].ci95, 2) if a in c else "" for a in reference["columns"]))
        for s, c in mine.items()
    ]
    listed += [(f"paper: {name}", *(number(v, 2) for v in values)) for name, values in reference["rows"].items()]
    return Table(("1 to 4", *reference["columns"]), tuple(listed), f"Reference rows: {paper()['source']}.")


def critic_table(rows: Sequence[EvalRow], rubric: Rubric = LIFT) -> Table:
    """Critic accuracy by dimension (rows `critic/{dimension}/accuracy`), ours above the paper's, which is of LiFT's."""
    reference = paper()["critic"]
    cell = {(row.system, row.metric): row for row in rows}
    parts = _critic_parts((row.metric.removeprefix(f"{CRITIC_SUITE}/") for row in rows), rubric)
    listed = []
    for critic in dict.fromkeys(row.system for row in rows):
        found = [cell.get((critic, f"critic/{part}/accuracy")) for part in parts]
        shares = ["" if row is None else percent(Estimate(row.value, row.ci95, row.n)) for row in found]
        error = cell.get((critic, "critic/overall/calibration_error"))
        listed.append((critic, *shares, "" if error is None else with_interval(error.value, error.ci95)))
    paper_parts = (*LIFT.dimensions, "overall")
    is_lift = rubric == LIFT and parts[: len(LIFT.dimensions)] == tuple(LIFT.dimensions)
    for name, values in reference["rows"].items() if is_lift else ():
        theirs = dict(zip(paper_parts, values, strict=True))
        listed.append((f"paper: {name}", *(f"{theirs[p]:.2f}%" if p in theirs else "" for p in parts), ""))
    columns = ("critic", *map(words, parts[:-1]), "average", "calibration error")
    caption = f"; reference rows: {paper()['source']}, on the authors' own test set" if is_lift else ""
    return Table(columns, tuple(listed), f"Accuracy on held-out ratings{caption}.")


def _critic_parts(metrics: Iterable[str], rubric: Rubric) -> tuple[str, ...]:
    """The dimensions of a critic's figures (`part/metric`): the rubric's where one is named, others as named, `overall`."""
    named = [name for name in dict.fromkeys(metric.split("/")[0] for metric in metrics) if name != "overall"]
    ours = rubric.dimensions if not named or not set(named).isdisjoint(rubric.dimensions) else ()
    return (*ours, *(name for name in named if name not in ours), "overall")


def critic_order_table(rows: Sequence[EvalRow], rubric: Rubric = LIFT, *, num_metrics: int = 5) -> Table | None:
    """How well a critic puts clips in order, whatever its labels; `None` where no such figure is given."""
    cell = {(row.system, row.metric.removeprefix(f"{CRITIC_SUITE}/")): row for row in rows}
    parts = _critic_parts((metric for _, metric in cell), rubric)
    is_known = not set(parts).isdisjoint(rubric.dimensions)
    best, worst = (rubric.best, rubric.worst) if is_known else ("the best label", "the worst label")
    every = {
        "spearman": "Spearman",
        "auc_good": f"AUC of {best}",
        "auc_bad": f"AUC of {worst}",
        "quadratic_kappa": "quadratic kappa",
        "prior_corrected_balanced_accuracy": "balanced accuracy without its leaning",
    }
    metrics = dict(list(every.items())[:num_metrics])
    listed = []
    critics = dict.fromkeys(row.system for row in rows)
    for critic in critics:
        for part in ("overall", *parts[:-1]):
            found = [cell.get((critic, f"{part}/{metric}")) for metric in metrics]
            if any(found):
                shown = ("" if row is None else with_interval(row.value, row.ci95, 2) for row in found)
                named = words(part) if len(critics) == 1 else f"{critic}: {words(part)}"
                listed.append((named, *shown))
    of_people = all(row.suite == CRITIC_SUITE for row in rows)
    whose = "people's labels" if of_people else "the other judge's labels"
    caption = f"Expected rewards and probabilities against {whose}; labels that lean to one side hide no order."
    head = "critic against people" if of_people else " and ".join(dict.fromkeys(row.suite for row in rows))
    return Table((head, *metrics.values()), tuple(listed), caption) if listed else None


def rewards_order_table(rows: Sequence[EvalRow]) -> Table:
    """How far a critic and a judge without labels order the same clips alike."""
    listed = tuple((row.suite, with_interval(row.value, row.ci95, 2), str(row.n)) for row in rows)
    caption = "Rewards of both over the clips that both scored; 95% bootstrap interval over prompts."
    return Table(("rewards", "Spearman", "prompts"), listed, caption)


def drift_table(alarms: Sequence[DriftAlarm]) -> Table:
    """Pixel statistics against the base, with levels."""
    rows = tuple(
        (
            MEASURES[a.measure].title,
            f"{a.system} against {a.base}",
            number(a.base_value, 4),
            number(a.value, 4),
            a.change_in_words,
            _threshold(a.measure),
            a.level,
        )
        for a in alarms
    )
    caption = (
        f"{NOT_VBENCH} Alarm: beyond the threshold, the paired 95% interval excludes no change, and at least {FEW_UNITS} "
        "prompts; watch: beyond the threshold only, or the interval reaches it."
    )
    return Table(("statistic", "pair", "base", "system", "change", "threshold", "level"), rows, caption)


def _threshold(measure: str) -> str:
    lower, upper = MEASURES[measure].lower, MEASURES[measure].upper
    return f"below {lower:+.0%}" + ("" if upper is None else f" or above {upper:+.0%}")


def steadiness_table(rows: Sequence[EvalRow]) -> Table:
    """Temporal flickering by its formula, on all clips."""
    listed = tuple((row.system, with_interval(row.value, row.ci95, 4), str(row.n)) for row in rows)
    caption = (
        "The formula of VBench's temporal flickering on clips that move too. It is no VBench figure: it rises as clips move "
        "less. 95% bootstrap interval over prompts."
    )
    return Table(("flickering by formula", "unfiltered mean", "prompts"), listed, caption)


def metric_words(suite: str, metric: str) -> str:
    """A metric for the reader, without the suite that it stands under."""
    return metric.removeprefix(f"{suite}/").replace("_", " ").replace("/", ": ")


def rows_table(rows: Sequence[EvalRow]) -> Table:
    """Any other figures: one row a metric, one column a system."""
    systems = tuple(dict.fromkeys(row.system for row in rows))
    cell = {(row.metric, row.system): row for row in rows}
    names = {row.metric: metric_words(row.suite, row.metric) for row in rows}
    listed = tuple(
        (name, *(with_interval(cell[m, s].value, cell[m, s].ci95) if (m, s) in cell else "" for s in systems))
        for m, name in names.items()
    )
    return Table(("metric", *systems), listed, "95% interval in brackets.")
