"""What stands beside a clip is that clip's: votes, ratings and decisions of other clips, systems or labels never count."""

import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs

import gradio as gr
import numpy as np
import pytest

from lift_trl.records import CriticScore, Judgement, content_id
from lift_trl.rubric import LIFT, Dimension, Label, Rubric
from lift_trl.store.manifest import read_rows, write_rows
from lift_trl.store.rated_videos import BadRowsError
from lift_trl.store.rubrics.of_data import write_rubric
from lift_trl.store.video_io import write_video
from lift_trl.ui.annotate.page import owner_html
from lift_trl.ui.annotate.ratings import AnnotationQueue, Rating, export_ratings
from lift_trl.ui.annotate.review import ReviewQueue
from lift_trl.ui.arena.results import ResultsCache
from lift_trl.ui.arena.votes import Arena
from lift_trl.ui.clips import ClipShelf, GalleryClip, load_clips, pair_clips
from lift_trl.ui.compare.generation import ComparedClips
from lift_trl.ui.compare.page import Wanted, compare_page, linked, names_html
from lift_trl.ui.compare.votes import Compare, Gallery, ShownPair
from lift_trl.ui.identity import Identity
from lift_trl.ui.page import ClipError, clip_player, preload_html
from lift_trl.ui.vote_log import VoteLog, vote_id
from tests.own_rubric import OWN


MOTION = Dimension.MOTION_SMOOTHNESS


def folder(root: Path, shade: int, *, number: int = 2) -> Path:
    """Clips with the names, ids, prompts and seeds that every folder here has; only what they show differs."""
    rows = []
    for n in range(number):
        write_video(root / f"{n}.mp4", np.full((3, 16, 32, 3), shade + n, np.uint8), fps=8)
        rows.append({"file_name": f"{n}.mp4", "id": f"clip-{n}", "prompt": f"prompt {n}", "seed": n})
    write_rows(root / "metadata.jsonl", rows)
    return root


def arena_of(tmp_path: Path, first: Path, second: Path, *, name: str = "lift") -> Arena:
    pairs = pair_clips(load_clips(str(first), system="base"), load_clips(str(second), system=name))
    return Arena(pairs, VoteLog(tmp_path / "data" / "votes"), Identity(b"salt"))


def vote_on_all(arena: Arena, voter: str, choice: str) -> None:
    while (pair := arena.next_pair(voter)) is not None:
        assert arena.vote(voter, pair.id, dict.fromkeys((*Dimension, None), choice))


@pytest.mark.parametrize("changed", ["the second system", "what a clip shows"])
def test_pairs_that_nobody_saw_have_no_votes(tmp_path, changed):
    base, lift, other = (folder(tmp_path / name, shade) for name, shade in (("b", 10), ("l", 90), ("o", 170)))
    before = arena_of(tmp_path, base, lift)
    vote_on_all(before, "ada", "a")
    name = "other" if changed == "the second system" else "lift"
    after = arena_of(tmp_path, base, lift if name == "other" else other, name=name)
    assert before.progress("ada") == (2, 2) and after.progress("ada") == (0, 2)
    assert "No votes yet" in ResultsCache(after, lambda votes: pytest.fail("nothing to count")).html()
    vote_on_all(after, "ada", "b")
    assert len(after.comparisons()) == 8 and {row.choice for row in after.comparisons()} == {"b"}
    # And the first comparison finds its own votes again.
    again = arena_of(tmp_path, base, lift)
    assert again.progress("ada") == (2, 2) and {row.choice for row in again.comparisons()} == {"a"}


def old_rows(voter: str, second: str) -> list[dict[str, object]]:
    """Votes as they were written when a pair's id left the systems out."""
    pair = content_id("prompt 0", "clip-0", "clip-0")
    names = {"video_a": f"{second}/0.mp4", "video_b": "base/0.mp4"}
    row = {"prompt": "prompt 0", **names, "choice": "tie", "voter": voter, "created_at": "2026-01-01T00:00:00+00:00"}
    return [{"id": vote_id(voter, pair, d), **row, "dimension": d, "pair": pair} for d in (*Dimension, None)]


