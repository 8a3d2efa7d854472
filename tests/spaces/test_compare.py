"""The comparison demo in a real browser: on demand with tiny models, and as a gallery."""

import json

import pytest

from lift_trl.rubric import Dimension, Label
from tests.spaces.conftest import NASTY, wait_until_open


pytestmark = pytest.mark.browser
SOURCES = "() => [...document.querySelectorAll('video')].map(v => v.src)"


def vote(page, choice: str) -> None:
    wait_until_open(page)
    page.locator(f"#lift-vote input[value={choice}]").check()
    page.click("#lift-submit")


def test_clips_are_made_on_demand_without_a_network(spaces, open_page):
    space = spaces["compare"]
    page = open_page(space.url)
    assert "runs on this machine's CPU" in page.inner_text("#lift-mode")
    page.wait_for_selector("text=The first clips tell how long it takes")
    page.locator("#lift-prompt textarea").fill(NASTY)
    page.locator("#lift-seed input").fill("7")
    page.click("#lift-make")
    page.wait_for_selector("#lift-stage [data-testid=status-tracker]:visible")  # how long it takes so far
    page.wait_for_function("() => document.querySelectorAll('video').length === 2", timeout=60_000)
    page.wait_for_function("() => [...document.querySelectorAll('video')].every(e => e.readyState >= 2)")
    assert page.inner_text(".lift-prompt").endswith(NASTY)
    # The random LoRA changes the clip, so the two are different files. Whose they are is told after the vote.
    sources = page.evaluate(SOURCES)
    assert len(set(sources)) == 2
    assert page.locator("figcaption").all_inner_texts() == ["A", "B"]
    assert page.locator(".lift-verdict").count() == 0
    vote(page, "b")
    page.wait_for_selector("text=Your vote is saved")
    assert not page.locator("#lift-submit").is_visible()
    verdicts = page.locator(".lift-verdict")
    assert verdicts.count() == 2
    assert all(verdicts.nth(0).inner_text().count(f"{label} ") >= 3 for label in Label)
    heads = [text.split("\n")[0] for text in verdicts.all_inner_texts()]
    assert sorted(head.split(": ")[1] for head in heads) == ["base", "random"]
    (row,) = space.rows()
    on_the_right = heads[1].removeprefix("B: ")
    assert (row["prompt"], row["video_a"], row["video_b"]) == (NASTY, "base/7", "random/7")
    assert row["choice"] == {"base": "a", "random": "b"}[on_the_right]
    # The same prompt and seed again: the same clips, from the disk, with the names that are known by now.
    page.click("#lift-make")
    page.wait_for_function("() => document.querySelector('#lift-said').innerText.trim() === ''")
    assert page.evaluate(SOURCES) == sources and page.locator(".lift-verdict").count() == 2
    assert not page.locator("#lift-submit").is_visible()
    page.wait_for_selector("text=These clips are ready.")
    page.click("#lift-dice")
    page.wait_for_function("() => document.querySelector('#lift-seed input').value !== '7'")
    page.wait_for_selector(r"text=/Takes about \d+ s/")
    page.locator("#lift-prompt textarea").fill("")
    page.click("#lift-make")
    page.wait_for_selector("text=The prompt has 0 characters")


def test_without_models_it_is_a_gallery_and_says_so(spaces, open_page, local_hub):
    space = spaces["gallery"]
    page = open_page(space.url)
    assert page.inner_text("#lift-mode") == "A gallery: these clips were made beforehand."
    wait_until_open(page)
    first = page.evaluate(SOURCES)
    assert len(set(first)) == 2
    # A long prompt stands there whole, letter by letter; a short one in its field only.
    assert page.inner_text(".lift-prompt").endswith(NASTY)
    page.locator("#lift-prompt input").click()
    page.get_by_role("option").nth(2).click()
    page.wait_for_function("before => document.querySelector('video').src !== before", arg=first[0])
    assert page.locator(".lift-prompt").count() == 0
    vote(page, "tie")
    page.wait_for_selector("text=Your vote is saved")
    text = page.locator(".lift-verdict").nth(0).inner_text()
    assert "80 %" in text and all(dimension.words.capitalize() in text for dimension in Dimension)
    assert space.rows()[-1]["choice"] == "tie"


def test_several_adapters_are_to_choose_from_and_votes_reach_the_hub(spaces, open_page, local_hub):
    space = spaces["gallery"]
    page = open_page(space.url)
    wait_until_open(page)
    before = page.evaluate(SOURCES)
    vote(page, "tie")
    page.wait_for_selector("text=Your vote is saved")
    page.locator("#lift-adapter input").click()
    page.get_by_role("option", name="other").click()
    page.wait_for_function(f"before => String(({SOURCES})()) !== before", arg=",".join(before))
    # A second system is another pair: it is open, and its vote is no repeat.
    assert page.locator("figcaption").all_inner_texts() == ["A", "B"]
    vote(page, "b")
    page.wait_for_selector("text=Your vote is saved")
    heads = [text.split("\n")[0] for text in page.locator(".lift-verdict").all_inner_texts()]
    (row,) = (row for row in space.rows() if row["video_b"].startswith("other/"))
    choice = {"B: base": "a", "B: other": "b"}[heads[1]]
    assert (row["video_a"], row["choice"], row["dimension"]) == ("base/00000.mp4", choice, None)
    page.close()  # it would complain that the server is gone
    space.end()  # a page that is stopped sends what it has
    names = local_hub.api().list_repo_files("dev/compare-votes", repo_type="dataset")
    texts = [
        local_hub.read("dev/compare-votes", n, repo_type="dataset").decode() for n in names if n.endswith("jsonl")
    ]
    assert row in [json.loads(line) for text in texts for line in text.splitlines()]
    card = local_hub.read("dev/compare-votes", "README.md", repo_type="dataset").decode()
    assert "hidden until the vote" in card and "lift, other" in card


def test_a_link_shows_the_third_pair_to_somebody_else(spaces, open_page):
    space = spaces["gallery"]
    page = open_page(space.url)
    wait_until_open(page)
    page.locator("#lift-adapter input").click()
    page.get_by_role("option", name="other").click()
    page.wait_for_function("() => document.querySelector('.lift-link a')?.search.includes('model=other')")
    page.locator("#lift-prompt input").click()
    page.get_by_role("option").nth(2).click()
    page.wait_for_function("() => document.querySelector('.lift-link a')?.search.includes('seed=2')")
    link = page.locator(".lift-link a").evaluate("a => a.href")
    wanted = [page.locator(f"#lift-{name} input").input_value() for name in ("adapter", "prompt", "seed")]
    other = open_page(link)
    wait_until_open(other)
    assert [other.locator(f"#lift-{name} input").input_value() for name in ("adapter", "prompt", "seed")] == wanted
    assert wanted[0] == "other" and wanted[2] == "2"
    assert sorted(other.evaluate(SOURCES)) == sorted(page.evaluate(SOURCES))
    odd = open_page(f"{space.url}/?model=nobody&prompt=nothing&seed=%3Cb%3E")
    wait_until_open(odd)
    assert odd.locator("#lift-adapter input").input_value() == "lift"


def test_without_a_gpu_and_without_clips_the_page_says_why(spaces, open_page):
    page = open_page(spaces["nothing"].url)
    told = "No clips are made here: this machine has no GPU for the models (3.0 GB). No clips are shown yet."
    assert page.inner_text("#lift-mode") == told
    assert page.locator("video, button:visible").count() == 0
