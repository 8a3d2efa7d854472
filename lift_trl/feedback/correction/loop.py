"""The three-step correction of ratings as a loop on disk: filter, two halves that check each other, integration.

    output_dir/
      1_filter/      rows that pass; history.jsonl names the rule of each drop
      2a_refine/     a critic fitted on half A labels half B; people decide where it disagrees
      2b_refine/     the same the other way round, fitted on the corrected half B
      3_integrate/   a critic fitted on all corrected rows labels what step 1 dropped; people decide what comes back
      corrected/     the result, which `load_hra` and `datasets.load_dataset` read
      provenance.jsonl

Call `correct` again after a review, or after a crash at any point: finished work is read, never done twice, and the result
is the same. Source: arXiv 2412.04814, data correction of LiFT-HRA.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate.logging import get_logger

from ...records import Annotation, Judgement, content_id
from ...rubric import LIFT, Rubric
from ...runtime import process_state
from ...store.manifest import ARTIFACT_FILE, METADATA_FILE, Artifact, read_rows, write_rows
from ...store.rubrics.of_data import check_same, write_rubric
from ..clips import default_cache_dir, store_bytes
from ..convert import write_hra
from ..hra import tidy_dataset
from ..sources import HraClip
from .coarse_filter import Rule, clip_problem, find_drop
from .review import QUEUE_FILE, Decision, queue_row, read_decisions


if TYPE_CHECKING:
    from datasets import Dataset

logger = get_logger(__name__)

#: `fit_and_judge(train, rows, folder)`: fits a critic on the tidy rows `train`, may keep its work in `folder`, and judges
#: each of `rows` in the row's dimension, or gives `None` where it cannot (that row goes to review).
FitAndJudge = Callable[["Dataset", "Dataset", Path], Sequence[Judgement | None]]
Rows = dict[str, Annotation]  # by row id, in the order of the dataset

STEPS = ("1_filter", "2a_refine", "2b_refine", "3_integrate")
CORRECTED, PROVENANCE_FILE = "corrected", "provenance.jsonl"
_HISTORY, _LABELS = "history.jsonl", "labels.jsonl"


@dataclass(frozen=True)
class CorrectionConfig:
    """
    Settings of the correction.

    Args:
        min_caption_words (`int`, *optional*, defaults to `3`):
            Captions with fewer words (characters, in scripts without spaces) are dropped [ours].
        seed (`int`, *optional*, defaults to `0`):
            Decides which videos are in which half.
    """

    min_caption_words: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_caption_words < 1:
            raise ValueError(f"min_caption_words={self.min_caption_words}; a caption needs at least 1 word.")


class CorrectionStatus(NamedTuple):
    """How far the correction is: finished (`folder` holds the result), or waiting for `num_waiting` rows of `queue`."""

    finished: bool
    folder: Path
    queue: Path | None = None
    num_waiting: int = 0


class _Judged(NamedTuple):
    """What the critic says of a row; no label where it could not judge it."""

    label: str | None = None
    reason: str = ""


class _Waiting(Exception):
    """A queue has rows without a decision."""

    def __init__(self, queue: Path, num_waiting: int) -> None:
        self.queue, self.num_waiting = queue, num_waiting


def correct(
    dataset: "Dataset",
    output_dir: Path | str,
    fit_and_judge: FitAndJudge,
    *,
    config: CorrectionConfig | None = None,
    rubric: Rubric = LIFT,
) -> CorrectionStatus:
    """
    Runs the correction of tidy rows (`load_hra(...)["train"]`) until it is finished or people must decide.

    Fill in the queue that the status names (`feedback.review`) and call again with the same arguments.

    Args:
        rubric: what the rows' labels are of.

    Raises:
        ValueError: if `output_dir` belongs to other rows, settings or another rubric, a half has no video, `fit_and_judge`
            does not give one judgement a row, or a decision in the queue cannot be read.
    """
    root, config = Path(output_dir), config or CorrectionConfig()
    process_state()
    rows = _identified(dataset)
    origin = {**asdict(config), "rows": content_id(*rows), "num_rows": len(rows)}
    run = _Correction(root, fit_and_judge, origin, rubric)
    try:
        run.check_origin()
        kept, dropped = run.filter(rows, config)
        halves = _halves(kept, config.seed)
        first = run.refine(STEPS[1], train=halves[0], rows=halves[1])
        second = run.refine(STEPS[2], train=first, rows=halves[0])
        back = run.integrate(train={**second, **first}, dropped=dropped)
    except _Waiting as waiting:
        logger.info("%d rows of %s wait for a decision", waiting.num_waiting, waiting.queue)
        return CorrectionStatus(False, root, waiting.queue, waiting.num_waiting)
    corrected = {**second, **first, **back}
    run.finish({row_id: corrected[row_id] for row_id in rows if row_id in corrected})
    return CorrectionStatus(True, root / CORRECTED)


@dataclass(frozen=True)
class _Correction:
    """The steps. A step's `artifact.yaml` is written last, so a step with one is finished."""

    root: Path
    fit_and_judge: FitAndJudge
    origin: Mapping[str, Any]
    rubric: Rubric

    def check_origin(self) -> None:
        for step in STEPS:
            if (self.root / step / ARTIFACT_FILE).is_file():
                artifact = Artifact.load(self.root / step)
                check_same(self.rubric, artifact.rubric, f"the rubric of these ratings and that of {self.root / step}")
                found = {key: artifact.config.get(key) for key in self.origin}
                if found != dict(self.origin):
                    raise ValueError(
                        f"{self.root / step} was made with {found}, not {dict(self.origin)}; use a new output_dir."
                    )

    def filter(self, rows: Rows, config: CorrectionConfig) -> tuple[Rows, dict[str, tuple[Annotation, str]]]:
        """Step 1: (rows that pass, dropped row and rule by row id)."""
        folder = self.root / STEPS[0]
        if _absent(folder / ARTIFACT_FILE):
            problems = {str(row.video): row for row in rows.values()}
            problem_of = {name: clip_problem(row) for name, row in problems.items()}
            history = []
            for row_id, row in rows.items():
                problem, least = problem_of[str(row.video)], config.min_caption_words
                drop = find_drop(row, min_caption_words=least, clip_problem=problem, rubric=self.rubric)
                if drop is not None:
                    history.append(_event(STEPS[0], row_id, "dropped", row, None, why=f"{drop.rule}: {drop.detail}"))
            out = {event["id"] for event in history}
            self._save(folder, {name: row for name, row in rows.items() if name not in out}, history)
        rules = {event["id"]: event["why"].split(":")[0] for event in read_rows(folder / _HISTORY)}
        return (
            {row_id: row for row_id, row in rows.items() if row_id not in rules},
            {row_id: (rows[row_id], rule) for row_id, rule in rules.items()},
        )

    def refine(self, step: str, *, train: Rows, rows: Rows) -> Rows:
        """Step 2, one direction: the corrected `rows`."""
        folder = self.root / step
        if _absent(folder / ARTIFACT_FILE):
            critic = self._judged(folder, train, rows)
            doubtful = {row_id for row_id, row in rows.items() if critic[row_id].label != row.label}
            why = "the critic's label differs"
            queue = [queue_row(name, row, *critic[name], why=why) for name, row in rows.items() if name in doubtful]
            decisions = self._decisions(folder, queue)
            kept, history = {}, []
            for row_id, row in rows.items():
                after: Annotation | None = row
                if row_id in doubtful:
                    after = _decided(row, decisions[row_id])
                event = "agreed" if row_id not in doubtful else _outcome(row, after)
                history.append(_event(step, row_id, event, row, after, critic[row_id].label, decisions.get(row_id)))
                if after is not None:
                    kept[row_id] = after
            self._save(folder, kept, history)
        return _load(folder)

    def integrate(self, *, train: Rows, dropped: Mapping[str, tuple[Annotation, str]]) -> Rows:
        """Step 3: the dropped rows that come back. A clip that cannot be read never does."""
        folder = self.root / STEPS[3]
        if _absent(folder / ARTIFACT_FILE):
            rows = {row_id: row for row_id, (row, rule) in dropped.items() if rule != Rule.UNREADABLE_CLIP}
            critic = self._judged(folder, train, rows) if rows else {}
            queue = [
                queue_row(row_id, row, *critic[row_id], why=f"dropped in step 1: {dropped[row_id][1]}")
                for row_id, row in rows.items()
            ]
            decisions = self._decisions(folder, queue)
            back, history = {}, []
            for row_id, row in rows.items():
                # What a person decides stands, whatever a rule made of the row.
                after = _decided(row, decisions[row_id])
                event = "put back" if after is not None else "stays out"
                history.append(_event(STEPS[3], row_id, event, row, after, critic[row_id].label, decisions[row_id]))
                if after is not None:
                    back[row_id] = after
            self._save(folder, back, history)
        return _load(folder)

    def finish(self, rows: Rows) -> None:
        """Writes the corrected dataset and the whole provenance."""
        state = process_state()
        if state.is_main_process and not (self.root / CORRECTED / ARTIFACT_FILE).is_file():
            write_rows(self.root / PROVENANCE_FILE, (e for s in STEPS for e in read_rows(self.root / s / _HISTORY)))
            artifact = Artifact("hra", dict(self.origin), {"ratings": str(self.origin["rows"])}, rubric=self.rubric)
            write_hra(self.root / CORRECTED, {"train": _clips(rows.values())}, artifact)
        state.wait_for_everyone()

    def _judged(self, folder: Path, train: Rows, rows: Rows) -> dict[str, _Judged]:
        """What the critic says of each row, from the disk if it was said before."""
        path = folder / _LABELS
        if _absent(path):
            logger.info("%s: fitting a critic on %d rows to label %d", folder.name, len(train), len(rows))
            work = (tidy_dataset(train.values()), tidy_dataset(rows.values()))
            given = list(self.fit_and_judge(*work, folder / "critic"))
            if len(given) != len(rows):
                raise ValueError(f"fit_and_judge gave {len(given)} judgements of {len(rows)} rows; give one for each.")
            judged = [_Judged() if one is None else _Judged(one.label, one.reason) for one in given]
            _write(path, ({"id": row_id, **one._asdict()} for row_id, one in zip(rows, judged)))
        return {row["id"]: _Judged(row["label"], row["reason"]) for row in read_rows(path)}

    def _decisions(self, folder: Path, queue: list[dict[str, Any]]) -> dict[str, Decision]:
        """
        People's decision on every row of the queue, which is written once and then belongs to them.

        Raises:
            _Waiting: if some are missing.
        """
        path = folder / QUEUE_FILE
        if _absent(path):
            if self.rubric != LIFT and process_state().is_main_process:
                write_rubric(self.rubric, folder)  # for the pages and editors that fill in the queue
            _write(path, queue)
        decisions = read_decisions(path)
        done = {row_id: decision for row_id, decision in decisions.items() if decision is not None}
        missing = [row["id"] for row in queue if row["id"] not in decisions]
        if missing:
            raise ValueError(f"{path}: {len(missing)} rows were deleted, first {missing[0]}; decide 'drop' instead.")
        if len(done) < len(queue):
            raise _Waiting(path, len(queue) - len(done))
        return done

    def _save(self, folder: Path, rows: Rows, history: list[dict[str, Any]]) -> None:
        """Writes what a step made, its `artifact.yaml` last."""
        _write(folder / _HISTORY, history)
        _write(folder / METADATA_FILE, (_stored(row_id, row) for row_id, row in rows.items()))
        state = process_state()
        if state.is_main_process:
            counts = Counter(event["event"] for event in history)
            config = {**self.origin, "step": folder.name, "kept": len(rows), "events": dict(sorted(counts.items()))}
            Artifact("correction", config, {"ratings": str(self.origin["rows"])}, rubric=self.rubric).save(folder)
        state.wait_for_everyone()


