"""The loss of pairs: Bradley and Terry's, on the expected rewards that the critic's probabilities of the labels give.

P pairs, U questions about a clip, N label tokens, R rows, L labels, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from ..prefix import LabelTokens
from ..tree import rows_at
from .reading import Pair


class PairBatch(TypedDict):
    """
    What a batch's pairs are asked.

    Attributes:
        inputs: of the model; R rows, each a clip, a question and the beginning of an answer.
        tokens: i64 [N, 4], for each token of each label after each question: its row, the place of the logits that predict
            it, the token, and which of the U * L labels it is a part of.
        signs: float32 [P, U], the weight of each expected reward in the pair's difference: positive for the clip that is
            preferred.
    """

    inputs: dict[str, Any]
    tokens: Tensor
    signs: Tensor


def written_labels(labels: Mapping[str, LabelTokens]) -> list[list[int]]:
    """
    The answers from whose places the tokens of all `labels` are predicted: one for each beginning (all but the last token).

    >>> written_labels({"Good": LabelTokens([5], []), "Bad": LabelTokens([6], []), "Fair": LabelTokens([7, 8], [])})
    [[7, 8]]
    """
    tokens = sorted((label.label for label in labels.values()), key=len, reverse=True)
    kept: list[list[int]] = []
    for label in tokens:
        if not any(other[: len(label) - 1] == label[:-1] for other in kept):
            kept.append(label)
    return kept


def find_tokens(labels: Mapping[str, LabelTokens], starts: Sequence[int]) -> Tensor:
    """
    `PairBatch.tokens` of rows in which `written_labels` follow each question in turn.

    Args:
        starts: the place of each row's first answer token.
    """
    written = written_labels(labels)
    found = []
    for unit in range(len(starts) // len(written)):
        for number, (label, _) in enumerate(labels.values()):
            line = next(n for n, other in enumerate(written) if other[: len(label) - 1] == label[:-1])
            row = unit * len(written) + line
            found += [(row, starts[row] - 1 + k, token, unit * len(labels) + number) for k, token in enumerate(label)]
    return torch.tensor(found)


def pair_signs(pairs: Sequence[Pair]) -> Tensor:
    """`PairBatch.signs`: of each pair the questions on `chosen`, then those on `rejected`; their mean is compared."""
    columns = [
        (row, side / len(pair.dimensions))
        for row, pair in enumerate(pairs)
        for side in (1, -1)
        for _ in pair.dimensions
    ]
    signs = torch.zeros(len(pairs), len(columns))
    for column, (row, weight) in enumerate(columns):
        signs[row, column] = weight
    return signs


def pair_margins(model: Any, batch: PairBatch, rewards: Tensor) -> Tensor:
    """
    How much more reward each preferred clip is expected to get than the other: float32 [P], with gradients.

    Args:
        rewards: float32 [L], of the labels in the rubric's order.
    """
    row, place, token, label = batch["tokens"].T.contiguous()
    places = place.unique()
    length = batch["inputs"]["input_ids"].shape[1]
    logits = model(**batch["inputs"], logits_to_keep=places, use_cache=False).logits
    kept = rows_at(places.tolist(), logits, num_nodes=length)
    logprobs = kept.float().log_softmax(dim=-1)[row, torch.searchsorted(places, place), token]
    totals = logprobs.new_zeros(batch["signs"].shape[1] * len(rewards)).index_add(0, label, logprobs)
    expected = totals.view(-1, len(rewards)).softmax(dim=-1) @ rewards
    return batch["signs"] @ expected


def pair_losses(margins: Tensor, beta: float) -> Tensor:
    """
    -log sigmoid(beta * margin), of each pair.

    >>> pair_losses(torch.tensor([0.0]), beta=10.0)
    tensor([0.6931])

    Source: R. A. Bradley and M. E. Terry, Biometrika 39 (1952), 324-345; the loss of TRL's `RewardTrainer`, with a scale, as
    rewards of labels lie in [0, 1].
    """
    return -F.logsigmoid(beta * margins)
