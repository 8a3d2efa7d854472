"""What goes wrong on a page of the arena is said to those whom it concerns, and stops nobody else."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lift_trl.store.manifest import METADATA_FILE, read_rows, write_rows
from lift_trl.ui.page import Settings
from tests.spaces.server import Space, Visitor


SIDES = 'src="clips/'


@pytest.fixture(scope="module")
def space(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """Six pairs, of which one has a clip that is no video, and one a clip that is going to vanish."""
    root = tmp_path_factory.mktemp("faults")
    for name in ("flawed", "clean"):
        shutil.copytree(clips[name], root / name)
    (root / "clean" / "00001.mp4").write_text("a secret")
    variables = {"FIRST": f"flawed={root / 'flawed'}", "SECOND": f"clean={root / 'clean'}"}
    space = Space("arena", root / "arena", **variables).start()
    (root / "clean" / "00002.mp4").rename(root / "vanished.mp4")
    yield space
    space.end()


def results(space: Space, *, owner: bool = False) -> str:
    key = re.findall(r"\?owner=([0-9a-f]{32})", space.console)[-1]
    return str(Visitor(space, query=f"?owner={key if owner else 0}").call("show_results")[0])


def restart(space: Space, **variables: str) -> None:
    space.end()
    space.variables |= variables
    space.start()


def test_a_clip_that_cannot_be_shown_is_skipped_and_listed_for_the_owner(space: Space):
    visitor, seen = Visitor(space), set()
    shown = visitor.call("load")
    while shown[2]:
        assert shown[1].count(SIDES) == 2 and shown[2] not in seen
        seen.add(shown[2])
        shown = visitor.call("vote", shown[2], *"aaaa")
    assert len(seen) == 4 and "You have compared every pair" in shown[1] and "4 of 4 pairs" in shown[4]
    told = results(space, owner=True)
    assert "clean/00001.mp4" in told and "clean/00002.mp4" in told
    assert "a secret" not in told + space.console
    assert "00001.mp4" not in results(space) and "00001.mp4" not in str(visitor.call("show_results"))


def test_results_are_for_those_who_have_voted(space: Space):
    assert "Results open once you have voted" in results(space)
    visitor = Visitor(space)
    visitor.call("load")
    assert "Results open once you have voted" in str(visitor.call("show_results"))


def test_a_disk_that_refuses_is_told_and_the_vote_can_be_sent_again(space: Space):
    visitor = Visitor(space)
    pair = visitor.call("load")[2]
    votes, aside = space.data_dir / "votes", space.data_dir / "aside"
    votes.rename(aside)
    with pytest.raises(RuntimeError, match="could not be saved. Please send it again"):
        visitor.call("vote", pair, *"bbbb")
    (space.data_dir / "shown").rename(space.data_dir / "shown-aside")
    with pytest.raises(RuntimeError, match="Something failed on the server"):
        Visitor(space).call("load")
    (space.data_dir / "shown-aside").rename(space.data_dir / "shown")
    aside.rename(votes)
    assert visitor.call("vote", pair, *"bbbb")[2] != pair
    assert "FileNotFoundError" in space.console


def test_one_address_cannot_vote_as_many_people(space: Space):
    root = space.data_dir.parent
    (root / "vanished.mp4").rename(root / "clean" / "00002.mp4")  # at its start the page asks for every clip
    restart(space)  # the minute begins anew
    before, refused = len(space.rows()), []
    for number in range(20):
        forged = Visitor(space, cookie=f"{number:043d}")
        pair = forged.call("load")[2]
        try:
            forged.call("vote", pair, *"bbbb", **{"x-forwarded-for": f"10.0.0.{number}"})
        except RuntimeError as error:
            refused.append(str(error))
    assert len(space.rows()) - before == 4 * 10 and len(refused) == 10
    assert all(re.search(r"Please wait \d+ s, then send again", text) for text in refused)


def test_votes_by_login_only(space: Space):
    restart(space, REQUIRE_LOGIN="1")
    stranger = Visitor(space)
    shown = stranger.call("load")
    assert "Please sign in" in shown[1] and not shown[2]
    before = len(space.rows())
    with pytest.raises(RuntimeError, match="Please sign in"):
        stranger.call("vote", space.rows()[0]["pair"], *"aaaa")
    assert len(space.rows()) == before


def test_a_restart_with_another_system_starts_from_no_votes(space: Space):
    other = Path(space.data_dir.parent / "other")
    shutil.copytree(space.data_dir.parent / "flawed", other)
    write_rows(other / METADATA_FILE, [{**row, "reward": None} for row in read_rows(other / METADATA_FILE)])
    restart(space, REQUIRE_LOGIN="0", SECOND=f"other={other}")
    assert "No votes yet" in results(space, owner=True)
    visitor = Visitor(space, cookie=f"{0:043d}")  # who has voted on all pairs of the others
    shown = visitor.call("load")
    assert "0 of 6 pairs" in shown[4]
    visitor.call("vote", shown[2], *"bbbb")
    assert "other better" in str(visitor.call("show_results")) and "Traceback" not in space.console.split("owner=")[-1]


@pytest.mark.parametrize("given", ["REQUIRE_LOGIN=yes", "VOTES_PER_MINUTE=0", "VOTES_PER_MINUTE=many"])
def test_a_variable_that_means_nothing_is_refused(monkeypatch, given):
    name, value = given.split("=")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{given}: write"):
        Settings.from_env("arena")
