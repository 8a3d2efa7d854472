"""`lift-trl`: what needs no launcher. Training, generating and scoring are `accelerate launch recipes/...`."""

import argparse
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .estimate.options import add_options
from .store.inspect import inspect_artifact
from .store.manifest import check_writable, library_versions


Command = Callable[[str, Callable[[argparse.Namespace], int]], argparse.ArgumentParser]


def _env(args: argparse.Namespace) -> int:
    """Versions for a bug report."""
    import torch

    print(f"python: {platform.python_version()} on {platform.platform()}")
    for package, version in library_versions().items():
        print(f"{package}: {version or 'not installed'}")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    print(f"accelerator: {accelerator or 'none'} ({torch.accelerator.device_count()} devices)")
    return 0


def _validate(args: argparse.Namespace) -> int:
    """Lists every bad row of a folder of clips or of LiFT-HRA with the reason, and what the others are good for."""
    from .feedback.validate import validate

    checked = validate(args.path, video_dir=args.videos, missing_videos=args.missing_videos, decode=not args.no_decode)
    for problem in checked.problems():
        print(problem)
    if checked.alignment is not None:
        videos, errors = checked.alignment
        real = sum(video.is_real for video in videos)
        print(f"for alignment: {len(videos)} clips can be used ({real} real), {len(errors)} bad rows")
    clips, errors = checked.hra
    ratings = sum(len(clip.annotations) for clip in clips)
    print(f"as LiFT-HRA: {len(clips)} clips with {ratings} ratings can be used, {len(errors)} bad rows")
    return 0 if checked.is_usable else 1


def _convert(args: argparse.Namespace) -> int:
    """Writes LiFT-HRA (any form), or clips with captions, as a folder that `load_dataset` reads."""
    from .feedback.convert import convert

    check_writable(args.dst)
    result = convert(
        args.src,
        args.dst,
        revision=args.revision,
        source=args.source,
        video_dir=args.videos,
        video_column=args.video_column,
        caption_column=args.caption_column,
        missing_videos=args.missing_videos,
        bad_rows=args.bad_rows,
        test_fraction=args.test_fraction,
        train_on=args.train_on,
        rubric=args.rubric,
    )
    for split, count in result.num_clips.items():
        print(f"{split}: {count} clips, {result.num_annotations[split]} ratings")
    print(
        f"{result.folder}: load_dataset({str(result.folder)!r}) reads it; {result.num_missing} clips without their file"
    )
    return 0


def _inspect(args: argparse.Namespace) -> int:
    """What an artefact holds: rows, labels, rewards, unscored, best and worst clips."""
    for line in inspect_artifact(args.path):
        print(line)
    return 0


def _export(args: argparse.Namespace) -> int:
    """A LoRA for other tools."""
    import torch

    from .hub.lora.files import export_comfyui_lora, export_diffusers_lora
    from .hub.lora.loading import base_model, export_merged_pipeline
    from .video_models import StoredPipeline

    output = args.output or args.lora
    check_writable(output)
    if args.format == "diffusers":
        written = export_diffusers_lora(args.lora, output)
    elif args.format == "comfyui":
        family = StoredPipeline(args.base or base_model(args.lora)).adapter
        written = export_comfyui_lora(args.lora, output, module_name=family.comfyui_name)
    elif args.base is None:
        raise ValueError("--format merged needs --base: the Hub id or folder of the model that was tuned.")
    elif args.output is None:
        raise ValueError("--format merged needs --output: the folder of the new pipeline.")
    else:
        dtype = getattr(torch, args.dtype) if args.dtype else StoredPipeline(args.base).adapter.dtype
        written = export_merged_pipeline(args.lora, args.base, args.output, dtype=dtype)
    print(written)
    return 0


def _audit(args: argparse.Namespace) -> int:
    """The critic's sanity suite: swapped captions, blank video, repeated run, frames reversed, another size."""
    from .alignment.score import read_jobs
    from .judges.audit import audit

    jobs = read_jobs(args.clips, Path(args.clips))
    captions = [job.caption for job in jobs]
    checks = audit(_reward_model(args.critic), [job.source() for job in jobs], captions)
    for check in checks:
        verdict = {None: "", True: "ok", False: "FAILED"}[check.passed]
        between = "" if check.ci95 is None else f" [{check.ci95[0]:.4f}, {check.ci95[1]:.4f}]"
        print(f"{check.name}: {check.value:.4f}{between} {verdict}  ({check.meaning})")
    return int(any(check.passed is False for check in checks))


def _reward_model(name: str) -> Any:
    from .critic.lift_critic import LiFTCritic
    from .judges import JUDGES, load_judge
    from .runtime import process_state

    return load_judge(name, device=process_state().device) if name in JUDGES else LiFTCritic.from_pretrained(name)


