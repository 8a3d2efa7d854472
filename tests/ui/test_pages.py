"""The logic behind the pages, without a page: pairs and sides, clips and raters, review, gallery, identity, HTML."""

import json
import re
import runpy
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lift_trl.hub_source import NamedSource
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.store.manifest import read_rows, write_rows
from lift_trl.store.rated_videos import BadRowsError
from lift_trl.store.video_io import write_video
from lift_trl.ui.annotate.ratings import (
    READY_REASON,
    AnnotationQueue,
    Rating,
    checked_reason,
    export_ratings,
    rater_summaries,
)
from lift_trl.ui.annotate.review import ReviewQueue, clip_path, find_queue, share_queue
from lift_trl.ui.arena.results import ResultRow, ResultsCache, Share, results_html
from lift_trl.ui.arena.votes import CHOICES, Arena, system_of
from lift_trl.ui.clips import GalleryClip, load_clips, pair_clips
from lift_trl.ui.compare.generation import component_sizes, critic_size, plan_for
from lift_trl.ui.compare.votes import Gallery
from lift_trl.ui.identity import COOKIE, Identity, cookie_token
from lift_trl.ui.page import named, player_html, prompt_html
from lift_trl.ui.verdict import score_of, verdict_html, verdicts_html
from lift_trl.ui.vote_log import VoteLog
from tests.structure.source import ROOT


GOOD = {dimension: Rating(Label.GOOD, "") for dimension in Dimension}
NASTY = '<img src=x onerror=alert(1)> ${1} {{ 2 }} "&'


def made(system: str, number: int, **row: object) -> list[GalleryClip]:
    return [
        GalleryClip(f"{system}-{n}", f"{n}.mp4", Path(f"/clips/{system}/{n}.mp4"), f"prompt {n}", str(n), system, row)
        for n in range(number)
    ]


@pytest.fixture
def identity() -> Identity:
    return Identity(b"salt", owners=["ada"])


@pytest.fixture
def log(tmp_path) -> VoteLog:
    return VoteLog(tmp_path / "rows")


# ---- arena ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def arena(log, identity) -> Arena:
    return Arena(pair_clips(made("base", 40), made("lift", 40)), log, identity)


def all_of(choice: str) -> dict[Dimension | None, str | None]:
    return dict.fromkeys((*Dimension, None), choice)


def test_sides_are_fair_and_fixed_for_a_voter_and_a_pair(arena):
    pair = next(iter(arena.pairs.values()))
    left = [arena.sides(f"voter {n}", pair)[0].system for n in range(2000)]
    assert 900 < left.count("base") < 1100
    assert arena.sides("voter 1", pair) == arena.sides("voter 1", pair)
    assert {arena.sides("one", p)[0].system for p in arena.pairs.values()} == {"base", "lift"}


def test_a_vote_names_the_clips_by_the_sides_on_which_they_stood(arena):
    first = []
    for voter in map(str, range(8)):
        pair = arena.next_pair(voter)
        arena.vote(voter, pair.id, all_of("a"))
        sides = [f"{clip.system}/{clip.name}" for clip in arena.sides(voter, pair)]
        rows = [row for row in arena.log.rows() if row["voter"] == voter]
        assert len(rows) == 4 and all([row["video_a"], row["video_b"]] == sides for row in rows)
        first.append(sides[0].partition("/")[0])
    assert set(first) == {"base", "lift"}


def test_votes_are_spread_and_every_pair_comes_once(arena):
    for n in range(4):  # 4 voters and 20 votes each: 80 votes, two for every pair
        for _ in range(20):
            pair = arena.next_pair(f"voter {n}")
            assert arena.next_pair(f"voter {n}") == pair  # a reload
            arena.vote(f"voter {n}", pair.id, all_of("tie"))
    counts = Counter(row["pair"] for row in arena.log.rows() if row["dimension"] is None)
    assert set(counts.values()) == {2} and len(counts) == 40
    orders = []
    for voter in ("late", "later"):
        seen = []
        while (pair := arena.next_pair(voter)) is not None:
            seen.append(pair.id)
            arena.vote(voter, pair.id, all_of("a"))
        assert len(seen) == len(set(seen)) == 40
        orders.append(seen)
    assert orders[0] != orders[1]


