"""What an artefact folder holds, in a few lines: rows, labels, rewards, unscored, best and worst clips."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from ..remote import local_copy
from ..rubric import LIFT, REWARD_MARGIN, Rubric
from .clip_rows import is_unscored, row_id
from .manifest import ARTIFACT_FILE, METADATA_FILE, REMAKE, Artifact, read_rows
from .rated_videos import METADATA_NAMES, check_rated_videos, raw_rows
from .rubrics.of_data import describe_rubric, find_rubric
from .votes import VoteRow, read_votes, tally


_SHOWN = 3
#: Beside a cache's metadata, if people compared clips: one row a pair.
PAIRS_FILE = "pairs.jsonl"
# The default of the trainer's min_reward_gap.
_PAIR_GAP = 0.05


def inspect_artifact(folder: Path | str) -> Iterator[str]:
    """
    Lines that say what `folder` holds: an artefact, a folder of rated clips, the arena's votes, or a LoRA.

    Raises:
        FileNotFoundError: if it is none of these.
    """
    path = Path(local_copy(folder))
    loras = sorted(path.glob("*lora*.safetensors")) + sorted(path.glob("adapter_model.safetensors"))
    if (path / ARTIFACT_FILE).is_file():
        artifact = Artifact.load(path)
        yield f"{path}: {artifact.kind}"
        yield from _indented(yaml.safe_dump({"config": artifact.config, "parents": artifact.parents}, sort_keys=False))
        if artifact.rubric != LIFT:
            yield f"  rubric: {describe_rubric(artifact.rubric)}"
        if (path / METADATA_FILE).is_file():
            try:
                yield from _ratings(list(read_rows(path / METADATA_FILE)), artifact.rubric)
            except (KeyError, ValueError) as error:
                raise ValueError(f"{path / METADATA_FILE}: no rows of this kind ({error}). {REMAKE}") from error
        if (path / PAIRS_FILE).is_file():
            yield _chosen_pairs(path)
    elif any((path / name).is_file() for name in METADATA_NAMES):
        yield f"{path}: clips with metadata"
        yield from _clips(path)
    elif _holds_votes(path):
        yield f"{path}: votes"
        yield from _votes(path)
    elif loras:
        for lora in loras:
            yield from _lora(lora)
    else:
        raise FileNotFoundError(
            f"{path}: holds no {ARTIFACT_FILE}, no {METADATA_NAMES[0]}, no votes and no LoRA. Name another folder."
        )


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}" for line in text.splitlines())


def _clips(folder: Path) -> Iterator[str]:
    """Of a folder of clips: its rows as training takes them, those that nobody could score, and the bad ones."""
    rubric = find_rubric(folder)
    checked = check_rated_videos(folder, rubric=rubric)
    rows = [row for _, row in raw_rows(folder) if isinstance(row, Mapping)]
    own_ids = {row_id(row) for row in rows}
    unscored = [row for row in rows if is_unscored(row, rubric)]
    half = [{"unscored": error.problem} for error in checked.errors if error.is_unscored]
    videos = [
        {
            "id": v.id if v.id in own_ids or not isinstance(v.video, Path) else os.path.relpath(v.video, folder),
            "prompt": v.prompt,
            "is_real": v.is_real,
            "labels": v.labels,
            "reward": v.scalar_reward,
        }
        for v in checked.videos
    ]
    yield from _ratings([*videos, *unscored, *half], rubric)
    bad = len(checked.errors) - len(half)
    yield f"  bad rows: {bad}" + (" (lift-trl validate lists them)" if bad else "")


def _labels(row: Mapping[str, Any], rubric: Rubric) -> Mapping[str, Any]:
    """The labels of a row: of a cache's, of a rating's, or of a scored clip's."""
    if row.get("labels"):
        return dict(row["labels"])
    if row.get("label") is not None:
        return {row["dimension"]: row["label"]}
    return {dimension: row[dimension] for dimension in rubric.dimensions if row.get(dimension) is not None}


def _reward(row: Mapping[str, Any], rubric: Rubric) -> float:
    if row.get("labels"):
        return rubric.mean_reward(row["labels"])
    value = row.get("reward")
    return math.nan if value is None else float(value)


