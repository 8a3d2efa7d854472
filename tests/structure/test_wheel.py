"""The wheel holds what a user without a checkout needs."""

import subprocess
import sys
import zipfile

import pytest

from tests.structure.source import FOREIGN, PACKAGE, RECIPES, ROOT


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory) -> set[str]:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = out.glob("lift_trl-*.whl")
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
