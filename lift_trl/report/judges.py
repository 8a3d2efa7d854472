"""Several judges on the same systems: paired differences, wins, and how far the first judge agrees with each other one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..judges import VIDEO_SCORE_ASPECTS
from ..judges.verdicts import Verdict, evaluate_verdicts, verdicts
from ..records import EvalRow, same_weights
from ..rubric import REWARD_MARGIN, Rubric
from ..statistics.holm import sign_flip_p
from ..statistics.intervals import bootstrap_mean, bootstrap_share, interval, resample_counts
from ..statistics.label_measures import confusion
from ..statistics.rank_measures import spearman
from ..statistics.win_rate import Vote
from ..store.clip_rows import row_id
from ..store.manifest import ARTIFACT_FILE, Artifact
from ..store.rated_videos import raw_rows
from ..store.rubrics.of_data import find_rubric
from ..store.system_clips import SystemClip, load_system, pair_systems, prompts_of, rubric_of_systems
from ..vbench.score import PairedDelta
from .data import REWARDS_ORDER, VIDEOSCORE_SUITE, CalibrationBin, Confusion, LabelRate, Paired, Role, calibration_bins
from .systems import Names, compare_means, values_of
from .votes import Ballots, system_pairs


class JudgedClip(NamedTuple):
    """What a judge says of one clip: `measures` are the reward of each labelled dimension and `reward`, in [0, 1]."""

    prompt: str
    measures: Mapping[str, float]


#: System -> clip key -> what one judge says.
Judged = Mapping[str, Mapping[str, JudgedClip]]


class JudgesPart(NamedTuple):
    """
    What judges other than the critic add to a report.

    Attributes:
        judged: judge -> what it says, by system and clip.
        stamps: system -> how its aspects were judged.
    """

    rows: list[EvalRow]
    deltas: list[PairedDelta]
    judged: dict[str, Judged]
    calibration: dict[str, tuple[CalibrationBin, ...]]
    confusion: dict[str, Confusion]
    stamps: dict[str, Mapping[str, str]]


def load_judges(folders: Mapping[str, Mapping[str, Path]], paths: Mapping[str, Path], base: str) -> JudgesPart:
    """
    Other judges' ratings of the systems' clips: their means and label shares, how far the critic agrees with each, and
    the aspects of the one that gives them.

    Args:
        folders: judge -> system -> folder of ratings.
        paths: system -> folder of the critic's ratings.

    Raises:
        ValueError: if two judges give VideoScore's aspects. Those of others stand under the judge's name.
    """
    part = JudgesPart([], [], {}, {}, {}, {})
    for judge, mine in folders.items():
        rated = pair_systems({system: load_system(path) for system, path in mine.items()})
        prompts = prompts_of(rated)
        part.judged[judge] = judged_clips(rated)
        means = compare_means("mean_reward", values_of(rated, lambda c: c.reward), prompts, suite=judge, base=base)
        part.rows.extend([*means.rows, *_label_rows(judge, rated)])
        compared = compare_judges(judge, paths, mine)
        part.rows.extend(compared.figures or compare_rewards(judge, paths, mine))
        if compared.bins:
            part.calibration[f"critic against {judge}"] = compared.bins
        if compared.confusion:
            part.confusion[judge] = compared.confusion
        aspects = dict.fromkeys(name for clips in rated.values() for clip in clips for name in clip.aspects)
        is_videoscore = bool(aspects) and aspects.keys() <= VIDEO_SCORE_ASPECTS.keys()
        if is_videoscore and part.stamps:
            raise ValueError(f"judges: {judge} is the second that gives {', '.join(aspects)}; name one such judge.")
        for name in aspects:
            found = values_of(rated, partial(_aspect, name))
            means = compare_means(name, found, prompts, suite=VIDEOSCORE_SUITE if is_videoscore else judge, base=base)
            part.rows.extend(means.rows)
            part.deltas.extend(means.deltas)
        part.stamps.update({system: _stamps(path) for system, path in mine.items()} if is_videoscore else {})
    return part


def names_in(folders: Iterable[Path]) -> Names:
    """Who rated the clips of `folders`."""
    found: set[str] = set()
    for folder in folders:
        names = {str(row["critic"]) for _, row in raw_rows(folder) if isinstance(row, Mapping) and row.get("critic")}
        if (folder / ARTIFACT_FILE).is_file() and (critic := Artifact.load(folder).parents.get("critic")):
            names.add(critic)
        if not names:
            return None
        found |= names
    return frozenset(found)


def role_of(judge: Names, trained_on: Names) -> Role:
    """
    What a judge by these names (people have none) is to a system that was trained on the rewards of those critics.

    >>> role_of(frozenset({"video_reward@0123456789abcdef"}), frozenset({"/old/vr@0123456789abcdef+linear:1:5"}))
    'training'
    >>> role_of(None, frozenset()), role_of(frozenset({"oracle"}), None)
    ('independent', 'not known')
    """
    if any(same_weights(one, name) for one in trained_on or () for name in judge or ()):
        return "training"
    return "not known" if trained_on is None or (judge is None and trained_on) else "independent"


def _aspect(name: str, clip: SystemClip) -> float | None:
    return clip.aspects.get(name)


def _stamps(folder: Path) -> dict[str, str]:
    return {name: str(value) for name, value in Artifact.load(folder).config.items()}


def judged_clips(systems: Mapping[str, Sequence[SystemClip]]) -> Judged:
    """What the ratings of `systems` say, clip by clip."""
    return {
        name: {clip.key: JudgedClip(clip.prompt, measures(clip)) for clip in clips} for name, clips in systems.items()
    }


def measures(clip: SystemClip) -> dict[str, float]:
    """The figures of one clip that can be compared; empty where it has neither label nor reward."""
    found = {str(d): clip.rubric.rewards[label] for d, label in (clip.labels or {}).items()}
    return found if clip.reward is None else {**found, "reward": clip.reward}


def clip_label_rates(systems: Mapping[str, Sequence[SystemClip]]) -> tuple[LabelRate, ...]:
    """The label shares of each system that has labels; raises `ValueError` for labels of two rubrics."""
    rates, rubric = [], rubric_of_systems(systems)
    for name, clips in systems.items():
        labelled = [(clip.prompt, clip.labels) for clip in clips if clip.labels]
        for dimension in rubric.dimensions if labelled else ():
            for label in rubric.labels:
                hits = [labels[dimension] == label for _, labels in labelled]
                rates.append(
                    LabelRate(name, dimension, label, bootstrap_share(hits, [prompt for prompt, _ in labelled]))
                )
    return tuple(rates)


def _label_rows(judge: str, systems: Mapping[str, Sequence[SystemClip]]) -> list[EvalRow]:
    return [
        EvalRow(judge, f"{judge}/{r.dimension}/{r.label}", r.system, r.rate.value, r.rate.n, r.rate.ci95)
        for r in clip_label_rates(systems)
    ]


def _dimensions(judged: Judged) -> list[str]:
    """What a judge gives labels on."""
    names = dict.fromkeys(name for clips in judged.values() for clip in clips.values() for name in clip.measures)
    return [name for name in names if name != "reward"]


class _Both(NamedTuple):
    """A clip that two systems have, and what the judge says of each one's."""

    key: str
    prompt: str
    a: float
    b: float


