"""Options of `lift-trl push` that have no effect on what is pushed or no value, and the one that people must give."""

import argparse
import os
from pathlib import Path

from .gallery import GALLERY, validation_pairs


def check_options(args: argparse.Namespace, kind: str) -> None:
    """Raises `ValueError` for an option without effect or value, and for clips of which nobody said who may see them."""
    names = ("base", "adapter", "critic", "gallery", "set", "secret", "hardware", "storage", "wheel")
    given = [f"--{name}" for name in names if getattr(args, name)]
    if kind != "space" and given:
        raise ValueError(
            f"{given[0]} is for Spaces, and {args.folder} is a {kind} artefact. Leave out {', '.join(given)}."
        )
    if kind == "space" and (args.license or args.base_model):
        raise ValueError(f"--license, --base-model: a Space's page is {args.folder}/README.md; change it there.")
    if not (args.private or args.public) and (clips := _clips_inside(Path(args.folder), kind)):
        raise ValueError(
            f"{args.folder}: {clips} go with a {kind}. Say who may see them: --private, or --public for everyone."
        )
    for entry in args.set:
        if "=" not in entry:
            raise ValueError(f"--set {entry}: no value; write --set {entry}=VALUE.")
    for name in args.secret:
        if name not in os.environ:
            raise ValueError(f"--secret {name}: not in the environment; export it first (values are never arguments).")


def _clips_inside(folder: Path, kind: str) -> str:
    """What people should decide about, in words; nothing where the default is private, or no clip is inside."""
    if kind in ("generated", "report"):
        return "clips"
    if kind == "lora" and ((folder / GALLERY).is_dir() or validation_pairs(folder)):
        return "clips of its card"
    return ""
