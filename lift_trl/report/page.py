"""One report of an evaluation: `report.json` (all data), `report.md`, and one self-contained `report.html`."""

import base64
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..statistics.drift import MEASURES
from ..statistics.drift import SUITE as DRIFT_SUITE
from ..statistics.intervals import Estimate
from ..store.manifest import Artifact, write_text
from ..vbench.score import PairedDelta
from ..vbench.suite import DIMENSIONS, PROTOCOLS
from . import data, figures, tables
from .data import CRITIC_SUITE, REWARD_SUITE, VIDEOSCORE_SUITE, Report, default_summary
from .model_index import write_model_index
from .tables import TEMPLATES, Table


logger = logging.getLogger(__name__)

#: A page much larger than this opens slowly on a phone.
LARGE_PAGE_MB = 40


class Graphic(NamedTuple):
    """A figure as SVG text, and the words that stand for it where it cannot be seen."""

    svg: str
    alt: str


class Section(NamedTuple):
    """One part of the report; HTML and Markdown show the same."""

    id: str
    title: str
    text: str
    graphics: tuple[Graphic, ...] = ()
    tables: tuple[Table, ...] = ()
    clips: tuple[data.ClipRow, ...] = ()


def sections(report: Report) -> list[Section]:
    """The parts that `report` has data for, in reading order."""
    makers = (_labels, _rewards, _paired, _wins, _clips, _vbench, _videoscore, _drift, _critics, _others, _curves)
    return [section for make in makers for section in make(report)]


def _labels(report: Report) -> Iterator[Section]:
    if report.label_rates:
        graphic = Graphic(figures.label_bars(report.label_rates), "Stacked bars of the label shares; figures below.")
        text = "What the critic says of each system's clips, by dimension."
        yield Section("labels", "Labels before and after", text, (graphic,), (tables.label_table(report.label_rates),))


def _rewards(report: Report) -> Iterator[Section]:
    deltas = [delta for delta in report.deltas if delta.suite not in (*PROTOCOLS, VIDEOSCORE_SUITE)]
    if not report.rewards and not deltas:
        return
    graphics = []
    if report.rewards:
        graphics.append(Graphic(figures.reward_histogram(report.rewards), "Histogram of rewards by system."))
    if deltas:
        graphics.append(_delta_forest(deltas, unit="paired difference"))
    means = [row for row in report.rows if row.suite == REWARD_SUITE]
    found = ([tables.rows_table(means)] if means else []) + ([tables.delta_table(deltas)] if deltas else [])
    text = "Reward of each clip, and paired differences."
    yield Section("rewards", "Rewards", text, tuple(graphics), tuple(found))


def _paired(report: Report) -> Iterator[Section]:
    if not report.paired:
        return
    graphics = []
    for judge in dict.fromkeys(p.judge for p in report.paired):
        mine = [p for p in report.paired if p.judge == judge]
        names = [p.measure.replace("_", " ") for p in mine]
        estimates = [Estimate(p.value, p.ci95, p.n) for p in mine]
        graphics.append(_forest(names, [f"{p.a} - {p.b}" for p in mine], estimates, unit=judge))
    text = "Each system against the base and against the others on the same prompts and seeds, by judge."
    yield Section("paired", "Pairs, by judge", text, tuple(graphics), (tables.paired_table(report.paired),))


def _forest(names: list[str], pairs: list[str], estimates: list[Estimate], *, unit: str) -> Graphic:
    """Differences of `pairs` of systems; the pair is named once where there is only one."""
    unit = f"{unit}, 95% interval"
    if len(set(pairs)) == 1:
        unit = f"{pairs[0]}: {unit}"
    else:
        names = [f"{name}\n{pair}" for name, pair in zip(names, pairs)]
    return Graphic(figures.forest(names, estimates, unit=unit), f"Paired differences, {unit}; figures below.")


def _delta_forest(deltas: list[PairedDelta], *, unit: str) -> Graphic:
    names = [tables.metric_words(delta.suite, delta.metric) for delta in deltas]
    pairs = [f"{delta.system} - {delta.base}" for delta in deltas]
    return _forest(names, pairs, [delta.estimate for delta in deltas], unit=unit)


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
    found += [tables.agreement_table(report.agreements)] if report.agreements else []
    text = "Which clip of a pair is preferred, by judge."
    yield Section("wins", "Win rates", text, tuple(graphics), tuple(found))


