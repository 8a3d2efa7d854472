"""Revision pins of the pages' data: `user/name@revision` is exactly that, and a wrong one is named."""

import re
from pathlib import Path

import pytest

from lift_trl.store.manifest import read_rows, write_rows
from lift_trl.store.rubrics.of_data import find_rubric, write_rubric
from lift_trl.ui.annotate.review import find_queue
from lift_trl.ui.clips import load_clips
from lift_trl.ui.compare.votes import Gallery
from tests.hub.fixtures import LocalHub
from tests.own_rubric import OWN


@pytest.fixture
def repo(hub: LocalHub, tmp_path: Path, make_clip) -> tuple[str, list[str]]:
    """A dataset of three states: tag v1, a branch with a slash in its name, and main; each has another clip and rubric."""
    name, commits = "dev/pinned", []
    hub.api().delete_repo(name, repo_type="dataset", missing_ok=True)
    hub.api().create_repo(name, repo_type="dataset")
    for number, rubric in enumerate((OWN, None, OWN)):
        folder = tmp_path / f"state-{number}"
        make_clip(folder / "0.mp4", seed=number)
        write_rows(folder / "metadata.jsonl", [{"id": "a", "file_name": "0.mp4", "prompt": f"p{number}", "seed": 7}])
        write_rows(folder / "review_queue.jsonl", [{"id": f"row-{number}", "video": "0.mp4"}])
        if rubric is not None:
            write_rubric(rubric, folder)
        info = hub.api().upload_folder(
            folder_path=folder, repo_id=name, repo_type="dataset", delete_patterns=["*.yaml"]
        )
        commits.append(info.oid)
    hub.api().create_tag(name, tag="v1", revision=commits[0], repo_type="dataset")
    hub.api().create_branch(name, branch="fix/clips", revision=commits[1], repo_type="dataset")
    return name, commits


def test_a_pin_is_exactly_that_revision(repo, tmp_path: Path):
    name, commits = repo
    pins = {"@v1": 0, f"@{commits[1]}": 1, "@fix/clips": 1, "": 2}
    for pin, number in pins.items():
        (clip,) = load_clips(name + pin)
        assert clip.path.read_bytes() == (tmp_path / f"state-{number}" / "0.mp4").read_bytes(), pin
        assert (clip.system, clip.prompt) == ("pinned", f"p{number}")
        assert (find_rubric(name + pin) == OWN) is (number != 1)
    queue, is_local = find_queue(f"{name}@v1/review_queue.jsonl")
    assert [row["id"] for row in read_rows(queue)] == ["row-0"] and not is_local
    gallery = Gallery.load({"base": f"{name}@v1", "lift": f"{name}@v1"}, {})
    assert gallery.prompts("lift") == ["p0"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dev/pinned@v2", "dev/pinned: has no revision 'v2'. Write one of its branches, tags or commits after the @"),
        (f"dev/pinned@{'0' * 40}", f"dev/pinned: has no revision '{'0' * 40}'"),
        ("dev/nowhere@v1", "dev/nowhere: no folder, and no dataset of the Hub that this token may read"),
        ("dev/a b", "dev/a b: no folder, and no dataset of the Hub"),
    ],
)
def test_a_wrong_pin_is_named(source: str, message: str, repo):
    for read in (load_clips, find_rubric):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(source)
