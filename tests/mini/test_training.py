"""The machinery of the training scripts: resuming, Muon on kernels, packed questions."""

import json

import numpy as np
import pytest
import torch

from lift_trl.mini.checkpoints import build_tiny_vlm, build_vae
from lift_trl.mini.shapes import enlarge
from lift_trl.mini.train import vae as train_vae
from lift_trl.mini.train import vlm as train_vlm
from lift_trl.mini.train.runs import FlatMuon, cooldown, cosine
from lift_trl.mini.train.seen_clips import draw_clips
from lift_trl.mini.train.vlm_tasks import IGNORED, NUM_IMAGES, draw_checks, draw_pictures, pack
from lift_trl.mini.wan import build_vae as build_wan_vae


def test_muon_on_a_kernel_is_muon_on_its_matrix():
    torch.manual_seed(0)
    kernel, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    weight, matrix = torch.nn.Parameter(kernel.clone()), torch.nn.Parameter(kernel.clone().flatten(1))
    weight.grad, matrix.grad = gradient, gradient.flatten(1)
    FlatMuon([weight], lr=0.1, momentum=0.9).step()
    torch.optim.Muon([matrix], lr=0.1, momentum=0.9, weight_decay=0.0).step()
    assert not torch.equal(weight, kernel)
    torch.testing.assert_close(weight.flatten(1), matrix)


def test_schedules_begin_warm_and_end_low():
    for schedule in (cosine, cooldown):
        factors = [schedule(step, 100) for step in range(100)]
        assert factors[0] == pytest.approx(0.05, rel=0.01) and max(factors) > 0.9 and factors[-1] < 0.03