def test_a_vote_names_the_clips_that_stood_there(arena):
    pair = arena.next_pair("ada")
    assert arena.vote("ada", pair.id, all_of("a")) is True
    assert arena.vote("ada", pair.id, all_of("b")) is False
    left, right = arena.sides("ada", pair)
    rows = arena.comparisons()
    assert [row.dimension for row in rows] == [*Dimension, None]
    assert {(system_of(row.video_a), system_of(row.video_b), row.choice) for row in rows} == {
        (left.system, right.system, "a")
    }
    with pytest.raises(ValueError, match="overall"):
        arena.vote("bob", arena.next_pair("bob").id, all_of("a") | {None: None})
    with pytest.raises(ValueError, match="not part"):
        arena.vote("bob", "nothing", all_of("a"))
    assert set(CHOICES) == {"a", "tie", "b"}


def test_a_restart_changes_nothing(arena, identity):
    pair = arena.next_pair("ada")
    arena.vote("ada", pair.id, all_of("b"))
    again = Arena(list(arena.pairs.values()), VoteLog(arena.log.folder), identity)
    assert again.comparisons() == arena.comparisons()
    assert again.progress("ada") == (1, 40) and again.next_pair("ada").id != pair.id


def test_results_lead_with_the_aligned_system_and_name_systems_as_text():
    shares = (Share(0.5, (0.25, 0.75)), Share(0.25, None), Share(0.25, (0.1, 0.4)))
    html = results_html([ResultRow(None, *shares, 0.6, 0.4, 12, 5)], ("base", "<b>"))
    assert html.index("&lt;b&gt; better") < html.index("base better") and "<b>50 %</b>" not in html
    text = re.sub(r"<[^>]+>", " ", html)
    assert re.search(r"50 %\s+25 to 75 %\s+25 %\s+25 %\s+10 to 40 %\s+3 of 5\s+2 of 5\s+12", text)
    # Both intervals are drawn where their shares end: the win's from the left, the loss's from the right.
    assert "left:25.00%;width:50.00%" in html and "right:10.00%;width:30.00%" in html
    assert "No votes" in results_html([], ("a", "b"))


def test_results_of_many_votes_are_not_made_anew_for_each_of_them(arena, monkeypatch):
    clock_s, calls = [0.0], []
    monkeypatch.setattr("lift_trl.ui.arena.results.time", SimpleNamespace(monotonic=lambda: clock_s[0]))

    def slow(votes):
        calls.append(len(votes))
        clock_s[0] += 2.0
        return []

    cache = ResultsCache(arena, slow)
    assert "No votes yet" in cache.html() and calls == []
    for voter in ("ada", "bob", "cyd"):
        arena.vote(voter, arena.next_pair(voter).id, all_of("a"))
    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(lambda _: cache.html(), range(40)))) == 1
    assert calls == [12]
    arena.vote("dan", arena.next_pair("dan").id, all_of("a"))
    for moment_s, expected in ((41.9, [12]), (42.0, [12, 16])):  # it took 2 s, so 40 s pass before it is done again
        clock_s[0] = moment_s
        cache.html()
        assert calls == expected


# ---- annotation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        (
            "annotate",
            {"SOURCE": "reel"},
            "source='reel' (SOURCE), of which nothing could be trained; use synthetic or real",
        ),
        ("annotate", {"RATERS": "three"}, "RATERS=three: write a whole number above 0"),
        ("annotate", {"RATERS": "0"}, "RATERS=0: write"),
        ("arena", {"VOTES_PER_MINUTE": "1.5"}, "VOTES_PER_MINUTE=1.5: write"),
        ("arena", {"REQUIRE_LOGIN": "yes"}, "REQUIRE_LOGIN=yes: write 1 or 0"),
    ],
)
def test_a_page_that_is_told_nonsense_does_not_start(name, variables, message, tmp_path, monkeypatch):
    """Else people rate for days what no stage reads."""
    write_video(tmp_path / "a.mp4", np.zeros((9, 32, 48, 3), np.uint8), fps=8)
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "a.mp4", "prompt": "a fox"}])
    sources = {
        "CLIPS": str(tmp_path),
        "FIRST": f"a={tmp_path}",
        "SECOND": f"b={tmp_path}",
        "DATA_DIR": str(tmp_path / "d"),
    }
    for variable, value in (sources | variables).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=re.escape(message)):
        runpy.run_path(str(ROOT / "spaces" / name / "app.py"))