def test_old_votes_count_for_the_systems_that_they_name(tmp_path):
    log = VoteLog(tmp_path / "data" / "votes")
    log.add([*old_rows("ada", "lift"), *old_rows("bob", "other")])
    base, lift = folder(tmp_path / "b", 10), folder(tmp_path / "l", 90)
    lifted, other = arena_of(tmp_path, base, lift), arena_of(tmp_path, base, lift, name="other")
    assert [(a.progress("ada")[0], a.progress("bob")[0]) for a in (lifted, other)] == [(1, 0), (0, 1)]
    assert {row.voter for row in lifted.comparisons()} == {"ada"} and len(lifted.comparisons()) == 4


def test_what_asks_other_questions_is_no_vote(tmp_path):
    arena = arena_of(tmp_path, folder(tmp_path / "b", 10), folder(tmp_path / "l", 90))
    pair = next(iter(arena.pairs))
    rows = [{"id": d, "pair": pair, "voter": "ada", "dimension": d, "choice": "a"} for d in ("colour", "sound")]
    arena.log.add([*rows, {"id": "z", "pair": pair, "voter": "ada", "dimension": None, "choice": "left"}])
    assert arena.comparisons() == [] and arena.progress("ada")[0] == 0


def test_two_systems_of_one_name_are_refused(tmp_path):
    clips = folder(tmp_path / "b", 10)
    with pytest.raises(ValueError, match="both systems are called 'base'; name them"):
        arena_of(tmp_path, clips, clips, name="base")
    with pytest.raises(ValueError, match="'user/base': votes name clips as system/path"):
        load_clips(str(clips), system="user/base")


def test_only_what_was_shown_can_be_voted_on_and_a_restart_remembers_it(tmp_path):
    base, lift = folder(tmp_path / "b", 10), folder(tmp_path / "l", 90)
    arena, tie = arena_of(tmp_path, base, lift), dict.fromkeys((*Dimension, None), "tie")
    pair = arena.next_pair("ada")
    other = next(name for name in arena.pairs if name != pair.id)
    for voter, name in (("ada", other), ("bob", pair.id)):
        with pytest.raises(ValueError, match="not open for you"):
            arena.vote(voter, name, tie)
    assert arena.pair_after("ada").id == other  # fetched ahead, not yet shown
    with pytest.raises(ValueError, match="not open for you"):
        arena.vote("ada", other, tie)
    again = arena_of(tmp_path, base, lift)
    assert again.vote("ada", pair.id, tie) is True
    assert again.next_pair("ada").id == other


# ---- compare -------------------------------------------------------------------------------------------------------------


def gallery_of(tmp_path: Path) -> Gallery:
    made = {name: folder(tmp_path / name, shade) for name, shade in (("base", 10), ("lift", 90), ("other", 170))}
    return Gallery.load({name: str(path) for name, path in made.items()}, {})


def test_a_vote_in_one_tab_is_for_the_system_of_that_tab(tmp_path):
    gallery = gallery_of(tmp_path)
    compare = Compare(gallery.adapters, VoteLog(tmp_path / "data" / "votes"), Identity(b"salt"))
    first = {name: gallery.get(name, "prompt 1", "1") for name in ("lift", "other")}
    for voter, name in (("ada", "lift"), ("bob", "other"), ("ada", "other")):  # what visitors look at meanwhile
        compare.show(voter, first[name])
    for name, better in (("lift", 1), ("other", 0)):  # neither is a repeat of the other
        pair = first[name].clips.id
        side = "ab"[better if not compare.is_swapped("ada", pair) else 1 - better]
        assert compare.vote("ada", pair, side) is True
        assert compare.vote("ada", pair, "tie") is False
    rows = {row["video_b"]: (row["video_a"], row["choice"]) for row in compare.log.rows()}
    assert rows == {"lift/1.mp4": ("base/1.mp4", "b"), "other/1.mp4": ("base/1.mp4", "a")}


