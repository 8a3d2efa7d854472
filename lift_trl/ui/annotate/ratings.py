"""Ratings of clips by people: which clip a rater sees next, and what becomes of a rating. No page, no gradio."""

import logging
import os
import threading
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ...records import SOURCES, Annotation
from ...rubric import LIFT, Rubric, words
from ...store.manifest import METADATA_FILE, write_rows
from ...store.rubrics.of_data import write_rubric
from ..clips import GalleryClip
from ..identity import Identity
from ..shown import Shown
from ..tally import Answer, Tally
from ..vote_log import Row, VoteLog, vote_id


logger = logging.getLogger(__name__)

#: The reason of the best label where a rater writes none. Rows with it say so (`ready_reason`), whoever typed it.
#: Source: the authors' real clips all carry this sentence (CodeGoat24/LiFT, vidgen-data.json).
READY_REASON = "There are no obvious problems."
RATERS = 3
#: One clip in so many is a gold one, as long as a rater has gold clips left.
GOLD_EVERY = 5
#: A clip that was handed out waits so long for its rating before another rater may get it.
LEASE_S = 1800.0
MAX_REASON_CHARS = 1000


class Rating(NamedTuple):
    """A rater's label and reason for one dimension, as they came from the page."""

    label: str | None
    reason: str


class Progress(NamedTuple):
    """Clips a rater has done, clips with all their ratings, clips in all (gold ones not counted in the last two)."""

    mine: int
    finished: int
    total: int


