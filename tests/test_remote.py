"""Folders behind URLs: prompts, clips, scores and ratings are read as from a folder; a copy follows what changes there."""

import json
from pathlib import Path

import fsspec
import pytest

from lift_trl.alignment.sampling.generate import read_prompts
from lift_trl.alignment.score import score_videos
from lift_trl.feedback.hra import load_hra
from lift_trl.remote import local_copy
from lift_trl.rubric import Dimension
from lift_trl.store.manifest import METADATA_FILE
from lift_trl.store.rated_videos import BadRowsError, load_rated_videos
from tests.engines.mortal import MortalJudge
from tests.hub.fixtures import LocalHub


@pytest.fixture
def memory():
    """An empty store of fsspec that is no folder."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def clips(number: int, *, video: str = "videos/{}.mp4", **columns: object) -> dict[str, bytes]:
    """A folder of clips with metadata, as bytes by name."""
    rows = [{"file_name": video.format(i), "prompt": f"clip {i}", **columns} for i in range(number)]
    found = {f"videos/{i}.mp4": b"clip %d" % i for i in range(number)}
    return {METADATA_FILE: "".join(json.dumps(row) + "\n" for row in rows).encode(), **found}


def put(files, folder: str, content: dict[str, bytes]) -> str:
    for name, data in content.items():
        files.pipe_file(f"{folder}/{name}", data)
    return f"memory://{folder.strip('/')}"


def test_rated_clips_are_copied_once_and_again_when_they_change(memory, tmp_path):
    url = put(memory, "/bucket/rated", clips(3, reward=0.5))
    videos = load_rated_videos(url)
    assert [(v.prompt, v.reward(), Path(v.video).read_bytes()) for v in videos] == [
        (f"clip {i}", 0.5, b"clip %d" % i) for i in range(3)
    ]
    assert local_copy(url) == local_copy(Path(url)) == Path(videos[0].video).parents[1]
    memory.pipe_file("/bucket/rated/videos/1.mp4", b"another clip")
    again = load_rated_videos(url)
    assert Path(again[1].video).read_bytes() == b"another clip" and Path(videos[1].video).read_bytes() == b"clip 1"


def test_prompts_clips_and_ratings_behind_a_url(memory, tmp_path):
    memory.pipe_file("/bucket/prompts.txt", b"a fox\na bird\n")
    assert [video.prompt for video in read_prompts("memory://bucket/prompts.txt")] == ["a fox", "a bird"]
    url = put(memory, "/bucket/made", clips(2))
    out = score_videos(MortalJudge(tmp_path / "log"), url, tmp_path / "scored")
    assert len(load_rated_videos(out)) == 2
    labels = put(memory, "/bucket/hra", clips(2, **dict.fromkeys(map(str, Dimension), "Good")))
    assert load_hra(labels)["train"].num_rows == 2 * len(Dimension)


def test_a_folder_of_a_dataset_repo(hub: LocalHub, tmp_path):
    for name, data in clips(2, reward=0.25).items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(data)
    hub.api().create_repo("dev/store", repo_type="dataset")
    hub.api().upload_folder(repo_id="dev/store", repo_type="dataset", folder_path=tmp_path / "up", path_in_repo="a/b")
    videos = load_rated_videos("hf://datasets/dev/store/a/b")
    assert [Path(v.video).read_bytes() for v in videos] == [b"clip 0", b"clip 1"] and videos[0].reward() == 0.25
    with pytest.raises(FileNotFoundError, match="hf://datasets/dev/store/c: there is no such folder"):
        load_rated_videos("hf://datasets/dev/store/c")


def test_what_a_copy_does_not_hold_is_refused(memory, tmp_path):
    (tmp_path / "own.mp4").write_bytes(b"a file of this machine")
    for number, video in enumerate((str(tmp_path / "own.mp4"), "../elsewhere/{}.mp4")):
        url = put(memory, f"/bucket/{number}", clips(1, video=video, reward=0.5))
        with pytest.raises(BadRowsError, match="outside of the folder, and only that was copied"):
            load_rated_videos(url)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("s3://bucket/clips", ValueError, "s3://bucket/clips: .*s3fs.*pip install"),
        ("nowhere://bucket", ValueError, "nowhere://bucket: .*Use hf://, s3://"),
        ("memory://bucket/none", FileNotFoundError, "there is no such folder or file"),
    ],
)
def test_errors_name_the_url_and_the_remedy(url, error, message):
    for read in (read_prompts, load_rated_videos, load_hra):
        with pytest.raises(error, match=message):
            read(url)


def test_paths_and_repos_stay_as_they_are(tmp_path):
    for source in (tmp_path, "user/clips", "user/clips@v1", "./a:b", "C:/clips"):
        assert local_copy(source) is source