def test_clips_get_the_raters_asked_for_and_not_more(log, identity):
    queue = AnnotationQueue(made("base", 6), log, identity, raters=3)
    active = [f"rater {n}" for n in range(5)]
    while active:
        for rater in list(active):  # all at once: each has a clip before the first one rates
            if queue.next_clip(rater) is None:
                active.remove(rater)
        for rater in active:
            queue.rate(rater, queue.next_clip(rater).id, GOOD)
    assert set(queue.num_raters().values()) == {3} and len(queue.num_raters()) == 6
    assert queue.progress("rater 0").finished == 6


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns every ten microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(number: int, work: Callable[[str], None]) -> None:
    """`work` in so many threads that start together, with a person's name each."""
    barrier = threading.Barrier(number)

    def run(index: int) -> None:
        barrier.wait()
        work(f"person {index}")

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(run, range(number)))


def test_people_who_come_at_once_do_not_rate_a_clip_too_often(log, identity, hasty_threads):
    queue = AnnotationQueue(made("base", 20), log, identity, raters=3)

    def rate_all(rater: str) -> None:
        while (clip := queue.next_clip(rater)) is not None:
            queue.rate(rater, clip.id, GOOD)
            queue.progress(rater)

    at_once(20, rate_all)
    assert set(queue.num_raters().values()) == {3} and len(queue.num_raters()) == 20


def test_people_who_come_at_once_vote_evenly(arena, hasty_threads):
    def vote_ten_times(voter: str) -> None:
        for _ in range(10):
            arena.vote(voter, arena.next_pair(voter).id, all_of("a"))
            arena.progress(voter)

    at_once(20, vote_ten_times)
    counts = Counter(row["pair"] for row in arena.log.rows() if row["dimension"] is None)
    assert sum(counts.values()) == 200 and set(counts.values()) <= {4, 5, 6}


def test_a_page_is_quick_however_many_clips_and_ratings_there_are(log, identity):
    queue = AnnotationQueue(made("base", 3300), log, identity)
    rows = [
        {
            **{"id": f"{rater} {n} {d}", "annotator": rater, "video_id": f"base-{n}", "dimension": d.value},
            **{"label": Label.GOOD, "video": f"{n}.mp4", "caption": f"prompt {n}"},
        }
        for rater in ("ada", "bob")
        for n in range(1500)
        for d in Dimension
    ]
    log.add(rows)
    assert queue.progress("ada").mine == 1500
    start_s = time.thread_time()
    for n in range(10):
        queue.next_clip(f"rater {n}")
        assert queue.progress(f"rater {n}") == (0, 0, 3300)
    assert (time.thread_time() - start_s) / 10 < 0.08  # 0.17 s of work when each page read all rows; 0.02 s here


def test_clips_become_complete_one_after_another(log, identity):
    queue = AnnotationQueue(made("base", 10), log, identity, raters=2)
    first = queue.next_clip("ada")
    queue.rate("ada", first.id, GOOD)
    assert queue.next_clip("bob") == first
    assert queue.next_clip("ada") != first


