"""Gives a VLM's language model a better vision tower without having to learn its tokens afresh.

    python -m lift_trl.mini.train.swap_tower --vlm RUN --tower RUN --samples FOLDER --out NEW_RUN

Both runs are of `train.vlm`. The new run has the second one's tower, the first one's language model and helper heads, and
between them a connector fitted to two ends: the tokens of a picture are nearly those that the language model knows, and they
tell what is in the picture as exactly as the new tower does. Go on with `train.vlm --out NEW_RUN --vision-steps 0`.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration

from ...store.sharding import chunks
from ..checkpoints import TOKENS_PER_IMAGE, VLM_PATCH, build_tiny_vlm
from ..shapes import COLOURS, SHAPES, SIZE
from .runs import cooldown, set_rate
from .seen_clips import SeenClip, draw_clips, read_samples
from .vlm import HELD_OUT, picture_loss
from .vlm_tasks import Pictures, frames_of


NUM_RENDERINGS = 600
#: Weight of the tokens' squared error, in shares of the known tokens' variance, beside the loss of what they tell.
CLOSENESS = 20.0
BATCH_SIZE = 768
#: Directions of the tower's output with less than this share of the largest variance are scaled as if they had it.
NEGLIGIBLE = 1e-9


@torch.no_grad()
def tower_outputs(model: Idefics3ForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What the connector's projection sees of each picture, `[N, 4, 576]`."""
    patches = SIZE // VLM_PATCH
    connector = model.model.connector
    outputs = []
    for part in pixels.split(256):
        seen = torch.ones(len(part), patches, patches, dtype=torch.bool)
        hidden = model.model.vision_model(pixel_values=part, patch_attention_mask=seen).last_hidden_state
        outputs.append(connector.pixel_shuffle(hidden, connector.scale_factor))
    return torch.cat(outputs)


def fit_projection(seen: Tensor, known: Tensor, pictures: Pictures, *, num_steps: int, seed: int) -> Tensor:
    """
    The projection's weight `[D, F]` for a new tower.

    Args:
        seen: `[N, 4, F]`, `tower_outputs` of the new tower.
        known: `[N, 4, D]`, the tokens of the same pictures that the language model knows.
        pictures: what there is to see in them.
        num_steps: of Adam, on `BATCH_SIZE` pictures each, from the least squares solution.
        seed: of the choice of pictures.
    """
    flat = seen.flatten(0, 1).double()
    variance, axes = torch.linalg.eigh(flat.T @ flat / len(flat))
    scale = variance.clamp_min(variance.max() * NEGLIGIBLE).sqrt()
    white = flat @ (axes / scale)  # every direction counts the same, or Adam would never reach the small ones
    weight = nn.Parameter(torch.linalg.lstsq(white, known.flatten(0, 1).double()).solution.float())
    white = white.float().unflatten(0, seen.shape[:2])
    head = nn.Sequential(
        nn.BatchNorm1d(TOKENS_PER_IMAGE * known.shape[-1], affine=False),
        nn.Linear(TOKENS_PER_IMAGE * known.shape[-1], len(COLOURS) + len(SHAPES) + 4),
    )
    optimizer = torch.optim.Adam([{"params": [weight], "lr": 2e-3}, {"params": [*head.parameters()], "lr": 3e-3}])
    spread = known.flatten(0, 1).var(0).sum()
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        set_rate((optimizer,), cooldown(step, num_steps, share=0.5))
        rows = torch.randint(len(seen), (BATCH_SIZE,), generator=generator)
        tokens = white[rows] @ weight
        apart = (tokens - known[rows]).square().sum(-1).mean() / spread
        told = picture_loss(head(tokens.flatten(1)), Pictures(*(part[rows] for part in pictures)))
        optimizer.zero_grad()
        (told + CLOSENESS * apart).backward()
        optimizer.step()
    return (weight.detach().T @ (axes / scale).T.float()).contiguous()


def swap(
    vlm: Idefics3ForConditionalGeneration,
    tower: Idefics3ForConditionalGeneration,
    clips: list[SeenClip],
    *,
    num_steps: int = 1500,
    seed: int = 0,
) -> Idefics3ForConditionalGeneration:
    """A copy of `vlm` with the tower of the other, and a connector fitted on the frames of `clips`."""
    parts = [frames_of(part) for part in chunks(clips, 128)]
    pictures = Pictures(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    projection = vlm.model.connector.modality_projection.proj
    known = tower_outputs(vlm, pictures.pixels) @ projection.weight.detach().T
    seen = tower_outputs(tower, pictures.pixels)
    swapped = copy.deepcopy(vlm)
    swapped.model.vision_model.load_state_dict(tower.model.vision_model.state_dict())
    weight = fit_projection(seen, known, pictures, num_steps=num_steps, seed=seed)
    swapped.model.connector.modality_projection.proj.weight.data.copy_(weight)
    return swapped


def _load(run: Path) -> tuple[dict[str, object], Idefics3ForConditionalGeneration]:
    """The state of a run and its model."""
    state = torch.load(run / "state.pt", weights_only=True)
    model, _ = build_tiny_vlm()
    model.load_state_dict(state["model"])
    return state, model.eval()


def main() -> None:
    """Reads the command line and writes the new run's state."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm", type=Path, required=True, help="Run whose language model is kept.")
    parser.add_argument("--tower", type=Path, required=True, help="Run whose vision tower is taken.")
    parser.add_argument("--samples", type=Path, required=True, help="Videos of the base model.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the new run.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    state, vlm = _load(args.vlm)
    _, tower = _load(args.tower)
    rng = np.random.default_rng(3)
    clips = read_samples(args.samples)[HELD_OUT:] + draw_clips(rng, NUM_RENDERINGS)
    args.out.mkdir(parents=True)
    torch.save({**state, "model": swap(vlm, tower, clips).state_dict(), "step": 0}, args.out / "state.pt")


if __name__ == "__main__":
    main()
