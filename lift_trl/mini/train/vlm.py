"""Pre-trains the mini world's VLM from nothing: `python -m lift_trl.mini.train.vlm --out runs/mini_vlm`. Resumable.

First the vision tower alone learns from single pictures (in place of a pre-trained tower), then the whole model answers
questions about clips: renderings, and samples of the base model. It sees no rating.
"""

import argparse
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ...rubric import Dimension
from ...store.sharding import chunks
from ..checkpoints import TOKENS_PER_IMAGE, build_tiny_vlm
from ..shapes import COLOURS, DIRECTIONS, SHAPES, SIZE
from .runs import FlatMuon, Run, clip_and_step, cooldown, set_rate
from .seen_clips import FLAW_WORDS, NUM_MEASURES, WOBBLE_WORDS, SeenClip, draw_clips, read_samples
from .vlm_tasks import (
    IGNORED,
    NUM_IMAGES,
    PackedClips,
    Pictures,
    Tokenize,
    draw_checks,
    draw_pictures,
    frames_of,
    pack,
)


SAVE_EVERY_S = 120.0
#: Errors of a picture's place (x, y: 0.3 pixels), static and misfit that count as 1: what the ratings of motion and fidelity
#: hang on is as small as that, and squared errors in shares of the picture were blind to it.
PRECISION = (0.3 / 12, 0.3 / 12, 0.1, 0.1)
#: Layer of the language model from whose state after the last picture the helper heads read the clip.
HELPER_LAYER = 2
HELPER_WEIGHT = 0.3
#: Among the helpers' losses, that of what is measured for a question of the rubric.
MEASURE_WEIGHT = 10.0
#: Layers of the language model after which a picture's last token tells the step from the picture before, and how that
#: step differs from the one before it: without these two, motion is not learned (`weights/TRAINING.md`).
STEP_LAYERS = (1, 2)
#: Pixels that count as 1 in the losses of steps.
STEP_SCALE = 3.0
#: Clip steps after which the rate falls with the square root of the steps: Muon's steps do not shrink by themselves.
SETTLED = 200
#: Share of samples in a batch of clips, where there are any.
SAMPLE_SHARE = 0.75
#: Of the samples, the first are never trained on.
HELD_OUT = 192
NUM_CLASSES = (len(COLOURS), len(SHAPES), len(DIRECTIONS), len(WOBBLE_WORDS), len(FLAW_WORDS))


class Helpers(nn.Module):
    """Linear heads that only training uses: on the connector's tokens of a picture, on the clip's state, on steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.picture = nn.Linear(TOKENS_PER_IMAGE * width, len(COLOURS) + len(SHAPES) + 4)
        self.clip = nn.Linear(width, sum(NUM_CLASSES))
        self.steps = nn.ModuleList(nn.Linear(width, 2) for _ in STEP_LAYERS)
        self.measures = nn.ModuleDict({d.value: nn.Linear(width, number) for d, number in NUM_MEASURES.items()})
        for weight in self.parameters():  # a head that knows nothing yet must not disturb what it reads
            nn.init.zeros_(weight)


def encode_pictures(model: Idefics3ForConditionalGeneration, pictures: Pictures) -> Tensor:
    """Each picture's tokens from vision tower and connector, `[N, 4, D]`; in float32, for the sake of tenths of a pixel."""
    return torch.stack(list(model.model.get_image_features(pictures.pixels[:, None]).pooler_output))


def picture_loss(output: Tensor, pictures: Pictures) -> Tensor:
    """Colour and shape by cross-entropy, place, static and misfit by Huber's loss, of a head's output `[N, 4 + 3 + 4]`."""
    colour, shape, measures = output.split((len(COLOURS), len(SHAPES), 4), -1)
    error = (measures - pictures.measures) / torch.tensor(PRECISION)
    return (
        nn.functional.cross_entropy(colour, pictures.colour)
        + nn.functional.cross_entropy(shape, pictures.shape)
        + 2 * nn.functional.smooth_l1_loss(error, torch.zeros_like(error))
    )


def clip_outputs(model: Idefics3ForConditionalGeneration, encoded: Tensor, batch: PackedClips) -> tuple[Tensor, ...]:
    """The hidden states `[B, L, D]`: the embeddings, then those after each layer, the last one normed."""
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.mask,
            position_ids=batch.position_ids,
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=encoded.flatten(0, 1))},
            output_hidden_states=True,
            use_cache=False,
        )
    return tuple(output.hidden_states)


