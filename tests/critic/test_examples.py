"""Ratings to examples: pooling, negatives, both forms of LiFT-HRA, and that clips are read late."""

import pytest
from datasets import Dataset

from lift_trl.critic.examples import lazy_dataset, mismatched_examples, rated_clips, read_examples
from lift_trl.records import hra_features
from lift_trl.rubric import Dimension, Label


SEMANTIC, MOTION, _ = Dimension


def tidy(*rows):
    names = ("video_id", "video", "caption", "dimension", "label", "reason")
    return Dataset.from_list([dict(zip(names, row)) for row in rows])


def test_raters_are_pooled_by_majority_with_a_reason_that_fits():
    dataset = tidy(
        ("v", "v.mp4", "A fox.", SEMANTIC, "Good", "fine"),
        ("v", "v.mp4", "A fox.", SEMANTIC, "Bad", "no fox"),
        ("v", "v.mp4", "A fox.", SEMANTIC, "bad", "a dog"),
        ("v", "v.mp4", "A fox.", MOTION, "Good", ""),
        ("v", "v.mp4", "A fox.", MOTION, "Normal", "jitter"),
    )
    semantic, motion = read_examples(dataset)
    assert (semantic.label, semantic.reason) == (Label.BAD, "no fox")
    assert (motion.label, motion.reason) == (Label.NORMAL, "jitter")
    (clip,) = rated_clips([semantic, motion])
    assert clip.labels == {SEMANTIC: Label.BAD, MOTION: Label.NORMAL} and clip.clip == "v"


def test_published_rows_give_the_same_examples():
    rating = {"annotator": "r", "created_at": None, "ui_version": None}
    ratings = [
        {**rating, "dimension": d.value, "label": label, "reason": f"because {d}"}
        for d, label in zip(Dimension, ("Good", "Normal", "Bad"))
    ]
    row = {
        "id": "v",
        "video": {"bytes": b"mp4", "path": None},
        "caption": "A fox.",
        "source": "synthetic",
        "annotations": ratings,
    }
    published = Dataset.from_list([row], features=hra_features())
    flat = tidy(*(("v", "v.mp4", "A fox.", r["dimension"], r["label"], r["reason"]) for r in ratings))
    assert read_examples(published) == [example._replace(row=0) for example in read_examples(flat)]
    lazy = lazy_dataset(published, read_examples(published))
    assert len(lazy) == 3 and lazy[2]["video"].read() == b"mp4" and lazy[2]["label"] == "Bad"


def test_rows_without_a_clips_id_are_never_pooled():
    dataset = tidy(("v", "v.mp4", "A fox.", SEMANTIC, "Good", ""), ("v", "w.mp4", "A fox.", SEMANTIC, "Bad", ""))
    assert len(read_examples(dataset)) == 1
    assert [e.label for e in read_examples(dataset.remove_columns("video_id"))] == ["Good", "Bad"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("v", "v.mp4", "A fox.", "beauty", "Good", ""), "beauty"),
        (("v", "v.mp4", "A fox.", SEMANTIC, "Great", ""), "Great"),
        (("v", "v.mp4", " ", SEMANTIC, "Good", ""), "no caption"),
    ],
)
def test_bad_rows_are_refused(row, words):
    with pytest.raises(ValueError, match=words):
        read_examples(tidy(row))


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="annotations"):
        read_examples(Dataset.from_list([{"video": "v.mp4", "caption": "A fox."}]))


def test_negatives_carry_another_clips_caption_and_are_bad():
    rows = [(f"v{i}", f"v{i}.mp4", f"Caption {i % 5}.", d, "Good", "fine") for i in range(20) for d in Dimension]
    examples = read_examples(tidy(*rows))
    negatives = mismatched_examples(examples, 0.25, seed=1)
    assert len(negatives) == 5 and len({n.clip for n in negatives}) == 5
    own = {e.clip: e.caption for e in examples}
    assert all(n.caption != own[n.clip] and n.caption in own.values() for n in negatives)
    assert {(n.dimension, n.label) for n in negatives} == {(SEMANTIC.value, "Bad")}
    assert negatives == mismatched_examples(examples, 0.25, seed=1) != mismatched_examples(examples, 0.25, seed=2)
    assert mismatched_examples(examples, 0.0, seed=1) == []
    with pytest.raises(ValueError, match="1 caption"):
        mismatched_examples(examples[:3], 1.0, seed=1)
