"""Did it help? One word for each system, by a judge that gave no reward if any, with what speaks for and against."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ..statistics.drift import MEASURES, DriftAlarm, Level
from ..statistics.holm import LEVEL, holm
from ..statistics.intervals import FEW_UNITS
from .data import TRAINING_JUDGE, ClipRow, Paired, Report, Role, SystemFacts


Word = Literal["better", "worse", "no clear difference", "too few prompts", "not judged independently"]
#: What decides: a judge's reward, people's net preference.
DECIDING = ("reward", "preference")
#: A sentence about the judge that decides, its heading, and the heading of the ratings in the systems' own folders.
AS_CLAUSE: Mapping[Role, str] = {
    "independent": "which gave no training reward",
    "training": "the judge that it was trained on",
    "not known": "of which it is not known whether it gave the training reward",
}
AS_HEAD: Mapping[Role, str] = {
    "independent": "independent",
    "training": "the judge that it was trained on",
    "not known": "perhaps independent",
}
AS_OWN_HEAD: Mapping[Role, str] = {
    "independent": "not a training reward",
    "training": "training reward",
    "not known": "perhaps the training reward",
}


class SystemVerdict(NamedTuple):
    """
    What a reader asks of one system first.

    Attributes:
        word: of the independent judge's reward against the base; a verdict needs Holm's p below 0.05, an interval that
            excludes 0, and 8 prompts.
        difference: by the judge that decides; `None` where none took part.
        role, training_role: of that judge, and of the critic in the systems' own folders.
        p_value: Holm's, over the systems of the report.
        training: by the critic in the systems' own folders, as a rule the one that gave the training reward.
        control: by the independent judge (else the critic), against plain fine-tuning with the same settings; exploratory.
        drift: pixel statistics, the alarms first.
        facts: how many prompts and seeds.
    """

    system: str
    base: str
    word: Word
    difference: Paired | None
    p_value: float
    training: Paired | None
    control: Paired | None
    drift: tuple[DriftAlarm, ...]
    facts: SystemFacts | None
    clips: tuple[ClipRow, ...]
    role: Role
    training_role: Role

    @property
    def raised(self) -> list[DriftAlarm]:
        """What drifted to its limit or beyond."""
        return [alarm for alarm in self.drift if alarm.level != "ok"]

    @property
    def headline(self) -> str:
        """The word, and beside it that something drifted beyond its limit: `better, drift alarm`."""
        return f"{self.word}, drift alarm" if any(a.level == "alarm" for a in self.drift) else self.word

    @property
    def agrees(self) -> bool | None:
        """Whether the training reward changed in the same direction; `None` where one of the two is missing."""
        if self.difference is None or self.training is None:
            return None
        return self.difference.value * self.training.value > 0


def system_verdicts(report: Report) -> list[SystemVerdict]:
    """One for each system but the base of which anything is known, in the report's order."""
    found = {(p.judge, p.a, p.b): p for p in report.paired if p.measure in DECIDING}
    facts = {fact.name: fact for fact in report.systems}
    names = [fact.name for fact in report.systems if fact.name != report.base]
    names = list(dict.fromkeys([*names, *(p.a for p in report.paired if p.b == report.base)]))
    decided = {a: p for (judge, a, b), p in found.items() if judge == report.judge and b == report.base and judge}
    corrected = holm({system: p.p_value for system, p in decided.items()})
    verdicts = []
    for system in names:
        difference, control = decided.get(system), report.controls.get(system)
        by = report.judge or TRAINING_JUDGE
        verdicts.append(
            SystemVerdict(
                system,
                report.base,
                _word(difference, corrected.get(system, 1.0), report.role(by, system)),
                difference,
                corrected.get(system, 1.0),
                found.get((TRAINING_JUDGE, system, report.base)),
                _between(found, by, system, control) if control else None,
                tuple(sorted((a for a in report.drift if a.system == system), key=lambda a: _LEVELS.index(a.level))),
                facts.get(system),
                report.verdict_clips.get(system, ()),
                report.role(by, system),
                report.role(TRAINING_JUDGE, system),
            )
        )
    return verdicts


_LEVELS = ("alarm", "watch", "ok")


def _word(difference: Paired | None, p_value: float, role: Role) -> Word:
    if difference is None or role == "training":
        return "not judged independently"
    if difference.n < FEW_UNITS:
        return "too few prompts"
    if p_value >= LEVEL or not difference.estimate.excludes_zero:
        return "no clear difference"
    return "better" if difference.value > 0 else "worse"


def _between(found: dict[tuple[str, str, str], Paired], judge: str, a: str, b: str) -> Paired | None:
    """`a` minus `b`, whichever way round the two were compared."""
    if (judge, a, b) in found or (judge, b, a) not in found:
        return found.get((judge, a, b))
    other = found[judge, b, a]
    ci95 = None if other.ci95 is None else (-other.ci95[1], -other.ci95[0])
    b_value = None if other.b_value is None else other.b_value + other.value
    return other._replace(a=a, b=b, value=-other.value, ci95=ci95, b_value=b_value)


