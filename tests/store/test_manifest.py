import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lift_trl.critic.settings import load_settings
from lift_trl.published import published_words
from lift_trl.rubric import LIFT, Dimension
from lift_trl.store.manifest import Artifact, Manifest, command_line, read_rows, write_rows, write_text
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.rubrics.form import rubric_from_plain
from lift_trl.store.sharding import chunks, pending, share
from tests.own_rubric import SIGNS


def test_rows_of_several_processes_merge_in_the_order_asked_for(tmp_path):
    for rank in (1, 0):
        manifest = Manifest(tmp_path, rank=rank)
        for number in range(rank, 6, 2):
            manifest.append({"id": f"u{number}", "value": number})
    manifest = Manifest(tmp_path)
    assert manifest.done_ids() == {f"u{n}" for n in range(6)}
    manifest.merge([f"u{n}" for n in range(6)])
    assert [row["value"] for row in read_rows(tmp_path / "metadata.jsonl")] == list(range(6))
    assert not list((tmp_path / ".parts").glob("*.jsonl"))
    assert Manifest(tmp_path, rank=5).done_ids() == {f"u{n}" for n in range(6)}


def test_a_missing_row_stops_the_merge_and_loses_nothing(tmp_path):
    Manifest(tmp_path).append({"id": "a"})
    with pytest.raises(ValueError, match="1 rows are missing, first 'b'"):
        Manifest(tmp_path).merge(["a", "b"])
    assert Manifest(tmp_path).done_ids() == {"a"}


def test_half_a_line_of_a_killed_process_is_neither_read_nor_built_upon(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.append({"id": "a"})
    part = tmp_path / ".parts" / "rank0.jsonl"
    part.write_bytes(part.read_bytes() + b'{"id": "b", "va')
    assert manifest.done_ids() == {"a"}
    manifest.append({"id": "c"})
    assert [row["id"] for row in read_rows(part)] == ["a", "c"]
    # Killed within a letter of two bytes, or right before the line's end.
    part.write_bytes(part.read_bytes() + '{"id": "d", "prompt": "F\u00fcchse"}'.encode()[:25])
    assert manifest.done_ids() == {"a", "c"}
    manifest.append({"id": "e"})
    part.write_bytes(part.read_bytes() + b'{"id": "f", "n": 2}')
    assert manifest.done_ids() == {"a", "c", "e", "f"}
    manifest.append({"id": "g"})
    assert [row["id"] for row in read_rows(part)] == ["a", "c", "e", "f", "g"]


def test_rows_survive_kill_9_right_after_they_are_appended(tmp_path):
    """A row is durable before append returns: what the process announced is there after SIGKILL."""
    code = (
        "import sys\nfrom lift_trl.store.manifest import Manifest\n"
        f"manifest = Manifest({str(tmp_path)!r})\n"
        "for number in range(100000):\n"
        "    manifest.append({'id': str(number)})\n"
        "    print(number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    announced = [int(process.stdout.readline()) for _ in range(20)]
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    announced += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    done = {int(unit) for unit in Manifest(tmp_path).done_ids()}
    assert set(announced) <= done and len(done) <= len(announced) + 1


def test_broken_lines_name_file_and_line(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"id": "a"}\nnot json\n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2: not JSON"):
        list(read_rows(path))
    path.write_text('{"id": "a"}\n[1]\n')
    with pytest.raises(ValueError, match="line 2: not a JSON object"):
        list(read_rows(path))
    path.write_text('{"id": "a"}\n\n{"id": "b", "va')  # half a row that a person left is no row of nobody
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 3: not JSON"):
        list(read_rows(path))
    with pytest.raises(ValueError, match="line 3: not JSON"):
        Manifest(tmp_path).done_ids()


def test_a_file_as_people_leave_it_has_all_its_rows(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a"}\r\n\r\n{"id": "b"}\r\n{"id": "c"}')
    assert [row["id"] for row in read_rows(path)] == ["a", "b", "c"]
    assert Manifest(tmp_path).done_ids() == {"a", "b", "c"}


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"id": "old"}])
    with pytest.raises(TypeError):
        write_rows(path, [{"id": "new"}, {"id": object()}])
    assert [row["id"] for row in read_rows(path)] == ["old"]
    write_text(path, "")
    assert list(tmp_path.iterdir()) == [path]


