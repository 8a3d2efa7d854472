"""Options of `lift-trl push` that have no effect on what is pushed, or no value."""

import argparse
import os


def check_options(args: argparse.Namespace, kind: str) -> None:
    """Raises `ValueError` for an option without effect or value."""
    names = ("base", "adapter", "critic", "gallery", "set", "secret", "hardware", "storage", "wheel")
    given = [f"--{name}" for name in names if getattr(args, name)]
    if kind != "space" and given:
        raise ValueError(
            f"{given[0]} is for Spaces, and {args.folder} is a {kind} artefact. Leave out {', '.join(given)}."
        )
    if kind == "space" and (args.license or args.base_model):
        raise ValueError(f"--license, --base-model: a Space's page is {args.folder}/README.md; change it there.")
    for entry in args.set:
        if "=" not in entry:
            raise ValueError(f"--set {entry}: no value; write --set {entry}=VALUE.")
    for name in args.secret:
        if name not in os.environ:
            raise ValueError(f"--secret {name}: not in the environment; export it first (values are never arguments).")
