"""Who wins: pairwise votes of people or a critic as win, tie and loss shares, majorities, Bradley-Terry, agreement."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..records import Comparison
from ..rubric import LIFT
from .intervals import Estimate, bootstrap_share, interval, resample_counts


CHOICES = ("a", "b", "tie")
#: Regularisation of Bradley-Terry: without it a system that won every vote would be infinitely strong.
ALPHA = 0.01


class Vote(NamedTuple):
    """One comparison, seen from `first`: +1 it won, -1 it lost, 0 tie. `pair` is what the voters share."""

    prompt: str
    pair: str
    dimension: str | None
    outcome: int
    voter: str


@dataclass(frozen=True)
class WinRate:
    """
    How `first` does against `second` on one dimension (`None` = overall).

    Attributes:
        judge: who voted, for the reader: "people", "critic", ...
        win, tie, loss: shares of the votes; intervals over prompts and, if several people voted, over them.
        majority_win, majority_tie, majority_loss: shares of the pairs by majority vote; equal counts are a tie.
        strength: Bradley-Terry's log-strength of `first` over `second`, ties as half a win each.
        num_votes, num_pairs: what the shares are of.
    """

    judge: str
    first: str
    second: str
    dimension: str | None
    win: Estimate
    tie: Estimate
    loss: Estimate
    majority_win: float
    majority_tie: float
    majority_loss: float
    strength: Estimate
    num_votes: int
    num_pairs: int


def to_votes(
    comparisons: Iterable[Comparison],
    system_of: Mapping[str, str] | Callable[[str], str],
    *,
    first: str,
    second: str,
    key_of: Callable[[str], str] = str,
) -> list[Vote]:
    """
    The comparisons of `first` with `second`, whichever stood on the left; others are left out.

    Args:
        system_of: the system of a video, by its path.
        key_of: the key that clips of one prompt and seed share, by the video's path; with it the votes are of the same
            pairs as the critic's are keyed. By default pairs are told apart by their paths.

    Raises:
        ValueError: if a choice is not `a`, `b` or `tie`.
    """
    find = system_of.__getitem__ if isinstance(system_of, Mapping) else system_of
    votes = []
    for row in comparisons:
        if row.choice not in CHOICES:
            raise ValueError(f"comparison {row.id}: choice {row.choice!r}; use one of {', '.join(CHOICES)}.")
        systems = (find(row.video_a), find(row.video_b))
        if systems not in ((first, second), (second, first)):
            continue
        sign = {"a": 1, "b": -1, "tie": 0}[row.choice] * (1 if systems[0] == first else -1)
        keys = sorted({key_of(row.video_a), key_of(row.video_b)})
        votes.append(Vote(row.prompt, "|".join(keys), row.dimension, sign, row.voter))
    return votes


def win_rates(votes: Sequence[Vote], *, judge: str, first: str, second: str, seed: int = 0) -> list[WinRate]:
    """
    One `WinRate` for each dimension that was voted on, overall last.

    Raises:
        ValueError: if there is no vote.
    """
    if not votes:
        raise ValueError(f"no vote compares {first!r} with {second!r}; check the names of the systems.")
    groups = ((d, [vote for vote in votes if vote.dimension == d]) for d in dimensions_of(votes))
    return [_win_rate(group, d, judge, first, second, seed) for d, group in groups if group]


def dimensions_of(votes: Iterable[Vote]) -> list[str | None]:
    """What can be voted on: LiFT's dimensions, those of another rubric that have votes, and overall (`None`)."""
    return [*dict.fromkeys([*LIFT.dimensions, *(vote.dimension for vote in votes if vote.dimension)]), None]


def _win_rate(votes: Sequence[Vote], dimension: str | None, judge: str, first: str, second: str, seed: int) -> WinRate:
    prompts, voters = [vote.prompt for vote in votes], [vote.voter for vote in votes]
    win, tie, loss = (
        bootstrap_share([v.outcome == outcome for v in votes], prompts, voters=voters, seed=seed)
        for outcome in (1, 0, -1)
    )
    majorities = Counter(majority(votes).values())
    num_pairs = sum(majorities.values())
    return WinRate(
        judge=judge,
        first=first,
        second=second,
        dimension=dimension,
        win=win,
        tie=tie,
        loss=loss,
        majority_win=majorities[1] / num_pairs,
        majority_tie=majorities[0] / num_pairs,
        majority_loss=majorities[-1] / num_pairs,
        strength=bradley_terry_pair(votes, seed=seed),
        num_votes=len(votes),
        num_pairs=num_pairs,
    )


def majority(votes: Sequence[Vote]) -> dict[str, int]:
    """
    The outcome that most voters of each pair gave: pair -> +1, 0, -1. Equal counts are a tie.

    Source: the paper's user study (appendix B.6): six votes a pair, with ties.
    """
    pairs: dict[str, list[int]] = {}
    for vote in votes:
        pairs.setdefault(vote.pair, []).append(vote.outcome)
    decided = {}
    for pair, outcomes in pairs.items():
        (top, count), *rest = Counter(outcomes).most_common()
        decided[pair] = 0 if rest and rest[0][1] == count else top
    return decided