def test_sides_of_a_comparison_are_random_and_fixed(tmp_path):
    compare = Compare(["lift"], VoteLog(tmp_path / "votes"), Identity(b"salt"))
    swapped = [compare.is_swapped(f"voter {n}", "pair") for n in range(2000)]
    assert 900 < sum(swapped) < 1100
    assert swapped == [compare.is_swapped(f"voter {n}", "pair") for n in range(2000)]


def test_names_and_verdicts_stand_on_the_sides_of_the_clips(tmp_path):
    compare = Compare(["lift"], VoteLog(tmp_path / "votes"), Identity(b"salt"))
    low, high = (
        CriticScore("", "critic", tuple(Judgement(d, label) for d in Dimension)) for label in (Label.BAD, Label.GOOD)
    )
    pair = ComparedClips("pair", (Path("b.mp4"), Path("l.mp4")), (low, high))
    sides = {False: [("A: base", "0.05"), ("B: lift", "0.90")], True: [("A: lift", "0.90"), ("B: base", "0.05")]}
    seen = set()
    for voter in map(str, range(8)):
        compare.show(voter, ShownPair("p", "lift", pair, ("base/7", "lift/7")))
        html = names_html(compare, voter, "pair")
        swapped = compare.is_swapped(voter, "pair")
        assert re.findall(r"<b>(. ?.*?)</b><span>reward ([0-9.]+)<", html) == sides[swapped]
        seen.add(swapped)
    assert seen == {False, True}


def test_who_has_seen_the_names_has_no_vote(tmp_path):
    gallery, log = gallery_of(tmp_path), VoteLog(tmp_path / "data" / "votes")
    compare, shown = Compare(gallery.adapters, log, Identity(b"salt")), gallery.get("lift", "prompt 0", "0")
    with pytest.raises(ValueError, match="not open for you"):
        compare.vote("ada", shown.clips.id, "a")
    compare.show("ada", shown)
    compare.tell("ada", shown.clips.id)
    again = Compare(gallery.adapters, log, Identity(b"salt"))  # a restart forgets neither
    for page in (compare, again):
        with pytest.raises(ValueError, match="no longer be blind"):
            page.vote("ada", shown.clips.id, "a")
    assert not again.is_open("ada", shown.clips.id)


# ---- annotation ----------------------------------------------------------------------------------------------------------


def queue_of(tmp_path: Path, clips: Path, **arguments: object) -> AnnotationQueue:
    log = VoteLog(tmp_path / "data" / "votes")
    return AnnotationQueue(load_clips(str(clips)), log, Identity(b"salt"), **arguments)


def rate_all(queue: AnnotationQueue, rater: str, label: Label) -> None:
    while (clip := queue.next_clip(rater)) is not None:
        assert queue.rate(rater, clip.id, dict.fromkeys(Dimension, Rating(label, "so it is")))


def test_ratings_are_of_the_clips_that_were_shown(tmp_path):
    first, second = folder(tmp_path / "one", 10), folder(tmp_path / "two", 90)
    before = queue_of(tmp_path, first)
    rate_all(before, "ada", Label.BAD)
    after = queue_of(tmp_path, second)  # the same ids
    assert after.progress("ada").mine == 0 and after.ratings() == []
    rate_all(after, "ada", Label.GOOD)
    assert {row["label"] for row in after.ratings()} == {Label.GOOD} and len(after.ratings()) == 6
    assert {row["label"] for row in queue_of(tmp_path, first).ratings()} == {Label.BAD}
    rows = after.log.rows()
    with pytest.raises(ValueError, match="2 rated clips are not among the clips"):
        export_ratings(rows, load_clips(str(second)), tmp_path / "half")
    clips = [*load_clips(str(first)), *load_clips(str(second))]
    assert export_ratings(rows, clips, tmp_path / "export") == 12
    exported = {(row["file_name"], row["label"]) for row in read_rows(tmp_path / "export" / "metadata.jsonl")}
    assert {(name.split("/")[1], label) for name, label in exported} == {("one", "Bad"), ("two", "Good")}


