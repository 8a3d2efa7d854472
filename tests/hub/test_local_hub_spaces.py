"""The local Hub's Spaces, collections, schedulers and record of requests, by the real clients."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from datasets import load_dataset
from huggingface_hub import CommitScheduler, SpaceHardware
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.hub.fixtures import LocalHub


def test_commit_scheduler_appends(hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "votes"
    scheduler = CommitScheduler(
        repo_id="dev/votes", folder_path=folder, repo_type="dataset", private=True, every=60, token=hub.token
    )
    try:
        for i in range(3):
            with scheduler.lock, open(folder / "votes.jsonl", "a") as file:
                file.write(f'{{"vote": {i}}}\n')
            scheduler.trigger().result()
        assert scheduler.trigger().result() is None
    finally:
        scheduler.stop()
    commits = hub.api().list_repo_commits("dev/votes", repo_type="dataset")
    assert [commit.title for commit in commits] == ["Scheduled Commit"] * 3 + ["initial commit"]
    assert load_dataset("dev/votes", split="train")["vote"] == [0, 1, 2]


def test_space(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo(
        "dev/arena", repo_type="space", space_sdk="gradio", space_secrets=[{"key": "SALT", "value": "pepper"}]
    )
    api.upload_file(repo_id="dev/arena", repo_type="space", path_in_repo="app.py", path_or_fileobj=b"print(1)")
    api.add_space_variable("dev/arena", "BASE", "dev/base", description="the base model")
    api.add_space_variable("dev/arena", "GONE", "x")
    api.delete_space_variable("dev/arena", "GONE")
    api.add_space_secret("dev/arena", "TOKEN", "hf_very_secret")
    variables = api.get_space_variables("dev/arena")
    assert {key: (variable.value, variable.description) for key, variable in variables.items()} == {
        "BASE": ("dev/base", "the base model")
    }
    assert api.space_info("dev/arena").sdk == "gradio"
    assert api.get_space_runtime("dev/arena").hardware == "cpu-basic"
    asked = api.request_space_hardware("dev/arena", SpaceHardware.ZERO_A10G)
    assert (asked.hardware, asked.requested_hardware) == ("cpu-basic", "zero-a10g")
    assert api.get_space_runtime("dev/arena").hardware == "zero-a10g"
    assert hub.requests("POST", "/hardware$")[0].json == {"flavor": "zero-a10g"}
    assert api.pause_space("dev/arena").stage == "PAUSED"
    assert api.restart_space("dev/arena").stage == "RUNNING"
    with pytest.raises(BadRequestError, match="abacus"):
        api.request_space_hardware("dev/arena", "abacus")  # type: ignore[arg-type]

    # Secrets are write-only: named, never shown, not even on the server's disk outside its record of requests.
    assert set(api.get_space_secrets("dev/arena")) == {"SALT", "TOKEN"}
    address = f"{hub.endpoint}/api/spaces/dev/arena"
    for path in ("", "/secrets", "/variables", "/runtime"):
        assert "hf_very_secret" not in httpx.get(address + path, headers={"authorization": f"Bearer {hub.token}"}).text
    kept = b"".join(path.read_bytes() for path in (hub.root / "repos/spaces/dev/arena").rglob("*") if path.is_file())
    assert b"hf_very_secret" not in kept and b"pepper" not in kept
    with pytest.raises(HfHubHTTPError) as refused:
        hub.api(token=False).get_space_secrets("dev/arena")
    assert refused.value.response.status_code == 401


def test_collection(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/in-collection")
    made = api.create_collection("LiFT: a run", description="four artefacts", private=True)
    assert api.create_collection("LiFT: a run", exists_ok=True).slug == made.slug
    api.add_collection_item(made.slug, "dev/in-collection", "model", note="the LoRA")
    api.add_collection_item(made.slug, "2412.04814", "paper")
    api.add_collection_item(made.slug, "2412.04814", "paper", exists_ok=True)
    with pytest.raises(HfHubHTTPError) as missing:
        api.add_collection_item(made.slug, "dev/none", "dataset")
    assert missing.value.response.status_code == 404
    items = api.get_collection(made.slug).items
    assert [(item.item_id, item.item_type, item.note) for item in items] == [
        ("dev/in-collection", "model", "the LoRA"),
        ("2412.04814", "paper", None),
    ]
    api.update_collection_item(made.slug, items[1].item_object_id, position=0)
    api.delete_collection_item(made.slug, items[0].item_object_id)
    assert [item.item_id for item in api.get_collection(made.slug).items] == ["2412.04814"]
    assert made.slug in [found.slug for found in api.list_collections(owner="dev")]  # beside those of other tests
    stranger = hub.api(hub.add_user("stranger"))
    assert made.slug not in [found.slug for found in stranger.list_collections(owner="dev")]
    assert api.update_collection_metadata(made.slug, private=False).private is False
    with pytest.raises(HfHubHTTPError) as refused:
        stranger.add_collection_item(made.slug, "dev/in-collection", "model")
    assert refused.value.response.status_code == 403


def test_requests_are_recorded_as_sent_also_from_child_processes(hub: LocalHub) -> None:
    code = "from huggingface_hub import HfApi; print(HfApi().create_repo('dev/child', private=True))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == f"{hub.endpoint}/dev/child"
    (request,) = hub.requests("POST", "^/api/repos/create$")
    assert request.json == {"name": "child", "organization": "dev", "visibility": "private"}
    assert request.headers["authorization"] == f"Bearer {hub.token}"

    hub.api().upload_file(repo_id="dev/child", path_in_repo="x", path_or_fileobj=b"hi", commit_message="title")
    header, file = hub.requests("POST", "/commit/main$")[0].json_lines
    assert header["value"]["summary"] == "title"
    assert file == {"key": "file", "value": {"content": "aGk=", "path": "x", "encoding": "base64"}}
    # Also what is not served is recorded.
    assert httpx.post(f"{hub.endpoint}/api/jobs/dev", json={"flavor": "t4-small"}).status_code == 404
    assert hub.requests("POST", "^/api/jobs/")[0].json == {"flavor": "t4-small"}
