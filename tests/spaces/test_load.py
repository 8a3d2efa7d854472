"""50 people vote at once while the page is killed twice and the Hub fails: every vote is there at the end, none twice."""

import json
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from lift_trl.mini.shapes import CLEAN, SCENES, DefectRates, draw_clip
from lift_trl.mini.world import write_clips
from lift_trl.ui.identity import Identity
from tests.hub.fixtures import LocalHub
from tests.spaces.server import SECRETS, Space, Visitor


NUM_VOTERS = 50
#: Pairs beside those that a voter is to vote on: a vote whose answer was cut is there too, and he votes on another one.
SPARE = 6
CHOICES = ("a", "b", "tie")


def arena_clips(root: Path, number: int) -> dict[str, str]:
    """`number` pairs: the same few clips under other prompts, since the page only shows them."""
    variables = {}
    for variable, rates in (("FIRST", DefectRates()), ("SECOND", CLEAN)):
        folder = root / variable
        write_clips(folder, [draw_clip(np.random.default_rng(0), rates, SCENES[0])])
        rows = [json.dumps({"file_name": "00000.mp4", "prompt": f"prompt {n}", "seed": n}) for n in range(number)]
        (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
        variables[variable] = f"{variable.lower()}={folder}"
    return variables


class Voter(threading.local):
    """One person who does not give up: after an error he opens the page again and votes on what it shows."""

    def vote(self, space: Space, cookie: str, number: int, acknowledged: list[tuple[str, str]]) -> None:
        random_ = random.Random(cookie)
        visitor = pair = None
        done = 0
        while done < number:
            try:
                if visitor is None or pair is None:
                    visitor = Visitor(space, cookie=cookie)
                    pair = visitor.call("load")[2]
                sent, shown = pair, visitor.call("vote", pair, *(random_.choice(CHOICES) for _ in range(4)))
                pair = shown[2]
                acknowledged.append((cookie, sent))
                done += 1
            except (
                httpx.HTTPError,
                json.JSONDecodeError,
            ):  # the page is down; an error that it shows is none of these
                visitor = None
                time.sleep(0.2)


def hub_rows(hub: LocalHub, repo: str) -> list[dict[str, str]]:
    names = [n for n in hub.api().list_repo_files(repo, repo_type="dataset") if n.startswith("votes/")]
    texts = [hub.read(repo, name, repo_type="dataset").decode() for name in names]
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.mark.parametrize("num_votes", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_every_vote_is_on_the_hub_once(num_votes: int, hub: LocalHub, tmp_path: Path):
    repo, each = f"dev/load-{num_votes}", num_votes // NUM_VOTERS
    space = Space(
        "arena", tmp_path / "arena", VOTES_REPO=repo, VOTES_PER_MINUTE="100000", **arena_clips(tmp_path, each + SPARE)
    ).start()
    hub.fail_next("POST", "/commit/", status=500, times=3)
    hub.lose_next_answer("POST", "/commit/")
    acknowledged: list[tuple[str, str]] = []
    cookies = [f"{number:040d}" for number in range(NUM_VOTERS)]
    with ThreadPoolExecutor(NUM_VOTERS) as pool:
        voters = [pool.submit(Voter().vote, space, cookie, each, acknowledged) for cookie in cookies]
        for part in (1, 2):
            while len(acknowledged) < part * num_votes // 3:
                time.sleep(0.05)
                assert not any(voter.done() and voter.exception() for voter in voters)
            space.end(signal.SIGKILL)
            space.start()
        for voter in voters:
            voter.result()
    # A Space that is stopped sends what it has; the next start does, should the Hub have refused that too.
    space.end()
    if hub.waiting_faults() or len(hub_rows(hub, repo)) < 4 * num_votes:
        hub.clear_faults()
        space.start().end()
    rows = hub_rows(hub, repo)
    assert rows, space.console[-6000:]
    assert len({row["id"] for row in rows}) == len(rows)
    # What was acknowledged is there; a vote whose answer was cut may be there as well.
    voted = {(row["voter"], row["pair"]) for row in rows}
    identity = Identity(SECRETS["SALT"].encode())
    names = {cookie: f"anon:{identity.digest('voter', f'cookie {cookie}')[:16]}" for cookie in cookies}
    assert len(acknowledged) == num_votes
    assert len({(cookie, pair) for cookie, pair in acknowledged}) == num_votes
    assert num_votes <= len(voted) <= num_votes + SPARE * NUM_VOTERS
    assert len(rows) == 4 * len(voted)
    assert {(names[cookie], pair) for cookie, pair in acknowledged} <= voted
    per_voter = {voter: sum(v == voter for v, _ in voted) for voter, _ in voted}
    assert len(per_voter) == NUM_VOTERS and min(per_voter.values()) >= each
    assert len(hub.requests("POST", f"{repo}/commit/")) >= 4  # of which some failed
