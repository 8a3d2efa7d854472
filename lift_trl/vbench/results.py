"""Reads what VBench wrote: `*_eval_results.json` of VBench and VBench-Long, from one GPU or many, as per-video values."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..store.manifest import read_json
from .suite import DIMENSIONS, FLICKER_SAMPLES, FLICKERING, SAMPLES_READ, Protocol


logger = logging.getLogger(__name__)

SUFFIX = "_eval_results.json"
#: What vbench_run.py says of the results beside it: protocol, plan, stamps, what became of each dimension.
RUN_FILE = "run.json"
#: Beyond this, the score that VBench wrote is not the mean of its own per-video values.
TOLERANCE = 1e-3
#: Values of a dimension lie in [0, 1]; those of a clip too, but for the similarities of embeddings.
_COSINES = ("appearance_style", "temporal_style", "overall_consistency")
_ROUNDING = 1e-6
_RERUN = "Run VBench on it again."
_SAMPLE = re.compile(r"(.*)-(\d+)")
#: Where VBench's static filter, and that of VBench-Long, put the clips that passed.
_FILTERED = "filtered_videos"


class VideoValue(NamedTuple):
    """One clip's value, in [0, 1] as the dimension's score is; prompt and sample number come from the file name."""

    prompt_en: str
    sample: int
    value: float


class Planned(NamedTuple):
    """What was planned of one dimension: distinct prompts, samples of each, clips that VBench was to measure."""

    prompts: int
    samples: int
    clips: int


@dataclass(frozen=True)
class DimensionResult:
    """
    One dimension of one system.

    Attributes:
        reported: the score that VBench wrote.
        videos: per-video values; `value` is their mean.
        source: the file.
        missing: what was planned (without a plan: what VBench's protocol asks for) but not measured; empty if nothing.
        estimate: how the plan is less than VBench's protocol; empty if it is not.
    """

    dimension: str
    protocol: Protocol
    reported: float
    videos: tuple[VideoValue, ...]
    source: str
    missing: str = ""
    estimate: str = ""

    @property
    def value(self) -> float:
        """
        The mean of the per-video values, NaN if there is none.

        VBench itself averages over frames in some dimensions on one GPU and over videos on many, and its many-GPU score
        of appearance_style holds only the last frame of each video; this mean is the same in all cases.
        """
        return math.fsum(v.value for v in self.videos) / len(self.videos) if self.videos else math.nan


def find_results(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    """
    The result files among `paths`: files as they are, folders searched for `*_eval_results.json` (top level only).

    Raises:
        FileNotFoundError: if a folder holds none.
    """
    listed = [paths] if isinstance(paths, Path | str) else list(paths)
    found: list[Path] = []
    for path in map(Path, listed):
        files = [path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))
        if not files:
            raise FileNotFoundError(f"{path}: no *{SUFFIX}. Run VBench on it, or give the folder VBench wrote to.")
        found += files
    return found


def load_results(
    paths: Path | str | Sequence[Path | str], *, protocol: Protocol = "vbench"
) -> tuple[dict[str, DimensionResult], list[str]]:
    """
    The dimensions in the result files at `paths`, in official order, and a note on each dimension that is left out,
    incomplete, or smaller than the protocol.

    Args:
        protocol: what was run; VBench's files do not say it, and figures of two protocols must not be mixed.

    Raises:
        ValueError: if a file is of another form, a dimension stands in two files with different values, or the
            `run.json` beside a file is of another protocol.
    """
    results: dict[str, DimensionResult] = {}
    notes: list[str] = []
    for path in find_results(paths):
        planned = _planned(path.parent / RUN_FILE, protocol)
        for name, entry in _entries(path):
            try:
                result = _read_entry(path, name, entry, protocol, planned.get(name))
            except UnusableResultError as error:
                notes.append(f"{path}: {name} is left out: {error}. Run it again.")
                continue
            other = results.get(name)
            if other is not None and other.videos != result.videos:
                raise ValueError(f"{name} stands in {other.source} and in {path}; give only one of them.")
            results[name] = result
            if result.missing:
                notes.append(f"{path}: {name} has only {result.missing}; no total is made of it.")
            elif result.estimate:
                notes.append(f"{path}: {name} is an estimate of VBench's figure: {result.estimate}.")
    return {name: results[name] for name in DIMENSIONS if name in results}, notes


class UnusableResultError(ValueError):
    """A dimension's file holds no figure."""


def _planned(path: Path, protocol: Protocol) -> dict[str, Planned]:
    if not path.is_file():
        return {}
    run = read_json(path)
    if run["protocol"] != protocol:
        raise ValueError(
            f"{path.parent}: holds results of {run['protocol']}, not of {protocol}. Give protocol={run['protocol']}."
        )
    return {name: Planned(*numbers) for name, numbers in run.get("planned", {}).items()}


def _entries(path: Path) -> Iterable[tuple[str, list[Any]]]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a list; that is VBench's *_full_info.json, not its *{SUFFIX}.")
    for name, entry in content.items():
        if name not in DIMENSIONS:
            raise ValueError(f"{path}: {name!r} is no dimension of VBench; known are {', '.join(DIMENSIONS)}.")
        if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[0], int | float | None):
            raise ValueError(f"{path}: {name} is not [score, [per-video values], ...] as VBench writes it.")
        yield name, entry


