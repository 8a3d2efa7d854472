"""Spaces as they lie in the repository, and as they stand on the Hub after `lift-trl push`."""

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import RepoCard, snapshot_download
from packaging.requirements import Requirement

from lift_trl.hub.push import push
from lift_trl.hub.push_space import push_space, space_requirements
from tests.hub.fixtures import LocalHub
from tests.structure.source import ROOT


NAMES = ("arena", "annotate", "compare")


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_thin_and_its_card_fits_the_installed_gradio(name: str):
    folder = ROOT / "spaces" / name
    assert len((folder / "app.py").read_text().splitlines()) < 80
    card = RepoCard.load(folder / "README.md").data.to_dict()
    assert card["sdk"] == "gradio" and card["sdk_version"] == version("gradio") and card["app_file"] == "app.py"
    assert card["python_version"] == "3.12"  # of the two that ZeroGPU has, the one that lift_trl runs on
    assert card["hf_oauth"] is True and len(card["short_description"]) <= 60
    described = set(re.findall(r"`([A-Z][A-Z_]+)`", (folder / "README.md").read_text()))
    read = set(re.findall(r'os\.environ(?:\.get)?[\[(]"([A-Z_]+)"', (folder / "app.py").read_text()))
    assert read - {"SPACES_ZERO_GPU"} <= described
    assert any(Requirement(line).name == "lift-trl" for line in (folder / "requirements.txt").read_text().split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_a_space_is_pushed_with_all_that_it_needs(hub: LocalHub, wheel: Path, tmp_path: Path):
    hub.api().create_repo("dev/space-base", exist_ok=True)
    hub.api().create_repo("dev/space-clips", repo_type="dataset", exist_ok=True)
    variables = {"BASE": "dev/space-base", "ADAPTERS": "lift=dev/none", "GALLERY": "base=dev/space-clips@v1"}
    with pytest.raises(ValueError, match="push_space"):
        push(ROOT / "spaces" / "compare", "dev/compare")
    hub.forget_requests()
    pushed = push_space(
        ROOT / "spaces" / "compare",
        "dev/compare",
        variables=variables,
        secrets={"HF_TOKEN": "hf_secret"},
        hardware="zero-a10g",
        wheel=wheel,
    )
    assert pushed.url == f"{hub.endpoint}/spaces/dev/compare"
    api = hub.api()
    assert {name: v.value for name, v in api.get_space_variables("dev/compare").items()} == variables
    assert set(api.get_space_secrets("dev/compare")) == {"HF_TOKEN", "SALT"}
    (created,) = [r for r in hub.requests("POST", "/repos/create") if r.json["name"] == "compare"]
    assert created.json["hardware"] == "zero-a10g"
    order = [r.path for r in hub.requests("POST", "/(variables|secrets|commit/main|hardware)$")]
    assert order[-1].endswith("/commit/main")  # all is set before the first start

    folder = Path(snapshot_download("dev/compare", repo_type="space", cache_dir=tmp_path))
    card = RepoCard.load(folder / "README.md").data.to_dict()
    assert card["models"] == ["dev/space-base"] and card["datasets"] == ["dev/space-clips"]
    with zipfile.ZipFile(wheel) as archive:
        assert all((folder / name).is_file() for name in archive.namelist())
    requirements = (folder / "requirements.txt").read_text().split("\n")
    assert not any(line.startswith("lift") for line in requirements)
    assert any(line.startswith("gradio") for line in requirements) and "spaces" in requirements

    # The Space's own copy of the package is the one that runs there.
    code = (
        "import lift_trl, importlib.metadata; print(lift_trl.__file__); print(importlib.metadata.version('lift-trl'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(folder / "lift_trl/__init__.py"), version("lift-trl")], done.stderr

    # Pushed again: the salt stays, or every anonymous voter would be a new one.
    hub.forget_requests()
    push_space(ROOT / "spaces" / "compare", "dev/compare", wheel=wheel)
    assert hub.requests("POST", "/secrets$") == [] and hub.requests("POST", "/hardware$") == []


def test_requirements_follow_the_extras(wheel: Path):
    plain, arena = (
        space_requirements("lift-trl[ui]\n", wheel),
        space_requirements("lift_trl[ui,eval]\nspaces\n", wheel),
    )
    assert "choix" not in plain and "gradio" in plain and "torch" in plain
    assert "choix" in arena and "krippendorff" in arena and "pytest" not in arena and arena.endswith("spaces\n")
    with pytest.raises(ValueError, match="does not name lift-trl"):
        space_requirements("gradio\n", wheel)
