"""A small suite in VBench's form, with its awkward cases, and clips for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lift_trl.evaluation.judges import ASPECTS, Idefics2ForVideoRegression, RegressionJudge
from lift_trl.evaluation.vbench_eval import Suite, load_suite
from lift_trl.store.video_io import write_video


ROWS = [
    {"prompt_en": "a cat", "dimension": ["object_class"], "auxiliary_info": {"object_class": {"object": "cat"}}},
    {"prompt_en": "a still lake", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a still caf\u00e9", "dimension": ["temporal_flickering"]},
    {"prompt_en": "the bund, oil painting", "dimension": ["appearance_style"]},
    {"prompt_en": "the bund, oil painting", "dimension": ["overall_consistency", "aesthetic_quality"]},
    {"prompt_en": "A fantasy landscape", "dimension": ["overall_consistency", "aesthetic_quality"]},
    {"prompt_en": "a fantasy landscape", "dimension": ["overall_consistency", "aesthetic_quality"]},
    {"prompt_en": "a person is running", "dimension": ["human_action"]},
]


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "full_info.json"
    path.write_text(json.dumps([{**row, "prompt_opt": f" Long text {i}. " * 30} for i, row in enumerate(ROWS)]))
    return path


@pytest.fixture
def suite(suite_file: Path) -> Suite:
    return load_suite(suite_file)


def clip(seed: int, num_frames: int = 9, size: int = 32) -> np.ndarray:
    """A square that moves over noise: uint8 [F, H, W, 3]."""
    generator = np.random.default_rng(seed)
    frames = np.repeat(generator.integers(0, 120, (1, size, size, 3), dtype=np.uint8), num_frames, axis=0)
    for i, frame in enumerate(frames):
        frame[4:12, i : i + 8] = 255
    return frames


@pytest.fixture
def make_clip():
    def write(path: Path, seed: int = 0, num_frames: int = 9, size: int = 32) -> Path:
        write_video(path, clip(seed, num_frames, size), fps=8)
        return path

    return write


SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<fake_token_around_image>", "<end_of_utterance>"]
WORDS = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"]
LAYERS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {"model_type": "mistral", "vocab_size": len(WORDS), "num_key_value_heads": 1, "pad_token_id": 0}
RESAMPLER = {"resampler_n_latents": 2, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}


@pytest.fixture(scope="session")
def judge_checkpoint(tmp_path_factory):
    """A tiny random Idefics2 with five outputs, saved as VideoScore is."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Idefics2Config, Idefics2ImageProcessor, Idefics2Processor, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    images = Idefics2ImageProcessor(size={"longest_edge": 28, "shortest_edge": 28}, do_image_splitting=False)
    config = Idefics2Config(
        vision_config={**LAYERS, "image_size": 28, "patch_size": 14},
        perceiver_config={**RESAMPLER, "num_key_value_heads": 1, "hidden_size": 16},
        text_config={**LAYERS, **TEXT},
        image_token_id=WORDS.index("<image>"),
        num_labels=len(ASPECTS),
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("judge")
    Idefics2ForVideoRegression(config).save_pretrained(folder)
    Idefics2Processor(images, fast, image_seq_len=2).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_judge(judge_checkpoint: Path) -> RegressionJudge:
    return RegressionJudge.from_pretrained(str(judge_checkpoint), dtype=torch.float32, num_frames=3)
