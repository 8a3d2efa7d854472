"""The sanity suite of `lift-trl audit`: does a critic read the caption, look at the video and repeat itself?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..protocols import RewardModel
from ..records import CriticScore, NativeScore, VideoSource
from ..rubric import Dimension
from ..statistics.intervals import bootstrap_mean
from ..store.video_io import read_video, write_video


#: How far two scores of one clip may differ and still count as equal.
REPEAT_TOLERANCE = 1e-4
#: How far two expected rewards may differ and still earn the same.
EQUAL = 0.01
#: Share of real clips that may earn less than a blank one.
LOWEST = 0.1


@dataclass(frozen=True)
class AuditCheck:
    """
    One question to a critic's sanity, and its figure.

    Attributes:
        passed: whether the figure is on the right side of its bound; `None` where it is only to be looked at.
        ci95: 95 % interval of the figure over the clips, where it is a mean.
    """

    name: str
    value: float
    meaning: str
    passed: bool | None = None
    ci95: tuple[float, float] | None = None


def audit(critic: RewardModel, videos: Sequence[VideoSource | str], captions: Sequence[str]) -> list[AuditCheck]:
    """
    The sanity suite: does the critic read the caption, look at the video and its motion, and repeat itself?

    Swapped captions and blank videos should score lower, and surely so: the whole interval lies below 0. A blank clip also
    belongs into the lowest tenth of real ones in each dimension. A frozen clip or shuffled frames must not earn more for
    their motion. Frames in reverse and half the size show how much order and resolution weigh. Values are differences of
    the mean expected reward to the plain run.

    Args:
        videos, captions: clips that suit their captions, at least two with captions that differ.

    Raises:
        ValueError: if all captions are equal, or no clip can be scored.

    Source: complaints about neighbouring reward models (VideoScore 4, VideoScore2 5, VisionReward 26).
    """
    swapped = swap_captions(captions)
    with TemporaryDirectory(prefix="lift_trl_audit_") as name:
        folder = Path(name)
        scores = critic.score(videos, captions)
        names = [*dict.fromkeys(name for score in scores for name in score.dimension_rewards)]
        plain = _table(scores, names)
        usable = np.isfinite(plain).all(axis=1)
        if not names or not usable.any():
            raise ValueError(
                "no clip could be scored, so there is nothing to audit. Score one and read its `unscored`."
            )
        again, by_caption = (_table(critic.score(videos, texts), names) for texts in (captions, swapped))
        changed = {
            name: _table(
                critic.score([_rewrite(v, folder / f"{name}{i}.mp4", c) for i, v in enumerate(videos)], captions),
                names,
            )
            for name, c in _CHANGES.items()
        }
    blank = changed["blank"]
    # A judge with dimensions of its own is asked about motion by its whole reward.
    motion = [names.index(d)] if (d := Dimension.MOTION_SMOOTHNESS) in names else slice(None)
    ranks = [_blank_rank(name, plain[usable, i], blank[usable, i]) for i, name in enumerate(names)]
    grey = _drop("blank_video", blank - plain, "change of the reward with a grey clip; surely below 0 is right")
    return [
        _drop(
            "swapped_captions", by_caption - plain, "change with the caption of another clip; surely below 0 is right"
        ),
        replace(grey, passed=grey.passed and all(rank.passed for rank in ranks)),
        *ranks,
        _motion("frozen_video", (changed["frozen"] - plain)[:, motion].mean(axis=1), "the first frame all along"),
        _motion(
            "shuffled_frames", (changed["shuffled"] - plain)[:, motion].mean(axis=1), "the frames in random order"
        ),
        _repeated(plain, again),
        _change("reversed_frames", changed["reversed"] - plain, "change with the frames in reverse order"),
        _change("half_size", changed["half"] - plain, "change at half the height and width; near 0 is right"),
        AuditCheck(
            "spread", float(plain[usable].mean(axis=1).std()), "standard deviation over clips; 0: all clips are one"
        ),
        AuditCheck("unscored", float((~usable).mean()), "share of clips that could not be scored; 0 is right"),
    ]


def swap_captions(captions: Sequence[str]) -> list[str]:
    """
    Every clip's caption replaced by another clip's that differs from it.

    >>> swap_captions(["a", "a", "b"])
    ['b', 'b', 'a']

    Raises:
        ValueError: if all captions are equal.
    """
    texts = list(dict.fromkeys(captions))
    if len(texts) < 2:
        raise ValueError("all captions are equal, so none can be swapped. Give clips of at least two captions.")
    return [texts[(texts.index(caption) + 1) % len(texts)] for caption in captions]


def _table(scores: Sequence[CriticScore | NativeScore], names: Sequence[str]) -> np.ndarray:
    """Expected rewards [N, D] by the dimensions `names`; NaN where a clip is unscored."""
    return np.array([[score.dimension_rewards.get(name, np.nan) for name in names] for score in scores])


def _change(name: str, change: np.ndarray, meaning: str) -> AuditCheck:
    """The mean of `change` ([N] or, by dimension, [N, 3]) over the clips that could be scored both times."""
    values = change if change.ndim == 1 else change.mean(axis=1)
    values = values[np.isfinite(values)]
    if not len(values):
        return AuditCheck(name, float("nan"), meaning)
    estimate = bootstrap_mean(values.tolist())
    return AuditCheck(name, estimate.value, meaning, ci95=estimate.ci95)


def _repeated(plain: np.ndarray, again: np.ndarray) -> AuditCheck:
    """Passed if all clips earn the same again. One that a single run scored changed by all that a reward can."""
    first, second = np.isfinite(plain), np.isfinite(again)
    largest = float(np.where(first & second, np.abs(again - plain), first ^ second).max())
    meaning = "largest change in a second run, 1 where only one of the two scored a clip; 0 is right"
    return AuditCheck("repeated_run", largest, meaning, largest <= REPEAT_TOLERANCE)


def _drop(name: str, change: np.ndarray, meaning: str) -> AuditCheck:
    """Passed if the reward surely falls: one clip, or an interval that holds 0, shows nothing."""
    check = _change(name, change, meaning)
    return replace(check, passed=check.ci95 is not None and check.ci95[1] < 0)


def _motion(name: str, change: np.ndarray, what: str) -> AuditCheck:
    """Passed if the reward of motion surely falls, failed if it surely rises; between them people must look."""
    check = _change(name, change, f"change of the reward of motion with {what}; below 0 is right, 0 sees no motion")
    low, high = check.ci95 or (-np.inf, np.inf)
    return replace(check, passed=True if high < 0 else False if low > EQUAL else None)


def _blank_rank(dimension: str, plain: np.ndarray, blank: np.ndarray) -> AuditCheck:
    """Passed if hardly any real clip earns less than a blank one."""
    blank = blank[np.isfinite(blank)]
    share = float((plain < blank[:, None] - EQUAL).mean()) if len(blank) else float("nan")
    meaning = f"share of clips that earn less than a grey one; at most {LOWEST} is right"
    return AuditCheck(f"blank_video/{dimension}", share, meaning, share <= LOWEST)


_CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "blank": lambda frames: np.full_like(frames, 128),
    "frozen": lambda frames: np.repeat(frames[:1], len(frames), axis=0),
    "shuffled": lambda frames: frames[np.random.default_rng(0).permutation(len(frames))],
    "reversed": lambda frames: frames[::-1],
    "half": lambda frames: _halved(frames),
}


def _halved(frames: np.ndarray) -> np.ndarray:
    """`frames` (uint8 [F, H, W, 3]) at half the height and width, both even, each pixel the mean of four."""
    count, height, width, _ = frames.shape
    height, width = height // 4 * 2, width // 4 * 2
    blocks = frames[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


def _rewrite(video: VideoSource | str, path: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of `video` with its frames changed; no file, and so unscored, where it cannot be read."""
    try:
        clip = read_video(video)
    except (ValueError, FileNotFoundError):
        return path
    _, height, width, _ = clip.frames.shape
    even = clip.frames[:, : height // 2 * 2, : width // 2 * 2]  # as H.264 needs them
    write_video(path, np.ascontiguousarray(change(even)), fps=clip.fps)
    return path