def _ratings(rows: list[Mapping[str, Any]], rubric: Rubric) -> Iterator[str]:
    real = sum(bool(row.get("is_real")) for row in rows)
    yield f"  rows: {len(rows)}, of which real: {real}"
    rewards = [(math.nan if row.get("is_real") else _reward(row, rubric), row) for row in rows]
    rated = sorted(((reward, str(row["id"])) for reward, row in rewards if not math.isnan(reward)), reverse=True)
    unscored = sum(is_unscored(row, rubric) for row in rows)
    if rated or unscored:  # else nobody asked for a score
        yield f"  unscored: {unscored}"
    given = [_labels(row, rubric) for row in rows]
    for dimension in rubric.dimensions:
        counts = Counter(rubric.parse_label(str(labels[dimension])) for labels in given if dimension in labels)
        if counts:
            yield f"  {dimension}: " + ", ".join(f"{label} {counts[label]}" for label in reversed(rubric.labels))
    if rated:
        yield _pairs([(reward, row) for reward, row in rewards if not math.isnan(reward)])
        yield f"  reward: mean {sum(reward for reward, _ in rated) / len(rated):.4f}"
        yield "  best: " + ", ".join(f"{name} ({reward:.4f})" for reward, name in rated[:_SHOWN])
        yield "  worst: " + ", ".join(f"{name} ({reward:.4f})" for reward, name in rated[: -_SHOWN - 1 : -1])


def _pairs(rewards: list[tuple[float, Mapping[str, Any]]]) -> str:
    """How many pairs of clips of one prompt differ in reward, in how many prompts, and how many do not."""
    prompts: dict[str, list[float]] = {}
    for reward, row in rewards:
        prompts.setdefault(str(row.get("prompt") or row.get("caption")), []).append(reward)
    gaps = [
        [abs(a - b) > _PAIR_GAP + REWARD_MARGIN for a, b in combinations(values, 2)] for values in prompts.values()
    ]
    decided = sum(map(sum, gaps))
    return (
        f"  pairs: {decided} of rewards more than {_PAIR_GAP} apart in {sum(map(any, gaps))} of {len(prompts)} prompts, "
        f"{sum(map(len, gaps)) - decided} ties"
    )


def _chosen_pairs(cache: Path) -> str:
    """How many pairs of the cache's clips people chose, and in how many prompts."""
    prompts = {row["id"]: row["prompt"] for row in read_rows(cache / METADATA_FILE)}
    chosen = [str(row["chosen"]) for row in read_rows(cache / PAIRS_FILE)]
    return f"  pairs that people chose: {len(chosen)} in {len({prompts[clip] for clip in chosen})} prompts"


def _holds_votes(path: Path) -> bool:
    """Whether it is a file of votes, or a folder of the arena's."""
    files = [path] if path.suffix.lower() == ".jsonl" else sorted(path.glob("**/*.jsonl"))
    first = next((row for file in files if file.is_file() for row in read_rows(file)), {})
    return {"choice", "video_a", "video_b"} <= first.keys()


def _votes(path: Path) -> Iterator[str]:
    """Of each question: votes, pairs in which more people chose one clip, their prompts, and ties."""
    votes = list(read_votes(path))
    voters = {vote.row["voter"] for vote in votes if vote.row.get("voter") is not None}
    yield f"  votes: {len(votes)}, of {len(voters)} people"
    questions: dict[str | None, list[VoteRow]] = {}
    for vote in votes:
        questions.setdefault(vote.row["dimension"], []).append(vote)
    for question, asked in sorted(questions.items(), key=lambda item: (item[0] is not None, str(item[0]))):
        balance = tally((_voted(vote, "video_a"), _voted(vote, "video_b"), vote.sign) for vote in asked)
        decided = [pair for pair, sign in balance.items() if sign]
        yield (
            f"  {question or 'overall'}: {len(decided)} pairs in {len({first[0] for first, _ in decided})} prompts, "
            f"{len(balance) - len(decided)} ties"
        )


def _voted(vote: VoteRow, side: str) -> tuple[str, str]:
    return str(vote.row["prompt"]), str(vote.row[side])


def _lora(path: Path) -> Iterator[str]:
    try:
        with safe_open(str(path), framework="np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}). Copy or download it again.") from error
    yield f"{path}: LoRA, {len(shapes)} tensors, {sum(math.prod(shape) for shape in shapes.values())} parameters"
    if "lora_adapter_metadata" in metadata:
        config = yaml.safe_load(metadata["lora_adapter_metadata"])
        wanted = {k: v for k, v in config.items() if k.rsplit(".", 1)[-1] in ("r", "lora_alpha", "target_modules")}
        yield from _indented(yaml.safe_dump(wanted))
