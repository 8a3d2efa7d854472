"""Confidence intervals: Wilson's for a share, the bootstrap over clusters (prompts) for anything that is a mean."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


#: Two-sided 95 % quantile of the standard normal distribution.
Z95 = 1.959963984540054
NUM_RESAMPLES = 2000
#: With fewer independent units a percentile bootstrap interval is too narrow to be believed.
FEW_UNITS = 8


class Estimate(NamedTuple):
    """A figure, its 95 % interval (`None` where one cluster is all there is) and the number of independent units."""

    value: float
    ci95: tuple[float, float] | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0 and there are enough units to believe it."""
        return self.n >= FEW_UNITS and (self.is_above_zero or self.is_below_zero)

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.ci95 is not None and self.ci95[0] > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.ci95 is not None and self.ci95[1] < 0


def wilson(successes: float, n: int) -> Estimate:
    """
    The share `successes / n` with Wilson's score interval, which stays in [0, 1] and is right for small `n`.

    >>> estimate = wilson(8, 10)
    >>> [round(x, 3) for x in (estimate.value, *estimate.ci95)]
    [0.8, 0.49, 0.943]

    Raises:
        ValueError: if `n` is not positive or `successes` is not in [0, n].

    Source: E. B. Wilson, JASA 22 (1927), 209-212.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; give n >= 1 and 0 <= successes <= n.")
    share = successes / n
    denominator = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / denominator
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / denominator
    return Estimate(share, (max(0.0, centre - half), min(1.0, centre + half)), n)


def resample_counts(strata: Sequence[int], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> np.ndarray:
    """
    How often each of N units is drawn in each bootstrap resample, units being redrawn within their own stratum.

    Args:
        strata: the stratum of each of the N units.

    Returns:
        Array of shape (num_resamples, N), integers; each row sums to N.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(strata)
    counts = np.zeros((num_resamples, len(labels)), dtype=np.int64)
    for stratum in np.unique(labels):
        members = np.flatnonzero(labels == stratum)
        share = np.full(len(members), 1 / len(members))
        counts[:, members] = generator.multinomial(len(members), share, size=num_resamples)
    return counts


def interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap `values`."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    voters: Sequence[str] | None = None,
    seed: int = 0,
) -> Estimate:
    """
    The mean of `values` with the percentile bootstrap interval over `clusters` (each value its own by default).

    Samples of one prompt are not independent; with the prompts as `clusters` the interval tells how far the mean would
    move with other prompts. Nor are the votes of one person: with several `voters` these are redrawn as well, and the
    interval holds for other people too.

    >>> bootstrap_mean([0.5, 0.5, 0.5]).ci95
    (0.5, 0.5)

    Raises:
        ValueError: if there is no value, or one that is not finite.

    Source: A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007), 386-411, for two kinds of clusters.
    """
    array = np.asarray(values, dtype=float)
    if not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{len(array)} values, all must be finite numbers; leave unscored rows out before averaging.")
    names = [str(i) for i in range(len(array))] if clusters is None else list(clusters)
    _, index = np.unique(names, return_inverse=True)
    sums, sizes = np.bincount(index, weights=array), np.bincount(index)
    if len(sums) == 1:
        return Estimate(float(array.mean()), None, 1)
    counts = resample_counts([0] * len(sums), seed=seed)
    if voters is None or len(set(voters)) == 1:
        return Estimate(float(array.mean()), interval((counts @ sums) / (counts @ sizes)), len(sums))
    people, voter = np.unique(list(voters), return_inverse=True)
    totals, votes = np.zeros((2, len(sums), len(people)))
    np.add.at(totals, (index, voter), array)
    np.add.at(votes, (index, voter), 1)
    drawn = resample_counts([0] * len(people), seed=seed + 1)
    with np.errstate(invalid="ignore"):  # a draw of voters and prompts that have no vote in common says nothing
        means = ((counts @ totals) * drawn).sum(axis=1) / ((counts @ votes) * drawn).sum(axis=1)
    return Estimate(float(array.mean()), interval(means[np.isfinite(means)]), len(sums))


def bootstrap_share(
    hits: Sequence[bool],
    clusters: Sequence[str] | None = None,
    *,
    voters: Sequence[str] | None = None,
    seed: int = 0,
) -> Estimate:
    """
    The share of `hits` with an interval over `clusters`: the bootstrap's, or Wilson's where all clusters have one share.

    The bootstrap of 5 wins in 5 draws nothing but wins, and would leave no doubt that the share is 1.

    >>> low, high = bootstrap_share([True] * 5).ci95
    >>> f"{low:.3f} {high:.3f}"
    '0.566 1.000'
    """
    estimate = bootstrap_mean([float(hit) for hit in hits], clusters, voters=voters, seed=seed)
    if estimate.ci95 is None or estimate.ci95[1] - estimate.ci95[0] > 1e-9:
        return estimate
    return wilson(estimate.value * estimate.n, estimate.n)