def test_artifacts_round_trip_and_other_schemas_are_refused(tmp_path):
    Artifact("cache", {"num_frames": 9}, {"model": "a@b"}, command="lift-trl x").save(tmp_path)
    loaded = Artifact.load(tmp_path)
    assert (loaded.kind, loaded.config, loaded.parents) == ("cache", {"num_frames": 9}, {"model": "a@b"})
    assert loaded.versions["torch"]
    (tmp_path / "artifact.yaml").write_text("kind: cache\nschema_version: 99\n")
    with pytest.raises(ValueError, match="schema version 99, this lift_trl reads 1"):
        Artifact.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished artefact"):
        Artifact.load(tmp_path / "elsewhere")


def test_load_dataset_reads_an_artefact_folder(tmp_path):
    """artifact.yaml is harmless to `datasets`; a visible JSON file beside the rows would not be."""
    from datasets import load_dataset

    Artifact("scored").save(tmp_path)
    write_rows(tmp_path / "metadata.jsonl", [{"id": "a", "reward": 0.5}])
    (tmp_path / ".parts").mkdir()
    assert load_dataset(str(tmp_path), split="train").to_list() == [{"id": "a", "reward": 0.5}]
    assert json.loads((tmp_path / "metadata.jsonl").read_text())["reward"] == 0.5


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_shares_are_disjoint_and_complete(world_size):
    units = [f"u{n}" for n in range(11)]
    parts = [share(units, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(sum(parts, [])) == sorted(units)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_work_begun_by_eight_is_finished_by_three():
    units = [f"u{n}" for n in range(20)]
    done = set(share(units, rank=0, world_size=8) + share(units, rank=5, world_size=8))
    left = pending(units, done)
    finished = [unit for rank in range(3) for unit in share(left, rank=rank, world_size=3)]
    assert done.isdisjoint(finished) and done | set(finished) == set(units)


def test_bad_ranks_and_sizes_are_refused():
    with pytest.raises(ValueError, match="rank=2 is not in"):
        share([], rank=2, world_size=2)
    with pytest.raises(ValueError, match="less than 1"):
        chunks([1], 0)
    assert chunks([1, 2, 3], 2) == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/lift-trl", "convert", "a b.json", "/srv/ada/hra"], "lift-trl convert 'a b.json' hra"),
        (["recipes/align.py", "--config", "x.yaml"], "accelerate launch recipes/align.py --config x.yaml"),
        (["/srv/ada/my.py", "--dir=/srv/ada/out"], "accelerate launch my.py --dir=out"),
        (["my.py", "--hub_token", "hf_a", "--token=hf_b"], "accelerate launch my.py --hub_token ... --token=..."),
        (["my.py", "--systems", "base=/srv/ada/b"], "accelerate launch my.py --systems base=b"),
        (["/v/lib/site-packages/ipykernel_launcher.py", "-f", "k.json"], ""),
        (["-c"], ""),
    ],
)
def test_the_command_is_noted_without_homes_and_tokens(argv, command):
    assert command_line(argv) == command


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--dir=/srv/ada/lr=2/a", "lift=/srv/ada/lr=2/b"], ["--dir=a", "lift=b"]),
        (["FIRST=base=/srv/ada/a,lift=user/b"], ["FIRST=base=b"]),
        (["x=user/a,lift=/srv/ada, b/c"], ["x=user/a,lift=c"]),
        (["--judge_max_new_tokens", "200", "--eos_token", "x"], None),
        (["--api-key", "k", "--hub-token=hf_b", "x"], ["--api-key", "...", "--hub-token=...", "x"]),
        (["--prompts", "https://ada:s@hub.co/p.txt"], ["--prompts", "https://hub.co/p.txt"]),
        (["--prompts", "https://s@hub.co/@v1/p.txt"], ["--prompts", "https://hub.co/@v1/p.txt"]),
        (["hf_AbCdEfGhIjKlMnOpQr"], ["..."]),
        (["https://b.co/p.txt?X-Signature=s&u=ada"], ["https://b.co/p.txt?..."]),
        (["--dataset=s3://KEY:a/b+c@bucket/x"], ["--dataset=s3://bucket/x"]),
        (["s3:/KEY:a@bucket/x"], ["s3:/bucket/x"]),  # a `Path` of a URL has lost a slash
        (["hf://datasets/user/name@v1/x", "user/name@v2", "s3://bucket/ada/x"], None),
        (["file:///srv/ada/clips", "zip://*::/srv/ada/a.zip"], ["clips", "zip://*::a.zip"]),
        (['{"path": "/srv/ada/x", "n": 1}'], ['{"path": "x", "n": 1}']),
        (["a 1/2 cut, and/or blur / noise", "../clips", "runs/a b"], None),
        (["see /srv/ada/clips and go"], ["see clips and go"]),
    ],
)
def test_what_is_published_names_no_folder_of_this_machine_and_no_secret(words, shown):
    assert published_words(words) == (words if shown is None else shown)


