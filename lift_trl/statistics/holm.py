"""A test of one difference by flipping signs, and Holm's correction for several: no verdict by looking often enough."""

from collections.abc import Mapping, Sequence

import numpy as np


NUM_FLIPS = 9999
#: Chance of a verdict where there is no difference, over all systems of one report.
LEVEL = 0.05


def sign_flip_p(differences: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> float:
    """
    Two-sided p-value of the mean of paired `differences` being 0, `clusters` (prompts, voters) flipped together.

    If a system changes nothing, each prompt's (or voter's) difference is as likely to have the other sign. Fewer than six
    clusters are too few for a verdict: of five that agree p is 0.06.

    >>> sign_flip_p([0.1] * 8, [str(i) for i in range(8)]) < 0.02
    True
    >>> sign_flip_p([0.1, -0.1], ["a", "b"])
    1.0

    Raises:
        ValueError: if there is no difference.

    Source: Fisher's randomisation test; Phipson and Smyth (2010) for the 1 in numerator and denominator.
    """
    if not len(differences):
        raise ValueError("no difference to test; pair clips of the same prompts and seeds.")
    _, index = np.unique(list(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(differences, float))
    signs = np.random.default_rng(seed).integers(0, 2, (NUM_FLIPS, len(sums)), dtype=np.int8) * 2 - 1
    # A sum that is equal but for rounding counts as equal.
    extreme = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9
    return float((1 + extreme.sum()) / (1 + NUM_FLIPS))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """
    `p_values` by name, each corrected for all of them: below `LEVEL` is a verdict.

    >>> {name: round(p, 3) for name, p in holm({"a": 0.01, "b": 0.04, "c": 0.03}).items()}
    {'a': 0.03, 'b': 0.06, 'c': 0.06}

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
