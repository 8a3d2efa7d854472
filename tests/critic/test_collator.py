"""Answers behind prompts, and frames that are decoded once."""

import pytest
import torch

from lift_trl.critic.collator import FrameCache, append_answers
from tests.critic.rendered_clips import write_square


def test_answers_follow_their_prompts_and_alone_have_labels():
    inputs = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "mm_token_type_ids": torch.tensor([[1, 1, 0], [1, 0, 0]]),
        "pixel_values": torch.zeros(2, 3, 4, 4),
    }
    batch = append_answers(inputs, [[7], [8, 9]], pad_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 7], [4, 5, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 7], [-100, -100, 8, 9]]
    assert batch["mm_token_type_ids"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert batch["pixel_values"] is inputs["pixel_values"]
    shorter = append_answers(inputs, [[7], [8]], pad_id=0)
    assert shorter["labels"].tolist()[1] == [-100, -100, 8, -100] and shorter["attention_mask"].tolist()[1] == [
        1,
        1,
        1,
        0,
    ]


def test_a_row_without_an_answer_is_an_error_and_not_a_loss_of_zero():
    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    with pytest.raises(ValueError, match="row 1"):
        append_answers(inputs, [[7], []], pad_id=0)


def test_clips_are_decoded_once_while_they_fit(tmp_path):
    clips = [write_square(tmp_path / f"{i}.mp4", "red", seed=i) for i in range(3)]
    one_clip = 4 * 32 * 48 * 3
    cache = FrameCache(num_frames=4, max_bytes=2 * one_clip)
    for _ in range(3):
        for clip in clips:
            assert cache.read(clip).frames.shape == (4, 32, 48, 3)
    assert cache.num_decoded == 2 + 3
    data = clips[0].read_bytes()
    cache = FrameCache(num_frames=4, max_bytes=1e9)
    assert (cache.read(data).frames == cache.read(data).frames).all() and cache.num_decoded == 1
    with pytest.raises(FileNotFoundError, match="none.mp4"):
        cache.read(tmp_path / "none.mp4")
