"""A report from folders: each system's clips with their ratings, VBench results, votes, training logs, other figures."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..records import Comparison, EvalRow
from ..rubric import Dimension, Label
from ..store.manifest import Artifact, library_versions, read_rows
from .drift import DriftAlarm, clip_statistics, drift_alarms, drift_rows
from .intervals import wilson
from .report_data import CalibrationBin, ClipRow, Curve, LabelRate, Report, mean_row, paired_delta
from .report_judges import Judged, JudgedClip, compare_judges, judge_wins, measures, paired_differences
from .report_systems import SystemClip, describe_clip, num_unscored, pair_systems
from .report_systems import load_system as load_system
from .vbench_eval import Protocol
from .vbench_results import read_results
from .vbench_run import RUN_FILE
from .vbench_score import PairedDelta, paired_deltas, vbench_rows
from .win_rate import WinRate, to_votes, win_rates


logger = logging.getLogger(__name__)


@dataclass
class ReportArguments:
    """Which folders a report is made of. Lists hold `name=path`; the first system is the base."""

    report_dir: str = field(metadata={"help": "Folder of report.html, report.md and report.json."})
    systems: list[str] = field(
        default_factory=list,
        metadata={"help": "name=FOLDER of clips with metadata (generated/ or scored/), the base first."},
    )
    judges: list[str] = field(
        default_factory=list,
        metadata={"help": "judge/system=FOLDER: the same clips rated by another judge (labels, reward)."},
    )
    title: str = field(default="Evaluation", metadata={"help": "Heading of the report."})
    vbench: list[str] = field(default_factory=list, metadata={"help": "name=FOLDER of VBench's *_eval_results.json."})
    protocol: Protocol = field(default="vbench", metadata={"help": "vbench, vbench-long or vbench-custom."})
    votes: list[str] = field(default_factory=list, metadata={"help": "judge=FILE of comparisons, JSON lines."})
    figures: list[str] = field(default_factory=list, metadata={"help": "FILE of other figures, JSON lines."})
    training: list[str] = field(default_factory=list, metadata={"help": "name=trainer_state.json of a training."})
    num_clips: int = field(default=8, metadata={"help": "Prompts whose clips are shown side by side."})
    drift: bool = field(default=True, metadata={"help": "Measure drift alarms (about 0.3 s a clip)."})


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
        found[name] = Path(path)
    return found


def build_report(args: ReportArguments) -> Report:
    """
    Everything that the folders of `args` hold, as a report.

    Raises:
        ValueError: if an entry is malformed or a VBench system is unknown.
    """
    paths = named_paths(args.systems)
    if not paths:
        raise ValueError("systems is empty; name at least the base: base=FOLDER.")
    systems = pair_systems({name: load_system(path) for name, path in paths.items()})
    base = next(iter(systems))
    prompts = {clip.key: clip.prompt for clips in systems.values() for clip in clips}
    rewards = {
        name: {clip.key: clip.reward for clip in clips if clip.reward is not None} for name, clips in systems.items()
    }
    rewards = {name: values for name, values in rewards.items() if values}
    rows = [mean_row("reward", "mean_reward", name, values, prompts) for name, values in rewards.items()]
    deltas = [
        paired_delta("reward", "mean_reward", (base, rewards[base]), (name, values), prompts)
        for name, values in rewards.items()
        if name != base and base in rewards
    ]
    found, changes = _vbench(args, base)
    more, judged, calibration = _judges(args, paths, systems)
    drift: tuple[DriftAlarm, ...] = ()
    if args.drift:
        logger.info("pixel statistics of %d clips", sum(map(len, systems.values())))
        statistics = {n: {c.key: clip_statistics(c.video) for c in clips} for n, clips in systems.items()}
        rows += drift_rows(statistics, prompts)
        drift = tuple(drift_alarms(statistics, prompts, base=base))
    return Report(
        title=args.title,
        base=base,
        rows=(*rows, *more, *found, *(row for path in args.figures for row in read_figures(Path(path)))),
        label_rates=_label_rates(systems),
        rewards={name: tuple(values.values()) for name, values in rewards.items()},
        deltas=(*deltas, *changes),
        win_rates=(
            *(rate for judge, path in named_paths(args.votes).items() for rate in _wins(judge, path, systems)),
            *(rate for judge, rated in judged.items() for rate in judge_wins(judge, rated)),
        ),
        paired=tuple(row for judge, rated in judged.items() for row in paired_differences(judge, rated)),
        calibration=calibration,
        clips=_clip_rows(systems, args.num_clips),
        drift=drift,
        curves=tuple(curve for name, path in named_paths(args.training).items() for curve in load_curves(name, path)),
        stamps=_stamps(paths, args),
        notes=(
            *(note for name, path in paths.items() for note in _unscored(name, path)),
            *(note for name, path in named_paths(args.vbench).items() for note in _not_measured(name, path)),
        ),
    )


def _unscored(name: str, folder: Path) -> list[str]:
    count, total = num_unscored(folder)
    return (
        [f"{name}: {count} of {total} clips {'is' if count == 1 else 'are'} unscored and left out."] if count else []
    )


def _judges(
    args: ReportArguments, paths: Mapping[str, Path], systems: Mapping[str, list[SystemClip]]
) -> tuple[list[EvalRow], dict[str, Judged], dict[str, tuple[CalibrationBin, ...]]]:
    """Figures of the other judges and the critic's agreement with them, each judge's ratings, the critic's reliability."""
    by_judge = {"critic": systems, **_load_judges(args.judges, paths)}
    judged: dict[str, Judged] = {judge: _judged(rated) for judge, rated in by_judge.items()}
    rows = [row for judge, rated in by_judge.items() if judge != "critic" for row in _judge_rows(judge, rated)]
    compared = {j: compare_judges(j, paths, of) for j, of in _judge_paths(args.judges, paths).items()}
    rows += [row for figures, _ in compared.values() for row in figures]
    return rows, judged, {f"critic against {judge}": bins for judge, (_, bins) in compared.items() if bins}


