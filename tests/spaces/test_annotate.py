"""The annotation page in a real browser: reasons, ready phrase, keyboard, reload, gold, the owner, the review queue."""

import json

import pytest

from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import METADATA_FILE, read_rows
from lift_trl.ui.annotate.ratings import READY_REASON
from tests.spaces.conftest import NASTY, wait_until_open


pytestmark = pytest.mark.browser
CLIP = "#lift-clip textarea, #lift-clip input"
SEMANTIC, MOTION, FIDELITY = Dimension


def clip_on(page) -> str:
    return str(page.locator(CLIP).input_value())


def label(page, dimension: Dimension, chosen: Label) -> None:
    page.locator(f"#lift-{dimension.value} input[value={chosen.value}]").check()


def reason(page, dimension: Dimension, text: str) -> None:
    page.locator(f"#lift-reason-{dimension.value} textarea, #lift-reason-{dimension.value} input").fill(text)


def wait_for_next(page, clip: str) -> None:
    page.wait_for_function(f"before => document.querySelector('{CLIP}')?.value !== before", arg=clip)
    wait_until_open(page)


def test_a_visit(spaces, open_page):
    space = spaces["annotate"]
    page = open_page(space.url)
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.1")
    clip = clip_on(page)
    before = len(space.rows())
    label(page, SEMANTIC, Label.GOOD)
    label(page, MOTION, Label.NORMAL)
    label(page, FIDELITY, Label.BAD)
    reason(page, FIDELITY, "Heavy <b>static</b> noise.")
    # An empty box says what becomes of it: the ready phrase for the best label, a reason that is required below it.
    boxes = "() => [...document.querySelectorAll('.lift-reason textarea')].map(box => [box.placeholder, box.required])"
    page.wait_for_function(f"() => ({boxes})()[1][1]")
    assert page.evaluate(boxes)[:2] == [[READY_REASON, False], ["Say why (required)", True]]
    page.click("#lift-submit")
    page.wait_for_selector(f"text=Say why {MOTION.words} is {Label.NORMAL}")
    assert len(space.rows()) == before and clip_on(page) == clip
    reason(page, MOTION, "It jumps once.")
    page.click("#lift-submit")
    wait_for_next(page, clip)
    rows = {row["dimension"]: row for row in space.rows()[before:]}
    assert {d: (row["label"], row["reason"], row["ready_reason"]) for d, row in rows.items()} == {
        SEMANTIC.value: (Label.GOOD, READY_REASON, True),
        MOTION.value: (Label.NORMAL, "It jumps once.", False),
        FIDELITY.value: (Label.BAD, "Heavy <b>static</b> noise.", False),
    }
    assert {row["video_id"] for row in rows.values()} == {clip}
    second = clip_on(page)
    page.reload()
    page.wait_for_selector("video")
    assert clip_on(page) == second


def test_keys_alone_are_enough(spaces, open_page):
    space = spaces["annotate"]
    page = open_page(space.url)
    page.wait_for_selector("#lift-submit")
    clip, before = clip_on(page), len(space.rows())
    page.keyboard.press("1")
    page.keyboard.press("3")  # below the best: the cursor is in the reason
    page.keyboard.type("two heads, 3 legs")
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    wait_for_next(page, clip)
    rows = space.rows()[before:]
    assert [row["label"] for row in rows] == [Label.GOOD, Label.BAD, Label.GOOD]
    assert rows[1]["reason"] == "two heads, 3 legs"


def test_clips_get_their_raters_and_the_owner_sees_who_is_careful(spaces, clips, open_page):
    space = spaces["annotate"]
    page = open_page(space.url)
    page.wait_for_selector("#lift-submit")
    caption_of = {
        row["id"]: row["prompt"] for folder in ("flawed", "gold") for row in read_rows(clips[folder] / METADATA_FILE)
    }
    captions = set()
    for _ in range(7):  # all that are left for this rater, one gold clip among them
        if not page.locator("#lift-submit").is_visible():
            break
        clip = clip_on(page)
        # The browser may draw the clip's name before its caption.
        shown = "caption => document.querySelector('.lift-prompt span').innerText.trim() === caption"
        page.wait_for_function(shown, arg=caption_of[clip])
        captions.add(caption_of[clip])
        for dimension in Dimension:
            label(page, dimension, Label.GOOD)
        page.click("#lift-submit")
        wait_for_next(page, clip)
    page.wait_for_selector("text=Nothing is left for you to rate now")
    rows = space.rows()
    # Shown as text, and nothing ran: the fixture checks consoles and dialogs.
    assert NASTY in captions
    assert captions <= {row["caption"] for row in rows}
    raters_of = {}
    for row in rows:
        if not row["is_gold"]:
            raters_of.setdefault(row["video_id"], set()).add(row["annotator"])
    assert len(raters_of) == 6 and all(1 <= len(raters) <= 3 for raters in raters_of.values())
    gold = [row for row in rows if row["is_gold"]]
    assert {row["video_id"] for row in gold} == {"gold-0"}

    assert not page.get_by_role("tab", name="Owner").is_visible()
    page.goto(space.owner_url)
    page.get_by_role("tab", name="Owner").click()
    page.wait_for_selector("text=gold labels met")
    text = page.inner_text(".lift-table >> nth=-1")
    assert text.count("anon:") == len({row["annotator"] for row in rows})


def test_the_owner_decides_the_review_queue(spaces, queue, open_page):
    space = spaces["annotate"]
    page = open_page(space.owner_url)
    page.get_by_role("tab", name="Review").click()
    page.wait_for_selector("#lift-decision")
    # The critic's answer is filled in, what the rater said stands beside it, as text.
    assert page.locator(f"#lift-decision input[value={Label.BAD.value}]").is_checked()
    assert page.locator("#lift-decision-reason textarea").input_value() == "The ball jumps."
    page.locator("#lift-decision-reason textarea").fill("")
    assert "fine <script>alert(4)</script>" in page.inner_text(".lift-table >> visible=true")
    page.click("#lift-decide")
    page.wait_for_selector(f"text=Say why {MOTION.words} is {Label.BAD}")
    page.locator("#lift-decision-reason textarea").fill("The ball jumps back.")
    page.click("#lift-decide")
    page.wait_for_selector("text=1 of 2 rows decided")
    page.click("#lift-drop")
    page.wait_for_selector("text=Nothing waits for a decision")
    first, second = read_rows(queue)
    assert (first["decision"], first["decision_reason"]) == (Label.BAD, "The ball jumps back.")
    assert first["reviewer"].startswith("anon:") and first["decided_at"]
    assert second["decision"] == "drop"


def test_ratings_and_decisions_reach_the_hub(spaces, local_hub):
    from datasets import load_dataset

    space = spaces["annotate"]
    kept = space.rows()
    space.end()  # a page that is stopped sends what it has
    rows = load_dataset(
        "dev/annotate-ratings", split="train", token=local_hub.token
    )  # as the card says, whatever the review decided
    assert sorted(rows["id"]) == sorted(row["id"] for row in kept)
    names = local_hub.api().list_repo_files("dev/annotate-ratings", repo_type="dataset")
    (name,) = (name for name in names if name.startswith("decisions/"))
    text = local_hub.read("dev/annotate-ratings", name, repo_type="dataset").decode()
    assert [json.loads(line)["row_id"] for line in text.splitlines()] == ["row-0", "row-1"]