def _both(judged: Judged, a: str, b: str, measure: str) -> list[_Both]:
    """The clips that both systems have `measure` of."""
    return [
        _Both(key, judged[a][key].prompt, judged[a][key].measures[measure], judged[b][key].measures[measure])
        for key in sorted(judged[a].keys() & judged[b].keys())
        if measure in judged[a][key].measures and measure in judged[b][key].measures
    ]


def paired_differences(judge: str, judged: Judged) -> Iterator[Paired]:
    """Paired differences of all pairs of systems in reward and in each dimension, bootstrapped over prompts."""
    for a, b in system_pairs(list(judged)):
        for measure in ("reward", *_dimensions(judged)):
            found = _both(judged, a, b, measure)
            if found:
                differences, prompts = [clip.a - clip.b for clip in found], [clip.prompt for clip in found]
                estimate = bootstrap_mean(differences, prompts)
                b_value = sum(clip.b for clip in found) / len(found)
                yield Paired(judge, a, b, str(measure), *estimate, sign_flip_p(differences, prompts), b_value)


def judge_ballots(judge: str, judged: Judged) -> Ballots:
    """What a judge would vote on each pair by dimension and, by reward, overall; a difference within the margin is a tie."""
    ballots: dict[tuple[str, str], list[Vote]] = {}
    for a, b in system_pairs(list(judged)):
        for dimension in (*_dimensions(judged), None):
            for clip in _both(judged, a, b, dimension or "reward"):
                outcome = 0 if abs(clip.a - clip.b) <= REWARD_MARGIN else 1 if clip.a > clip.b else -1
                ballots.setdefault((a, b), []).append(Vote(clip.prompt, clip.key, dimension, outcome, judge))
    return ballots


