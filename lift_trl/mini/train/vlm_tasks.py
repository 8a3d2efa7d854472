"""What the mini world's VLM is pre-trained on: single pictures with known content, and clips with packed questions.

No rating is among them: clips are renderings or samples of the base model with what their pixels show, many questions are
about one attribute at a time. To the rubric's questions
the answer is what there is to see, on finer scales than the rubric's and without its labels. Labels appear only without a
view of the clip, drawn at random, so that the words are no strangers later.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...rubric import LIFT, Dimension, Label, format_answer
from ..annotator import WORDS, Rater
from ..checkpoints import TOKENS_PER_IMAGE
from ..language import COUNT_WORDS, FIDELITY_WORDS, MOTION_WORDS, check_questions
from ..oracle import Observation, fit_frames
from ..shapes import (
    ATTRIBUTES,
    COLOURS,
    GROUND,
    RADIUS,
    SCENES,
    SHAPES,
    SIZE,
    STATIC_BLOCK,
    Floats,
    Scene,
    Video,
    shape_coverage,
    wrong_attributes,
)
from .seen_clips import FLAW_WORDS, WOBBLE_WORDS, SeenClip, attribute_classes, measure, up_to


NUM_IMAGES = 9
#: Share of clips with a question of the rubric, which is long.
BLIND_SHARE = 0.3
#: Share of the rubric's questions that are answered by a label drawn at random.
LABEL_SHARE = 0.33
#: Label of a token that is not to be predicted.
IGNORED = -100
#: Added to an attention logit that is to count for nothing.
HIDDEN = -1e4
#: Text to token ids.
Tokenize = Callable[[str], list[int]]


class Pictures(NamedTuple):
    """Single pictures `[N, 3, 48, 48]` in [-1, 1]; class indices `[N]`; place, static and misfit `[N, 4]`, each about 1."""

    pixels: Tensor
    colour: Tensor
    shape: Tensor
    measures: Tensor


class Check(NamedTuple):
    """
    A question about a clip, what it asks for, and its answer; a blind one does not see the clip.

    Args:
        measured: of a question of the rubric, its dimension and what `measure` finds for it.
    """

    kind: str
    text: str
    answer: str
    blind: bool = False
    measured: tuple[Dimension, Floats] | None = None


class PackedClips(NamedTuple):
    """
    Clips with several questions each in one sequence: every question sees the pictures and itself, no other question.

    B clips, L tokens, Q questions in all.

    Args:
        pictures: `NUM_IMAGES` of each clip, one after the other.
        input_ids, position_ids, labels: `[B, L]`; labels are -100 outside the answers.
        mask: `[B, 1, L, L]`, added to the attention's logits: 0 where a token sees another, else `HIDDEN`.
        prefix_length: tokens of the pictures, the same in every row.
        first_answers: `[Q, 2]`, row and position of each answer's first token.
        kinds: what each of the Q questions asks for.
        classes: `[B, 5]`: index of colour, shape, direction, of the word for its wobble and of that for its flaws.
        measured: of each dimension, which of the Q questions ask for it `[Qd]` and what there is to measure `[Qd, K]`.
    """

    pictures: Pictures
    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    mask: Tensor
    prefix_length: int
    first_answers: Tensor
    kinds: list[str]
    classes: Tensor
    measured: dict[Dimension, tuple[Tensor, Tensor]]


def draw_pictures(rng: np.random.Generator, num: int) -> Pictures:
    """Pictures of shapes anywhere in the frame, half of them blends of two shapes, half of them with static."""
    centres = rng.uniform(0.28 * SIZE, 0.72 * SIZE, (num, 2))
    radius = rng.uniform(RADIUS[0] - 0.5, RADIUS[1] + 0.5, num)
    first, second = rng.integers(len(SHAPES), size=(2, num))
    blend = np.where(rng.random(num) < 0.5, 0, rng.uniform(0, 0.5, num))
    coverage = np.zeros((num, SIZE, SIZE), np.float32)
    for index, share in ((first, 1 - blend), (second, blend)):
        for number, shape in enumerate(SHAPES):
            rows = np.flatnonzero(index == number)
            coverage[rows] += share[rows, None, None] * shape_coverage(shape, centres[rows], radius[rows])
    colour = rng.integers(len(COLOURS), size=num)
    palette = np.asarray(list(COLOURS.values()), np.float32)[colour] * rng.uniform(0.9, 1.04, (num, 1))
    ground = rng.uniform(*GROUND, (num, 1, 1, 1))
    frames = coverage[..., None] * palette[:, None, None] + (1 - coverage[..., None]) * ground
    static = np.where(rng.random(num) < 0.5, 0, rng.uniform(0.03, 0.22, num))
    cells = SIZE // STATIC_BLOCK
    noise = rng.uniform(-1, 1, (num, cells, cells, 1)) * static[:, None, None, None] * np.sqrt(3.0)
    frames = np.clip(frames + noise.repeat(STATIC_BLOCK, 1).repeat(STATIC_BLOCK, 2), 0, 1).astype(np.float32)
    return _pictures(frames, colour, static)


def draw_checks(rng: np.random.Generator, clip: SeenClip, *, plain: bool = True) -> list[Check]:
    """
    Questions about one clip: the rubric's own and, if `plain`, the first of them with another caption, at times one
    without a view of the clip, and questions about single attributes.
    """
    checks = [_finding(rng, clip, dimension) for dimension in Dimension]
    if not plain:
        return checks
    checks.append(_finding(rng, clip, Dimension.SEMANTIC_CONSISTENCY))
    if rng.random() < BLIND_SHARE:
        checks.append(_blind_rating(rng, _caption(rng, clip.shown)))
    return checks + _plain_checks(rng, clip)


def _plain_checks(rng: np.random.Generator, clip: SeenClip) -> list[Check]:
    scene, texts = clip.shown, check_questions()
    motion, fidelity = MOTION_WORDS[clip.motion], FIDELITY_WORDS[clip.fidelity]
    checks = []
    if rng.random() < 0.5:
        checks.append(Check("describe", texts["describe"], f"{scene.prompt}, {motion}, {fidelity}."))
        for kind in ("shape", "direction") if rng.random() < 0.8 else ("colour",):
            checks.append(_yes_no(rng, kind, getattr(scene, kind), WORDS[kind]))
        checks.append(_yes_no(rng, "motion", motion, tuple(MOTION_WORDS.values())))
        checks.append(_yes_no(rng, "fidelity", fidelity, tuple(FIDELITY_WORDS.values())))
    for kind in ("shape", "direction") if rng.random() < 0.8 else ("colour",):
        caption = _caption(rng, scene, kind)
        word = getattr(scene, kind)
        answer = "yes." if getattr(caption, kind) == word else f"no, it is {word}."
        checks.append(Check(f"match_{kind}", texts[f"match_{kind}"].format(prompt=caption.prompt), answer))
    caption = _caption(rng, scene)
    count = len(wrong_attributes(caption, scene))
    checks.append(Check("wrong", texts["wrong"].format(prompt=caption.prompt), f"{COUNT_WORDS[count]}."))
    return checks


def pack(tokenize: Tokenize, clips: list[SeenClip], checks: list[list[Check]]) -> PackedClips:
    """One sequence for each clip: its pictures, then all its questions with their answers, hidden from one another."""
    image = "<fake_token_around_image><global-img>" + "<image>" * TOKENS_PER_IMAGE + "<fake_token_around_image>"
    prefix = tokenize("User:" + image * NUM_IMAGES)
    rows = [[_encode(tokenize, check) for check in row] for row in checks]
    length = len(prefix) + max(sum(len(q) + len(a) for q, a in row) for row in rows)
    ids = np.zeros((len(clips), length), np.int64)
    positions, labels = np.zeros_like(ids), np.full_like(ids, IGNORED)
    part = np.full_like(ids, -1)  # 0 the pictures, then the number of the question; -1 padding
    blind = np.zeros(ids.shape, bool)
    first_answers = []
    for index, (row, row_checks) in enumerate(zip(rows, checks, strict=True)):
        ids[index, : len(prefix)], part[index, : len(prefix)] = prefix, 0
        positions[index, : len(prefix)] = np.arange(len(prefix))
        start = len(prefix)
        for number, ((asked, answer), check) in enumerate(zip(row, row_checks, strict=True), start=1):
            middle, end = start + len(asked), start + len(asked) + len(answer)
            ids[index, start:end] = asked + answer
            labels[index, middle:end] = answer
            positions[index, start:end] = len(prefix) + np.arange(end - start)
            part[index, start:end], blind[index, start:end] = number, check.blind
            first_answers.append((index, middle))
            start = end
    sees = (part[:, :, None] == part[:, None, :]) | ((part[:, None, :] == 0) & ~blind[:, :, None])
    mask = sees & np.tri(length, dtype=bool)
    return PackedClips(
        pictures=frames_of(clips),
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        labels=torch.from_numpy(labels),
        mask=torch.from_numpy(np.where(mask[:, None], np.float32(0), np.float32(HIDDEN))),
        prefix_length=len(prefix),
        first_answers=torch.tensor(first_answers),
        kinds=[check.kind for row in checks for check in row],
        classes=torch.tensor([attribute_classes(clip) for clip in clips]),
        measured=_measured([check for row in checks for check in row]),
    )


def _pictures(frames: Floats, colour: NDArray[np.integer], static: NDArray[np.floating]) -> Pictures:
    """Pictures of `frames` `[N, 48, 48, 3]` in [0, 1] with place, shape and misfit as the oracle measures them."""
    fit = fit_frames(frames)
    measures = np.stack((*(fit.centres / SIZE * 4 - 2).T, static * 10, fit.misfit * 5), -1)
    return Pictures(
        _as_processed(np.round(frames * 255)),
        torch.from_numpy(colour),
        torch.from_numpy(fit.shape),
        torch.from_numpy(measures).float(),
    )


def frames_of(clips: Sequence[SeenClip]) -> Pictures:
    """The `NUM_IMAGES` frames of each clip that the VLM sees, one after the other."""
    index = np.linspace(0, len(clips[0].video) - 1, NUM_IMAGES, dtype=int)
    frames = np.concatenate([clip.video[index] for clip in clips]).astype(np.float32) / np.float32(255)
    colour = [list(COLOURS).index(clip.shown.colour) for clip in clips]
    static = [clip.seen.static for clip in clips]
    return _pictures(frames, np.repeat(colour, NUM_IMAGES), np.repeat(static, NUM_IMAGES))


def _as_processed(frames: Video | NDArray[np.floating]) -> Tensor:
    """
    Frames `[N, 48, 48, 3]` of 0 to 255 as the VLM's processor gives them when they were stored enlarged: `[N, 3, 48, 48]`.

    Bilinear reduction of an enlarged picture mixes an eighth of each neighbour into a pixel.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    for dim in (-1, -2):
        before = pixels.narrow(dim, 0, 1), pixels.narrow(dim, 0, SIZE - 1)
        after = pixels.narrow(dim, 1, SIZE - 1), pixels.narrow(dim, SIZE - 1, 1)
        pixels = 0.75 * pixels + 0.125 * (torch.cat(before, dim) + torch.cat(after, dim))
    return pixels