def test_old_ratings_and_other_rubrics(tmp_path):
    clips = folder(tmp_path / "one", 10)
    queue = queue_of(tmp_path, clips)
    known = {"annotator": "ada", "video_id": "clip-0", "video": "0.mp4", "caption": "prompt 0", "label": "Good"}
    rows = [{**known, "id": d, "dimension": d, "reason": ""} for d in Dimension]
    queue.log.add([{**row, "id": f"{row['id']} {n}", **change} for row in rows for n, change in enumerate((
        {}, {"annotator": "bob", "label": "excellent"}, {"annotator": "cyd", "caption": "another prompt"},
    ))])  # fmt: skip
    queue.log.add([{**known, "annotator": "dan", "id": d, "dimension": d} for d in ("colour", "sound", "plot")])
    assert [queue.progress(name).mine for name in ("ada", "bob", "cyd", "dan")] == [1, 0, 0, 0]


def test_a_clip_is_rated_once_and_only_by_those_who_were_shown_it(tmp_path):
    queue, good = queue_of(tmp_path, folder(tmp_path / "one", 10)), dict.fromkeys(Dimension, Rating(Label.GOOD, ""))
    clip = queue.next_clip("ada")
    other = next(name for name in queue.clips if name != clip.id)
    for rater, name in (("ada", other), ("bob", clip.id)):
        with pytest.raises(ValueError, match="not open for you"):
            queue.rate(rater, name, good)
    assert queue.rate("ada", clip.id, good) is True
    worse = good | {MOTION: Rating(Label.BAD, "It jumps.")}
    assert queue.rate("ada", clip.id, worse) is False
    assert queue.stands("ada", clip.id, good) and not queue.stands("ada", clip.id, worse)
    assert {row["label"] for row in queue.ratings()} == {Label.GOOD}


def test_a_gold_clip_has_an_id_of_its_own(tmp_path):
    gold = [GalleryClip("clip-0", "g.mp4", Path("g.mp4"), "p", "", "gold", dict.fromkeys(Dimension, "Bad"), "hash")]
    with pytest.raises(ValueError, match="the gold clip 'clip-0' has the id of another clip"):
        queue_of(tmp_path, folder(tmp_path / "one", 10), gold=gold)


def test_the_owner_sees_agreement_without_gold_clips_and_careless_raters_first(tmp_path):
    clips, known = folder(tmp_path / "one", 10), folder(tmp_path / "known", 90)
    labels = {dimension.value: "Bad" for dimension in Dimension}
    write_rows(known / "metadata.jsonl", [{"file_name": "0.mp4", "id": "gold", "prompt": "g", **labels}])
    queue = queue_of(tmp_path, clips, gold=load_clips(str(known)), raters=2)
    rate_all(queue, "ann", Label.BAD)
    rate_all(queue, "zoe", Label.NORMAL)  # the gold clip too
    seen = []

    def agreement(rows, dimension):
        seen.append({row["video_id"] for row in rows if row["dimension"] == dimension})
        return 0.25

    html = owner_html(queue, agreement)
    assert seen == [{"clip-0", "clip-1"}] * 3 and html.count("<td>0.25</td>") == 3
    assert html.index("zoe") < html.index("ann") and "<td>0&nbsp;%</td>" in html and "<td>100&nbsp;%</td>" in html


# ---- correction ----------------------------------------------------------------------------------------------------------


def review_of(tmp_path: Path, written: list, **row: object) -> ReviewQueue:
    shown = {"video": "a.mp4", "caption": "c", "dimension": MOTION.value, "annotator": "ada", "decision": None}
    said = {"label": "Good", "reason": "It is smooth.", "critic_label": "Bad", "critic_reason": "The ball jumps."}
    return ReviewQueue([{"id": "x", **shown, **said, **row}], VoteLog(tmp_path / "decisions"), written.extend)


