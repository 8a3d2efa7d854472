"""A converted folder pushed to a (local) Hub comes back equal, by `load_dataset` and by `load_hra`."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from datasets import load_dataset

from lift_trl.feedback.convert import convert
from lift_trl.feedback.hra import load_hra
from lift_trl.store.rated_videos import BadRowsError
from tests.feedback.conftest import write_authors_json, write_clip
from tests.hub.fixtures import LocalHub
from tests.real_folder import conversations, hra_file


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """As `Fudan-FUXI/LiFT-HRA-10K`: a JSON and a zip of clips."""
    folder = tmp_path / "src"
    write_authors_json(folder / "LiFT-HRA-data.json", [f"videos/{name}.mp4" for name in "abc"])
    (folder / "videos").mkdir()
    with ZipFile(folder / "videos" / "HRA_part1.zip", "w") as file:
        for number, name in enumerate("abc"):
            file.write(write_clip(tmp_path / f"{name}.mp4", 60 * number), f"{name}.mp4")
    return folder


def push(hub: LocalHub, folder: Path, name: str) -> str:
    hub.api().create_repo(name, repo_type="dataset", exist_ok=True)
    hub.api().upload_folder(repo_id=name, repo_type="dataset", folder_path=folder)
    return name


def test_published_rows_come_back_equal(hub: LocalHub, authors: Path, tmp_path: Path):
    convert(authors, tmp_path / "hra", test_fraction=0.5)
    name = push(hub, tmp_path / "hra", "dev/LiFT-HRA")
    local, remote = load_dataset(str(tmp_path / "hra")), load_dataset(name)
    assert set(remote) == {"train", "test"}
    for split in remote:
        assert remote[split].features == local[split].features
        assert remote[split][:] == local[split][:]
    assert {row["video_id"] for split in load_hra(name).values() for row in split} == {"a", "b", "c"}
    result = convert(name, tmp_path / "again")
    assert sum(result.num_clips.values()) == 3
    commit = hub.api().dataset_info(name).sha
    assert commit is not None and commit in (tmp_path / "again" / "artifact.yaml").read_text()


def test_the_authors_repository_loads_with_its_zips(hub: LocalHub, authors: Path, tmp_path: Path):
    name = push(hub, authors, "dev/LiFT-HRA-10K")
    rows = load_hra(name)["train"]
    assert rows.num_rows == 9 and Path(rows[3]["video"]["path"]).read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_labels_alone_fetch_no_clips(hub: LocalHub, authors: Path):
    name = push(hub, authors, "dev/LiFT-HRA-labels")
    hub.forget_requests()
    rows = load_hra(name, missing_videos="keep", fetch_videos=False)["train"]
    assert rows.num_rows == 9 and rows[0]["video"]["path"] == "videos/a.mp4"
    assert not hub.requests("GET", "HRA_part1.zip")


def test_keeping_rows_without_a_clip_fetches_the_others(hub: LocalHub, authors: Path, tmp_path: Path):
    write_authors_json(authors / "LiFT-HRA-data.json", ["videos/a.mp4", "videos/gone.mp4"])
    rows = load_hra(push(hub, authors, "dev/LiFT-HRA-partly"), missing_videos="keep")["train"]
    assert Path(rows[0]["video"]["path"]).read_bytes() == (tmp_path / "a.mp4").read_bytes()
    assert rows[3]["video"]["path"] == "videos/gone.mp4"


def test_a_repository_cannot_name_files_of_this_machine(hub: LocalHub, tmp_path: Path):
    secret = write_clip(tmp_path / "secret.mp4")
    write_authors_json(tmp_path / "bad" / "data.json", [str(secret)])
    with pytest.raises(BadRowsError, match="no such clip"):
        load_hra(push(hub, tmp_path / "bad", "dev/names-files"))


@pytest.mark.real
def test_the_real_vidgen_rows_come_back_equal(hub: LocalHub, real_data: Path, tmp_path: Path):
    source, expected = hra_file(real_data), conversations(real_data)
    convert(source, tmp_path / "hra", missing_videos="keep", test_fraction=0.1)
    name = push(hub, tmp_path / "hra", "dev/LiFT-HRA-vidgen")
    local, remote = load_dataset(str(tmp_path / "hra")), load_dataset(name)
    assert sum(split.num_rows for split in remote.values()) == len({row.video for row in expected})
    assert {split: rows[:] for split, rows in remote.items()} == {split: rows[:] for split, rows in local.items()}
    went = load_hra(source, missing_videos="keep")["train"]
    back = [row for split in load_hra(name, missing_videos="keep").values() for row in split]

    def key(row: dict[str, object]) -> tuple[str, str]:
        return str(row["video_id"]), str(row["dimension"])

    assert sorted(back, key=key) == sorted(went, key=key) and len(back) == len(expected)
