"""A report's figures for model cards: `model-index.yaml` beside the report, and the front matter of a LoRA's own card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from ..hub.gallery import Pair, save_gallery
from ..hub.model_index import model_index
from ..records import EvalRow
from ..store.manifest import write_text
from ..vbench.suite import PROTOCOLS
from .data import REWARD_SUITE, VIDEOSCORE_SUITE, Report
from .verdict import AS_HEAD


MODEL_INDEX_FILE = "model-index.yaml"
#: What says something of a video model; drift and the critic's own figures do not.
SUITES = (*PROTOCOLS, VIDEOSCORE_SUITE, REWARD_SUITE)


def _pairs(report: Report, system: str) -> list[Pair]:
    """The clips of `system` beside the base's, as the report shows them: the worst ones too."""
    rows = [*report.verdict_clips.get(system, ()), *report.clips]
    found = {
        row.clips[system]: Pair(row.prompt, row.clips[report.base], row.clips[system])
        for row in rows
        if system in row.clips and report.base in row.clips
    }
    return list(found.values())


def _figures(report: Report) -> list[EvalRow]:
    """What says something of a video model, by the judge that decides too, which is named as what it is."""
    judge = f"{report.judge}, {AS_HEAD[report.role(report.judge)]}"
    rewards = [row for row in report.rows if report.judge and row.metric == f"{report.judge}/mean_reward"]
    preferences = [
        EvalRow(judge, f"{p.judge}/net preference over {p.b}", p.a, p.value, p.n, p.ci95)
        for p in report.paired
        if (p.judge, p.b, p.measure) == (report.judge, report.base, "preference")
    ]
    others = [row for row in report.rows if row.suite in SUITES and row not in rewards]
    return [*(replace(row, suite=judge) for row in rewards), *preferences, *others]


def write_model_index(report: Report, folder: Path) -> None:
    """
    Writes `model-index.yaml` (one entry a system) into `folder`; each system's entry, and its clips beside the base's, into
    its card (`report.cards`).

    Raises:
        FileNotFoundError: if a card is missing.
        ValueError: if a card is named for a system without figures.
    """
    rows = _figures(report)
    entries: dict[str, dict[str, Any]] = {}
    for system in dict.fromkeys(row.system for row in rows):
        (entries[system],) = model_index([row for row in rows if row.system == system], model_name=system)
    if entries:
        text = yaml.safe_dump({"model-index": [*entries.values()]}, sort_keys=False, allow_unicode=True)
        write_text(folder / MODEL_INDEX_FILE, text)
    for system, path in report.cards.items():
        if system not in entries:
            raise ValueError(
                f"cards: no figures of {system!r}; systems with figures are {', '.join(entries) or 'none'}."
            )
        card_file = path / "README.md" if path.is_dir() else path
        if not card_file.is_file():
            raise FileNotFoundError(f"{card_file}: no such card. Name the output_dir of recipes/align.py.")
        card = ModelCard.load(card_file)
        _, card.data.eval_results = model_index_to_eval_results([entries[system]])
        card.data.model_name = path.resolve().name
        if pairs := _pairs(report, system):
            save_gallery(card_file, card, pairs)
        else:
            card.save(card_file)