def test_a_reason_stays_with_its_label(tmp_path):
    written: list = []
    queue = review_of(tmp_path, written)
    # What the box shows as the label changes; what a person typed is left alone.
    assert queue.suggestion(queue.rows["x"]) == (Label.BAD, "The ball jumps.")
    assert queue.refill("x", "Good", "The ball jumps.") == "It is smooth."
    assert queue.refill("x", "Normal", "It is smooth.") == ""
    assert queue.refill("x", "Bad", "") == "The ball jumps."
    assert queue.refill("x", "Normal", "It halts once.") == "It halts once."
    # And what is saved, whatever a page sends.
    for label, reason in (("Good", " The ball  jumps. "), ("Normal", "The ball jumps."), ("Bad", "It is smooth.")):
        with pytest.raises(ValueError, match=f"given for another label; say why motion smoothness is {label}"):
            queue.decide("x", "ada", label, reason)
    with pytest.raises(ValueError, match="Say why motion smoothness is Normal"):
        queue.decide("x", "ada", "Normal", "  ")
    assert queue.decide("x", "ada", "Good", "") is True
    assert [(d.label, d.reason) for d in written] == [(Label.GOOD, "It is smooth.")]


def test_the_best_label_needs_a_reason_too_where_it_is_neither_the_critics_nor_the_raters(tmp_path):
    queue = review_of(tmp_path, [], label="Normal", reason="It halts.")
    assert queue.refill("x", "Good", "The ball jumps.") == ""
    with pytest.raises(ValueError, match="Say why motion smoothness is Good"):
        queue.decide("x", "ada", "Good", "")


def test_a_decision_is_on_the_row_that_was_shown(tmp_path):
    written: list = []
    assert review_of(tmp_path, written).decide("x", "ada", "Bad", "The ball jumps.") is True
    # The next correction asks of the same rating again, another critic having judged it.
    later = review_of(tmp_path, written, critic_reason="The ball vanishes.")
    assert later.num_done == 0
    assert later.decide("x", "ada", None, "", drop=True) is True
    assert [d.label for d in written] == [Label.BAD, None]


# ---- clips ---------------------------------------------------------------------------------------------------------------


def test_no_file_is_served_but_a_clip(tmp_path):
    """Whichever clip of a player it is, and however it came to its name."""
    clips = folder(tmp_path / "clips", 10, number=1)
    (tmp_path / "secret.txt").write_text("a secret")
    (clips / "link.mp4").symlink_to(tmp_path / "secret.txt")
    (clips / "folder.mp4").mkdir()
    shelf = ClipShelf(Identity(b"salt"))
    for second in (clips / "link.mp4", clips / "folder.mp4", clips / "gone.mp4", tmp_path / "secret.txt"):
        with pytest.raises(ClipError, match=second.name):
            clip_player([(clips / "0.mp4", "A"), (second, "B")], shelf)
        assert preload_html([clips / "0.mp4", second], shelf) == ""
    assert shelf._paths == {}


@pytest.mark.parametrize("name", ["../secret.mp4", "../../secret.mp4", "{root}/secret.mp4", "sub/../../secret.mp4"])
def test_a_row_names_no_clip_of_another_place(tmp_path, name):
    clips = folder(tmp_path / "a" / "clips", 10)
    for place in (tmp_path, tmp_path / "a"):
        shutil.copy(clips / "0.mp4", place / "secret.mp4")
    rows = list(read_rows(clips / "metadata.jsonl"))
    rows.append({"file_name": name.format(root=tmp_path), "prompt": "a third clip"})
    write_rows(clips / "metadata.jsonl", rows)
    with pytest.raises(BadRowsError, match="row 3: .*outside the folder"):
        load_clips(str(clips))


def test_a_scored_set_names_the_clips_of_the_set_beside_it(tmp_path):
    clips = folder(tmp_path / "generated", 10)
    rows = [{**row, "file_name": f"../generated/{row['file_name']}"} for row in read_rows(clips / "metadata.jsonl")]
    write_rows(tmp_path / "scored" / "metadata.jsonl", rows)
    assert [clip.path for clip in load_clips(str(tmp_path / "scored"))] == [clips / "0.mp4", clips / "1.mp4"]