def _clips(report: Report) -> Iterator[Section]:
    if report.clips:
        yield Section("clips", "Side by side", "Clips of the same prompt.", clips=report.clips)


def _vbench(report: Report) -> Iterator[Section]:
    for suite in PROTOCOLS:
        rows = [row for row in report.rows if row.suite == suite]
        if not rows:
            continue
        values = {(row.system, row.metric.removeprefix(f"{suite}/")): row.value for row in rows}
        systems = dict.fromkeys(row.system for row in rows)
        names = [name for name in DIMENSIONS if all((system, name) in values for system in systems)]
        graphics = []
        if len(names) >= 3:
            spokes = {s: [DIMENSIONS[n].normalise(values[s, n]) for n in names] for s in systems}
            graphics.append(Graphic(figures.radar(names, spokes), "Radar of normalised dimensions; figures below."))
        deltas = [delta for delta in report.deltas if delta.suite == suite]
        found = [tables.vbench_table(rows, suite)]
        if deltas:
            graphics.append(_delta_forest(deltas, unit="raw values"))
            found.append(tables.delta_table(deltas))
        found += _stamps(report, suite)
        text = f"{len(names)} of {len(DIMENSIONS)} dimensions, protocol {suite}."
        yield Section(suite, f"VBench ({suite})", text, tuple(graphics), tuple(found))


def _videoscore(report: Report) -> Iterator[Section]:
    rows = [row for row in report.rows if row.suite == VIDEOSCORE_SUITE]
    if not rows:
        return
    found, graphics = [tables.videoscore_table(rows)], []
    deltas = [delta for delta in report.deltas if delta.suite == VIDEOSCORE_SUITE]
    if deltas:
        graphics.append(_delta_forest(deltas, unit="difference on the scale 1 to 4"))
        found.append(tables.delta_table(deltas))
    found += _stamps(report, VIDEOSCORE_SUITE)
    text = (
        "A judge that took no part in the tuning: a reward that rises while these scores fall is not a better video."
    )
    yield Section("videoscore", "Second judge: VideoScore", text, tuple(graphics), tuple(found))


def _stamps(report: Report, suite: str) -> list[Table]:
    stamps = report.suite_stamps.get(suite)
    return [tables.stamp_table(stamps)] if stamps else []


def _drift(report: Report) -> Iterator[Section]:
    if not report.drift:
        return
    names = [MEASURES[a.measure].title for a in report.drift]
    if len({a.system for a in report.drift}) > 1:
        names = [f"{name}, {a.system}" for name, a in zip(names, report.drift)]
    estimates = [a.change for a in report.drift]
    svg = figures.forest(names, estimates, unit=f"change against {report.drift[0].base}", percent=True)
    text = "Has tuning made the clips still, soft, pale or all alike? Not VBench."
    graphic = Graphic(svg, "Relative changes with intervals; figures below.")
    steadiness = [row for row in report.rows if row.metric == f"{DRIFT_SUITE}/steadiness"]
    found = (tables.drift_table(report.drift), *((tables.steadiness_table(steadiness),) if steadiness else ()))
    yield Section("drift", "Drift alarms", text, (graphic,), found)


def _critics(report: Report) -> Iterator[Section]:
    rows = [row for row in report.rows if row.suite == CRITIC_SUITE]
    if rows or report.calibration:
        chart = Graphic(figures.calibration(report.calibration), "Accuracy against confidence.")
        graphics = (chart,) if report.calibration else ()
        text = "How far the critic agrees with held-out human ratings, and whether it knows when it is right."
        if not rows:
            text = "Whether the critic knows when it is right, with another judge's labels as the truth."
        order = tables.critic_order_table(rows)
        found = [tables.critic_table(rows), *([order] if order else [])] if rows else []
        found += [tables.reliability_table(report.calibration)] if report.calibration else []
        yield Section("critic", "The critic", text, graphics, tuple(found))