def _absent(path: Path) -> bool:
    """Whether a file is not there; no process goes on to write it before all have looked."""
    absent = not path.is_file()
    process_state().wait_for_everyone()
    return absent


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes on the main process; the others go on when the file is there."""
    state = process_state()
    if state.is_main_process:
        write_rows(path, rows)
    state.wait_for_everyone()


def _identified(dataset: "Dataset") -> Rows:
    """Rows by an id made of their content; equal rows are told apart by their number."""
    rows: Rows = {}
    seen: Counter[str] = Counter()
    for row in dataset:
        data = row["video"]["bytes"]  # there are bytes once a dataset was saved or pushed
        annotation = _annotation(row, str(store_bytes(data, default_cache_dir())) if data else row["video"]["path"])
        values = [getattr(annotation, name) for name in Annotation.__dataclass_fields__ if name != "video"]
        digest = content_id(*values)
        seen[digest] += 1
        rows[content_id(digest, seen[digest])] = annotation
    return rows


def _halves(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """
    The rows of two halves of the videos, in the order of the hash of their ids.

    Raises:
        ValueError: if there are fewer than two videos.
    """
    videos = sorted({row.video_id for row in rows.values()}, key=lambda name: content_id("half", seed, name))
    if len(videos) < 2:
        raise ValueError(f"{len(videos)} videos pass the filter, too few for two halves; give more.")
    chosen = set(videos[: len(videos) // 2])
    first = {row_id: row for row_id, row in rows.items() if row.video_id in chosen}
    return first, {row_id: row for row_id, row in rows.items() if row_id not in first}


def _decided(row: Annotation, decision: Decision) -> Annotation | None:
    """The row after a decision; one that a person changed stands under that person's name."""
    if decision.label is None:
        return None
    if (decision.label, decision.reason) == (row.label, row.reason):
        return row
    return replace(
        row,
        label=decision.label,
        reason=decision.reason,
        annotator=decision.reviewer,
        created_at=decision.decided_at,
        ui_version=None,
    )


