"""Commands on the installation: env, recipes."""

import argparse
import platform
import shutil
from pathlib import Path

from ..importing import importing
from ..store.disk.outputs import check_new_folder
from ..store.manifest import library_versions
from .command import Command, files


def add_commands(command: Command) -> None:
    command("env", _env)
    recipes = command("recipes", _recipes)
    files(recipes.add_argument("path", help="new folder"))


def _env(args: argparse.Namespace) -> int:
    """Versions for a bug report."""
    with importing():
        import torch

    print(f"python: {platform.python_version()} on {platform.platform()}")
    for package, version in library_versions().items():
        print(f"{package}: {version or 'not installed'}")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    print(f"accelerator: {accelerator or 'none'} ({torch.accelerator.device_count()} devices)")
    return 0


def _recipes(args: argparse.Namespace) -> int:
    """Copies the recipes and their YAMLs, for those who installed the wheel."""
    packaged, checkout = Path(__file__).parents[1] / "_recipes", Path(__file__).parents[2] / "recipes"
    source = packaged if packaged.is_dir() else checkout
    target = Path(args.path)
    check_new_folder(target)
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    print(f"recipes in {target}. Next: accelerate launch {target}/align.py --help")
    return 0
