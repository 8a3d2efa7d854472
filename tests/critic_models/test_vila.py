"""VILA and the authors' LoRA in plain classes, against numbers that the authors' own functions gave on the same inputs.

The golden numbers are those of CodeGoat24/LiFT at a0d5e56: `MultimodalProjector`, `process_images`, `tokenizer_image_token`
with `conv_vicuna_v1`, and `prepare_inputs_labels_for_multimodal` in front of `LlamaForCausalLM`, run once outside of the
project with the weights of `tiny_vila`.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torchao.utils import TorchAOBaseTensor

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.score import score_videos
from lift_trl.critic.conversation import render_prompt
from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.critic.settings import CriticSettings
from lift_trl.critic_models import vila
from lift_trl.critic_models.vila import DownsampleProjector, Vila
from lift_trl.estimate.stages.critic import CriticStages
from lift_trl.estimate.weightless.configured_vlm import ConfiguredVLM
from lift_trl.estimate.weightless.meter import metering
from lift_trl.judges.audit import audit
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.rubric import LIFT, Dimension, Label
from lift_trl.store.manifest import Manifest
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.store.video_io import Clip
from tests.alignment.conftest import make_trainer, trainable
from tests.critic import tiny_vila as tiny
from tests.critic.rendered_clips import write_square
from tests.estimate.held import held_bytes


CAPTION = "A fox runs, caf\u00e9."
FRAMES = [
    np.fromfunction(lambda y, x, c, i=i: (y * 7 + x * 3 + c * 50 + 31 * i) % 256, (36, 60, 3)).astype(np.uint8)
    for i in range(3)
]

GOLDEN_PROJECTOR = [[0.2356379, -1.8713626, 1.1870557, 1.0711331], [-0.7448412, 0.3296172, -0.2775538, -0.1784007]]
GOLDEN_PROMPT = "a598692b9db7f0b0"
# fmt: off
GOLDEN_IDS = [
    1, 470, 496, 395, 297, 575, 560, 317, 305, 297, 288, 290, 280, 427, 280, 312, 296, 436, 276, 282, 325, 278, 391,
    581, 296, 87, 279, 276, 508, 363, 296, 278, 280, 292, 310, 296, 279, 276, 282, 286, 277, 291, 282, 262, 382,
    290, 272, 280, 307, 275, 262, 317, 320, 285, 325, 290, 276, 305, 289, 293, 309, 289, 539, 303, 560, 42, 289,
    484, 310, 379, 326, 564, 296, -200, 296, 13, -200, 296, 13, -200, 296, 13, 265, 329, 285, 294, 296, 288, 291,
    284, 338, 308, 272, 277, 198, 172, 263, 361, 360, 303, 559, 359, 331, 346, 356, 397, 384, 303, 529, 317, 578,
    348, 572, 315, 558, 315, 493, 511, 317, 488, 539, 303, 568, 348, 586, 470, 270, 270, 76, 270, 87, 265, 81, 87,
    264,
]
# fmt: on
GOLDEN_PIXELS = ([-0.4431372, -0.0509804, 0.3411765], [0.7411765, -0.8745098, -0.4823529])
GOLDEN_SUM, GOLDEN_LENGTH = -8.007600, 144
GOLDEN_LOGITS = [0.7795528, -1.8552215, -0.3105391, 2.2328598, -0.0628594, -2.6950178]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write_base(tmp_path_factory.mktemp("vila") / "VILA1.5-13b")


@pytest.fixture(scope="module")
def released(base):
    return tiny.write_lora(base.parent / "LiFT-Critic-13b-lora", base)


@pytest.fixture(scope="module")
def loaded(base):
    return Vila().load(str(base), dtype=torch.float32)


@pytest.fixture(scope="module")
def inputs(loaded):
    _, processor = loaded
    clip = Clip(np.stack(FRAMES), np.arange(3.0), 8.0)
    prompt = render_prompt(Vila(), processor, FRAMES, LIFT.question(Dimension.MOTION_SMOOTHNESS, CAPTION))
    return prompt, Vila().encode(processor, [prompt], [clip])


def test_projector_equals_the_authors():
    projector = tiny.fill(DownsampleProjector(tiny.VISION, tiny.TEXT))
    tokens = projector(tiny.wave(torch.Size([2, 9, tiny.VISION]), 0.1))
    assert tokens.shape == (2, 4, tiny.TEXT)
    # Of the second picture, the tokens where an order by rows would differ from theirs by columns.
    torch.testing.assert_close(tokens[1, [1, 2], :4], torch.tensor(GOLDEN_PROJECTOR), atol=1e-6, rtol=0)


def test_the_real_projector_has_the_size_of_the_released_file():
    """99.7 MB in 16 bits, and 196 tokens for the 27 x 27 patches of a frame of 384 pixels."""
    with torch.device("meta"):
        projector = DownsampleProjector(1152, 5120)
        assert projector(torch.empty(1, 729, 1152)).shape == (1, 196, 5120)
    assert sum(weight.numel() for weight in projector.parameters()) * 2 == pytest.approx(99.7e6, rel=1e-3)


def test_template_and_ids_equal_the_authors(loaded, inputs):
    prompt, encoded = inputs
    theirs = prompt.replace("<unk>", "<image>")
    assert hashlib.sha256(theirs.encode()).hexdigest()[:16] == GOLDEN_PROMPT
    ids = encoded["input_ids"][0].tolist()
    expected = [i for token in GOLDEN_IDS for i in ([0] * 4 if token == -200 else [token])]
    assert ids == expected


def test_pixels_equal_the_authors(inputs):
    pixels = inputs[1]["pixel_values"]
    assert pixels.shape == (3, 3, tiny.IMAGE, tiny.IMAGE)
    torch.testing.assert_close(pixels[1, :, 3, 5], torch.tensor(GOLDEN_PIXELS[0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels[2, :, 40, 41], torch.tensor(GOLDEN_PIXELS[1]), atol=1e-6, rtol=0)
    assert pixels.double().sum().item() == pytest.approx(GOLDEN_SUM, abs=1e-2)


def test_logits_equal_the_authors(loaded, inputs):
    with torch.inference_mode():
        logits = loaded[0](**inputs[1]).logits
    assert logits.shape[1] == GOLDEN_LENGTH
    torch.testing.assert_close(logits[0, -1, :6], torch.tensor(GOLDEN_LOGITS), atol=2e-5, rtol=0)


def test_released_lora_equals_weights_merged_by_hand(base, released, loaded):
    plain, tuned = loaded[0], Vila().load(str(released), dtype=torch.float32)[0]
    weights = tiny.load_file(released / "adapter_model.safetensors")
    before, after = plain.state_dict(), tuned.state_dict()
    assert before.keys() == after.keys() and len(weights) == 2 * tiny.LAYERS * 7
    moved = 0
    for name, value in after.items():
        key = name.replace("model.language_model.", "base_model.model.llm.model.").removesuffix(".weight")
        change = torch.zeros_like(value)
        if f"{key}.lora_A.weight" in weights:
            change = 6 / 3 * weights[f"{key}.lora_B.weight"] @ weights[f"{key}.lora_A.weight"]
            moved += int(change.abs().max() > 0.05)
        torch.testing.assert_close(value, before[name] + change, atol=1e-6, rtol=0)
    assert moved == tiny.LAYERS * 7


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "lora",
            "base_model.model.llm.model.layers.1.mlp.up_proj.lora_B.weight",
            None,
            "27 weights, 28 wanted, and 1 ",
        ),
        ("lora", "base_model.model.llm.model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.q", "and 2 are"),
        ("base/mm_projector", "layers.2.bias", "layers.3.bias", "and 2 are missing"),
        ("base/llm", "model.layers.1.self_attn.v_proj.weight", "model.layers.1.v.weight", "not in the file"),
        ("base/vision_tower", "encoder.layers.0.mlp.fc1.weight", None, "not in the file"),
    ],
)
def test_a_missing_or_renamed_weight_is_refused(tmp_path, file, old, new, message):
    base = tiny.write_base(tmp_path / "base")
    lora = tiny.write_lora(tmp_path / "lora", base)
    name = "adapter_model.safetensors" if file == "lora" else "model.safetensors"
    keys = tiny.load_file(tmp_path / file / name)
    (key,) = [k for k in keys if k.endswith(old)]
    tiny.rename_key(tmp_path / file / name, key, new)
    with pytest.raises(ValueError, match=message):
        LiFTCritic.from_pretrained(lora)


def test_no_pickle_is_opened(tmp_path, base):
    lora = tiny.write_lora(tmp_path / "lora", base)
    torch.save(tiny.load_file(lora / "adapter_model.safetensors"), lora / "adapter_model.bin")
    torch.save({}, lora / "non_lora_trainables.bin")
    (lora / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="no adapter_model.safetensors"):
        LiFTCritic.from_pretrained(lora)


def test_another_tower_is_refused_by_name(tmp_path):
    base = tiny.write_base(tmp_path / "base")
    config = json.loads((base / "vision_tower/config.json").read_text())
    tiny.write_json(base / "vision_tower/config.json", **{**config, "model_type": "intern_vit_6b"})
    with pytest.raises(ValueError, match="vision_tower: model_type 'intern_vit_6b'"):
        LiFTCritic.from_pretrained(base)


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_in_8_bits_the_lora_stays_beside_its_base(tmp_path, released, base, kind):
    clip = Clip(np.stack([*FRAMES, *FRAMES]), np.arange(6.0), 8.0)
    whole = LiFTCritic.from_pretrained(released)
    small, plain = (LiFTCritic.from_pretrained(name, quantization=kind) for name in (released, base))
    figures = [critic.label_logprobs([clip], [CAPTION]) for critic in (whole, small, plain)]
    apart = [float((figures[0] - other).abs().max()) for other in figures[1:]]
    assert 0 < apart[0] < 0.1 * apart[1]  # the LoRA is on, and nothing but the rounding of the base is lost
    assert small.name == f"{whole.name} in {kind}"
    parameters = dict(small.model.named_parameters())
    given = tiny.load_file(released / "adapter_model.safetensors")
    for key, value in given.items():
        name = key.replace(vila.THEIRS, vila.OURS).replace(".weight", ".default.weight")
        assert torch.equal(parameters[name], value)
    rounded = {name for name, value in parameters.items() if isinstance(value, TorchAOBaseTensor)}
    assert len(rounded) > 7 * tiny.LAYERS and not any("lora" in name or "lm_head" in name for name in rounded)
    (score,) = small.score([write_square(tmp_path / "a.mp4", "red", num_frames=9)], [CAPTION], with_reason=True)
    assert score.unscored is None


def test_what_it_takes_in_8_bits_is_counted(tmp_path, released, base):
    options = {"quantization": "int8", "dtype": torch.bfloat16}
    small, plain = (LiFTCritic.from_pretrained(name, **options).model for name in (released, base))
    folder = tmp_path / "configurations"  # as those of the released critic that come with the package
    whole, processor = Vila().load(str(base), dtype=torch.float32)
    processor.save_pretrained(folder)
    parts = {name: getattr(whole.config, name).to_dict() for name in ("text_config", "vision_config")}
    for part in parts.values():
        del part["dtype"]
    tiny.write_json(folder / "config.json", **{**whole.config.to_dict(), **parts, "model_type": "llava_llama"})
    shutil.copy(released / "adapter_config.json", folder)
    lora = LoraConfig.from_pretrained(folder)
    vlm = ConfiguredVLM(str(folder))
    with metering() as meter:
        assert held_bytes(vlm.build(meter, torch.bfloat16, quantization="int8")) == held_bytes(plain)
    peak = CriticStages(vlm, CriticSettings(), 36, 60, lora, "int8").scoring(1, reason_tokens=0).peak
    assert peak["weights"] == pytest.approx(held_bytes(plain), rel=0.01)
    assert peak["LoRA"] == pytest.approx(held_bytes(small) - held_bytes(plain), rel=0.01)


def test_a_device_map_is_refused_with_what_is_left(released):
    with pytest.raises(ValueError, match="three parts.*quantization='int8' halves"):
        LiFTCritic.from_pretrained(released, device_map="auto")


def _refuse(name, *_):
    raise OSError(name)


def test_a_base_that_is_no_folder_here_is_looked_for_on_the_hub(tmp_path, monkeypatch):
    lora = tiny.write_lora(tmp_path / "lora", tmp_path / "their/cluster/VILA1.5-13b")
    monkeypatch.setattr(vila, "_load_base", _refuse)
    with pytest.raises(OSError, match="^Efficient-Large-Model/VILA1.5-13b$"):
        LiFTCritic.from_pretrained(lora)


def test_the_released_critic_scores_is_audited_and_aligned_with(tmp_path, released, base):
    critic, plain = LiFTCritic.from_pretrained(released), LiFTCritic.from_pretrained(base)
    clips = tmp_path / "clips"
    clips.mkdir()
    colours = ("red", "blue", "green")
    paths = [write_square(clips / f"{c}.mp4", c, num_frames=9 + 4 * i) for i, c in enumerate(colours)]
    captions = [f"A {colour} square." for colour in colours]
    rows = [json.dumps({"file_name": p.name, "prompt": c}) for p, c in zip(paths, captions)]
    (clips / "metadata.jsonl").write_text("\n".join(rows))
    assert max(len(tokens.label) for tokens in critic._labels.values()) > 1
    rewards = [score.expected_reward for score in critic.score(paths, captions)]
    assert max(abs(a - b.expected_reward) for a, b in zip(rewards, plain.score(paths, captions))) > 1e-3

    stored = Manifest(score_videos(critic, clips, tmp_path / "scored", with_reason=True)).rows()
    assert [row["expected_reward"] for row in stored] == pytest.approx(rewards, abs=1e-5)
    assert {row["critic"] for row in stored} == {critic.name} and critic.name != plain.name
    assert all(row[d.value] in list(Label) for row in stored for d in Dimension)
    rated = load_rated_videos(tmp_path / "scored")
    assert [video.expected_reward for video in rated] == pytest.approx(rewards, abs=1e-5)
    checks = {check.name: check for check in audit(critic, paths, captions)}
    assert checks["repeated_run"].passed

    build_tiny_pipeline(seed=0).save_pretrained(tmp_path / "pipeline")
    cached = cache_videos(tmp_path / "pipeline", rated, tmp_path / "cache", num_frames=9, height=32, width=32)
    dataset, options = CachedVideoDataset(cached), {"expected_reward": True, "max_steps": 1}
    trainer = make_trainer(tmp_path / "pipeline", tmp_path / "lora", dataset, **options)
    assert trainer.train_dataset.training_rows.weight.tolist() == pytest.approx(rewards, abs=1e-5)
    before = trainable(trainer)
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in trainable(trainer).items())


def test_a_label_is_tokenised_as_it_follows_the_prompt(loaded, released):
    """By itself " Good" begins with one more space than behind "ASSISTANT:", which the critic never writes."""
    critic, (_, processor) = LiFTCritic.from_pretrained(released), loaded
    prompt = render_prompt(Vila(), processor, (), "")
    before, whole = (
        processor.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, prompt + " Good.")
    )
    label = critic._labels[Label.GOOD]
    assert [*before, *label.label, *label.rest] == whole