class AgainstJudge(NamedTuple):
    """
    The critic against another judge.

    Attributes:
        figures: accuracy, balanced accuracy and the like (suite `critic against {judge}`), intervals over prompts.
        bins: the reliability where the scores hold probabilities.
        confusion: of all dimensions.
    """

    figures: list[EvalRow]
    bins: tuple[CalibrationBin, ...]
    confusion: Confusion | None


def compare_judges(judge: str, scored: Mapping[str, Path], truth: Mapping[str, Path]) -> AgainstJudge:
    """
    The scores in the folders `scored` against `judge`'s labels in `truth`, by system, joined by the rows' ids; all empty if
    the two share no labelled clip, or judge by two rubrics.
    """
    found: list[Verdict] = []
    for system in (name for name in scored if name in truth):  # in one order: a sum's last digit depends on it
        rubric = find_rubric(truth[system])
        if find_rubric(scored[system]) != rubric:
            continue  # their labels answer different questions
        labels = {row["id"]: _labels(row, rubric) for row in _rows(truth[system])}
        rows = [row for row in _rows(scored[system]) if labels.get(row["id"]) and row.get(rubric.dimensions[-1])]
        # Clips of one prompt are alike: they are resampled together, whichever system made them.
        prompts = {row["id"]: str(row.get("prompt") or row["id"]) for row in rows}
        found += [verdict._replace(video=prompts[verdict.video]) for verdict in verdicts(rows, labels, rubric)]
    if not found:
        return AgainstJudge([], (), None)
    suite = f"critic against {judge}"
    figures = evaluate_verdicts(found, system="critic")
    confident = [(v.probs[v.rubric.rank(v.label)], v.label == v.truth) for v in found if v.probs is not None]
    bins = calibration_bins([p for p, _ in confident], [right for _, right in confident]) if confident else ()
    rubric = found[0].rubric
    counts = confusion([v.truth for v in found], [v.label for v in found], rubric).astype(int)
    return AgainstJudge(
        [replace(row, suite=suite, metric=row.metric.removeprefix("critic/")) for row in figures],
        bins,
        Confusion(tuple(rubric.labels), tuple(tuple(row) for row in counts.tolist())),
    )


def compare_rewards(judge: str, scored: Mapping[str, Path], rated: Mapping[str, Path]) -> list[EvalRow]:
    """
    Of a judge without labels: Spearman's correlation of the critic's rewards and the judge's over the clips that both
    scored, joined by the rows' ids, and its interval over prompts; nothing where one of the two gives all the same.
    """
    found: list[tuple[str, float, float]] = []
    for system in (name for name in scored if name in rated):
        theirs = {row["id"]: row["reward"] for row in _rows(rated[system]) if row.get("reward") is not None}
        mine = [row for row in _rows(scored[system]) if row.get("reward") is not None and row["id"] in theirs]
        found += [(str(row.get("prompt") or row["id"]), row["reward"], theirs[row["id"]]) for row in mine]
    if not found:
        return []
    prompts, critic, other = zip(*found, strict=True)
    names, index = np.unique(prompts, return_inverse=True)
    order = partial(spearman, np.array(critic), np.array(other))
    value = float(order(np.ones((1, len(found))))[0])
    if not np.isfinite(value):
        return []
    drawn = order(resample_counts([0] * len(names))[:, index])
    low, high = interval(drawn[np.isfinite(drawn)])
    ci95 = (low, high) if len(names) > 1 and high - low > 1e-9 else None
    return [EvalRow(f"critic against {judge}", REWARDS_ORDER, "critic", value, len(names), ci95)]


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The rows with an id in whichever table `folder` has; in one of text, such as a CSV, rewards are numbers too."""
    found = []
    for _, row in raw_rows(folder):
        name = row_id(row) if isinstance(row, Mapping) else None
        if isinstance(row, Mapping) and name:
            reward, probs = row.get("reward"), row.get("probs")
            known = {"id": name, "reward": None if reward is None else float(reward)}
            found.append({**row, **known, "probs": probs if isinstance(probs, Mapping) else None})
    return found


def _labels(row: Mapping[str, Any], rubric: Rubric) -> dict[str, str]:
    return {dimension: rubric.parse_label(row[dimension]) for dimension in rubric.dimensions if row.get(dimension)}
