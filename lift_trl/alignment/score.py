"""Videos to a `scored/` artefact through any `RewardModel`: labels, probabilities, reasons and rewards, joined by id."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from accelerate import PartialState
from accelerate.logging import get_logger

from ..engines import Append, Processes, Work, Workers
from ..prefetch import behind
from ..protocols import RewardModel, StreamingRewardModel
from ..records import CriticScore, NativeScore, StoredVideo, VideoSource, content_id, placeless
from ..rubric import LIFT, Rubric
from ..runtime import process_state
from ..store.clip_rows import row_caption, row_id, row_is_real, video_digest
from ..store.manifest import ARTIFACT_FILE, Artifact, Manifest, check_kind
from ..store.rated_videos import stored_rows
from ..store.rubrics.of_data import check_same
from ..store.sharding import chunks


if TYPE_CHECKING:
    from datasets import Dataset

logger = get_logger(__name__)


class NamedRewardModel(RewardModel, Protocol):
    """
    A reward model that says which one it is.

    Attributes:
        name: `"repo@revision"`, or any text that changes when the scores would.
    """

    name: str


class ScoringJob(NamedTuple):
    """One clip to score. `row` is what is known of it and goes into the scored row as it is."""

    id: str
    video: VideoSource | StoredVideo
    caption: str
    row: dict[str, Any]

    def source(self) -> VideoSource:
        """The clip as a path or its bytes."""
        return self.video.read() if isinstance(self.video, StoredVideo) else self.video


class CriticSource(NamedTuple):
    """
    A critic that is in memory only while it scores, in each process that does.

    Attributes:
        name: its own.
        load: returns it.
        rubric: its own.
    """

    name: str
    load: Callable[[], NamedRewardModel]
    rubric: Rubric = LIFT


def score_videos(
    reward_model: NamedRewardModel | CriticSource,
    videos: "Path | str | Dataset",
    output_dir: Path | str,
    *,
    with_reason: bool = False,
    score_real: bool = False,
    batch_size: int = 8,
    rubric: Rubric = LIFT,
    state: PartialState | None = None,
    workers: Workers | None = None,
) -> Path:
    """
    Scores every clip of `videos`; returns `output_dir`, an artefact with one row a clip.

    Kill it at any time, with any number of processes, and call it again: a clip is scored once. A clip that cannot be
    scored keeps its row, with the reason in `unscored` and no reward.

    Args:
        videos: a `generated/` artefact, a folder of clips with metadata, or what `load_dataset` returns.
        with_reason: also ask for the written reason of each label.
        score_real: also score real clips (`is_real`). Alignment needs no reward of them, so they are passed on without.
        batch_size: clips that are given to the model at once; the unit of resuming. Batches are fixed by the list of clips:
            what a clip is batched with may change the last bits of its probabilities.
        rubric: what the labels of `reward_model` are of: `critic.rubric`. A `CriticSource` names its own.
        workers: who scores, the processes of `state` by default. Ray's take a `CriticSource`, or a model that pickles.

    Raises:
        ValueError: if `output_dir` holds scores of another reward model or rubric, the model's labels are not of `rubric`,
            rows cannot be read, or two share an id.
    """
    state = state or process_state()
    workers = workers or Processes(state)
    source = reward_model if isinstance(reward_model, CriticSource) else _held(reward_model, rubric)
    folder = Path(output_dir)
    jobs = read_jobs(videos, folder)
    manifest = Manifest(folder, rank=workers.rank)
    own = [] if source.rubric == LIFT else [source.rubric.id]
    settings = (with_reason, *(["real"] if score_real else []), *own)
    key, with_place = (content_id(name, *settings) for name in (placeless(source.name), source.name))
    others = "scores of another reward model or rubric, or with_reason or score_real was another"
    done = manifest.ids_made_by("scoring", {key, with_place}, others=others)
    batches = workers.part(chunks(jobs, batch_size))
    todo = [batch for batch in batches if not done.issuperset(job.id for job in batch)]
    check_kind(folder, "scored")
    (folder / ARTIFACT_FILE).unlink(missing_ok=True)
    logger.info("%d clips, %d batches to score", len(jobs), len(todo))
    plan = _Plan(source, with_reason, score_real, key, done)
    workers.run(plan.scorer, todo, manifest.append)
    if state.is_main_process and workers.finishes:
        rows = manifest.merge([job.id for job in jobs], now={job.id: job.row for job in jobs})
        _finish(folder, rows, source.name, with_reason, source.rubric)
    state.wait_for_everyone()
    return folder


def _held(reward_model: NamedRewardModel, rubric: Rubric) -> CriticSource:
    """The source of a reward model that is in memory."""
    return CriticSource(reward_model.name, lambda: reward_model, rubric)


@dataclass(frozen=True)
class _Plan:
    """All that a worker must know to score."""

    source: CriticSource
    with_reason: bool
    score_real: bool
    key: str
    done: Set[str]

    def scorer(self, device: torch.device) -> Work[Sequence[ScoringJob]]:
        """What scores batches and gives a row for each clip that is not done, with the critic in memory."""
        reward_model = self.source.load()

        def score(batches: Sequence[Sequence[ScoringJob]], append: Append) -> None:
            asked = [[job for job in batch if self.score_real or not job.row.get("is_real")] for batch in batches]
            scores = _scores(reward_model, asked, self.with_reason)
            with behind() as put:  # the disk does not hold the critic up
                for batch, jobs_asked, found in zip(batches, asked, scores, strict=True):
                    scored = {job.id: score for job, score in zip(jobs_asked, found, strict=True)}
                    _check_rubric(scored.values(), self.source.rubric)
                    put(self._store, batch, scored, append)

        return score

    def _store(
        self, batch: Sequence[ScoringJob], scored: Mapping[str, CriticScore | NativeScore], append: Append
    ) -> None:
        """A row for each clip of a batch that has none."""
        for job in batch:
            rating = scored[job.id].columns() if job.id in scored else {}
            if job.id not in self.done:
                append({**job.row, **rating, "scoring": self.key})


def _scores(
    reward_model: NamedRewardModel, batches: Sequence[Sequence[ScoringJob]], with_reason: bool
) -> Iterator[Sequence[CriticScore | NativeScore]]:
    """The scores of each batch, read and prepared ahead where the model can."""
    given = (([job.source() for job in batch], [job.caption for job in batch]) for batch in batches)
    if isinstance(reward_model, StreamingRewardModel):
        yield from reward_model.score_batches(given, with_reason=with_reason)
    else:
        for videos, captions in given:
            yield reward_model.score(videos, captions, with_reason=with_reason)


def read_jobs(videos: "Path | str | Dataset", output_dir: Path) -> list[ScoringJob]:
    """
    The clips of a folder or dataset. Ids are the rows' own, else those that `load_rated_videos` would give.

    Raises:
        ValueError: naming the row if it cannot be read, lacks clip or prompt, or repeats an id.
    """
    jobs: dict[str, ScoringJob] = {}
    for where, row in stored_rows(videos):
        if isinstance(row, str):
            raise ValueError(f"{where}: {row}")
        job = _job(where, row, output_dir)
        if job.id in jobs:
            raise ValueError(
                f"{where}: id {job.id!r} stands twice. Delete the copy, or give one of the clips another id."
            )
        jobs[job.id] = job
    if not jobs:
        raise ValueError(
            f"{videos}: holds no row. Name the folder that generate wrote, or a folder with metadata.jsonl."
        )
    return list(jobs.values())


def _job(where: str, row: Mapping[str, Any], output_dir: Path) -> ScoringJob:
    video = row.get("video")
    try:
        caption, is_real = row_caption(row), row_is_real(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not video or caption is None:
        raise ValueError(f"{where}: no clip or no prompt; fill the columns file_name (or video) and prompt.")
    source: VideoSource | StoredVideo = video if isinstance(video, bytes | StoredVideo) else Path(video)
    unit = row_id(row) or content_id(_digest(source), caption, is_real)
    known: dict[str, Any] = {"id": unit, "prompt": caption}
    if isinstance(source, Path):
        known["video"] = os.path.relpath(source, output_dir)
    return ScoringJob(unit, source, caption, {**known, **({"is_real": True} if is_real else {})})


def _digest(video: VideoSource | StoredVideo) -> str:
    """sha256 of the file's bytes; the path where there is no such file, which the model then reports."""
    return str(video) if isinstance(video, Path) and not video.is_file() else video_digest(video)


def _check_rubric(scores: Iterable[CriticScore | NativeScore], rubric: Rubric) -> None:
    """Raises `ValueError` for labels of another rubric."""
    for score in scores:
        if isinstance(score, CriticScore) and score.judgements:
            check_same(score.rubric, rubric, f"the rubric of {score.critic} and that of these scores")


def _finish(folder: Path, rows: list[dict[str, Any]], critic: str, with_reason: bool, rubric: Rubric) -> None:
    """The artefact's own page last: a folder with `artifact.yaml` is whole."""
    rewards = [row["reward"] for row in rows if row.get("reward") is not None]
    counts = {
        "num_scored": len(rewards),
        "num_unscored": sum(row.get("unscored") is not None for row in rows),
        "num_real": sum(bool(row.get("is_real")) for row in rows),
    }
    logger.info(
        "%d scored, %d unscored, mean reward %s",
        counts["num_scored"],
        counts["num_unscored"],
        f"{sum(rewards) / len(rewards):.3f}" if rewards else "none",
    )
    config = {"critic": critic, "with_reason": with_reason, **counts}
    parents = {"videos": content_id(*(row["id"] for row in rows)), "critic": critic}
    Artifact(kind="scored", config=config, parents=parents, rubric=rubric).save(folder)
