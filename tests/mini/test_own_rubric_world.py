"""Two dimensions and four labels through every stage: page, correction, critic, scores, alignment, report, cards."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from lift_trl.alignment.data.cache import cache_videos, clip_parents
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.objectives import OBJECTIVES
from lift_trl.alignment.score import score_videos
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.feedback.agreement import feedback_statistics, plot_labels
from lift_trl.feedback.convert import convert
from lift_trl.feedback.correction.loop import correct
from lift_trl.feedback.correction.review import Decision, decide, read_decisions
from lift_trl.feedback.hra import load_hra
from lift_trl.feedback.validate import validate
from lift_trl.hub.artifact_cards import artifact_card
from lift_trl.judges.verdicts import critic_report, evaluate_verdicts, verdicts
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.mini.shapes import SCENES, DefectRates, MotionDefect, draw_clip
from lift_trl.mini.world import write_clips
from lift_trl.records import Judgement
from lift_trl.report.inputs import ReportArguments, build_report
from lift_trl.report.page import save_report
from lift_trl.rubric import LIFT
from lift_trl.store.inspect import inspect_artifact
from lift_trl.store.manifest import Artifact, read_rows
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.rubrics.of_data import find_rubric
from lift_trl.ui.annotate.ratings import AnnotationQueue, Rating, export_ratings
from lift_trl.ui.clips import load_clips
from lift_trl.ui.identity import Identity
from lift_trl.ui.vote_log import VoteLog
from tests.alignment.conftest import make_trainer
from tests.critic.test_critic_trainer import config, lora
from tests.critic.tiny_models import build_vlm
from tests.own_rubric import OWN


COLOUR, STEADY = OWN.dimensions
STEADINESS = {MotionDefect.NONE: "Great", MotionDefect.HOP: "Fair", MotionDefect.JITTER: "Poor"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[Path, dict[str, dict[str, str]]]:
    """Ten clips of the mini world on two prompts, and what a rater of OWN says of each, by the clip's file."""
    folder, rng = tmp_path_factory.mktemp("own") / "clips", np.random.default_rng(2)
    rates = DefectRates(semantic=(0.4, 0.2), motion=(0.3, 0.3), fidelity=(0.0, 0.0))
    drawn = [draw_clip(rng, rates, SCENES[n % 2]) for n in range(10)]
    write_clips(folder, drawn)
    labels = {
        f"{n:05d}.mp4": {
            COLOUR: "Great" if clip.shown.colour == clip.caption.colour else "Awful",
            STEADY: STEADINESS[clip.motion],
        }
        for n, clip in enumerate(drawn)
    }
    assert {label for given in labels.values() for label in given.values()} == set(OWN.labels)
    return folder, labels


def rate_all(folder: Path, labels: Mapping[str, Mapping[str, str]], log: Path) -> Path:
    """The ratings of one rater on the annotation page, exported beside a `rubric.yaml`."""
    shown = load_clips(str(folder))
    queue = AnnotationQueue(shown, VoteLog(log), Identity(b"salt"), raters=1, rubric=OWN)
    while (clip := queue.next_clip("ada")) is not None:
        given = {d: Rating(label, f"The motion is {label}.") for d, label in labels[clip.name].items()}
        with pytest.raises(ValueError, match="Choose a label for steadiness"):
            queue.rate("ada", clip.id, given | {STEADY: Rating(None, "")})
        assert queue.rate("ada", clip.id, given)
    assert export_ratings(queue.ratings(), shown, log / "export", rubric=OWN) == 2 * len(labels)
    assert export_ratings(queue.ratings(), shown, log / "none") == 0, "they are not LiFT's"
    return log / "export"


def review(queue: Path) -> None:
    """The second rater of a correction keeps each row, with his own label on one."""
    with pytest.raises(ValueError, match="use one of Awful, Poor, Fair, Great"):
        decide(queue, {next(iter(read_decisions(queue))): Decision("Good", "As ever.", "bob")})
    rows = list(read_rows(queue))
    decide(queue, {row["id"]: Decision(row["label"], row["reason"], "bob") for row in rows})


