"""The arena in a real browser: choose, play, step, vote, reload, results."""

import json
import re

import pytest

from lift_trl.rubric import Dimension
from tests.spaces.conftest import FPS, NASTY, wait_until_open
from tests.spaces.server import Space


pytestmark = pytest.mark.browser
QUESTIONS = [f"#lift-{dimension.value}" for dimension in Dimension] + ["#lift-overall"]


def choose(page, choice: str) -> None:
    for question in QUESTIONS:
        page.locator(f"{question} input[value={choice}]").check()


def pair_on(page) -> str:
    return str(page.locator("#lift-pair textarea, #lift-pair input").input_value())


def submit(page) -> None:
    # The browser may draw the pair's id, its prompt and its clips one after the other.
    clips = "[...document.querySelectorAll('video')].map(video => video.src).join()"
    before = [pair_on(page), page.evaluate(clips)]
    page.click("#lift-submit")
    page.wait_for_function(
        "([pair, clips]) => document.querySelector('#lift-pair textarea, #lift-pair input')?.value !== pair"
        f" && {clips} !== clips",
        arg=before,
    )
    wait_until_open(page)


def test_a_visit(spaces: dict[str, Space], open_page):
    page = open_page(spaces["arena"].url)
    ready = "() => [...document.querySelectorAll('video')].every(v => v.readyState >= 2 && v.videoWidth === 192)"
    page.wait_for_function(ready)
    # It plays by itself, both in step; a step shows the very next frame of both, and stops.
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.2")
    times = page.evaluate("() => [...document.querySelectorAll('video')].map(v => v.currentTime)")
    assert abs(times[0] - times[1]) < 1 / FPS
    page.click("[data-action=play]")
    page.locator(".lift-seek").fill("3")
    page.wait_for_function("() => document.querySelector('.lift-frame').textContent === '4 / 9'")
    page.click("[data-action=forward]")
    page.wait_for_function("() => document.querySelector('.lift-frame').textContent === '5 / 9'")
    stopped = page.evaluate("() => [...document.querySelectorAll('video')].map(v => [v.paused, v.currentTime])")
    assert stopped == [[True, pytest.approx(4.5 / FPS)]] * 2

    # At half the speed both go on, still in step, and begin again at the end.
    page.locator(".lift-speed").select_option("0.5")
    assert page.evaluate("() => [...document.querySelectorAll('video')].map(v => [v.paused, v.playbackRate])") == (
        [[False, 0.5]] * 2
    )
    page.evaluate("() => { window.before = document.querySelector('video').currentTime }")
    again = (
        "() => { const t = document.querySelector('video').currentTime, back = t < before; before = t; return back }"
    )
    page.wait_for_function(again)
    page.wait_for_function(
        "() => [...document.querySelectorAll('video')].every(v => v.currentTime > 0.2 && !v.paused)"
    )
    times = page.evaluate("() => [...document.querySelectorAll('video')].map(v => v.currentTime)")
    assert abs(times[0] - times[1]) < 1 / FPS

    # A vote needs every question; it is on the disk when the next pair appears.
    page.click("#lift-submit")
    page.wait_for_selector("text=Choose for each question")
    first, others = pair_on(page), {row["id"] for row in spaces["arena"].rows()}
    choose(page, "a")
    submit(page)
    rows = [row for row in spaces["arena"].rows() if row["id"] not in others]
    assert {row["pair"] for row in rows} == {first}
    assert [row["dimension"] for row in rows] == [*Dimension, None]
    assert {row["choice"] for row in rows} == {"a"} and {row["video_a"].split("/")[0] for row in rows} < {
        "flawed",
        "clean",
    }
    assert len({row["voter"] for row in rows}) == 1 and rows[0]["voter"].startswith("anon:")

    # A reload shows the same pair, on the same sides, and the same person.
    sources = "() => [...document.querySelectorAll('video')].map(v => v.src)"
    second, shown = pair_on(page), page.evaluate(sources)
    page.reload()
    page.wait_for_selector("video")
    wait_until_open(page)
    assert (pair_on(page), page.evaluate(sources)) == (second, shown)
    choose(page, "tie")
    submit(page)
    votes = [row for row in spaces["arena"].rows() if row["voter"] == rows[0]["voter"]]
    assert len(votes) == 8

    page.get_by_role("tab", name="Results").click()
    page.wait_for_selector(".lift-result")
    results = page.locator(".lift-result").all_inner_texts()
    assert len(results) == 4 and results[-1].startswith("Overall")
    # Led by the second system, with the pairs that its voters give to it.
    head = page.inner_text(".lift-results tr")
    assert head.index("clean better") < head.index("flawed better") and "most voters give to clean" in head
    assert all(re.search(r"\d+ %.*\d of \d", text, re.DOTALL) for text in results)


def test_everybody_gets_every_pair_once_without_names_and_a_prompt_is_only_text(spaces: dict[str, Space], open_page):
    page = open_page(spaces["arena"].url)
    page.wait_for_selector("#lift-overall")
    told = page.content() + json.dumps(page.evaluate("() => [...document.querySelectorAll('video')].map(v => v.src)"))
    for secret in ("flawed", "clean", ".jsonl", "00000.mp4", str(spaces["arena"].data_dir)):
        assert secret not in told
    pairs, prompts = [], []
    for _ in range(6):
        pairs.append(pair_on(page))
        prompts.append(page.inner_text(".lift-prompt span").strip())
        choose(page, "b")
        submit(page)
    page.wait_for_selector("text=You have compared every pair")
    assert len(set(pairs)) == 6
    assert NASTY in prompts
    assert not page.locator("#lift-submit").is_visible()
