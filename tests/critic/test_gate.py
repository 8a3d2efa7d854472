"""Models that would score wrongly are refused: by their configuration, or by one clip that is scored both ways."""

import logging

import pytest
import torch
from transformers import AutoConfig, Gemma3Config, Idefics3ForConditionalGeneration, LlavaConfig, T5Gemma2Config

from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from lift_trl.critic.gate import check_config
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings
from tests.critic.rendered_clips import rated_squares, write_square
from tests.critic.tiny_models import build_vlm


FOUR = CriticSettings(num_frames=4, native_video=False)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    return [write_square(folder / f"{c}.mp4", c) for c in ("red", "blue")], ["A red square.", "A very blue square."]


def test_attention_without_a_mask_of_its_own_is_refused():
    config = build_vlm("idefics3")[0].config
    with pytest.raises(ValueError, match="sdpa"):
        check_config(config, "flash_attention_2")
    config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="sdpa"):
        check_config(config)


def sliding_mistral(**window):
    return LlavaConfig(text_config={"model_type": "mistral", "num_hidden_layers": 2, **window})


def test_layers_that_drop_keys_are_refused_however_a_configuration_names_them():
    check_config(sliding_mistral(sliding_window=None))
    with pytest.raises(ValueError, match="sliding_attention"):
        check_config(sliding_mistral(sliding_window=4096))  # without any layer_types
    with pytest.raises(ValueError, match="sliding_attention"):
        check_config(Gemma3Config())
    config = build_vlm("qwen2_5_vl")[0].config
    check_config(config)
    config.get_text_config().layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="linear_attention"):
        check_config(config)
    with pytest.raises(ValueError, match="encoder"):
        check_config(T5Gemma2Config())


def test_scoring_refuses_before_weights_are_loaded(tmp_path):
    """There are none in this folder."""
    Gemma3Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="sliding_attention"):
        LiFTCritic.from_pretrained(tmp_path)


@pytest.mark.parametrize("fault", ["layers", "attention"])
def test_training_refuses_what_scoring_refuses_before_weights_are_loaded(fault, tmp_path):
    build_vlm("idefics3", save_directory=tmp_path / "vlm")
    (tmp_path / "vlm" / "model.safetensors").unlink()
    options = {"attn_implementation": "flash_attention_2"} if fault == "attention" else {}
    if fault == "layers":
        config = AutoConfig.from_pretrained(tmp_path / "vlm")
        config.text_config.layer_types = ["sliding_attention", "full_attention"]
        config.text_config.sliding_window = 64
        config.save_pretrained(tmp_path / "vlm")
    args = LiFTCriticConfig(output_dir=str(tmp_path / "out"), report_to="none", model_init_kwargs=options)
    with pytest.raises(ValueError, match="sliding_attention" if fault == "layers" else "flash_attention_2"):
        LiFTCriticTrainer(str(tmp_path / "vlm"), args, train_dataset=rated_squares(tmp_path, captions=1))


def test_positions_that_the_adapter_does_not_know_are_refused_before_scoring_and_before_training(tmp_path):
    """GLM-4V's have three axes, and no key of its configuration says so. Without the check it is 8 nats wrong."""
    model, processor = build_vlm("glm4v")
    with pytest.raises(ValueError, match=r"model type 'glm4v' scores a clip otherwise .* [\d.]+ nats apart"):
        LiFTCritic(model, processor, settings=FOUR)
    args = LiFTCriticConfig(output_dir=str(tmp_path / "out"), report_to="none", num_frames=4)
    with pytest.raises(ValueError, match="nats apart"):
        LiFTCriticTrainer(model, args, train_dataset=rated_squares(tmp_path, captions=1), processing_class=processor)


class KeepsAll(Idefics3ForConditionalGeneration):
    """As families do whose forward takes `logits_to_keep` among its other arguments and heeds it not."""

    def forward(self, *args, logits_to_keep=0, **kwargs):
        return super().forward(*args, **kwargs)


class KeepsSome(Idefics3ForConditionalGeneration):
    """A family with an idea of its own of what is asked for."""

    def forward(self, *args, logits_to_keep=0, **kwargs):
        keep = logits_to_keep[:-1] if isinstance(logits_to_keep, torch.Tensor) else logits_to_keep
        return super().forward(*args, logits_to_keep=keep, **kwargs)


def test_rows_of_logits_are_found_where_a_model_keeps_all_and_refused_where_they_cannot_be(squares):
    model, processor = build_vlm("idefics3")
    plain = LiFTCritic(model, processor, settings=FOUR).score(*squares)
    model.__class__ = KeepsAll
    for one, other in zip(plain, LiFTCritic(model, processor, settings=FOUR).score(*squares), strict=True):
        for a, b in zip(one.judgements, other.judgements, strict=True):
            assert a.probs == pytest.approx(b.probs, abs=1e-5)
    model.__class__ = KeepsSome
    with pytest.raises(ValueError, match=r"model type 'idefics3' cannot score 4 frames .* rows of logits"):
        LiFTCritic(model, processor, settings=FOUR)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_no_reason_to_refuse_but_wrong_positions_are(dtype):
    model, processor = build_vlm("qwen2_5_vl")
    LiFTCritic(model.to(dtype), processor, settings=CriticSettings(num_frames=4))
    model, processor = build_vlm("glm4v")
    with pytest.raises(ValueError, match="nats apart"):
        LiFTCritic(model.to(dtype), processor, settings=FOUR)


def test_smolvlm_works_with_its_extra():
    """Its processor needs num2words, which the extra `smolvlm` brings."""
    LiFTCritic(*build_vlm("smolvlm"), settings=FOUR)


def test_weights_that_are_no_numbers_are_refused():
    model, processor = build_vlm("idefics3")
    model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="nan nats apart"):
        LiFTCritic(model, processor, settings=FOUR)


def test_the_check_leaves_the_model_as_it_was():
    model, processor = build_vlm("idefics3")
    LiFTCritic(model.train(), processor, settings=FOUR)
    assert model.training


def test_many_tokens_a_frame_are_told(caplog):
    tiles = {"crop_to_patches": True, "max_patches": 160, "min_patches": 160}
    settings = CriticSettings(num_frames=1, processor_kwargs=tiles)
    with caplog.at_level(logging.WARNING, logger="lift_trl"):
        LiFTCritic(*build_vlm("internvl"), settings=settings)
        assert "tokens for each frame" in caplog.text
        caplog.clear()
        LiFTCritic(*build_vlm("internvl"), settings=CriticSettings(num_frames=1))
    assert not caplog.text
