"""How far a critic's labels are people's: figures of a table of counts, or of many such tables at once."""

from collections.abc import Sequence

import numpy as np

from ..rubric import LIFT, Rubric


def confusion(truth: Sequence[str], labels: Sequence[str], rubric: Rubric = LIFT) -> np.ndarray:
    """
    Counts [L, L] of the L labels of `rubric`: row is what people said, column what the critic said, worst label first.

    >>> confusion([LIFT.best, LIFT.best], [LIFT.worst, LIFT.best]).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    table = np.zeros((len(rubric.labels), len(rubric.labels)))
    np.add.at(table, ([rubric.rank(t) for t in truth], [rubric.rank(p) for p in labels]), 1)
    return table


def accuracy(tables: np.ndarray) -> np.ndarray:
    """Share of equal labels, of each of the `tables` [..., L, L]."""
    return _hits(tables).sum(axis=-1) / tables.sum(axis=(-2, -1))


def balanced_accuracy(tables: np.ndarray) -> np.ndarray:
    """Mean recall over the labels that people gave; a critic that says one thing only gets 1 over their number."""
    return _mean_share(_hits(tables), tables.sum(axis=-1))


def macro_f1(tables: np.ndarray) -> np.ndarray:
    """Mean F1 over the labels that people or critic gave."""
    return _mean_share(2 * _hits(tables), tables.sum(axis=-1) + tables.sum(axis=-2))


def _hits(tables: np.ndarray) -> np.ndarray:
    return np.diagonal(tables, axis1=-2, axis2=-1)


def _mean_share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Mean over the last axis of `part / whole`, where `whole` is not 0."""
    given = whole > 0
    return (part / np.where(given, whole, 1)).sum(axis=-1) / given.sum(axis=-1)


def quadratic_kappa(tables: np.ndarray) -> np.ndarray:
    """
    Cohen's kappa with quadratic weights of each of the `tables` [..., L, L]: 1 for equal labels, 0 for chance.

    NaN where people and critic gave one and the same label only.

    Source: J. Cohen, Psychological Bulletin 70 (1968), 213-220.
    """
    size = tables.shape[-1]
    distance = (np.arange(size)[:, None] - np.arange(size)) ** 2.0
    chance = tables.sum(axis=-1, keepdims=True) * tables.sum(axis=-2, keepdims=True)
    expected = (chance * distance).sum(axis=(-2, -1)) / tables.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (tables * distance).sum(axis=(-2, -1)) / expected
