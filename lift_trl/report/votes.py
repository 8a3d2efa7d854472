"""Votes in a report, people's and judges': whose clips they compare, who wins, how strong each system is, who agrees."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from ..records import Comparison
from ..rubric import LIFT, Rubric
from ..statistics.holm import sign_flip_p
from ..statistics.intervals import bootstrap_mean
from ..statistics.win_rate import Vote, WinRate, agreement, bradley_terry, dimensions_of, to_votes, win_rates
from ..store.system_clips import SystemClip, numbered_seed, rubric_of_systems
from ..store.votes import VoteRow, read_votes
from .data import JudgeAgreement, Paired, Strength


#: The two systems of a comparison -> the votes, as seen from the first.
Ballots = Mapping[tuple[str, str], Sequence[Vote]]
_FIELDS = tuple(Comparison.__dataclass_fields__)


def system_pairs(systems: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each other system against the first, then the others among themselves in their order."""
    base, *others = systems
    yield from ((other, base) for other in others)
    yield from combinations(others, 2)


def read_comparisons(path: Path, rubric: Rubric = LIFT) -> list[Comparison]:
    """
    The comparisons in a file or folder of votes (`read_votes`), by the dimensions of `rubric`; other columns are left alone.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line, if a column is missing, an id stands twice, or the dimension is unknown.
    """
    return [_comparison(vote, rubric) for vote in read_votes(path, _FIELDS)]


def _comparison(vote: VoteRow, rubric: Rubric) -> Comparison:
    dimension = vote.row["dimension"]
    if dimension is not None and dimension not in rubric.dimensions:
        known = ", ".join(rubric.dimensions)
        raise ValueError(f"{vote.where}: dimension {dimension!r}; use null or one of {known}.")
    return Comparison(**{name: vote.row[name] for name in _FIELDS})


def read_ballots(path: Path, systems: Mapping[str, Sequence[SystemClip]]) -> tuple[Ballots, int]:
    """
    People's votes in `path` on the clips of `systems`, and how many votes are on other clips.

    A vote names a clip by its whole path, by `system/path` (as the pages do), by `system/seed` (as the comparison of live
    clips does, and once did of a gallery's), or by a file name that one clip only has.

    Raises:
        ValueError: if no vote compares two of the systems, or a name fits several clips.
    """
    comparisons = read_comparisons(path, rubric_of_systems(systems))
    find = _ClipNames(path, systems)
    places: dict[str, tuple[str, str]] = {}

    def named(video: str, prompt: str) -> str:
        """A name that stands for one clip whatever the prompt; seeds do not."""
        system, key = find(video, prompt)
        places[f"{system}/{key}"] = (system, key)
        return f"{system}/{key}"

    found = [
        replace(row, video_a=named(row.video_a, row.prompt), video_b=named(row.video_b, row.prompt))
        for row in comparisons
    ]
    system_of = {name: system for name, (system, _) in places.items()}
    ballots = {
        (a, b): to_votes(found, system_of, first=a, second=b, key_of=lambda name: places[name][1])
        for a, b in system_pairs(list(systems))
    }
    used = sum(map(len, ballots.values()))
    if not used:
        first = f"; the first {comparisons[0].video_a!r} and {comparisons[0].video_b!r}" if comparisons else ""
        raise ValueError(
            f"{path}: none of {len(comparisons)} votes compares two of the systems {', '.join(systems)}{first}. Name "
            "clips by their path or as system/path, with the report's names of the systems."
        )
    return {pair: votes for pair, votes in ballots.items() if votes}, len(comparisons) - used


