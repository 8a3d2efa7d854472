"""CPU milliseconds a row of what reads whole folders, with 100, 1,000 and 10,000 rows: they must not grow.

The clips are one file under many names, and the judge answers without looking: timed is the own bookkeeping. Prints
`growth_<what> RATIO`: CPU time a row with the most rows over that with 1,000 (of 100, what a command does once weighs most).
Ends with an error where one is above 3. `--tiny` is a check of this script, whose ratios say nothing.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.trainer_overhead import SIZE, write_cache
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.score import score_videos
from lift_trl.cli import main as command
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.records import CriticScore, Judgement, VideoSource
from lift_trl.report.commands import report
from lift_trl.report.inputs import ReportArguments
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import METADATA_FILE, write_rows
from lift_trl.store.video_io import write_video


ROWS = (100, 1_000, 10_000)
#: Of a ratio: ten times the rows may not take thirty times the time.
MOST = 3.0


class Answers:
    """A judge that likes every second clip."""

    name = "answers"

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """One score for each video."""
        labels = [list(Label)[2 * (index % 2)] for index, _ in enumerate(videos)]
        judged = [tuple(Judgement(dimension, label) for dimension in Dimension) for label in labels]
        return [CriticScore(str(index), self.name, found) for index, found in enumerate(judged)]


def write_clips(folder: Path, number: int) -> Path:
    """`number` names of one clip, four a prompt."""
    write_video(folder / "clip.mp4", np.zeros((9, 32, 32, 3), dtype=np.uint8), fps=8)
    for index in range(number):
        os.link(folder / "clip.mp4", folder / f"{index}.mp4")
    rows = ({"id": f"{i}", "file_name": f"{i}.mp4", "prompt": f"clip {i // 4}", "seed": i % 4} for i in range(number))
    write_rows(folder / METADATA_FILE, rows)
    return folder


def cpu_seconds(run: Callable[[], object]) -> float:
    """Of one call; what it prints is thrown away."""
    begun = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    return time.process_time() - begun


def measure(folder: Path, pipeline: Path, number: int) -> dict[str, float]:
    """CPU seconds by what was done."""
    clips = write_clips(folder / "clips", number)
    cache = write_cache(folder / "cache", pipeline, number)

    def score(name: str) -> Path:
        return score_videos(Answers(), clips, folder / name, batch_size=64)

    seconds = {"scoring": cpu_seconds(lambda: score("one")), "scoring_again": cpu_seconds(lambda: score("one"))}
    score("two")
    systems = [f"{name}={folder / name}" for name in ("one", "two")]
    page = ReportArguments(str(folder / "report"), systems=systems, drift=False)
    seconds["inspect"] = cpu_seconds(lambda: command(["inspect", str(folder / "one")]))
    seconds["cache_index"] = cpu_seconds(lambda: CachedVideoDataset(cache))
    seconds["report"] = cpu_seconds(lambda: report(page))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="20 and 100 rows.")
    is_tiny = parser.parse_args().tiny
    rows = (20, 100) if is_tiny else ROWS
    with tempfile.TemporaryDirectory() as text:
        build_tiny_pipeline(Path(text) / "pipeline", size=SIZE.height)
        measure(Path(text) / "warm", Path(text) / "pipeline", rows[0])  # imports
        found = [measure(Path(text) / str(number), Path(text) / "pipeline", number) for number in rows]
    print(f"| CPU ms a row | {' | '.join(f'{number:,} rows' for number in rows)} |\n|{'---|' * (len(rows) + 1)}")
    ratios = {}
    for name in found[0]:
        each = [1000 * seconds[name] / number for seconds, number in zip(found, rows)]
        print(f"| {name} | {' | '.join(f'{ms:.2f}' for ms in each)} |")
        ratios[name] = each[-1] / each[-2]
        print(f"growth_{name} {ratios[name]:.2f}")
    if grown := [name for name, ratio in ratios.items() if ratio > MOST and not is_tiny]:
        sys.exit(f"more than {MOST:g} times the CPU time a row: {', '.join(grown)}")


if __name__ == "__main__":
    main()