@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_a_killed_vae_run_goes_on_as_if_nothing_had_happened(family, tmp_path, monkeypatch):
    monkeypatch.setattr(train_vae, "NUM_HELD_OUT", 3)
    train_vae.train(tmp_path / "whole", family, num_steps=4, batch_size=1, seed=0)
    stop = StopIteration("killed")

    def kill(loss, *args):
        if kill.steps == 2:
            raise stop
        kill.steps += 1
        step(loss, *args)

    kill.steps, step = 0, train_vae.clip_and_step
    monkeypatch.setattr(train_vae, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(train_vae, "clip_and_step", kill)
    with pytest.raises(StopIteration):
        train_vae.train(tmp_path / "killed", family, num_steps=4, batch_size=1, seed=0)
    monkeypatch.setattr(train_vae, "clip_and_step", step)
    train_vae.train(tmp_path / "killed", family, num_steps=4, batch_size=1, seed=0)
    first, second = (torch.load(tmp_path / n / "state.pt", weights_only=True)["vae"] for n in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    # What the denoiser sees of other clips is of unit scale, by the configuration that was saved.
    config = json.loads((tmp_path / "killed" / "vae" / "config.json").read_text())
    vae = build_wan_vae() if family == "wan" else build_vae()
    vae.load_state_dict(second)
    latents = vae.encode(train_vae.draw_batch(1_000_003, 0, 3)).latent_dist.mode()
    if family == "wan":
        shape = (1, 8, 1, 1, 1)
        mean, std = (torch.tensor(config[name]).view(shape) for name in ("latents_mean", "latents_std"))
        scaled = (latents - mean) / std
        torch.testing.assert_close(scaled.mean(dim=(0, 2, 3, 4)), torch.zeros(8), atol=0.02, rtol=0)
        torch.testing.assert_close(scaled.std(dim=(0, 2, 3, 4)), torch.ones(8), atol=0.02, rtol=0)
    else:
        assert (latents * config["scaling_factor"]).std().item() == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_channels_that_the_vae_does_not_use_become_zero_and_not_noise(monkeypatch):
    monkeypatch.setattr(train_vae, "NUM_HELD_OUT", 3)
    torch.manual_seed(0)
    vae = build_wan_vae()
    train_vae.initialise(vae)
    # As the KL term leaves them: means of next to nothing, samples of deviation 1.
    for channel in (2, 7):
        vae.quant_conv.weight[channel] *= 1e-3
        vae.quant_conv.bias[channel], vae.quant_conv.bias[8 + channel] = 0.004, 0.0
    used, clips = [0, 1, 3, 4, 5, 6], train_vae.draw_batch(5, 0, 2)
    before = vae.encode(clips).latent_dist
    train_vae.normalise(vae)
    after = vae.encode(clips).latent_dist
    assert torch.equal(after.mean[:, used], before.mean[:, used]) and torch.equal(
        after.std[:, used], before.std[:, used]
    )
    assert not after.mean[:, [2, 7]].any() and after.std[:, [2, 7]].max() < 0.01
    mean, std = vae.config.latents_mean, vae.config.latents_std
    assert [mean[i] for i in (2, 7)] == [0.0, 0.0] and [std[i] for i in (2, 7)] == [1.0, 1.0]
    torch.testing.assert_close(torch.tensor(std)[used], before.mean[:, used].std(dim=(0, 2, 3, 4)), atol=0.3, rtol=0.3)


def test_packed_questions_answer_as_if_asked_alone():
    model, processor = build_tiny_vlm(seed=0)

    def tokenize(text):
        return processor.tokenizer(text).input_ids

    rng = np.random.default_rng(0)
    clips = draw_clips(rng, 2)
    checks = [[check for check in draw_checks(rng, clip) if not check.blind] for clip in clips]
    batch = pack(tokenize, clips, checks)
    with torch.no_grad():
        states = model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.mask,
            position_ids=batch.position_ids,
            pixel_values=batch.pictures.pixels.unflatten(0, (2, NUM_IMAGES)),
        ).last_hidden_state
        single = pack(tokenize, clips[:1], [checks[0][5:6]])
        alone = model.model(input_ids=single.input_ids, pixel_values=single.pictures.pixels[None]).last_hidden_state
    (_, first), length = single.first_answers[0], single.input_ids.shape[1]
    packed_first = batch.first_answers[5, 1]
    assert (batch.labels[0, packed_first:] != IGNORED).any() and length > first
    torch.testing.assert_close(states[0, packed_first - 1], alone[0, first - 1], rtol=1e-4, atol=1e-5)


def test_pretraining_pixels_are_those_of_the_processor():
    _, processor = build_tiny_vlm()
    rng = np.random.default_rng(1)
    clips = draw_clips(rng, 1)
    batch = pack(lambda text: processor.tokenizer(text).input_ids, clips, [draw_checks(rng, clips[0])])
    frames = enlarge(clips[0].video)[np.linspace(0, 8, NUM_IMAGES, dtype=int)]
    pixels = processor.image_processor(list(frames), return_tensors="pt")["pixel_values"][0]
    assert (pixels - batch.pictures.pixels).abs().mean() < 0.003


def test_questions_are_answered_truly():
    rng = np.random.default_rng(3)
    for clip in draw_clips(rng, 40):
        for check in draw_checks(rng, clip):
            if check.kind in clip.shown._fields:
                assert check.answer.startswith("yes") == (getattr(clip.shown, check.kind) in check.text.split("?")[0])
            if check.kind.startswith("match_"):
                word = getattr(clip.shown, check.kind.removeprefix("match_"))
                assert check.answer.startswith("yes") == (word in check.text.split(" Does")[0].split())


def test_the_vlm_learns_from_pictures_and_clips():
    torch.manual_seed(0)
    model, processor = build_tiny_vlm(seed=0)
    helpers = train_vlm.Helpers(model.get_input_embeddings().embedding_dim)
    optimizer = torch.optim.Adam([*model.parameters(), *helpers.parameters()], lr=2e-3)
    pictures = draw_pictures(np.random.default_rng(0), 24)
    rng = np.random.default_rng(1)
    clips = draw_clips(rng, 2)
    batch = pack(lambda text: processor.tokenizer(text).input_ids, clips, [draw_checks(rng, clip) for clip in clips])
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        answer, helper = train_vlm.clip_loss(model, helpers, batch)
        loss = (
            answer
            + helper
            + train_vlm.picture_loss(helpers.picture(train_vlm.encode_pictures(model, pictures).flatten(1)), pictures)
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
