"""The correction finds planted errors with a critic that really learns, and survives kill -9 wherever it strikes."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from lift_trl.feedback.correction import loop as correction
from lift_trl.feedback.correction.loop import STEPS, CorrectionConfig, correct
from lift_trl.feedback.correction.review import Decision, decide, read_decisions
from lift_trl.feedback.hra import load_hra, tidy_dataset
from lift_trl.mini.shapes import COLOURS, DIRECTIONS, DefectRates, draw_clip, enlarge, parse_prompt
from lift_trl.records import Annotation, Judgement
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import Artifact, read_rows
from lift_trl.store.video_io import read_video, write_video
from tests.feedback.conftest import write_clip


SEMANTIC, MOTION, FIDELITY = Dimension
Key = tuple[str, str]  # video, dimension
Truth = dict[Key, Label]


# ---- a small critic: statistics of a clip, and a multinomial logistic regression that is fitted to the ratings ------


@cache
def statistics(video: str, caption: str) -> np.ndarray:
    """How a clip moves, how noisy its ground is, and how far its object is from the caption: float64 [5]."""
    scene = parse_prompt(caption)
    frames = read_video(video).frames[:, 1::2, 1::2].astype(float) / 255
    saturation = frames.max(-1) - frames.min(-1)
    mask = saturation > 0.3
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    weight = mask.sum((1, 2)) + 1e-6
    centres = np.stack([(mask * x).sum((1, 2)) / weight, (mask * y).sum((1, 2)) / weight], -1)
    path = np.polynomial.polynomial.polyfit(np.arange(len(centres)), centres, 1)
    fitted = path[0] + np.arange(len(centres))[:, None] * path[1]
    wobble = np.sqrt(((centres - fitted) ** 2).sum(-1).mean())
    ground = frames.mean(-1)[~mask & (saturation < 0.05)]
    colour = frames[mask].mean(0) if mask.any() else np.zeros(3)
    distance = np.abs(colour - np.asarray(COLOURS[scene.colour])).mean()
    heading = path[1] @ np.asarray(DIRECTIONS[scene.direction]) / (np.linalg.norm(path[1]) + 1e-6)
    boxes = [np.ptp(np.flatnonzero(m.any(0))) * np.ptp(np.flatnonzero(m.any(1))) for m in mask if m.sum() > 20]
    fill = np.median(mask.sum((1, 2))[: len(boxes)] / np.maximum(boxes, 1)) if boxes else 0.0
    misfit = abs(fill - {"circle": 0.86, "square": 1.08, "triangle": 0.62}[scene.shape])
    return np.array([np.log(wobble + 0.05), np.log(ground.std() + 0.005), distance, heading, misfit])


def features(rows: Dataset) -> np.ndarray:
    """Squares, products and steps of the statistics: float64 [N, D]."""
    base = np.stack([statistics(row["video"]["path"], row["caption"]) for row in rows])
    wrong = np.stack([base[:, 2] > 0.12, base[:, 3] < 0.7, base[:, 4] > 0.12], 1).astype(float)
    pairs = [base[:, i] * base[:, j] for i in range(5) for j in range(i, 5)]
    return np.column_stack([base, *pairs, wrong, wrong.sum(1), wrong.sum(1) >= 2])


def fit_logistic(x: np.ndarray, y: np.ndarray, steps: int = 400) -> np.ndarray:
    """Weights [D, 3] of a softmax regression with a small ridge, by gradient descent from zero."""
    weights, velocity = np.zeros((x.shape[1], 3)), 0.0
    for _ in range(steps):
        logits = x @ weights
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        gradient = x.T @ (probabilities - np.eye(3)[y]) / len(x) + 1e-3 * weights
        velocity = 0.9 * velocity - 0.3 * gradient
        weights = weights + velocity
    return weights


def logistic_critic(train: Dataset, rows: Dataset, folder: Path) -> list[Judgement | None]:
    """A `FitAndJudge`."""
    judged: list[Judgement | None] = [None] * len(rows)
    x_train, x_rows = features(train), features(rows)
    mean, scale = x_train.mean(0), x_train.std(0) + 1e-6
    for dimension in Dimension:
        chosen = [n for n, name in enumerate(train["dimension"]) if name == dimension]
        y = np.array([Label(train["label"][n]).rank for n in chosen])
        weights = fit_logistic(np.clip((x_train[chosen] - mean) / scale, -4, 4), y)
        for n, name in enumerate(rows["dimension"]):
            if name == dimension:
                rank = int((np.clip((x_rows[n] - mean) / scale, -4, 4) @ weights).argmax())
                judged[n] = Judgement(dimension, list(Label)[rank])
    return judged


# ---- data ----------------------------------------------------------------------------------------------------------


def make_ratings(folder: Path, num_clips: int, error_rate: float) -> tuple[Dataset, Truth, set[Key]]:
    """Rated clips of the mini world, their true labels, and the ratings in which an error was planted."""
    rng = np.random.default_rng(7)
    rows: list[Annotation] = []
    truth: Truth = {}
    planted: set[Key] = set()
    for number in range(num_clips):
        rates = DefectRates((0.25, 0.25), (0.25, 0.25), (0.25, 0.25))
        clip = draw_clip(rng, rates)
        name = f"{number:04d}"
        write_video(folder / f"{name}.mp4", enlarge(clip.video, 2), fps=8)
        for dimension, label in clip.labels.items():
            truth[name, dimension] = given = label
            if rng.random() < error_rate:
                planted.add((name, dimension))
                given = [other for other in Label if other is not label][rng.integers(2)]
            reason, path = f"Shape, {given.lower()}.", folder / f"{name}.mp4"
            rows.append(Annotation(name, path, clip.caption.prompt, dimension, given, reason, "x", "synthetic"))
    return tidy_dataset(rows), truth, planted


def review(queue: Path, truth: Truth, reviewer: str = "ann") -> set[Key]:
    """A person who knows the truth fills in a queue; returns what was asked."""
    rows = list(read_rows(queue))
    keys = {row["id"]: (Path(row["video"]).stem, row["dimension"]) for row in rows}
    when = "2026-01-01T00:00:00Z"
    chosen = {
        name: Decision(truth[key], f"Shape, {truth[key].lower()}.", reviewer, when) for name, key in keys.items()
    }
    assert decide(queue, chosen) == 0
    return set(keys.values())


def run_all(dataset: Dataset, folder: Path, critic: correction.FitAndJudge, truth: Truth) -> set[Key]:
    """Runs to the end with reviews; returns every row that a person was asked about in step 2."""
    asked: set[Key] = set()
    while not (status := correct(dataset, folder, critic)).finished:
        assert status.queue is not None and status.num_waiting > 0
        found = review(status.queue, truth)
        asked |= found if status.queue.parent.name in STEPS[1:3] else set()
    return asked


def digests(folder: Path) -> dict[str, str]:
    """All files of a run but the time-free artefact headers, by content."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_planted_errors_are_found_by_a_critic_that_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dataset, truth, planted = make_ratings(tmp_path / "clips", num_clips=200, error_rate=0.2)
    asked = run_all(dataset, tmp_path / "run", logistic_critic, truth)
    precision, recall = len(asked & planted) / len(asked), len(asked & planted) / len(planted)
    result = load_hra(tmp_path / "run" / "corrected")["train"]
    wrong = sum(truth[row["video_id"], row["dimension"]] != row["label"] for row in result)
    with capsys.disabled():
        print(f"\n{len(planted)} of {len(dataset)} ratings wrong, {len(asked)} asked about, {wrong} wrong in the end")
        print(f"precision: {precision:.2f}\nrecall: {recall:.2f}")
    assert recall > 0.85 and precision > 0.55
    assert result.num_rows == len(dataset) and wrong < 0.2 * len(planted)


