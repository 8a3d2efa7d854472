"""What a stranger cannot do: vote for others, learn who they are, read secrets or files, or put HTML on a page."""

import json
import re
from pathlib import Path

import httpx
import pytest

from lift_trl.rubric import Dimension, Label
from lift_trl.ui.identity import Identity, load_salt
from tests.spaces.server import SECRETS, Space, Visitor


GOOD, BAD = Label.GOOD.value, Label.BAD.value


def voter_of(space: Space, cookie: str) -> str:
    digest = Identity(SECRETS["SALT"].encode()).digest("voter", f"cookie {cookie}")
    return f"anon:{digest[:16]}"


def cookie_of(visitor: Visitor) -> str:
    (cookie,) = visitor.client.cookies.jar
    return str(cookie.value)


def test_a_vote_is_the_visitors_own_whatever_is_sent_with_it(spaces):
    arena = spaces["arena"]
    victim, stranger = Visitor(arena), Visitor(arena)
    pair = victim.call("load")[2]
    known = voter_of(arena, cookie_of(victim))
    claims = {"x-voter": known, "x-forwarded-user": known}
    # The victim's public name in place of his cookie is no cookie of his, and his pair is not open for anybody else.
    for other in (stranger, Visitor(arena, cookie=known)):
        with pytest.raises(RuntimeError, match="not open for you"):
            other.call("vote", pair, *"bbbb", **claims)
        other.call("vote", other.call("load")[2], *"aaaa", **claims)
    mine = voter_of(arena, cookie_of(stranger))
    assert len([row for row in arena.rows() if row["voter"] == mine]) == 4
    assert known not in {row["voter"] for row in arena.rows()}
    assert victim.call("vote", pair, "tie", "tie", "tie", "tie")
    own = [row["choice"] for row in arena.rows() if row["voter"] == known]
    assert own == ["tie"] * 4


def test_only_pairs_of_the_page_and_known_choices_can_be_voted(spaces):
    arena = spaces["arena"]
    stranger = Visitor(arena)
    pair, before = stranger.call("load")[2], len(arena.rows())
    for data in (
        ["no-such-pair", *"aaaa"],
        [pair, "a", "a", "a", "c"],
        [pair, "a", "a", "a", None],
        [pair, {}, [], 1, "a"],
    ):
        with pytest.raises((RuntimeError, httpx.HTTPStatusError)):
            stranger.call("vote", *data)
    assert len(arena.rows()) == before
    stranger.call("vote", pair, *"aaaa")
    stranger.call("vote", pair, *"bbbb")  # a second click, with other answers
    mine = [row["choice"] for row in arena.rows() if row["voter"] == voter_of(arena, cookie_of(stranger))]
    assert mine == ["a"] * 4


def test_secrets_and_other_people_are_nowhere_to_be_read(spaces):
    arena = spaces["arena"]
    victim = Visitor(arena)
    victim.call("vote", victim.call("load")[2], *"aaaa")
    secrets = [*SECRETS.values(), cookie_of(victim), voter_of(arena, cookie_of(victim))]
    stranger = Visitor(arena)
    told = [stranger.page, json.dumps(stranger.config), str(stranger.call("load")), str(stranger.call("show_results"))]
    for path in ("gradio_api/info", "gradio_api/info?all_endpoints=true", "gradio_api/startup-events", "monitoring"):
        told.append(stranger.client.get(f"{arena.url}/{path}").text)
    for secret in secrets:
        assert not any(secret in text for text in told)
    assert "HttpOnly" in httpx.get(arena.url).headers["set-cookie"]
    # The rows themselves hold hashes only: no address, no browser, no cookie.
    assert set(arena.rows()[0]) == {
        *("id", "prompt", "video_a", "video_b", "choice", "dimension", "voter", "created_at", "pair")
    }


