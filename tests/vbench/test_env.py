"""VBench's weights and its environment: fetched whole or not at all, one failure at a time."""

import subprocess
import zipfile

import pytest

from lift_trl.store.disk.programs import ProgramError
from lift_trl.vbench.env import (
    MARKER,
    VBenchEnvironment,
    check_weight,
    fetch_weight,
    fetch_weights,
    make_environment,
    needed_weights,
    sha256,
)
from lift_trl.vbench.suite import STATIC_FILTER_WEIGHTS, WeightFile


def test_weights_are_fetched_whole_and_hashed(tmp_path, monkeypatch):
    served = tmp_path / "raft.zip"
    with zipfile.ZipFile(served, "w") as archive:
        archive.writestr("models/raft-small.pth", b"other")
        archive.writestr("models/raft-things.pth", b"raft")
    musiq = tmp_path / "musiq.pth"
    musiq.write_bytes(b"musiq")
    wanted = {
        WeightFile("raft_model/models/raft-things.pth", served.as_uri()): ("dynamic_degree",),
        WeightFile("pyiqa_model/musiq.pth", musiq.as_uri(), sha256(musiq)[:8]): ("imaging_quality",),
    }
    monkeypatch.setattr("lift_trl.vbench.env.needed_weights", lambda *args, **kwargs: wanted)
    fetch_weights(("dynamic_degree", "imaging_quality"), tmp_path / "cache")
    assert (tmp_path / "cache" / "raft_model/models/raft-things.pth").read_bytes() == b"raft"
    fetched = tmp_path / "cache" / "pyiqa_model/musiq.pth"
    assert check_weight(fetched, list(wanted)[1]) is None
    fetched.write_bytes(b"truncat")
    assert "not the published file" in check_weight(fetched, list(wanted)[1])


def test_one_failed_download_does_not_stop_the_others(tmp_path, monkeypatch, caplog):
    good, page = tmp_path / "good.pth", tmp_path / "error.zip"
    good.write_bytes(b"good")
    page.write_text("<html>no such file</html>")
    wanted = {
        WeightFile("a/gone.pth", (tmp_path / "gone.pth").as_uri()): ("dynamic_degree",),
        WeightFile("b/repo/hubconf.py", f"git+{(tmp_path / 'no_repo').as_uri()}"): ("subject_consistency",),
        WeightFile("c/raft-things.pth", page.as_uri()): ("dynamic_degree",),
        WeightFile("d/good.pth", good.as_uri()): ("imaging_quality",),
    }
    monkeypatch.setattr("lift_trl.vbench.env.needed_weights", lambda *args, **kwargs: wanted)
    fetch_weights(("dynamic_degree", "imaging_quality"), tmp_path / "cache")
    assert [path.name for path in sorted((tmp_path / "cache").rglob("*")) if path.is_file()] == ["good.pth"]
    for what in ("gone.pth could not be fetched", "no_repo could not be fetched", "what came is no zip"):
        assert what in caplog.text


def test_a_killed_clone_is_begun_again(tmp_path):
    repo = tmp_path / "repo"
    git = ["git", "-C", str(repo), "-c", "user.name=x", "-c", "user.email=x@x"]
    repo.mkdir()
    (repo / "hubconf.py").write_text("whole")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    weight = WeightFile("dino_model/dino_main/hubconf.py", f"git+{repo.as_uri()}")
    path = tmp_path / "cache" / weight.path
    for left in (path.parent, path.parent.with_name(".dino_main.tmp")):
        (left / ".git").mkdir(parents=True)
    fetch_weight(weight, path)
    assert path.read_text() == "whole" and [p.name for p in path.parent.parent.iterdir()] == ["dino_main"]


def test_flickering_needs_raft_only_when_filtered():
    assert needed_weights(["temporal_flickering"]) == {}
    assert tuple(needed_weights(["temporal_flickering"], static_filter=True)) == STATIC_FILTER_WEIGHTS


def test_a_failed_installation_says_why_and_leaves_no_marker(tmp_path):
    with pytest.raises(ProgramError, match="no-such-distribution-of-lift"):
        make_environment(tmp_path / "env", requirements=("--no-index", "no-such-distribution-of-lift"))
    assert not (tmp_path / "env" / MARKER).exists()


def test_nothing_is_installed_into_an_environment_that_is_somebodys_own(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /usr/bin")
    options = {"requirements": ("--no-index", "no-such-distribution-of-lift"), "python": python_3_11(tmp_path)}
    with pytest.raises(FileExistsError, match="venv is not empty; give a new folder"):
        make_environment(tmp_path / "venv", **options)
    assert [path.name for path in (tmp_path / "venv").iterdir()] == ["pyvenv.cfg"]
    for _ in range(2):  # one that was begun here is taken up again
        with pytest.raises(ProgramError, match="own failed"):
            make_environment(tmp_path / "own", **options)


def python_3_11(folder):
    """An interpreter that says that it is Python 3.11, and makes no environment."""
    python = folder / "python3.11"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3 11\n')
    python.chmod(0o755)
    return python


def test_a_python_without_wheels_is_refused_with_the_remedy(tmp_path):
    python = tmp_path / "python3.13"
    python.write_text("#!/bin/sh\necho 3 13\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match="python3.13 is Python 3.13; .*tokenizers<0.14.*--python PATH"):
        make_environment(tmp_path / "env", python=python)
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [("exit 3", "exit code 3: it says nothing"), ("echo >&2 a; echo >&2 no vbench; exit 1", "code 1: a / no vbench"),
     ("echo nothing of JSON", "Expecting value"), ("true", "Expecting value"), ("echo 5", "not iterable")],
)  # fmt: skip
def test_a_python_that_cannot_look_into_itself_is_named_in_one_line(tmp_path, said, message):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{said}\n")
    python.chmod(0o755)
    with pytest.raises(ProgramError, match=f"python cannot run VBench's worker.*{message}.*--python PATH") as failed:
        VBenchEnvironment(python, tmp_path).probe()
    assert "\n" not in str(failed.value)
    if not said.startswith(("exit", "echo >&2")):
        with pytest.raises(ProgramError, match="python: is no Python"):
            make_environment(tmp_path / "env", python=python)
