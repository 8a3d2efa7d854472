"""Training of the denoiser: corpus in shards, velocity loss, and what the shipped base model can do."""

import numpy as np
import pytest
import torch

from lift_trl.mini import train_base
from lift_trl.mini.checkpoints import build_transformer, build_vae, load_pipeline
from lift_trl.mini.shapes import SCENES


def test_a_corpus_is_encoded_once_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(train_base, "SHARD", 2)
    torch.manual_seed(0)
    vae = build_vae()
    vae.register_to_config(scaling_factor=2.0)
    latents, captions = train_base.encode_corpus(vae, tmp_path, seed=0, num_clips=4)
    assert latents.shape == (4, 3, 8, 12, 12) and captions.shape == (4,)
    (tmp_path / "000002.pt").unlink()
    kept = (tmp_path / "000000.pt").stat().st_mtime_ns
    again, _ = train_base.encode_corpus(vae, tmp_path, seed=0, num_clips=4)
    assert torch.equal(latents, again) and (tmp_path / "000000.pt").stat().st_mtime_ns == kept
    vae.register_to_config(scaling_factor=1.0)
    (tmp_path / "000000.pt").unlink()
    unscaled, _ = train_base.encode_corpus(vae, tmp_path, seed=0, num_clips=2)
    torch.testing.assert_close(2 * unscaled, latents[:2])


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    transformer = build_transformer(num_layers=1)
    train_base.initialise(transformer)
    return transformer, train_base.build_pipeline(build_vae(), transformer, seed=0)


def test_captions_have_their_own_embeddings(small):
    text = train_base.embed_captions(small[1])
    assert text.shape == (len(SCENES) + 1, 6, 32)
    assert torch.cdist(text.flatten(1), text.flatten(1)).fill_diagonal_(9).min() > 0.1


def test_an_untrained_denoiser_predicts_zero_velocity(small):
    transformer, pipeline = small
    latents = torch.zeros(64, 3, 8, 12, 12)
    text = train_base.embed_captions(pipeline)[:1].expand(64, -1, -1)
    loss = train_base.denoising_loss(transformer, pipeline, latents, text, torch.Generator().manual_seed(0))
    # With latents of zero the velocity is sqrt(alpha) * noise, so the loss is the mean of alpha over the timesteps.
    assert loss.item() == pytest.approx(pipeline.scheduler.alphas_cumprod.mean().item(), rel=0.02)


def test_one_step_moves_every_parameter_of_a_block(small):
    transformer, pipeline = small
    with torch.no_grad():
        transformer.proj_out.weight.normal_(std=0.1)
    text = train_base.embed_captions(pipeline)[:4]
    latents = torch.randn(4, 3, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    train_base.denoising_loss(transformer, pipeline, latents, text, torch.Generator().manual_seed(0)).backward()
    still = {name for name, p in transformer.named_parameters() if p.grad is None or not p.grad.any()}
    # Adaptive norms of zero weight block nothing; the timestep reaches them through their biases only at first.
    assert still <= {name for name, _ in transformer.named_parameters() if name.startswith("time_embedding")}


def test_the_shipped_base_follows_its_prompts():
    figures = train_base.measure(load_pipeline(), videos_per_prompt=1, seed=3)
    assert figures["colour"] >= 0.8 and figures["shape"] >= 0.6 and figures["direction"] >= 0.8
    # It has something to be aligned from: far from all is Good.
    assert all(0.1 < figures[name] < 0.95 for name in ("semantic_consistency", "motion_smoothness", "video_fidelity"))
    assert np.isfinite(list(figures.values())).all()
