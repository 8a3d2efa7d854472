"""VBench's scores: normalised dimensions, quality, semantic and total, with intervals over prompts and paired deltas.

P prompts, R bootstrap resamples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..records import EvalRow
from ..statistics.intervals import Estimate, interval, resample_counts
from .results import DimensionResult, check_value
from .suite import DIMENSIONS, SUBSETS


#: Source: scripts/constant.py.
QUALITY_WEIGHT = 4
SEMANTIC_WEIGHT = 1
QUALITY, SEMANTIC, TOTAL = "quality_score", "semantic_score", "total_score"
#: What the name of a score ends in if it is of fewer prompts or samples than VBench's protocol has.
ESTIMATE = "_estimate"


class IncompleteResultsError(ValueError):
    """A score was asked for whose dimensions are not all there. It is refused: VBench's own script would count 0."""


class VBenchScores(NamedTuple):
    """The three aggregate scores."""

    quality: float
    semantic: float
    total: float


def group_score(raw: Mapping[str, float], group: str) -> float:
    """
    The quality or semantic score of `raw` dimension values: weighted mean of the normalised ones.

    Raises:
        IncompleteResultsError: naming the dimensions that are missing.
    """
    require(raw, SUBSETS[group], f"the {group} score")
    weights = {name: DIMENSIONS[name].weight for name in SUBSETS[group]}
    return math.fsum(w * DIMENSIONS[n].normalise(raw[n]) for n, w in weights.items()) / math.fsum(weights.values())


def require(raw: Mapping[str, float], names: Sequence[str], what: str) -> None:
    """
    Raises:
        IncompleteResultsError: if one of `names` is not in `raw` or is NaN.
        ValueError: if one is outside [0, 1].
    """
    missing = [name for name in names if name not in raw or math.isnan(raw[name])]
    if missing:
        raise IncompleteResultsError(
            f"{what} needs {len(names)} dimensions; missing: {', '.join(missing)}. Run them (`lift-trl eval check` says "
            "what they lack); no score is computed from a part."
        )
    for name in names:
        check_value(name, raw[name])


