"""The local Hub when things go wrong: errors, slowness, cut connections, lost answers, kill -9."""

import itertools
import os
import threading

import httpx
import httpx2
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from tests.hub.file_routes import PART_BYTES
from tests.hub.fixtures import LocalHub


def test_a_500_is_retried(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/retry")
    hub.fail_next("PUT", "^/_lfs/", status=500)
    hub.fail_next("POST", "/preupload/", status=503)
    data = os.urandom(1000)
    api.upload_file(repo_id="dev/retry", path_in_repo="x.bin", path_or_fileobj=data)
    assert [request.status for request in hub.requests("PUT", "^/_lfs/")] == [500, 200]
    assert [request.status for request in hub.requests("POST", "/preupload/")] == [503, 200]
    assert hub.read("dev/retry", "x.bin") == data


def test_a_failed_commit_leaves_nothing_and_its_upload_is_not_repeated(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/failing")
    data = os.urandom(1000)
    hub.fail_next("POST", "/commit/", times=None)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as failed:
            api.upload_file(repo_id="dev/failing", path_in_repo="x.bin", path_or_fileobj=data)
        assert failed.value.response.status_code == 500
    assert api.list_repo_files("dev/failing") == [".gitattributes"]
    hub.clear_faults()
    api.upload_file(repo_id="dev/failing", path_in_repo="x.bin", path_or_fileobj=data)
    assert len(hub.requests("PUT", "^/_lfs/")) == 1
    assert hub.read("dev/failing", "x.bin") == data


def test_an_upload_and_a_download_survive_a_cut_connection(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/cut")
    data = os.urandom(12 << 20)
    hub.cut_next("PUT", "^/_lfs/", after_bytes=2_000_000)
    api.upload_file(repo_id="dev/cut", path_in_repo="x.bin", path_or_fileobj=data)
    puts = hub.requests("PUT", "^/_lfs/")
    assert [(put.status, put.fault) for put in puts] == [(None, "cut")] + [(200, None)] * 3
    assert 2_000_000 <= puts[0].body_size < PART_BYTES

    hub.cut_next("GET", "/resolve/", after_bytes=11 << 20)
    assert hub.read("dev/cut", "x.bin") == data
    gets = hub.requests("GET", "/resolve/")
    assert [get.fault for get in gets] == ["cut", None]
    # It went on behind the last whole chunk of 10 MiB that the client had written, not from the beginning.
    assert gets[1].headers["range"] == f"bytes={10 << 20}-"


def test_a_response_is_cut_at_the_byte(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/bytes")
    api.upload_file(repo_id="dev/bytes", path_in_repo="x", path_or_fileobj=b"0123456789")
    hub.cut_next("GET", "/resolve/", after_bytes=3)
    got = b""
    with httpx.stream("GET", f"{hub.endpoint}/dev/bytes/resolve/main/x") as response:
        with pytest.raises(httpx.RemoteProtocolError):
            for chunk in response.iter_raw():
                got += chunk
    assert (got, response.headers["content-length"]) == (b"012", "10")


def test_a_cut_commit_is_not_there_and_a_lost_answer_is(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/lost")
    hub.cut_next("POST", "/commit/", after_bytes=10)
    with pytest.raises(Exception, match="reset|disconnected|closed|Broken pipe"):
        api.upload_file(repo_id="dev/lost", path_in_repo="x", path_or_fileobj=b"1")
    assert api.list_repo_files("dev/lost") == [".gitattributes"]
    hub.lose_next_answer("POST", "/commit/")
    with pytest.raises(Exception, match="reset|disconnected|closed|Broken pipe"):
        api.upload_file(repo_id="dev/lost", path_in_repo="x", path_or_fileobj=b"1")
    assert api.list_repo_files("dev/lost") == [".gitattributes", "x"]
    assert hub.waiting_faults() == []


def test_a_slow_answer(hub: LocalHub) -> None:
    hub.slow_next("GET", "/whoami", delay_s=0.5)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{hub.endpoint}/api/whoami-v2", timeout=0.2)
    assert hub.api().whoami()["name"] == "dev"


def test_acknowledged_commits_survive_kill_9(hub: LocalHub) -> None:
    api = hub.api()
    api.create_repo("dev/killed", private=True)
    api.upload_file(repo_id="dev/killed", path_in_repo="x.bin", path_or_fileobj=b"payload")
    acknowledged: list[str] = []
    enough, stop = threading.Event(), threading.Event()

    def commit_until_stopped() -> None:
        for i in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            operations = [CommitOperationAdd(f"{i}/{part}", f"{i} {part}".encode()) for part in "ab"]
            try:
                api.create_commit("dev/killed", operations, commit_message=str(i))
            except (httpx2.TransportError, HfHubHTTPError):
                continue  # the server died in the middle: this one may be there or not
            acknowledged.append(str(i))
            if len(acknowledged) == 10:
                enough.set()

    client = threading.Thread(target=commit_until_stopped)
    client.start()
    assert enough.wait(timeout=60)
    hub.kill()
    hub.start()
    stop.set()
    client.join(timeout=60)
    assert not client.is_alive()
    files = set(api.list_repo_files("dev/killed"))
    assert {f"{i}/{part}" for i in acknowledged for part in "ab"} <= files
    for commit in api.list_repo_commits("dev/killed"):
        made = {name for name in files if name.startswith(f"{commit.title}/")}
        assert len(made) in (0, 2), commit.title
    assert hub.read("dev/killed", "x.bin") == b"payload"
    with pytest.raises(RepositoryNotFoundError):
        hub.api(token=False).model_info("dev/killed")


def test_a_stopped_hub_refuses_and_comes_back(hub: LocalHub) -> None:
    hub.api().create_repo("dev/back")
    hub.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(hub.endpoint, timeout=5)
    hub.start()
    assert hub.api().repo_exists("dev/back")
