"""How often a critic's labels are the raters', on clips that an evaluation is given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import gather_object

from ..rubric import Rubric
from ..store.sharding import share
from .examples import (
    RatedClip,
    lazy_dataset,
    rated_clips,
    read_examples,
    undecoded,
    video_of,
    without_control_tokens,
)
from .lift_critic import LiFTCritic


if TYPE_CHECKING:
    from datasets import Dataset


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


def label_accuracy(critic: LiFTCritic, held: HeldOut, state: Accelerator) -> dict[str, float]:
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


def _verdicts(critic: LiFTCritic, source: "Dataset", clips: Sequence[RatedClip]) -> list[dict[str, Any]]:
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
