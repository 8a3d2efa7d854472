"""The second and the third item, as people answer them: by keys, on a phone, over a slow network, in two tabs."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lift_trl.rubric import Dimension, Label
from tests.spaces.conftest import Visitors, wait_until_open
from tests.spaces.server import Space
from tests.spaces.test_arena import QUESTIONS, choose, pair_on, submit


pytestmark = pytest.mark.browser
SEMANTIC, MOTION, FIDELITY = Dimension
PAIR = "#lift-pair textarea, #lift-pair input"
#: What a page is to do later it does ten times as soon: nobody here learns from the waiting.
HURRY = """() => {
  const { setTimeout: later, setInterval: again } = window;
  window.setTimeout = (act, ms, ...rest) => later(act, ms / 10, ...rest);
  window.setInterval = (act, ms, ...rest) => again(act, ms / 10, ...rest);
}"""


@pytest.fixture(scope="module")
def annotate(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """A page of its own: its tests rate as often as they like, and stop it."""
    folder = tmp_path_factory.mktemp("annotate")
    space = Space("annotate", folder, CLIPS=str(clips["flawed"]), RATERS="9", VOTES_PER_MINUTE="1000").start()
    yield space
    space.end()


@pytest.fixture
def visitor(visitors: Visitors) -> Iterator[Any]:
    """Somebody's page, for tests in which a failing request is no fault of the page's."""
    page = visitors.come()
    page.set_viewport_size({"width": 1280, "height": 900})
    yield page
    visitors.leave(page)


def wait_for_another(page: Any, pair: str) -> None:
    page.wait_for_function(f"before => document.querySelector('{PAIR}')?.value !== before", arg=pair)
    wait_until_open(page)


def test_keys_answer_three_pairs(spaces, open_page):
    page = open_page(spaces["arena"].url)
    for keys, choices in (("1231", "a tie b a"), ("3212", "b tie a tie"), ("2133", "tie a b b")):
        pair, before = pair_on(page), len(spaces["arena"].rows())
        for number, key in enumerate(keys):
            page.keyboard.press(key)  # each pair is asked the same questions in the same order
            page.wait_for_function(
                f"key => document.querySelector('{QUESTIONS[number]} input[value=' + key + ']').checked",
                arg=choices.split()[number],
            )
            page.wait_for_timeout(60)
        page.keyboard.press("Enter")
        wait_for_another(page, pair)
        rows = spaces["arena"].rows()[before:]
        assert [row["choice"] for row in rows] == choices.split() and {row["pair"] for row in rows} == {pair}


def test_on_a_phone_each_new_pair_is_in_sight_and_what_was_sent_is_said(spaces, open_page):
    page = open_page(spaces["arena"].url, width=390, height=700, has_touch=True)
    for number in (1, 2):
        choose(page, "b")
        page.locator("#lift-submit").scroll_into_view_if_needed()
        assert page.evaluate("() => scrollY") > 150
        pair = pair_on(page)
        page.tap("#lift-submit")
        wait_for_another(page, pair)
        page.wait_for_function(
            f"() => document.querySelector('#lift-live').textContent.startsWith('Saved. {number} of 6')"
        )
        top = page.locator(".lift-prompt").bounding_box()["y"]
        video = page.locator("video").nth(1).bounding_box()
        assert 0 <= top and video["y"] + video["height"] <= 700
        assert page.locator("#lift-live").get_attribute("role") == "status"


def test_the_form_waits_for_the_clips_and_the_next_ones_are_fetched_ahead(spaces, visitor):
    held: list[Any] = []
    is_slow = [True]
    page, asked = visitor, []

    def slow(route: Any) -> None:
        asked.append(route.request.url.rsplit("/", 1)[1])
        held.append(route) if is_slow else route.continue_()

    page.route("**/clips/*", slow)
    page.goto(spaces["arena"].url)
    page.wait_for_selector("text=Loading the clips: 0 of 2 are here")
    before = len(spaces["arena"].rows())
    page.wait_for_selector(".lift-locked #lift-submit")
    for key in ("1", "1", "1", "1", "Enter"):  # neither keys nor a script's click get through
        page.keyboard.press(key)
    page.evaluate("() => document.querySelector('#lift-submit').click()")
    page.wait_for_timeout(300)
    assert page.locator("input[type=radio]:checked").count() == 0 and page.locator(".toast-body").count() == 0
    is_slow.clear()
    for route in held:
        route.continue_()
    told = "document.querySelector('.lift-wait').innerText.startsWith('The form opens once both clips have played')"
    page.wait_for_function(f"() => {told} && document.querySelectorAll('.lift-locked').length === 1")
    wait_until_open(page)
    # Both clips of the next pair are here before this one is answered.
    page.wait_for_function("() => document.querySelector('.lift-next').dataset.done")
    page.wait_for_timeout(300)
    ahead = set(asked)
    choose(page, "tie")
    submit(page)
    shown = page.evaluate(
        "() => [...document.querySelectorAll('.lift-player video')].map(v => v.src.split('/').pop())"
    )
    assert len(set(shown)) == 2 and set(shown) <= ahead
    assert len(spaces["arena"].rows()) == before + 4


def test_a_clip_that_does_not_come_can_be_loaded_again_or_skipped(spaces, visitor):
    page, asked = visitor, Counter[str]()

    def fail(route: Any) -> None:
        asked[route.request.url] += 1
        route.abort()

    page.route("**/clips/*", fail)
    page.goto(spaces["arena"].url, wait_until="commit")
    page.evaluate(HURRY)
    page.wait_for_selector("text=A clip could not be loaded")
    assert min(asked.values()) >= 3  # each was asked for again
    first, before = pair_on(page), len(spaces["arena"].rows())
    page.click("#lift-skip")
    page.wait_for_function(f"before => document.querySelector('{PAIR}')?.value !== before", arg=first)
    page.wait_for_selector("text=A clip could not be loaded")
    page.unroute_all()
    page.click("text=Load it again")
    wait_until_open(page)
    assert page.locator(".lift-failed").count() == 0
    choose(page, "a")
    submit(page)
    assert len(spaces["arena"].rows()) == before + 4 and pair_on(page) != first


def test_a_second_tab_is_told_that_its_vote_was_not_saved(spaces, visitor):
    url = spaces["arena"].url
    one, two = visitor, visitor.context.new_page()
    one.goto(url)
    wait_until_open(one)
    two.goto(url)
    wait_until_open(two)
    pair, before = pair_on(one), len(spaces["arena"].rows())
    assert pair_on(two) == pair
    choose(two, "b")
    choose(one, "a")
    submit(one)
    two.click("#lift-submit")
    two.wait_for_selector("text=That vote stands; this one was not saved")
    wait_for_another(two, pair)
    assert pair_on(two) == pair_on(one)
    # Whoever clicks twice sends one vote, and is told nothing.
    choose(two, "tie")
    two.dblclick("#lift-submit")
    wait_for_another(two, pair_on(one))
    assert "Not sent yet" not in two.content()
    assert [row["choice"] for row in spaces["arena"].rows()[before:]] == ["a"] * 4 + ["tie"] * 4
    two.close()


def form_of(page: Any) -> tuple[list[str], list[str]]:
    """What is chosen and typed."""
    labels = page.locator(".lift-answers input[type=radio]:checked").evaluate_all("all => all.map(e => e.value)")
    return labels, page.locator(".lift-answers textarea").evaluate_all("all => all.map(e => e.value)")


def test_what_was_typed_for_the_second_clip_survives(annotate, visitor):
    clip = "#lift-clip textarea, #lift-clip input"
    page = visitor
    page.goto(annotate.url)
    wait_until_open(page)
    first = page.locator(clip).input_value()
    for key in ("1", "1", "1", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(60)
    page.wait_for_function(f"before => document.querySelector('{clip}')?.value !== before", arg=first)
    wait_until_open(page)
    second = page.locator(clip).input_value()
    assert form_of(page) == ([], ["", "", ""])
    page.keyboard.press("3")
    page.keyboard.type("A square, 2 of them")
    page.keyboard.press("Enter")
    page.keyboard.press("2")
    page.keyboard.type("It halts")
    typed = ([Label.BAD, Label.NORMAL], ["A square, 2 of them", "It halts", ""])
    assert form_of(page) == typed

    def is_kept() -> None:
        page.wait_for_selector("#lift-motion_smoothness input:checked")
        wait_until_open(page)
        page.wait_for_function("() => document.querySelectorAll('.lift-answers input:checked').length === 2")
        assert form_of(page) == typed and page.locator(clip).input_value() == second

    page.reload()
    is_kept()
    page.goto("about:blank")
    page.go_back()
    is_kept()
    page.evaluate(HURRY)
    annotate.end(signal.SIGKILL)  # in the middle of the form
    page.click("#lift-submit")
    page.wait_for_selector("text=Connection to the server was lost")
    annotate.start()
    page.wait_for_function("() => !document.querySelector('.toast-body')", timeout=60_000)
    is_kept()
    page.locator(f"#lift-{FIDELITY} input[value={Label.GOOD}]").check()
    page.click("#lift-submit")
    page.wait_for_function(f"before => document.querySelector('{clip}')?.value !== before", arg=second)
    rows = {row["dimension"]: (row["label"], row["reason"]) for row in annotate.rows() if row["video_id"] == second}
    assert rows[SEMANTIC] == (Label.BAD, "A square, 2 of them") and rows[MOTION] == (Label.NORMAL, "It halts")
    wait_until_open(page)
    assert form_of(page) == ([], ["", "", ""])  # the third clip starts empty


def test_who_wants_no_motion_starts_the_clips(spaces, open_page):
    page = open_page(spaces["arena"].url, is_open=False, reduced_motion="reduce")
    page.wait_for_selector("text=Press play: the form opens once both clips have played")
    page.wait_for_timeout(1500)
    assert page.evaluate("() => [...document.querySelectorAll('video')].every(v => v.paused && v.currentTime === 0)")
    assert page.locator(".lift-locked").count() == 1
    page.keyboard.press(" ")
    wait_until_open(page)
