"""Commands on models: export, audit, serve."""

import argparse
import logging
from pathlib import Path
from typing import Any, get_args

from ..judges import JUDGES
from ..store.disk.outputs import check_new_file, check_new_folder, check_writable
from ..store.quantization import Quantization
from .command import Command, files


logger = logging.getLogger(__name__)

#: Options that say nothing to a format.
_IDLE = {"diffusers": ("base", "dtype"), "comfyui": ("dtype",)}
#: What the formats of one file write, as `hub.lora.files` names it, which imports torch.
_EXPORTED = {"diffusers": "pytorch_lora_weights.safetensors", "comfyui": "comfyui_lora.safetensors"}


def add_commands(command: Command) -> None:
    export = command("export", _export)
    files(export.add_argument("lora", help="output_dir of align.py, or a checkpoint in it"))
    export.add_argument("--format", required=True, choices=["diffusers", "merged", "comfyui"])
    files(
        export.add_argument("--base", help="Hub id or folder of the base model, for merged; comfyui reads the LoRA's")
    )
    files(export.add_argument("--output", help="folder to write to; by default beside the LoRA"))
    export.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], help="of a merged pipeline; the family's by default"
    )
    audit = command("audit", _audit)
    _add_critic(audit)
    files(audit.add_argument("clips", help="folder of clips that suit their captions, with a metadata file"))
    serve = command("serve", _serve)
    _add_critic(serve)
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


def _add_critic(parser: argparse.ArgumentParser) -> None:
    """What `_reward_model` reads."""
    names = ", ".join(JUDGES)
    files(parser.add_argument("critic", help=f"folder or repo[@revision] of a critic, or a judge[=weights]: {names}"))
    parser.add_argument("--scale", help="a judge's values to [0, 1]: linear:1:5 or normal:0:1; its own by default")
    parser.add_argument("--quantization", choices=get_args(Quantization), help="hold a critic in 8 bits (torchao)")


def _export(args: argparse.Namespace) -> int:
    """A LoRA for other tools."""
    _check_export(args)
    import torch

    from ..hub.lora.files import export_comfyui_lora, export_diffusers_lora
    from ..hub.lora.loading import base_model, export_merged_pipeline
    from ..video_models import StoredPipeline

    output = args.output or args.lora
    if args.format == "diffusers":
        written = export_diffusers_lora(args.lora, output)
    elif args.format == "comfyui":
        family = StoredPipeline(args.base or base_model(args.lora)).adapter
        written = export_comfyui_lora(args.lora, output, module_name=family.comfyui_name)
    else:
        dtype = getattr(torch, args.dtype) if args.dtype else StoredPipeline(args.base).adapter.dtype
        written = export_merged_pipeline(args.lora, args.base, args.output, dtype=dtype)
    print(written)
    return 0


def _check_export(args: argparse.Namespace) -> None:
    """Before anything is loaded: options that are missing or have no effect, and what stands where it would write."""
    if args.format == "merged":
        if args.base is None:
            raise ValueError("--format merged needs --base: the Hub id or folder of the model that was tuned.")
        if args.output is None:
            raise ValueError("--format merged needs --output: the folder of the new pipeline.")
        check_new_folder(args.output)
        return
    idle = [name for name in _IDLE[args.format] if getattr(args, name) is not None]
    if idle:
        named = ", ".join(f"--{name}" for name in idle)
        logger.warning("%s: without effect, --format %s reads nothing of it. Leave it out.", named, args.format)
    check_writable(args.output or args.lora)
    # Beside the LoRA stands what an earlier export made of the same one.
    if args.output is not None and Path(args.output).resolve() != Path(args.lora).resolve():
        check_new_file(Path(args.output) / _EXPORTED[args.format])


def _audit(args: argparse.Namespace) -> int:
    """The critic's sanity suite: swapped captions, blank video, repeated run, frames reversed, another size."""
    from ..alignment.score import read_jobs
    from ..judges.audit import audit

    jobs = read_jobs(args.clips, Path(args.clips))
    captions = [job.caption for job in jobs]
    checks = audit(_reward_model(args), [job.source() for job in jobs], captions)
    for check in checks:
        verdict = {None: "", True: "ok", False: "FAILED"}[check.passed]
        between = "" if check.ci95 is None else f" [{check.ci95[0]:.4f}, {check.ci95[1]:.4f}]"
        print(f"{check.name}: {check.value:.4f}{between} {verdict}  ({check.meaning})")
    return int(any(check.passed is False for check in checks))


def _serve(args: argparse.Namespace) -> int:
    """A critic or judge behind HTTP: mp4 or URL in, JSON out (docs/judges.md)."""
    from ..serving.server import find_token, serve

    token = find_token(args.token_env, args.host)
    model = _reward_model(args)
    print(f"{model.name} at http://{args.host}:{args.port}, {'with' if token else 'without'} a token", flush=True)
    serve(model, args.host, args.port, token=token, batch_size=args.batch_size, allow_urls=args.allow_url)
    return 0


def _reward_model(args: argparse.Namespace) -> Any:
    from ..reward_source import reward_source

    return reward_source(args.critic, scale=args.scale, quantization=args.quantization).load()
