"""The comparison's pairs and votes: base and aligned clip of one prompt and seed. No page, no gradio."""

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ...records import Comparison, CriticScore
from ...rubric import LIFT, Rubric
from ...store.manifest import METADATA_FILE, read_rows
from ...store.rubrics.of_data import check_same, find_rubric
from ..clips import GalleryClip, VideoPair, load_clips, local_folder, pair_clips
from ..identity import Identity
from ..shown import Shown
from ..verdict import score_of
from ..vote_log import Row, VoteLog, vote_id
from .generation import ComparedClips


logger = logging.getLogger(__name__)

BASE = "base"
#: What a visitor may say of the clips as they stand: the left one is "a".
CHOICES = ("a", "tie", "b")
_OTHER_SIDE = {"a": "b", "tie": "tie", "b": "a"}
_MAX_SHOWN = 5000
BLIND = "Names and verdicts are hidden until you have voted, so that they do not sway you."
KEPT = "You have voted on this pair already; your first vote stands."

#: (prompt, seed, adapter) -> clips. May take minutes.
Make = Callable[[str, int, str], ComparedClips]
#: (prompt, seed, adapter) -> how long `Make` is going to take, `None` where nobody knows.
Seconds = Callable[[str, int, str], float | None]


class ShownPair(NamedTuple):
    """What a page shows: two clips of one prompt, the base's and an adapter's, and how votes name them."""

    prompt: str
    adapter: str
    clips: ComparedClips
    names: tuple[str, str]