def _read_entry(
    path: Path, name: str, entry: Sequence[Any], protocol: Protocol, planned: Planned | None
) -> DimensionResult:
    # VBench-Long: the clips' values second, the whole videos' third, but for the two fused dimensions.
    rows = [row for row in (entry[2] if len(entry) > 2 else entry[1]) if "video_path" in row]
    videos = tuple(_video(name, row) for row in rows)
    if not videos or entry[0] is None:
        raise UnusableResultError("VBench measured no clip")
    is_filtered = name == FLICKERING and all(_FILTERED in row["video_path"] for row in rows)
    missing = "" if protocol == "vbench-custom" and planned is None else _missing(name, videos, planned, is_filtered)
    estimate = "" if protocol == "vbench-custom" else _estimate(name, planned, is_filtered)
    result = DimensionResult(name, protocol, float(entry[0]), videos, str(path), missing, estimate)
    _check_range(path, result)
    if abs(result.value - result.reported) > TOLERANCE:
        logger.warning(
            "%s: %s is %.4f, the mean of its per-video values %.4f; the latter is used.",
            path, name, result.reported, result.value,
        )  # fmt: skip
    return result


def _check_range(path: Path, result: DimensionResult) -> None:
    """
    Refuses a dimension on another scale: VBench writes `imaging_quality` in [0, 1] and its clips' values from 0 to 100.
    """
    name, scale = result.dimension, DIMENSIONS[result.dimension].video_scale
    lowest = -1.0 if name in _COSINES else 0.0
    wrong = [v.value / scale for v in result.videos if not lowest - _ROUNDING <= v.value <= 1 + _ROUNDING]
    if wrong:
        raise ValueError(
            f"{path}: {name} of a clip is {wrong[0]:g}, outside [{lowest / scale:g}, {1 / scale:g}]. {_RERUN}"
        )
    check_value(name, result.reported, where=f"{path}: ")
    if scale != 1 and result.value > 0 and abs(result.value / scale - result.reported) <= TOLERANCE:
        raise ValueError(
            f"{path}: {name} of the clips is in [0, 1], not in [0, {1 / scale:g}] as VBench writes it. {_RERUN}"
        )


def check_value(name: str, value: float, *, where: str = "") -> None:
    """Raises `ValueError` if `value` is none of a dimension, which lie in [0, 1]."""
    if not -_ROUNDING <= value <= 1 + _ROUNDING:
        percent = f" Is it in per cent? Then write {value / 100:g}." if 1 < value <= 100 else ""
        raise ValueError(f"{where}{name} is {value:g}, outside [0, 1], where VBench's dimensions lie.{percent}")


def _missing(name: str, videos: Sequence[VideoValue], planned: Planned | None, is_filtered: bool) -> str:
    total = DIMENSIONS[name].num_prompts
    expected = planned or Planned(total, SAMPLES_READ, total * SAMPLES_READ)
    prompts = len({video.prompt_en for video in videos})
    # Color is without the clips in which its object was not found, filtered flickering without those that move: with a
    # plan nothing else can be missing, without one each prompt must have a clip at least.
    if (name == "color" or is_filtered) and (planned or prompts == expected.prompts):
        return ""
    if (prompts, len(videos)) == (expected.prompts, expected.clips):
        return ""
    return f"{len(videos)} of {expected.clips} clips, {prompts} of {expected.prompts} prompts"


def _estimate(name: str, planned: Planned | None, is_filtered: bool) -> str:
    reasons = []
    if planned is not None:
        samples = FLICKER_SAMPLES if name == FLICKERING else SAMPLES_READ
        if planned.prompts < DIMENSIONS[name].num_prompts:
            reasons.append(f"{planned.prompts} of {DIMENSIONS[name].num_prompts} prompts")
        if planned.samples < samples:
            reasons.append(f"{planned.samples} of {samples} samples a prompt")
    if name == FLICKERING and not is_filtered:
        reasons.append("measured on clips that move too")
    return ", ".join(reasons)


def _video(dimension: str, row: Mapping[str, Any]) -> VideoValue:
    value = row["video_results"]
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise UnusableResultError(f"the value of {row['video_path']} is {value!r}, no number")
    # On Windows VBench writes backslashes.
    stem = row["video_path"].replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    match = _SAMPLE.fullmatch(stem)
    prompt, index = (match[1], int(match[2])) if match else (stem, 0)
    return VideoValue(prompt, index, float(value) * DIMENSIONS[dimension].video_scale)
