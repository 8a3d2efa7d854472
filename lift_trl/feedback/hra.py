"""LiFT-HRA from any of its forms, as clips with all their ratings or as tidy rows; splits by video."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import Annotation, content_id
from ..rubric import Rubric
from .bad_rows import BadRows, check_bad_rows
from .sources import HraClip, HraSource, MissingVideos, read_hra


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features


def load_hra(
    name_or_path: Path | str,
    *,
    revision: str | None = None,
    source: str | None = None,
    video_dir: Path | str | None = None,
    missing_videos: MissingVideos = "raise",
    bad_rows: BadRows = "raise",
    fetch_videos: bool = True,
    test_fraction: float | None = None,
    rubric: Rubric | Path | str | None = None,
) -> "DatasetDict":
    """
    LiFT-HRA as tidy rows: one rater, one video, one dimension; the columns of `Annotation`, labels and dimensions as text,
    `video` as `Video(decode=False)` (a path).

    Args:
        name_or_path: a repository of the Hub (`user/name[@revision]`) or a local path, in one of these forms: published
            Parquet (one row a clip), a folder with `metadata.jsonl` (or `.csv`, `.parquet`) of tidy rows or of one row a
            clip with three labels, the authors' JSON with its zips (`Fudan-FUXI/LiFT-HRA-10K`), their VIDGEN rows, or their
            critics' answers.
        revision: branch, tag or commit of the repository, where its name says none.
        source: `"synthetic"` or `"real"` for all rows. By default what the rows say; in the authors' JSON, which says
            nothing, clips named as those of VIDGEN-1M are real.
        video_dir: where the clips or zips of a JSON file are, the file's folder by default.
        missing_videos: what to do with a clip that is not there: `"raise"`, `"drop"` its rows, or `"keep"` them with the
            path as the file gives it.
        bad_rows: what to do with rows that cannot be used: `"raise"`, or `"drop"` them, with a warning that says how many
            and names a file that lists them.
        fetch_videos: download the clips of a repository in the authors' form. `False` with `missing_videos="keep"` loads
            the labels alone, for statistics.
        test_fraction: splits a dataset that has one split only, by video (see `split_by_video`).
        rubric: what the labels are of, or its YAML; by default what the data says (`store.rubrics.find_rubric`), or LiFT's.

    Raises:
        BadRowsError: naming each bad row, the reason and the remedy, unless they are dropped.
        ValueError: if `test_fraction` is given for a dataset that has several splits, or the data is of another rubric.

    >>> load_hra("Fudan-FUXI/LiFT-HRA-10K", test_fraction=0.1)["train"]  # doctest: +SKIP
    """
    from datasets import DatasetDict

    origin = HraSource(name_or_path, revision, source, video_dir, rubric=rubric)
    data = read_hra(origin, missing_videos=missing_videos, fetch_videos=fetch_videos)
    check_bad_rows(data, bad_rows, name_or_path)
    splits = DatasetDict({name: tidy_dataset(annotations_of(clips)) for name, clips in data.splits.items()})
    if test_fraction is None:
        return splits
    if len(splits) > 1:
        raise ValueError(f"{name_or_path} has the splits {', '.join(splits)} already; leave test_fraction out.")
    return split_by_video(next(iter(splits.values())), test_fraction=test_fraction)


def annotations_of(clips: Iterable[HraClip]) -> list[Annotation]:
    """All ratings of `clips`, in order."""
    return [annotation for clip in clips for annotation in clip.annotations]


def tidy_features() -> "Features":
    """The columns of tidy rows: the fields of `Annotation`, all text but `video`."""
    from datasets import Features, Value, Video

    text = dict.fromkeys(Annotation.__dataclass_fields__, Value("string"))
    return Features({**text, "video": Video(decode=False)})


def tidy_dataset(annotations: Iterable[Annotation]) -> "Dataset":
    """`annotations` as a dataset. Clips stand in it as paths, so three ratings of one clip hold it once, on the disk."""
    from datasets import Dataset

    rows = [_tidy_row(annotation) for annotation in annotations]
    features = tidy_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


def _tidy_row(annotation: Annotation) -> dict[str, Any]:
    video = annotation.video
    encoded = {"bytes": video, "path": None} if isinstance(video, bytes) else {"bytes": None, "path": str(video)}
    return {name: getattr(annotation, name) for name in Annotation.__dataclass_fields__} | {"video": encoded}


def held_out_videos(video_ids: Iterable[str], *, test_fraction: float, seed: int = 0) -> set[str]:
    """
    Which videos form the test split: those whose hash is below `test_fraction`, and exactly one of the first two.

    So two videos are enough for a split, and one that grows at its end keeps its split.

    >>> held_out_videos(["a", "b"], test_fraction=0.01) == held_out_videos(["a", "b", "c"], test_fraction=0.01)
    True

    Raises:
        ValueError: if `test_fraction` is not in (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction}; give a number between 0 and 1.")
    place = {name: int(content_id("test split", seed, name), 16) / 2**64 for name in video_ids}
    held = {name for name, value in place.items() if value < test_fraction}
    first = sorted(list(place)[:2], key=lambda name: place[name])
    return (held | {first[0]}) - {first[1]} if len(first) == 2 else held


def split_by_video(dataset: "Dataset", *, test_fraction: float, seed: int = 0) -> "DatasetDict":
    """
    Tidy rows in `train` and `test`, all rows of a video on one side (see `held_out_videos`).

    Args:
        test_fraction: expected share of the videos in `test`, in (0, 1).

    Raises:
        ValueError: if `test_fraction` is out of range, or there is one video only.
    """
    held = held_out_videos(dataset["video_id"], test_fraction=test_fraction, seed=seed)
    test = [name in held for name in dataset["video_id"]]
    return _two_splits(dataset, dataset, [not name for name in test], test)


def split_new_videos(train: "Dataset", larger: "Dataset") -> "DatasetDict":
    """
    `train` as it is, and as `test` the rows of `larger` on videos that `train` does not hold.

    This is the authors' advice for a clean test: train on LiFT-HRA-10K, test on what LiFT-HRA-20K adds.
    Source: CodeGoat24/LiFT, issue 6.

    Raises:
        ValueError: if the two share no video (then their ids do not match), or all.
    """
    known = set(train["video_id"])
    new = [name not in known for name in larger["video_id"]]
    if all(new):
        raise ValueError(
            f"the two datasets share no video id ({min(known, default='none')!r} against "
            f"{larger['video_id'][0] if len(larger) else 'none'!r}); the split would not be by video."
        )
    return _two_splits(train, larger, [True] * len(train), new)


def _two_splits(train: "Dataset", test: "Dataset", in_train: list[bool], in_test: list[bool]) -> "DatasetDict":
    from datasets import DatasetDict

    if not any(in_train) or not any(in_test):
        raise ValueError(
            f"train gets {sum(in_train)} rows and test {sum(in_test)}; choose another split. With two videos or more, any "
            "test_fraction divides them."
        )
    chosen = {
        "train": train.select([n for n, wanted in enumerate(in_train) if wanted]),
        "test": test.select([n for n, wanted in enumerate(in_test) if wanted]),
    }
    return DatasetDict(chosen)
