"""The wheel holds what a user without a checkout needs."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.structure.source import FOREIGN, PACKAGE, RECIPES, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = out.glob("lift_trl-*.whl")
    return built


@pytest.fixture(scope="module")
def wheel_names(wheel) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_the_package_and_the_recipes(wheel_names):
    sources = [(path, "") for path in PACKAGE.rglob("*")] + [(path, "lift_trl/_") for path in RECIPES.rglob("*")]
    expected = {
        prefix + path.relative_to(ROOT).as_posix()
        for path, prefix in sources
        if path.is_file() and FOREIGN.isdisjoint(path.parts)
    }
    assert "lift_trl/_recipes/configs/accelerate/cpu_2.yaml" in expected
    assert expected - wheel_names == set()
    rest = {name for name in wheel_names - expected if ".dist-info/" not in name}
    assert rest == set()


def test_wheel_holds_the_licence_and_the_command(wheel_names):
    endings = {name.split(".dist-info/")[1] for name in wheel_names if ".dist-info/" in name}
    assert {"licenses/LICENSE", "entry_points.txt", "METADATA"} <= endings


@pytest.mark.slow
def test_the_installed_wheel_works_outside_the_checkout(wheel, tmp_path):
    """An environment of its own with the wheel alone; what it requires is read from this one, to spare minutes of torch."""
    environment, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    own = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=work).strip())
    # A line of a .pth adds the folder behind the wheel's own, and runs no .pth file of it: the checkout stays unseen.
    (own / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert output(python, "-c", "import lift_trl; print(lift_trl.__file__)", cwd=work).startswith(str(own))

    assert f"lift_trl: {version('lift_trl')}\n" in output(environment / "bin" / "lift-trl", "env", cwd=work)
    output(environment / "bin" / "lift-trl", "recipes", "recipes", cwd=work)
    assert (work / "recipes" / "align.py").read_bytes() == (RECIPES / "align.py").read_bytes()
    assert "--lora_r" in output(python, "recipes/align.py", "--help", cwd=work)
    (work / "a.mp4").write_bytes(b"not decoded here")
    (work / "metadata.csv").write_text("file_name,prompt,reward\na.mp4,a fox,0.5\n")
    code = (
        "from lift_trl import RewardWeightedVideoTrainer, load_rated_videos; print(load_rated_videos('.')[0].reward())"
    )
    assert output(python, "-c", code, cwd=work) == "0.5\n"


def output(*command: str | Path, cwd: Path) -> str:
    """What a command that must succeed prints, run without this environment's variables of Python."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd, env=env).stdout
