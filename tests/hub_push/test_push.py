"""Every artefact kind goes to the Hub whole, with its card, and comes back by the real clients."""

import json
import os
import re
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, ModelCard, RepoCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from lift_trl.hub.artifact_cards import artifact_card, ratings_card, votes_card
from lift_trl.hub.push import artifact_kind, push
from lift_trl.hub.pushing.files import artifact_files, note_what_stays
from lift_trl.hub.pushing.repository import insist
from lift_trl.records import hra_features
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import Artifact, read_rows, write_rows
from lift_trl.store.video_io import write_video
from lift_trl.ui.page import Settings
from lift_trl.ui.shown import Shown
from lift_trl.ui.vote_log import VoteLog
from tests.hub.fixtures import LocalHub
from tests.processes import Job


BASE_COMMIT, CRITIC_COMMIT, DATA_COMMIT = "a" * 40, "b" * 40, "c" * 40
PARENTS = {
    "zai-org/CogVideoX-2b": BASE_COMMIT,
    "critic": f"user/critic@{CRITIC_COMMIT}",
    "ratings": f"datasets/user/hra@{DATA_COMMIT}",
    "runs/base": "0123456789abcdef",  # a folder of that name, by its content
}
CONFIG = {"seed": 7, "num_frames": 9}
LABELS = {dimension.value: Label.GOOD.value for dimension in Dimension}


def clip(path: Path, shade: int = 0) -> Path:
    write_video(path, np.full((9, 32, 32, 3), shade, np.uint8), fps=8)
    return path


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small finished artefact of every dataset kind."""
    root = tmp_path_factory.mktemp("artefacts")
    generated = root / "generated"
    rows = []
    for number in range(2):
        clip(generated / f"{number}.mp4", 90 * number)
        row = {"id": f"clip-{number}", "file_name": f"{number}.mp4", "prompt": "a fox | a hen", "seed": number}
        rows.append({**row, "model": "zai-org/CogVideoX-2b@aaaa", "adapter": None, "num_frames": 9, "height": 32})
    write_rows(generated / "metadata.jsonl", rows)
    scored = root / "scored"
    verdict = {**LABELS, "reward": 0.9, "expected_reward": 0.8, "unscored": None, "critic": "user/critic@bbbb"}
    unscored = {"reward": None, "expected_reward": None, "unscored": "no frame", "critic": "user/critic@bbbb"}
    write_rows(
        scored / "metadata.jsonl",
        [{"id": "clip-0", "prompt": "a fox", **verdict}, {"id": "clip-1", "prompt": "a hen", **unscored}],
    )
    report = root / "report"
    report.mkdir()
    (report / "report.md").write_text("# Evaluation\n\nThe LoRA wins 60 %.\n")
    (report / "report.json").write_text('{"win": 0.6}')
    for folder in (generated, scored, report):
        Artifact(folder.name, CONFIG, PARENTS, command="lift-trl made this").save(folder)
    _hra(root / "hra")
    return {path.name: path for path in root.iterdir()}


def _hra(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    video = clip(folder / "x.mp4").read_bytes()
    (folder / "x.mp4").unlink()
    rating = {"reason": "So it is.", "annotator": "ada", "created_at": None, "ui_version": None}
    row = {
        "id": "clip-0",
        "video": {"bytes": video, "path": "clip-0.mp4"},
        "caption": "a fox",
        "source": "synthetic",
        "annotations": [{"dimension": name, "label": label, **rating} for name, label in LABELS.items()],
    }
    (folder / "data").mkdir()
    table = pa.Table.from_pylist([row], schema=hra_features().arrow_schema)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    Artifact("hra", CONFIG, PARENTS).save(folder)


def snippet(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(code)


def _print_to(path: Path, code: str) -> None:
    os.chdir(path.parent)
    with path.open("w") as file, redirect_stdout(file):
        exec(code, {"__name__": "__main__"})


def run_snippet(card: str, folder: Path) -> str:
    """What the card's snippet prints, run as it stands by somebody who has installed the package."""
    printed = folder / "printed.txt"
    Job(folder / "snippet.log", _print_to, printed, snippet(card)).finish()
    return printed.read_text()