def aggregate(raw: Mapping[str, float]) -> VBenchScores:
    """
    Quality, semantic and total of all 16 `raw` dimension values (as VBench writes them, in [0, 1]).

    >>> [round(score, 10) for score in aggregate(dict.fromkeys(DIMENSIONS, 0.5))]
    [0.143360859, 0.8454518533, 0.2837790579]

    Raises:
        IncompleteResultsError: if one of the 16 is missing.
        ValueError: if one is outside [0, 1]: in per cent, for instance.

    Source: scripts/cal_final_score.py and scripts/constant.py of VBench.
    """
    require(raw, tuple(DIMENSIONS), "VBench's total")
    quality, semantic = group_score(raw, "quality"), group_score(raw, "semantic")
    total = (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    return VBenchScores(quality, semantic, total)


@dataclass(frozen=True)
class PairedDelta:
    """
    How `system` differs from `base` on one metric, over the prompts that both have.

    Attributes:
        estimate: the difference (raw scale), its paired interval, the number of prompts.
    """

    suite: str
    metric: str
    base: str
    system: str
    base_value: float
    value: float
    estimate: Estimate


class _Sums(NamedTuple):
    """Per-prompt sums and counts of one system: both [P, D], D dimensions in the order of `names`."""

    names: tuple[str, ...]
    sums: np.ndarray
    counts: np.ndarray


def _sums(results: Mapping[str, DimensionResult], names: tuple[str, ...], prompts: Sequence[str]) -> _Sums:
    place = {prompt: number for number, prompt in enumerate(prompts)}
    sums = np.zeros((len(prompts), len(names)))
    counts = np.zeros_like(sums)
    for column, name in enumerate(names):
        for video in results[name].videos:
            row = place.get(video.prompt_en)
            if row is not None:
                sums[row, column] += video.value
                counts[row, column] += 1
    return _Sums(names, sums, counts)


def _resample(prompts: Sequence[str], results: Mapping[str, DimensionResult], seed: int) -> np.ndarray:
    """Bootstrap counts [R, P]: prompts are redrawn among those of the same dimensions, as VBench's suite is stratified."""
    member: dict[str, list[str]] = {prompt: [] for prompt in prompts}
    for name, result in results.items():
        for prompt in {video.prompt_en for video in result.videos} & set(member):
            member[prompt].append(name)
    strata: dict[tuple[str, ...], int] = {}
    labels = [strata.setdefault(tuple(member[prompt]), len(strata)) for prompt in prompts]
    return resample_counts(labels, seed=seed)


def _resampled_means(sums: _Sums, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Each dimension's mean over videos in every resample: name -> [R]. NaN where a resample holds no video of it."""
    totals, sizes = draws @ sums.sums, draws @ sums.counts
    with np.errstate(invalid="ignore", divide="ignore"):
        means = totals / sizes
    return dict(zip(sums.names, means.T))


def _aggregates(results: Mapping[str, DimensionResult]) -> dict[str, str]:
    """
    The aggregate scores that `results` allow, by what they are to be called: those whose dimensions are all there and
    miss no clip, an estimate if a dimension is one.
    """
    names = {}
    for key, subset in ((QUALITY, "quality"), (SEMANTIC, "semantic"), (TOTAL, "all")):
        parts = [results[name] for name in SUBSETS[subset] if name in results and not results[name].missing]
        if len(parts) == len(SUBSETS[subset]):
            names[key] = key + ESTIMATE if any(part.estimate for part in parts) else key
    return names


def _with_totals(raw: Mapping[str, np.ndarray], aggregates: Mapping[str, str]) -> dict[str, np.ndarray]:
    """`raw` [R] by dimension, and the scores in `aggregates` under the names that they have there."""
    scores = {}
    for key, group in ((QUALITY, "quality"), (SEMANTIC, "semantic")):
        if key in aggregates:
            weights = np.array([DIMENSIONS[name].weight for name in SUBSETS[group]])
            normalised = np.stack([_normalise(name, raw[name]) for name in SUBSETS[group]])
            scores[key] = weights @ normalised / weights.sum()
    if TOTAL in aggregates:
        weighted = QUALITY_WEIGHT * scores[QUALITY] + SEMANTIC_WEIGHT * scores[SEMANTIC]
        scores[TOTAL] = weighted / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    return {**raw, **{aggregates[key]: values for key, values in scores.items()}}


def _normalise(name: str, values: np.ndarray) -> np.ndarray:
    dimension = DIMENSIONS[name]
    return (values - dimension.minimum) / (dimension.maximum - dimension.minimum)


def _prompts(results: Mapping[str, DimensionResult]) -> list[str]:
    return sorted({video.prompt_en for result in results.values() for video in result.videos})


def _estimates(results: Mapping[str, DimensionResult], seed: int) -> dict[str, Estimate]:
    names, prompts = tuple(results), _prompts(results)
    sums = _sums(results, names, prompts)
    totals = _aggregates(results)
    once = _with_totals(_resampled_means(sums, np.ones((1, len(prompts)))), totals)
    draws = _with_totals(_resampled_means(sums, _resample(prompts, results, seed)), totals)
    number = {name: int((sums.counts[:, column] > 0).sum()) for column, name in enumerate(names)}
    return {
        name: Estimate(
            float(once[name][0]),
            interval(draws[name]) if number.get(name, len(prompts)) > 1 else None,
            number.get(name, len(prompts)),
        )
        for name in once
    }


def vbench_rows(results: Mapping[str, DimensionResult], system: str, *, seed: int = 0) -> list[EvalRow]:
    """
    One row a dimension, and the aggregate scores that are complete, with intervals by bootstrap over prompts.

    A score of fewer prompts or samples than VBench's protocol has is called `..._estimate`; one whose dimensions miss
    planned clips is left out. `n` is the number of prompts; `suite` is the protocol, so that VBench and VBench-Long
    cannot be mixed up.

    Raises:
        ValueError: if `results` are of several protocols or hold no per-video values.
    """
    if not results:
        return []
    suite = protocol_of(results)
    return [
        EvalRow(suite, f"{suite}/{name}", system, estimate.value, estimate.n, estimate.ci95)
        for name, estimate in _estimates(results, seed).items()
    ]


def protocol_of(results: Mapping[str, DimensionResult]) -> str:
    """
    The one protocol of `results`.

    Raises:
        ValueError: if there are none or several, or a dimension has no per-video value.
    """
    protocols = {result.protocol for result in results.values()}
    if len(protocols) != 1:
        raise ValueError(f"results of protocols {sorted(protocols)}; compare and add up results of one protocol only.")
    empty = [name for name, result in results.items() if not result.videos]
    if empty:
        raise ValueError(f"no per-video values for {', '.join(empty)}; VBench found no clip of them. Run them again.")
    return protocols.pop()


def paired_deltas(
    base: Mapping[str, DimensionResult],
    other: Mapping[str, DimensionResult],
    *,
    base_name: str,
    system: str,
    seed: int = 0,
) -> list[PairedDelta]:
    """
    `other` minus `base` for each dimension that both have, and for each aggregate that is complete in both.

    Only prompts that both systems have for a dimension count; each resample redraws the same prompts for both.

    Raises:
        ValueError: if the protocols differ.
    """
    names = tuple(name for name in base if name in other)
    if not names:
        return []
    suite = protocol_of({f"{i}{k}": v for i, r in enumerate((base, other)) for k, v in r.items()})
    pair = tuple({name: _common(side[name], base[name], other[name]) for name in names} for side in (base, other))
    prompts = sorted(set(_prompts(pair[0])) | set(_prompts(pair[1])))
    draws = _resample(prompts, pair[0], seed)
    sums = [_sums(side, names, prompts) for side in pair]
    totals = _aggregates(pair[0])
    once = [_with_totals(_resampled_means(side, np.ones((1, len(prompts)))), totals) for side in sums]
    many = [_with_totals(_resampled_means(side, draws), totals) for side in sums]
    number = {name: int((sums[0].counts[:, column] > 0).sum()) for column, name in enumerate(names)}
    deltas = []
    for name in once[0]:
        values = [float(side[name][0]) for side in once]
        n = number.get(name, len(prompts))
        ci95 = interval(many[1][name] - many[0][name]) if n > 1 else None
        estimate = Estimate(values[1] - values[0], ci95, n)
        deltas.append(PairedDelta(suite, f"{suite}/{name}", base_name, system, values[0], values[1], estimate))
    return deltas


def _common(side: DimensionResult, base: DimensionResult, other: DimensionResult) -> DimensionResult:
    shared = {v.prompt_en for v in base.videos} & {v.prompt_en for v in other.videos}
    videos = tuple(v for v in side.videos if v.prompt_en in shared)
    if not videos:
        raise ValueError(f"{side.dimension}: {base.source} and {other.source} share no prompt; pair runs of one plan.")
    missing, estimate = base.missing or other.missing, base.estimate or other.estimate
    return replace(side, videos=videos, missing=missing, estimate=estimate)