def test_an_artefact_is_published_without_folders_and_secrets():
    config = {"critic": "/srv/ada/critic@0123 in int8", "question": "Is it good?", "sizes": [9, 32]}
    parents = {"/srv/ada/base": "0123", "critic": "/srv/ada/critic@0123", "ratings": "datasets/user/hra@" + 40 * "c"}
    command = "accelerate launch recipes/score.py --dataset=/srv/ada/lr=2/x --prompts https://ada:s@hub.co/p --seed 3"
    artifact = Artifact("scored", config, parents, command=command).published()
    assert artifact.config == {**config, "critic": "critic@0123 in int8"}
    assert artifact.parents == {"base": "0123", "critic": "critic@0123", "ratings": parents["ratings"]}
    assert artifact.command == "accelerate launch recipes/score.py --dataset=x --prompts https://hub.co/p --seed 3"


def test_ratings_of_another_rubric_are_refused_by_name(tmp_path):
    """A critic, its ratings and its scores mean something under one rubric only; clips and LoRAs need none."""
    for kind in ("scored", "hra", "critic", "cache", "correction"):
        _save_with_rubric(tmp_path, Artifact(kind, {"dimensions": [d.value for d in Dimension]}), "0123456789abcdef")
        with pytest.raises(
            ValueError, match=f"{kind} artefact of rubric 0123456789abcdef, and this is rubric {LIFT.id}"
        ):
            Artifact.load(tmp_path)
        with pytest.raises(ValueError, match="make the artefact again"):
            load_rated_videos(tmp_path)
        with pytest.raises(ValueError, match="make the artefact again"):
            load_settings(str(tmp_path))
    for kind in ("generated", "lora", "report"):
        _save_with_rubric(tmp_path, Artifact(kind), "0123456789abcdef")
        assert Artifact.load(tmp_path).rubric == LIFT
    Artifact("scored").save(tmp_path)
    assert Artifact.load(tmp_path).rubric == LIFT and LIFT.id == "313e6e7bcfa1464f", "what all artefacts so far say"
    text = (tmp_path / "artifact.yaml").read_text()
    (tmp_path / "artifact.yaml").write_text(text.replace(f"rubric: {LIFT.id}\n", ""))
    assert Artifact.load(tmp_path).rubric == LIFT, "folders made earlier do not say"


def _save_with_rubric(folder: Path, artifact: Artifact, rubric: object) -> None:
    """`artifact.yaml` as one with `rubric` in it would be."""
    artifact.save(folder)
    content = yaml.safe_load((folder / "artifact.yaml").read_text())
    (folder / "artifact.yaml").write_text(yaml.safe_dump(content | {"rubric": rubric}))


def test_an_artefact_of_ones_own_rubric_holds_all_of_it(tmp_path):
    own = rubric_from_plain(SIGNS)
    Artifact("scored", rubric=own).save(tmp_path)
    assert Artifact.load(tmp_path).rubric == own and Artifact.load(tmp_path).is_rated
    stored = yaml.safe_load((tmp_path / "artifact.yaml").read_text())["rubric"]
    assert stored == {"id": own.id, **SIGNS}
    for damaged, message in (
        (stored | {"id": "0123456789abcdef"}, f"has the id 0123456789abcdef, and what it holds {own.id}"),
        ({"id": own.id, "labels": SIGNS["labels"]}, "its rubric is damaged"),
    ):
        _save_with_rubric(tmp_path, Artifact("scored"), damaged)
        with pytest.raises(ValueError, match=message):
            Artifact.load(tmp_path)


def test_an_artefact_that_does_not_name_its_command_is_not_given_the_readers(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipes/score.py"])
    Artifact("scored").save(tmp_path)
    assert Artifact.load(tmp_path).command == "accelerate launch recipes/score.py"
    text = (tmp_path / "artifact.yaml").read_text()
    (tmp_path / "artifact.yaml").write_text(text.replace("command: accelerate launch recipes/score.py\n", ""))
    assert Artifact.load(tmp_path).command == ""