class AnnotationQueue:
    """
    Hands out clips so that each gets `raters` ratings and not more, and writes the ratings.

    Args:
        clips: the clips to rate.
        gold: clips whose rows carry the labels that the owner knows, one a dimension; every rater gets them, none is told.
        log: where ratings go.
        raters: people a clip.
        source: `"synthetic"` or `"real"`, of `clips`.
        rubric: what raters are asked.
    """

    def __init__(
        self,
        clips: Sequence[GalleryClip],
        log: VoteLog,
        identity: Identity,
        *,
        gold: Sequence[GalleryClip] = (),
        raters: int = RATERS,
        source: str = "synthetic",
        rubric: Rubric = LIFT,
    ) -> None:
        if raters < 1:
            raise ValueError(f"raters={raters}; a clip needs at least 1 rater.")
        if source not in SOURCES:
            raise ValueError(
                f"source={source!r} (SOURCE), of which nothing could be trained; use {' or '.join(SOURCES)}."
            )
        self.gold = {clip.id: gold_labels(clip, rubric) for clip in gold}
        self.clips = {clip.id: clip for clip in [*clips, *gold]}
        for clip in clips:
            if self.clips[clip.id].revision != clip.revision:
                raise ValueError(f"the gold clip {clip.id!r} has the id of another clip; give it an id of its own.")
        #: Clips that cannot be shown, and why.
        self.broken: dict[str, str] = {}
        self.log, self.identity, self.raters, self.source, self.rubric = log, identity, raters, source, rubric
        self._shown = Shown(log)
        self._lock = threading.Lock()
        self._tally = Tally(log, self._answer, num_answers=len(rubric.dimensions))
        self._leases: dict[str, tuple[str, float]] = {}

    def next_clip(self, rater: str) -> GalleryClip | None:
        """
        The clip that `rater` should rate now, the same one until the rating is sent; `None` if there is none left.

        Clips that have some of their raters come first, so that clips become complete.
        """
        with self._lock:
            now, rated = time.monotonic(), self._tally.people()
            leased = self._leases.get(rater)
            if leased and self._is_waiting(rater, leased[0], rated):
                chosen: str | None = leased[0]
            else:
                self._leases = {
                    who: (clip, since)
                    for who, (clip, since) in self._leases.items()
                    if now - since < LEASE_S and clip not in self.broken and who not in rated.get(clip, ())
                }
                chosen = self._choose(rater, rated)
            if chosen is None:
                return None
            self._leases[rater] = (chosen, now)
            self._shown.show(rater, self._key(chosen))
            return self.clips[chosen]

    def _is_waiting(self, rater: str, clip_id: str, rated: Mapping[str, Set[str]]) -> bool:
        is_done = rater in rated.get(clip_id, ()) or rater in self._shown.skipped(self._key(clip_id))
        return clip_id not in self.broken and not is_done

    def skip(self, rater: str, clip_id: str) -> None:
        """
        Passes a clip over that `rater` cannot see: he gets the next one, and the owner a note.

        Raises:
            ValueError: if it was not shown to him.
        """
        if clip_id not in self.clips:
            raise ValueError("This clip is not to be rated here; reload the page.")
        self._shown.skip(rater, self._key(clip_id))

    def problems(self) -> list[str]:
        """What the owner should look into: clips that cannot be shown, and clips that raters could not see."""
        skipped = [(clip, len(self._shown.skipped(self._key(name)))) for name, clip in self.clips.items()]
        return [
            *self.broken.values(),
            *(f"{c.path}: {n} rater{'s' if n != 1 else ''} found it broken" for c, n in skipped if n),
        ]

    def leave_out(self, clip_id: str, why: str) -> None:
        """Hands a clip to nobody any more, for the owner to look into, until the next start."""
        if clip_id not in self.broken:
            logger.warning("a clip is left out: %s", why)
        self.broken[clip_id] = why

    def clip_after(self, rater: str) -> GalleryClip | None:
        """The clip that `rater` is likely to see after this one, so that it can be fetched in time."""
        with self._lock:
            rated = self._tally.people()
            chosen = self._choose(rater, rated, besides=self._leases.get(rater, ("", 0.0))[0])
            return None if chosen is None else self.clips[chosen]

    def _choose(self, rater: str, rated: Mapping[str, Set[str]], *, besides: str = "") -> str | None:
        """
        A clip that `rater` has not rated: a gold one now and then, else one that is closest to complete.

        Args:
            besides: a clip that counts as rated already.
        """
        waiting = [name for name in self.clips if name != besides and self._is_waiting(rater, name, rated)]
        counts = Counter({name: len(people) for name, people in rated.items()})
        counts.update(name for name, _ in self._leases.values())
        gold = [name for name in waiting if name in self.gold]
        ordinary = [name for name in waiting if name not in self.gold and counts[name] < self.raters]
        turn = int(self.identity.digest("gold", rater), 16) % GOLD_EVERY
        num_done = sum(rater in people for people in rated.values()) + bool(besides)
        if gold and (num_done % GOLD_EVERY == turn or not ordinary):
            candidates = gold
        else:
            most = max((counts[name] for name in ordinary), default=0)
            candidates = [name for name in ordinary if counts[name] == most]
        return min(candidates, key=lambda name: self.identity.digest(rater, name), default=None)

    def num_raters(self) -> Counter[str]:
        """People that rated each clip in every dimension."""
        with self._lock:
            return Counter({name: len(people) for name, people in self._tally.people().items()})

    def progress(self, rater: str) -> Progress:
        """How far `rater` and all raters are."""
        with self._lock:
            rated = self._tally.people()
            mine = sum(rater in people for people in rated.values())
            ordinary = self.clips.keys() - self.gold.keys() - self.broken.keys()
            finished = sum(len(rated.get(name, ())) >= self.raters for name in ordinary)
            return Progress(mine, finished, len(ordinary))

    def rate(self, rater: str, clip_id: str, given: Mapping[str, Rating]) -> bool:
        """
        Writes one row for each dimension; whether they are new. A second rating changes nothing: the first one stands.

        Raises:
            ValueError: if there is no such clip, it was not shown to `rater`, a label is missing, or a label below the best
                has no reason.
            OSError: if the disk refuses; nothing is counted then.
        """
        if clip_id not in self.clips:
            raise ValueError("This clip is not to be rated here; reload the page.")
        if self._shown.get(rater, self._key(clip_id)) is None:
            raise ValueError("This clip is not open for you; reload the page.")
        clip = self.clips[clip_id]
        rubric = self.rubric
        missing = [words(dimension) for dimension in rubric.dimensions if given[dimension].label is None]
        if missing:
            raise ValueError(f"Choose a label for {', '.join(missing)}.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = []
        for dimension in rubric.dimensions:
            label = rubric.parse_label(str(given[dimension].label))
            reason, is_ready = checked_reason(label, given[dimension].reason, dimension, rubric)
            row = Annotation(
                video_id=clip.id,
                video=Path(clip.name),
                caption=clip.prompt,
                dimension=dimension,
                label=label,
                reason=reason,
                annotator=rater,
                source=self.source,
                created_at=now,
                ui_version=ui_version(),
            )
            rows.append(
                {
                    "id": vote_id(rater, self._key(clip_id), dimension),
                    **{name: getattr(row, name) for name in Annotation.__dataclass_fields__},
                    "video": clip.name,
                    "revision": clip.revision,
                    "ready_reason": is_ready,
                    "is_gold": clip_id in self.gold,
                    **({} if rubric == LIFT else {"rubric": rubric.id}),
                }
            )
        return not self.has_rated(rater, clip_id) and self.log.add(rows) > 0

    def has_rated(self, rater: str, clip_id: str) -> bool:
        """Whether `rater` is done with a clip."""
        with self._lock:
            return rater in self._tally.people().get(clip_id, ())

    def stands(self, rater: str, clip_id: str, given: Mapping[str, Rating]) -> bool:
        """Whether what `rater` sends now is what he has said of the clip."""
        with self._lock:
            self._tally.people()
            rows = self._tally.given(rater, clip_id)
        said = {d: (rows[d]["label"], rows[d]["reason"]) for d in rows}
        labels = {dimension: self.rubric.parse_label(str(rating.label)) for dimension, rating in given.items()}
        reasons = {d: checked_reason(labels[d], rating.reason, d, self.rubric)[0] for d, rating in given.items()}
        return said == {dimension: (labels[dimension], reasons[dimension]) for dimension in given}

    def ratings(self) -> list[Row]:
        """The rows on these clips; the log may hold those of others too."""
        with self._lock:
            return self._tally.rows()

    def _key(self, clip_id: str) -> str:
        """A clip as rows' ids have it: of this content, whatever else has its id."""
        return f"{clip_id}@{self.clips[clip_id].revision}"

    def _answer(self, row: Row) -> Answer | None:
        """What a row of the log is about, `None` if it is about a clip, or in a dimension, that is not asked for here."""
        clip = self.clips.get(str(row.get("video_id")))
        if clip is None or not _is_rating(row, self.rubric):
            return None
        # Rows that do not say which content was shown name the file and its caption at least.
        is_this = row["revision"] == clip.revision if "revision" in row else _names(row, clip)
        return Answer(str(row["annotator"]), clip.id, row["dimension"]) if is_this else None


def _names(row: Row, clip: GalleryClip) -> bool:
    return (row.get("video"), row.get("caption")) == (clip.name, clip.prompt)


def ui_version() -> str:
    """The page's version, kept with every rating."""
    return f"lift_trl {version('lift_trl')}"


def _is_rating(row: Row, rubric: Rubric) -> bool:
    """False for decisions of a review, which once went to the same log, and for other rubrics' ratings."""
    is_asked = row.get("dimension") in rubric.dimensions and row.get("label") in rubric.labels
    return "annotator" in row and is_asked and row.get("rubric", LIFT.id) == rubric.id


def checked_reason(label: str, reason: str, dimension: str, rubric: Rubric) -> tuple[str, bool]:
    """
    The reason as it is kept, and whether it is the ready phrase.

    Raises:
        ValueError: if a label below the best has no reason, or it is longer than `MAX_REASON_CHARS`.
    """
    # Control characters and invisible direction marks have no place in a reason; line breaks become blanks.
    text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in unicodedata.normalize("NFC", reason or ""))
    text = " ".join(text.split())
    if len(text) > MAX_REASON_CHARS:
        raise ValueError(
            f"The reason for {words(dimension)} has {len(text)} characters; {MAX_REASON_CHARS} are allowed."
        )
    if not text and label != rubric.best:
        raise ValueError(f"Say why {words(dimension)} is {label}.")
    return text or READY_REASON, not text or text == READY_REASON