def test_every_rater_meets_every_gold_clip(log, identity):
    gold = made("gold", 2, **{d.value: Label.BAD.value for d in Dimension})
    queue = AnnotationQueue(made("base", 10), log, identity, gold=gold, raters=1)
    for rater, label in (("ada", Label.BAD), ("bob", Label.GOOD)):
        while (clip := queue.next_clip(rater)) is not None:
            is_gold = clip.id in queue.gold
            queue.rate(rater, clip.id, dict.fromkeys(Dimension, Rating(label if is_gold else Label.GOOD, "so it is")))
    summaries = {summary.annotator: summary for summary in rater_summaries(queue.ratings(), queue.gold)}
    assert (summaries["ada"].gold_accuracy, summaries["bob"].gold_accuracy) == (1.0, 0.0)
    assert summaries["ada"].num_clips + summaries["bob"].num_clips == 10 + 2 * 2
    assert rater_summaries(queue.ratings(), queue.gold)[0].annotator == "bob"  # the careless first
    with pytest.raises(ValueError, match="no label for"):
        AnnotationQueue([], log, identity, gold=made("gold", 1))


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b\u202e"])
def test_a_reason_is_needed_below_the_best_label(text):
    motion = Dimension.MOTION_SMOOTHNESS
    assert checked_reason(Label.GOOD, text, motion, LIFT) == (READY_REASON, True)
    for label in (Label.NORMAL, Label.BAD):
        with pytest.raises(ValueError, match=f"Say why {motion.words} is {label}"):
            checked_reason(label, text, motion, LIFT)
    assert checked_reason(Label.GOOD, READY_REASON, motion, LIFT) == (READY_REASON, True)
    assert checked_reason(Label.GOOD, "very\n nice", motion, LIFT) == ("very nice", False)
    with pytest.raises(ValueError, match="1000 are allowed"):
        checked_reason(Label.GOOD, "x" * 1001, motion, LIFT)


def test_ratings_become_published_hra(tmp_path, log, identity):
    from lift_trl.feedback.convert import convert
    from lift_trl.feedback.hra import load_hra

    write_video(tmp_path / "clips" / "a.mp4", np.zeros((9, 16, 16, 3), np.uint8), fps=8)
    write_rows(tmp_path / "clips" / "metadata.jsonl", [{"file_name": "a.mp4", "prompt": "a fox", "id": "fox"}])
    clips = load_clips(str(tmp_path / "clips"))
    queue = AnnotationQueue(clips, log, identity)
    for rater in ("ada", "bob"):
        assert queue.next_clip(rater).id == "fox"
    queue.rate("ada", "fox", GOOD | {Dimension.MOTION_SMOOTHNESS: Rating(Label.BAD, "It jumps.")})
    queue.rate("bob", "fox", GOOD)
    assert export_ratings(queue.ratings(), clips, tmp_path / "export") == 6
    convert(tmp_path / "export", tmp_path / "hra")
    rows = load_hra(tmp_path / "hra")["train"]
    found = {(row["annotator"], row["dimension"]): (row["label"], row["reason"]) for row in rows}
    assert len(found) == 6 and found["ada", "motion_smoothness"] == (Label.BAD, "It jumps.")
    assert found["bob", "motion_smoothness"] == (Label.GOOD, READY_REASON)
    assert rows[0]["created_at"] and rows[0]["ui_version"].startswith("lift_trl")
    # Of two rows with one id the first counts, whatever their order; what is no rating is passed over.
    late = [{**row, "label": Label.NORMAL.value, "created_at": "2999-01-01T00:00:00+00:00"} for row in log.rows()]
    decision = {"id": "d", "row_id": "x", "label": Label.BAD.value}
    assert export_ratings([*late, decision, *log.rows()], clips, tmp_path / "again") == 6
    assert {row["label"] for row in read_rows(tmp_path / "again" / "metadata.jsonl")} == {Label.GOOD, Label.BAD}


# ---- review --------------------------------------------------------------------------------------------------------------


def queue_rows() -> list[dict[str, object]]:
    shared = {"video": "a.mp4", "caption": "c", "dimension": "motion_smoothness", "annotator": "ada", "reason": "old"}
    return [
        {"id": n, **shared, "label": Label.GOOD.value, "critic_label": Label.BAD.value, "decision": None}
        for n in "xyz"
    ]


