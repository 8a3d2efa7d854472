"""The tiny pipeline and VLM are real checkpoints: they save, load, sample and chat."""

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from lift_trl.mini.checkpoints import (
    MAX_TEXT_TOKENS,
    VIDEO_MODELS,
    WEIGHTS,
    build_tiny_pipeline,
    build_tiny_vlm,
    load_pipeline,
    load_vlm,
)
from lift_trl.mini.language import sentences
from lift_trl.mini.shapes import SCENES
from lift_trl.rubric import LIFT, Dimension, Label, format_answer


def sample(pipeline, prompts=("a red circle moving left",), **kwargs):
    return pipeline(
        prompt=list(prompts),
        height=48,
        width=48,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=1.0,
        max_sequence_length=MAX_TEXT_TOKENS,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
        **kwargs,
    ).frames


@pytest.mark.parametrize("rotary", [False, True])
def test_a_saved_pipeline_samples_the_same(tmp_path, rotary):
    pipeline = build_tiny_pipeline(tmp_path / "model", seed=1, num_layers=1, rotary=rotary)
    loaded = CogVideoXPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    frames = sample(pipeline)
    assert frames.shape == (1, 9, 48, 48, 3)
    np.testing.assert_allclose(sample(loaded), frames, atol=1e-5)
    assert loaded.transformer.config.use_rotary_positional_embeddings is rotary
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert loaded.scheduler.alphas_cumprod[-1] == 0


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_tiny_pipeline(seed=seed, num_layers=1).transformer for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.proj_out.weight, again.proj_out.weight)
    assert not torch.equal(first.proj_out.weight, other.proj_out.weight)


@pytest.mark.parametrize("settings", [{"size": 44}, {"size": 0}, {"num_frames": 5}, {"num_frames": 8}])
def test_sizes_that_cogvideox_cannot_do_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        build_tiny_pipeline(**settings)


def test_the_tokenizer_knows_every_prompt_and_pads_to_the_transformer():
    tokenizer = build_tiny_pipeline(num_layers=1).tokenizer
    ids = tokenizer([scene.prompt for scene in SCENES] + [""], padding="max_length", max_length=6).input_ids
    assert {len(row) for row in ids} == {6} and len({tuple(row) for row in ids}) == 49
    assert tokenizer.unk_token_id not in {token for row in ids for token in row}


def test_vlm_text_comes_back_and_labels_are_single_tokens():
    tokenizer = build_tiny_vlm()[1].tokenizer
    for text in sentences():
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text
    for label in Label:
        answer = tokenizer(format_answer(label, "The motion is even.")).input_ids
        assert answer[0] == tokenizer(f" {label}").input_ids[0] == tokenizer(label).input_ids[0]
        assert LIFT.parse_answer(tokenizer.decode(answer)) == (label, "The motion is even.")


def test_vlm_saves_loads_and_answers(tmp_path):
    model, _ = build_tiny_vlm(tmp_path / "vlm", seed=3)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "vlm")
    processor = AutoProcessor.from_pretrained(tmp_path / "vlm")
    images = [Image.fromarray(np.full((192, 192, 3), 20 * i, np.uint8)) for i in range(8)]
    asked = LIFT.question(Dimension.MOTION_SMOOTHNESS, SCENES[0].prompt)
    content = [{"type": "text", "text": asked}, *({"type": "image"} for _ in images)]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text == "User:" + "<image>" * 8 + f" {asked}<end_of_utterance>Assistant:"
    inputs = processor(text=[text], images=[images], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 8, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
    assert loaded.generate(**inputs, max_new_tokens=3).shape[1] <= inputs["input_ids"].shape[1] + 3


def test_the_answer_is_the_only_text_after_the_prompt():
    processor = build_tiny_vlm()[1]
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How?"}]}
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
    for content in ("Good. Even.", [{"type": "text", "text": "Good. Even."}]):
        whole = processor.apply_chat_template([user, {"role": "assistant", "content": content}])
        assert whole == prompt + " Good. Even.<end_of_utterance>"


def test_the_trained_weights_load_and_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 12_000_000
    model, _ = load_vlm()
    for family in VIDEO_MODELS:
        pipeline = load_pipeline(family)
        assert pipeline.transformer.dtype == pipeline.vae.dtype == model.dtype == torch.float32
        assert sample(pipeline).std() > 0.05
