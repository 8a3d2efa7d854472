"""From few layers to all: the layers of a network are alike, so two depths tell what each further layer takes."""

from collections.abc import Callable, Mapping

from .configured import Depths
from .meter import Count, linear


#: Depths that are counted. Less than two would leave out what stands between two layers.
FEW, MORE = 2, 4


def at_full_depth(count: Callable[[Depths], Count], layers: Depths) -> Count:
    """
    What `count` would give at the depths `layers`, from runs at 2 and 4 layers of each kind.

    Args:
        count: runs the code with so many layers.
        layers: (component, key) -> the checkpoint's own number of layers.
    """
    few = at_least(layers)
    base = count(few)
    terms = [(1.0, base)]
    for key, number in layers.items():
        if number > FEW:
            per_layer = (number - FEW) / (MORE - FEW)
            terms += [(per_layer, count({**few, key: MORE})), (-per_layer, base)]
    return linear(terms)


def at_least(layers: Depths) -> Depths:
    """The fewest layers that are counted."""
    return {key: min(number, FEW) for key, number in layers.items()}


def at_batch(one: Count, two: Count, batch: int) -> Count:
    """What a batch of `batch` takes, from batches of one and of two: all is linear in it."""
    return linear([(2.0 - batch, one), (batch - 1.0, two)])


def of_components(layers: Mapping[tuple[str, str], int], *components: str) -> Depths:
    """The layers of the named components."""
    return {key: number for key, number in layers.items() if key[0] in components}