def test_a_decision_is_durable_before_the_queue_changes(log):
    written = []

    def fail(decisions):
        raise OSError("the queue's disk is gone")

    queue = ReviewQueue(queue_rows(), log, fail)
    assert queue.suggestion(queue.next_row()) == (Label.BAD, "")
    with pytest.raises(OSError, match="gone"):
        queue.decide("x", "ada", Label.BAD, "It jumps.")
    # The next start gives the queue what the log kept.
    again = ReviewQueue(queue_rows(), VoteLog(log.folder), written.extend)
    assert [(d.row_id, d.label, d.reason, d.reviewer) for d in written] == [("x", Label.BAD, "It jumps.", "ada")]
    assert again.num_done == 1 and again.next_row()["id"] == "y"


def test_the_first_decision_stands_and_an_unchanged_label_keeps_its_reason(log):
    written = []
    queue = ReviewQueue(queue_rows(), log, written.extend)
    queue.decide("x", "ada", Label.GOOD, "")
    queue.decide("x", "bob", None, "", drop=True)
    queue.decide("y", "bob", None, "off topic", drop=True)
    assert [(d.row_id, d.label, d.reason, d.reviewer) for d in written] == [
        ("x", Label.GOOD, "old", "ada"),
        ("y", None, "off topic", "bob"),
    ]
    with pytest.raises(ValueError, match="Say why"):
        queue.decide("z", "ada", Label.NORMAL, "")
    with pytest.raises(ValueError, match="Choose a label"):
        queue.decide("z", "ada", None, "")


def test_a_queue_travels_to_the_hub_and_its_clips_with_it(hub, tmp_path):
    write_video(tmp_path / "cache" / "a.mp4", np.zeros((1, 16, 16, 3), np.uint8), fps=8)
    rows = [{**row, "video": str(tmp_path / "cache" / "a.mp4")} for row in queue_rows()]
    # As an editor leaves it: the last line has no end.
    (tmp_path / "review_queue.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert find_queue(str(tmp_path / "review_queue.jsonl")) == (tmp_path / "review_queue.jsonl", True)
    shared = share_queue(tmp_path / "review_queue.jsonl", tmp_path / "shared")
    hub.api().create_repo("dev/queue", repo_type="dataset")
    hub.api().upload_folder(folder_path=shared.parent, repo_id="dev/queue", repo_type="dataset")
    path, is_local = find_queue("dev/queue/review_queue.jsonl")
    assert not is_local and [row["id"] for row in read_rows(path)] == ["x", "y", "z"]
    assert {clip_path(row, path).read_bytes() for row in read_rows(path)} == {(tmp_path / "cache/a.mp4").read_bytes()}
    # The first queue as it is names files of the machine that it came from.
    hub.api().upload_file(
        path_or_fileobj=tmp_path / "review_queue.jsonl",
        path_in_repo="raw.jsonl",
        repo_id="dev/queue",
        repo_type="dataset",
    )
    with pytest.raises(ValueError, match="row x names .* outside the dataset; use share_queue"):
        find_queue("dev/queue/raw.jsonl")
    with pytest.raises(ValueError, match="has no file none.jsonl"):
        find_queue("dev/queue/none.jsonl")
    with pytest.raises(ValueError, match="no such file; for one of the Hub write"):
        find_queue("dev/queue")


# ---- clips, gallery, generation ------------------------------------------------------------------------------------------


def test_clips_pair_by_prompt_and_seed_and_in_order_without_one():
    pairs = pair_clips(made("base", 3), made("lift", 5))
    assert [(p.first.id, p.second.id) for p in pairs] == [(f"base-{n}", f"lift-{n}") for n in range(3)]
    same = [GalleryClip(f"c{n}", f"{n}", Path(f"{n}"), "p", "", "s") for n in range(2)]
    assert [(p.first.id, p.second.id) for p in pair_clips(same, same)] == [("c0", "c0"), ("c1", "c1")]
    with pytest.raises(ValueError, match="no prompt and seed in common"):
        pair_clips(made("base", 1), same)


def test_bad_rows_are_named(tmp_path):
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "none.mp4", "prompt": "p"}, {"file_name": "x.mp4"}])
    with pytest.raises(BadRowsError, match="2 bad rows") as error:
        load_clips(str(tmp_path))
    assert "no such clip" in str(error.value) and "no prompt" in str(error.value)