def _serve(args: argparse.Namespace) -> int:
    """A critic or judge behind HTTP: mp4 or URL in, JSON out (docs/judges.md)."""
    from .serving.server import find_token, serve

    token = find_token(args.token_env, args.host)
    model = _reward_model(args.critic)
    print(f"{model.name} at http://{args.host}:{args.port}, {'with' if token else 'without'} a token", flush=True)
    serve(model, args.host, args.port, token=token, batch_size=args.batch_size, allow_urls=args.allow_url)
    return 0


def _eval(args: argparse.Namespace) -> int:
    """Plan, check or report an evaluation: `lift-trl eval plan --help`."""
    from transformers import HfArgumentParser

    from .report.commands import report
    from .report.inputs import ReportArguments
    from .vbench import commands as vbench

    steps: dict[str, Any] = {
        "plan": vbench.PlanArguments,
        "check": vbench.CheckArguments,
        "report": ReportArguments,
    }
    parser = HfArgumentParser(steps[args.step], prog=f"lift-trl eval {args.step}")
    (settings,) = parser.parse_args_into_dataclasses(args.options)
    if args.step == "plan":
        print(vbench.plan(settings))
    elif args.step == "check":
        found = vbench.check(settings)
        print(found.summary())
        return 0 if found.ok else 1
    else:
        print(f"report: {report(settings)}")
    return 0


def _push(args: argparse.Namespace) -> int:
    """Pushes a finished artefact, a LoRA or a Space to the Hub, with its card."""
    from .hub.push import artifact_kind, push
    from .hub.push_options import check_options
    from .hub.push_space import push_space

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


def _recipes(args: argparse.Namespace) -> int:
    """Copies the recipes and their YAMLs, for those who installed the wheel."""
    packaged, checkout = Path(__file__).parent / "_recipes", Path(__file__).parents[1] / "recipes"
    source = packaged if packaged.is_dir() else checkout
    target = Path(args.path)
    check_writable(target)
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target}: exists and is not empty. Name a new folder; nothing was overwritten.")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    print(f"recipes in {target}. Next: accelerate launch {target}/align.py --help")
    return 0


def _estimate(args: argparse.Namespace) -> int:
    """Memory, largest batch, disk, hours and price of a recipe's YAML, counted without weights and without a GPU."""
    from .estimate.command import estimate

    print(estimate(args))
    return 0


def _prompts(args: argparse.Namespace) -> int:
    """Writes long prompts drawn from the paper's categories, one a line, for recipes/generate.py."""
    from .feedback.prompts import chat_model_expander, draw_prompts
    from .store.manifest import write_text

    check_writable(Path(args.path).parent)
    expand = chat_model_expander(args.model) if args.model else None
    prompts = draw_prompts(args.num, seed=args.seed, expand=expand)
    write_text(args.path, "".join(f"{prompt}\n" for prompt in prompts))
    print(f"{len(prompts)} prompts in {args.path}. Next: recipes/generate.py --prompts {args.path}")
    return 0


def _mini_world(args: argparse.Namespace) -> int:
    """The mini world: tiny checkpoints, rated clips and prompts."""
    from .mini.world import build_world

    check_writable(args.path)
    build_world(args.path, family=args.family)
    print(f"mini world in {args.path}")
    return 0


def _mini_rate(args: argparse.Namespace) -> int:
    """The mini world's raters, or its oracle, rate a folder of its clips."""
    from .mini.world import rate_folder

    check_writable(args.path)
    number = rate_folder(args.clips, args.path, oracle=args.oracle, controls=not args.oracle)
    print(f"{number} clips rated by {'the oracle' if args.oracle else 'the raters'} in {args.path}")
    return 0


def _add_data_commands(command: Command) -> None:
    validate = command("validate", _validate)
    validate.add_argument("path", help="folder with metadata.jsonl, .csv or .parquet, or LiFT-HRA in any form")
    validate.add_argument(
        "--no-decode", action="store_true", help="do not decode the clips (faster; misses truncated files)"
    )
    validate.add_argument("--videos", help="folder of the clips of a LiFT-HRA file, if not beside it")
    validate.add_argument("--missing-videos", choices=["raise", "keep", "drop"], default="raise")
    convert = command("convert", _convert)
    convert.add_argument("src", help="folder, file or Hub dataset")
    convert.add_argument("dst", help="new folder")
    convert.add_argument("--revision", help="branch, tag or commit of a Hub dataset")
    convert.add_argument("--source", choices=["synthetic", "real"], help="of clips that do not say")
    convert.add_argument("--videos", help="folder of the clips, if not beside the file")
    convert.add_argument("--video-column", help="of a file of clips with captions")
    convert.add_argument("--caption-column", help="of a file of clips with captions")
    convert.add_argument("--missing-videos", choices=["raise", "keep", "drop"], default="raise")
    convert.add_argument("--bad-rows", choices=["raise", "drop"], default="raise", help="drop lists them in a file")
    convert.add_argument("--test-fraction", type=float, help="share of the clips that form the split test")
    convert.add_argument("--train-on", help="HRA whose clips form train; the rest is test")
    convert.add_argument("--rubric", help="YAML of your own rubric; that of rubric.yaml in SRC, or LiFT's, by default")


