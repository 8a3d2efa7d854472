"""A critic on public preference benchmarks in their published form: pairwise accuracy with and without ties.

Sources: KwaiVGI/VideoGen-RewardBench (videogen-rewardbench.csv) with VideoAlign's calc_accuracy.py;
TIGER-Lab/GenAI-Bench (video_generation).
"""

import json
import logging
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..records import EvalRow, content_id
from ..rubric import LIFT, Dimension, Rubric
from ..statistics.intervals import Estimate, wilson
from ..store.clip_rows import video_digest
from ..store.manifest import METADATA_FILE, read_rows, write_rows
from ..store.tables import table_rows, text_lines


logger = logging.getLogger(__name__)

OVERALL = "Overall"
#: The benchmark's columns and the dimension that asks the same: visual quality, motion quality, text alignment.
ASPECTS: Mapping[str, Dimension | None] = MappingProxyType(
    {
        "VQ": Dimension.VIDEO_FIDELITY,
        "MQ": Dimension.MOTION_SMOOTHNESS,
        "TA": Dimension.SEMANTIC_CONSISTENCY,
        OVERALL: None,
    }
)
#: Which value of a judge of its own terms answers an aspect: VideoReward's, UnifiedReward's, VideoScore2's.
_NATIVE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "VQ": ("VQ", "style", "visual_quality"),
        "MQ": ("MQ", "physics", "physical_sense"),
        "TA": ("TA", "alignment"),
    }
)
_REWARDBENCH = {"A": 1, "B": -1, "same": 0}
#: "Both bad" is a tie: a scalar reward tells no better from worse there.
_GENAI = {"leftvote": 1, "rightvote": -1, "tievote": 0, "bothbad_vote": 0}


@dataclass(frozen=True)
class PreferencePair:
    """Two videos of one prompt and what people preferred: aspect -> +1 for `video_a`, -1 for `video_b`, 0 for neither."""

    id: str
    prompt: str
    video_a: str
    video_b: str
    preferences: Mapping[str, int]


class PairwiseAccuracy(NamedTuple):
    """
    Accuracy of a reward on one aspect.

    Attributes:
        without_ties: share of the pairs with a preferred video where the reward prefers the same; equal rewards are wrong.
        with_ties: three-class accuracy at the best tie threshold, which is chosen on these very pairs.
        num_pairs, num_decided: all pairs, and those in which people preferred a video.
    """

    aspect: str
    without_ties: Estimate | None
    with_ties: Estimate
    num_pairs: int
    num_decided: int


def load_videogen_rewardbench(path: Path | str) -> list[PreferencePair]:
    """
    The pairs of `videogen-rewardbench.csv`; video paths are relative to the CSV's folder.

    Raises:
        ValueError: naming row and column, if one is missing or holds another value than A, B or same.
    """
    file = Path(path)
    pairs = []
    for number, row in enumerate(table_rows(file), start=2):
        where = f"{file}, line {number}"
        if isinstance(row, str):
            raise ValueError(f"{where}: {row}")
        # The evaluation script calls the last column ALL, the dataset card Overall.
        row = {OVERALL: row.get("ALL"), **row}
        missing = [name for name in ("path_A", "path_B", "prompt") if row.get(name) is None]
        if missing:
            raise ValueError(f"{where}: no {', '.join(missing)}; fill the cells, or delete the row.")
        preferences = {}
        for aspect in ASPECTS:
            if row.get(aspect) not in _REWARDBENCH:
                raise ValueError(f"{where}: {aspect}={row.get(aspect)!r}; use A, B or same.")
            preferences[aspect] = _REWARDBENCH[row[aspect]]
        videos = [str(file.parent / row[column]) for column in ("path_A", "path_B")]
        pairs.append(PreferencePair(f"{file.name}:{number}", row["prompt"], videos[0], videos[1], preferences))
    return pairs