def _outcome(row: Annotation, after: Annotation | None) -> str:
    return "removed" if after is None else "confirmed" if after == row else "changed"


def _event(
    step: str,
    row_id: str,
    event: str,
    before: Annotation,
    after: Annotation | None,
    critic_label: str | None = None,
    decision: Decision | None = None,
    why: str = "",
) -> dict[str, Any]:
    """One line of provenance: what happened to a row, by whom, and how it read before and after."""

    def told(row: Annotation | None) -> dict[str, str] | None:
        return None if row is None else {"label": row.label, "reason": row.reason, "annotator": row.annotator}

    return {
        "id": row_id,
        "step": step,
        "event": event,
        "video_id": before.video_id,
        "dimension": before.dimension,
        "before": told(before),
        "after": told(after),
        "critic_label": critic_label,
        "reviewer": decision and decision.reviewer,
        "decided_at": decision and decision.decided_at,
        "why": why,
    }


def _stored(row_id: str, row: Annotation) -> dict[str, Any]:
    return {**asdict(row), "id": row_id, "video": str(row.video)}


def _load(folder: Path) -> Rows:
    """The rows of a finished step."""
    return {row.pop("id"): _annotation(row, row["video"]) for row in read_rows(folder / METADATA_FILE)}


def _annotation(row: Mapping[str, Any], video: str) -> Annotation:
    return Annotation(**{**row, "video": Path(video)})


def _clips(rows: Iterable[Annotation]) -> list[HraClip]:
    """Rows as clips with their ratings."""
    grouped: dict[str, list[Annotation]] = {}
    for row in rows:
        grouped.setdefault(row.video_id, []).append(row)
    return [
        HraClip(name, part[0].video, part[0].caption, part[0].source, tuple(part)) for name, part in grouped.items()
    ]
