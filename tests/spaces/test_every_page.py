"""What holds for each page, with names, themes and the player: seen in Chromium, as assistive technology and eyes see it."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lift_trl.rubric import Dimension
from tests.spaces.conftest import wait_until_open
from tests.spaces.server import Space
from tests.spaces.test_second_item import PAIR


pytestmark = pytest.mark.browser
PAGES = ("arena", "annotate", "gallery", "review")
#: What people act on, by its role in Chromium's tree of what it tells assistive technology.
ACTED_ON = {"button", "link", "textbox", "searchbox", "combobox", "listbox", "radio", "radiogroup", "checkbox", "slider",
            "spinbutton", "switch", "tab", "menuitem", "Video"}  # fmt: skip


@pytest.fixture(scope="module", params=[("light", 1280), ("dark", 390)], ids=["light-1280", "dark-390"])
def look(request) -> tuple[str, int]:
    """Theme and width."""
    return request.param


@pytest.fixture(scope="module", params=PAGES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def page(name, look, spaces, visitors) -> Iterator[Any]:
    """Each page as a visitor sees it, the tab Review as the owner, loaded once."""
    theme, width = look
    with visitors.visits() as open_page:
        if name != "review":
            yield open_page(f"{spaces[name].url}/?__theme={theme}", width=width)
            return
        opened = open_page(f"{spaces['annotate'].owner_url}&__theme={theme}", width=width)
        opened.get_by_role("tab", name="Review").click()
        opened.wait_for_selector("#lift-decide:visible, :not(#lift-mode) > .lift-notice:visible")
        yield opened


def test_everything_that_can_be_acted_on_has_a_name(page, name):
    # Other tests may have ended the review: then there are its tabs, and words.
    least = 3 if name == "review" and not page.locator("#lift-decide").is_visible() else 9
    session, found = page.context.new_cdp_session(page), []
    until = time.monotonic() + 30  # a page is drawn in parts
    while len(found) < least and time.monotonic() < until:
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        found = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in ACTED_ON
        ]
    assert len(found) >= least and [role for role, called in found if not called.strip()] == []
    if name == "arena":
        for words in (*(dimension.words.capitalize() for dimension in Dimension), "Overall"):
            assert page.get_by_role("radiogroup", name=words).get_by_role("radio").count() == 3
        assert page.locator("video").evaluate_all("all => all.map(e => e.ariaLabel)") == ["Clip A", "Clip B"]
    if name == "annotate":
        for dimension in Dimension:
            assert page.get_by_role("textbox", name=f"Why this label for {dimension.words}?").is_visible()
            assert page.get_by_role("radiogroup", name=dimension.words.capitalize()).is_visible()


#: Attributes and texts of the player that are written in half a second though they were the same before.
NEEDLESS = """async () => {
  const found = [];
  const observer = new MutationObserver((records) => records.forEach((record) => {
    const text = (nodes) => [...nodes].map((node) => node.textContent).join();
    const attribute = record.attributeName;
    if (attribute ? record.oldValue === record.target.getAttribute(attribute)
                  : text(record.addedNodes) === text(record.removedNodes)) found.push(record.target.className);
  }));
  const options = { subtree: true, childList: true, attributes: true, attributeOldValue: true };
  document.querySelectorAll(".lift-player").forEach((player) => observer.observe(player, options));
  await new Promise((done) => setTimeout(done, 500));
  observer.disconnect();
  return found;
}"""


def test_the_player_writes_only_what_has_changed(page):
    """It looks at its clips at each frame of the screen; what is written is drawn again, on a phone's battery."""
    assert page.evaluate(NEEDLESS) == []


def test_nothing_sticks_out(page, name, look):
    sticks_out(page, look)
    if name == "annotate":  # the caption beside the clip, and on a phone above it
        caption, video = page.locator(".lift-prompt").bounding_box(), page.locator("video").bounding_box()
        assert caption["y"] < video["y"] if look[1] == 390 else video["x"] + video["width"] <= caption["x"]


def sticks_out(page, look) -> None:
    _, width = look
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = "(all) => all.filter((e) => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.locator("button, video, input, select, a").evaluate_all(wide) == 0


#: What a finger is to hit, with its height; a clip's own link for saving it must leave the clip to be seen.
TARGETS = """() => [...document.querySelectorAll("button, select, a:not(.lift-save), label:has(input[type=radio])")]
  .filter((target) => target.checkVisibility({ visibilityProperty: true }) && !target.closest("[aria-hidden=true]"))
  .map((target) => [target.innerText || target.title || target.id, Math.round(target.getBoundingClientRect().height)])"""


def test_a_finger_hits_what_it_aims_at(page, look):
    _, width = look
    found = page.evaluate(TARGETS) if width < 640 else []
    # Of a review that other tests have ended there are its three tabs.
    assert (len(found) >= 3) == (width < 640) and [target for target in found if target[1] < 44] == []


#: The edge of a label once it is chosen, and the ground inside it.
EDGES = """() => [...document.querySelectorAll(".lift-tall .wrap label")].map((label) => {
  const probe = document.createElement("i");
  label.append(probe);
  probe.style = "color: var(--lift-rank); background-color: var(--lift-tint)";
  const { color, backgroundColor } = getComputedStyle(probe);
  probe.remove();
  return [color, [backgroundColor]];
})"""