def _add_push(command: Command) -> None:
    push = command("push", _push)
    push.add_argument("folder", help="output folder of a stage, output_dir of align.py, or a Space's folder")
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
    space.add_argument("--wheel", help="wheel of lift_trl, where it does not run from a checkout")


def _add_serve(command: Command) -> None:
    serve = command("serve", _serve)
    serve.add_argument("critic", help="Hub id or folder of a critic; or video_reward, unified_reward, video_score2")
    serve.add_argument(
        "--host", default="127.0.0.1", help="others than this machine need a token (default: 127.0.0.1)"
    )
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--batch-size", type=int, default=8, help="clips that run together (default: 8)")
    serve.add_argument("--token-env", default="LIFT_TRL_TOKEN", metavar="NAME", help="variable with the token")
    serve.add_argument(
        "--allow-url",
        action="append",
        default=[],
        metavar="PREFIX",
        help="fetch clips below this URL; may be repeated",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lift-trl", description=__doc__)
    parser.add_argument("--version", action="version", version=f"lift-trl {library_versions()['lift_trl']}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        sub.set_defaults(run=run)
        return sub

    command("env", _env)
    _add_data_commands(command)
    command("inspect", _inspect).add_argument("path", help="an artefact, a folder of clips, or a LoRA folder")
    export = command("export", _export)
    export.add_argument("lora", help="output_dir of align.py, or a checkpoint in it")
    export.add_argument("--format", required=True, choices=["diffusers", "merged", "comfyui"])
    export.add_argument("--base", help="Hub id or folder of the base model; merged needs it")
    export.add_argument("--output", help="folder to write to; by default beside the LoRA")
    export.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], help="of a merged pipeline; the family's by default"
    )
    audit = command("audit", _audit)
    audit.add_argument("critic", help="Hub id or folder of a critic; or video_reward, unified_reward, video_score2")
    audit.add_argument("clips", help="folder of clips that suit their captions, with a metadata file")
    _add_serve(command)
    evaluation = command("eval", _eval)
    evaluation.add_argument("step", choices=["plan", "check", "report"])
    evaluation.add_argument("options", nargs=argparse.REMAINDER)
    add_options(command("estimate", _estimate))
    _add_push(command)
    command("recipes", _recipes).add_argument("path", help="new folder")
    prompts = command("prompts", _prompts)
    prompts.add_argument("path", help="text file, one prompt a line")
    prompts.add_argument("--num", type=int, default=500, help="how many (default: 500)")
    prompts.add_argument("--seed", type=int, default=0)
    prompts.add_argument("--model", help="chat model that words them; a template without")
    world = command("mini-world", _mini_world)
    world.add_argument("path", help="new folder")
    world.add_argument(
        "--family", choices=["cogvideox", "wan"], default="cogvideox", help="of the video model (default: cogvideox)"
    )
    rate = command("mini-rate", _mini_rate)
    rate.add_argument("clips", help="folder of clips of the mini world, with metadata.jsonl")
    rate.add_argument("path", help="folder of the ratings")
    rate.add_argument("--oracle", action="store_true", help="the oracle's labels and rewards instead of the raters'")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; bad input, a full disk or a Hub that is down is one line on standard error and exit code 1."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except ValueError as error:
        problem = str(error)
    except OSError as error:
        problem = _file_problem(error)
    except _network_error() as error:
        why = re.sub(r"\[Errno -?\d+\] ", "", str(error))
        problem = f"the Hub cannot be reached ({why}). Try the same command again: it goes on where it stopped."
    print(f"lift-trl: {problem}", file=sys.stderr)
    return 1


def _file_problem(error: OSError) -> str:
    """What the system says of a file, file first; of errors that say more, their own words."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror.lower()}. Name another path, or make this one usable."


def _network_error() -> type[Exception]:
    """What every call to the Hub raises that gets no answer. Imported late: most commands need no network."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's own

    return HTTPError


if __name__ == "__main__":
    sys.exit(main())