def _yes_no(rng: np.random.Generator, kind: str, truth: str, words: tuple[str, ...]) -> Check:
    """Asks for the true word or, as often, for another one."""
    word = truth if rng.random() < 0.5 else str(rng.choice([other for other in words if other != truth]))
    return Check(kind, check_questions()[kind].format(word=word), "yes." if word == truth else f"no, it is {truth}.")


def _caption(rng: np.random.Generator, scene: Scene, asked: str = "") -> Scene:
    """A caption for `scene`, wrong in the attribute that is asked for by a chance of 0.5 and in each other by 0.3."""
    words = scene._asdict()
    for name in ATTRIBUTES:
        if rng.random() < (0.5 if name == asked else 0.3):
            words[name] = str(rng.choice([word for word in WORDS[name] if word != words[name]]))
    return Scene(**words)


def _finding(rng: np.random.Generator, clip: SeenClip, dimension: Dimension) -> Check:
    """
    A question of the rubric, with the clip in view, and what there is to see.

    A third of the time a label drawn at random comes instead, which says nothing of the clip: the words are no strangers
    in this place, or a LoRA would spend its steps on making them likely at all.
    """
    caption = _caption(rng, clip.shown)
    asked, measured = LIFT.question(dimension, caption.prompt), (dimension, measure(clip, dimension, caption))
    if rng.random() < LABEL_SHARE:
        return Check("label", asked, format_answer(list(Label)[rng.integers(3)], ""), measured=measured)
    if dimension is Dimension.SEMANTIC_CONSISTENCY:
        wrong = wrong_attributes(caption, clip.shown)
        answer = " ".join([COUNT_WORDS[len(wrong)], *wrong])
    elif dimension is Dimension.MOTION_SMOOTHNESS:
        answer = up_to(WOBBLE_WORDS, clip.seen.wobble)
    else:
        answer = up_to(FLAW_WORDS, clip.flaw)
    return Check(f"finding_{dimension}", asked, f"{answer}.", measured=measured)


