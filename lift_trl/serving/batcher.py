"""Clips of many requests to one reward model, in batches, on one thread."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from ..protocols import RewardModel
from ..records import CriticScore, NativeScore


class BusyError(RuntimeError):
    """More clips wait than the server takes. Ask again later."""


class ScoringError(RuntimeError):
    """The model failed on the batch that a clip was in; other batches go on."""


class _Job(NamedTuple):
    clip: bytes
    prompt: str
    with_reason: bool
    score: "asyncio.Future[CriticScore | NativeScore]"


class Batcher:
    """
    Scores clips as they come: those that wait together run together.

    Args:
        batch_size: clips of a batch, of as many requests as there are.
        max_waiting: clips that may wait.
    """

    def __init__(self, reward_model: RewardModel, *, batch_size: int, max_waiting: int) -> None:
        self.reward_model, self.batch_size, self.max_waiting = reward_model, batch_size, max_waiting
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    async def score(
        self, clips: Sequence[bytes], prompts: Sequence[str], *, with_reason: bool
    ) -> list[CriticScore | NativeScore]:
        """
        One score for each clip.

        Raises:
            BusyError: if too many clips wait; none of these is scored then.
            ScoringError: if the model failed.
        """
        if self._queue.qsize() + len(clips) > self.max_waiting:
            raise BusyError(f"{self._queue.qsize()} clips wait and {self.max_waiting} may; ask again later.")
        loop = asyncio.get_running_loop()
        jobs = [
            _Job(clip, prompt, with_reason, loop.create_future()) for clip, prompt in zip(clips, prompts, strict=True)
        ]
        for job in jobs:
            self._queue.put_nowait(job)
        return list(await asyncio.gather(*(job.score for job in jobs)))

    async def run(self) -> None:
        """Scores what waits, until it is cancelled."""
        while True:
            jobs = [await self._queue.get()]
            while len(jobs) < self.batch_size and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
            for with_reason in (False, True):
                # Who has gone away has cancelled the future.
                await self._score(
                    [j for j in jobs if j.with_reason is with_reason and not j.score.done()], with_reason
                )

    async def _score(self, jobs: Sequence[_Job], with_reason: bool) -> None:
        if not jobs:
            return
        work = partial(
            self.reward_model.score, [j.clip for j in jobs], [j.prompt for j in jobs], with_reason=with_reason
        )
        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        await asyncio.wait([done])
        error = done.exception()
        scores = done.result() if error is None else ()
        if error is None and len(scores) != len(jobs):
            error = ValueError(f"{len(scores)} scores of {len(jobs)} clips")
        for index, job in enumerate(jobs):
            if job.score.done():
                continue
            if error is None:
                job.score.set_result(scores[index])
            else:
                job.score.set_exception(ScoringError(f"{type(error).__name__}: {error}"))