def test_a_dataset_of_somebody_else_names_no_file_of_this_machine(hub, tmp_path):
    outside = tmp_path / "secret.mp4"
    write_video(outside, np.zeros((1, 16, 16, 3), np.uint8), fps=8)
    hub.api().create_repo("dev/evil-clips", repo_type="dataset")
    for name in (str(outside), "../../../../../../../../" + str(outside).lstrip("/")):
        row = f'{{"file_name": "{name}", "prompt": "p"}}\n'.encode()
        hub.api().upload_file(
            path_or_fileobj=row, path_in_repo="metadata.jsonl", repo_id="dev/evil-clips", repo_type="dataset"
        )
        with pytest.raises(BadRowsError, match="outside the dataset"):
            load_clips("dev/evil-clips")


def test_a_gallery_joins_verdicts_by_id():
    probs = {d.value: {"Good": 0.7, "Normal": 0.2, "Bad": 0.1} for d in Dimension}
    judged = {
        "id": "lift-0",
        **{d.value: "Good" for d in Dimension},
        "probs": probs,
        "reasons": {"motion_smoothness": NASTY},
    }
    gallery = Gallery(made("base", 2), {"lift": made("lift", 2)}, {"lift-0": judged})
    clips = gallery.get("lift", "prompt 0", "0").clips
    assert clips.scores[0] is None and clips.scores[1].reward == pytest.approx(0.9)
    html = verdict_html("lift", clips.scores[1])
    bars = re.findall(r'<i class="(lift-rank.)" style="width:([0-9.]+)%">', html)
    assert bars[:3] == [("lift-rank2", "70.0"), ("lift-rank1", "20.0"), ("lift-rank0", "10.0")]
    assert "70 %" in html and "<img" not in html and "&#36;&#123;1&#125;" in html
    assert gallery.get("lift", "prompt 9", "0") is None
    assert "unscored, broken" in verdict_html("x", score_of({"id": "1", "unscored": "broken"}, LIFT))
    assert score_of({"id": "1", "prompt": "p"}, LIFT) is None


def test_rewards_differ_where_both_clips_have_one():
    labels = {d.value: "Good" for d in Dimension}
    good, mixed = (score_of({"id": "1", **labels, **more}, LIFT) for more in ({}, {"video_fidelity": "Bad"}))
    broken = score_of({"id": "1", "unscored": "broken"}, LIFT)
    assert "Difference of the rewards: 0.28." in verdicts_html([("base", mixed), ("lift", good)])  # (0.9 - 0.05) / 3
    for other in (broken, None):
        html = verdicts_html([("base", other), ("lift", good)])
        assert "Difference" not in html and "nan" not in html and "reward 0.90" in html


def test_clips_of_one_prompt_and_seed_are_told_apart():
    base, lift = (
        [
            GalleryClip(f"{name}-{n}", f"{n}", Path(f"{name}{n}"), "p", seed, name)
            for n, seed in enumerate(("7", "7", ""))
        ]
        for name in ("base", "lift")
    )
    gallery = Gallery(base, {"lift": lift})
    assert gallery.seeds("lift", "p") == ["7", "7 #2", "#1"]
    assert [gallery.get("lift", "p", seed).clips.paths[1].name for seed in gallery.seeds("lift", "p")] == [
        "lift0",
        "lift1",
        "lift2",
    ]


@pytest.mark.parametrize(
    ("gpu_gb", "how"), [(None, "no"), (70.0, "gpu"), (16.7, "gpu"), (12.0, "offload"), (8.0, "no")]
)
def test_a_model_runs_where_it_fits(gpu_gb, how):
    plan = plan_for({"text_encoder": 9.5, "transformer": 3.4, "vae": 0.4}, gpu_gb=gpu_gb)
    assert plan.how == how and plan.is_live == (how != "no")
    assert plan_for({"transformer": 0.01}, gpu_gb=None).how == "cpu"


