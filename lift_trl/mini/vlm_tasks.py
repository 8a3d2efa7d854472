"""What the mini world's VLM is pre-trained on: single pictures with known content, and clips with packed questions.

No rating is among them: clips are renderings or samples of the base model with what their pixels show, many questions are
about one attribute at a time. To the rubric's questions
the answer is what there is to see, on finer scales than the rubric's and without its labels. Labels appear only without a
view of the clip, drawn at random, so that the words are no strangers later.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..rubric import Dimension, Label, format_answer, question
from ..store.manifest import METADATA_FILE, read_rows
from ..store.video_io import read_video
from .annotator import WORDS, Rater
from .checkpoints import TOKENS_PER_IMAGE
from .language import COUNT_WORDS, FIDELITY_WORDS, MOTION_WORDS, check_questions
from .oracle import Observation, fit_frames, observe
from .shapes import (
    ATTRIBUTES,
    COLOURS,
    DIRECTIONS,
    GROUND,
    RADIUS,
    SCENES,
    SHAPES,
    SIZE,
    STATIC_BLOCK,
    FidelityDefect,
    Floats,
    MotionDefect,
    Scene,
    Video,
    render,
    shape_coverage,
    shrink,
    wrong_attributes,
)


NUM_IMAGES = 8
#: Share of clips with a question of the rubric, which is long.
BLIND_SHARE = 0.3
#: Further captions of a clip that the rubric's first question is asked with.
MORE_CAPTIONS = 1
#: Share of the rubric's questions that are answered by a label drawn at random.
LABEL_SHARE = 0.33
#: Label of a token that is not to be predicted.
IGNORED = -100
#: Added to an attention logit that is to count for nothing.
HIDDEN = -1e4
#: Upper bounds of wobble (pixels) and what is said up to each; the last word has none. Likewise of what is wrong with the
#: picture: static (of 0.1) or misfit (of 0.25), whichever is more. A rater's bounds lie elsewhere.
WOBBLE_WORDS = (
    (0.25, "smooth"),
    (0.5, "even"),
    (0.75, "slightly"),
    (1.0, "uneven"),
    (1.5, "jumps"),
    (np.inf, "erratic"),
)
FLAW_WORDS = ((0.2, "clean"), (0.5, "clear"), (0.75, "faint"), (1.0, "noisy"), (1.4, "deformed"), (np.inf, "badly"))
_WOBBLE_STEPS = ((0.6, MotionDefect.NONE), (1.5, MotionDefect.HOP), (np.inf, MotionDefect.JITTER))
_STATIC_STEPS = (
    (0.04, FidelityDefect.NONE),
    (0.12, FidelityDefect.FAINT_STATIC),
    (np.inf, FidelityDefect.STRONG_STATIC),
)
#: Text to token ids.
Tokenize = Callable[[str], list[int]]
T = TypeVar("T")


class Pictures(NamedTuple):
    """Single pictures `[N, 3, 48, 48]` in [-1, 1]; class indices `[N]`; place, static and misfit `[N, 4]`, each about 1."""

    pixels: Tensor
    colour: Tensor
    shape: Tensor
    measures: Tensor


class Check(NamedTuple):
    """A question about a clip, what it asks for, and its answer; a blind one does not see the clip."""

    kind: str
    text: str
    answer: str
    blind: bool = False


class SeenClip(NamedTuple):
    """A clip, the scene that it shows, and what can be measured of it."""

    video: Video
    shown: Scene
    seen: Observation

    @property
    def motion(self) -> MotionDefect:
        """The word's own defect: small ones count as none."""
        return _up_to(_WOBBLE_STEPS, self.seen.wobble)

    @property
    def fidelity(self) -> FidelityDefect:
        """Likewise, of static."""
        return _up_to(_STATIC_STEPS, self.seen.static)

    @property
    def flaw(self) -> float:
        """How bad the picture is."""
        return max(self.seen.static / 0.1, self.seen.misfit / 0.25)


