"""A report from folders: each system's clips with their ratings, VBench results, votes, training logs, other figures."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..documented import documented
from ..published import published
from ..records import EvalRow, content_id
from ..remote import local_copy
from ..statistics.drift import DriftAlarm, clip_statistics, drift_alarms, drift_rows
from ..statistics.figures import read_figures
from ..store.manifest import STATE_FILE, Artifact, library_versions, read_json
from ..store.rated_videos import raw_rows
from ..store.system_clips import SystemClip, load_system, num_unscored, pair_systems, prompts_of, rubric_of_systems
from ..vbench.figures import load_vbench
from ..vbench.suite import Protocol
from .clips import Statistics, Systems, shown_clips, verdict_clips
from .data import REWARD_SUITE, TRAINING_JUDGE, VIDEOSCORE_SUITE, Curve, Paired, Report, Role, worst_role
from .judges import (
    Judged,
    clip_label_rates,
    judge_ballots,
    judged_clips,
    load_judges,
    names_in,
    paired_differences,
    role_of,
)
from .systems import (
    Names,
    compare_means,
    plain_controls,
    system_facts,
    training_critics,
    training_notes,
    training_stamps,
    values_of,
)
from .verdict import DECIDING
from .votes import Ballots, agreements, ballot_wins, net_preferences, read_ballots, strengths


logger = logging.getLogger(__name__)


#: What a guard writes (`recipes/iterate.py`, `recipes/align.py`).
GUARD_FILE = "guard.json"
# By what docs/objectives.md tells an objective that fails.
_HEALTH = (
    *("kl_fraction", "kl_old_fraction"),
    *("rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected"),
)
_WANTED = ("loss", "loss_unweighted", "reward_mean", "eval_loss", "mean_token_accuracy", *_HEALTH)


@documented
@dataclass
class ReportArguments:
    """
    Which folders a report is made of. Lists hold `name=path`; the first system is the base.

    Args:
        report_dir (`str`):
            Folder of report.html, report.md and report.json.
        systems (`list[str]`, *optional*, defaults to `[]`):
            name=FOLDER of clips with metadata (generated/ or scored/), the base first.
        judges (`list[str]`, *optional*, defaults to `[]`):
            judge/system=FOLDER: the same clips rated by another judge.
        title (`str`, *optional*, defaults to `"Evaluation"`):
            Heading of the report.
        vbench (`list[str]`, *optional*, defaults to `[]`):
            name=FOLDER of VBench's *_eval_results.json.
        protocol (`str`, *optional*, defaults to `"vbench"`):
            vbench, vbench-long or vbench-custom.
        votes (`list[str]`, *optional*, defaults to `[]`):
            judge=PATH of comparisons: a file of JSON lines or a folder of such.
        figures (`list[str]`, *optional*, defaults to `[]`):
            FILE of other figures, JSON lines.
        training (`list[str]`, *optional*, defaults to `[]`):
            name=FOLDER or trainer_state.json of a training, or a guard.json.
        cards (`list[str]`, *optional*, defaults to `[]`):
            name=FOLDER of a trained model whose card takes the system's figures (model-index).
        num_clips (`int`, *optional*, defaults to `8`):
            Prompts whose clips are shown side by side.
        drift (`bool`, *optional*, defaults to `True`):
            Measure drift alarms (about 0.3 s a clip).
    """

    report_dir: str
    systems: list[str] = field(default_factory=list)
    judges: list[str] = field(default_factory=list)
    title: str = "Evaluation"
    vbench: list[str] = field(default_factory=list)
    protocol: Protocol = "vbench"
    votes: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    training: list[str] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    num_clips: int = 8
    drift: bool = True


def named_paths(entries: Sequence[str]) -> dict[str, Path]:
    """
    `name=path` entries as a mapping, in order.

    >>> named_paths(["base=runs/base"])
    {'base': PosixPath('runs/base')}

    Raises:
        ValueError: if an entry has no name or a name stands twice.
    """
    found: dict[str, Path] = {}
    for entry in entries:
        name, separator, path = entry.partition("=")
        if not separator or not name or not path or name in found:
            raise ValueError(f"{entry!r}: write name=path, each name once, for instance base=runs/base/scored.")
        found[name] = Path(local_copy(path))
    return found


def build_report(args: ReportArguments) -> Report:
    """
    Everything that the folders of `args` hold, as a report.

    Raises:
        ValueError: if an entry is malformed or a VBench system is unknown.
    """
    paths = _system_paths(args)
    systems = pair_systems({name: load_system(path) for name, path in paths.items()})
    base = next(iter(systems))
    rewards = values_of(systems, lambda clip: clip.reward)
    means = compare_means("mean_reward", rewards, prompts_of(systems), suite=REWARD_SUITE, base=base)
    vbench = load_vbench(named_paths(args.vbench), base, args.protocol)
    judged_by = _judge_paths(args.judges, paths)
    others = load_judges(judged_by, paths, base)
    judged = {TRAINING_JUDGE: judged_clips(systems), **others.judged}
    judges = {judge: judge_ballots(judge, rated) for judge, rated in judged.items()}
    people, other_votes = _people(args, systems, taken=judges)
    ballots = {**people, **judges}
    paired = _paired(judged, people)
    roles = _roles(systems, {TRAINING_JUDGE: paths, **judged_by}, people)
    judge = _deciding(paired, roles)
    by = judge if judge in judged else TRAINING_JUDGE  # people's votes rank no clip
    statistics = _statistics(args, systems)
    facts = tuple(system_facts(name, clips) for name, clips in systems.items())
    drift_means, drift = _drift(statistics, systems)
    curves = [curve for name, path in named_paths(args.training).items() for curve in load_curves(name, path)]
    notes = [*_unscored(paths), *training_notes(facts), *other_votes, *vbench.notes, *gap_notes(curves)]
    return Report(
        title=args.title,
        base=base,
        judge=judge,
        systems=facts,
        controls=plain_controls(systems),
        verdict_clips=verdict_clips(systems, judged[by], by),
        rows=(*means.rows, *drift_means, *others.rows, *vbench.rows, *_figures(args)),
        label_rates=clip_label_rates(systems),
        rewards={name: tuple(values.values()) for name, values in rewards.items()},
        deltas=(*means.deltas, *others.deltas, *vbench.deltas),
        win_rates=tuple(rate for name, votes in ballots.items() for rate in ballot_wins(name, votes)),
        strengths=tuple(row for name, votes in ballots.items() for row in strengths(name, votes, list(systems))),
        agreements=tuple(row for them in people.items() for one in judges.items() for row in agreements(them, one)),
        paired=tuple(paired),
        calibration=others.calibration,
        confusion=others.confusion,
        clips=shown_clips(systems, judged[by], by, statistics, limit=args.num_clips),
        drift=drift,
        curves=tuple(curves),
        stamps={**training_stamps(systems), **_stamps(paths)},
        parents=parents_of({**paths, **_by_judge_and_system(judged_by)}),
        suite_stamps=published({args.protocol: vbench.stamps, VIDEOSCORE_SUITE: others.stamps}),
        notes=tuple(published(notes)),
        cards=named_paths(args.cards),
        roles=roles,
        rubric=rubric_of_systems(systems),
    )


def _system_paths(args: ReportArguments) -> dict[str, Path]:
    paths = named_paths(args.systems)
    if not paths:
        raise ValueError("systems is empty; name at least the base: base=FOLDER.")
    return paths


def _paired(judged: Mapping[str, Judged], people: Mapping[str, Ballots]) -> list[Paired]:
    by_judges = [row for judge, rated in judged.items() for row in paired_differences(judge, rated)]
    return by_judges + [row for judge, votes in people.items() for row in net_preferences(judge, votes)]


def _by_judge_and_system(folders: Mapping[str, Mapping[str, Path]]) -> dict[str, Path]:
    return {f"{judge}/{system}": path for judge, mine in folders.items() for system, path in mine.items()}


def _roles(
    systems: Systems, folders: Mapping[str, Mapping[str, Path]], people: Iterable[str]
) -> dict[str, dict[str, Role]]:
    """Judge -> system but the base -> whether it gave the reward that the system was trained on."""
    names: dict[str, Names] = {judge: names_in(mine.values()) for judge, mine in folders.items()}
    names |= dict.fromkeys(people, frozenset())
    trained_on = {name: training_critics(clips) for name, clips in list(systems.items())[1:]}
    return {j: {name: role_of(mine, critics) for name, critics in trained_on.items()} for j, mine in names.items()}


def _deciding(paired: Sequence[Paired], roles: Mapping[str, Mapping[str, Role]]) -> str:
    """
    Who decides: the first judge besides the critic that compares clips, else the first people; empty if nobody does. One
    that gave a training reward comes last.
    """
    others = [row.judge for row in paired if row.judge != TRAINING_JUDGE and row.measure in DECIDING]
    return min(others, key=lambda judge: worst_role(roles[judge].values()) == "training", default="")


def _figures(args: ReportArguments) -> list[EvalRow]:
    return [row for path in args.figures for row in read_figures(Path(local_copy(path)))]


def _statistics(args: ReportArguments, systems: Systems) -> Statistics:
    if not args.drift:
        return {}
    logger.info("pixel statistics of %d clips", sum(map(len, systems.values())))
    return {n: {c.key: clip_statistics(c.video) for c in clips} for n, clips in systems.items()}


def _drift(statistics: Statistics, systems: Systems) -> tuple[list[EvalRow], tuple[DriftAlarm, ...]]:
    if not statistics:
        return [], ()
    prompts = prompts_of(systems)
    return drift_rows(statistics, prompts), tuple(drift_alarms(statistics, prompts, base=next(iter(systems))))


def _people(
    args: ReportArguments, systems: Mapping[str, Sequence[SystemClip]], *, taken: Iterable[str]
) -> tuple[dict[str, Ballots], list[str]]:
    """People's votes by who they are, and notes on votes that are not counted."""
    found, notes = {}, []
    for name, path in named_paths(args.votes).items():
        if name in taken:
            raise ValueError(
                f"votes: {name!r} is a judge of this report; name the voters otherwise, people for instance."
            )
        found[name], left_out = read_ballots(path, systems)
        if left_out:
            notes.append(f"{name}: votes on clips that are not in this report, not counted: {left_out}.")
    return found, notes