def gold_labels(clip: GalleryClip, rubric: Rubric) -> dict[str, str]:
    """
    The labels that a gold clip's row carries.

    Raises:
        ValueError: if one is missing.
    """
    missing = [dimension for dimension in rubric.dimensions if not clip.row.get(dimension)]
    if missing:
        raise ValueError(f"gold clip {clip.name}: no label for {', '.join(missing)}; fill in these columns.")
    return {dimension: rubric.parse_label(str(clip.row[dimension])) for dimension in rubric.dimensions}


class RaterSummary(NamedTuple):
    """One rater: clips done, share of gold labels that are the owner's (`None` without any), share of ready phrases."""

    annotator: str
    num_clips: int
    gold_accuracy: float | None
    ready_share: float


def rater_summaries(rows: Iterable[Row], gold: Mapping[str, Mapping[str, str]]) -> list[RaterSummary]:
    """Every rater, those with the lowest agreement with the gold labels first."""
    by_rater: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_rater[row["annotator"]].append(row)
    found = []
    for annotator, own in by_rater.items():
        known = [row["label"] == gold[row["video_id"]][row["dimension"]] for row in own if row["video_id"] in gold]
        accuracy = sum(known) / len(known) if known else None
        ready = sum(bool(row.get("ready_reason")) for row in own) / len(own)
        found.append(RaterSummary(annotator, len({row["video_id"] for row in own}), accuracy, ready))
    return sorted(found, key=lambda r: (2.0 if r.gold_accuracy is None else r.gold_accuracy, r.annotator))


