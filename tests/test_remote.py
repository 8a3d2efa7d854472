"""Folders behind URLs: prompts, clips, scores and ratings are read as from a folder; a copy follows what changes there."""

import json
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lift_trl.alignment.sampling.generate import read_prompts
from lift_trl.alignment.score import score_videos
from lift_trl.cli import main
from lift_trl.feedback.hra import load_hra
from lift_trl.judges.preferences import load_preferences, parse_systems
from lift_trl.remote import local_copy
from lift_trl.report.inputs import ReportArguments, build_report
from lift_trl.rubric import Dimension
from lift_trl.store.manifest import METADATA_FILE, Artifact
from lift_trl.store.rated_videos import BadRowsError, load_rated_videos
from lift_trl.store.rubrics.of_data import find_rubric, write_rubric
from lift_trl.ui.clips import load_clips
from tests.engines.mortal import MortalJudge
from tests.hub.fixtures import LocalHub
from tests.own_rubric import OWN


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


def text_rows(number: int, seed: float = 0.0) -> dict[str, bytes]:
    """Scored clips, as `clips`, with an id each."""
    found = clips(number)
    rows = [json.loads(line) | {"id": f"i{n}"} for n, line in enumerate(found[METADATA_FILE].splitlines())]
    rows = [row | {"reward": seed + n / 10} | dict.fromkeys(map(str, Dimension), "Good") for n, row in enumerate(rows)]
    videos = {name: data + b" of %.1f" % seed for name, data in found.items()}
    return videos | {METADATA_FILE: "\n".join(map(json.dumps, rows)).encode()}


def test_commands_on_a_url_do_as_on_the_folder(memory, tmp_path, capsys):
    """What validate, inspect, convert and a report say of a URL is what they say of the folder."""
    for name, data in clips(3, reward=0.5).items():
        (tmp_path / "rated" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rated" / name).write_bytes(data)
    url, said = put(memory, "/bucket/rated", clips(3, reward=0.5)), []
    for source in (str(tmp_path / "rated"), url):
        for words in (["validate", "--no-decode", source], ["inspect", source]):
            assert main(words) == 0
        out = capsys.readouterr().out
        said.append(out.replace(str(tmp_path / "rated"), "FOLDER").replace(str(local_copy(url)), "FOLDER"))
    assert said[0] == said[1].replace(url, "FOLDER") and "for alignment: 3 clips" in said[0] and "mean 0.5" in said[0]
    assert main(["inspect", put(memory, "/bucket/hra", clips(1, **dict.fromkeys(map(str, Dimension), "Bad")))]) == 0
    assert main(["convert", "memory://bucket/hra", str(tmp_path / "hra")]) == 0
    assert "hra" in Artifact.load(tmp_path / "hra").parents


def test_a_report_and_votes_by_url(memory, tmp_path):
    systems = [
        f"{name}={put(memory, f'/run/{name}', text_rows(4, gain))}" for name, gain in (("base", 0), ("lora", 0.2))
    ]
    judges = [
        f"j/{name}={put(memory, f'/judge/{name}', text_rows(4, gain))}" for name, gain in (("base", 0.1), ("lora", 0))
    ]
    vote = {"id": "0", "prompt": "clip 0", "video_a": "lora/videos/0.mp4", "video_b": "base/videos/0.mp4"}
    vote |= {"choice": "a", "dimension": None, "voter": "v", "created_at": "2026-01-01"}
    memory.pipe_file("/run/votes.jsonl", json.dumps(vote).encode())
    votes = "memory://run/votes.jsonl"
    report = build_report(ReportArguments("r", systems, judges, votes=[f"people={votes}"], drift=False))
    assert {row.judge for row in report.paired} == {"critic", "j", "people"} and "j" in report.confusion
    found = load_preferences(votes, parse_systems(systems))
    assert [Path(video.video).read_bytes() for video in found.videos] == [b"clip 0 of 0.2", b"clip 0 of 0.0"]


def test_a_rubric_of_ones_own_is_found_behind_a_url(memory, tmp_path):
    write_rubric(OWN, tmp_path)
    rated = clips(2, **dict.fromkeys(OWN.dimensions, str(OWN.best)))
    url = put(memory, "/bucket/signs", {**rated, "rubric.yaml": (tmp_path / "rubric.yaml").read_bytes()})
    assert find_rubric(url) == find_rubric(url, OWN) == OWN
    assert load_hra(url, rubric=OWN)["train"].num_rows == 2 * len(OWN.dimensions)
    assert [clip.path.read_bytes() for clip in load_clips(url)] == [b"clip 0", b"clip 1"]


class Rooted(MemoryFileSystem):
    """A store in which /a and a differ, as in HDFS."""

    protocol, store, pseudo_dirs = "rooted", {}, [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("rooted://")


def test_slashes_of_a_url_stay(tmp_path):
    fsspec.register_implementation("rooted", Rooted, clobber=True)
    fsspec.filesystem("rooted").pipe_file("/abs/prompts.txt", b"a fox")
    assert Path(local_copy("rooted:///abs/prompts.txt")).read_bytes() == b"a fox"
    with pytest.raises(FileNotFoundError, match="rooted://abs/prompts.txt: there is no such"):
        local_copy("rooted://abs/prompts.txt")
    # A path of this machine is no copy: a row may name clips beside the folder.
    for name in ("scored/metadata.jsonl", "0.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"file_name": "../0.mp4", "prompt": "a fox", "reward": 0.5}')
    for url in (f"file://{tmp_path}/scored", Path(f"file://{tmp_path}/scored")):
        assert local_copy(url) == tmp_path / "scored"
    assert [video.reward() for video in load_rated_videos(f"file://{tmp_path}/scored")] == [0.5]
    with pytest.raises(FileNotFoundError, match=f"file://{tmp_path}/none: there is no {tmp_path}/none"):
        local_copy(f"file://{tmp_path}/none")


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
