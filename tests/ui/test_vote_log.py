"""No vote is lost, none counts twice: through double clicks, kill -9, restarts, a full disk and a Hub that fails."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from lift_trl.ui.tally import Answer, Tally
from lift_trl.ui.vote_log import VoteLog, vote_id
from tests.hub.fixtures import LocalHub


def votes(*names: str) -> list[dict[str, str]]:
    return [{"id": vote_id(name, "pair", None), "voter": name} for name in names]


def hub_rows(hub: LocalHub, repo: str) -> list[dict[str, str]]:
    """Every row of every segment on the Hub, as it stands there: nothing is merged."""
    names = [n for n in hub.api().list_repo_files(repo, repo_type="dataset") if n.startswith("votes/")]
    texts = [hub.read(repo, name, repo_type="dataset").decode() for name in names]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def voters(rows: list[dict[str, str]]) -> list[str]:
    return sorted(row["voter"] for row in rows)


def test_a_vote_is_one_row_of_a_voter_an_item_and_a_dimension():
    ids = {vote_id(v, i, d) for v in "ab" for i in "cd" for d in ("motion", None)}
    assert len(ids) == 8
    assert vote_id("a", "c", None) == vote_id("a", "c", "")


def test_a_double_click_counts_once_and_the_first_vote_stands(tmp_path):
    with VoteLog(tmp_path) as log:
        first, again = {"id": "1", "choice": "a"}, {"id": "1", "choice": "b"}
        assert log.add([first, again]) == 1
        assert log.add([again]) == 0
        assert log.rows() == [first] and "1" in log
    assert VoteLog(tmp_path).rows() == [first]


def test_an_item_is_done_when_a_person_has_answered_each_of_its_questions(tmp_path):
    """Rows of another version, or of a page with fewer questions, may be a part of the answers."""
    given = [("ada", "x", "motion"), ("bob", "x", "motion"), ("ada", "x", "overall"), ("ada", "y", "motion")]
    with VoteLog(tmp_path) as log:
        tally = Tally(log, lambda row: Answer(*row["answer"]), num_answers=2)
        log.add([{"id": str(number), "answer": answer} for number, answer in enumerate(given)])
        assert tally.people() == {"x": {"ada"}}
        log.add([{"id": "9", "answer": ("bob", "x", "overall")}])
        assert tally.people() == {"x": {"ada", "bob"}}
        assert set(tally.given("ada", "y")) == {"motion"}


def test_rows_are_on_the_disk_when_add_returns_even_after_kill_9(tmp_path):
    code = (
        "import sys, time; from lift_trl.ui.vote_log import VoteLog\n"
        "log = VoteLog(sys.argv[1]); log.add([{'id': '1'}, {'id': '2'}]); print('added', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"added\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [row["id"] for row in VoteLog(tmp_path).rows()] == ["1", "2"]


def test_half_a_line_of_a_killed_process_was_never_acknowledged(tmp_path):
    (tmp_path / "old.jsonl").write_text('{"id": "1"}\n{"id": "2", "cho')
    log = VoteLog(tmp_path)
    assert [row["id"] for row in log.rows()] == ["1"]
    assert log.add([{"id": "2"}]) == 1  # the person votes again
    assert {row["id"] for row in VoteLog(tmp_path).rows()} == {"1", "2"}


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path):
    code = (
        "import resource, sys; from lift_trl.ui.vote_log import VoteLog\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = VoteLog(sys.argv[1]); log.add([{'id': '1'}])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))\n"
        "try: log.add([{'id': '2', 'reason': 'long enough to pass the limit'}])\n"
        "except OSError: print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print(log.add([{'id': '2'}]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "1"]
    assert sorted(row["id"] for row in VoteLog(tmp_path).rows()) == ["1", "2"]
    assert sorted(path.read_text() for path in tmp_path.glob("*.jsonl")) == ['{"id": "1"}\n', '{"id": "2"}\n']


def test_after_any_error_of_the_disk_no_row_joins_a_broken_line(tmp_path):
    code = (
        "import resource, signal, sys; from lift_trl.ui.vote_log import VoteLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = VoteLog(sys.argv[1]); log.add([{'id': '1'}])\n"
        "import lift_trl.ui.vote_log as module, io\n"
        "class Disk(io.FileIO):\n"
        "    def truncate(self, size=None): raise OSError('not even that')\n"
        "module.open = lambda path, mode, buffering: Disk(path, mode)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))\n"
        "try: log.add([{'id': '2', 'reason': 'long enough to pass the limit'}])\n"
        "except OSError: print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "print(log.add([{'id': '2'}]), log.add([{'id': '3'}]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "1", "1"]
    texts = sorted(path.read_text() for path in tmp_path.glob("*.jsonl"))
    assert texts == ['{"id": "1"}\n{"id": "', '{"id": "2"}\n{"id": "3"}\n']
    assert {row["id"] for row in VoteLog(tmp_path).rows()} == {"1", "2", "3"}


def test_whoever_read_n_rows_goes_on_from_there(hub: LocalHub, tmp_path):
    repo = "dev/votes-index"
    with VoteLog(tmp_path / "old", repo_id=repo) as log:
        log.add(votes("ada"))
    hub.kill()
    log = VoteLog(tmp_path / "new", repo_id=repo, interval_s=3600)
    log.add(votes("bob"))
    assert [row["voter"] for row in log.rows()] == ["bob"]
    hub.start()
    log.flush()  # the old machine's rows come after those that were read
    assert [row["voter"] for row in log.rows(1)] == ["ada"]
    log.close()


def test_decisions_go_to_a_folder_of_their_own(hub: LocalHub, tmp_path):
    from datasets import load_dataset

    repo = "dev/votes-and-decisions"
    card = "---\nconfigs:\n- config_name: default\n  data_files: votes/*.jsonl\n---\n"
    with VoteLog(tmp_path / "votes", repo_id=repo, card=card) as log:
        log.add(votes("ada"))
    with VoteLog(tmp_path / "decisions", repo_id=repo, directory="decisions") as log:
        log.add([{"id": "d", "row_id": "x", "decided": True}])
    assert load_dataset(repo, split="train")["voter"] == ["ada"]
    with VoteLog(tmp_path / "again", repo_id=repo, directory="decisions") as log:
        assert log.rows() == [{"id": "d", "row_id": "x", "decided": True}]


def test_votes_reach_a_private_dataset_with_its_card(hub: LocalHub, tmp_path):
    from datasets import load_dataset

    card = "---\nconfigs:\n- config_name: default\n  data_files: votes/*.jsonl\n---\n# Votes\n"
    with VoteLog(tmp_path, repo_id="dev/votes-card", card=card, interval_s=0.05) as log:
        log.add(votes("ada", "bob"))
        deadline = time.monotonic() + 20
        while log.num_pending and time.monotonic() < deadline:
            time.sleep(0.02)
        assert log.num_pending == 0
        log.add(votes("cyd"))
    assert voters(hub_rows(hub, "dev/votes-card")) == ["ada", "bob", "cyd"]
    assert hub.api().repo_info("dev/votes-card", repo_type="dataset").private is True
    assert sorted(load_dataset("dev/votes-card", split="train")["voter"]) == ["ada", "bob", "cyd"]


def test_a_failing_hub_loses_nothing_and_doubles_nothing(hub: LocalHub, tmp_path):
    log = VoteLog(tmp_path, repo_id="dev/votes-fail", interval_s=3600)
    log.add(votes("ada"))
    hub.fail_next("POST", "/commit/", status=500, times=1)
    with pytest.raises(HfHubHTTPError):
        log.flush()
    assert log.num_pending == 1
    # The answer is lost after the commit was made: it is sent again, and replaces itself.
    hub.lose_next_answer("POST", "/commit/")
    with pytest.raises(HTTPError):
        log.flush()
    log.add(votes("bob"))
    log.flush()
    log.flush()  # nothing to do: no commit
    assert voters(hub_rows(hub, "dev/votes-fail")) == ["ada", "bob"]
    assert len(hub.requests("POST", "/commit/")) == 3


def test_a_hub_that_is_down_at_the_start_is_joined_later(hub: LocalHub, tmp_path):
    hub.kill()
    log = VoteLog(tmp_path, repo_id="dev/votes-down", interval_s=0.05)
    log.add(votes("ada"))
    assert log.num_pending == 1
    hub.start()
    deadline = time.monotonic() + 30
    while log.num_pending and time.monotonic() < deadline:
        time.sleep(0.05)
    log.close()
    assert voters(hub_rows(hub, "dev/votes-down")) == ["ada"]


def test_a_restart_on_the_same_disk_sends_what_was_pending(hub: LocalHub, tmp_path):
    repo = "dev/votes-restart"
    log = VoteLog(tmp_path, repo_id=repo, interval_s=3600)
    log.add(votes("ada"))
    log.flush()
    log.add(votes("bob"))  # never committed: as if killed here
    again = VoteLog(tmp_path, repo_id=repo, interval_s=3600)
    assert voters(hub_rows(hub, repo)) == ["ada", "bob"]
    assert again.add(votes("ada", "bob")) == 0
    hub.forget_requests()
    VoteLog(tmp_path, repo_id=repo, interval_s=3600)
    assert hub.requests("POST", "/commit/") == []  # nothing is new, nothing is sent


def test_a_new_machine_knows_the_votes_of_the_old_one(hub: LocalHub, tmp_path):
    repo = "dev/votes-moved"
    with VoteLog(tmp_path / "old", repo_id=repo) as log:
        log.add(votes("ada"))
    with VoteLog(tmp_path / "new", repo_id=repo) as log:
        assert voters(log.rows()) == ["ada"]
        assert log.add(votes("ada", "bob")) == 1
    assert voters(hub_rows(hub, repo)) == ["ada", "bob"]


def test_a_vote_given_while_the_hub_could_not_be_read_is_not_there_twice(hub: LocalHub, tmp_path):
    repo = "dev/votes-blind"
    with VoteLog(tmp_path / "old", repo_id=repo) as log:
        log.add(votes("ada"))
    hub.kill()
    log = VoteLog(tmp_path / "new", repo_id=repo, interval_s=3600)
    assert log.add(votes("ada", "bob")) == 2  # the new machine cannot know
    hub.start()
    log.flush()
    assert voters(hub_rows(hub, repo)) == ["ada", "bob"]
    assert voters(log.rows()) == ["ada", "bob"]


def test_two_machines_never_delete_each_others_rows(hub: LocalHub, tmp_path):
    repo = "dev/votes-two"
    one, two = (VoteLog(tmp_path / name, repo_id=repo, interval_s=3600) for name in ("one", "two"))
    one.add(votes("ada", "bob"))
    two.add(votes("ada", "cyd"))
    one.flush()
    two.flush()
    for name, voter in (("one", "dan"), ("two", "eve")):
        with VoteLog(tmp_path / name, repo_id=repo, interval_s=3600) as log:
            log.add(votes(voter))
    assert set(voters(hub_rows(hub, repo))) == {"ada", "bob", "cyd", "dan", "eve"}


def test_a_segment_ends_after_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("lift_trl.ui.vote_log.MAX_SEGMENT_ROWS", 2)
    log = VoteLog(tmp_path)
    for name in "abcde":
        log.add(votes(name))
    sizes = sorted(len(path.read_text().splitlines()) for path in Path(tmp_path).glob("*.jsonl"))
    assert sizes == [1, 2, 2]
    assert len(VoteLog(tmp_path).rows()) == 5
