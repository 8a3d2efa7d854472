"""The local Hub against the real clients: contents, history and rights."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from datasets import Dataset, Features, Value, Video, load_dataset
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfFileSystem,
    ModelCard,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.file_routes import LFS_THRESHOLD_BYTES, PART_BYTES
from tests.hub.fixtures import LocalHub
from tests.hub.repo_routes import COMMITS_PAGE, EXPANDED_TREE_PAGE


def files_under(folder: str | Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


# Contents


def test_folder_round_trip(hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "up"
    (folder / "sub dir" / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("---\ntags:\n- lift\nlibrary_name: diffusers\n---\n# hello\n")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "sub dir" / "h\u00e9 100%.json").write_text('{"a": 1}')
    (folder / "sub dir" / "deep" / "weights.safetensors").write_bytes(os.urandom(3000))
    (folder / "big.txt").write_bytes(os.urandom(LFS_THRESHOLD_BYTES))
    api = hub.api()
    api.create_repo("dev/round")
    api.upload_folder(repo_id="dev/round", folder_path=folder)

    down = snapshot_download("dev/round", local_dir=tmp_path / "down")
    got = files_under(down)
    assert got.pop(".gitattributes").startswith(b"*.arrow filter=lfs")
    assert got == files_under(folder)

    info = api.model_info("dev/round", files_metadata=True)
    assert (info.tags, info.library_name, info.author) == (["lift"], "diffusers", "dev")
    assert info.siblings is not None
    lfs = {sibling.rfilename for sibling in info.siblings if sibling.lfs is not None}
    assert lfs == {"sub dir/deep/weights.safetensors", "big.txt"}
    assert {sibling.rfilename: sibling.size for sibling in info.siblings}["big.txt"] == LFS_THRESHOLD_BYTES
    assert ModelCard.load("dev/round").text.strip() == "# hello"


def test_lfs_above_the_threshold_once_and_in_parts(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/lfs")
    small, large = os.urandom(LFS_THRESHOLD_BYTES - 1), os.urandom(2 * PART_BYTES + 17)
    for path, data in (("small", small), ("large", large)):
        api.upload_file(repo_id="dev/lfs", path_in_repo=path, path_or_fileobj=data)
    sizes = [request.body_size for request in hub.requests("PUT", "^/_lfs/")]
    assert sizes == [PART_BYTES, PART_BYTES, 17]
    assert hub.read("dev/lfs", "small") == small
    assert hub.read("dev/lfs", "large") == large

    # The bytes are known already: a copy under another name moves none.
    hub.forget_requests()
    api.upload_file(repo_id="dev/lfs", path_in_repo="again", path_or_fileobj=large)
    assert hub.requests("PUT") == []
    assert hub.read("dev/lfs", "again") == large

    # An unchanged file makes no commit.
    num_commits = len(api.list_repo_commits("dev/lfs"))
    api.upload_file(repo_id="dev/lfs", path_in_repo="large", path_or_fileobj=large)
    api.upload_file(repo_id="dev/lfs", path_in_repo="small", path_or_fileobj=small)
    assert len(api.list_repo_commits("dev/lfs")) == num_commits


def test_dataset_round_trip_and_streaming(hub: LocalHub) -> None:
    clips = [os.urandom(2000) for _ in range(5)]
    rows = {"video": [{"bytes": clip, "path": f"{i}.mp4"} for i, clip in enumerate(clips)], "n": list(range(5))}
    dataset = Dataset.from_dict(rows, features=Features({"video": Video(decode=False), "n": Value("int64")}))
    dataset.push_to_hub("dev/clips")
    Dataset.from_dict({"n": [7, 8]}).push_to_hub("dev/clips", config_name="second", split="test")

    loaded = load_dataset("dev/clips", split="train")
    assert loaded.features == dataset.features
    assert [row["video"]["bytes"] for row in loaded] == clips
    assert load_dataset("dev/clips", "second", split="test")["n"] == [7, 8]
    streamed = load_dataset("dev/clips", split="train", streaming=True)
    assert [(row["n"], row["video"]["bytes"]) for row in streamed] == list(enumerate(clips))


def test_models_of_transformers_and_diffusers(hub: LocalHub) -> None:
    from diffusers import CogVideoXTransformer3DModel
    from transformers import BertConfig, BertModel

    sizes = {"num_attention_heads": 1, "attention_head_dim": 16, "num_layers": 1, "text_embed_dim": 8}
    diffuser = CogVideoXTransformer3DModel(**sizes, time_embed_dim=8, sample_width=8, sample_height=8, sample_frames=9)
    bert = BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    models: dict[str, Any] = {"dev/bert": bert, "dev/cog": diffuser}
    for repo_id, model in models.items():
        model.push_to_hub(repo_id, private=True)
        loaded = type(model).from_pretrained(repo_id)
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key


def test_ranges(hub: LocalHub) -> None:
    data = os.urandom(50_000)
    api = hub.api()
    api.create_repo("dev/range")
    api.upload_file(repo_id="dev/range", path_in_repo="a/x.bin", path_or_fileobj=data)
    files = HfFileSystem(token=hub.token)
    with files.open("dev/range/a/x.bin", block_size=1000, cache_type="readahead") as file:
        file.seek(20_000)
        assert file.read(500) == data[20_000:20_500]
    assert "range" in hub.requests("GET", "/resolve/")[-1].headers
    url = f"{hub.endpoint}/dev/range/resolve/main/a/x.bin"
    assert httpx.get(url, headers={"range": "bytes=-10"}).content == data[-10:]
    assert httpx.get(url, headers={"range": "bytes=50000-"}).status_code == 416
    assert files.ls("dev/range/a", detail=False) == ["dev/range/a/x.bin"]


def test_long_listings_come_in_pages(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/pages")
    names = [f"f/{i:03d}" for i in range(EXPANDED_TREE_PAGE + 5)]
    first = api.create_commit(
        "dev/pages", [CommitOperationAdd(name, name.encode()) for name in names], commit_message="all"
    )
    second = api.upload_file(repo_id="dev/pages", path_in_repo="f/000", path_or_fileobj=b"new")
    entries: list[Any] = list(api.list_repo_tree("dev/pages", "f", expand=True))
    assert [entry.path for entry in entries] == names
    assert [entry.last_commit.oid for entry in entries[:2]] == [second.oid, first.oid]
    assert len(hub.requests("GET", "/tree/")) == 2
    assert [item.path for item in api.list_repo_tree("dev/pages")] == [".gitattributes", "f"]

    for i in range(COMMITS_PAGE):
        api.create_commit("dev/pages", [CommitOperationAdd("n", str(i).encode())], commit_message=f"n{i}")
    titles = [commit.title for commit in api.list_repo_commits("dev/pages")]
    assert titles[:2] == [f"n{COMMITS_PAGE - 1}", f"n{COMMITS_PAGE - 2}"]
    assert (len(titles), titles[-1]) == (COMMITS_PAGE + 3, "initial commit")


# History


def test_branches_tags_and_squash(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/refs")
    one = api.upload_file(repo_id="dev/refs", path_in_repo="x", path_or_fileobj=b"1")
    api.create_tag("dev/refs", tag="v1.0")
    api.create_branch("dev/refs", branch="exp/a b", revision=one.oid)
    two = api.upload_file(repo_id="dev/refs", path_in_repo="x", path_or_fileobj=b"2", revision="exp/a b")
    three = api.upload_file(repo_id="dev/refs", path_in_repo="x", path_or_fileobj=b"3")
    for revision, expected in (("v1.0", b"1"), ("exp/a b", b"2"), ("main", b"3"), (one.oid[:9], b"1")):
        assert hub.read("dev/refs", "x", revision=revision) == expected
    refs = api.list_repo_refs("dev/refs")
    assert {ref.ref: ref.target_commit for ref in refs.branches + refs.tags} == {
        "refs/heads/main": three.oid,
        "refs/heads/exp/a b": two.oid,
        "refs/tags/v1.0": one.oid,
    }
    with pytest.raises(HfHubHTTPError) as conflict:
        api.create_branch("dev/refs", branch="exp/a b")
    assert conflict.value.response.status_code == 409
    api.super_squash_history("dev/refs", branch="exp/a b")
    assert len(api.list_repo_commits("dev/refs", revision="exp/a b")) == 1
    assert hub.read("dev/refs", "x", revision="exp/a b") == b"2"
    api.delete_branch("dev/refs", branch="exp/a b")
    api.delete_tag("dev/refs", tag="v1.0")
    for revision in ("exp/a b", "v1.0"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("dev/refs", revision=revision)


def test_what_is_missing_raises_the_right_class(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/some")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("dev/none", "x")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("gpt2")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("dev/some")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("dev/some", "x", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("dev/some", "x")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("dev/some", "folder"))
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit("dev/some", [CommitOperationDelete("x")], commit_message="m")
    with pytest.raises(BadRequestError):
        api.upload_file(repo_id="dev/some", path_in_repo="x", path_or_fileobj=b"", create_pr=True)
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(repo_id="dev/some", path_in_repo="README.md", path_or_fileobj=b"---\na: [\n---\n")
    assert len(api.list_repo_commits("dev/some")) == 1


def test_stale_parent_is_412_and_a_commit_is_all_or_nothing(hub: LocalHub) -> None:
    api = hub.api()
    base = api.create_repo("dev/stale").repo_id
    old = api.model_info(base).sha
    head = api.upload_file(repo_id=base, path_in_repo="x", path_or_fileobj=b"1", parent_commit=old).oid
    with pytest.raises(HfHubHTTPError) as stale:
        api.upload_file(repo_id=base, path_in_repo="y", path_or_fileobj=b"2", parent_commit=old)
    assert stale.value.response.status_code == 412
    operations: list[Any] = [CommitOperationAdd("z", b"3"), CommitOperationDelete("missing")]
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(base, operations, commit_message="half")
    info = api.model_info(base)
    assert info.sha == head
    assert sorted(api.list_repo_files(base)) == [".gitattributes", "x"]


def test_simultaneous_commits_are_all_there(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/crowd")

    def vote(i: int) -> str:
        return api.create_commit("dev/crowd", [CommitOperationAdd(f"v{i}", b"1")], commit_message=f"v{i}").oid

    with ThreadPoolExecutor(16) as pool:
        oids = set(pool.map(vote, range(32)))
    assert {f"v{i}" for i in range(32)} <= set(api.list_repo_files("dev/crowd"))
    assert oids == {commit.commit_id for commit in api.list_repo_commits("dev/crowd")[:-1]}


def test_settings_move_and_delete(hub: LocalHub) -> None:
    api, nobody = hub.api(), hub.api(token=False)
    api.create_repo("dev/old", exist_ok=True)
    api.create_repo("dev/old", exist_ok=True)
    with pytest.raises(HfHubHTTPError) as exists:
        api.create_repo("dev/old")
    assert exists.value.response.status_code == 409
    api.move_repo("dev/old", "dev/new")
    assert (nobody.repo_exists("dev/old"), nobody.repo_exists("dev/new")) == (False, True)
    api.update_repo_settings("dev/new", private=True)
    assert (nobody.repo_exists("dev/new"), api.model_info("dev/new").private) == (False, True)
    api.delete_repo("dev/new")
    assert not api.repo_exists("dev/new")
    api.delete_repo("dev/new", missing_ok=True)


# Rights


def test_a_private_repo_is_invisible_to_strangers(hub: LocalHub) -> None:
    owner, colleague = hub.api(hub.add_user("owner", orgs=["lab"])), hub.api(hub.add_user("colleague", orgs=["lab"]))
    owner.create_repo("lab/ratings", repo_type="dataset", private=True)
    owner.upload_file(repo_id="lab/ratings", repo_type="dataset", path_in_repo="x", path_or_fileobj=b"secret")
    assert colleague.list_repo_files("lab/ratings", repo_type="dataset") == [".gitattributes", "x"]
    assert [found.id for found in colleague.list_datasets(author="lab")] == ["lab/ratings"]
    for stranger in (hub.api(hub.add_user("stranger")), hub.api(token=False)):
        with pytest.raises(RepositoryNotFoundError):
            stranger.dataset_info("lab/ratings")
        with pytest.raises(RepositoryNotFoundError):
            list(stranger.list_repo_tree("lab/ratings", repo_type="dataset"))
        with pytest.raises(RepositoryNotFoundError) as hidden:
            stranger.hf_hub_download("lab/ratings", "x", repo_type="dataset")
        assert hidden.value.response.status_code == 404
        assert list(stranger.list_datasets(author="lab")) == []
    with pytest.raises(RepositoryNotFoundError):
        hub.api(hub.add_user("stranger")).upload_file(
            repo_id="lab/ratings", repo_type="dataset", path_in_repo="y", path_or_fileobj=b""
        )


def test_writing_needs_the_right_token(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/public")
    api.upload_file(repo_id="dev/public", path_in_repo="x", path_or_fileobj=b"1")
    nobody, unknown = hub.api(token=False), hub.api("hf_of_nobody")
    reader, other = hub.api(hub.add_user("dev", role="read")), hub.api(hub.add_user("other"))
    assert (reader.whoami()["name"], reader.whoami()["auth"]["accessToken"]["role"]) == ("dev", "read")
    for client, expected in ((nobody, 401), (unknown, 401), (reader, 403), (other, 403)):
        for write in (
            lambda client: client.upload_file(repo_id="dev/public", path_in_repo="y", path_or_fileobj=b"2"),
            lambda client: client.create_commit("dev/public", [CommitOperationDelete("x")], commit_message="m"),
            lambda client: client.create_branch("dev/public", branch="b"),
            lambda client: client.create_tag("dev/public", tag="t"),
            lambda client: client.super_squash_history("dev/public"),
            lambda client: client.update_repo_settings("dev/public", private=True),
            lambda client: client.move_repo("dev/public", "dev/moved"),
            lambda client: client.delete_repo("dev/public"),
            lambda client: client.create_repo("dev/fresh"),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                write(client)
            assert refused.value.response.status_code == expected
    unsigned = httpx.put(f"{hub.endpoint}/_lfs/models/dev/public/{'0' * 64}?part=all", content=b"x")
    assert unsigned.status_code == 403
    assert nobody.list_repo_files("dev/public") == [".gitattributes", "x"]
    assert len(api.list_repo_commits("dev/public")) == 2