def load_genai_bench(path: Path | str) -> list[PreferencePair]:
    """
    The video pairs of GenAI-Bench as JSON (a list) or JSON lines: `prompt, left_video, right_video, vote_type`.

    Video paths are relative to the file's folder.

    Raises:
        ValueError: naming the row, if a field is missing or `vote_type` is unknown.
    """
    file = Path(path)
    text = "".join(text_lines(file))
    rows = json.loads(text) if text.lstrip().startswith("[") else list(read_rows(file))
    pairs = []
    for number, row in enumerate(rows, start=1):
        missing = {"prompt", "left_video", "right_video", "vote_type"} - set(row)
        if missing or row["vote_type"] not in _GENAI:
            raise ValueError(f"{file}, row {number}: missing {sorted(missing)} or vote_type not in {sorted(_GENAI)}.")
        left, right = (str(file.parent / row[column]) for column in ("left_video", "right_video"))
        preferences = {OVERALL: _GENAI[row["vote_type"]]}
        pairs.append(PreferencePair(f"{file.name}:{number}", row["prompt"], left, right, preferences))
    return pairs


def write_pair_videos(pairs: Sequence[PreferencePair], folder: Path | str) -> Path:
    """
    Lists each distinct (video, prompt) of `pairs` in `folder/metadata.jsonl`, for recipes/score.py and its like: a video
    that stands in many pairs is scored once, also when the benchmark is moved. Returns `folder`.
    """
    file = Path(folder) / METADATA_FILE
    listed = {row["id"] for row in read_rows(file)} if file.is_file() else set()
    wanted = dict.fromkeys((video, pair.prompt) for pair in pairs for video in (pair.video_a, pair.video_b))
    units = {_unit(video, prompt, listed): (prompt, str(Path(video).absolute())) for video, prompt in wanted}
    write_rows(file, [{"id": unit, "prompt": prompt, "video": video} for unit, (prompt, video) in units.items()])
    return Path(folder)


def _unit(video: str, prompt: str, known: Container[str]) -> str:
    """The id of a video of a prompt: by its content; by its path where `known`, which an earlier lift_trl made, has that."""
    by_path = content_id(video, prompt)
    if by_path in known:
        return by_path
    return content_id(video_digest(Path(video)) if Path(video).is_file() else f"no file {video}", prompt)


def pair_rewards(rows: Iterable[Mapping[str, Any]], rubric: Rubric = LIFT) -> dict[str, dict[str, float]]:
    """
    The expected reward that answers each aspect by id, of rows scored by `rubric`. Unscored videos are left out, and aspects
    for which a rubric of one's own has no dimension.

    Of a judge in its own terms, its native value, and overall their sum, as VideoAlign's own evaluation has it.
    """
    asked = [aspect for aspect, dimension in ASPECTS.items() if dimension in (None, *rubric.dimensions)]
    scored = [row for row in rows if row.get("unscored") is None]
    return {row["id"]: {aspect: _expected(row, aspect, rubric) for aspect in asked} for row in scored}


def _expected(row: Mapping[str, Any], aspect: str, rubric: Rubric) -> float:
    dimension, native = ASPECTS[aspect], row.get("aspects")
    if native and row.get(LIFT.dimensions[0]) is None:
        return float(
            sum(native.values()) if dimension is None else next(native[n] for n in _NATIVE[aspect] if n in native)
        )
    if dimension is None:
        return float(row["expected_reward"])
    probs = (row.get("probs") or {}).get(dimension)
    if probs is None:
        return rubric.rewards[rubric.parse_label(row[dimension])]
    return sum(p * rubric.rewards[label] for label, p in probs.items())