class _ClipNames:
    """The system and the key of the clip that a vote in `source` names, `("", name)` if it is none of the report's."""

    def __init__(self, source: Path, systems: Mapping[str, Sequence[SystemClip]]) -> None:
        self._source = source
        self._systems = systems
        self._paths = {str(clip.video): (name, clip.key) for name, clips in systems.items() for clip in clips}
        self._names: dict[tuple[str, str], list[SystemClip]] = {}
        self._seeds: dict[tuple[str, str, str], list[SystemClip]] = {}
        self._anywhere: dict[str, list[tuple[str, str]]] = {}
        for name, clips in systems.items():
            for clip in clips:
                self._names.setdefault((name, clip.video.name), []).append(clip)
                self._seeds.setdefault((name, clip.prompt, clip.seed), []).append(clip)
                self._anywhere.setdefault(clip.video.name, []).append((name, clip.key))

    def __call__(self, video: str, prompt: str) -> tuple[str, str]:
        if video in self._paths:
            return self._paths[video]
        system, _, rest = video.partition("/")
        if system not in self._systems:
            found = self._anywhere.get(Path(video).name, [])
            return found[0] if len(found) == 1 else ("", video)
        # A scored set names the clips of the set beside it: `../generated/0.mp4`.
        tail = "/".join(part for part in Path(rest).parts if part != "..")
        named = self._names.get((system, Path(rest).name), [])
        clips = [clip for clip in named if f"/{os.path.normpath(clip.video)}".endswith(f"/{tail}")]
        if len(clips) > 1:
            raise ValueError(
                f"{self._source}: {video!r} fits {len(clips)} clips of {system}, for instance {clips[0].video}; write "
                "whole paths into video_a and video_b."
            )
        # A clip of that name under another prompt is not the one that was voted on.
        clips = [clip for clip in clips if clip.prompt == prompt.strip()] or self._by_seed(system, prompt, rest)
        return (system, clips[0].key) if clips else ("", video)

    def _by_seed(self, system: str, prompt: str, seed: str) -> list[SystemClip]:
        """The clip of a prompt and a seed."""
        given, place = numbered_seed(seed) or ("", -1)
        return [] if place < 0 else self._seeds.get((system, prompt.strip(), given), [])[place : place + 1]


def net_preferences(judge: str, ballots: Ballots) -> Iterator[Paired]:
    """
    Wins minus losses of each pair of systems, in [-1, 1], as people voted on the whole clip. With several voters the
    p-value is the larger of the tests over prompts and over voters: as the interval, it is to hold for other people too.
    """
    for (first, second), votes in ballots.items():
        whole = [vote for vote in votes if vote.dimension is None]
        if whole:
            outcomes, prompts = [float(vote.outcome) for vote in whole], [vote.prompt for vote in whole]
            voters = [vote.voter for vote in whole]
            estimate = bootstrap_mean(outcomes, prompts, voters=voters)
            units = (prompts, voters) if len(set(voters)) > 1 else (prompts,)
            p_value = max(sign_flip_p(outcomes, clusters) for clusters in units)
            yield Paired(judge, first, second, "preference", *estimate, p_value)


def ballot_wins(judge: str, ballots: Ballots) -> Iterator[WinRate]:
    """Wins of each pair of systems by dimension and overall."""
    for (first, second), votes in ballots.items():
        yield from win_rates(votes, judge=judge, first=first, second=second)


def strengths(judge: str, ballots: Ballots, systems: Sequence[str]) -> list[Strength]:
    """Bradley-Terry's strengths of three systems or more from the votes on the whole clip; nothing of fewer."""
    results, prompts, voters = [], [], []
    for pair, votes in ballots.items():
        for vote in votes:
            if vote.dimension is None:
                results.append((*pair, vote.outcome))
                prompts.append(vote.prompt)
                voters.append(vote.voter)
    compared = [system for system in systems if any(system in result[:2] for result in results)]
    if len(compared) < 3:
        return []
    fitted = bradley_terry(results, compared, clusters=prompts, voters=voters)
    return [Strength(judge, system, estimate) for system, estimate in fitted.items()]


def agreements(people: tuple[str, Ballots], judge: tuple[str, Ballots]) -> list[JudgeAgreement]:
    """How often `judge` votes as the majority of `people`, by dimension and overall, where both judged the same pairs."""
    (names, theirs), (judge_name, ours) = people, judge
    found = []
    for dimension in dimensions_of(vote for votes in theirs.values() for vote in votes):
        human, machine = (_pooled(ballots, dimension) for ballots in (theirs, ours))
        if {vote.pair for vote in human} & {vote.pair for vote in machine}:
            found.append(JudgeAgreement(judge_name, names, dimension, *agreement(human, machine)))
    return found


def _pooled(ballots: Ballots, dimension: str | None) -> list[Vote]:
    """The votes of all pairs of systems on one dimension; a clip key stands for one pair of clips in each of them."""
    return [
        vote._replace(pair=f"{'|'.join(pair)}|{vote.pair}")
        for pair, votes in ballots.items()
        for vote in votes
        if vote.dimension == dimension
    ]
