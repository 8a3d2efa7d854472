"""A judge whose process dies once, in the middle of its work, for Ray's workers to load."""

import os
import signal
import time
from pathlib import Path

from lift_trl.alignment.score import CriticSource
from lift_trl.records import CriticScore, Judgement
from lift_trl.rubric import Dimension, Label


#: Ray neither reports to its makers nor writes into the user's home.
PRIVATE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class MortalJudge:
    """
    Good where the caption is long; the reason names the clips of the batch.

    Args:
        log: file that gets a line for each judgement: process and clip.
        dies_at: at this clip the first process that sees it dies as the kernel ends one where memory is short.
        refuses: this clip raises.
        seconds: time that a clip takes.
    """

    name = "mortal"

    def __init__(
        self, log: Path, *, dies_at: str | None = None, refuses: str | None = None, seconds: float = 0.0
    ) -> None:
        self.log, self.dies_at, self.refuses, self.seconds = log, dies_at, refuses, seconds

    def score(self, videos, captions, *, with_reason=False):
        scores = []
        for video, caption in zip(videos, captions, strict=True):
            time.sleep(self.seconds)
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()} {video.name}\n")
            if video.name == self.refuses:
                raise ValueError(f"{video.name} is refused")
            died = self.log.with_suffix(".died")
            if video.name == self.dies_at and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            label = Label.GOOD if len(caption) > 8 else Label.BAD
            company = " ".join(other.stem for other in videos)
            scores.append(CriticScore("", self.name, tuple(Judgement(d, label, reason=company) for d in Dimension)))
        return scores

    def source(self) -> CriticSource:
        """It, to be made in each worker."""
        return CriticSource(self.name, lambda: self)


class PatientJudge(MortalJudge):
    """Leaves work for those that come late: the more is judged, the more processes, of ten, must have come."""

    def score(self, videos, captions, *, with_reason=False):
        (self.log.parent / f"{self.log.name}.{os.getpid()}").touch()
        done = len(judged(self.log)) if self.log.is_file() else 0
        while len(list(self.log.parent.glob(f"{self.log.name}.*"))) < min(10, 1 + done // 6):
            time.sleep(0.1)
        return super().score(videos, captions, with_reason=with_reason)


def judged(log: Path) -> list[tuple[str, str]]:
    """(process, clip) of each judgement."""
    return [tuple(line.split()) for line in log.read_text().splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of everything but `artifact.yaml`, which names the command."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "artifact.yaml")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
