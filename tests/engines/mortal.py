"""What Ray's workers load in the tests: a judge and a model source whose process dies once, in the middle of its work."""

import os
import signal
import time
from pathlib import Path

from lift_trl.alignment.score import CriticSource
from lift_trl.records import CriticScore, Judgement
from lift_trl.rubric import Dimension, Label
from lift_trl.video_models import PipelineSource


def die_once(marker: Path) -> None:
    """Ends this process as the kernel does where memory is short, unless one has died here before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class MortalJudge:
    """Good where the caption is long, beside what it is batched with; notes in `log` which process judged what."""

    name = "mortal"

    def __init__(self, log: Path, *, dies_at: str | None = None, seconds: float = 0.0) -> None:
        self.log, self.dies_at, self.seconds = log, dies_at, seconds

    def score(self, videos, captions, *, with_reason=False):
        scores = []
        for video, caption in zip(videos, captions, strict=True):
            time.sleep(self.seconds)
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()} {Path(video).name}\n")
            if Path(video).name == self.dies_at:
                die_once(self.log.with_suffix(".died"))
            label = Label.GOOD if len(caption) > 8 else Label.BAD
            company = " ".join(Path(other).stem for other in videos)
            scores.append(CriticScore("", self.name, tuple(Judgement(d, label, reason=company) for d in Dimension)))
        return scores

    def source(self) -> CriticSource:
        """It, to be made in each worker."""
        return CriticSource(self.name, lambda: self)


class MortalSource(PipelineSource):
    """A source that notes who loads its network, and whose first process dies of that."""

    def __init__(self, model: Path, log: Path) -> None:
        super().__init__(model)
        self.log = log

    def load(self, *components, **options):
        if "transformer" in components:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()}\n")
            die_once(self.log.with_suffix(".died"))
        return super().load(*components, **options)