def step_loss(helpers: Helpers, states: tuple[Tensor, ...], batch: PackedClips) -> Tensor:
    """Squared error of each picture's step from the one before, and of the step's change, read at its last token."""
    places = batch.pictures.measures[:, :2].unflatten(0, (-1, NUM_IMAGES)) * (SIZE / 4 / STEP_SCALE)
    ends = batch.prefix_length - 1 - torch.arange(NUM_IMAGES - 1, -1, -1) * (batch.prefix_length // NUM_IMAGES)
    loss = torch.zeros(())
    for order, (layer, head) in enumerate(zip(STEP_LAYERS, helpers.steps, strict=True), start=1):
        told = head(states[layer][:, ends[order:]].float())
        loss = loss + nn.functional.mse_loss(told, places.diff(n=order, dim=1))
    return loss


def measure_loss(helpers: Helpers, states: Tensor, measured: dict[Dimension, tuple[Tensor, Tensor]]) -> Tensor:
    """Cross-entropy of what is measured, read from `states` `[Q, D]`, where the answers to the Q questions begin."""
    loss = torch.zeros(())
    for dimension, (rows, found) in measured.items():
        loss = loss + nn.functional.binary_cross_entropy_with_logits(
            helpers.measures[dimension.value](states[rows]), found
        )
    return loss


def clip_loss(model: Idefics3ForConditionalGeneration, helpers: Helpers, batch: PackedClips) -> tuple[Tensor, Tensor]:
    """
    Cross-entropy of the answers, and the losses of the helper heads. Vision tower and connector stay as they are: 250 steps
    of learning with the language model took a place that they told to 0.3 pixels to 1 or 2.

    An answer's first word, which decides, counts as much as all that follow it.
    """
    with torch.no_grad():
        encoded = encode_pictures(model, batch.pictures)
    hidden = clip_outputs(model, encoded, batch)
    states, summary = hidden[-1], hidden[HELPER_LAYER][:, batch.prefix_length - 1]
    targets = batch.labels[:, 1:].clone()
    row, position = batch.first_answers.T
    first = targets[row, position - 1]
    targets[row, position - 1] = IGNORED
    rest = targets != IGNORED
    begins = states[row, position - 1].float()
    answer = nn.functional.cross_entropy(model.lm_head(begins), first)
    answer = answer + nn.functional.cross_entropy(model.lm_head(states[:, :-1][rest].float()), targets[rest])
    heads = helpers.clip(summary.float()).split(NUM_CLASSES, -1)
    helper = sum(nn.functional.cross_entropy(head, batch.classes[:, i]) for i, head in enumerate(heads))
    measures = measure_loss(helpers, begins, batch.measured)
    return answer, helper + step_loss(helpers, hidden, batch) + MEASURE_WEIGHT * measures


@torch.no_grad()
def evaluate(
    model: Idefics3ForConditionalGeneration,
    helpers: Helpers,
    tokenize: Tokenize,
    held_out: Sequence[SeenClip] | None = None,
) -> dict[str, float]:
    """
    Of held-out clips, 192 renderings by default: share of checks whose first answer word is the likeliest, by kind, and
    of what is measured for the rubric's questions the share that the heads tell right, by dimension.
    """
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    rng = np.random.default_rng(1_000_003)
    for clips in chunks(held_out or draw_clips(rng, 192), 32):
        batch = pack(tokenize, clips, [draw_checks(rng, clip) for clip in clips])
        states = clip_outputs(model, encode_pictures(model, batch.pictures), batch)[-1]
        row, position = batch.first_answers.T
        begins = states[row, position - 1].float()
        for dimension, (rows, found) in batch.measured.items():
            told = helpers.measures[dimension.value](begins[rows]) > 0
            right[f"measured_{dimension}"] += (told == (found > 0.5)).flatten().tolist()
        guesses = model.lm_head(begins).argmax(-1)
        for kind, hit in zip(batch.kinds, guesses == batch.labels[row, position], strict=True):
            right[kind].append(bool(hit))
    model.train()
    return {kind: float(np.mean(hits)) for kind, hits in right.items() if kind not in ("blind", "label")}


def train(args: argparse.Namespace) -> None:
    """Trains what is left of the vision and the clip steps and saves model and processor to `out/vlm`."""
    samples = read_samples(args.samples) if args.samples else []
    out, seed, vision_steps, clip_steps = args.out, args.seed, args.vision_steps, args.clip_steps
    torch.manual_seed(seed)
    model, processor = build_tiny_vlm(seed=seed)
    if args.start_from is not None:
        model = Idefics3ForConditionalGeneration.from_pretrained(args.start_from, dtype=torch.float32)
    # At this size plain matrix products take two thirds of the time of torch's fused attention on a CPU.
    model.set_attn_implementation("eager")
    model.train()
    helpers = Helpers(model.get_input_embeddings().embedding_dim)

    @functools.cache
    def tokenize(text: str) -> list[int]:
        return processor.tokenizer(text).input_ids

    frames = frames_of(samples[HELD_OUT:]) if samples and vision_steps else None
    muon, adam = _optimizers(model, helpers, args.rate)
    run = Run(out, {"model": model, "helpers": helpers, "muon": muon, "adam": adam})
    run.resume()
    saved_s, num_steps = time.monotonic(), vision_steps + clip_steps
    while run.step < num_steps:
        rng = np.random.default_rng([seed, run.step])
        if run.step < vision_steps:
            set_rate((muon, adam), cooldown(run.step, vision_steps))
            pictures = draw_pictures(rng, 2 * args.batch_size)
            if frames is not None:
                rows = torch.from_numpy(rng.integers(len(frames.pixels), size=4 * args.batch_size))
                pictures = Pictures(*(torch.cat((a, b[rows])) for a, b in zip(pictures, frames, strict=True)))
            encoded = encode_pictures(model, pictures)
            answer = picture_loss(helpers.picture(encoded.float().flatten(1)), pictures)
            helper = torch.zeros(())
        else:
            step = run.step - vision_steps
            set_rate((muon, adam), min(1.0, (SETTLED / (step + 1)) ** 0.5) * cooldown(step, clip_steps, share=0.4))
            clips = _draw_batch(rng, args.batch_size, samples)
            plain = rng.random() < args.plain_share  # for the whole batch, whose longest row costs as much as each
            batch = pack(tokenize, clips, [draw_checks(rng, clip, plain=plain) for clip in clips])
            answer, helper = clip_loss(model, helpers, batch)
        clip_and_step(model, (muon, adam), answer + HELPER_WEIGHT * helper)
        run.step += 1
        if run.step % 50 == 0:
            run.report(loss=answer.item(), helper=helper.item())
        if run.step > vision_steps and (run.step % 250 == 0 or run.step == num_steps):
            run.report(**_accuracies(model, helpers, tokenize, samples))
        if time.monotonic() - saved_s > SAVE_EVERY_S or run.step == num_steps:
            run.save()
            model.save_pretrained(out / "vlm")
            processor.save_pretrained(out / "vlm")
            saved_s = time.monotonic()


def _accuracies(
    model: Idefics3ForConditionalGeneration, helpers: Helpers, tokenize: Tokenize, samples: Sequence[SeenClip]
) -> dict[str, float]:
    """On renderings and, where there are samples, on those that are held out."""
    on_samples = evaluate(model, helpers, tokenize, samples[:HELD_OUT]) if samples else {}
    return evaluate(model, helpers, tokenize) | {f"samples_{kind}": value for kind, value in on_samples.items()}


def _optimizers(
    model: Idefics3ForConditionalGeneration, helpers: Helpers, rate: float
) -> tuple[FlatMuon, torch.optim.Adam]:
    """Muon for the layers' matrices, Adam for all else."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and (".layers." in n or "connector" in n)]
    known = {id(p) for p in matrices}
    others = [p for p in (*model.parameters(), *helpers.parameters()) if id(p) not in known]
    muon = FlatMuon(matrices, lr=0.02 * rate, momentum=0.95)
    return muon, torch.optim.Adam(others, lr=2e-3 * rate, betas=(0.9, 0.98))


def _draw_batch(rng: np.random.Generator, batch_size: int, samples: Sequence[SeenClip]) -> list[SeenClip]:
    """Renderings, or mostly samples where there are any."""
    if not samples:
        return draw_clips(rng, batch_size)
    drawn = rng.integers(HELD_OUT, len(samples), size=round(SAMPLE_SHARE * batch_size))
    return draw_clips(rng, batch_size - len(drawn)) + [samples[i] for i in drawn]


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the run.")
    parser.add_argument("--vision-steps", type=int, default=1000)
    parser.add_argument("--clip-steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0, help="Factor of the learning rates.")
    parser.add_argument(
        "--start-from", help="A VLM to go on from, e.g. that of the package; new weights if not given."
    )
    parser.add_argument(
        "--plain-share", type=float, default=1.0, help="Share of batches with other questions than the rubric's, too."
    )
    parser.add_argument("--samples", type=Path, help="Videos of the base model, most of each batch of clips.")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train(args)


if __name__ == "__main__":
    main()
