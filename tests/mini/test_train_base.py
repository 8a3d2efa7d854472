"""Training of the denoiser: corpus in shards, velocity loss, and what the shipped base model can do."""

import numpy as np
import pytest
import torch

from lift_trl.mini.checkpoints import VIDEO_MODELS, build_vae, load_pipeline
from lift_trl.mini.shapes import SCENES
from lift_trl.mini.train import base as train_base
from lift_trl.mini.wan import build_vae as build_wan_vae
from lift_trl.video_models import open_pipeline


SHAPES = {"cogvideox": (3, 8, 12, 12), "wan": (8, 3, 12, 12)}


def odd_vae(family, folder):
    """A random VAE whose latents are not of unit scale, nor centred where the family can say so."""
    torch.manual_seed(0)
    vae = build_wan_vae() if family == "wan" else build_vae()
    if family == "wan":
        vae.register_to_config(latents_mean=[0.1 * c for c in range(8)], latents_std=[0.5] * 8)
    else:
        vae.register_to_config(scaling_factor=2.0)
    vae.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=SHAPES)
def small(request, tmp_path_factory):
    """Family, pipeline of one layer and adapter."""
    folder = odd_vae(request.param, tmp_path_factory.mktemp(request.param))
    pipeline = train_base.build_pipeline(request.param, folder, num_layers=1, seed=0)
    return request.param, pipeline, open_pipeline(pipeline).adapter


def test_a_corpus_is_encoded_once_in_the_denoisers_scale_and_goes_on_after_a_kill(small, tmp_path, monkeypatch):
    family, pipeline, adapter = small
    monkeypatch.setattr(train_base, "SHARD", 2)
    latents, captions = train_base.encode_corpus(pipeline, adapter, tmp_path, seed=0, num_clips=4)
    assert latents.shape == (4, *SHAPES[family]) and captions.shape == (4,)
    (tmp_path / "000002.pt").unlink()
    kept = (tmp_path / "000000.pt").stat().st_mtime_ns
    again, _ = train_base.encode_corpus(pipeline, adapter, tmp_path, seed=0, num_clips=4)
    assert torch.equal(latents, again) and (tmp_path / "000000.pt").stat().st_mtime_ns == kept
    # By hand, the third clip.
    clip = train_base.draw_shard(0, 2)[0]
    video = torch.from_numpy(clip.video).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        raw = pipeline.vae.encode(video).latent_dist.mode()[0]
    if family == "wan":
        by_hand = (raw - 0.1 * torch.arange(8.0).view(8, 1, 1, 1)) / 0.5
    else:
        by_hand = 2 * raw.transpose(0, 1)
    # Convolutions of one clip and of two differ by 1e-4 of their output.
    torch.testing.assert_close(latents[2], by_hand, atol=2e-3, rtol=0)
    assert captions[2] == SCENES.index(clip.caption)


def test_captions_have_their_own_embeddings(small):
    _, pipeline, adapter = small
    text = adapter.encode_text(pipeline, [scene.prompt for scene in SCENES] + [""])["prompt_embeds"]
    assert text.shape == (len(SCENES) + 1, 6, 32)
    assert torch.cdist(text.flatten(1), text.flatten(1)).fill_diagonal_(9).min() > 0.1


def test_an_untrained_denoiser_predicts_zero(small):
    family, pipeline, adapter = small
    latents = torch.zeros(64, *SHAPES[family])
    text = adapter.encode_text(pipeline, ["a red circle moving left"] * 64)
    generator = torch.Generator().manual_seed(0)
    loss = train_base.denoising_loss(pipeline.transformer, adapter, pipeline.scheduler, latents, text, generator)
    # With latents of zero CogVideoX's velocity is sqrt(alpha) * noise, so the loss is the mean of alpha over the timesteps;
    # a flow's is the noise itself.
    expected = 1.0 if family == "wan" else pipeline.scheduler.alphas_cumprod.mean().item()
    assert loss.item() == pytest.approx(expected, rel=0.02)


def test_one_step_moves_every_parameter_of_a_block(small):
    family, pipeline, adapter = small
    with torch.no_grad():
        pipeline.transformer.proj_out.weight.normal_(std=0.1)
    text = adapter.encode_text(pipeline, [scene.prompt for scene in SCENES[:4]])
    latents = torch.randn(4, *SHAPES[family], generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    train_base.denoising_loss(pipeline.transformer, adapter, pipeline.scheduler, latents, text, generator).backward()
    still = {name for name, p in pipeline.transformer.named_parameters() if p.grad is None or not p.grad.any()}
    # Adaptive norms of zero weight block nothing; the timestep reaches them through their biases only at first.
    assert all(name.startswith(("time_embedding", "condition_embedder.time")) for name in still), still


@pytest.mark.parametrize("family", SHAPES)
def test_a_killed_training_goes_on_and_ends_in_a_checkpoint(family, tmp_path, monkeypatch):
    for name, value in {"SHARD": 4, "NUM_CLIPS": 8, "FLAWLESS_STEPS": {family: range(0)}}.items():
        monkeypatch.setattr(train_base, name, value)
    monkeypatch.setattr(train_base, "measure", lambda pipeline: {})
    vae = odd_vae(family, tmp_path / "vae")

    def weights(out):
        model = open_pipeline(tmp_path / out / "video_model").load("transformer", dtype=torch.float32).transformer
        return model.state_dict()

    settings = {"batch_size": 2, "num_layers": 1, "seed": 0}
    train_base.train(family, vae, tmp_path / "whole", num_steps=2, **settings)
    real_report, stop = train_base.Run.save, RuntimeError("killed")

    def save_then_die(run):
        real_report(run)
        raise stop

    monkeypatch.setattr(train_base, "SAVE_EVERY_S", -1.0)
    monkeypatch.setattr(train_base.Run, "save", save_then_die)
    with pytest.raises(RuntimeError, match="killed"):
        train_base.train(family, vae, tmp_path / "killed", num_steps=2, **settings)
    monkeypatch.setattr(train_base.Run, "save", real_report)
    train_base.train(family, vae, tmp_path / "killed", num_steps=2, **settings)
    whole, resumed = weights("whole"), weights("killed")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("family", VIDEO_MODELS)
def test_the_shipped_base_follows_its_prompts(family):
    figures = train_base.measure(load_pipeline(family), videos_per_prompt=1, seed=3)
    assert figures["colour"] >= 0.8 and figures["shape"] >= 0.6 and figures["direction"] >= 0.8
    # It has something to be aligned from: far from all is Good.
    assert all(0.1 < figures[name] < 0.95 for name in ("semantic_consistency", "motion_smoothness", "video_fidelity"))
    assert np.isfinite(list(figures.values())).all()
