"""How far a critic's labels are people's: figures of a table of counts, or of many such tables at once."""

from collections.abc import Sequence

import numpy as np

from ..rubric import Label


def confusion(truth: Sequence[Label], labels: Sequence[Label]) -> np.ndarray:
    """
    Counts [3, 3]: row is what people said, column what the critic said, worst label first.

    >>> confusion([Label.GOOD, Label.GOOD], [Label.BAD, Label.GOOD]).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    table = np.zeros((len(Label), len(Label)))
    np.add.at(table, ([t.rank for t in truth], [p.rank for p in labels]), 1)
    return table


def accuracy(tables: np.ndarray) -> np.ndarray:
    """Share of equal labels, of each of the `tables` [..., 3, 3]."""
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
    Cohen's kappa with quadratic weights of each of the `tables` [..., 3, 3]: 1 for equal labels, 0 for chance.

    NaN where people and critic gave one and the same label only.

    Source: J. Cohen, Psychological Bulletin 70 (1968), 213-220.
    """
    size = tables.shape[-1]
    distance = (np.arange(size)[:, None] - np.arange(size)) ** 2.0
    chance = tables.sum(axis=-1, keepdims=True) * tables.sum(axis=-2, keepdims=True)
    expected = (chance * distance).sum(axis=(-2, -1)) / tables.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (tables * distance).sum(axis=(-2, -1)) / expected
