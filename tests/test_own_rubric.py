"""A rubric of one's own: what a YAML may hold, whose rubric data is of, and that no two are mixed in silence."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lift_trl.alignment.data.cache_format import metadata_row, video_from_row
from lift_trl.alignment.data.ratings import Ratings
from lift_trl.critic.examples import mismatched_examples, read_examples
from lift_trl.critic.served import ServedCritic, label_mass
from lift_trl.feedback.agreement import feedback_statistics, krippendorff_alpha
from lift_trl.feedback.correction.coarse_filter import Rule, find_drop
from lift_trl.records import Annotation, CriticScore, Judgement, RatedVideo, VideoSample
from lift_trl.rubric import LIFT, RESERVED, Dimension, Label, Rubric, UnparsableAnswerError
from lift_trl.store.manifest import Artifact, write_rows
from lift_trl.store.rated_videos import BadRowsError, load_rated_videos
from lift_trl.store.rubrics.form import read_rubric, rubric_from_plain, rubric_to_plain
from lift_trl.store.rubrics.of_data import find_rubric, write_rubric
from tests.own_rubric import OWN, SIGNS


COLOUR, STEADY = OWN.dimensions
#: LiFT's words with other rewards: nothing but the rewards tells its labels from LiFT's.
GENEROUS = Rubric({**LIFT.rewards, Label.NORMAL: 0.5}, LIFT.questions, LIFT.definitions)


def test_a_yaml_is_read_and_written_back(tmp_path):
    path = tmp_path / "mine.yaml"
    shuffled = {**SIGNS, "labels": dict(reversed(SIGNS["labels"].items()))}
    path.write_text(yaml.safe_dump(shuffled, sort_keys=False))
    assert read_rubric(path) == OWN and OWN.labels == ("Awful", "Poor", "Fair", "Great")
    assert (OWN.best, OWN.worst, OWN.rank("Fair")) == ("Great", "Awful", 2)
    assert rubric_to_plain(OWN) == SIGNS
    write_rubric(OWN, tmp_path)
    assert find_rubric(tmp_path) == OWN and find_rubric(tmp_path, path) == OWN


def test_each_part_of_a_rubric_is_in_its_id():
    changes: list[tuple[list[str], Any]] = [
        (["labels", "Fair"], 0.61),
        (["dimensions", STEADY, "question"], "Is it steady?"),
        (["dimensions", COLOUR, "definitions", "Poor"], "Not really."),
    ]
    ids = {OWN.id, LIFT.id, GENEROUS.id}
    for path, value in changes:
        changed = copy.deepcopy(SIGNS)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        ids.add(rubric_from_plain(changed).id)
    turned = {**SIGNS, "dimensions": dict(reversed(SIGNS["dimensions"].items()))}
    assert len({*ids, rubric_from_plain(turned).id}) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"Good": 1.0}}, "two labels or more"),
        ({"labels": {"Good": 1.0, "Fine": 1.0}}, "two labels have the same"),
        ({"labels": {"Good": 1.5, "Bad": 0.0}}, r"'Good' has the reward 1.5; give a number in \[0, 1\]"),
        ({"labels": {"Good": float("nan"), "Bad": 0.0}}, "'Good' has the reward nan"),
        ({"labels": {"Good": "high", "Bad": 0.0}}, "'Good' has the reward 'high'"),
        ({"labels": {True: 1.0, False: 0.0}}, "put them in quotes"),
        ({"labels": {"Good": 1.0, "Good enough": 0.5}}, "'Good enough' begins with label 'Good'"),
        ({"labels": {"Good!": 1.0, "Bad": 0.0}}, "write it in letters"),
        ({"labels": ["Good", "Bad"]}, "a mapping of label to reward"),
        ({"dimensions": {}}, "at least one dimension"),
        ({"dimensions": {"reward": SIGNS["dimensions"][COLOUR]}}, "'reward': it becomes a column"),
        ({"dimensions": {"Colour": SIGNS["dimensions"][COLOUR]}}, "small letters"),
        ({"dimensions": {COLOUR: {"question": "?"}}}, f"dimension '{COLOUR}' has question and definitions"),
        ({"dimensions": {COLOUR: {"question": "", "definitions": {}}}}, "the question ''; give a text"),
        (
            {"dimensions": {COLOUR: {"question": "?", "definitions": {"Great": "!"}}}},
            "a definition of each of Awful, Poor",
        ),
        ({"weights": {}}, "labels and dimensions, and nothing else; here it has labels, dimensions, weights"),
    ],
)
def test_a_yaml_that_is_no_rubric_is_refused_with_the_place(tmp_path, change, message):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**SIGNS, **change}, sort_keys=False))
    with pytest.raises(ValueError, match=f"mine.yaml: .*{message}"):
        read_rubric(tmp_path / "mine.yaml")


def test_a_label_that_stands_twice_is_refused(tmp_path):
    text = yaml.safe_dump(SIGNS, sort_keys=False)
    (tmp_path / "mine.yaml").write_text(text.replace("labels:\n", "labels:\n  Great: 0.9\n"))
    with pytest.raises(ValueError, match=r"mine.yaml: is no YAML \(line \d+: Great stands in line 2 too\)"):
        read_rubric(tmp_path / "mine.yaml")


def test_no_dimension_takes_the_column_of_something_else():
    judgements = tuple(Judgement(d, OWN.best, rubric=OWN) for d in OWN.dimensions)
    columns = {*CriticScore("1", "c", judgements).columns(), *VideoSample.__dataclass_fields__}
    columns |= {*Annotation.__dataclass_fields__, *metadata_row(RatedVideo("1", b"", "p", scalar_reward=0.5), "k")}
    assert columns - set(OWN.dimensions) <= RESERVED


def test_answers_and_rewards_follow_the_rubric():
    assert OWN.parse_answer("fair: the hue is off") == ("Fair", "the hue is off")
    with pytest.raises(UnparsableAnswerError, match="one of Awful, Poor, Fair, Great"):
        OWN.parse_answer("Good. As ever.")
    assert (
        OWN.majority_label(["Great", "Poor", "Fair"]) == "Poor"
        and OWN.majority_label(["Great"] * 2 + ["Poor"]) == "Great"
    )
    labels = {COLOUR: "Great", STEADY: "Poor"}
    assert OWN.mean_reward(labels) == 0.625 and OWN.mean_reward(labels, {COLOUR: 1, STEADY: 3}) == 0.4375
    chances = {"Awful": 0.1, "Poor": 0.2, "Fair": 0.3, "Great": 0.4}
    judged = (Judgement(COLOUR, "Great", chances, rubric=OWN), Judgement(STEADY, "Poor", rubric=OWN))
    score = CriticScore("1", "c", judged)
    assert score.rubric == OWN and score.reward == 0.625
    assert score[COLOUR].expected_reward == pytest.approx(0.05 + 0.18 + 0.4)
    assert score.expected_reward == pytest.approx((0.63 + 0.25) / 2)
    with pytest.raises(ValueError, match=f"one judgement for each of {COLOUR}, {STEADY}"):
        CriticScore("1", "c", judged[:1])


def rated(folder: Path, rubric: Rubric | None, label: str = "Fair") -> Path:
    """A folder of one clip with a label a dimension."""
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"clip")
    labels = dict.fromkeys((rubric or LIFT).dimensions, label)
    write_rows(folder / "metadata.jsonl", [{"file_name": "a.mp4", "prompt": "a sign", **labels}])
    if rubric is not None:
        write_rubric(rubric, folder)
    return folder


def test_a_folders_labels_are_of_the_rubric_beside_them(tmp_path):
    (own,) = load_rated_videos(rated(tmp_path / "own", OWN))
    assert own.labels == {COLOUR: "Fair", STEADY: "Fair"} and own.rubric == OWN and own.reward() == 0.6
    (generous,) = load_rated_videos(rated(tmp_path / "generous", GENEROUS, "Normal"))
    (lift,) = load_rated_videos(rated(tmp_path / "lift", None, "Normal"))
    assert (generous.reward(), lift.reward()) == (0.5, pytest.approx(0.2))
    with pytest.raises(ValueError, match=f"the rubric of the settings and that of .*own differ: {LIFT.id} .*{OWN.id}"):
        load_rated_videos(tmp_path / "own", rubric=LIFT)
    with pytest.raises(BadRowsError, match="no rating"):
        load_rated_videos(rated(tmp_path / "unsaid", None), rubric=OWN)


def test_an_artefact_tells_its_rubric(tmp_path):
    folder = rated(tmp_path / "scored", None)
    write_rows(
        folder / "metadata.jsonl", [{"file_name": "a.mp4", "prompt": "a sign", COLOUR: "Poor", STEADY: "Great"}]
    )
    Artifact("scored", rubric=OWN).save(folder)
    assert [video.reward() for video in load_rated_videos(folder)] == [0.625]
    with pytest.raises(ValueError, match="differ"):
        find_rubric(folder, GENEROUS)


def test_ratings_of_two_rubrics_are_not_trained_on_together(tmp_path):
    labels = dict.fromkeys(Dimension, Label.NORMAL)
    lift, real = RatedVideo("lift", b"", "p", labels), RatedVideo("real", b"", "p", is_real=True)
    generous = RatedVideo("mine", b"", "p", labels, rubric=GENEROUS)
    with pytest.raises(ValueError, match=f"one of them mine, differ: {LIFT.id} .* against {GENEROUS.id}"):
        Ratings.of([real, lift, generous], None)
    own = [
        RatedVideo(name, b"", "p", dict(zip(OWN.dimensions, given)), rubric=OWN) for name, given in OWN_LABELS.items()
    ]
    found = Ratings.of([*own, real], {COLOUR: 3.0, STEADY: 1.0})
    assert torch.allclose(found.dimension_reward[:3], torch.tensor([[1.0, 0.25], [1.0, 1.0], [0.0, 0.6]]))
    assert torch.allclose(found.reward[:3], torch.tensor([0.8125, 1.0, 0.15])) and found.reward[3].isnan()
    assert found.all_good.tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match=f"one weight for each of .*{COLOUR}"):
        Ratings.of(own, {"motion_smoothness": 1.0})
    assert video_from_row(metadata_row(own[0], "k"), OWN).labels == own[0].labels


OWN_LABELS = {"a": ("Great", "Poor"), "b": ("Great", "Great"), "c": ("Awful", "Fair")}


def test_the_filter_of_the_correction_knows_the_best_and_the_good_labels():
    def row(label: str, reason: str) -> Annotation:
        return Annotation("v", b"", "a red circle moving left", STEADY, label, reason, "ann", "synthetic")

    for label, reason, dropped in (
        ("Great", "The motion is erratic.", True),
        ("Fair", "The motion is smooth.", False),  # one of two good labels
        ("Poor", "The motion is smooth.", True),
        ("Fair", "The motion is erratic.", False),
    ):
        drop = find_drop(row(label, reason), min_caption_words=3, rubric=OWN)
        assert (drop is not None and drop.rule is Rule.REASON_CONTRADICTS_LABEL) == dropped, label


def test_examples_and_statistics_are_of_the_rubric():
    from datasets import Dataset

    ratings = [("ann", "Great"), ("bob", "Fair"), ("ann", "Awful"), ("bob", "Poor")]
    rows = [
        {"video_id": f"{n // 2}", "video": "a.mp4", "caption": "a dog", "dimension": STEADY, "label": label}
        | {"reason": "so", "annotator": who}
        for n, (who, label) in enumerate(ratings)
    ]
    examples = read_examples(Dataset.from_list(rows), OWN)
    assert [(example.dimension, example.label) for example in examples] == [(STEADY, "Fair"), (STEADY, "Awful")]
    with pytest.raises(ValueError, match="row 0: dimension 'steadiness' is unknown"):
        read_examples(Dataset.from_list(rows))
    with pytest.raises(ValueError, match="mismatched_captions=0.5 makes negatives of semantic_consistency"):
        mismatched_examples(examples, 0.5, seed=0, rubric=OWN)
    statistics = feedback_statistics(rows, OWN)
    assert (
        statistics.labels[STEADY] == {"Awful": 1, "Poor": 1, "Fair": 1, "Great": 1}
        and statistics.alpha[COLOUR] is None
    )
    perfect = [{**row, "label": "Great" if row["video_id"] == "0" else "Poor"} for row in rows]
    assert krippendorff_alpha(perfect, STEADY, OWN) == 1.0


def test_a_served_critic_refuses_labels_that_begin_alike():
    asked = {COLOUR: SIGNS["dimensions"][COLOUR] | {"definitions": {"Good": "!", "Great": "!!", "Bad": "?"}}}
    alike = rubric_from_plain({"labels": {"Bad": 0.0, "Good": 0.5, "Great": 1.0}, "dimensions": asked})
    with pytest.raises(ValueError, match="labels Good and Great begin with the same letter"):
        ServedCritic("m", base_url="http://localhost:1/v1", rubric=alike)
    named = [ServedCritic("m", base_url="http://h/v1", logprobs=False, rubric=r).name for r in (alike, OWN, LIFT)]
    assert len(set(named)) == 3 and named[2] == ServedCritic("m", base_url="http://h/v1", logprobs=False).name
    assert label_mass([("Gre", -0.5), ("Aw", -2.0)], OWN) == pytest.approx(
        {"Awful": 0.1353, "Poor": 0.0, "Fair": 0.0, "Great": 0.6065}, abs=1e-4
    )