@pytest.mark.slow
def test_a_rubric_of_ones_own_goes_through_every_stage(clips, tmp_path):
    folder, labels = clips
    ratings = rate_all(folder, labels, tmp_path / "log")
    checked = validate(ratings)
    assert list(checked.problems()) == [] and len(checked.hra.clips) == 10
    convert(ratings, tmp_path / "hra", test_fraction=0.3)
    assert Artifact.load(tmp_path / "hra").rubric == OWN == find_rubric(tmp_path / "hra")
    hra = load_hra(tmp_path / "hra")
    statistics = feedback_statistics(hra["train"], OWN)
    plot_labels(statistics, tmp_path / "labels.png")

    # Correction: a critic that calls everything Fair, so that people see what is not.
    def fit_and_judge(train: Dataset, rows: Dataset, folder: Path) -> list[Judgement]:
        return [Judgement(row["dimension"], "Fair", reason="The motion hops.", rubric=OWN) for row in rows]

    for _ in range(4):
        status = correct(hra["train"], tmp_path / "correction", fit_and_judge, rubric=OWN)
        if status.finished:
            break
        review(status.queue)
    assert status.finished and Artifact.load(status.folder).rubric == OWN
    with pytest.raises(ValueError, match=f"rubric of these ratings .* {LIFT.id}.* against {OWN.id}"):
        correct(hra["train"], tmp_path / "correction", fit_and_judge)

    # Critic: it asks what it was taught, and its scores have those labels.
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    corrected = load_hra(status.folder)["train"]
    args = config(tmp_path / "critic", max_steps=1)
    trainer = LiFTCriticTrainer(
        str(tmp_path / "vlm"), args, train_dataset=corrected, eval_dataset=hra["test"], peft_config=lora(), rubric=OWN
    )
    text = trainer.processing_class.tokenizer.decode(trainer.data_collator([trainer.train_dataset[0]])["input_ids"][0])
    assert OWN.questions[COLOUR] in text or OWN.questions[STEADY] in text
    trainer.train()
    assert {f"eval_accuracy_{d}" for d in OWN.dimensions} <= trainer.evaluate().keys()
    trainer.save_model()
    with pytest.raises(ValueError, match=f"that of the critic .* differ: {LIFT.id} .* against {OWN.id}"):
        LiFTCritic.from_pretrained(tmp_path / "critic", rubric=LIFT)
    critic = LiFTCritic.from_pretrained(tmp_path / "critic")
    assert critic.rubric == OWN
    with pytest.raises(ValueError, match="the rubric of .*critic.* and that of these scores differ"):
        score_videos(critic, folder, tmp_path / "refused")
    scored = score_videos(critic, folder, tmp_path / "scored", with_reason=True, rubric=critic.rubric)
    rows = list(read_rows(scored / "metadata.jsonl"))
    assert all(set(row["probs"]) == {COLOUR, STEADY} and set(row["probs"][STEADY]) == set(OWN.labels) for row in rows)
    row = rows[0]
    assert row["reward"] == (OWN.rewards[row[COLOUR]] + OWN.rewards[row[STEADY]]) / 2
    expected = [sum(p * OWN.rewards[label] for label, p in row["probs"][d].items()) for d in OWN.dimensions]
    assert row["expected_reward"] == pytest.approx(sum(expected) / 2)
    assert [video.rubric for video in load_rated_videos(scored)] == [OWN] * 10

    # How good it is, by the raters' labels.
    truth = {row["id"]: labels[Path(row["video"]).name] for row in rows}
    found = verdicts(rows, truth, OWN)
    figures = {row.metric: row.value for row in evaluate_verdicts(found, system="own")}
    right = [row[STEADY] == truth[row["id"]][STEADY] for row in rows]
    assert figures["critic/steadiness/accuracy"] == pytest.approx(np.mean(right))
    assert "AUC of Great" in critic_report(found, [], []) and "people: Awful" in critic_report(found, [], [])

    # Alignment: rewards and advantages of the raters' labels, in each objective.
    build_tiny_pipeline(seed=0).save_pretrained(tmp_path / "pipeline")
    cached = cache_videos(
        tmp_path / "pipeline", load_rated_videos(ratings), tmp_path / "cache", num_frames=9, height=32, width=32,
        parents=clip_parents([ratings]),
    )  # fmt: skip
    dataset = CachedVideoDataset(cached)
    assert dataset.rubric == OWN
    wanted = {name: OWN.mean_reward(given) for name, given in labels.items()}
    assert sorted(dataset.ratings.reward.tolist()) == pytest.approx(sorted(wanted.values()))
    for objective in OBJECTIVES:
        more = {"multi_objective_aggregation": "normalize_then_sum"} if objective in ("nft", "awm") else {}
        more |= {"dimension_weights": {COLOUR: 1.0, STEADY: 3.0}} if objective == "nft" else {}
        options = {"objective": objective, "max_steps": 1, **more}
        aligner = make_trainer(tmp_path / "pipeline", tmp_path / objective, dataset, **options)
        aligner.train()
        assert any(f"reward/{STEADY}" in line for line in aligner.state.log_history), objective

    # Report and cards.
    report = build_report(ReportArguments(str(tmp_path / "r"), [f"base={ratings}", f"own={scored}"], drift=False))
    assert {rate.label for rate in report.label_rates} == set(OWN.labels)
    assert {paired.measure for paired in report.paired} == {"reward", COLOUR, STEADY}
    save_report(report, tmp_path / "report")
    assert "steadiness" in (tmp_path / "report" / "report.md").read_text()
    for name in ("hra", "critic", "scored", "cache"):
        card = artifact_card(tmp_path / name, f"user/{name}")
        assert name == "cache" or "steadiness" in card and "Great" in card and "motion smoothness" not in card
    assert any(OWN.id in line for line in inspect_artifact(scored))