def _judge_paths(entries: Sequence[str], systems: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """`judge/system=FOLDER` entries as judge -> system -> folder, systems in the report's order."""
    found: dict[str, dict[str, Path]] = {}
    for name, path in named_paths(entries).items():
        judge, _, system = name.partition("/")
        if system not in systems or judge in ("", "critic"):
            raise ValueError(
                f"judges: {name!r}: write judge/system=FOLDER with one of the systems {', '.join(systems)}; the judge "
                "'critic' stands for the ratings in the systems' own folders."
            )
        found.setdefault(judge, {})[system] = path
    return {judge: {s: folders[s] for s in systems if s in folders} for judge, folders in found.items()}


def _load_judges(entries: Sequence[str], systems: Mapping[str, Path]) -> dict[str, dict[str, list[SystemClip]]]:
    folders = _judge_paths(entries, systems)
    return {judge: pair_systems({s: load_system(path) for s, path in of.items()}) for judge, of in folders.items()}


def _judged(systems: Mapping[str, Sequence[SystemClip]]) -> dict[str, dict[str, JudgedClip]]:
    return {
        name: {clip.key: JudgedClip(clip.prompt, measures(clip.labels, clip.reward)) for clip in clips}
        for name, clips in systems.items()
    }


def _judge_rows(judge: str, systems: Mapping[str, Sequence[SystemClip]]) -> list[EvalRow]:
    """Another judge's mean rewards and label shares."""
    rows = []
    for name, clips in systems.items():
        values = {clip.key: clip.reward for clip in clips if clip.reward is not None}
        if values:
            rows.append(mean_row(judge, "mean_reward", name, values, {clip.key: clip.prompt for clip in clips}))
    for rate in _label_rates(systems):
        metric = f"{judge}/{rate.dimension}/{rate.label}"
        rows.append(EvalRow(judge, metric, rate.system, rate.rate.value, rate.rate.n, rate.rate.ci95))
    return rows


def _label_rates(systems: Mapping[str, Sequence[SystemClip]]) -> tuple[LabelRate, ...]:
    rates = []
    for name, clips in systems.items():
        labelled = [clip.labels for clip in clips if clip.labels]
        for dimension in Dimension if labelled else ():
            for label in Label:
                count = sum(labels[dimension] == label for labels in labelled)
                rates.append(LabelRate(name, dimension, label, wilson(count, len(labelled))))
    return tuple(rates)


def _vbench(args: ReportArguments, base: str) -> tuple[list[EvalRow], list[PairedDelta]]:
    results = {name: read_results(path, protocol=args.protocol) for name, path in named_paths(args.vbench).items()}
    rows = [row for name, found in results.items() for row in vbench_rows(found, name)]
    if len(results) > 1 and base not in results:
        raise ValueError(f"vbench names {', '.join(results)} but not the base {base!r}; deltas need its results.")
    pairs = [(name, found) for name, found in results.items() if name != base]
    deltas = [d for name, found in pairs for d in paired_deltas(results[base], found, base_name=base, system=name)]
    return rows, deltas


def _not_measured(name: str, folder: Path) -> list[str]:
    """What a run of VBench left undone, from its `run.json`."""
    if not (folder / RUN_FILE).is_file():
        return []
    runs = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["runs"]
    undone = [run["dimension"].replace("_", " ") for run in runs if run["status"] != "done"]
    return [f"VBench of {name}, not measured: {', '.join(undone)}. {folder / RUN_FILE} says why."] if undone else []


def _wins(judge: str, path: Path, systems: Mapping[str, Sequence[SystemClip]]) -> list[WinRate]:
    comparisons = [
        Comparison(**{**row, "dimension": Dimension(row["dimension"]) if row["dimension"] else None})
        for row in read_rows(path)
    ]
    of_name = {clip.video.name: name for name, clips in systems.items() for clip in clips}
    of_path = {str(clip.video): name for name, clips in systems.items() for clip in clips}
    if sum(map(len, systems.values())) != len(of_name):
        of_name = {}  # systems share file names; only whole paths tell them apart

    def find(video: str) -> str:
        return of_path.get(video) or of_name.get(Path(video).name, "another system")

    base = next(iter(systems))
    rates = []
    for name in systems:
        votes = to_votes(comparisons, find, first=name, second=base) if name != base else []
        rates += win_rates(votes, judge=judge, first=name, second=base) if votes else []
    return rates


def _clip_rows(systems: Mapping[str, Sequence[SystemClip]], limit: int) -> tuple[ClipRow, ...]:
    """The first clip that all systems have of `limit` prompts, spread over the list of prompts."""
    by_key = {name: {clip.key: clip for clip in clips} for name, clips in systems.items()}
    base = next(iter(by_key.values()))
    first: dict[str, str] = {}
    for key, clip in base.items():
        if all(key in clips for clips in by_key.values()):
            first.setdefault(clip.prompt, key)
    shared = list(first.values())[:: max(1, len(first) // max(1, limit))][:limit]
    return tuple(
        ClipRow(
            base[key].prompt,
            {name: clips[key].video for name, clips in by_key.items()},
            {name: describe_clip(clips[key]) for name, clips in by_key.items()},
        )
        for key in shared
    )


def read_figures(path: Path) -> list[EvalRow]:
    """
    Figures written by another stage: JSON lines with the fields of `EvalRow`.

    Raises:
        ValueError: naming the line, if a field is missing or unknown.
    """
    rows = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            rows.append(EvalRow(**{**row, "ci95": tuple(row["ci95"]) if row.get("ci95") else None}))
        except TypeError as error:
            raise ValueError(
                f"{path}, line {number}: {error}; a row has suite, metric, system, value, n, ci95."
            ) from None
    return rows


def load_curves(name: str, path: Path) -> list[Curve]:
    """The losses, rewards and accuracies in a Trainer's `trainer_state.json` (or the folder that holds it)."""
    file = path / "trainer_state.json" if path.is_dir() else path
    history = json.loads(file.read_text(encoding="utf-8"))["log_history"]
    wanted = ("loss", "loss_unweighted", "reward_mean", "eval_loss", "mean_token_accuracy")
    curves = []
    for key in wanted:
        points = [(float(row["step"]), float(row[key])) for row in history if key in row]
        if len(points) > 1:
            curves.append(Curve(key.replace("_", " "), name, *zip(*points)))
    return curves


def _stamps(paths: Mapping[str, Path], args: ReportArguments) -> dict[str, str]:
    stamps = {}
    for name, path in paths.items():
        made = [str(path)]
        if (path / "artifact.yaml").is_file():
            artifact = Artifact.load(path)
            made += [f"{parent} {revision}" for parent, revision in artifact.parents.items()]
        stamps[f"system {name}"] = ", ".join(made)
    for name, path in named_paths(args.vbench).items():
        stamps[f"VBench of {name}"] = f"protocol {args.protocol}, {path}"
        for file in sorted(path.glob("*_stamp.json"))[:1]:
            found = json.loads(file.read_text(encoding="utf-8"))
            shown = [f"{key} {found[key]}" for key in ("vbench", "torch", "gpu") if found.get(key)]
            stamps[f"VBench of {name}"] += ", " + ", ".join(shown)
    versions = [f"{package} {found}" for package, found in library_versions().items() if found]
    return {**stamps, "versions": ", ".join(versions)}