@cache
def brightness(video: str) -> float:
    return float(read_video(video).frames.mean())


def nearest_critic(train: Dataset, rows: Dataset, folder: Path) -> list[Judgement | None]:
    """The label of the training clip that is nearest in brightness. Small, and it reads the clips."""
    known = [(brightness(row["video"]["path"]), Label(row["label"])) for row in train]
    light = [brightness(row["video"]["path"]) for row in rows]
    labels = [min(known, key=lambda pair: (abs(pair[0] - value), pair[1].rank))[1] for value in light]
    return [Judgement(Dimension(row["dimension"]), label, reason="As its like.") for row, label in zip(rows, labels)]


@pytest.fixture
def small(tmp_path: Path) -> tuple[Dataset, Truth]:
    """Twelve clips, dark is Bad and bright is Good, with two wrong labels and one row for each rule."""
    rows, truth = [], {}
    for number in range(12):
        name, label = f"c{number}", Label.GOOD if number % 2 else Label.BAD
        path = write_clip(tmp_path / "clips" / f"{name}.mp4", 30 + 180 * (number % 2) + number)
        truth[name, MOTION] = label
        given = Label.NORMAL if number in (3, 8) else label
        reason = {0: "", 1: "zzz qqq jjj vvv", 2: "No obvious problems."}.get(number, "The shape moves.")
        caption = {4: "a fox", 5: "Someone does something"}.get(number, "A red fox moves in the snow")
        rows.append(
            Annotation(name, path, caption, MOTION, given, reason, "x", "synthetic", "2025-01-01T00:00:00Z", "1")
        )
    (tmp_path / "clips" / "c6.mp4").write_bytes(b"no video")
    return tidy_dataset(rows), truth


