"""A guard against reward hacking: does a judge that gave no reward agree that the model gets better?

After every round the same prompts and seeds are sampled from the base and from the round's LoRA, and judged by the critic
that gives the rewards and by another one. A reward that rises while the other judge sees nothing is one that is exploited.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..records import same_weights
from ..store.manifest import METADATA_FILE, read_rows, write_text
from .score import CriticSource


GuardAction = Literal["warn", "stop", "best"]
#: What the report's two curves are drawn from.
GUARD_FILE = "guard.json"
#: Clips of each prompt that are judged after every round, unless a `Guard` says otherwise.
VIDEOS_PER_PROMPT = 2
#: Rewards of the critic by clip, and of the other judge, on the same clips.
Verdicts = Mapping[str, float]
#: Folders of the base's and of a round's clips -> what drifted too far, in words.
Drift = Callable[[Path, Path], Sequence[str]]

# A gain of the critic's reward below this is no reason to doubt it.
_SMALL_GAIN = 0.05
# Of an honest gain the other judge sees half or more; of an exploited one next to nothing.
_SEEN_SHARE = 0.2
_SURE = 1.96  # standard errors of a mean: 95 %


class Gain(NamedTuple):
    """A mean difference over the same clips, and half of its 95 % interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, after: Verdicts, before: Verdicts) -> "Gain":
        """Of the clips that both have."""
        differences = np.array([after[name] - before[name] for name in sorted(after.keys() & before.keys())])
        if len(differences) < 2:
            raise ValueError("fewer than two clips were judged before and after; look at the reasons in `unscored`.")
        return cls(float(differences.mean()), _SURE * float(differences.std(ddof=1)) / sqrt(len(differences)))


class Guard(NamedTuple):
    """
    What `iterate` watches the rounds with.

    Attributes:
        judge: another judge, which gave no reward.
        action: on firing `"warn"` only, `"stop"` after the round, or stop and hand back the `"best"` one.
        drift: compares the pixels of the base's and a round's clips; what it says is a warning, no proof.
        videos_per_prompt: clips of each prompt that are judged after every round.
    """

    judge: CriticSource
    action: GuardAction = "best"
    drift: Drift | None = None
    videos_per_prompt: int = VIDEOS_PER_PROMPT


class RoundCheck(NamedTuple):
    """
    A round, or a step of a training, as both judges see it.

    Attributes:
        number: of the round or step, 0 for the base.
        reward, judge: mean reward by the critic, and by the other judge: the base's mean plus the gain over it on the clips
            that both have, so that clips which a judge could not score move nothing.
        reasons: why the guard fires; empty where it does not.
        warnings: what drifted, which is no proof.
    """

    number: int
    reward: float
    judge: float
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Curves:
    """The rounds (or whatever `unit` is) so far, by the critic and by the other judge."""

    def __init__(self, reward: Verdicts, judge: Verdicts, unit: str = "round") -> None:
        self.unit = unit
        self._reward, self._judge = [dict(reward)], [dict(judge)]
        self.checks = [RoundCheck(0, _mean(reward), _mean(judge))]
        self._best = 0  # its place in the lists

    @property
    def best(self) -> int:
        """
        The round that the other judge likes best, of those in which the guard did not fire; 0 is the base.

        Two are compared on the clips that both have; the later one must have gained.
        """
        return self.checks[self._best].number

    def add(
        self, reward: Verdicts, judge: Verdicts, warnings: Sequence[str] = (), *, number: int | None = None
    ) -> RoundCheck:
        """
        The next round, or that with a `number` of its own.

        The guard fires where the critic's reward surely rose over the base's and the other judge surely saw less than a
        fifth of that; or where the other judge surely likes it less than the `best` round before, and the critic does not.
        """
        gain, seen = Gain.of(reward, self._reward[0]), Gain.of(judge, self._judge[0])
        reasons = []
        base, before = self._judge[0], self._reward[0]
        shared = reward.keys() & before.keys() & base.keys()
        unseen = Gain.of(judge, {name: base[name] + _SEEN_SHARE * (reward[name] - before[name]) for name in shared})
        if gain.mean - gain.half > 0 and gain.mean > _SMALL_GAIN and unseen.mean + unseen.half < 0:
            reasons.append(f"the reward rose by {gain.mean:.3f} over the base's, the other judge's by {seen.mean:.3f}")
        since, rose = Gain.of(judge, self._judge[self._best]), Gain.of(reward, self._reward[self._best])
        if since.mean + since.half < 0 <= rose.mean:
            reasons.append(
                f"the other judge's fell by {-since.mean:.3f} since {self._name(self.best)}, while the reward did not fall"
            )
        self._reward.append(dict(reward))
        self._judge.append(dict(judge))
        number = len(self.checks) if number is None else number
        start = self.checks[0]
        check = RoundCheck(number, start.reward + gain.mean, start.judge + seen.mean, tuple(reasons), tuple(warnings))
        if not reasons and since.mean > 0:
            self._best = len(self.checks)
        self.checks.append(check)
        return check

    def save(self, folder: Path) -> None:
        """Writes both curves: a table in `guard.md`, and `guard.json` for the report."""
        lines = [f"| {self.unit} | reward | other judge | guard |", "|---|---|---|---|"]
        for check in self.checks:
            said = "; ".join([*check.reasons, *(f"(warning: {warning})" for warning in check.warnings)])
            lines.append(f"| {check.number or 'base'} | {check.reward:.3f} | {check.judge:.3f} | {said} |")
        lines.append(f"\nBest by the other judge, where the guard did not fire: {self._name(self.best)}.")
        write_text(folder / "guard.md", "\n".join(lines) + "\n")
        found = {"unit": self.unit, "checks": [check._asdict() for check in self.checks]}
        write_text(folder / GUARD_FILE, json.dumps(found, indent=1))

    def _name(self, number: int) -> str:
        return f"{self.unit} {number}" if number else "the base"


def check_other(judge: CriticSource, critic: CriticSource) -> None:
    """Raises `ValueError` where the guard's `judge` is the `critic` that gives the rewards, and sees no more."""
    if same_weights(judge.name, critic.name):
        raise ValueError(
            f"the guard's judge (second_judge) is {judge.name} and the critic is {critic.name}, which are the same model: "
            "what it exploits both would like. Name another as second_judge, best of another family."
        )


def read_verdicts(folder: Path) -> Verdicts:
    """Rewards of a scored folder by clip, without the unscored."""
    rows = list(read_rows(folder / METADATA_FILE))
    return {str(row["id"]): float(row["reward"]) for row in rows if row.get("reward") is not None}


def _mean(verdicts: Verdicts) -> float:
    return float(np.mean(list(verdicts.values())))
