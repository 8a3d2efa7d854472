"""The options of `lift-trl estimate`, apart from what counts, so that `--help` costs no torch."""

import argparse

from .recipe import PLANNERS, Recipe


def add_options(parser: argparse.ArgumentParser) -> tuple[argparse.Action, ...]:
    """Config, card and how much there is to do; returns those that name files."""
    config = parser.add_argument("--config", required=True, help="YAML of a recipe")
    parser.add_argument("--gpu", required=True, help="rtx4090, a100-80, h100, ...: a card of the table or of --rates")
    parser.add_argument("--num-gpus", type=int, default=1, help="cards that share the work (default: 1)")
    parser.add_argument("--sharded", action="store_true", help="weights spread over the cards, by ZeRO-3 or FSDP2")
    parser.add_argument("--stage", help="align, cache, ...; by default what the YAML's name begins with")
    parser.add_argument("--memory", type=int, help="GB of a card that the YAML has settings for (by_memory)")
    parser.add_argument("--clips", type=int, default=1000, help="clips to train on, cache or score (default: 1000)")
    parser.add_argument("--videos", type=int, default=1000, help="videos to generate (default: 1000)")
    parser.add_argument("--prompts", type=int, default=1000, help="different prompts among them (default: 1000)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs that a critic learns from too (default: 1000)")
    rates = parser.add_argument("--rates", help="YAML of cards with rates of your own, as benchmarks/gpu.py writes it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return config, rates


def spared_imports(config: str, stage: str | None) -> list[str]:
    """
    Libraries that nothing counted of this YAML runs, and that diffusers, transformers and TRL import where they are: 1 of 4
    CPU seconds. Of scipy they want a schedule's beta distribution and the loss of detectors.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    recipe = Recipe.read(config)
    spared = ["scipy"]
    if b"quantization" not in recipe.path.read_bytes():
        spared.append("torchao")
    stage = stage or recipe.stage
    has_critic = PLANNERS.get(stage) == "critic_planners" or stage == "iterate" or recipe.settings.get("second_judge")
    return spared if has_critic else [*spared, "datasets", "torchvision"]
