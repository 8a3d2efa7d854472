"""Whatever a command is given, a failure is one line that says what to do, and an exit code: no traceback, no errno."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from lift_trl.cli import main
from lift_trl.store.manifest import METADATA_FILE, Artifact, write_rows
from lift_trl.vbench.plan import Plan
from tests.alignment.conftest import moving_square
from tests.hub.fixtures import LocalHub
from tests.structure.source import RECIPES


#: Nothing can be written there, not even by root; `/proc` is a file system of the kernel's.
NOWHERE = "/proc/x"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    moving_square(folder / "0.mp4", 0)
    write_rows(folder / METADATA_FILE, [{"file_name": "0.mp4", "prompt": "a fox", "reward": 0.5, "id": "a"}])
    return folder


def fails(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line that a command fails with."""
    assert main(list(command)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lift-trl: "), lines
    line = lines[0].removeprefix("lift-trl: ")
    assert not re.search(r"Errno|Traceback|NoneType|object at 0x|^'\w+'$", line), line
    return line


REPORT = ["eval", "report", "--report_dir", "{out}", "--systems", "base={clips}"]
MISSING = {
    "validate": ["validate", "{gone}"],
    "convert": ["convert", "{gone}", "{out}"],
    "inspect": ["inspect", "{gone}"],
    "export": ["export", "{gone}", "--format", "comfyui"],
    "export merged": ["export", "{gone}", "--format", "merged", "--base", "{gone}", "--output", "{out}"],
    "audit": ["audit", "{gone}", "{gone}"],
    "eval plan": ["eval", "plan", "--suite", "{gone}", "--output", "{out}"],
    "eval check": ["eval", "check", "--plan", "{gone}", "--videos", "{gone}"],
    "eval report": ["eval", "report", "--report_dir", "{out}", "--systems", "base={gone}"],
    "eval report, votes": [*REPORT, "--votes", "p={gone}"],
    "eval report, vbench": [*REPORT, "--vbench", "base={gone}"],
    "push": ["push", "{gone}", "dev/x"],
    "mini-rate": ["mini-rate", "{gone}", "{out}"],
}  # fmt: skip


@pytest.mark.parametrize("command", MISSING.values(), ids=MISSING)
def test_a_path_that_is_not_there(command, clips, tmp_path, capsys):
    gone = tmp_path / "gone"
    line = fails(capsys, *(word.format(gone=gone, out=tmp_path / "out", clips=clips) for word in command))
    assert str(gone) in line and not gone.exists()


UNWRITABLE = {
    "convert": ["convert", "{clips}", "{nowhere}"],
    "export": ["export", "{clips}", "--format", "merged", "--base", "{clips}", "--output", "{nowhere}"],
    "eval plan": ["eval", "plan", "--suite", "{clips}", "--output", "{nowhere}"],
    "eval report": ["eval", "report", "--report_dir", "{nowhere}", "--systems", "base={clips}"],
    "recipes": ["recipes", "{nowhere}"],
    "prompts": ["prompts", "{nowhere}/prompts.txt"],
    "mini-world": ["mini-world", "{nowhere}"],
    "mini-rate": ["mini-rate", "{clips}", "{nowhere}"],
}


@pytest.mark.parametrize("place", [NOWHERE, "a file"])
@pytest.mark.parametrize("command", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_path_that_cannot_be_written_to_is_found_before_the_work(command, place, clips, tmp_path, capsys):
    if place == "a file":
        place = str(tmp_path / "file")
        Path(place).write_text("of somebody")
    line = fails(capsys, *(word.format(nowhere=place, clips=clips) for word in command))
    # Found before the work: nothing else that is wrong with these commands is named.
    assert re.search(f"{re.escape(place)}.*: cannot be written to", line), line


#: Each with the files of somebody that stand where it would write.
EXPORT = ["export", "{lora}", "--output", "{out}", "--format"]
REPLACING = {
    "export diffusers": ([*EXPORT, "diffusers"], "pytorch_lora_weights.safetensors"),
    "export comfyui": ([*EXPORT, "comfyui", "--base", "x"], "comfyui_lora.safetensors"),
    "export merged": ([*EXPORT, "merged", "--base", "{out}"], "model_index.json"),
    "convert": (["convert", "{clips}", "{out}"], "notes.txt"),
    "recipes": (["recipes", "{out}"], "notes.txt"),
    "prompts": (["prompts", "{out}/prompts.txt", "--num", "1"], "prompts.txt"),
    "prompts by a model": (["prompts", "{out}/prompts.txt", "--model", "x"], "prompts.txt"),
    "mini-world": (["mini-world", "{out}"], "prompts.txt"),
    "mini-rate": (["mini-rate", "{clips}", "{out}"], "metadata.jsonl"),
    "eval report": (REPORT, "report.md"),
    "eval report beside JSON": (REPORT, "report.json"),
}  # fmt: skip


@pytest.mark.parametrize("command, name", REPLACING.values(), ids=REPLACING)
def test_no_command_replaces_what_is_somebodys_own(command, name, clips, tmp_path, capsys):
    own = tmp_path / "out" / name
    own.parent.mkdir()
    own.write_text('{"of": "somebody"}\n')
    line = fails(capsys, *(word.format(out=own.parent, clips=clips, lora=tmp_path) for word in command))
    assert str(own.parent) in line and re.search("[Nn]ew", line), line
    assert own.read_text() == '{"of": "somebody"}\n' and [*own.parent.iterdir()] == [own]


def test_the_same_prompts_may_be_written_again(tmp_path, capsys):
    """A script that was killed is started again."""
    command = ["prompts", str(tmp_path / "prompts.txt"), "--num", "3"]
    assert main(command) == main(command) == 0
    assert "is there" in fails(capsys, *command, "--seed", "1")


@pytest.mark.parametrize("command", ["mini-world", "mini-rate"])
def test_the_mini_world_goes_on_in_its_own_folder_only_as_it_was_begun(command, clips, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lift_trl_mini").write_text("something else")
    given = ["mini-world"] if command == "mini-world" else ["mini-rate", str(clips)]
    assert "something else" in fails(capsys, *given, str(tmp_path / "out"))


def test_the_ratings_of_other_clips_stay(clips, tmp_path, capsys):
    out, others = tmp_path / "rated", tmp_path / "others"
    assert "no clip of the mini world" in fails(capsys, "mini-rate", str(clips), str(out))
    others.mkdir()
    line = fails(capsys, "mini-rate", str(others), str(out))
    seen = os.path.relpath(clips, out)
    assert f"made with {seen}, not ../others. Name a new folder" in line
    assert f"not {seen} --oracle" in fails(capsys, "mini-rate", str(clips), str(out), "--oracle")


@pytest.mark.parametrize("kind", ["generated", "lora"])
def test_a_report_takes_no_other_artefacts_place(kind, clips, tmp_path, capsys):
    Artifact(kind).save(tmp_path)
    line = fails(capsys, *(word.format(out=tmp_path, clips=clips) for word in REPORT))
    assert f"of kind {kind}" in line and Artifact.load(tmp_path).kind == kind


def test_an_export_warns_of_options_without_effect(tmp_path, capsys, caplog):
    fails(capsys, "export", str(tmp_path), "--format", "diffusers", "--base", "x/y", "--dtype", "float16")
    assert "--base, --dtype: without effect" in caplog.text


def test_a_check_leaves_nothing_behind(tmp_path, clips, capsys):
    fails(capsys, "eval", "report", "--report_dir", str(tmp_path / "a" / "b"), "--systems", "base=/gone")
    assert list(tmp_path.iterdir()) == []


DAMAGED = {
    "cut": "kind: scored\nconfig: {a: [1,",
    "empty": "",
    "a list": "- kind\n",
    "no kind": "schema_version: 1\n",
    "another kind of thing": "kind: [1]\nschema_version: 1\n",
    "no mapping": "kind: scored\nschema_version: 1\nconfig: high\n",
    "an entry too many": "kind: scored\nschema_version: 1\ncolour: red\n",
    "another version": "kind: scored\nschema_version: 99\n",
    "tabs": "kind: scored\n\tconfig: {}\n",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("command", [["inspect", "{folder}"], ["push", "{folder}", "dev/x"]], ids=["inspect", "push"])
def test_a_damaged_artifact(command, text, tmp_path, capsys):
    (tmp_path / "artifact.yaml").write_text(text)
    line = fails(capsys, *(word.format(folder=tmp_path) for word in command))
    assert str(tmp_path / "artifact.yaml") in line and "again" in line


def test_an_artifact_that_is_no_text(tmp_path, capsys):
    (tmp_path / "artifact.yaml").write_bytes(b"kind: scored\nconfig: \xff\xfe\n")
    assert str(tmp_path / "artifact.yaml") in fails(capsys, "inspect", str(tmp_path))


NO_RECIPE = {"no UTF-8": b"critic: \xff\n", "half a YAML": b"critic: [runs/critic\n"}


@pytest.mark.parametrize("content", NO_RECIPE.values(), ids=NO_RECIPE)
def test_estimate_names_a_yaml_that_is_none_and_passes_over_others_beside_it(content, tmp_path, capsys):
    options = ("--gpu", "h100")
    broken = tmp_path / "a" / "score.yaml"
    broken.parent.mkdir()
    broken.write_bytes(content)
    said = (
        f"{broken}, line 1: byte 0xff is not UTF-8" if b"\xff" in content else f"{broken}: is no YAML (while parsing"
    )
    assert said in fails(capsys, "estimate", "--config", str(broken), *options)
    rates = ("--rates", str(broken))
    shipped = str(RECIPES / "configs" / "cogvideox-2b" / "align_rwl.yaml")
    assert said in fails(capsys, "estimate", "--config", shipped, *options, *rates)
    asked = tmp_path / "b" / "score.yaml"
    asked.parent.mkdir()
    asked.write_text("critic: runs/other/critic\nvideos: x\noutput_dir: y\n")
    assert "no YAML beside this one writes it" in fails(capsys, "estimate", "--config", str(asked), *options)


def test_a_python_that_is_none_or_not_there(tmp_path, capsys):
    """Of the step that looks into VBench's environment."""
    Plan((), (), {"dimensions": ["temporal_flickering"]}).save(tmp_path)
    check = ["eval", "check", "--plan", str(tmp_path), "--videos", str(tmp_path), "--python"]
    assert "/bin/false cannot run VBench's worker" in fails(capsys, *check, "/bin/false")
    assert "gone: no such file" in fails(capsys, *check, str(tmp_path / "gone"))


def test_push_while_the_hub_is_down(hub: LocalHub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lift_trl.hub.pushing.repository.time.sleep", lambda seconds: None)
    Artifact("scored").save(tmp_path)
    write_rows(tmp_path / METADATA_FILE, [])
    hub.kill()
    line = fails(capsys, "push", str(tmp_path), "dev/down")
    assert "the Hub cannot be reached" in line and "same command again" in line


def test_the_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"lift-trl {version('lift_trl')}\n"


def test_a_reader_that_stops_early_is_no_error(clips):
    """`lift-trl ... | head -0`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lift_trl.cli", "inspect", str(clips)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env={**os.environ})
    os.close(write)
    assert "Traceback" not in done.stderr


DAMAGED_ROWS = {
    "no text": b"\xff\xfe\x00x\n",
    "no JSON": b"{a\n",
    "a list": b"[1]\n",
    "no file": b'{"prompt": "x", "id": "a"}\n',
    "no prompt": b'{"file_name": "0.mp4", "id": "a"}\n',
    "another rubric": b'{"file_name": "0.mp4", "prompt": "x", "id": "a", "labels": {"plot": "Great"}}\n',
    "nothing": b"",
}
READERS = {
    "mini-rate": ["mini-rate", "{folder}", "{out}"],
    "convert": ["convert", "{folder}", "{out}"],
    "eval report": ["eval", "report", "--report_dir", "{out}", "--systems", "base={folder}"],
    "votes": [*REPORT, "--votes", "p={folder}/metadata.jsonl"],
    "vbench": [*REPORT, "--vbench", "base={folder}/metadata.jsonl"],
    "eval plan": ["eval", "plan", "--suite", "{folder}/metadata.jsonl", "--output", "{out}"],
    "eval check": ["eval", "check", "--plan", "{folder}", "--videos", "{folder}"],
}


@pytest.mark.parametrize("rows", DAMAGED_ROWS.values(), ids=DAMAGED_ROWS)
@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_damaged_rows_name_their_file(command, rows, clips, tmp_path, capsys):
    moving_square(tmp_path / "0.mp4", 0)
    (tmp_path / METADATA_FILE).write_bytes(rows)
    given = [word.format(folder=tmp_path, out=tmp_path / "out", clips=clips) for word in command]
    if main(given) == 0:  # rows without a rating are enough for a report of clips
        assert command[1] == "report" and b"file_name" in rows
        return
    error = capsys.readouterr().err
    assert error.startswith("lift-trl: ") and str(tmp_path) in error and "Traceback" not in error


@pytest.mark.parametrize("rows", [DAMAGED_ROWS[name] for name in ("no text", "no JSON", "a list", "another rubric")])
def test_inspect_names_the_file_of_damaged_rows(rows, tmp_path, capsys):
    Artifact("scored").save(tmp_path)
    (tmp_path / METADATA_FILE).write_bytes(rows)
    assert str(tmp_path / METADATA_FILE) in fails(capsys, "inspect", str(tmp_path))


def test_a_damaged_lora(tmp_path, capsys):
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"xx")
    assert "pytorch_lora_weights.safetensors: damaged" in fails(capsys, "inspect", str(tmp_path))
