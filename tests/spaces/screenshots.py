"""Pictures of the three Spaces for the documentation: `python -m tests.spaces.screenshots docs/assets`."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import tests.conftest  # the tests' private environment


os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from playwright.sync_api import Page, sync_playwright

from lift_trl.mini.shapes import CLEAN, SCENES, DefectRates, draw_clip
from lift_trl.mini.world import rate_folder, write_clips
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from tests.spaces.server import Space, Visitor


SIZES = {"": (1280, 900), "-phone": (390, 844)}


def clips(root: Path) -> tuple[Path, Path]:
    """Clips with and without defects of the same prompts, rated, with probabilities as a critic gives them."""
    rng = np.random.default_rng(4)
    for name, rates in (("base", DefectRates()), ("lift", CLEAN)):
        write_clips(root / name, [draw_clip(rng, rates, scene) for scene in SCENES[:12]])
        rate_folder(root / name, root / name)
        rows = list(read_rows(root / name / METADATA_FILE))
        for number, row in enumerate(rows):
            row |= {"id": f"{name}-{number}", "seed": number}
            row["probs"] = {d: {label: 0.86 if row[d] == label else 0.07 for label in Label} for d in Dimension}
        write_rows(root / name / METADATA_FILE, rows)
    return root / "base", root / "lift"


def some_votes(space: Space) -> None:
    """Votes of five people, at random: their sides are hidden from this script too."""
    rng = np.random.default_rng(0)
    for number in range(5):
        visitor = Visitor(space, cookie=f"{number:040d}")
        pair = visitor.call("load")[2]
        for _ in range(8):
            pair = visitor.call("vote", pair, *rng.choice(["a", "b", "tie"], size=4).tolist())[2]


def picture(page: Page, path: Path) -> None:
    page.wait_for_timeout(1200)
    page.screenshot(path=path, full_page=path.stem.endswith("-phone"))


def main(target: Path) -> None:
    root = Path(tempfile.mkdtemp())
    base, lift = clips(root)
    gallery = f"base={base},lift={lift}"
    spaces = {
        "arena": Space("arena", root / "arena", FIRST=f"base={base}", SECOND=f"lift={lift}").start(),
        "annotate": Space("annotate", root / "annotate", CLIPS=str(base)).start(),
        "compare": Space("compare", root / "compare", GALLERY=gallery).start(),
    }
    some_votes(spaces["arena"])
    chromium = next(found for name in tests.conftest.BROWSERS if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, space in spaces.items():
            for suffix, (width, height) in SIZES.items():
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(space.url)
                page.wait_for_selector("video")
                if name == "annotate":
                    page.locator(f"#lift-{Dimension.SEMANTIC_CONSISTENCY} input[value={Label.GOOD}]").check()
                    page.locator(f"#lift-{Dimension.MOTION_SMOOTHNESS} input[value={Label.BAD}]").check()
                    page.locator(f"#lift-reason-{Dimension.MOTION_SMOOTHNESS} textarea").fill(
                        "It jumps in the middle."
                    )
                picture(page, target / f"{name}{suffix}.png")
                if name == "arena":
                    page.get_by_role("tab", name="Results").click()
                    page.wait_for_selector(".lift-result")
                    picture(page, target / f"results{suffix}.png")
        browser.close()
    for space in spaces.values():
        space.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