def evaluate_pairs(
    pairs: Sequence[PreferencePair], rewards: Mapping[str, Mapping[str, float]]
) -> list[PairwiseAccuracy]:
    """
    Accuracy on each aspect that the benchmark asks for; pairs with an unscored video are left out.

    Args:
        rewards: of `pair_rewards`.

    Raises:
        ValueError: if no pair has both videos scored.
    """
    units = [tuple(_unit(video, pair.prompt, rewards) for video in (pair.video_a, pair.video_b)) for pair in pairs]
    scored = [(pair, unit) for pair, unit in zip(pairs, units) if all(video in rewards for video in unit)]
    if not scored:
        raise ValueError(
            f"none of {len(pairs)} pairs has both videos scored; are the benchmark's videos where its file names them? The "
            f"first is {pairs[0].video_a if pairs else 'missing: there is no pair'}."
        )
    if len(scored) < len(pairs):
        logger.warning("%d of %d pairs are left out: a video is unscored", len(pairs) - len(scored), len(pairs))
    accuracies = []
    for aspect in rewards[scored[0][1][0]]:
        asked = [(pair.preferences[aspect], unit) for pair, unit in scored if aspect in pair.preferences]
        if asked:
            gaps = [rewards[a][aspect] - rewards[b][aspect] for _, (a, b) in asked]
            accuracies.append(pairwise_accuracy([human for human, _ in asked], gaps, aspect=aspect))
    return accuracies


def pairwise_accuracy(human: Sequence[int], difference: Sequence[float], *, aspect: str = OVERALL) -> PairwiseAccuracy:
    """
    Accuracy of reward differences (a - b) against `human` preferences (+1, -1, 0).

    >>> pairwise_accuracy([1, -1, 0, 1], [0.5, 0.4, 0.1, 0.2]).without_ties.value
    0.6666666666666666

    Raises:
        ValueError: if there is no pair.

    Source: VideoAlign, calc_accuracy.py; tie calibration of Deutsch et al., arXiv 2305.14324, algorithm 1.
    """
    if not len(human):
        raise ValueError("no pair to compare; check that the benchmark's videos were scored.")
    labels, gaps = np.asarray(human), np.asarray(difference, dtype=float)
    decided = labels != 0
    agrees = labels * gaps > 0
    without = wilson(int(agrees[decided].sum()), int(decided.sum())) if decided.any() else None
    # The k pairs with the smallest gaps are called ties, for every k that does not part equal gaps; none, too.
    order = np.argsort(np.abs(gaps), kind="stable")
    ties, wins = (labels[order] == 0).cumsum(), agrees[order].cumsum()
    ends = np.append(np.diff(np.abs(gaps)[order]) > 0, True)
    correct = ties[ends] + agrees.sum() - wins[ends]
    best = max(int(correct.max()), int(agrees.sum()))
    return PairwiseAccuracy(aspect, without, wilson(best, len(labels)), len(labels), int(decided.sum()))


#: Name of a benchmark -> what reads its published file.
BENCHMARKS: Mapping[str, Callable[[Path | str], list[PreferencePair]]] = MappingProxyType(
    {"videogen-rewardbench": load_videogen_rewardbench, "genai-bench": load_genai_bench}
)


def benchmark_rows(accuracies: Sequence[PairwiseAccuracy], *, benchmark: str, system: str) -> list[EvalRow]:
    """The accuracies as rows `{benchmark}/{aspect}_with_ties` and `..._without_ties`."""
    rows = []
    for accuracy in accuracies:
        for kind, estimate in (("with_ties", accuracy.with_ties), ("without_ties", accuracy.without_ties)):
            if estimate is not None:
                metric = f"{benchmark}/{accuracy.aspect}_{kind}"
                rows.append(EvalRow(benchmark, metric, system, estimate.value, estimate.n, estimate.ci95))
    return rows


def benchmark_report(rows: Sequence[EvalRow]) -> str:
    """The rows of `benchmark_rows` as a Markdown table."""
    lines = ["| preference benchmark | accuracy | 95% interval | pairs |", "|---|---|---|---|"]
    for row in rows:
        low, high = row.ci95 or (math.nan, math.nan)
        lines.append(f"| {row.metric.replace('_', ' ')} | {row.value:.3f} | {low:.3f} to {high:.3f} | {row.n} |")
    return "\n".join(lines) + "\n"