def test_the_label_that_was_chosen_stands_out(page):
    edges = page.evaluate(EDGES)
    assert len(edges) in (0, 9) and [edge for edge in edges if contrast(*edge) < 3] == []


#: Each visible text with its colour and the colours behind it, from its own ground up to the first that is opaque.
TEXTS = """() => {
  const groundsOf = (element) => {
    const grounds = [];
    for (let e = element; e; e = e.parentElement) grounds.push(getComputedStyle(e).backgroundColor);
    return grounds;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const words = walker.currentNode.textContent.trim();
    if (!words || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("style, script, option, [disabled], .lift-locked, [role=option]")) continue;
    const box = element.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    found.push([words.slice(0, 40), getComputedStyle(element).color, groundsOf(element)]);
  }
  for (const field of document.querySelectorAll("textarea, input")) {
    if (!field.placeholder || !field.checkVisibility()) continue;
    found.push([field.placeholder, getComputedStyle(field, "::placeholder").color, groundsOf(field)]);
  }
  return found;
}"""


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def parts(colour: str) -> tuple[list[float], float]:
    """Red, green, blue in 0 to 255 and how opaque it is."""
    numbers = [
        float(number) for number in colour[colour.index("(") + 1 : -1].replace("/", " ").replace(",", " ").split()
    ]
    return numbers[:3], numbers[3] if len(numbers) > 3 else 1.0


def contrast(colour: str, grounds: list[str]) -> float:
    """WCAG's contrast of a text with what is behind it; nothing opaque is a white page."""
    behind = [255.0] * 3
    for ground in reversed(grounds):
        over, opaque = parts(ground)
        behind = [opaque * a + (1 - opaque) * b for a, b in zip(over, behind)]
    text, opaque = parts(colour)
    shown = [opaque * a + (1 - opaque) * b for a, b in zip(text, behind)]
    light, dark = sorted(
        (luminance("rgb({:.0f}, {:.0f}, {:.0f})".format(*one)) for one in (shown, behind)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


def test_every_text_can_be_read(page, look):
    """4.5 to 1 in both themes: tabs, the critic's verdicts and the owner's tables among them."""
    if page.locator("#lift-tell").is_visible():
        page.click("#lift-tell")
        page.wait_for_selector(".lift-verdict")
        assert not page.locator("#lift-submit").is_visible()  # who has seen the names has no blind vote
        sticks_out(page, look)
    texts = page.evaluate(TEXTS)
    tabs = {tab.inner_text() for tab in page.get_by_role("tab").all() if tab.is_visible()}
    assert tabs <= {words for words, _, _ in texts}
    faint = {
        (words, round(ratio, 2))
        for words, colour, grounds in texts
        if colour.startswith("rgb") and (ratio := contrast(colour, grounds)) < 4.5
    }
    assert faint == set()


# ---- the player ----------------------------------------------------------------------------------------------------------


def test_a_clip_can_be_saved_under_a_name_that_tells_nothing(spaces, clips: dict[str, Path], open_page):
    page = open_page(spaces["arena"].url)
    for number, side in enumerate("ab"):
        figure = page.locator("figure").nth(number)
        figure.hover()
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Download clip {side}").click()
        assert download.value.suggested_filename == f"clip-{side}.mp4"
        saved = Path(download.value.path()).read_bytes()
        assert saved in [path.read_bytes() for name in ("flawed", "clean") for path in clips[name].glob("*.mp4")]


def test_both_clips_fill_the_screen_and_come_back(spaces, open_page):
    page = open_page(spaces["arena"].url, width=1280, height=800)
    before = page.locator("video").first.bounding_box()["height"]
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement?.matches('.lift-player')")
    page.wait_for_function(f"document.querySelector('video').getBoundingClientRect().height > {1.3 * before}")
    boxes = [video.bounding_box() for video in page.locator("video").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 1280 and box["y"] + box["height"] <= 800 for box in boxes)
    assert boxes[0]["y"] == boxes[1]["y"]
    page.get_by_role("button", name="Previous frame").click()  # its controls are there too
    page.get_by_role("button", name="Leave full screen").click()
    page.wait_for_function("!document.fullscreenElement")
    assert page.locator("video").first.bounding_box()["height"] == pytest.approx(before, abs=2)


@pytest.fixture
def annotate(clips: dict[str, Path], tmp_path: Path) -> Iterator[Space]:
    space = Space("annotate", tmp_path / "annotate", CLIPS=str(clips["flawed"])).start()
    yield space
    space.end()


def test_a_clip_that_plays_and_is_broken_all_the_same_is_skipped_and_told_to_the_owner(annotate: Space, open_page):
    page = open_page(annotate.url)
    first = page.locator("#lift-clip textarea, #lift-clip input").input_value()
    page.get_by_role("button", name="The clip is broken? Skip it").click()
    page.wait_for_function(
        f"before => document.querySelector('{PAIR.replace('pair', 'clip')}').value !== before", arg=first
    )
    wait_until_open(page)
    assert annotate.rows() == []
    owner = open_page(annotate.owner_url)
    owner.get_by_role("tab", name="Owner").click()
    owner.wait_for_selector("text=1 rater found it broken")
