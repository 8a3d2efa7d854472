"""Every random draw of a training row, from a generator keyed on (seed, optimiser step, row id).

Rank and micro-batch play no part: a resumed run is bit-identical, two processes draw what one would, and evaluation
(which has keys of its own) never shifts training. A row that occurs twice in one optimiser step gets the same draws.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...records import seed_from


class RowDraws(NamedTuple):
    """Draws of B rows, on the CPU: two normal tensors like the latents, `timesteps` i64 [B], `drop_caption` bool [B]."""

    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor
    drop_caption: Tensor


def draw_rows(
    ids: Sequence[str],
    latent_shape: Sequence[int],
    *,
    key: tuple[object, ...],
    num_timesteps: int,
    caption_dropout: float,
    timestep_range: tuple[float, float] = (0.0, 1.0),
) -> RowDraws:
    """
    The draws of the rows `ids` under `key`.

    Args:
        latent_shape: of one row.
        key: what the generator is keyed on beside the row's id, for instance `(seed, optimiser step)`.
        num_timesteps: timesteps are uniform integers in [0, num_timesteps).
        caption_dropout: probability that a row's caption is replaced by the empty prompt.
        timestep_range: part of the timesteps to draw from, as fractions.
    """
    low, high = (round(bound * num_timesteps) for bound in timestep_range)
    rows = []
    for row_id in ids:
        generator = torch.Generator().manual_seed(seed_from(*key, row_id))
        rows.append(
            (
                torch.randn(tuple(latent_shape), generator=generator),
                torch.randn(tuple(latent_shape), generator=generator),
                torch.randint(low, high, (), generator=generator),
                torch.rand((), generator=generator) < caption_dropout,
            )
        )
    return RowDraws(*(torch.stack(column) for column in zip(*rows, strict=True)))
