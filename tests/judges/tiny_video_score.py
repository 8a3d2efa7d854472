"""A tiny judge with five outputs, as VideoScore is."""

from pathlib import Path

import pytest


SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<fake_token_around_image>", "<end_of_utterance>"]
WORDS = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"]
LAYERS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {"model_type": "mistral", "vocab_size": len(WORDS), "num_key_value_heads": 1, "pad_token_id": 0}
RESAMPLER = {"resampler_n_latents": 2, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}


@pytest.fixture(scope="session")
def judge_checkpoint(tmp_path_factory):
    """A tiny random Idefics2 with five outputs, saved as VideoScore is."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Idefics2Config, Idefics2ImageProcessor, Idefics2Processor, PreTrainedTokenizerFast

    from lift_trl.judges import VIDEO_SCORE_ASPECTS
    from lift_trl.judges.video_score import Idefics2ForVideoRegression

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
        num_labels=len(VIDEO_SCORE_ASPECTS),
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("judge")
    Idefics2ForVideoRegression(config).save_pretrained(folder)
    Idefics2Processor(images, fast, image_seq_len=2).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_judge(judge_checkpoint: Path):
    import torch

    from lift_trl.judges.video_score import RegressionJudge

    return RegressionJudge.from_pretrained(str(judge_checkpoint), dtype=torch.float32, num_frames=3)