def _others(report: Report) -> Iterator[Section]:
    shown = {*PROTOCOLS, VIDEOSCORE_SUITE, CRITIC_SUITE, REWARD_SUITE, *([DRIFT_SUITE] if report.drift else [])}
    rows = [row for row in report.rows if row.suite not in shown]
    for suite in dict.fromkeys(row.suite for row in rows):
        mine = [row for row in rows if row.suite == suite]
        yield Section(f"suite-{_slug(suite)}", f"Figures: {suite}", "", tables=(tables.rows_table(mine),))


def _slug(text: str) -> str:
    """`text` for an id of HTML, which holds no space."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _curves(report: Report) -> Iterator[Section]:
    groups = dict.fromkeys(curve.group for curve in report.curves)
    graphics = tuple(
        Graphic(figures.curves([c for c in report.curves if c.group == group]), f"Training curve: {group}.")
        for group in groups
    )
    if graphics:
        yield Section("curves", "Training curves", "", graphics)


def save_report(report: Report, folder: Path | str) -> Path:
    """
    Writes `report.json`, `report.md`, `report.html`, `model-index.yaml` and `artifact.yaml` into `folder`, and the figures
    into the cards of `report.cards`; returns the HTML's path.

    The HTML holds everything, figures and clips included, and needs no network.

    Raises:
        FileNotFoundError: if a clip or a card does not exist.
    """
    root = Path(folder)
    full = report if report.summary else replace(report, summary=default_summary(report))
    parts = sections(full)
    write_text(root / "report.json", json.dumps(to_json(full), indent=1, ensure_ascii=False, allow_nan=False))
    write_text(root / "report.md", to_markdown(full, parts))
    page = to_html(full, parts)
    if len(page) > LARGE_PAGE_MB * 2**20:
        logger.warning("report.html has %.0f MB; show fewer clips to keep it quick to open.", len(page) / 2**20)
    write_text(root / "report.html", page)
    write_model_index(full, root)
    config = {"title": full.title, "stamps": dict(full.stamps)}
    Artifact("report", config, parents=dict(full.parents)).save(root)
    return root / "report.html"


def to_json(report: Report) -> dict[str, Any]:
    """All data of `report`; clips by path, NaN as null."""
    return {"schema": 1, **_clean(asdict(report))}


_RECORDS = (
    Estimate,
    *(data.LabelRate, data.CalibrationBin, data.Paired, data.JudgeAgreement, data.Strength, data.Curve, data.ClipRow),
)


def _clean(value: Any) -> Any:
    """`value` for JSON: enums and paths as text, named tuples (which `asdict` keeps) as objects, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _clean(entry) for key, entry in value.items()}
    if isinstance(value, _RECORDS):
        return _clean(value._asdict())
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    if isinstance(value, Path):
        return value.name
    return None if isinstance(value, float) and math.isnan(value) else value


def to_markdown(report: Report, parts: list[Section]) -> str:
    """The report without figures and clips, for a model card or a terminal."""
    lines = [f"# {report.title}", "", *(f"* {sentence}" for sentence in report.summary), ""]
    for part in parts:
        lines += [f"## {part.title}", "", *([part.text, ""] if part.text else [])]
        for table in part.tables:
            lines += [_markdown_row(table.columns), _markdown_row(["---"] * len(table.columns))]
            lines += [*map(_markdown_row, table.rows), "", *([table.caption, ""] if table.caption else [])]
        for row in part.clips:
            files = ", ".join(f"{system}: {path.name}" for system, path in row.clips.items())
            lines += [f"* {row.prompt} ({files})"]
        lines += [""] if part.clips else []
    lines += [f"## How it was made\n\n{_markdown_list(report.stamps)}" if report.stamps else ""]
    return "\n".join([*lines, *(f"* {note}" for note in report.notes)]).rstrip() + "\n"


def _markdown_row(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _markdown_list(stamps: Mapping[str, str]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in stamps.items())


def to_html(report: Report, parts: list[Section]) -> str:
    """The whole report as one page."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["data_uri"] = lambda path: _data_uri(Path(path).read_bytes(), "video/mp4")
    environment.filters["svg_uri"] = lambda svg: _data_uri(svg.encode(), "image/svg+xml")
    return environment.get_template("report.html.j2").render(report=report, parts=parts)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