def test_an_id_is_one_clips(tmp_path):
    clips = folder(tmp_path / "clips", 10)
    rows = list(read_rows(clips / "metadata.jsonl"))
    write_rows(clips / "metadata.jsonl", [*rows, rows[0]])  # of a second rater
    assert len(load_clips(str(clips))) == 2
    write_rows(clips / "metadata.jsonl", [*rows, {**rows[1], "id": "clip-0"}])
    with pytest.raises(BadRowsError, match="row 3: id 'clip-0' is that of 0.mp4"):
        load_clips(str(clips))


def test_what_somebody_cannot_see_is_passed_over_for_him_and_listed(tmp_path):
    arena = arena_of(tmp_path, folder(tmp_path / "b", 10), folder(tmp_path / "l", 90))
    pair = arena.next_pair("ada")
    with pytest.raises(ValueError, match="not open for you"):
        arena.skip("bob", pair.id)
    arena.skip("ada", pair.id)
    again = arena_of(tmp_path, tmp_path / "b", tmp_path / "l")
    for page in (arena, again):
        assert page.next_pair("ada").id != pair.id and page.problems() == [
            f"{pair.first.path}, {pair.second.path}: 1 visitor found it broken"
        ]
    vote_on_all(again, "bob", "a")
    assert again.progress("bob") == (2, 2)  # he saw both
    queue = queue_of(tmp_path / "q", tmp_path / "b", raters=1)
    clip = queue.next_clip("ada")
    queue.skip("ada", clip.id)
    assert queue.next_clip("ada").id != clip.id and queue.next_clip("bob") is not None
    assert [problem.startswith(str(clip.path)) for problem in queue.problems()] == [True]


def test_one_sender_and_what_failed(tmp_path):
    class Request:
        headers, client, session_hash = {"x-forwarded-for": "1.2.3.4"}, type("Client", (), {"host": "10.0.0.1"}), "s"

    identity = Identity(b"salt", votes_per_minute=2)
    for _ in range(5):  # what failed does not count
        with pytest.raises(KeyError), identity.sending(Request(), None):
            raise KeyError
    for _ in range(2):
        with identity.sending(Request(), None) as voter:
            assert voter.startswith("anon:")
    with pytest.raises(ValueError, match="Too many votes"), identity.sending(Request(), None):
        pass
    profile = type("Profile", (), {"username": "ada"})
    with identity.sending(Request(), profile) as voter:  # a login counts for itself
        assert voter == "hf:ada"
    strict = Identity(b"salt", require_login=True)
    with pytest.raises(ValueError, match="sign in"), strict.sending(Request(), None):
        pass
    with strict.sending(Request(), profile) as voter:
        assert voter == "hf:ada"


def test_clips_that_are_ready_are_shown_where_others_are_made(tmp_path):
    gallery = gallery_of(tmp_path)
    compare, shelf = (
        Compare(["lift"], VoteLog(tmp_path / "data" / "votes"), Identity(b"salt")),
        ClipShelf(Identity(b"s")),
    )
    page = compare_page(compare, shelf, why="", gallery=gallery, make=lambda *given: pytest.fail("not made"))
    events = {event.name: event.fn for event in page.fns.values()}
    request = SimpleNamespace(
        headers={}, client=SimpleNamespace(host="h"), session_hash="s", query_params={"prompt": "a fox", "seed": "7"}
    )
    filled, stage = events["load"](request)[:3], events["load"](request)[3:]
    assert filled == ["a fox", 7, "lift"] and stage == [gr.skip()] * 8  # nobody has made it yet
    request.query_params = {"prompt": "prompt 1", "seed": "1", "model": "lift"}
    assert events["load"](request)[4].count("<video") == 2 and events["load"](request)[3].endswith(
        "prompt 1</span></div>"
    )
    prompt, player, link, pair, *_ = events["look"]("prompt 1", "lift", request)
    assert "prompt 1" in prompt and player.count("<video") == 2
    assert "?model=lift&amp;prompt=prompt+1&amp;seed=1" in link
    voter = compare.identity.voter(request, None)
    assert compare.vote(voter, pair, "tie") is True
    (row,) = compare.log.rows()
    assert (row["video_a"], row["video_b"]) == ("base/1.mp4", "lift/1.mp4")


