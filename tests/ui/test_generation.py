"""Clips on demand where a GPU is only borrowed: what asks for it, for how long, and what does not."""

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lift_trl.hub.lora.files import DIFFUSERS_LORA_FILE
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.records import CriticScore
from lift_trl.ui.compare.generation import PairGenerator


TINY = {"num_frames": 9, "height": 32, "width": 32, "num_inference_steps": 1}
FULL = {"num_frames": 49, "height": 480, "width": 720, "num_inference_steps": 25}


class Spaces:
    """
    Stands in for the module `spaces` of ZeroGPU, which runs a function in another process: what goes in and comes out is
    pickled, and a callable that says the duration gets the same inputs.
    """

    def __init__(self) -> None:
        self.seconds: list[int] = []

    def GPU(self, *, duration: Callable[..., int]) -> Callable[..., Any]:
        def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                self.seconds.append(duration(*args))
                return pickle.loads(pickle.dumps(task(*pickle.loads(pickle.dumps(args)))))

            return run

        return decorate


class Critic:
    """A `RewardModel` that leaves every clip unscored, and counts."""

    def __init__(self) -> None:
        self.num_scored = 0

    def score(self, videos: Any, captions: Any, *, with_reason: bool = False) -> list[CriticScore]:
        self.num_scored += len(videos)
        return [CriticScore(Path(video).stem, "critic", unscored="not asked") for video in videos]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A tiny pipeline and two LoRAs of it."""
    root = tmp_path_factory.mktemp("models")
    build_tiny_pipeline(root / "base", seed=0)
    pipe = DiffusionPipeline.from_pretrained(root / "base")
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    for name in ("lift", "other"):
        pipe.transformer.add_adapter(config, adapter_name=name)
        pipe.save_lora_weights(root / name, get_peft_model_state_dict(pipe.transformer, adapter_name=name))
        pipe.transformer.delete_adapters(name)
    return root / "base", {name: str(root / name) for name in ("lift", "other")}


def generator(
    models: tuple[Path, dict[str, str]], folder: Path, arguments: dict[str, int], **given: Any
) -> PairGenerator:
    base, adapters = models
    pipe = DiffusionPipeline.from_pretrained(base)
    pipe.set_progress_bar_config(disable=True)
    arguments = arguments | {"max_sequence_length": pipe.transformer.config.max_text_seq_length}
    return PairGenerator(pipe, adapters, given.pop("critic", None), arguments, 8, folder, transformer_gb=3.4, **given)


def test_a_gpu_is_borrowed_for_clips_that_are_not_there_and_for_nothing_else(models, tmp_path):
    zero, critic = Spaces(), Critic()
    maker = generator(models, tmp_path, TINY, critic=critic, lend=zero.GPU)
    for prompt, seed, adapter in (("", 1, "lift"), ("x" * 1001, 1, "lift"), ("fox", -1, "lift"), ("fox", 1, "none")):
        with pytest.raises(ValueError, match=r"characters|out of range|no adapter"):
            maker.make(prompt, seed, adapter)
    assert zero.seconds == [] and maker.seconds("fox", 1, "lift") == maker.gpu_seconds("fox", 1, "lift") > 20
    start_s = time.monotonic()
    first = maker.make("fox", 1, "lift")
    took_s = time.monotonic() - start_s
    # Both clips of another prompt will take as long as these two; one of them is there for another LoRA.
    assert maker.seconds("hen", 1, "lift") == pytest.approx(took_s, rel=0.2)
    assert maker.seconds(" fox ", 1, "other") == pytest.approx(maker.seconds("hen", 1, "lift") / 2)
    assert maker.seconds("fox", 1, "lift") == 0
    assert maker.seconds("fox", 1, "none") is None and maker.seconds(" ", 1, "lift") is None
    assert len(zero.seconds) == 1 and critic.num_scored == 2
    assert maker.make(" fox ", 1, "lift") == first
    assert len(zero.seconds) == 1 and critic.num_scored == 2
    other = maker.make("fox", 1, "other")
    assert len(zero.seconds) == 2 and other.paths[0] == first.paths[0]
    assert (
        len({path.read_bytes() for path in (*first.paths, *other.paths)}) == 3
    )  # a base's clip, and one of each LoRA
    # A restart without a critic finds the files, and needs no GPU at all.
    again = generator(models, tmp_path, TINY, lend=zero.GPU).make("fox", 1, "lift")
    assert again.paths == first.paths and again.scores == (None, None) and len(zero.seconds) == 2
    # A clip that was forgotten is made again.
    first.paths[1].unlink()
    assert maker.make("fox", 1, "lift") == first and first.paths[1].is_file() and len(zero.seconds) == 3


def test_the_time_follows_from_steps_size_and_what_is_there(models, tmp_path):
    maker = generator(models, tmp_path, FULL)
    assert maker.seconds("fox", 1, "lift") is None  # on a CPU nobody knows before the first
    # Both clips of a 2B model in 25 steps: within the two minutes a day of a visitor who is not signed in.
    assert maker.gpu_seconds("fox", 1, "lift") == 110
    maker._path("fox", 1, None).touch()
    assert maker.gpu_seconds("fox", 1, "lift") == 65
    assert generator(models, tmp_path, FULL | {"num_inference_steps": 50}).gpu_seconds("fox", 1, "lift") == 200
    assert generator(models, tmp_path, FULL | {"num_frames": 25}).gpu_seconds("fox", 1, "lift") == 66


def test_a_lora_that_is_not_applied_in_full_is_refused(models, tmp_path):
    base, adapters = models
    weights = load_file(Path(adapters["other"]) / DIFFUSERS_LORA_FILE)
    # The base would answer under its name.
    renamed = {key.replace("transformer_blocks", "blocks"): tensor for key, tensor in weights.items()}
    save_file(renamed, tmp_path / DIFFUSERS_LORA_FILE)
    with pytest.raises(ValueError, match=r"blocks\.0"):
        generator((base, {"lift": str(tmp_path)}), tmp_path, TINY)