def bradley_terry(
    results: Sequence[tuple[str, str, int]],
    systems: Sequence[str],
    *,
    clusters: Sequence[str],
    voters: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """
    Log-strengths of `systems` (mean 0) from `results` (a, b, outcome for a), with intervals by bootstrap over `clusters`
    and, where there are several, over `voters`.

    A tie counts as half a win for each side. There is no interval where all resamples are equal (every vote won, or one
    cluster): the strength of a system that never lost has no upper bound.

    Raises:
        ValueError: if there is no result.

    Source: Bradley and Terry (1952), fitted by `choix` (I-LSR, Maystre and Grossglauser 2015), alpha 0.01.
    """
    if not results:
        raise ValueError("Bradley-Terry needs at least one comparison.")
    place = {system: number for number, system in enumerate(systems)}
    _, index = np.unique(list(clusters), return_inverse=True)
    num_clusters = int(index.max()) + 1
    people, voter = np.unique(list(voters or [""] * len(results)), return_inverse=True)
    wins = np.zeros((num_clusters, len(people), len(systems), len(systems)), dtype=int)
    for cluster, person, (a, b, outcome) in zip(index, voter, results):
        # Two half-votes each: a tie gives one to either side.
        wins[cluster, person, place[a], place[b]] += 1 + outcome
        wins[cluster, person, place[b], place[a]] += 1 - outcome
    values = fit_strengths(wins.sum((0, 1)))
    draws = zip(
        resample_counts([0] * num_clusters, seed=seed, num_resamples=400),
        resample_counts([0] * len(people), seed=seed + 1, num_resamples=400),
    )
    fitted = np.stack([fit_strengths(np.tensordot(v, np.tensordot(c, wins, 1), 1)) for c, v in draws])
    differ = np.ptp(fitted, axis=0) > 1e-9
    return {
        s: Estimate(float(values[i]), interval(fitted[:, i]) if differ[i] else None, num_clusters)
        for s, i in place.items()
    }


def fit_strengths(half_wins: np.ndarray) -> np.ndarray:
    """Log-strengths (mean 0) of a matrix of half-wins, row over column."""
    import choix

    if len(half_wins) == 2:
        # Two systems have a closed form; this is where I-LSR with the same regularisation converges to.
        first, second = half_wins[0, 1] / 2 + ALPHA, half_wins[1, 0] / 2 + ALPHA
        log_ratio = math.log(first / second)
        return np.array([log_ratio / 2, -log_ratio / 2])
    strengths: np.ndarray = choix.ilsr_pairwise_dense(half_wins / 2, alpha=ALPHA)
    return strengths - strengths.mean()


def bradley_terry_pair(votes: Sequence[Vote], *, seed: int = 0) -> Estimate:
    """Bradley-Terry's log-strength of the first system over the second, 0 if equal; an odds ratio after `exp`."""
    results = [("first", "second", vote.outcome) for vote in votes]
    prompts, voters = [vote.prompt for vote in votes], [vote.voter for vote in votes]
    fitted = bradley_terry(results, ("first", "second"), clusters=prompts, voters=voters, seed=seed)["first"]
    ci95 = None if fitted.ci95 is None else (2 * fitted.ci95[0], 2 * fitted.ci95[1])
    return Estimate(2 * fitted.value, ci95, fitted.n)


class Agreement(NamedTuple):
    """
    How often a critic votes as the people's majority does.

    Attributes:
        with_ties: share of pairs with the same of three outcomes.
        without_ties: share of pairs with the same winner, where the people named one; a critic's tie is wrong.
        kappa: Cohen's kappa of the three outcomes, NaN if either side gave one outcome only.
    """

    with_ties: Estimate
    without_ties: Estimate | None
    kappa: float


def agreement(people: Sequence[Vote], critic: Sequence[Vote]) -> Agreement:
    """
    Agreement of `critic` with the majority of `people` on the pairs (and dimensions) that both judged. The pairs of both
    need the same keys: `to_votes` with `key_of` gives those of the clips.

    Raises:
        ValueError: if they share none.
    """
    ours = {vote.pair + str(vote.dimension): vote for vote in critic}
    keyed = [vote._replace(pair=vote.pair + str(vote.dimension)) for vote in people]
    theirs = majority(keyed)
    shared = sorted(theirs.keys() & ours.keys())
    if not shared:
        raise ValueError(
            "people and critic judged no pair in common; give `to_votes` a key_of that gives the keys of the critic's pairs."
        )
    human = np.array([theirs[key] for key in shared])
    machine = np.array([ours[key].outcome for key in shared])
    prompts = [ours[key].prompt for key in shared]
    same = human == machine
    decided = human != 0
    without = bootstrap_share(same[decided], [p for p, d in zip(prompts, decided) if d]) if decided.any() else None
    by_chance = sum(float((human == o).mean() * (machine == o).mean()) for o in (-1, 0, 1))
    kappa = (float(same.mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan
    return Agreement(bootstrap_share(same, prompts), without, kappa)
