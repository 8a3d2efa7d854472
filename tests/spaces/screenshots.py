"""Pictures of the three Spaces for the documentation."""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tests.conftest  # the tests' private environment


os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from lift_trl.mini.shapes import CLEAN, SCENES, DefectRates, draw_clip
from lift_trl.mini.world import rate_folder, write_clips
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from lift_trl.ui.identity import Identity
from tests.processes import start_server
from tests.spaces.conftest import wait_until_open
from tests.spaces.server import SECRETS, Space, Visitor


SIZES = {"": (1280, 900), "-phone": (390, 844)}
SEMANTIC, MOTION, FIDELITY = Dimension
#: Other work may keep the machine busy.
TIMEOUT_MS = 120_000
#: So many votes of a hundred are a slip of the finger.
SLIPS = 15


def clips(root: Path) -> dict[str, Path]:
    """Clips of a model and of one that has fewer defects, rated, with probabilities as a critic gives them; gold clips."""
    rng = np.random.default_rng(4)
    better = DefectRates((0.1, 0.0), (0.1, 0.0), (0.1, 0.0))
    for name, rates in (("base", DefectRates((0.3, 0.2), (0.2, 0.3), (0.3, 0.2))), ("lift", better), ("gold", CLEAN)):
        write_clips(root / name, [draw_clip(rng, rates, scene) for scene in SCENES[:12]])
        rate_folder(root / name, root / name)
        rows = list(read_rows(root / name / METADATA_FILE))
        for number, row in enumerate(rows):
            row |= {"id": f"{name}-{number}", "seed": number}
            row["probs"] = {d: {label: 0.86 if row[d] == label else 0.07 for label in Label} for d in Dimension}
        write_rows(root / name / METADATA_FILE, rows if name != "gold" else rows[:2])
    return {name: root / name for name in ("base", "lift", "gold")}


def review_queue(root: Path, clips: Path) -> Path:
    """A queue whose first row is one that rater and critic see differently."""
    rows = [row for row in read_rows(clips / METADATA_FILE) if row[MOTION] == Label.BAD]
    queue = [
        {
            "id": row["id"],
            "why": "the critic's label differs",
            "video": str(clips / row["file_name"]),
            "caption": row["prompt"],
            "dimension": MOTION.value,
            "annotator": "ada",
            "label": Label.GOOD.value,
            "reason": "There are no obvious problems.",
            "critic_label": Label.BAD.value,
            "critic_reason": row["reasons"][MOTION],
            **dict.fromkeys(("decision", "decision_reason", "reviewer", "decided_at")),
        }
        for row in rows
    ]
    write_rows(root / "review_queue.jsonl", queue)
    return root / "review_queue.jsonl"


def some_votes(space: Space, *folders: Path) -> None:
    """Votes of six people who see what the clips' labels say, and slip now and then."""
    rng = np.random.default_rng(0)
    identity = Identity(SECRETS["SALT"].encode())
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for row in read_rows(folder / METADATA_FILE):
            rows[identity.digest("clip", str((folder / row["file_name"]).absolute()))] = row
    for number in range(6):
        visitor = Visitor(space, cookie=f"{number:040d}")
        shown = visitor.call("load")
        while shown[2]:
            # The clips that are fetched ahead come after the two that are shown.
            left, right = (rows[name] for name in re.findall(r'src="clips/([0-9a-f]{32})', shown[1]))
            better = [np.sign(Label(left[d]).rank - Label(right[d]).rank) for d in Dimension]
            rewards = [LIFT.mean_reward({d: Label(row[d]) for d in Dimension}) for row in (left, right)]
            better.append(np.sign(rewards[0] - rewards[1]))
            seen = [int(rng.integers(-1, 2)) if rng.integers(100) < SLIPS else int(sign) for sign in better]
            shown = visitor.call("vote", shown[2], *({1: "a", 0: "tie", -1: "b"}[sign] for sign in seen))


def some_ratings(space: Space, clips: Path) -> None:
    """Ratings of three people, each with a slip now and then."""
    rng = np.random.default_rng(0)
    rows = {row["id"]: row for row in read_rows(clips / METADATA_FILE)}
    for number in range(3):
        visitor = Visitor(space, cookie=f"{number:040d}")
        clip = visitor.call("load")[2]
        for _ in range(9):
            answers = []
            for dimension in Dimension:
                slip = rng.integers(100) < SLIPS
                label = (
                    Label(rng.choice(list(Label))) if slip else Label(rows.get(clip, {}).get(dimension, Label.GOOD))
                )
                answers += [label.value, "" if label is Label.GOOD else "Something is wrong here."]
            clip = visitor.call("rate", clip, *answers)[2]


def picture(page: Page, path: Path) -> None:
    page.wait_for_timeout(1500)
    page.screenshot(path=path, full_page=path.stem.endswith("-phone"))


def fill_in(page: Page) -> None:
    page.locator(f"#lift-{SEMANTIC} input[value={Label.GOOD}]").check()
    page.locator(f"#lift-{MOTION} input[value={Label.NORMAL}]").check()
    page.locator(f"#lift-reason-{MOTION} textarea").fill("It jumps once, in the middle.")
    page.locator(f"#lift-{FIDELITY} input[value={Label.BAD}]").check()


def pictures(browser: Browser, spaces: dict[str, Space], target: Path) -> None:
    for suffix, (width, height) in SIZES.items():
        for name, space in spaces.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(TIMEOUT_MS)
            page.goto(space.url)
            wait_until_open(page)
            if name == "annotate":
                fill_in(page)
            if name == "compare":
                page.locator("#lift-vote input[value=b]").check()
                page.click("#lift-submit")
                page.wait_for_selector(".lift-verdict")
            picture(page, target / f"{name}{suffix}.png")
            if name == "arena":
                page.goto(space.owner_url)
                page.get_by_role("tab", name="Results").click()
                page.wait_for_selector(".lift-result")
                picture(page, target / f"results{suffix}.png")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(spaces["annotate"].owner_url)
    for tab in ("Owner", "Review"):
        page.get_by_role("tab", name=tab).click()
        picture(page, target / f"{tab.lower()}.png")


def main(target: Path) -> None:
    start_server()
    root = Path(tempfile.mkdtemp())
    made = clips(root)
    base, lift = made["base"], made["lift"]
    queue = review_queue(root, base)
    busy = {"VOTES_PER_MINUTE": "10000"}
    spaces = {
        "arena": Space("arena", root / "arena", FIRST=f"base={base}", SECOND=f"lift={lift}", **busy),
        "annotate": Space(
            "annotate", root / "annotate", CLIPS=str(base), GOLD=str(made["gold"]), QUEUE=str(queue), **busy
        ),
        "compare": Space("compare", root / "compare", GALLERY=f"base={base},lift={lift}"),
    }
    try:
        for space in spaces.values():
            space.start()
        some_votes(spaces["arena"], base, lift)
        some_ratings(spaces["annotate"], base)
        chromium = next(found for name in tests.conftest.BROWSERS if (found := shutil.which(name)))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            pictures(browser, spaces, target)
            browser.close()
    finally:
        for space in spaces.values():
            space.end()
