"""Votes as a page leaves them, half a row included, and as people write them."""

import json

import pytest

from lift_trl.store.votes import read_votes


VOTE = {"prompt": "a fox", "video_a": "x/0", "video_b": "y/0", "choice": "a", "dimension": None}
SEGMENT = "3f2a" * 8


def lines(*ids: str) -> str:
    return "\n".join(json.dumps({**VOTE, "id": name, "voter": f"voter {name}"}) for name in ids)


def test_the_last_vote_counts_without_an_end_of_its_line(tmp_path):
    file = tmp_path / "votes.jsonl"
    file.write_text(lines("0", "1", "2"))
    assert [vote.row["id"] for vote in read_votes(file)] == ["0", "1", "2"]
    file.write_text(lines("0"))
    assert [vote.where for vote in read_votes(tmp_path)] == [f"{file}, line 1"]


def test_half_a_vote_is_passed_over_in_a_pages_segment_and_named_in_a_persons_file(tmp_path):
    half = f"{lines('0', '1')}\n\n{lines('2')}"[:-7]
    segment = tmp_path / "votes" / f"{SEGMENT}.jsonl"
    segment.parent.mkdir()
    segment.write_text(half)
    assert [vote.row["id"] for vote in read_votes(tmp_path)] == ["0", "1"]
    segment.with_name("day.jsonl").write_text(half)
    with pytest.raises(ValueError, match=r"day\.jsonl, line 4: not JSON .*Correct or delete the line"):
        list(read_votes(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [("choice", ["a"]), ("id", ["1"]), ("video_a", {"path": "x"}), ("video_b", 3), ("prompt", None), ("voter", ["u"])],
)
def test_what_is_no_text_is_named(tmp_path, name, value):
    file = tmp_path / "votes.jsonl"
    file.write_text(lines("0") + "\n" + json.dumps({**VOTE, "id": "1", "voter": "u", name: value}))
    with pytest.raises(ValueError, match=rf"votes\.jsonl, line 2: {name} is .*write one text"):
        list(read_votes(file))