@pytest.mark.parametrize("name", ["arena", "annotate", "gallery"])
def test_no_file_outside_the_gallery_is_served(spaces, clips, name):
    space = spaces[name]
    row_file = next((space.data_dir / "votes").glob("*.jsonl"), space.data_dir / "console.txt")
    stranger = Visitor(space)
    for target in (
        row_file,
        space.data_dir / "console.txt",
        clips["flawed"] / "metadata.jsonl",
        Path("/proc/self/environ"),
    ):
        for path in (f"gradio_api/file={target}", f"file={target}", f"clips/{target}", f"clips/..%2f..%2f{target}"):
            assert stranger.client.get(f"{space.url}/{path}").status_code in (403, 404), path
    # Not even clips by their paths: these name the system.
    assert stranger.client.get(f"{space.url}/gradio_api/file={clips['flawed'] / '00000.mp4'}").status_code == 403
    shown = stranger.call(*(("load",) if name != "gallery" else ("change", "lift", None, None)))
    player = next(text for text in shown if "<video" in str(text))
    url = re.search(r'src="(clips/[0-9a-f]{32}\.mp4)"', player).group(1)
    clip = stranger.client.get(f"{space.url}/{url}")
    assert (clip.status_code, clip.headers["content-type"]) == (200, "video/mp4")
    part = stranger.client.get(f"{space.url}/{url}", headers={"range": "bytes=0-3"})
    assert part.status_code == 206 and part.content == clip.content[:4]


def test_nobody_uploads_and_no_other_site_votes_for_a_visitor(spaces):
    arena = spaces["arena"]
    visitor = Visitor(arena)
    upload = visitor.client.post(f"{arena.url}/gradio_api/upload", files={"files": ("x.html", b"<script>")})
    assert upload.status_code == 403
    pair = visitor.call("load")[2]
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        visitor.call("vote", pair, *"aaaa", origin="https://evil.example")
    assert visitor.call("vote", pair, *"aaaa", origin=arena.url)


def test_the_owners_part_is_the_owners(spaces):
    space = spaces["annotate"]
    key = re.search(r"\?owner=([0-9a-f]{32})", space.console).group(1)
    owner, stranger = Visitor(space, query=f"?owner={key}"), Visitor(space, query="?owner=0")
    assert "Krippendorff" in owner.call("show_owner")[0]
    assert stranger.call("show_owner") == [""]
    assert [update["visible"] for update in stranger.call("visible")] == [False]
    assert [update["visible"] for update in owner.call("visible")] == [True]
    assert stranger.call("load_1")[:3] == ["", "", ""]
    with pytest.raises(RuntimeError, match="Only the owner"):
        stranger.call("decide", "row-0", GOOD, "because")
    with pytest.raises(RuntimeError, match="Only the owner"):
        stranger.call("remove", "row-0", "because")


def test_a_rating_is_checked_on_the_server(spaces):
    space = spaces["annotate"]
    stranger = Visitor(space)
    clip = stranger.call("load")[2]
    answers = [GOOD, "", GOOD, "", GOOD, ""]
    for bad in (
        ["nothing", *answers],
        [clip, BAD, " ", *answers[2:]],
        [clip, BAD, "x" * 2000, *answers[2:]],
        [clip, None, *answers[1:]],
    ):
        with pytest.raises((RuntimeError, httpx.HTTPStatusError)):
            stranger.call("rate", *bad)
    stranger.call("rate", clip, BAD, "<script>alert(3)</script>\u202e evil\n two", *answers[2:])
    mine = voter_of(space, cookie_of(stranger))
    rows = {row["dimension"]: row for row in space.rows() if row.get("annotator") == mine}
    assert len(rows) == 3
    first = rows[list(Dimension)[0].value]
    assert first["reason"] == "<script>alert(3)</script> evil two"  # kept as written, but for what nobody can see


def test_the_salt_of_a_machine_is_kept_and_private(tmp_path):
    salt = load_salt(tmp_path)
    assert len(salt) == 64 and load_salt(tmp_path) == salt
    assert (tmp_path / ".salt").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == [".salt"]
    assert load_salt(tmp_path, "given " * 3) == b"given given given "


def test_a_salt_that_could_be_guessed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="SALT has 5 bytes, and a salt needs 16"):
        load_salt(tmp_path, "given")
    (tmp_path / ".salt").touch()  # of a process that was killed before it wrote
    with pytest.raises(ValueError, match=r"\.salt has 0 bytes.*delete the file"):
        load_salt(tmp_path)