def test_a_link_says_which_model_prompt_and_seed():
    wanted = Wanted("sharp & soft", 'x < "y" & z', "3 #2")
    link = re.search(r'href="([^"]*)"', wanted.link_html)
    assert link is not None
    query = {name: value for name, (value,) in parse_qs(unescape(link[1]).removeprefix("?")).items()}
    request = SimpleNamespace(query_params=query)
    assert linked(request, ["lift", "sharp & soft"]) == wanted
    assert linked(request, ["lift", "soft"]) == wanted._replace(adapter="lift")


def scored_by(root: Path, name: str, rubric: Rubric, labels: tuple[str, ...]) -> Path:
    """Scored rows of one system's clips, probabilities .7 for the label and the rest shared out."""
    rest = 0.3 / (len(rubric.labels) - 1)
    given = dict(zip(rubric.dimensions, labels, strict=True))
    probs = {d: {one: 0.7 if one == label else rest for one in rubric.labels} for d, label in given.items()}
    rows = [{"id": f"{name}-{n}", "critic": "mine@1", **given, "probs": probs} for n in range(2)]
    write_rows(root / f"scored-{name}" / "metadata.jsonl", rows)
    write_rubric(rubric, root / f"scored-{name}")
    return root / f"scored-{name}"


def test_the_comparison_shows_the_verdicts_of_a_rubric_of_ones_own(tmp_path):
    """Its dimensions and labels, the rewards of its ends, and the difference of its rewards; no two rubrics on a page."""
    sources = {name: str(folder(tmp_path / name, 50 + 50 * n)) for n, name in enumerate(("base", "lift"))}
    for name, source in sources.items():
        rows = [row | {"id": f"{name}-{n}"} for n, row in enumerate(read_rows(Path(source) / "metadata.jsonl"))]
        write_rows(Path(source) / "metadata.jsonl", rows)
    scored = {
        "base": str(scored_by(tmp_path, "base", OWN, ("Poor", "Awful"))),
        "lift": str(scored_by(tmp_path, "lift", OWN, ("Great", "Fair"))),
    }
    gallery = Gallery.load(sources, scored)
    rewards = [score.reward for score in gallery.get("lift", "prompt 1", "1").clips.scores]
    assert rewards == [pytest.approx((0.25 + 0.0) / 2), pytest.approx((1.0 + 0.6) / 2)]
    compare, shelf = (
        Compare(["lift"], VoteLog(tmp_path / "data" / "votes"), Identity(b"salt")),
        ClipShelf(Identity(b"s")),
    )
    page = compare_page(compare, shelf, why="", gallery=gallery, make=lambda *given: pytest.fail("not made"))
    events = {event.name: event.fn for event in page.fns.values()}
    request = SimpleNamespace(headers={}, client=SimpleNamespace(host="h"), session_hash="s", query_params={})
    pair = events["look"]("prompt 1", "lift", request)[3]
    shown = events["send"](pair, "tie", request, None)[2]
    assert shown.count("Colour match") == shown.count("Steadiness") == 2
    assert 'lift-rank2">Great' in shown and 'lift-rank1">Fair' in shown and 'lift-rank0">Awful' in shown
    assert shown.count("70 %") == 4 and shown.count("10 %") == 12
    assert "Difference of the rewards: 0.68. " in shown and "0 if all are Awful, 1 if all are Great" in shown
    assert not any(word in shown for word in ("Good", "Normal", "Bad", "Motion"))
    scored["base"] = str(scored_by(tmp_path, "base", LIFT, ("Good", "Bad", "Good")))
    with pytest.raises(ValueError, match="the rubrics of the verdicts differ"):
        Gallery.load(sources, scored)
