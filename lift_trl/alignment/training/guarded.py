"""The guard within one training: a limit of the distance to the reference, and both judges at each validation."""

import os
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from ...runtime import release_memory
from ...store.manifest import METADATA_FILE, write_rows
from ..guard import Curves, Guard, Verdicts, check_other
from ..sampling.validation import ValidationVideos
from ..score import CriticSource
from .policies import OldPolicyFollows


if TYPE_CHECKING:
    from ..reward_weighted_config import RewardWeightedVideoConfig


logger = get_logger(__name__)

_BASE = "base"
# Clips of a step that anything can be said of.
_FEWEST = 2


class StopsFarAway(TrainerCallback):
    """Ends a training whose logged distance to the reference, as a share of the reference's error, is above `limit`."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Of a line of training; all processes have the same figures."""
        for name in ("kl_fraction", "kl_old_fraction"):
            share = (logs or {}).get(name, 0.0)
            if share > self.limit:
                logger.warning(
                    "step %d: %s=%.3f is above max_kl_fraction=%s: training ends here",
                    *(state.global_step, name, share, self.limit),
                )
                control.should_training_stop = True


def policy_callbacks(args: "RewardWeightedVideoConfig", *, old_moves: bool) -> list[TrainerCallback]:
    """What moves the old policy, and what watches how far the trained one is from it."""
    found: list[TrainerCallback] = []
    if old_moves:
        found.append(OldPolicyFollows(args.ref_model_sync_steps, args.ref_model_mixup_alpha))
    if args.max_kl_fraction is not None:
        found.append(StopsFarAway(args.max_kl_fraction))
    return found


class _Clip(NamedTuple):
    """A validation video, and its prompt."""

    video: Path
    prompt: str


class GuardedValidation(TrainerCallback):
    """
    Gives the validation videos of each step, and the base's, to the critic that gave the rewards and to the guard's judge;
    warns, or ends the training, where the guard fires. `guard.md` in `output_dir` has both curves.

    A judge is in memory only while it scores, beside the model in training, on the main process. Of a run that was resumed
    with other prompts, or other ways of sampling them, only the clips of those of now are judged.

    Args:
        guard: its judge and action; `"best"` ends the training and names the step that the judge likes best.
        critic: the one that gave the rewards.

    Raises:
        ValueError: if the guard's judge is the critic.
    """

    def __init__(self, guard: Guard, critic: CriticSource) -> None:
        check_other(guard.judge, critic)
        self.guard, self.critic = guard, critic
        self.videos: ValidationVideos | None = None
        self.curves: Curves | None = None
        self.judged: set[int] = set()
        self.last_step = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """
        Raises:
            ValueError: if there are too few validation videos to be sure of anything.
        """
        if self.videos is None or len(self.videos.prompts) < _FEWEST:
            raise ValueError(
                "a guard judges the validation videos: give two validation_prompts or more, better twenty."
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the validation of this step, if it had one."""
        if args.validation_steps and state.global_step % args.validation_steps == 0:
            self._look(args, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the last validation."""
        if state.global_step != self.last_step:
            self._look(args, state, control)

    def _look(self, args: Any, state: Any, control: Any) -> None:
        self.last_step = state.global_step
        fires = [self._fires(args, state.global_step) if state.is_world_process_zero else False]
        if broadcast_object_list(fires)[0] and self.guard.action != "warn":
            control.should_training_stop = True

    def _fires(self, args: Any, step: int) -> bool:
        """Whether the guard fires at `step`. A run that was resumed judges its earlier steps again, for their curves."""
        folder, bases = Path(args.output_dir), self._clips(_BASE)
        if self.curves is None:
            self.curves = Curves(*self._verdicts(folder, _BASE, bases), unit="step")
        fires, steps = False, {path for clip in bases.values() for path in clip.video.parent.glob("step-*.mp4")}
        found = {int(path.stem.removeprefix("step-")) for path in steps}
        for number in sorted(number for number in found - self.judged if number <= step):
            name = f"step-{number}"
            self.judged.add(number)
            clips = {key: clip for key, clip in self._clips(name).items() if key in bases}
            if len(clips) < _FEWEST:
                logger.warning("%s: not judged, fewer than two of its videos are of the prompts of now", name)
                continue
            reward, judge = self._verdicts(folder, name, clips)
            drift = self.guard.drift
            warnings = () if drift is None else drift(folder / "guard" / _BASE, folder / "guard" / name)
            check = self.curves.add(reward, judge, warnings, number=number)
            for text in (*check.reasons, *warnings):
                logger.warning("%s: %s", name, text)
            fires = bool(check.reasons)
        self.curves.save(folder)
        return fires

    def _clips(self, name: str) -> dict[str, _Clip]:
        """The videos `name` of this run's prompts that are there, by prompt and way of sampling it."""
        assert self.videos is not None
        listed = [_Clip(self.videos.path(index, name), text) for index, text in enumerate(self.videos.prompts)]
        return {clip.video.parent.name: clip for clip in listed if clip.video.is_file()}

    def _verdicts(self, folder: Path, name: str, clips: Mapping[str, _Clip]) -> tuple[Verdicts, Verdicts]:
        """Rewards of the videos `name`, of the critic and of the other judge."""
        place = folder / "guard" / name
        rows = [
            {"id": key, "prompt": clip.prompt, "file_name": os.path.relpath(clip.video, place)}
            for key, clip in clips.items()
        ]
        write_rows(place / METADATA_FILE, rows)
        return self._rewards(self.critic, clips), self._rewards(self.guard.judge, clips)

    @staticmethod
    def _rewards(source: CriticSource, clips: Mapping[str, _Clip]) -> Verdicts:
        judge = source.load()
        scores = judge.score([clip.video for clip in clips.values()], [clip.prompt for clip in clips.values()])
        del judge
        release_memory()
        rewards = {key: score.reward for key, score in zip(clips, scores, strict=True)}
        return {key: reward for key, reward in rewards.items() if not isnan(reward)}


def add_validation(callbacks: list[TrainerCallback], videos: ValidationVideos) -> None:
    """Puts `videos` before the trackers', which close their runs at the end of training; a guard hears where they are."""
    for callback in callbacks:
        if isinstance(callback, GuardedValidation):
            callback.videos = videos
    callbacks.insert(0, videos)
