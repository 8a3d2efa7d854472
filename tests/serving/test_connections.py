"""Connections that break off and URLs that are none: a clear error, or one clip unscored, and never the clips beside it."""

import http.server
import socket
import threading

import pytest
from fastapi.testclient import TestClient

from lift_trl.records import NativeScore
from lift_trl.serving import server
from lift_trl.serving.client import score_clips
from tests.serving.test_serving import b64, post


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class SizeJudge:
    """The reward is the clip's length in bytes, by a thousand."""

    name = "size@1"

    def score(self, videos, captions, *, with_reason=False):
        return [NativeScore("", self.name, {"size": len(v)}, {"size": len(v) / 1000}) for v in videos]


@pytest.fixture
def says():
    """A server that reads a request, says what it is told to and hangs up; returns its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def start(answer):
        def once():
            connection, _ = listening.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(answer)

        threading.Thread(target=once, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    with listening:
        yield start


@pytest.mark.parametrize(
    "answer",
    [
        OK + b'Content-Length: 500\r\n\r\n{"critic": "x", "sco',
        OK + b'Transfer-Encoding: chunked\r\n\r\n50\r\n{"critic"',
        OK + b"Content-Length: 2\r\n\r\n[]",
        OK + b"Content-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 90\r\n\r\nhalf an err",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_a_server_that_breaks_off_is_a_connection_error_with_its_address(says, answer):
    url = says(answer)
    with pytest.raises(ConnectionError, match=url):
        score_clips(url, ["a fox"], [b"x"], timeout_s=20)


@pytest.fixture
def files(tmp_path):
    """Clips over HTTP, below a folder whose name must be escaped."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    folder = tmp_path / "my clips"
    folder.mkdir()
    for size, name in ((100, "a b.mp4"), (200, "caf\u00e9.mp4"), (300, "50%.mp4")):
        (folder / name).write_bytes(bytes(size))
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


@pytest.mark.parametrize("folder", ["my clips", "my%20clips"])
def test_a_url_may_be_written_as_it_is_read(files, folder):
    base = f"{files}/{folder}"
    names = ("a b.mp4", "a%20b.mp4", "caf\u00e9.mp4", "caf%C3%A9.mp4", "50%25.mp4")
    with TestClient(server.build_app(SizeJudge(), allow_urls=[f"{files}/my clips"])) as client:
        rows = post(client, clips=[{"prompt": "p", "url": f"{base}/{name}"} for name in names]).json()["scores"]
        away = [f"{base}/../x.mp4", f"{base}/\t../x.mp4", f"{base}/%2e%2e/x.mp4", f"{base} too/x.mp4"]
        others = post(client, clips=[{"prompt": "p", "url": url} for url in away]).json()["scores"]
    assert [row["reward"] for row in rows] == [0.1, 0.1, 0.2, 0.2, 0.3]
    assert all("--allow-url" in row["unscored"] for row in others)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://[::1/a.mp4", "Invalid IPv6 URL"),
        ("http://a\u2100b/a.mp4", "invalid characters"),
        ("{base}:port/a.mp4", "--allow-url"),
        ("{base}/a\nb.mp4", "404"),
        ("{base}/" + "a" * 70_000, "414"),
    ],
)
def test_a_url_that_is_none_takes_no_clip_along(files, url, why):
    clips = [{"prompt": "good", "video": b64(bytes(500))}, {"prompt": "p", "url": url.replace("{base}", files)}]
    with TestClient(server.build_app(SizeJudge(), allow_urls=[files]), raise_server_exceptions=False) as client:
        answer = post(client, clips=clips)
    assert answer.status_code == 200
    good, bad = answer.json()["scores"]
    assert good["reward"] == 0.5 and bad["reward"] is None and why in bad["unscored"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + bytes(40), "breaks off after 40 of 500 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nabc", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
        (b"", "closed connection"),
    ],
)
def test_a_clip_that_breaks_off_is_unscored(says, answer, why):
    """Half an mp4 file may well be decoded, as a shorter clip."""
    base = says(answer)
    clips = [{"prompt": "good", "video": b64(bytes(500))}, {"prompt": "p", "url": f"{base}/a.mp4"}]
    with TestClient(server.build_app(SizeJudge(), allow_urls=[base]), raise_server_exceptions=False) as client:
        good, bad = post(client, clips=clips).json()["scores"]
    assert good["reward"] == 0.5 and bad["reward"] is None and why in bad["unscored"]