class Compare:
    """
    What the page shows to whom, and the votes: only on a pair that the voter was shown, once, before names and verdicts.

    Args:
        log: where votes go. Which pair was shown to whom is kept in a folder `shown` beside it.
    """

    def __init__(self, adapters: Sequence[str], log: VoteLog, identity: Identity) -> None:
        self.adapters, self.log, self.identity = list(adapters), log, identity
        self._lock = threading.Lock()
        self._seen = Shown(log)
        self._shown: OrderedDict[str, ShownPair] = OrderedDict()

    def show(self, voter: str, shown: ShownPair) -> None:
        """Notes a pair that goes to the page of `voter`."""
        first, second = shown.names
        self._seen.show(voter, shown.clips.id, prompt=shown.prompt, video_a=first, video_b=second)
        with self._lock:
            self._shown[shown.clips.id] = shown
            self._shown.move_to_end(shown.clips.id)
            while len(self._shown) > _MAX_SHOWN:
                self._shown.popitem(last=False)

    def shown(self, pair_id: str) -> ShownPair | None:
        """A pair that was shown lately."""
        return self._shown.get(pair_id)

    def leave_out(self, shown: ShownPair, why: str) -> None:
        """Notes for the owner's console that a pair cannot be shown."""
        logger.warning("a pair of %r is left out: %s", shown.prompt, why)

    def is_swapped(self, voter: str, pair_id: str) -> bool:
        """Whether the base's clip stands on the right; for a voter and a pair always the same."""
        return self.identity.coin(voter, pair_id)

    def is_open(self, voter: str, pair_id: str) -> bool:
        """Whether `voter` may vote on a pair: neither voted nor told the names."""
        return vote_id(voter, pair_id, None) not in self.log and not self._seen.is_told(voter, pair_id)

    def tell(self, voter: str, pair_id: str) -> None:
        """Notes that `voter` wants the names without a vote."""
        self._seen.tell(voter, pair_id)

    def vote(self, voter: str, pair_id: str, choice: str | None) -> bool:
        """
        Writes a vote; whether it is new. A second one changes nothing: the first one stands.

        Raises:
            ValueError: if the pair was not shown to `voter`, the names were, or the choice is none of `CHOICES`.
        """
        seen = self._seen.get(voter, pair_id)
        if seen is None:
            raise ValueError("This pair is not open for you; show it again, then vote.")
        if choice not in CHOICES:
            raise ValueError("Choose one of the three answers.")
        if vote_id(voter, pair_id, None) in self.log:
            return False
        if not self.is_open(voter, pair_id):
            raise ValueError("You have seen the names of this pair; a vote would no longer be blind.")
        row = Comparison(
            id=vote_id(voter, pair_id, None),
            prompt=seen["prompt"],
            video_a=seen["video_a"],
            video_b=seen["video_b"],
            choice=_OTHER_SIDE[choice] if self.is_swapped(voter, pair_id) else choice,
            dimension=None,
            voter=voter,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return self.log.add([{**asdict(row), "pair": pair_id}]) > 0


class Gallery:
    """
    Pairs of clips that were made beforehand: the base's against each adapter's, by prompt and seed.

    Args:
        base: the base's clips.
        aligned: adapter -> its clips.
        scores: clip id -> scored row, for clips whose own row carries no verdict.
        rubric: what the rows' labels are of.
    """

    def __init__(
        self,
        base: Sequence[GalleryClip],
        aligned: Mapping[str, Sequence[GalleryClip]],
        scores: Mapping[str, Row] | None = None,
        *,
        rubric: Rubric = LIFT,
    ) -> None:
        self._scores, self._rubric = scores or {}, rubric
        self.adapters = list(aligned)
        self.pairs: dict[tuple[str, str, str], VideoPair] = {}
        for name, clips in aligned.items():
            seen: Counter[tuple[str, str]] = Counter()
            for pair in pair_clips(base, clips):
                seen[pair.prompt, pair.seed] += 1
                number = seen[pair.prompt, pair.seed]
                # Clips may share prompt and seed (made with other settings), or have no seed: they are numbered.
                seed = pair.seed if pair.seed and number == 1 else f"{pair.seed} #{number}".strip()
                self.pairs[name, pair.prompt, seed] = pair

    @classmethod
    def load(cls, sources: Mapping[str, str], scores: Mapping[str, str], *, token: str | None = None) -> "Gallery":
        """
        A gallery from folders or dataset repositories: name -> clips (`base` among them), name -> scored rows.

        Raises:
            ValueError: if no source is called `base`, or there is no other, or the verdicts are of two rubrics.
        """
        if BASE not in sources or len(sources) < 2:
            raise ValueError(f"GALLERY names {', '.join(sources)}; name `{BASE}=...` and one or more others.")
        clips = {name: load_clips(source, system=name, token=token) for name, source in sources.items()}
        folders = [local_folder(scored, token) for scored in scores.values()]
        rows = [row for folder in folders for row in read_rows(folder / METADATA_FILE)]
        rubrics = [find_rubric(folder) for folder in folders or map(Path, filter(os.path.isdir, sources.values()))]
        for other in rubrics:
            check_same(rubrics[0], other, "the rubrics of the verdicts")
        rubric = rubrics[0] if rubrics else LIFT
        return cls(clips.pop(BASE), clips, {str(row["id"]): row for row in rows}, rubric=rubric)

    def leave_out(self, key: tuple[str, str, str], why: str) -> None:
        """Takes a pair out, so that nobody picks it, and tells the owner's console why."""
        logger.warning("a pair is left out: %s", why)
        del self.pairs[key]

    def prompts(self, adapter: str) -> list[str]:
        """Prompts that there are clips of."""
        return list(dict.fromkeys(prompt for name, prompt, _ in self.pairs if name == adapter))

    def seeds(self, adapter: str, prompt: str) -> list[str]:
        """Seeds of a prompt."""
        return [seed for name, other, seed in self.pairs if (name, other) == (adapter, prompt)]

    def get(self, adapter: str, prompt: str, seed: str) -> ShownPair | None:
        """The clips, `None` if there are none."""
        pair = self.pairs.get((adapter, prompt, seed))
        if pair is None:
            return None
        scores = (self._score(pair.first), self._score(pair.second))
        clips = ComparedClips(pair.id, (pair.first.path, pair.second.path), scores)
        return ShownPair(prompt, adapter, clips, (f"{BASE}/{pair.first.name}", f"{adapter}/{pair.second.name}"))

    def _score(self, clip: GalleryClip) -> CriticScore | None:
        own = score_of(clip.row, self._rubric)
        return own or (score_of(self._scores[clip.id], self._rubric) if clip.id in self._scores else None)
