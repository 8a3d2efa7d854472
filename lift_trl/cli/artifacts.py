"""Commands on data and artefacts: validate, convert, inspect, prompts."""

import argparse
from pathlib import Path

from ..importing import importing
from ..store.disk.outputs import check_new_file, check_new_folder, check_writable, write_new_text
from .command import Command, files


def add_commands(command: Command) -> None:
    validate = command("validate", _validate)
    files(validate.add_argument("path", help="folder with metadata.jsonl, .csv or .parquet, or LiFT-HRA in any form"))
    validate.add_argument(
        "--no-decode", action="store_true", help="do not decode the clips (faster; misses truncated files)"
    )
    files(validate.add_argument("--videos", help="folder of the clips of a LiFT-HRA file, if not beside it"))
    validate.add_argument("--missing-videos", choices=["raise", "keep", "drop"], default="raise")
    _add_rubric(validate, "PATH")
    convert = command("convert", _convert)
    files(convert.add_argument("src", help="folder, file or Hub dataset"))
    files(convert.add_argument("dst", help="new folder"))
    convert.add_argument("--revision", help="branch, tag or commit of a Hub dataset")
    convert.add_argument("--source", choices=["synthetic", "real"], help="of clips that do not say")
    files(convert.add_argument("--videos", help="folder of the clips, if not beside the file"))
    convert.add_argument("--video-column", help="of a file of clips with captions")
    convert.add_argument("--caption-column", help="of a file of clips with captions")
    convert.add_argument("--missing-videos", choices=["raise", "keep", "drop"], default="raise")
    convert.add_argument("--bad-rows", choices=["raise", "drop"], default="raise", help="drop lists them in a file")
    convert.add_argument("--test-fraction", type=float, help="share of the clips that form the split test")
    convert.add_argument("--train-on", help="HRA whose clips form train; the rest is test")
    _add_rubric(convert, "SRC")
    inspect = command("inspect", _inspect)
    files(inspect.add_argument("path", help="an artefact, a folder of clips, the arena's votes, or a LoRA folder"))
    prompts = command("prompts", _prompts)
    files(prompts.add_argument("path", help="text file, one prompt a line"))
    prompts.add_argument("--num", type=int, default=500, help="how many (default: 500)")
    prompts.add_argument("--seed", type=int, default=0)
    prompts.add_argument("--model", help="chat model that words them; a template without")


def _add_rubric(parser: argparse.ArgumentParser, data: str) -> None:
    words = f"YAML of your own rubric; that of rubric.yaml in {data}, or LiFT's, by default"
    files(parser.add_argument("--rubric", help=words))


def _validate(args: argparse.Namespace) -> int:
    """Lists every bad row of a folder of clips or of LiFT-HRA with the reason, and what the others are good for."""
    with importing():
        from ..feedback.validate import validate

    checked = validate(
        args.path,
        video_dir=args.videos,
        missing_videos=args.missing_videos,
        rubric=args.rubric,
        decode=not args.no_decode,
    )
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
    with importing():
        from ..feedback.convert import convert

    check_new_folder(args.dst)
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
    from ..store.inspect import inspect_artifact

    for line in inspect_artifact(args.path):
        print(line)
    return 0


def _prompts(args: argparse.Namespace) -> int:
    """Writes long prompts drawn from the paper's categories, one a line, for recipes/generate.py."""
    from ..feedback.prompts import chat_model_expander, draw_prompts

    check_writable(Path(args.path).parent)
    if args.model:  # which words them for minutes
        check_new_file(args.path)
    expand = chat_model_expander(args.model) if args.model else None
    prompts = draw_prompts(args.num, seed=args.seed, expand=expand)
    write_new_text(args.path, "".join(f"{prompt}\n" for prompt in prompts))
    print(f"{len(prompts)} prompts in {args.path}. Next: recipes/generate.py --prompts {args.path}")
    return 0
