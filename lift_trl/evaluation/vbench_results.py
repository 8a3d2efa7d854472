"""Reads what VBench wrote: `*_eval_results.json` of VBench and VBench-Long, from one GPU or many, as per-video values."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .vbench_eval import DIMENSIONS, Protocol


logger = logging.getLogger(__name__)

SUFFIX = "_eval_results.json"
#: Beyond this, the score that VBench wrote is not the mean of its own per-video values.
TOLERANCE = 1e-3
_SAMPLE = re.compile(r"(.*)-(\d+)")


class VideoValue(NamedTuple):
    """One clip's value, in [0, 1] as the dimension's score is; prompt and sample number come from the file name."""

    prompt_en: str
    sample: int
    value: float


@dataclass(frozen=True)
class DimensionResult:
    """
    One dimension of one system.

    Attributes:
        reported: the score that VBench wrote.
        videos: per-video values; `value` is their mean.
        source: the file.
    """

    dimension: str
    protocol: Protocol
    reported: float
    videos: tuple[VideoValue, ...]
    source: str

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


def read_results(
    paths: Path | str | Sequence[Path | str], *, protocol: Protocol = "vbench"
) -> dict[str, DimensionResult]:
    """
    The dimensions in the result files at `paths`, in official order.

    Args:
        protocol: what was run; VBench's files do not say it, and figures of two protocols must not be mixed.

    Raises:
        ValueError: if a file is of another form, or a dimension stands in two files with different values.
    """
    results: dict[str, DimensionResult] = {}
    for path in find_results(paths):
        for result in _read_file(path, protocol):
            other = results.get(result.dimension)
            if other is not None and other.videos != result.videos:
                raise ValueError(f"{result.dimension} stands in {other.source} and in {path}; give only one of them.")
            results[result.dimension] = result
    return {name: results[name] for name in DIMENSIONS if name in results}


def _read_file(path: Path, protocol: Protocol) -> Iterable[DimensionResult]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a list; that is VBench's *_full_info.json, not its *{SUFFIX}.")
    for name, entry in content.items():
        if name not in DIMENSIONS:
            raise ValueError(f"{path}: {name!r} is no dimension of VBench; known are {', '.join(DIMENSIONS)}.")
        if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[0], int | float):
            raise ValueError(f"{path}: {name} is not [score, [per-video values], ...] as VBench writes it.")
        # VBench-Long: the clips' values second, the whole videos' third, but for the two fused dimensions.
        rows = entry[2] if len(entry) > 2 else entry[1]
        videos = tuple(_video(path, name, row) for row in rows if "video_path" in row)
        result = DimensionResult(name, protocol, float(entry[0]), videos, str(path))
        if videos and abs(result.value - result.reported) > TOLERANCE:
            logger.warning(
                "%s: %s is %.4f, the mean of its per-video values %.4f; the latter is used.",
                path, name, result.reported, result.value,
            )  # fmt: skip
        yield result


def _video(path: Path, dimension: str, row: Mapping[str, Any]) -> VideoValue:
    value = row["video_results"]
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {dimension} of {row['video_path']} is {value!r}, no number.")
    # On Windows VBench writes backslashes.
    stem = row["video_path"].replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    match = _SAMPLE.fullmatch(stem)
    prompt, index = (match[1], int(match[2])) if match else (stem, 0)
    return VideoValue(prompt, index, float(value) * DIMENSIONS[dimension].video_scale)
