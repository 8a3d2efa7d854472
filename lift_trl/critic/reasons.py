"""Reasons: greedy text after each chosen label, all questions of all clips at once, on the cache of the scoring pass."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from .prefix import Branches
from .tree import additive


@torch.no_grad()
def write_reasons(
    model: Any,
    branches: Branches,
    chosen: Tensor,
    openings: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_ids: Collection[int],
) -> list[list[list[int]]]:
    """
    The tokens of each clip's reasons, one a question, without what ends them.

    The texts of a clip grow side by side in one row, each seeing the prefix, its question, its label and itself.
    So the cache of the prefix is never copied.

    Args:
        chosen: i64 [B, D], the label whose branch goes on, in the order of the rubric.
        openings: for each label, the tokens between it and the reason (the full stop).
        max_new_tokens: length at which a reason is cut, the opening not counted.
        end_ids: tokens that end a reason.
    """
    batch, width = chosen.shape
    device = chosen.device
    visible, positions, queue = _start(branches, chosen, openings)
    texts: list[list[list[int]]] = [[[] for _ in range(width)] for _ in range(batch)]
    finished = [[False] * width for _ in range(batch)]
    tokens = torch.tensor([[q.pop(0) for q in row] for row in queue], device=device)
    steps = max(len(q) for row in queue for q in row) + max_new_tokens
    eye = torch.eye(width, dtype=torch.bool, device=device).expand(batch, -1, -1)
    for _ in range(steps):
        visible, positions = torch.cat([visible, eye], dim=-1), positions + 1
        output = model(
            input_ids=tokens,
            attention_mask=additive(visible, model.dtype),
            position_ids=positions,
            cache=branches.cache,
            use_cache=True,
        )
        greedy = output.logits.argmax(dim=-1).tolist()  # one wait for the device, not one a text
        for row in range(batch):
            for column in range(width):
                if queue[row][column]:
                    greedy[row][column] = queue[row][column].pop(0)
                elif not finished[row][column]:
                    token, text = greedy[row][column], texts[row][column]
                    finished[row][column] = token in end_ids or len(text) == max_new_tokens
                    if not finished[row][column]:
                        text.append(token)
        if all(all(row) for row in finished):
            break
        tokens = torch.tensor(greedy, device=device)
    return texts


def _start(
    branches: Branches, chosen: Tensor, openings: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, list[list[list[int]]]]:
    """What the chosen branches see (bool [B, D, K]), where they stand (i64 [B, D]), and the tokens still to be fed."""
    picks = chosen.tolist()
    last = [
        [tree.branches[q][pick].nodes[-1] for q, pick in enumerate(row)] for tree, row in zip(branches.trees, picks)
    ]
    nodes = torch.tensor(last, device=chosen.device)
    visible = branches.visible.gather(1, nodes[..., None].expand(-1, -1, branches.visible.shape[-1]))
    return visible, branches.positions.gather(1, nodes), [[list(openings[p]) for p in row] for row in picks]
