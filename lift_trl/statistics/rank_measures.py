"""How well a critic puts clips in order, whatever it calls them: of each of R bootstrap resamples at once.

R resamples, N verdicts, G distinct values. A resample is given by how often each verdict was drawn: `weights` [R, N].
A critic whose labels lean to one side may still rank well; accuracy of labels alone does not tell.
"""

from collections.abc import Callable

import numpy as np


#: Resamples that are held in memory at once.
CHUNK = 64


def auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Chance [R] that a positive verdict has a higher score than another, ties counted half; NaN where a side is empty.

    Args:
        scores: float [N].
        positive: bool [N].

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]), np.ones((1, 4))).tolist()
    [0.875]
    """
    return _by_chunks(lambda part: _auc(scores, positive, part), weights)


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Spearman's rank correlation [R] of `x` and `y` (both [N]), equal values at their mean rank; NaN where one is constant.

    >>> spearman(np.array([1, 2, 3, 9]), np.array([10, 30, 20, 40]), np.ones((1, 4))).round(4).tolist()
    [0.8]
    """
    return _by_chunks(lambda part: _correlation(_ranks(x, part), _ranks(y, part), part), weights)


def without_prior(probs: np.ndarray) -> np.ndarray:
    """
    The labels [N] that gain most over the mean of `probs` [N, 3]: what the critic says once its leaning is taken out.

    >>> without_prior(np.array([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3]])).tolist()
    [1, 2]

    Source: logit adjustment, Menon et al., arXiv 2007.07314, with the critic's own mean as the prior.
    """
    return np.asarray((probs / np.maximum(probs.mean(axis=0), 1e-12)).argmax(axis=1))


def _by_chunks(measure: Callable[[np.ndarray], np.ndarray], weights: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate([measure(weights[i : i + CHUNK]) for i in range(0, len(weights), CHUNK)])


def _grouped(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weight of each distinct value, in order ([R, G]), and which of them each verdict has ([N])."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    return np.add.reduceat(weights[:, order], starts, axis=1), group


def _auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    above, _ = _grouped(scores, weights * positive)
    below, _ = _grouped(scores, weights * ~positive)
    won = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    return np.asarray(won / (above.sum(axis=1) * below.sum(axis=1)))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean rank [R, N] of each verdict."""
    mass, group = _grouped(values, weights)
    return (mass.cumsum(axis=1) - mass / 2)[:, group]


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    return np.asarray((weights * x * y).sum(axis=1) / spread)
