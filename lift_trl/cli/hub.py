"""The command that pushes: artefacts, models, Spaces."""

import argparse
import os

from .command import Command, files


def add_commands(command: Command) -> None:
    push = command("push", _push)
    files(push.add_argument("folder", help="output folder of a stage, output_dir of align.py, or a Space's folder"))
    push.add_argument("repo_id", help="user/name, made if it is not there")
    visibility = push.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_true", help="the default for hra and cache, which hold ratings")
    visibility.add_argument("--public", action="store_true", help="visible to everyone")
    push.add_argument("--license", help="for the card; other (the parents' licences hold) by default")
    push.add_argument("--collection", help="title of a collection of the same owner to add it to")
    push.add_argument("--base-model", help="user/name of the base, where a critic or LoRA was trained on a folder")
    space = push.add_argument_group("Spaces")
    space.add_argument("--base", help="base model of the comparison")
    space.add_argument("--adapter", action="append", default=[], help="name=user/lora; may be repeated")
    space.add_argument("--critic", help="critic of the comparison")
    space.add_argument("--gallery", help="base=user/clips,lift=user/clips: clips made beforehand")
    space.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another variable; may be repeated"
    )
    space.add_argument(
        "--secret", action="append", default=[], metavar="NAME", help="secret, taken from the environment"
    )
    space.add_argument("--hardware", help="for instance zero-a10g or t4-small")
    space.add_argument("--storage", metavar="BUCKET", help="storage bucket for /data, so that rows outlive a restart")
    files(space.add_argument("--wheel", help="wheel of lift_trl, where it does not run from a checkout"))


def _push(args: argparse.Namespace) -> int:
    """Pushes a finished artefact, a LoRA or a Space to the Hub, with its card."""
    from ..hub.push import artifact_kind, push
    from ..hub.push_options import check_options
    from ..hub.push_space import push_space

    private = True if args.private else False if args.public else None
    kind = artifact_kind(args.folder)
    check_options(args, kind)
    if kind != "space":
        options = {name: getattr(args, name) for name in ("license", "collection", "base_model")}
        print(push(args.folder, args.repo_id, private=private, **options))
        return 0
    variables = dict(entry.split("=", 1) for entry in args.set)
    named = {"BASE": args.base, "ADAPTERS": ",".join(args.adapter), "CRITIC": args.critic, "GALLERY": args.gallery}
    pushed = push_space(
        args.folder,
        args.repo_id,
        variables={**{name: value for name, value in named.items() if value}, **variables},
        secrets={name: os.environ[name] for name in args.secret},
        hardware=args.hardware,
        storage=args.storage,
        private=private,
        wheel=args.wheel,
        collection=args.collection,
    )
    print(pushed)
    return 0
