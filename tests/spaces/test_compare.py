"""The comparison demo in a real browser: on demand with tiny models, and as a gallery."""

import json

import pytest

from lift_trl.rubric import Dimension, Label
from tests.spaces.conftest import NASTY


pytestmark = pytest.mark.browser
SOURCES = "() => [...document.querySelectorAll('video')].map(v => v.src)"


def vote(page, choice: str) -> None:
    page.locator(f"#lift-vote input[value={choice}]").check()
    page.click("#lift-submit")


def test_clips_are_made_on_demand_without_a_network(spaces, open_page):
    space = spaces["compare"]
    page = open_page(space.url)
    assert "runs on this machine's CPU" in page.inner_text("#lift-mode")
    page.locator("#lift-prompt textarea").fill(NASTY)
    page.locator("#lift-seed input").fill("7")
    page.click("#lift-make")
    page.wait_for_function("() => document.querySelectorAll('video').length === 2", timeout=60_000)
    page.wait_for_function("() => [...document.querySelectorAll('video')].every(e => e.readyState >= 2)")
    assert page.inner_text(".lift-prompt").endswith(NASTY)
    # The random LoRA changes the clip, so the two are different files; the verdicts stand under both.
    sources = page.evaluate(SOURCES)
    assert len(set(sources)) == 2
    verdicts = page.locator(".lift-verdict")
    assert verdicts.count() == 2
    assert all(verdicts.nth(0).inner_text().count(f"{label} ") >= 3 for label in Label)
    vote(page, "b")
    page.wait_for_selector("text=Your vote is saved")
    vote(page, "a")
    page.wait_for_selector("text=You have voted on this pair already")
    (row,) = space.rows()
    assert (row["prompt"], row["video_a"], row["video_b"], row["choice"]) == (NASTY, "base/7", "random/7", "b")
    # The same prompt and seed again: the same clips, from the disk.
    page.click("#lift-make")
    page.wait_for_function("() => document.querySelector('#lift-said').innerText.trim() === ''")
    assert page.evaluate(SOURCES) == sources
    page.click("#lift-dice")
    page.wait_for_function("() => document.querySelector('#lift-seed input').value !== '7'")
    page.locator("#lift-prompt textarea").fill("")
    page.click("#lift-make")
    page.wait_for_selector("text=The prompt has 0 characters")


def test_without_models_it_is_a_gallery_and_says_so(spaces, open_page, local_hub):
    space = spaces["gallery"]
    page = open_page(space.url)
    assert page.inner_text("#lift-mode") == "A gallery: these clips were made beforehand."
    page.wait_for_selector(".lift-verdict")
    first = page.evaluate(SOURCES)
    assert len(set(first)) == 2
    # A long prompt stands there whole, letter by letter; a short one in its field only.
    assert page.inner_text(".lift-prompt").endswith(NASTY)
    page.locator("#lift-prompt input").click()
    page.get_by_role("option").nth(2).click()
    page.wait_for_function("before => document.querySelector('video').src !== before", arg=first[0])
    assert page.locator(".lift-prompt").count() == 0
    text = page.locator(".lift-verdict").nth(0).inner_text()
    assert "80 %" in text and all(dimension.words.capitalize() in text for dimension in Dimension)
    vote(page, "tie")
    page.wait_for_selector("text=Your vote is saved")
    assert space.rows()[-1]["choice"] == "tie"


def test_several_adapters_are_to_choose_from_and_votes_reach_the_hub(spaces, open_page, local_hub):
    space = spaces["gallery"]
    page = open_page(space.url)
    page.wait_for_selector(".lift-verdict")
    before = page.evaluate(SOURCES)
    page.locator("#lift-adapter input").click()
    page.get_by_role("option", name="other").click()
    page.wait_for_function("before => document.querySelectorAll('video')[1].src !== before", arg=before[1])
    assert page.locator("figcaption").all_inner_texts() == ["base", "other"]
    assert page.locator("#lift-vote label").all_inner_texts() == ["base", "no difference", "other"]
    vote(page, "b")
    page.wait_for_selector("text=Your vote is saved")
    (row,) = (row for row in space.rows() if row["video_b"].startswith("other/"))
    assert (row["video_a"], row["choice"], row["dimension"]) == ("base/0", "b", None)
    page.close()  # it would complain that the server is gone
    space.end()  # a page that is stopped sends what it has
    names = local_hub.api().list_repo_files("dev/compare-votes", repo_type="dataset")
    texts = [
        local_hub.read("dev/compare-votes", n, repo_type="dataset").decode() for n in names if n.endswith("jsonl")
    ]
    assert row in [json.loads(line) for text in texts for line in text.splitlines()]
    card = local_hub.read("dev/compare-votes", "README.md", repo_type="dataset").decode()
    assert "the names\nshown" in card and "lift, other" in card and "random sides" not in card


def test_without_a_gpu_and_without_clips_the_page_says_why(spaces, open_page):
    page = open_page(spaces["nothing"].url)
    told = "No clips are made here: this machine has no GPU for the models (3.0 GB). No clips are shown yet."
    assert page.inner_text("#lift-mode") == told
    assert page.locator("video, button:visible").count() == 0


def test_nothing_sticks_out_on_a_phone(spaces, open_page):
    page = open_page(spaces["gallery"].url, width=390, height=844)
    page.wait_for_selector(".lift-verdict")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