@pytest.mark.parametrize(
    ("kind", "printed"), [("hra", "a fox"), ("generated", "a fox | a hen"), ("scored", "clip-0"), ("report", "60 %")]
)
def test_a_dataset_comes_back_as_it_went(kind: str, printed: str, artefacts, hub: LocalHub, tmp_path: Path):
    repo = f"dev/push-{kind}"
    pushed = push(artefacts[kind], repo, private=False if kind in ("generated", "report") else None)
    assert (pushed.url, pushed.repo_type) == (f"{hub.endpoint}/datasets/{repo}", "dataset")
    info = hub.api().repo_info(repo, repo_type="dataset")
    assert info.sha == pushed.commit
    assert info.private is (kind == "hra")  # people's ratings
    back = Path(snapshot_download(repo, repo_type="dataset", cache_dir=tmp_path))
    there = {p.relative_to(back).as_posix() for p in back.rglob("*") if p.is_file()} - {"README.md", ".gitattributes"}
    sent = {
        p.relative_to(artefacts[kind]).as_posix(): p.read_bytes() for p in artefacts[kind].rglob("*") if p.is_file()
    }
    assert there == set(sent)
    assert all((back / name).read_bytes() == data for name, data in sent.items())

    card = (back / "README.md").read_text()
    assert ("```bash\nlift-trl made this\n```" in card) is (kind != "hra")  # made from Python
    for wanted in (f"`{BASE_COMMIT}`", "seed: 7", "license: other", "Limits"):
        assert wanted in card, wanted
    links = dict(re.findall(r"^\| \[(.+?)\]\((.+?)\) \|", card, re.MULTILINE))
    assert links == {
        "zai-org/CogVideoX-2b": f"{hub.endpoint}/zai-org/CogVideoX-2b/tree/{BASE_COMMIT}",
        "critic": f"{hub.endpoint}/user/critic/tree/{CRITIC_COMMIT}",
        "ratings": f"{hub.endpoint}/datasets/user/hra/tree/{DATA_COMMIT}",
    }
    assert "| `base` | `0123456789abcdef` |" in card
    assert "lift_trl" in card and "huggingface_hub" in card.split("Versions:")[1]
    assert printed in run_snippet(card, tmp_path)


@pytest.mark.parametrize("kind", ["votes", "ratings"])
def test_what_a_page_collects_is_read_by_its_card(kind: str, hub: LocalHub, tmp_path: Path):
    repo = f"dev/page-{kind}"
    card = {"votes": votes_card(repo, "base", "lift"), "ratings": ratings_card(repo, "dev/clips")}[kind]
    with VoteLog(tmp_path / "log", repo_id=repo, card=card) as log:
        log.add([{"id": "0", "choice": "tie", "reason": None}, {"id": "1", "choice": "a", "reason": "So it is."}])
    assert RepoCard.load(repo, repo_type="dataset").content == card
    assert run_snippet(card, tmp_path).startswith("2 {'id': '0', 'choice': 'tie'")


def test_figures_of_the_cards(artefacts, hub: LocalHub):
    push(artefacts["scored"], "dev/push-figures")
    card = hub.read("dev/push-figures", "README.md", repo_type="dataset").decode()
    assert "| mean reward | 0.9000 |" in card and "| unscored | 1 |" in card
    assert f"| {Dimension.MOTION_SMOOTHNESS.words} | 1 | 0 | 0 |" in card
    push(artefacts["hra"], "dev/push-hra-figures")
    card = hub.read("dev/push-hra-figures", "README.md", repo_type="dataset").decode()
    assert "| ratings | 3 |" in card and "| raters | 1 |" in card