def _blind_rating(rng: np.random.Generator, caption: Scene) -> Check:
    """A question of the rubric with any label and a reason that fits the label: wording, not judgement."""
    dimension, label = list(Dimension)[rng.integers(3)], list(Label)[rng.integers(3)]
    shown = SCENES[rng.integers(len(SCENES))]
    seen = Observation(9, *shown, wobble=0.0, static=0.0, misfit=float(rng.random() < 0.5))
    reason = Rater("", 0.0, int(rng.integers(2))).reason(rng, dimension, label, seen, caption)
    return Check("blind", LIFT.question(dimension, caption.prompt), format_answer(label, reason), blind=True)


def _encode(tokenize: Tokenize, check: Check) -> tuple[list[int], list[int]]:
    """Tokens of the question up to the assistant's turn, and of the answer, as the chat template joins them."""
    asked = tokenize(f" {check.text}<end_of_utterance>Assistant:")
    return asked, tokenize(f" {check.answer}<end_of_utterance>")


def _measured(checks: Sequence[Check]) -> dict[Dimension, tuple[Tensor, Tensor]]:
    """Of each dimension that is asked for: which of the checks ask for it, and what there is to measure."""
    rows: dict[Dimension, list[tuple[int, Floats]]] = {}
    for index, check in enumerate(checks):
        if check.measured is not None:
            rows.setdefault(check.measured[0], []).append((index, check.measured[1]))
    return {
        dimension: (torch.tensor([i for i, _ in asked]), torch.from_numpy(np.stack([found for _, found in asked])))
        for dimension, asked in rows.items()
    }
