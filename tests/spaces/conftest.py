"""Clips to show, the three Spaces in processes of their own, and a browser."""

from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from lift_trl.mini.shapes import CLEAN, SCENES, DefectRates, draw_clip
from lift_trl.mini.world import rate_folder, write_clips
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from tests.hub.fixtures import LocalHub
from tests.spaces.server import Space


#: Frames a second of the clips. Half a second is played before a form opens.
FPS = 16.0
#: What an attacker would write as a prompt; the page must show it letter by letter.
NASTY = '<img src=x onerror=alert(1)> ${alert(2)} {{ 3 * 3 }} a <b>fox</b> & "friends"'


class Running(UserDict[str, Space]):
    """Spaces that start when they are asked for."""

    def __getitem__(self, name: str) -> Space:
        space = super().__getitem__(name)
        return space if space.job is not None else space.start()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`flawed` (rated, as a scored set) and `clean` clips of the same six prompts and seeds; `gold` with labels."""
    root = tmp_path_factory.mktemp("clips")
    for name, rates, seed in (("flawed", DefectRates(), 1), ("clean", CLEAN, 2), ("gold", DefectRates(), 3)):
        rng = np.random.default_rng(seed)
        scenes = SCENES[: 6 if name != "gold" else 1]
        write_clips(root / name, (draw_clip(rng, rates, scene) for scene in scenes), fps=FPS)
        rate_folder(root / name, root / name)
        rows = list(read_rows(root / name / METADATA_FILE))
        for number, row in enumerate(rows):
            row |= {"id": f"{name}-{number}", "seed": number}
            row["probs"] = {d: {label: 0.8 if row[d] == label else 0.1 for label in Label} for d in Dimension}
            if number == 0 and name != "gold":
                row["prompt"] = NASTY
        write_rows(root / name / METADATA_FILE, rows)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="session")
def queue(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A review queue of two rows."""
    path = tmp_path_factory.mktemp("correction") / "review_queue.jsonl"
    rows = [
        {
            "id": f"row-{number}",
            "why": "critic and rater disagree",
            "video": str(clips["flawed"] / f"0000{number}.mp4"),
            "caption": NASTY,
            "dimension": Dimension.MOTION_SMOOTHNESS.value,
            "annotator": "ada",
            "label": Label.GOOD.value,
            "reason": "fine <script>alert(4)</script>",
            "critic_label": Label.BAD.value,
            "critic_reason": "The ball jumps." if number == 0 else None,
            **dict.fromkeys(("decision", "decision_reason", "reviewer", "decided_at")),
        }
        for number in range(2)
    ]
    write_rows(path, rows)
    return path


def hub_gallery(clips: dict[str, Path], hub: LocalHub) -> str:
    """A gallery of the base, in a dataset of the Hub, and two adapters: one there too, one in a folder."""
    for name in ("flawed", "clean"):
        hub.api().create_repo(f"dev/gallery-{name}", repo_type="dataset")
        hub.api().upload_folder(folder_path=clips[name], repo_id=f"dev/gallery-{name}", repo_type="dataset")
    return f"base=dev/gallery-flawed,lift=dev/gallery-clean,other={clips['flawed']}"


def large_model(root: Path) -> Path:
    """A checkpoint whose weights take 3 GB, as holes in a file."""
    weights = root / "large" / "transformer" / "diffusion_pytorch_model.bin"
    weights.parent.mkdir(parents=True)
    with open(weights, "wb") as file:
        file.truncate(3 * 10**9)
    return root / "large"


@pytest.fixture(scope="session")
def spaces(
    clips: dict[str, Path], queue: Path, local_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Space]]:
    """Each starts when a test asks for it: `arena`, `annotate`, `compare` and, without models, `gallery` and `nothing`."""
    root = tmp_path_factory.mktemp("spaces")
    # All tests come from one address.
    busy = {"VOTES_PER_MINUTE": "1000"}
    pair = {"FIRST": f"flawed={clips['flawed']}", "SECOND": f"clean={clips['clean']}"}
    known = {
        "arena": Space("arena", root / "arena", VOTES_REPO="dev/arena-votes", **pair, **busy),
        "annotate": Space(
            "annotate",
            root / "annotate",
            CLIPS=str(clips["flawed"]),
            GOLD=str(clips["gold"]),
            QUEUE=str(queue),
            VOTES_REPO="dev/annotate-ratings",
            **busy,
            RATERS="3",  # of each clip: one more than the raters before the one who must be shown every clip
        ),
        "compare": Space("compare", root / "compare"),
        "gallery": Space(
            "compare", root / "gallery", GALLERY=hub_gallery(clips, local_hub), VOTES_REPO="dev/compare-votes"
        ),
        # A model that this machine, which has no GPU, cannot run, and no clips to show in its place.
        "nothing": Space("compare", root / "nothing", BASE=str(large_model(root)), ADAPTERS="lift=dev/none"),
    }
    yield Running(known)
    for space in known.values():
        space.end()


def wait_until_open(page: Any) -> None:
    """Until the clips have played once and the form takes answers."""
    page.wait_for_selector(".lift-player[data-seen]:visible, :not(#lift-mode) > .lift-notice:visible", timeout=30_000)
    page.wait_for_function("() => !document.querySelector('.lift-locked')")


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Any]:
    """Chromium, whose event loop would stop tests of other folders. A test opens pages with `open_page`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


class Visitors:
    """
    Visitors who come one after another, each with cookies and a storage of his own.

    A new page starts a process and compiles gradio's scripts anew, for two thirds of what it costs to open one. So a page is
    used again, and who comes next finds nothing of who was there.
    """

    def __init__(self, browser: Any) -> None:
        self.browser, self.idle, self.problems = browser, list[Any](), dict[Any, list[str]]()

    def come(self, **options: Any) -> Any:
        """A page for the next one, in a context of Chromium with `options`."""
        if self.idle and not options:
            return self.idle.pop()
        page = self.browser.new_context(**options).new_page()
        problems = self.problems[page] = []
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
        return page

    def leave(self, page: Any) -> None:
        page.unroute_all()
        address = urlsplit(page.url)
        page.goto("about:blank")  # what a page does as it is left is done before its storage is emptied
        session = page.context.new_cdp_session(page)
        origin = f"{address.scheme}://{address.netloc}"
        session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "cookies,local_storage"})
        session.detach()
        self.problems[page].clear()
        self.idle.append(page)

    @contextmanager
    def visits(self) -> Iterator[Callable[..., Any]]:
        """
        `open_page(url, width=1280)`: a page of a new visitor, its clips played once, so that its form is open. At the end no
        page may have written an error to its console, failed, or opened a dialog.
        """
        plain, others = list[Any](), list[Any]()

        def open_one(url: str, *, width: int = 1280, height: int = 900, is_open: bool = True, **options: Any) -> Any:
            page = self.come(**options)
            (others if options else plain).append(page)
            page.set_viewport_size({"width": width, "height": height})
            page.goto(url)
            page.wait_for_selector(".lift-player video, #lift-make, #lift-mode", timeout=30_000)
            if is_open and page.locator(".lift-player").count():
                wait_until_open(page)
            return page

        yield open_one
        found = [problem for page in (*plain, *others) for problem in self.problems[page]]
        for page in plain:
            page.context.close() if page.is_closed() else self.leave(page)
        for page in others:
            page.context.close()
        assert found == []


@pytest.fixture(scope="package")
def visitors(browser: Any) -> Visitors:
    return Visitors(browser)


@pytest.fixture
def open_page(visitors: Visitors) -> Iterator[Callable[..., Any]]:
    with visitors.visits() as open_one:
        yield open_one
