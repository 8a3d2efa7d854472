"""Several continuations of one prefix in one row: which token sees which, where each stands, and their likelihoods.

B rows, P prefix tokens (padded), S tokens of the tree, K = P + S keys, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Branch(NamedTuple):
    """One label after one question: the node before its first token, and the nodes of its tokens."""

    root: int
    nodes: tuple[int, ...]


class Tree(NamedTuple):
    """
    Tokens that grow from the end of a prefix. Every question is a chain, every label a chain from its question's end.

    Attributes:
        tokens: the S tokens.
        parents: the node before each token, -1 for the end of the prefix. Parents come before their children.
        branches: for each question, one branch for each label.
    """

    tokens: list[int]
    parents: list[int]
    branches: list[list[Branch]]

    def depths(self) -> list[int]:
        """How many tokens stand between the prefix and each token."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    def visible(self) -> Tensor:
        """bool [S, S]: row i sees column j if j is i or stands before it in its chain."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def grow(questions: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> Tree:
    """
    The tree of every question (its tokens after the prefix) and every label (its tokens) after each.

    >>> grow([[5, 6], [7]], [[1], [2, 3]]).tokens
    [5, 6, 1, 2, 3, 7, 1, 2, 3]
    """
    tree = Tree([], [], [])

    def chain(start: int, tokens: Sequence[int]) -> list[int]:
        nodes = list(range(len(tree.tokens), len(tree.tokens) + len(tokens)))
        tree.tokens.extend(tokens)
        tree.parents.extend([start, *nodes[:-1]])
        return nodes

    for question in questions:
        root = chain(-1, question)[-1]
        tree.branches.append([Branch(root, tuple(chain(root, label))) for label in labels])
    return tree


class Layout(NamedTuple):
    """
    The trees of a batch as tensors, padded to the longest.

    Attributes:
        input_ids: i64 [B, S].
        depths: i64 [B, S].
        visible: bool [B, S, P + S].
    """

    input_ids: Tensor
    depths: Tensor
    visible: Tensor


def lay_out(trees: Sequence[Tree], prefix_mask: Tensor) -> Layout:
    """`trees`, one a row, behind prefixes whose tokens `prefix_mask` (bool [B, P]) marks. Padding sees only itself."""
    batch, length = len(trees), max(len(tree.tokens) for tree in trees)
    input_ids = torch.zeros(batch, length, dtype=torch.long)
    depths = torch.zeros(batch, length, dtype=torch.long)
    own = torch.eye(length, dtype=torch.bool).repeat(batch, 1, 1)
    for row, tree in enumerate(trees):
        size = len(tree.tokens)
        input_ids[row, :size] = torch.tensor(tree.tokens)
        depths[row, :size] = torch.tensor(tree.depths())
        own[row, :size, :size] = tree.visible()
    device = prefix_mask.device
    seen = torch.cat([prefix_mask[:, None].expand(-1, length, -1), own.to(device)], dim=-1)
    return Layout(input_ids.to(device), depths.to(device), seen)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The 4-D mask of attention [B, 1, S, K]: 0 where `visible` (bool [B, S, K]), the least number elsewhere."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def branch_logprobs(trees: Sequence[Tree], places: Sequence[int], logits: Tensor) -> Tensor:
    """
    Log-probability of every label after every question: float32 [B, questions, labels], summed over a label's tokens.

    Not divided by length: labels are exclusive events, and their probabilities add up to at most 1.

    Args:
        places: the node of each row of logits, in order.
        logits: [B, len(places), V].
    """
    logprobs = logits.float().log_softmax(dim=-1)
    index = {place: number for number, place in enumerate(places)}
    branches = [(row, tree, branch) for row, tree in enumerate(trees) for q in tree.branches for branch in q]
    found = [
        (row, index[before], tree.tokens[node])
        for row, tree, (root, nodes) in branches
        for before, node in zip((root, *nodes[:-1]), nodes)
    ]
    # All at once: the places go to the device in one copy, not in three a branch.
    parts = logprobs[tuple(torch.tensor(found, device=logits.device).T)].split([len(b.nodes) for _, _, b in branches])
    return torch.stack([part.sum() for part in parts]).view(len(trees), len(trees[0].branches), -1)


def rows_at(places: Sequence[int], logits: Tensor, *, num_nodes: int) -> Tensor:
    """
    The rows of `logits` [B, ?, V] that stand at `places`, whether a model kept these only or, unasked, all `num_nodes`.

    Raises:
        ValueError: if there are neither as many rows as places nor as many as nodes.
    """
    if logits.shape[1] == len(places):
        return logits
    if logits.shape[1] != num_nodes:
        raise ValueError(
            f"the model gave {logits.shape[1]} rows of logits where {len(places)} of {num_nodes} tokens were asked for "
            "(logits_to_keep), so no row can be told from another."
        )
    return logits[:, list(places)]


def predicting_nodes(trees: Sequence[Tree]) -> list[int]:
    """The nodes whose logits some branch needs, sorted."""
    return sorted({n for tree in trees for q in tree.branches for b in q for n in (b.root, *b.nodes[:-1])})