def _unscored(paths: Mapping[str, Path]) -> list[str]:
    counts = {name: num_unscored(path) for name, path in paths.items()}
    return [
        f"{name}: {count} of {total} clips {'is' if count == 1 else 'are'} unscored and left out."
        for name, (count, total) in counts.items()
        if count
    ]


def _judge_paths(entries: Sequence[str], systems: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """`judge/system=FOLDER` entries as judge -> system -> folder, systems in the report's order."""
    found: dict[str, dict[str, Path]] = {}
    for name, path in named_paths(entries).items():
        judge, _, system = name.partition("/")
        if system not in systems or judge in ("", TRAINING_JUDGE):
            raise ValueError(
                f"judges: {name!r}: write judge/system=FOLDER with one of the systems {', '.join(systems)}; the judge "
                "'critic' stands for the ratings in the systems' own folders."
            )
        found.setdefault(judge, {})[system] = path
    return {judge: {s: folders[s] for s in systems if s in folders} for judge, folders in found.items()}


def load_curves(name: str, path: Path) -> list[Curve]:
    """
    The losses, rewards, accuracies and an objective's health in a Trainer's `trainer_state.json`, or the two curves of a
    guard's `guard.json`; of a folder those that it holds. What is infinite becomes NaN, a gap in the curve.

    Raises:
        ValueError: naming the file, if it is neither, or a value of it is no number.
    """
    if path.is_dir() and (path / GUARD_FILE).is_file():
        state = path / STATE_FILE
        return load_curves(name, path / GUARD_FILE) + (load_curves(name, state) if state.is_file() else [])
    file = path / STATE_FILE if path.is_dir() else path
    content = read_json(file)
    try:
        return _guard_curves(name, content) if file.name == GUARD_FILE else _log_curves(name, content["log_history"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: no training log as a Trainer writes it ({STATE_FILE}), and no {GUARD_FILE} ({error!r}). Name the "
            "output_dir of the training."
        ) from error


def _log_curves(name: str, history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    curves = []
    for key in _WANTED:
        rows = [row for row in history if key in row]
        if len(rows) > 1:
            steps, values = (tuple(_number(row[column]) for row in rows) for column in ("step", key))
            curves.append(Curve(key.replace("_", " ").replace("/", ": "), name, steps, values))
    return curves


def _guard_curves(name: str, watched: Mapping[str, Any]) -> list[Curve]:
    """Whether the judge that gave no reward agrees that the rounds (or steps) get better."""
    checks, unit = watched["checks"], watched["unit"]
    numbers = tuple(_number(check["number"]) for check in checks)
    return [
        Curve(
            f"mean reward by {unit}", f"{name}: {who}", numbers, tuple(_number(check[key]) for check in checks), unit
        )
        for key, who in (("reward", "the critic that rewards"), ("judge", "a judge that does not"))
    ]


def _number(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else math.nan


def gap_notes(curves: Sequence[Curve]) -> list[str]:
    """Which curves have values that are no finite numbers: where a run diverged, or ran over the range of fp16."""
    return [
        f"{curve.name}: {curve.group} is infinite or NaN at {gaps.count(True)} of {len(gaps)} {curve.unit}s, first at "
        f"{curve.unit} {curve.steps[gaps.index(True)]:g}; the curve has gaps there."
        for curve in curves
        if True in (gaps := [not math.isfinite(value) for value in curve.values])
    ]


def parents_of(paths: Mapping[str, Path]) -> dict[str, str]:
    """The hash of all rows of each folder, in any order: which clips and what is said of them, wherever the folder lies."""
    return {name: content_id(*sorted(_row_text(row) for _, row in raw_rows(path))) for name, path in paths.items()}


def _row_text(row: Mapping[str, Any] | str) -> str:
    """A row without the folder of its clip; what cannot be read has been refused before."""
    if isinstance(row, Mapping) and isinstance(row.get("video"), str | Path):
        row = {**row, "video": Path(row["video"]).name}
    return json.dumps(row, sort_keys=True, default=str)


def _stamps(paths: Mapping[str, Path]) -> dict[str, str]:
    stamps = {}
    for name, path in paths.items():
        made = [published(str(path))]
        if (path / "artifact.yaml").is_file():
            artifact = Artifact.load(path)
            made += [f"{parent} {revision}" for parent, revision in published(artifact.parents).items()]
        stamps[f"system {name}"] = ", ".join(made)
    versions = [f"{package} {found}" for package, found in library_versions().items() if found]
    return {**stamps, "versions": ", ".join(versions)}
