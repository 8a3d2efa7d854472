"""
Ratings as examples to train and to measure on: one row a clip and dimension, several raters pooled; clips are read when a
row is used.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from ..records import StoredVideo
from ..rubric import LIFT, Dimension, Rubric, folded
from ..store.clip_rows import pooled_label
from ..store.sharding import share
from .pairs.reading import Pair


if TYPE_CHECKING:
    from datasets import Dataset

    from .lift_critic import LiFTCritic

logger = get_logger(__name__)

#: What a negative made of another clip's caption says.
MISMATCH_REASON = "The video does not show what the caption says."


class Example(NamedTuple):
    """One question and its answer. `row` is where the clip stands in the dataset that it came from."""

    row: int
    clip: str
    caption: str
    dimension: str
    label: str
    reason: str


class RatedClip(NamedTuple):
    """One clip, its caption and its label on each dimension that was rated."""

    row: int
    clip: str
    caption: str
    labels: dict[str, str]


def read_examples(dataset: "Dataset", rubric: Rubric = LIFT) -> list[Example]:
    """
    The examples of rows with labels of `rubric`, tidy (`dimension`, `label`, `reason`) or one row a clip (`annotations`).

    Several raters of one clip and dimension give one example: their label by `store.clip_rows.pooled_label`, and the first
    reason that was written for it.

    Raises:
        ValueError: naming the row if a column is missing, or a label or dimension is unknown.
    """
    columns = set(dataset.column_names)
    tidy = {"dimension", "label"} <= columns
    if "video" not in columns or "caption" not in columns or not (tidy or "annotations" in columns):
        raise ValueError(
            f"the dataset has the columns {', '.join(sorted(columns))}; a critic learns from video, caption and either "
            "dimension, label, reason (tidy rows) or annotations (one row a clip). load_hra makes the first."
        )
    kept = columns & {"video_id", "id", "caption", "annotations", "dimension", "label", "reason", "annotator"}
    groups: dict[tuple[str, str, str], list[tuple[int, Mapping[str, Any]]]] = {}
    captions: dict[tuple[str, str], str] = {}  # the first of those that white space tells apart
    for index, row in enumerate(dataset.select_columns(sorted(kept))):
        # Without a clip's id every row is a clip of its own: nothing is pooled that may be different.
        clip = str(row.get("video_id") or (row.get("id") if not tidy else None) or f"row {index}")
        caption = captions.setdefault((clip, folded(row["caption"] or "")), row["caption"])
        for rating in [row] if tidy else row["annotations"]:
            groups.setdefault((clip, caption, str(rating["dimension"])), []).append((index, rating))
    return [_pool(clip, caption, dimension, ratings, rubric) for (clip, caption, dimension), ratings in groups.items()]


def _pool(
    clip: str, caption: str, name: str, ratings: Sequence[tuple[int, Mapping[str, Any]]], rubric: Rubric
) -> Example:
    row = ratings[0][0]
    try:
        dimension = rubric.parse_dimension(name)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from error
    if not caption or not caption.strip():
        raise ValueError(f"row {row}: no caption. Correct the row or leave it out; `lift-trl validate` lists them.")
    labels = [rubric.parse_label(str(rating["label"])) for _, rating in ratings]
    label = pooled_label(((rating.get("annotator"), rating["label"]) for _, rating in ratings), rubric)
    reasons = [str(rating.get("reason") or "") for (_, rating), given in zip(ratings, labels) if given == label]
    return Example(row, clip, caption.strip(), str(dimension), str(label), next((r for r in reasons if r), ""))


def without_control_tokens(examples: Sequence[Example], tokens: Sequence[str]) -> list[Example]:
    """
    `examples` but those whose caption or reason holds one of `tokens`, which scoring leaves unscored too; says how many.

    Raises:
        ValueError: if none is left.
    """
    found = {n: t for n, one in enumerate(examples) for t in tokens if t in one.caption or t in one.reason}
    if not found:
        return list(examples)
    first = examples[next(iter(found))]
    problem = (
        f"{len(found)} of {len(examples)} ratings hold text that the model takes for more than text, first row "
        f"{first.row} with {found[next(iter(found))]!r} in its caption or reason"
    )
    if len(found) == len(examples):
        raise ValueError(f"{problem}; nothing is left to learn from. Correct them.")
    logger.warning("%s; they are left out.", problem)
    return [one for n, one in enumerate(examples) if n not in found]


def mismatched_examples(
    examples: Sequence[Example], share: float, *, seed: int, rubric: Rubric = LIFT
) -> list[Example]:
    """
    Negatives: clips with the caption of another clip, which a critic that ignores captions gets wrong.

    Args:
        share: how many, as a share of the examples of semantic consistency.
        seed: of the pairing.

    Raises:
        ValueError: if there is only one caption, or `rubric` has no semantic consistency.

    Source: the remedy of VideoScore v1.1 for a critic that scores the video alone.
    """
    matching = Dimension.SEMANTIC_CONSISTENCY
    if share and matching not in rubric.dimensions:
        raise ValueError(
            f"mismatched_captions={share} makes negatives of {matching}, which is no dimension here; leave it 0."
        )
    semantic = [example for example in examples if example.dimension == matching]
    captions = sorted({example.caption for example in semantic})
    count = round(share * len(semantic))
    if count == 0:
        return []
    if len(captions) < 2:
        raise ValueError(f"mismatched_captions={share}, but the dataset has {len(captions)} caption; leave it at 0.")
    generator = np.random.default_rng(seed)
    picked = [semantic[i] for i in generator.permutation(len(semantic))[:count]]
    shifts = generator.integers(1, len(captions), size=count).tolist()
    return [
        example._replace(
            caption=captions[(captions.index(example.caption) + shift) % len(captions)],
            label=str(rubric.worst),
            reason=MISMATCH_REASON,
        )
        for example, shift in zip(picked, shifts)
    ]


def balanced_examples(examples: Sequence[Example], *, seed: int) -> list[Example]:
    """
    `examples` with each label of a dimension as often as its most frequent one: the others stand in it several times.

    Args:
        seed: decides which examples stand in it once more than others of their label.
    """
    groups: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        groups.setdefault((example.dimension, example.label), []).append(example)
    generator, balanced = np.random.default_rng(seed), []
    for (dimension, _), group in groups.items():
        most = max(len(other) for (name, _), other in groups.items() if name == dimension)
        times, rest = divmod(most, len(group))
        balanced += group * times + [group[i] for i in generator.permutation(len(group))[:rest]]
    return balanced


def rated_clips(examples: Iterable[Example]) -> list[RatedClip]:
    """`examples` gathered by clip."""
    clips: dict[tuple[str, str], RatedClip] = {}
    for example in examples:
        key = (example.clip, example.caption)
        clip = clips.setdefault(key, RatedClip(example.row, *key, {}))
        clip.labels[example.dimension] = example.label
    return list(clips.values())


def lazy_dataset(source: "Dataset", examples: Sequence[Example], pairs: Sequence[Pair] = ()) -> "Dataset":
    """
    A dataset of `examples` whose column `video` is read from `source` on use, so that no clip is stored twice.

    Rows: the fields of `Example`, `video` (a path, or where the bytes are stored) and `pairs`, which are dealt out in turn:
    an epoch shows each once.
    """
    from datasets import Dataset

    source = undecoded(source)

    def read(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        dealt = [list(pairs[place :: len(examples)]) for place in batch["place"]]
        return {**batch, "video": [video_of(source, row) for row in batch["row"]], "pairs": dealt}

    columns = {name: [getattr(example, name) for example in examples] for name in Example._fields}
    return Dataset.from_dict({**columns, "place": range(len(examples))}).with_transform(read)


def undecoded(dataset: "Dataset") -> "Dataset":
    """`dataset` with its `video` column as bytes or path; `datasets` itself would need torchcodec."""
    from datasets import Video

    if isinstance(dataset.features["video"], Video):
        return dataset.cast_column("video", Video(decode=False))
    return dataset


def video_of(source: "Dataset", row: int) -> Path | StoredVideo:
    """The clip of a row of an `undecoded` dataset: where its bytes are stored, else the path."""
    video = source[row]["video"]
    if isinstance(video, Mapping):
        if video.get("bytes"):
            return StoredVideo(source, row)
        video = video.get("path")
    if not video:
        raise ValueError(f"row {row}: no clip. Correct the row or leave it out; `lift-trl validate` lists them.")
    return Path(video)


class HeldOut(NamedTuple):
    """Rated clips that a critic is measured on: `rows` have a loss, `clips` of `source` have labels to be scored."""

    rows: "Dataset"
    source: "Dataset"
    clips: list[RatedClip]


def held_out(dataset: "Dataset", rubric: Rubric, controls: Sequence[str]) -> HeldOut:
    """
    What an evaluation on the ratings of `dataset` is given; `controls` as in `without_control_tokens`.

    Raises:
        ValueError: as `read_examples` and `without_control_tokens`.
    """
    examples = read_examples(dataset, rubric)
    rows = lazy_dataset(dataset, without_control_tokens(examples, controls))
    return HeldOut(rows, undecoded(dataset), rated_clips(examples))


def label_accuracy(critic: "LiFTCritic", held: HeldOut, state: Accelerator) -> dict[str, float]:
    """
    How often the critic's label is the raters', as `summarise` has it; every process scores its share of the clips.

    Where a model is spread over processes, all must call it, equally often.
    """
    total = len(held.clips)
    # Equal shares, the last clips twice if need be.
    count = -(-total // state.num_processes) * state.num_processes
    clips = [(i, held.clips[i % total]) for i in range(count)]
    mine = share(clips, rank=state.process_index, world_size=state.num_processes)
    verdicts = _verdicts(critic, held.source, [clip for _, clip in mine])
    gathered = gather_object([one for (i, _), one in zip(mine, verdicts) if i < total])
    return summarise(gathered, critic.settings.rubric.dimensions)


def _verdicts(critic: "LiFTCritic", source: "Dataset", clips: Sequence[RatedClip]) -> list[dict[str, Any]]:
    scores = critic.score([video_of(source, clip.row) for clip in clips], [clip.caption for clip in clips])
    return [
        {
            "unscored": score.unscored,
            "right": {d: score[d].label == label for d, label in clip.labels.items()}
            if score.unscored is None
            else {},
            "mass": [judgement.label_mass for judgement in score.judgements],
        }
        for clip, score in zip(clips, scores)
    ]


def summarise(rows: list[dict[str, Any]], dimensions: Sequence[str]) -> dict[str, float]:
    """The means of verdicts: `accuracy`, `accuracy_<dimension>`, `label_mass`, `num_unscored`; no mean of nothing."""
    right = {d: [row["right"][d] for row in rows if d in row["right"]] for d in dimensions}
    values = {"accuracy": [one for ones in right.values() for one in ones]}
    values |= {f"accuracy_{d}": ones for d, ones in right.items()}
    values["label_mass"] = [mass for row in rows for mass in row["mass"]]
    means = {name: sum(ones) / len(ones) for name, ones in values.items() if ones}
    return {**means, "num_unscored": float(sum(row["unscored"] is not None for row in rows))}
