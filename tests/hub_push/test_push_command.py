"""`lift-trl push`: what it prints, what it refuses, and a collection of all that a run makes."""

import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from lift_trl.cli import main
from lift_trl.critic.settings import CriticSettings
from tests.hub.fixtures import LocalHub
from tests.hub_push.test_push import artefacts  # noqa: F401  (a fixture)
from tests.structure.source import ROOT


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    (folder / "README.md").write_text("---\nlicense: other\ntags:\n- lift\n---\n# runs/lora\n")
    return folder


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "spaces" / "compare", tmp_path / "compare"))


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """As small as a wheel can be."""
    path = tmp_path / "lift_trl-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lift_trl/__init__.py", "")
        archive.writestr("lift_trl-0.dist-info/METADATA", "Name: lift-trl\nRequires-Dist: torch\n")
    return path


def test_what_a_run_makes_is_pushed_into_one_collection(artefacts, lora: Path, hub: LocalHub, tmp_path: Path, capsys):  # noqa: F811
    critic = tmp_path / "critic"
    CriticSettings(num_frames=4).save(critic, parents={})
    made = {**artefacts, "critic": critic, "lora": lora}
    for kind in ("hra", "critic", "generated", "lora"):
        options = [
            "--collection",
            "LiFT: the command",
            *(["--license", "mit"] if kind in ("critic", "lora") else ["--private"]),
        ]
        assert main(["push", str(made[kind]), f"dev/run-{kind}", *options]) == 0
        repo_type = "model" if kind in ("critic", "lora") else "dataset"
        commit = hub.api().repo_info(f"dev/run-{kind}", repo_type=repo_type).sha
        assert capsys.readouterr().out.strip().endswith(f"dev/run-{kind} ({repo_type}, commit {commit[:12]})")
    (found,) = [c for c in hub.api().list_collections(owner="dev") if c.title == "LiFT: the command"]
    items = [(item.item_id, item.item_type, item.note) for item in hub.api().get_collection(found.slug).items]
    assert items == [
        ("dev/run-hra", "dataset", "hra"),
        ("dev/run-critic", "model", "critic"),
        ("dev/run-generated", "dataset", "generated"),
        ("dev/run-lora", "model", "lora"),
    ]
    card = ModelCard.load("dev/run-lora")
    assert card.data.license == "mit" and card.data.tags == ["lift"] and "# dev/run-lora" in card.text
    assert ModelCard.load("dev/run-critic").data.license == "mit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "a/b"], "--base is for Spaces"),
        (["--adapter", "x=a/b", "--critic", "a/c"], "Leave out --adapter, --critic"),
        (["--secret", "NOT_THERE"], "--secret is for Spaces"),
        (["--set", "A"], "--set is for Spaces"),
        (["--hardware", "t4-small"], "--hardware is for Spaces"),
        (["--storage", "dev/x"], "--storage is for Spaces"),
        (["--wheel", "x.whl"], "--wheel is for Spaces"),
    ],
)
def test_an_option_without_effect_is_refused(options, message, lora: Path, hub: LocalHub, capsys):
    assert main(["push", str(lora), "dev/refused", *options]) == 1
    assert message in capsys.readouterr().err
    assert hub.requests() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--license", "mit"], "README.md; change it there"),
        (["--set", "STEPS"], "write --set STEPS=VALUE"),
        (["--secret", "NOT_THERE"], "export it first"),
        (["--set", "VOTES_REPO=dev/votes"], "add --secret HF_TOKEN"),
    ],
)
def test_a_space_that_could_not_work_is_refused(options, message, space, wheel, hub: LocalHub, capsys):
    assert main(["push", str(space), "dev/refused-space", "--wheel", str(wheel), *options]) == 1
    assert message in capsys.readouterr().err
    assert hub.requests("POST", "/repos/create") == []


def test_a_space_starts_with_all_that_it_needs(space, wheel, hub: LocalHub, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    repo, settings = "dev/command-space", ["--set", "VOTES_REPO=dev/votes", "--set", "STEPS=2"]
    command = ["push", str(space), repo, "--base", "dev/base", "--wheel", str(wheel), *settings]
    assert main([*command, "--hardware", "zero-a10g", "--storage", "dev/kept", "--secret", "HF_TOKEN"]) == 0
    assert f"/spaces/{repo} (space, commit " in capsys.readouterr().out
    (created,) = [r.json for r in hub.requests("POST", "/repos/create") if r.json["name"] == "command-space"]
    assert created["hardware"] == "zero-a10g"  # its first start is there already
    (bucket,) = hub.requests("POST", "/api/buckets/")
    assert bucket.path.endswith("/dev/kept") and bucket.json == {"visibility": "private"}
    api = hub.api()
    (volume,) = api.get_space_runtime(repo).volumes
    assert (volume.type, volume.source, volume.mount_path) == ("bucket", "dev/kept", "/data")
    variables = {name: variable.value for name, variable in api.get_space_variables(repo).items()}
    assert variables == {"BASE": "dev/base", "VOTES_REPO": "dev/votes", "STEPS": "2"}
    # Again, on other hardware: its token is known, its volume stays, and the hardware is there before the new files.
    hub.forget_requests()
    (space / "app.py").write_text("print(1)\n")
    assert main([*command, "--hardware", "t4-small"]) == 0
    order = [r.path.rsplit("/", 1)[1] for r in hub.requests("POST", "/(hardware|commit/main)$")]
    assert order == ["hardware", "main"]
    assert api.get_space_runtime(repo).volumes == [volume]


def test_a_card_is_valid_front_matter(lora: Path, hub: LocalHub):
    assert main(["push", str(lora), "dev/front", "--license", "apache-2.0"]) == 0
    text = hub.read("dev/front", "README.md").decode()
    assert yaml.safe_load(text.split("---")[1]) == {"license": "apache-2.0", "tags": ["lift"]}


def test_who_may_see_clips_is_asked(artefacts, hub: LocalHub, capsys):  # noqa: F811
    assert main(["push", str(artefacts["generated"]), "dev/asked"]) == 1
    said = capsys.readouterr().err
    assert "clips go with a generated" in said and "--private, or --public" in said and hub.requests() == []
    assert main(["push", str(artefacts["generated"]), "dev/asked", "--public"]) == 0
    assert hub.api().dataset_info("dev/asked").private is False