def test_the_critic_takes_its_part_of_the_gpu():
    sizes = {"text_encoder": 9.5, "transformer": 3.4, "vae": 0.4}
    plans = [plan_for(sizes, gpu_gb=48.0, critic_gb=gb).how for gb in (0.0, 16.0, 26.0, 30.0)]
    assert plans == ["gpu", "gpu", "offload", "no"]
    assert plan_for({"transformer": 0.01}, gpu_gb=None, critic_gb=1.0).how == "no"


def test_weights_are_counted_in_either_format_and_never_as_nothing(tmp_path):
    for name, size in (
        ("base/transformer/diffusion_pytorch_model.bin", 3000),
        ("base/vae/diffusion_pytorch_model.safetensors", 200),
        ("base/vae/diffusion_pytorch_model.bin", 200),
        ("base/vae/diffusion_pytorch_model.fp16.safetensors", 100),
        ("vlm/model.safetensors", 5000),
        ("critic/adapter_model.safetensors", 70),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "critic/adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "vlm")})
    )
    assert component_sizes(str(tmp_path / "base")) == {"transformer": 3e-6, "vae": 2e-7}
    assert critic_size(str(tmp_path / "critic")) == pytest.approx(5.07e-6)
    with pytest.raises(ValueError, match="no weights"):
        component_sizes(str(tmp_path / "vlm"))


# ---- identity and HTML ---------------------------------------------------------------------------------------------------


def request(cookie: str = "", **query: str) -> SimpleNamespace:
    client = SimpleNamespace(host="10.0.0.1")
    return SimpleNamespace(headers={"cookie": cookie}, query_params=query, session_hash="s", client=client)


def test_a_login_is_a_name_and_a_cookie_a_salted_hash(identity):
    cookie = f"{COOKIE}={'x' * 43}"
    anonymous = identity.voter(request(cookie), None)
    assert (
        anonymous
        == identity.voter(request(cookie + "; other=1"), None)
        != Identity(b"other").voter(request(cookie), None)
    )
    assert anonymous.startswith("anon:") and len(anonymous) == 21
    assert identity.voter(request(cookie), SimpleNamespace(username="ada")) == "hf:ada"
    assert identity.voter(request("lift_voter=short"), None) == identity.voter(request(), None) != anonymous
    assert cookie_token(f"{COOKIE}=") is None and cookie_token("=;;\x00") is None


def test_the_owner_is_a_login_or_the_holder_of_the_key(identity):
    assert identity.is_owner(request(), SimpleNamespace(username="ada"))
    assert not identity.is_owner(request(), SimpleNamespace(username="eve"))
    assert identity.is_owner(request(owner=identity.owner_key), None)
    assert not identity.is_owner(request(owner="caf\u00e9"), None) and not identity.is_owner(request(), None)


def test_what_people_wrote_is_text():
    for html in (prompt_html(NASTY), player_html([("clips/a.mp4", NASTY)], fps=8, size=(16, 16))):
        assert "<img" not in html and "${" not in html and "{{" not in html
        assert "&lt;img src=x onerror=alert(1)&gt; &#36;&#123;1&#125;" in html


def test_a_folder_whose_name_holds_an_equals_sign_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "lr=1e-4").mkdir()
    monkeypatch.chdir(tmp_path)
    assert NamedSource.parse("lr=1e-4") == ("", "lr=1e-4") and NamedSource.parse("lift=lr=1e-4") == ("lift", "lr=1e-4")
    assert NamedSource.parse(long := "ABOUT " * 90 + "= 1") == (long[:-3].strip(), "1")
    assert NamedSource.parse("user/clips@v=2") == ("", "user/clips@v=2")


def test_variables_that_name_several_things():
    assert named("base=user/a, user/b/") == {"base": "user/a", "b": "user/b/"}
    assert named("") == {}
    assert named("base=/runs/lr=1e-4/a,lift = runs/lr=1/b") == {"base": "/runs/lr=1e-4/a", "lift": "runs/lr=1/b"}
    assert named("/runs/lr=1e-4/a") == {"a": "/runs/lr=1e-4/a"}
    with pytest.raises(ValueError, match="user/lora and other/lora are both called 'lora'"):
        named("user/lora,other/lora")