def test_a_push_that_is_interrupted_shows_nothing_and_goes_on(artefacts, hub: LocalHub, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lift_trl.hub.pushing.repository._ATTEMPTS", 1)
    folder = tmp_path / "generated"
    folder.mkdir()
    for path in artefacts["generated"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    # Above 1 MiB the local Hub wants LFS: files that go ahead of the commit.
    for number in range(2):
        (folder / f"{number}.mp4").write_bytes(np.random.default_rng(number).bytes(2_000_000))
    repo = "dev/push-interrupted"
    hub.cut_next("POST", "/commit/", after_bytes=50)
    with pytest.raises(HTTPError):
        push(folder, repo, private=False)
    assert hub.api().list_repo_files(repo, repo_type="dataset") == [
        ".gitattributes"
    ]  # nothing half-written is visible
    sent = [r for r in hub.requests("PUT") if "lfs" in r.path]
    assert len(sent) == 2
    hub.forget_requests()
    push(folder, repo, private=False)
    assert [r for r in hub.requests("PUT") if "lfs" in r.path] == []  # the clips are there, they are not sent again
    assert {"0.mp4", "1.mp4", "metadata.jsonl", "artifact.yaml"} < set(
        hub.api().list_repo_files(repo, repo_type="dataset")
    )
    assert len(hub.requests("POST", "/commit/")) == 1


def test_failures_that_pass_are_waited_for(artefacts, hub: LocalHub, monkeypatch):
    monkeypatch.setattr("lift_trl.hub.pushing.repository.time.sleep", lambda seconds: None)
    hub.fail_next("POST", "/commit/", status=500, times=2)
    push(artefacts["scored"], "dev/push-500")
    hub.lose_next_answer("POST", "/commit/")
    (artefacts["scored"] / "LICENSE").write_text("x")
    push(artefacts["scored"], "dev/push-500")
    (artefacts["scored"] / "LICENSE").unlink()
    titles = [c.title for c in hub.api().list_repo_commits("dev/push-500", repo_type="dataset")]
    assert titles.count("Push scored") == 2  # the lost answer's commit is there, and was not made twice
    hub.add_user("reader", role="read")
    with pytest.raises(HfHubHTTPError) as refused:
        push(artefacts["scored"], "dev/push-refused", token="hf_reader_read")
    assert refused.value.response.status_code in (401, 403)
    calls = []
    with pytest.raises(ValueError, match="no"):
        insist(lambda: calls.append(1) or (_ for _ in ()).throw(ValueError("no")))
    assert calls == [1]


def test_a_smaller_dataset_leaves_no_stale_shard(artefacts, hub: LocalHub, tmp_path: Path):
    repo, larger = "dev/push-stale", tmp_path / "hra"
    shutil.copytree(artefacts["hra"], larger)
    shutil.copy(larger / "data/train-00000-of-00001.parquet", larger / "data/train-00001-of-00002.parquet")
    push(larger, repo)
    push(artefacts["hra"], repo)
    assert [n for n in hub.api().list_repo_files(repo, repo_type="dataset") if n.endswith(".parquet")] == [
        "data/train-00000-of-00001.parquet"
    ]


def test_large_artefacts_go_in_parts_that_are_no_artefact(artefacts, hub: LocalHub, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lift_trl.hub.pushing.repository._ATTEMPTS", 1)
    monkeypatch.setattr("lift_trl.hub.push.BATCH", 2)
    folder, repo = tmp_path / "generated", "dev/push-parts"
    shutil.copytree(artefacts["generated"], folder)
    rows = list(read_rows(folder / "metadata.jsonl"))
    for name in ("2.mp4", "3.mp4"):
        (folder / name).write_bytes(name.encode())
        rows.append({**rows[0], "id": name, "file_name": name})
    write_rows(folder / "metadata.jsonl", rows)

    def files() -> set[str]:
        return set(hub.api().list_repo_files(repo, repo_type="dataset")) - {".gitattributes"}

    hub.api().create_repo(repo, repo_type="dataset")
    hub.cut_next("POST", "/commit/", after_bytes=50)
    with pytest.raises(HTTPError):
        push(folder, repo, private=False)
    assert files() == set()
    hub.slow_next("POST", "/commit/", delay_s=0)
    hub.cut_next("POST", "/commit/", after_bytes=50)
    with pytest.raises(HTTPError):
        push(folder, repo, private=False)
    assert files() == {"0.mp4", "1.mp4"}
    push(folder, repo, private=False)
    whole = {"0.mp4", "1.mp4", "2.mp4", "3.mp4", "metadata.jsonl", "artifact.yaml", "README.md"}
    titles = [c.title for c in hub.api().list_repo_commits(repo, repo_type="dataset")]
    assert files() == whole
    assert titles == [
        "Push generated",
        "Push generated: part 2 of 2",
        "Push generated: part 1 of 2",
        "initial commit",
    ]
    # The same again with other files: what is under way is no artefact, and what is gone does not stay.
    (folder / "3.mp4").unlink()
    (folder / "2.mp4").write_bytes(b"new")
    hub.slow_next("POST", "/commit/", delay_s=0)
    hub.cut_next("POST", "/commit/", after_bytes=50)
    with pytest.raises(HTTPError):
        push(folder, repo, private=False)
    assert files() == whole - {"artifact.yaml"}
    push(folder, repo, private=False)
    assert files() == whole - {"3.mp4"} and hub.read(repo, "2.mp4", repo_type="dataset") == b"new"


@pytest.mark.parametrize("kind", ["scored", "report"])
def test_what_is_pushed_names_no_folder_of_this_machine(kind: str, artefacts, hub: LocalHub, tmp_path: Path):
    folder, repo = tmp_path / kind, f"dev/placeless-{kind}"
    shutil.copytree(artefacts[kind], folder)
    parents = {**PARENTS, "judge": "/srv/ada/judge@0123456789abcdef", "base": f"/srv/ada/model@{BASE_COMMIT}"}
    command = "accelerate launch recipes/score.py --dataset=s3://KEY:SECRET@bucket/clips --out=/srv/ada/lr=2/out"
    Artifact(kind, {**CONFIG, "critic": "/srv/ada/critic@0123"}, parents, command=command).save(folder)
    if kind == "scored":
        rows = [{**row, "critic": "/srv/ada/critic@0123"} for row in read_rows(folder / "metadata.jsonl")]
        write_rows(folder / "metadata.jsonl", rows)
    push(folder, repo, private=False)
    for name in hub.api().list_repo_files(repo, repo_type="dataset"):
        text = hub.read(repo, name, repo_type="dataset").decode()
        assert "ada" not in text.replace("metadata", "") and "SECRET" not in text, name
    assert "critic@0123" in hub.read(repo, "README.md", repo_type="dataset").decode()
    assert Artifact.load(folder).parents == parents  # where it was, a run finds it again


def test_what_a_page_collects_names_no_folder_of_this_machine():
    card = votes_card("dev/votes", "base=/srv/ada/lr=2/clips", "lift=user/clips@v1")
    assert "`base=clips`" in card and "`lift=user/clips@v1`" in card and "ada" not in card
    assert "`clips`" in ratings_card("dev/ratings", "/srv/ada/clips")


#: Of a folder with everything in it, what goes by its kind.
GOES = {
    "hra": ["data/train-0.parquet"],
    "generated": ["metadata.jsonl", "videos/_0.mp4"],
    "scored": ["metadata.jsonl"],
    "cache": ["metadata.jsonl", "pairs.jsonl", "shards/0.parquet", "text/0.safetensors"],
    "report": ["model-index.yaml", "report.html", "report.json", "report.md"],
    "critic": ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "evaluation.jsonl"]
    + ["evaluation.md", "merges.txt", "preprocessor_config.json", "pytorch_lora_weights.safetensors", "tokenizer.json"],
    "lora": ["adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors", "run.json"]
    + ["transformer/config.json", "transformer/model.safetensors"],
    "space": ["app.py", "clips/a.mp4", "helpers/__init__.py", "requirements.txt", "shown/runs/a.mp4"]
    + ["src/core/model.py", "token.py", "tokenizer.json"],
}  # fmt: skip
EVERY_KIND = ["LICENSE", "README.md", "artifact.yaml"]
NEVER = [
    ".env",
    ".parts/rank0.jsonl",
    "videos/.env",
    "videos/.cache/token",
    "__pycache__/a.pyc",
    "src/__pycache__/a.py",
]
NEVER += [
    "a.tmp",
    "src/a.pyc",
    "checkpoint-3/model.safetensors",
    "_cache/train/metadata.jsonl",
    "runs/events",
    "logs/a.txt",
]
NEVER += [
    "train.log",
    "data/nohup.out",
    "slurm-7.out",
    "token.txt",
    "transformer/secrets.json",
    "wandb/run-1/config.yaml",
]
NEVER += ["tb/events.out.tfevents.1", "core", "transformer/key.pem"]
RUNS = ["validation/00-a/base.mp4", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"]
RUNS += ["old/pytorch_model.bin", "trainer_state.json", "notes.md", "of_no_row.mp4", "data/old/train-0.parquet"]


@pytest.mark.parametrize("kind", GOES)
def test_what_lies_beside_an_artefact_stays_here(kind: str, tmp_path: Path, caplog):
    """Tokens, logs, caches with people's ratings, states, halves of files, whatever else somebody left there."""
    beside = [*NEVER, *([] if kind == "space" else RUNS)]
    everything = {name for names in GOES.values() for name in names} if kind != "space" else GOES["space"]
    for name in (*everything, *EVERY_KIND, *beside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "videos/_0.mp4"}\n{"file_name": null}\n')
    goes = {*GOES[kind], *EVERY_KIND} | ({"metadata.jsonl"} if kind == "space" else set())
    assert set(artifact_files(tmp_path, kind)) == goes
    note_what_stays(tmp_path, kind, goes)
    assert f"are no part of a {kind} and stay here" in caplog.text


@pytest.mark.parametrize("data_dir", [None, "my votes"])
def test_what_people_said_in_a_spaces_folder_stays_here(data_dir: str | None, tmp_path: Path, monkeypatch):
    """A try on a laptop, in the folder that is pushed; git leaves it out too. A `.gitignore` of one's own hides nothing."""
    kept = ["README.md", "app.py", "clips/a.mp4"]
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / ".gitignore").write_text("*\n")
    for name in kept:
        (tmp_path / name).write_text("x")
    for name in ("DATA_DIR", "SPACE_ID", "SALT"):
        monkeypatch.delenv(name, raising=False)
    if data_dir is not None:
        monkeypatch.setenv("DATA_DIR", data_dir)
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env("annotate")
    settings.identity()
    own = settings.data_dir / "clips" / ".gitignore"
    own.parent.mkdir()
    own.write_bytes(b"# caf\xe9")
    votes = settings.log()
    for log in (votes, settings.log(directory="decisions"), Shown(votes)._log):
        log.add([{"id": "1", "voter": "hf:ada", "choice": "a"}])
    (settings.clips_dir() / "of_a_private_dataset.mp4").write_text("x")
    (tmp_path / "space_data" / "arena" / "votes").mkdir(parents=True)
    (tmp_path / "space_data" / "arena" / "votes" / "of_before.jsonl").write_text('{"voter": "hf:ada"}\n')
    assert list(artifact_files(tmp_path, "space")) == kept
    assert own.read_bytes().startswith(b"# caf\xe9\n#") and own.read_bytes().count(b"names of people") == 1
    shutil.rmtree(tmp_path / "space_data" / "arena")
    subprocess.run(["git", "init", "-q"], check=True)
    listed = subprocess.run(["git", "add", "-A", "-n"], check=True, capture_output=True, text=True).stdout
    assert "app.py" in listed and "jsonl" not in listed and "salt" not in listed and "private" not in listed


def test_a_folder_that_the_hub_would_refuse_is_refused_first(artefacts, hub: LocalHub, monkeypatch):
    monkeypatch.setattr("lift_trl.hub.push._MAX_FOLDER_FILES", 3)
    with pytest.raises(ValueError, match="5 files, and the Hub takes 3.*in parts"):
        push(artefacts["generated"], "dev/push-many", private=True)
    assert hub.requests("POST") == []


@pytest.mark.parametrize(
    ("kind", "private", "there", "message"),
    [("hra", None, False, "is public.*--public"), ("generated", False, True, "is private.*--private")],
)
def test_nothing_becomes_public_by_accident(kind, private, there, message, artefacts, hub: LocalHub):
    repo = f"dev/push-visible-{kind}"
    hub.api().create_repo(repo, repo_type="dataset", private=there)
    with pytest.raises(ValueError, match=message):
        push(artefacts[kind], repo, private=private)
    assert hub.requests("POST", "/commit/") == []
    push(artefacts[kind], repo, private=there)


def test_a_reports_page_is_as_visible_as_the_report(artefacts, hub: LocalHub, tmp_path: Path):
    api, folder = hub.api(), tmp_path / "report"
    shutil.copytree(artefacts["report"], folder)
    (folder / "report.html").write_text("<h1>Evaluation</h1>")
    push(folder, "dev/page-hidden", private=True)
    assert api.repo_info("dev/page-hidden", repo_type="space").private is True
    # Told before anything is sent: the page stands there, and everybody sees it.
    api.create_repo("dev/page-seen", repo_type="space", space_sdk="static")
    with pytest.raises(ValueError, match="dev/page-seen is there and is public, but should be private"):
        push(folder, "dev/page-seen", private=True)
    assert api.list_repo_files("dev/page-seen", repo_type="dataset") == [".gitattributes"]


@pytest.mark.parametrize("kind", ["generated", "report"])
def test_who_may_see_clips_is_asked_in_python_too(kind: str, artefacts, hub: LocalHub):
    hub.api().create_repo(f"dev/asked-{kind}", repo_type="dataset", private=True)
    hub.forget_requests()
    with pytest.raises(ValueError, match=f"clips go with a {kind}.*private=True or private=False"):
        push(artefacts[kind], f"dev/asked-{kind}")
    assert hub.requests() == []


def of_others(hub: LocalHub, repo: str, repo_type: str, files: dict[str, bytes]) -> list[str]:
    api = hub.api()
    api.create_repo(repo, repo_type=repo_type, space_sdk="gradio" if repo_type == "space" else None)
    added = [CommitOperationAdd(name, data) for name, data in files.items()]
    api.create_commit(repo, added, repo_type=repo_type, commit_message="initial commit")
    return sorted(api.list_repo_files(repo, repo_type=repo_type))


@pytest.mark.parametrize("kind", ["hra", "generated", "scored", "report"])
@pytest.mark.parametrize("tags", ["", "tags:\n- lift-trl\n- lift-votes\n"])
def test_what_somebody_else_put_into_a_repository_stays(kind: str, tags: str, artefacts, hub: LocalHub):
    """Another data set of the same name, or another kind of ours: nothing of it is deleted or written over."""
    repo, card = f"dev/mine-{kind}-{len(tags)}", f"---\nlicense: mit\n{tags}---\n# mine\n".encode()
    there = of_others(hub, repo, "dataset", {"README.md": card, "data/train-00000-of-00001.parquet": b"precious"})
    with pytest.raises(ValueError, match=rf"holds README.md, data/train.*no {kind}.*another repository.*lift-{kind}"):
        push(artefacts[kind], repo, private=False)
    assert hub.api().list_repo_files(repo, repo_type="dataset") == there
    assert hub.read(repo, "README.md", repo_type="dataset") == card
    with_tag = b"---\ntags: [lift-" + kind.encode() + b"]\n---\n"
    hub.api().upload_file(path_or_fileobj=with_tag, path_in_repo="README.md", repo_id=repo, repo_type="dataset")
    push(artefacts[kind], repo, private=False)  # what the message says to do


def test_a_report_does_not_take_an_apps_place(artefacts, hub: LocalHub, tmp_path: Path):
    folder, repo = tmp_path / "report", "dev/app"
    shutil.copytree(artefacts["report"], folder)
    (folder / "report.html").write_text("<h1>Evaluation</h1>")
    app = b"---\ntitle: app\nsdk: gradio\nsdk_version: 6.31.0\ntags:\n- lift-space\n---\nmine"
    there = of_others(hub, repo, "space", {"README.md": app, "app.py": b"print(1)"})
    with pytest.raises(ValueError, match=r"dev/app \(space\) holds README.md, app.py: no report"):
        push(folder, repo, private=False)
    assert hub.api().list_repo_files(repo, repo_type="space") == there
    assert hub.api().list_repo_files(repo, repo_type="dataset") == [".gitattributes"]


def test_a_repository_that_was_made_on_the_hubs_page_is_filled(artefacts, hub: LocalHub):
    hub.api().create_repo("dev/made-there", repo_type="dataset")
    push(artefacts["scored"], "dev/made-there")
    push(artefacts["scored"], "dev/made-there")


def test_a_collection_ties_the_artefacts_together(artefacts, hub: LocalHub):
    for kind in ("hra", "generated", "scored"):
        push(artefacts[kind], f"dev/tied-{kind}", collection="LiFT: one run", private=True)
    push(artefacts["hra"], "dev/tied-hra", collection="LiFT: one run")
    (found,) = [c for c in hub.api().list_collections(owner="dev") if c.title == "LiFT: one run"]
    items = hub.api().get_collection(found.slug).items
    assert [(item.item_id, item.note) for item in items] == [
        (f"dev/tied-{k}", k) for k in ("hra", "generated", "scored")
    ]


def test_only_finished_artefacts_are_pushed(artefacts, tmp_path: Path, hub: LocalHub):
    (tmp_path / "metadata.jsonl").write_text("{}\n")
    with pytest.raises(FileNotFoundError, match="neither a finished artefact"):
        push(tmp_path, "dev/none")
    assert {kind: artifact_kind(folder) for kind, folder in artefacts.items()} == {kind: kind for kind in artefacts}
    assert hub.requests("POST", "/api/repos/create") == []


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lift_trl.mini.checkpoints import build_tiny_pipeline

    folder = tmp_path_factory.mktemp("base") / "pipeline"
    build_tiny_pipeline(folder)
    return folder


def test_a_lora_comes_back_by_diffusers(tiny_pipeline: Path, hub: LocalHub, tmp_path: Path):
    import torch
    from diffusers import CogVideoXPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    folder = tmp_path / "lora"
    pipe = CogVideoXPipeline.from_pretrained(tiny_pipeline)
    torch.manual_seed(0)
    pipe.transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q"], init_lora_weights=False))
    pipe.save_lora_weights(folder, get_peft_model_state_dict(pipe.transformer))
    call = 'pipe.load_lora_weights("runs/lora", weight_name="pytorch_lora_weights.safetensors")'
    call += '\npipe.transformer.load_lora_adapter("runs/lora")  # of a pipeline without a loader'
    (folder / "README.md").write_text(
        f"---\nlicense: other\n---\n# runs/lora\n\n```python\n{call}\n```\n![Loss](plots/loss.png)\n"
    )
    (folder / "plots").mkdir()
    for name in ("loss.png", "other.png"):
        (folder / "plots" / name).write_bytes(name.encode())
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"x")
    (folder / "training_args.bin").write_bytes(b"x")
    push(folder, "dev/push-lora")
    assert sorted(hub.api().list_repo_files("dev/push-lora")) == [
        ".gitattributes",
        "README.md",
        "plots/loss.png",
        "pytorch_lora_weights.safetensors",
    ]
    card = ModelCard.load("dev/push-lora").content
    assert "# dev/push-lora" in card and 'load_lora_weights("dev/push-lora"' in card
    assert 'load_lora_adapter("dev/push-lora"' in card
    again = CogVideoXPipeline.from_pretrained(tiny_pipeline)
    again.load_lora_weights("dev/push-lora", weight_name="pytorch_lora_weights.safetensors")
    loaded = get_peft_model_state_dict(again.transformer, adapter_name=next(iter(again.transformer.peft_config)))
    saved = get_peft_model_state_dict(pipe.transformer)
    assert loaded.keys() == saved.keys() and all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_a_critic_comes_back_with_a_card_that_works(hub: LocalHub, tmp_path: Path):
    from lift_trl.critic.settings import CriticSettings
    from lift_trl.mini.checkpoints import build_tiny_vlm

    folder = tmp_path / "critic"
    build_tiny_vlm(folder)
    CriticSettings(num_frames=4).save(folder, parents=PARENTS)
    log = [{"eval_loss": 0.5, "step": 1}, {"eval_accuracy": 0.875, "step": 1}]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    push(folder, "dev/push-critic")
    card = ModelCard.load("dev/push-critic")
    assert card.data.base_model == "zai-org/CogVideoX-2b" and card.data.library_name == "lift_trl"
    assert card.data.datasets == ["user/hra"]
    assert "| eval_accuracy | 0.8750 |" in card.content and "| num frames | 4 |" in card.content
    clip(tmp_path / "fox.mp4")
    printed = run_snippet(card.content, tmp_path)
    assert all(dimension.value in printed for dimension in Dimension)
    assert 0.05 <= float(printed.split()[0]) <= 0.9


def test_a_critic_of_a_folder_has_no_base_model_on_the_hub(tmp_path: Path):
    from lift_trl.critic.settings import CriticSettings

    CriticSettings().save(tmp_path, parents={"runs/base": "0123456789abcdef"})
    data = ModelCard(artifact_card(tmp_path, "dev/critic")).data
    assert data.base_model is None and data.datasets is None


def test_a_cache_streams_back(tiny_pipeline: Path, hub: LocalHub, tmp_path: Path):
    from lift_trl.alignment.data.cache import cache_videos
    from lift_trl.store.rated_videos import load_rated_videos

    clips = tmp_path / "clips"
    clip(clips / "a.mp4")
    write_rows(clips / "metadata.jsonl", [{"file_name": "a.mp4", "prompt": "a red circle", "reward": 0.5}])
    cache = tmp_path / "cache"
    cache_videos(str(tiny_pipeline), load_rated_videos(clips), cache, num_frames=9, height=48, width=48)
    push(cache, "dev/push-cache")
    assert hub.api().repo_info("dev/push-cache", repo_type="dataset").private  # ratings are inside
    card = RepoCard.load("dev/push-cache", repo_type="dataset").content
    assert "| clips | 1 |" in card and str(tmp_path) not in card
    assert run_snippet(card, tmp_path).strip() == "a red circle"


def test_a_reports_page_opens_as_a_space(artefacts, hub: LocalHub, tmp_path: Path):
    folder = shutil.copytree(artefacts["report"], tmp_path / "report")
    (folder / "report.html").write_text("<h1>It helped</h1>")
    push(folder, "dev/report-page", private=True)
    assert hub.read("dev/report-page", "index.html", repo_type="space") == b"<h1>It helped</h1>"
    readme = RepoCard(hub.read("dev/report-page", "README.md", repo_type="space").decode())
    assert readme.data.to_dict()["sdk"] == "static" and "datasets/dev/report-page" in readme.text
    assert hub.api().space_info("dev/report-page").private
    assert RepoCard.load("dev/report-page", repo_type="dataset").data.pretty_name == "report page"
