"""Which adapter a family gets, and what an adapter refuses."""

import pytest

from lift_trl.critic_models import ChatVLM, QwenVL, find_critic_model
from tests.critic.tiny_models import build_vlm


@pytest.mark.parametrize(
    ("model_type", "adapter", "native"),
    [
        ("idefics3", ChatVLM, False),
        ("internvl", ChatVLM, False),
        ("qwen2_5_vl", QwenVL, True),
        ("qwen3_vl", QwenVL, True),
        ("qwen3_vl_moe", QwenVL, True),
    ],
)
def test_families_and_their_defaults(model_type, adapter, native):
    found = find_critic_model(model_type)
    assert type(found) is adapter and found.native_video is native


def test_frames_as_images_can_be_asked_of_every_family_and_native_video_of_some():
    assert not find_critic_model("qwen3_vl", native_video=False).native_video
    with pytest.raises(ValueError, match="frames as images only"):
        find_critic_model("idefics3", native_video=True)


def test_the_question_comes_last():
    for model_type in ("idefics3", "qwen3_vl"):
        content = find_critic_model(model_type).prompt([None] * 3, "A fox. What is wrong?")[0]["content"]
        assert content[-1] == {"type": "text", "text": "A fox. What is wrong?"}
        assert [part["type"] for part in content[:-1]] == (["image"] * 3 if model_type == "idefics3" else ["video"])


def test_frames_of_internvl_are_one_picture_each_unless_tiles_are_asked_for():
    assert find_critic_model("internvl").processor_kwargs == {"crop_to_patches": False}
    asked = find_critic_model("internvl", processor_kwargs={"crop_to_patches": True, "max_patches": 4})
    assert asked.processor_kwargs == {"crop_to_patches": True, "max_patches": 4}
    assert find_critic_model("idefics3").processor_kwargs == {}


def test_options_reach_the_processor():
    import numpy as np

    from lift_trl.store.video_io import Clip

    _, processor = build_vlm("idefics3")
    clip = Clip(np.zeros((2, 96, 96, 3), np.uint8), np.arange(2.0), 1.0)
    texts = ["<image><image> A fox."]
    plain = find_critic_model("idefics3").encode(processor, texts, [clip])
    options = {"do_image_splitting": True, "size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    tiled = find_critic_model("idefics3", processor_kwargs=options).encode(processor, texts, [clip])
    assert plain["pixel_values"].shape[1] == 2 < tiled["pixel_values"].shape[1]