def difference_in_words(found: Paired) -> str:
    """`+0.131 (95% interval +0.105 to +0.158)`."""
    bounds = f" (95% interval {interval_in_words(found)})" if found.ci95 else ""
    return f"{found.value:+.3f}{bounds}"


def interval_in_words(found: Paired) -> str:
    """`+0.105 to +0.158`; nothing where there is one prompt only."""
    return f"{found.ci95[0]:+.3f} to {found.ci95[1]:+.3f}" if found.ci95 else ""


def unit_in_words(report: Report) -> str:
    """What the deciding judge's differences are of."""
    of_votes = any(p.judge == report.judge and p.measure == "preference" for p in report.paired)
    return "wins minus losses (-1 to 1)" if of_votes else "mean reward (0 to 1)"


def means_in_words(found: Paired) -> str:
    """`from 0.606 to 0.756`; nothing of what has no mean, people's preferences."""
    return "" if found.b_value is None else f"from {found.b_value:.3f} to {found.b_value + found.value:.3f}"


def side_effects(verdict: SystemVerdict) -> dict[Level, str]:
    """What drifted to its limit or beyond by level, the worst first: `{"alarm": "motion energy -33%, sharpness -25%"}`."""
    levels = dict.fromkeys(alarm.level for alarm in verdict.raised)
    return {
        level: ", ".join(
            f"{MEASURES[a.measure].title} {a.change_in_short}" for a in verdict.raised if a.level == level
        )
        for level in levels
    }


def nearest_limit(verdict: SystemVerdict) -> str:
    """Where no limit is reached, the statistic that comes nearest: `nearest: sharpness -12%`."""
    if not verdict.drift:
        return ""
    nearest = max(verdict.drift, key=lambda alarm: MEASURES[alarm.measure].share_of_limit(alarm.change.value))
    return f"nearest: {MEASURES[nearest.measure].title} {nearest.change_in_short}"


def limits_in_words() -> str:
    """`motion energy -30%, sharpness -25% or +50%, ...`: the changes that are an alarm."""
    return ", ".join(
        f"{measure.title} {measure.lower:+.0%}" + (f" or {measure.upper:+.0%}" if measure.upper is not None else "")
        for measure in MEASURES.values()
    )


def p_in_words(verdict: SystemVerdict) -> str:
    """`Holm's p 0.012`; one near the smallest that the test can give is only said to be below 0.001."""
    return f"Holm's p {verdict.p_value:.2g}" if verdict.p_value >= 0.001 else "Holm's p < 0.001"


def made_in_words(verdict: SystemVerdict) -> str:
    """What the system is: `LoRA trained with objective kto`, or the base with other settings."""
    facts = verdict.facts
    if facts is None or not (facts.adapter or facts.settings):
        return ""
    trained = f"LoRA trained with objective {facts.objective}" if facts.objective else "LoRA, its training not known"
    return trained if facts.adapter else f"no LoRA; {facts.settings}"


def sample_in_words(verdict: SystemVerdict) -> str:
    """`48 prompts x 6 seeds`."""
    count = verdict.difference or verdict.training
    prompts = f"{count.n} prompt{'s' if count.n != 1 else ''}" if count else ""
    return f"{prompts} x {verdict.facts.seeds} seeds" if prompts and verdict.facts else prompts


def drift_in_words(verdict: SystemVerdict) -> str:
    """What drifted to its limit, or that nothing did."""
    if not verdict.drift:
        return "drift not measured"
    listed = "; ".join(f"{MEASURES[a.measure].title} {a.change_in_words}, {a.level}" for a in verdict.raised)
    return listed or f"none of {len(verdict.drift)} pixel statistics reaches its limit"


def default_summary(report: Report) -> tuple[str, ...]:
    """The verdicts as sentences, then how far judges agree with people."""
    return (*map(_sentence, system_verdicts(report)), *_agreement_sentences(report))


def _sentence(verdict: SystemVerdict) -> str:
    parts = [f"{verdict.system} against {verdict.base}: {verdict.headline}"]
    if verdict.difference:
        parts.append(
            f"{difference_in_words(verdict.difference)} by {verdict.difference.judge}, {AS_CLAUSE[verdict.role]}, "
            f"{sample_in_words(verdict)}, {p_in_words(verdict)}"
        )
    if verdict.training:
        parts.append(
            f"{AS_OWN_HEAD[verdict.training_role]} ({TRAINING_JUDGE}) {difference_in_words(verdict.training)}"
        )
    if verdict.control:
        parts.append(f"against plain fine-tuning ({verdict.control.b}) {difference_in_words(verdict.control)}")
    return "; ".join([*parts, f"side effects: {drift_in_words(verdict)}"]) + "."


def _agreement_sentences(report: Report) -> list[str]:
    sentences = []
    for found in report.agreements:
        if found.dimension is None:
            share = found.with_ties
            bounds = f" (95% interval {share.ci95[0]:.0%} to {share.ci95[1]:.0%})" if share.ci95 else ""
            sentences.append(
                f"{found.judge.capitalize()} agrees with the majority of {found.people} on {share.value:.0%} of the "
                f"pairs{bounds}."
            )
    return sentences
