"""Several ratings by one rater count once, and alike: in rewards, examples, statistics, alpha and on the card."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from datasets import Dataset

from lift_trl.critic.examples import read_examples
from lift_trl.feedback.agreement import feedback_statistics
from lift_trl.feedback.hra import load_hra
from lift_trl.hub.artifact_cards import artifact_card
from lift_trl.mini.annotator import Rating, pooled_labels
from lift_trl.records import hra_features
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import Artifact, write_rows
from lift_trl.store.rated_videos import load_rated_videos


LABELS = ("Bad", "Normal", "Good")  # worst first
NUM_CLIPS = 40
Key = tuple[str, str]


def ratings() -> dict[Key, list[tuple[str, str]]]:
    """(rater, label) of each clip and dimension: one to seven, of three people and of some without a name."""
    draw = random.Random(5)
    return {
        (f"clip{clip}", str(dimension)): [
            (draw.choice(["ann", "ben", "cy", ""]), draw.choice(LABELS)) for _ in range(draw.randint(1, 7))
        ]
        for clip in range(NUM_CLIPS)
        for dimension in Dimension
    }


def most(labels: list[str]) -> str:
    """The most frequent one, the worst of several: counted by hand."""
    times = [sum(label == given for given in labels) for label in LABELS]
    return LABELS[times.index(max(times))]


def once(given: list[tuple[str, str]]) -> list[str]:
    """One label a person."""
    people = {who for who, _ in given if who}
    own = [most([label for other, label in given if other == who]) for who in sorted(people)]
    return own + [label for who, label in given if not who]


GIVEN = ratings()
ONCE = {key: once(given) for key, given in GIVEN.items()}
POOLED = {key: most(labels) for key, labels in ONCE.items()}


def rows() -> list[dict[str, str]]:
    return [
        {"video_id": clip, "file_name": f"{clip}.mp4", "caption": "a fox", "source": "synthetic"}
        | {"dimension": dimension, "label": label.lower(), "reason": f"so {n}", "annotator": who}
        for (clip, dimension), given in GIVEN.items()
        for n, (who, label) in enumerate(given)
    ]


def published() -> Dataset:
    clips: dict[str, dict] = {}
    for row in rows():
        clip = clips.setdefault(
            row["video_id"],
            {"id": row["video_id"], "video": {"bytes": row["video_id"].encode(), "path": None}, "annotations": []}
            | {"caption": "a fox", "source": "synthetic"},
        )
        rating = {name: row[name] for name in ("dimension", "reason", "annotator")} | {"label": row["label"].title()}
        clip["annotations"].append(rating | {"created_at": None, "ui_version": None})
    return Dataset.from_list(list(clips.values()), features=hra_features())


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tidy")
    for clip in {clip for clip, _ in GIVEN}:
        (folder / f"{clip}.mp4").write_bytes(clip.encode())
    write_rows(folder / "metadata.jsonl", rows())
    return folder


def test_the_data_tells_the_rules_apart():
    """The majority of all ratings, or of each person's last, would differ somewhere."""
    assert any(POOLED[key] != most([label for _, label in given]) for key, given in GIVEN.items())
    last = {k: [*{w: v for w, v in g if w}.values(), *(v for w, v in g if not w)] for k, g in GIVEN.items()}
    assert any(POOLED[key] != most(labels) for key, labels in last.items())


def test_training_gets_the_pooled_labels(tidy: Path):
    for data in (tidy, published()):
        found = {
            (video.id, str(d)): str(label) for video in load_rated_videos(data) for d, label in video.labels.items()
        }
        assert found == POOLED
    for dataset in (load_hra(tidy)["train"], published()):
        assert {(one.clip, one.dimension): one.label for one in read_examples(dataset)} == POOLED


def test_statistics_and_alpha_count_each_person_once(tidy: Path):
    found = feedback_statistics(load_hra(tidy)["train"])
    assert found.num_ratings == sum(map(len, ONCE.values())) < len(rows())
    for dimension in Dimension:
        units = [labels for (_, name), labels in ONCE.items() if name == dimension]
        assert found.labels[dimension] == Counter(label for labels in units for label in labels)
        table = np.full((7, len(units)), np.nan)
        for column, labels in enumerate(units):
            table[: len(labels), column] = [LABELS.index(label) for label in labels]
        assert found.alpha[dimension] == pytest.approx(
            krippendorff.alpha(table, level_of_measurement="ordinal", value_domain=[0, 1, 2])
        )


def test_a_card_counts_each_person_once(tmp_path: Path):
    (tmp_path / "data").mkdir()
    published().to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    Artifact("hra").save(tmp_path)
    card = artifact_card(tmp_path, "user/hra")
    assert f"| ratings | {sum(map(len, ONCE.values()))} |" in card
    for dimension in Dimension:
        line = next(line for line in card.splitlines() if line.startswith(f"| {dimension.replace('_', ' ')} |"))
        counts = Counter(label for (_, name), labels in ONCE.items() if name == dimension for label in labels)
        assert sorted(map(int, re.findall(r"\d+", line))) == sorted(counts.values()), line


def test_the_mini_worlds_raters_are_pooled_alike():
    for clip in {clip for clip, _ in GIVEN}:
        given = [
            Rating(d, Label(label), "", who) for d in Dimension for who, label in GIVEN[clip, str(d)]
        ]  # fmt: skip
        assert pooled_labels(given) == {d: POOLED[clip, str(d)] for d in Dimension}


def test_a_name_that_a_spreadsheet_made_a_number_is_the_same_person(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    labels = [(7, "Bad"), (8, "Good"), (8.0, "Good")]
    given = [{"dimension": str(d), "label": label, "annotator": who} for d in Dimension for who, label in labels]
    row = {"file_name": "a.mp4", "prompt": "a fox", "annotations": given}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert set(load_rated_videos(tmp_path)[0].labels.values()) == {Label.BAD}
