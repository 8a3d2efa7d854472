"""One report of an evaluation: `report.json` (all data), `report.md`, and one self-contained `report.html`."""

import base64
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..hub.playable import mp4_of
from ..statistics.intervals import Estimate
from ..store.manifest import Artifact, write_text
from . import data
from .data import Report
from .model_index import write_model_index
from .sections import Section, sections
from .tables import TEMPLATES
from .verdict import (
    AS_CLAUSE,
    AS_HEAD,
    AS_OWN_HEAD,
    SystemVerdict,
    default_summary,
    difference_in_words,
    drift_in_words,
    interval_in_words,
    limits_in_words,
    made_in_words,
    means_in_words,
    nearest_limit,
    p_in_words,
    sample_in_words,
    side_effects,
    system_verdicts,
    unit_in_words,
)


logger = logging.getLogger(__name__)

#: A page much larger than this opens slowly on a phone.
LARGE_PAGE_MB = 40


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
    Artifact("report", config, parents=dict(full.parents), rubric=full.rubric).save(root)
    return root / "report.html"


def to_json(report: Report) -> dict[str, Any]:
    """All data of `report`; clips by name, NaN and what is infinite as null, the rubric by its id."""
    return {"schema": 1, **_clean({**asdict(report), "rubric": report.rubric.id})}


_RECORDS = (
    *(
        Estimate,
        data.SystemFacts,
        data.LabelRate,
        data.Confusion,
        data.CalibrationBin,
        data.Paired,
        data.JudgeAgreement,
    ),
    *(data.Strength, data.Curve, data.ClipRow),
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
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(report: Report, parts: list[Section]) -> str:
    """The report without figures and clips, for a model card or a terminal."""
    lines = [f"# {report.title}", "", *(f"* {sentence}" for sentence in report.summary), ""]
    for part in parts:
        head = [f"<details><summary>{escape(part.title)}</summary>", ""] if part.folded else [f"## {part.title}", ""]
        lines += [*head, *([part.text, ""] if part.text else [])]
        for table in part.tables:
            lines += [_markdown_row(table.columns), _markdown_row(["---"] * len(table.columns))]
            lines += [*map(_markdown_row, table.rows), "", *([table.caption, ""] if table.caption else [])]
        for row in part.clips:
            files = ", ".join(f"{system}: {path.name}" for system, path in row.clips.items())
            lines += [f"* {row.prompt} ({files}){f': {row.why}' if row.why else ''}"]
        lines += [""] if part.clips else []
        lines += ["</details>", ""] if part.folded else []
    return "\n".join([*lines, *(f"* {note}" for note in report.notes)]).rstrip() + "\n"


def _markdown_row(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def to_html(report: Report, parts: list[Section]) -> str:
    """The whole report as one page. A clip that is shown twice is there once; it is loaded when it comes into view."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["svg_uri"] = lambda svg: _data_uri(svg.encode(), "image/svg+xml")
    environment.filters |= {"difference": difference_in_words, "drift": drift_in_words, "sample": sample_in_words}
    environment.filters |= {"means": means_in_words, "side_effects": side_effects, "interval": interval_in_words}
    environment.filters |= {"unit": unit_in_words, "nearest": nearest_limit, "p": p_in_words, "made": made_in_words}
    verdicts = system_verdicts(report)
    clips = list(dict.fromkeys(path for row in _clip_rows(verdicts, parts) for path in row.clips.values()))
    return environment.get_template("report.html.j2").render(
        report=report,
        parts=parts,
        verdicts=verdicts,
        marks=MARKS,
        limits=limits_in_words(),
        as_clause=AS_CLAUSE,
        as_head=AS_HEAD,
        as_own_head=AS_OWN_HEAD,
        place={path: number for number, path in enumerate(clips)},
        data=[_data_uri(mp4_of(path), "video/mp4") for path in clips],
    )


#: A mark beside each word, by its shape: no fact hangs on colour.
MARKS: Mapping[str, str] = {"better": "\u25b2", "worse": "\u25bc", "no clear difference": "\u25cb", "ok": "\u2713",
                            "watch": "\u25c6", "alarm": "\u25a0"}  # fmt: skip


def _clip_rows(verdicts: list[SystemVerdict], parts: list[Section]) -> Iterator[data.ClipRow]:
    for verdict in verdicts:
        yield from verdict.clips
    for part in parts:
        yield from part.clips


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