def export_ratings(
    rows: Iterable[Row], clips: Iterable[GalleryClip], folder: Path | str, *, rubric: Rubric = LIFT
) -> int:
    """
    Writes ratings as a folder that `lift-trl convert` and `load_hra` read; returns the number of rows.

    Gold clips are left out: their ratings tell about the raters. Of rows that share an id (two machines served the page)
    the one that was given first counts. The clips stay where they are. Ratings of another rubric than `rubric` are left
    out, and one of your own stands beside the rows as `rubric.yaml`.

    Raises:
        ValueError: if a rating's clip is not among `clips`, or is another clip by now.
    """
    known: dict[str, list[GalleryClip]] = defaultdict(list)
    for clip in clips:
        known[clip.id].append(clip)
    first: dict[str, Row] = {}
    for row in sorted((row for row in rows if _is_rating(row, rubric)), key=lambda row: str(row["created_at"])):
        first.setdefault(row["id"], row)
    kept = [row for row in first.values() if not row["is_gold"]]

    def clip_of(row: Row) -> GalleryClip | None:
        given = row.get("revision")
        return next((c for c in known[row["video_id"]] if given in (None, c.revision)), None)

    unknown = {row["video_id"] for row in kept if clip_of(row) is None}
    if unknown:
        raise ValueError(
            f"{len(unknown)} rated clips are not among the clips, first {min(unknown)!r}; name their source, as it was when "
            "they were rated."
        )

    def tidy(row: Row) -> dict[str, Any]:
        clip = clip_of(row)
        assert clip is not None
        fields = {name: row[name] for name in Annotation.__dataclass_fields__ if name != "video"}
        return {"file_name": os.path.relpath(clip.path, Path(folder).absolute()), **fields}

    if rubric != LIFT:
        write_rubric(rubric, folder)
    write_rows(Path(folder) / METADATA_FILE, map(tidy, kept))
    return len(kept)