def test_every_drop_names_its_rule_and_comes_back_only_after_review(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    run_all(dataset, tmp_path / "run", nearest_critic, truth)
    history = {event["video_id"]: event for event in read_rows(tmp_path / "run" / STEPS[0] / "history.jsonl")}
    assert {name: event["why"].split(":")[0] for name, event in history.items()} == {
        "c0": "empty_reason",
        "c1": "off_topic_reason",
        "c2": "reason_contradicts_label",
        "c4": "caption_too_short",
        "c5": "ambiguous_caption",
        "c6": "unreadable_clip",
    }
    back = {event["video_id"]: event for event in read_rows(tmp_path / "run" / STEPS[3] / "history.jsonl")}
    assert {name: event["event"] for name, event in back.items()} == {
        "c0": "put back",
        "c1": "put back",
        "c2": "put back",
        "c4": "put back",  # what a person decides stands, though its caption is as short as before
        "c5": "put back",
    }
    assert back["c0"]["before"]["reason"] == "" and back["c0"]["after"] == {
        "label": "Bad",
        "reason": "Shape, bad.",
        "annotator": "ann",
    }
    result = load_dataset(str(tmp_path / "run" / "corrected"), split="train")
    assert result["id"][:] == [f"c{n}" for n in range(12) if n != 6]
    assert all(row["annotations"][0]["label"] == truth[row["id"], MOTION] for row in result)
    events = {event["video_id"]: event["event"] for event in read_rows(tmp_path / "run" / "provenance.jsonl")}
    raters = {row["id"]: row["annotations"][0] for row in result}
    assert {name: rating["annotator"] for name, rating in raters.items()} == {
        name: "x" if events[name] == "agreed" else "ann" for name in raters
    }
    stamps = {(r["annotator"], r["created_at"], r["ui_version"]) for r in raters.values()}
    assert stamps == {("x", "2025-01-01T00:00:00Z", "1"), ("ann", "2026-01-01T00:00:00Z", None)}


def test_provenance_tells_the_way_of_every_row(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    run_all(dataset, tmp_path / "run", nearest_critic, truth)
    events = list(read_rows(tmp_path / "run" / "provenance.jsonl"))
    by_video: dict[str, list[dict[str, object]]] = {}
    for event in events:
        by_video.setdefault(event["video_id"], []).append(event)
    assert set(by_video) == set(dataset["video_id"])
    assert {row["critic_reason"] for row in read_rows(tmp_path / "run" / STEPS[1] / "review_queue.jsonl")} == {
        "As its like."
    }
    changed = by_video["c3"][0]
    assert changed["event"] == "changed" and changed["critic_label"] == "Good" and changed["reviewer"] == "ann"
    assert changed["before"] == {"label": "Normal", "reason": "The shape moves.", "annotator": "x"}
    (agreed, *_) = [event for event in events if event["event"] == "agreed"]
    assert agreed["critic_label"] == agreed["before"]["label"] and agreed["before"] == agreed["after"]
    assert agreed["reviewer"] is None
    artifact = Artifact.load(tmp_path / "run" / STEPS[0])
    assert artifact.config["events"] == {"dropped": 6} and artifact.config["kept"] == 6


def test_each_half_is_checked_by_a_critic_that_never_saw_its_videos(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    calls: list[tuple[set[str], set[str], list[str]]] = []

    def critic(train: Dataset, rows: Dataset, folder: Path) -> Sequence[Judgement | None]:
        calls.append((set(train["video_id"]), set(rows["video_id"]), train["label"][:]))
        return nearest_critic(train, rows, folder)

    run_all(dataset, tmp_path / "run", critic, truth)
    (train_a, rows_b, _), (train_b, rows_a, labels_b), (train_all, dropped, labels_all) = calls
    assert train_a == rows_a and rows_b == train_b and not train_a & train_b
    assert train_all == train_a | train_b and not dropped & train_all
    assert Label.NORMAL not in labels_b and Label.NORMAL not in labels_all  # it learns from corrected rows


def test_rows_without_a_critic_label_go_to_review(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    status = correct(dataset, tmp_path / "run", lambda train, rows, folder: [None] * len(rows))
    assert status.queue is not None and status.num_waiting == len(list(read_rows(status.queue)))
    assert {(row["critic_label"], row["critic_reason"]) for row in read_rows(status.queue)} == {(None, "")}
    with pytest.raises(ValueError, match="one for each"):
        correct(dataset, tmp_path / "other", lambda train, rows, folder: [])


def test_a_row_that_the_critic_could_not_judge_is_not_agreed_with(small: tuple[Dataset, Truth], tmp_path: Path):
    """It judges every second row; the others wait for a person, and are then told as that person's decision."""
    dataset, truth = small

    def every_second(train: Dataset, rows: Dataset, folder: Path) -> list[Judgement | None]:
        return [one if n % 2 else None for n, one in enumerate(nearest_critic(train, rows, folder))]

    run_all(dataset, tmp_path / "run", every_second, truth)
    refined = [event for step in STEPS[1:3] for event in read_rows(tmp_path / "run" / step / "history.jsonl")]
    assert {event["event"] for event in refined if event["critic_label"] is None} <= {"confirmed", "changed"}
    assert any(event["critic_label"] is None for event in refined)
    for event in refined:
        assert (event["reviewer"] is None) == (event["critic_label"] == event["before"]["label"])


def test_what_a_person_confirms_stays_its_raters(small: tuple[Dataset, Truth], tmp_path: Path):
    """Three decisions, as a person types them: the label again, the label and the reason again, another label."""
    dataset, _ = small
    run = tmp_path / "run"
    while not (status := correct(dataset, run, lambda train, rows, folder: [None] * len(rows))).finished:
        rows = list(read_rows(status.queue))
        choices = {
            row["id"]: (row["label"], "")
            if n % 3 == 0 and row["reason"]
            else (row["label"], row["reason"] or "Odd.")
            if n % 3
            else ("Good" if row["label"] != "Good" else "Bad", "Looked again.")
            for n, row in enumerate(rows)
        }
        decide(
            status.queue,
            {
                name: Decision(Label(label), why, "ann", "2026-01-01T00:00:00Z")
                for name, (label, why) in choices.items()
            },
        )
    events = [event for event in read_rows(run / "provenance.jsonl") if event["reviewer"]]
    confirmed = [
        event for event in events if event["before"]["label"] == event["after"]["label"] and event["before"]["reason"]
    ]
    assert len(confirmed) >= 4 and all(event["after"] == event["before"] for event in confirmed)
    assert {event["event"] for event in confirmed} == {"confirmed", "put back"}
    renamed = [event["after"]["annotator"] for event in events if event not in confirmed]
    assert renamed and set(renamed) == {"ann"}
    kept = {row["video_id"]: (row["annotator"], row["created_at"]) for row in load_hra(run / "corrected")["train"]}
    for event in confirmed:
        assert kept[event["video_id"]] == ("x", "2025-01-01T00:00:00Z")


def test_a_queue_edited_by_hand(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    queue = correct(dataset, tmp_path / "run", lambda train, rows, folder: [None] * len(rows)).queue
    assert queue is not None
    rows = list(read_rows(queue))

    def edit(**changes: object) -> None:
        text = "\n".join(json.dumps({**row, **changes}) for row in rows)
        queue.write_text(text)  # an editor leaves no newline at the end

    def again() -> correction.CorrectionStatus:
        return correct(dataset, tmp_path / "run", nearest_critic)

    assert again().num_waiting == len(rows)
    for changes, message in (
        ({"decision": "Good"}, "without reviewer"),
        ({"decision": "great", "reviewer": "ann"}, r"line 1: decision label 'great' is unknown.*'drop'"),
        ({"decision": "Bad", "label": "Good", "reviewer": "ann"}, "fill in decision_reason"),
    ):
        edit(**changes)
        with pytest.raises(ValueError, match=message):
            again()
    queue.write_text("")
    with pytest.raises(ValueError, match="rows were deleted"):
        again()
    edit(decision="drop", reviewer="ann")
    assert len(read_decisions(queue)) == len(rows)
    queue.write_text(queue.read_text().replace('"ann"', '"Ren\u00e9"', 1), encoding="cp1252")
    with pytest.raises(ValueError, match=r"line \d+: byte 0xe9 is not UTF-8.*Save the file as UTF-8"):
        read_decisions(queue)
    edit(decision="drop", reviewer="ann")
    with pytest.raises(ValueError, match="no row nonsense"):
        decide(queue, {"nonsense": Decision(None, "", "ann")})
    edit(decision=None)
    before = queue.read_bytes()
    assert len(read_decisions(queue)) == len(rows) and queue.read_bytes() == before
    assert decide(queue, {rows[-1]["id"]: Decision(None, "", "ann")}) == len(rows) - 1
    assert [row["id"] for row in read_rows(queue)] == [row["id"] for row in rows]
    queue.write_text(queue.read_text() + json.dumps(rows[1]))
    with pytest.raises(ValueError, match=rf"line {len(rows) + 1}: id '{rows[1]['id']}' stands in .*, line 2 too"):
        decide(queue, {rows[0]["id"]: Decision(None, "", "ann")})


def test_a_dataset_with_embedded_clips_is_corrected_too(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    readable = dataset.select([n for n in range(12) if n != 6])
    readable.save_to_disk(tmp_path / "saved")
    embedded = Dataset.load_from_disk(tmp_path / "saved")
    assert embedded[0]["video"]["bytes"] is not None
    run_all(readable, tmp_path / "paths", nearest_critic, truth)
    asked = correct(embedded, tmp_path / "bytes", nearest_critic).queue
    assert asked is not None
    queues = [tmp_path / name / STEPS[1] / "review_queue.jsonl" for name in ("paths", "bytes")]
    assert [row["id"] for row in read_rows(queues[0])] == [row["id"] for row in read_rows(queues[1])]


def test_another_input_needs_another_folder(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    correct(dataset, tmp_path / "run", nearest_critic)
    with pytest.raises(ValueError, match="use a new output_dir"):
        correct(dataset.select(range(8)), tmp_path / "run", nearest_critic)
    with pytest.raises(ValueError, match="use a new output_dir"):
        correct(dataset, tmp_path / "run", nearest_critic, config=CorrectionConfig(seed=1))
    with pytest.raises(ValueError, match="two halves"):
        correct(dataset.select([7]), tmp_path / "one", nearest_critic)
    with pytest.raises(ValueError, match="at least 1 word"):
        CorrectionConfig(min_caption_words=0)


def _killed_at(write: int, dataset: Dataset, folder: Path, truth: Truth) -> None:
    """Runs to the end in a child that kills itself with SIGKILL in the middle of the `write`-th replacement of a file."""
    count, replace = 0, Path.replace

    def counting(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == write:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = counting  # type: ignore[method-assign, assignment]
    run_all(dataset, folder, nearest_critic, truth)


def test_killed_before_any_write_and_resumed_gives_equal_results(small: tuple[Dataset, Truth], tmp_path: Path):
    dataset, truth = small
    run_all(dataset, tmp_path / "whole", nearest_critic, truth)
    whole = digests(tmp_path / "whole")
    fork = multiprocessing.get_context("fork")
    writes = 0
    while True:
        writes += 1
        folder = tmp_path / f"killed{writes}"
        child = fork.Process(target=_killed_at, args=(writes, dataset, folder, truth))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        run_all(dataset, folder, nearest_critic, truth)
        resumed = {name: digest for name, digest in digests(folder).items() if not name.endswith(".tmp")}
        assert resumed == whole, f"killed before write {writes}"
    assert writes > 20  # it was killed in every step


@pytest.mark.parametrize("step", STEPS[1:])
def test_killed_from_outside_while_a_critic_trains(small: tuple[Dataset, Truth], tmp_path: Path, step: str):
    dataset, truth = small
    run_all(dataset, tmp_path / "whole", nearest_critic, truth)
    started = tmp_path / "started"

    def endless(train: Dataset, rows: Dataset, folder: Path) -> Sequence[Judgement | None]:
        if folder.parent.name == step:
            started.touch()
            time.sleep(600)
        return nearest_critic(train, rows, folder)

    work = (dataset, tmp_path / "run", endless, truth)
    child = multiprocessing.get_context("fork").Process(target=run_all, args=work)
    child.start()
    while not started.exists():
        assert child.is_alive()
        time.sleep(0.02)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    run_all(dataset, tmp_path / "run", nearest_critic, truth)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