class PackedClips(NamedTuple):
    """
    Clips with several questions each in one sequence: every question sees the pictures and itself, no other question.

    B clips, L tokens, Q questions in all.

    Args:
        pictures: 8 of each clip, B * 8 in all.
        input_ids, position_ids, labels: `[B, L]`; labels are -100 outside the answers.
        mask: `[B, 1, L, L]`, added to the attention's logits: 0 where a token sees another, else `HIDDEN`.
        prefix_length: tokens of the pictures, the same in every row.
        first_answers: `[Q, 2]`, row and position of each answer's first token.
        kinds: what each of the Q questions asks for.
        classes: `[B, 5]`: index of colour, shape, direction, of the word for its wobble and of that for its flaws.
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


def draw_clips(rng: np.random.Generator, num: int) -> list[SeenClip]:
    """Clips with every defect about as often as none, from hardly visible to full size."""
    clips = []
    for _ in range(num):
        scene = SCENES[rng.integers(len(SCENES))]
        motion = list(MotionDefect)[rng.choice(3, p=(0.3, 0.3, 0.4))]
        fidelity = list(FidelityDefect)[rng.choice(3, p=(0.4, 0.3, 0.3))]
        strength = 1.0 if rng.random() < 0.4 else rng.uniform(0.05, 1.0)
        deformed = rng.uniform(0.1, 0.5) if rng.random() < 0.3 else 0.0
        static = rng.uniform(0.3, 1.2)
        video = render(
            rng, scene, motion, fidelity, motion_strength=strength, static_strength=static, deformed=deformed
        )
        clips.append(SeenClip(video, scene, observe(video)))
    return clips


def read_samples(folder: Path) -> list[SeenClip]:
    """
    Samples of the base model (a folder of recipes/generate.py) with what their pixels show; no prompt and no rating is read.

    Clips without an object that moves are left out.
    """
    clips = []
    for row in read_rows(folder / METADATA_FILE):
        video = shrink(read_video(folder / row["file_name"]).frames)
        seen = observe(video)
        if seen.direction:
            clips.append(SeenClip(video, Scene(seen.colour, seen.shape, seen.direction), seen))
    return clips


def draw_checks(rng: np.random.Generator, clip: SeenClip) -> list[Check]:
    """Questions about one clip: at times single attributes and its description, always the rubric's own."""
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
    dimensions = (*Dimension, *[Dimension.SEMANTIC_CONSISTENCY] * MORE_CAPTIONS)
    checks += [_finding(rng, clip, dimension) for dimension in dimensions]
    if rng.random() < BLIND_SHARE:
        checks.append(_blind_rating(rng, _caption(rng, scene)))
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
        pictures=_frames_of(clips),
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        labels=torch.from_numpy(labels),
        mask=torch.from_numpy(np.where(mask[:, None], np.float32(0), np.float32(HIDDEN))),
        prefix_length=len(prefix),
        first_answers=torch.tensor(first_answers),
        kinds=[check.kind for row in checks for check in row],
        classes=torch.tensor([_classes(clip) for clip in clips]),
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


def _frames_of(clips: list[SeenClip]) -> Pictures:
    """The 8 frames of each clip that the VLM sees, one after the other."""
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
    if rng.random() < LABEL_SHARE:
        return Check("label", question(dimension, caption.prompt), format_answer(list(Label)[rng.integers(3)], ""))
    if dimension is Dimension.SEMANTIC_CONSISTENCY:
        wrong = wrong_attributes(caption, clip.shown)
        answer = " ".join([COUNT_WORDS[len(wrong)], *wrong])
    elif dimension is Dimension.MOTION_SMOOTHNESS:
        answer = _up_to(WOBBLE_WORDS, clip.seen.wobble)
    else:
        answer = _up_to(FLAW_WORDS, clip.flaw)
    return Check(f"finding_{dimension}", question(dimension, caption.prompt), f"{answer}.")


def _blind_rating(rng: np.random.Generator, caption: Scene) -> Check:
    """A question of the rubric with any label and a reason that fits the label: wording, not judgement."""
    dimension, label = list(Dimension)[rng.integers(3)], list(Label)[rng.integers(3)]
    shown = SCENES[rng.integers(len(SCENES))]
    seen = Observation(9, *shown, wobble=0.0, static=0.0, misfit=float(rng.random() < 0.5))
    reason = Rater("", 0.0, int(rng.integers(2))).reason(rng, dimension, label, seen, caption)
    return Check("blind", question(dimension, caption.prompt), format_answer(label, reason), blind=True)


def _encode(tokenize: Tokenize, check: Check) -> tuple[list[int], list[int]]:
    """Tokens of the question up to the assistant's turn, and of the answer, as the chat template joins them."""
    asked = tokenize(f" {check.text}<end_of_utterance>Assistant:")
    return asked, tokenize(f" {check.answer}<end_of_utterance>")


def _classes(clip: SeenClip) -> tuple[int, ...]:
    return (
        list(COLOURS).index(clip.shown.colour),
        SHAPES.index(clip.shown.shape),
        list(DIRECTIONS).index(clip.shown.direction),
        [word for _, word in WOBBLE_WORDS].index(_up_to(WOBBLE_WORDS, clip.seen.wobble)),
        [word for _, word in FLAW_WORDS].index(_up_to(FLAW_WORDS, clip.flaw)),
    )


def _up_to(steps: Sequence[tuple[float, T]], value: float) -> T:
    """What stands beside the first bound that is above `value`."""
    return next(said for bound, said in steps if value < bound)
