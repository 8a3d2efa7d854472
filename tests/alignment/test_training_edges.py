"""Edges of a training: several evaluation sets, options that would be swallowed, overflow in fp16, what a start reads."""

import hashlib
import math
from collections import Counter

import pytest
import torch
from transformers import TrainerCallback

from lift_trl.alignment.data.cache import CacheKeys, cache_videos, is_tiled
from lift_trl.alignment.data.cache_format import ENCODING_VERSION
from lift_trl.alignment.data.clips import ClipSize, load_clip
from lift_trl.alignment.data.video_dataset import CachedVideoDataset, collate
from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.alignment.training.overflow import MAX_SKIPPED
from lift_trl.records import RatedVideo, content_id
from lift_trl.store.disk.digest import file_digest
from lift_trl.store.manifest import Artifact
from lift_trl.store.rated_videos import load_rated_videos
from lift_trl.video_models import files, open_pipeline
from tests.alignment.conftest import SIZE, make_trainer, moving_square, trainable
from tests.fake_device import DEVICE, fake_device
from tests.waits import host_waits


def test_several_evaluation_sets_are_logged_by_name(tmp_path, pipeline_dir, cached):
    """As in transformers: a dict of sets, each with figures of its own."""
    alone = make_trainer(pipeline_dir, tmp_path, cached, eval_dataset=cached).evaluate()
    trainer = make_trainer(pipeline_dir, tmp_path, cached, eval_dataset={"seen": cached, "again": cached})
    figures = trainer.evaluate()
    for name in ("seen", "again"):
        assert figures[f"eval_{name}_loss"] == alone["eval_loss"]
        (line,) = [line for line in trainer.state.log_history if f"eval_{name}_loss" in line]
        assert f"eval_{name}_loss_unweighted" in line and f"eval_{name}_reward_mean" in line
    with pytest.raises(ValueError, match="give a train_dataset or an eval_dataset"):
        make_trainer(pipeline_dir, tmp_path, None, eval_dataset={})


def test_an_evaluation_is_of_the_clips_that_it_is_given_and_weighs_them(tmp_path, pipeline_dir, cached):
    """Under any prefix; what was watched of it is in no later figure."""
    settings = {"objective": "rwl", "real_weight": 2.5}
    own = make_trainer(pipeline_dir, tmp_path, cached, eval_dataset=cached, **settings)
    without = make_trainer(pipeline_dir, tmp_path, cached, **settings)
    wanted, found = own.evaluate(), without.evaluate(cached, metric_key_prefix="test")
    assert found["test_loss"] == wanted["eval_loss"]
    watched = {
        name: value for name, value in own.state.log_history[-1].items() if "timestep" in name or "_mean" in name
    }
    assert watched and {name.replace("eval", "test", 1): value for name, value in watched.items()}.items() <= (
        without.state.log_history[-1].items()
    )
    assert without.evaluate({"a": cached})["eval_a_loss"] == wanted["eval_loss"]
    weighed = cached.weighted(own.args, own.objective)
    assert not torch.equal(weighed.weight, torch.ones(len(weighed.weight)))


def test_options_of_checkpointing_that_would_be_swallowed_are_refused(tmp_path):
    for kwargs in ({"use_reentrant": True}, {"every_n_layers": 2}):
        with pytest.raises(ValueError, match="activation_checkpointing_kwargs does not apply to a video denoiser"):
            RewardWeightedVideoConfig(str(tmp_path), activation_checkpointing_kwargs=kwargs)
    RewardWeightedVideoConfig(str(tmp_path), activation_checkpointing_kwargs={"use_reentrant": False})


def overflowing(trainer, is_bad):
    """`trainer` with fp16's loss scaler, and batches whose posterior overflows where `is_bad` (number of the batch)."""
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    numbers = iter(range(10_000))

    def collated(rows):
        batch = dict(collate(rows))
        if is_bad(next(numbers)):
            batch["latent_mean"] = torch.full_like(batch["latent_mean"], float("inf"))
        return batch

    trainer.data_collator = collated
    return trainer


class Watch(TrainerCallback):
    """The trained weights after each step."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters() if p.requires_grad]))


def test_a_step_that_overflows_in_fp16_is_skipped(tmp_path, pipeline_dir, cached):
    trainer = overflowing(make_trainer(pipeline_dir, tmp_path, cached, max_steps=4), lambda number: number == 1)
    watch = Watch()
    trainer.add_callback(watch)
    trainer.train()
    assert trainer.state.global_step == 4
    moved = [not torch.equal(one, two) for one, two in zip(watch.weights, watch.weights[1:], strict=False)]
    assert moved == [False, True, True]  # after steps 1, 2 (skipped), 3 and 4
    assert all(value.isfinite().all() for value in trainable(trainer).values())


def test_a_run_that_takes_no_step_any_more_stops_and_names_the_clips(tmp_path, pipeline_dir, cached):
    trainer = overflowing(make_trainer(pipeline_dir, tmp_path, cached, max_steps=99), lambda number: number >= 3)
    with pytest.raises(
        FloatingPointError, match=rf"{MAX_SKIPPED} optimiser steps in a row overflowed.*(clip|real)-\d"
    ):
        trainer.train()
    assert trainer.state.global_step == 3 + MAX_SKIPPED


def test_without_a_scaler_a_loss_that_is_not_finite_stops_the_run(tmp_path, pipeline_dir, cached):
    trainer = overflowing(make_trainer(pipeline_dir, tmp_path, cached), lambda number: True)
    trainer.accelerator.scaler = None
    with pytest.raises(FloatingPointError, match="is not finite at optimiser step 0"):
        trainer.train()


def test_every_file_is_hashed_once(tmp_path, pipeline_dir, rated_videos, monkeypatch):
    counts, digest = Counter(), hashlib.file_digest

    def counted(file, name):
        counts[file.name] += 1
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    rows = [
        f'{{"file_name": "{i}.mp4", "prompt": "{v.prompt}", "reward": 0.5}}' for i, v in enumerate(rated_videos[:3])
    ]
    for number, video in enumerate(rated_videos[:3]):
        (tmp_path / f"{number}.mp4").write_bytes(video.video.read_bytes())
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    encoder = open_pipeline(pipeline_dir)
    cache_videos(encoder, load_rated_videos(tmp_path), tmp_path / "cache", **SIZE)
    generate_videos(
        encoder,
        plan_videos(["a red circle"]),
        tmp_path / "out",
        sampling=Sampling(num_inference_steps=1, guidance_scale=1),
    )
    assert {name: count for name, count in counts.items() if count > 1} == {}
    assert sum(name.endswith(".mp4") for name in counts) >= 3


def test_a_file_that_changes_is_hashed_again(tmp_path):
    file, found = tmp_path / "a.bin", set()
    for content in (b"one", b"two"):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(file)
        found.add(file_digest(file))
        assert file_digest(file) == hashlib.sha256(content).hexdigest()
    assert len(found) == 2


def test_a_repo_is_resolved_once_for_all_videos(tmp_path, pipeline_dir, hub, monkeypatch):
    """It was asked for again for every stored video, and could have become another commit meanwhile."""
    api = hub.api()
    api.create_repo("dev/tiny-video", exist_ok=True)
    first = api.upload_folder(repo_id="dev/tiny-video", folder_path=pipeline_dir).oid
    calls, fetch = [], files.snapshot_download

    def counted(*args, **options):
        if len(calls) == 1:  # somebody pushes between two of our calls
            api.upload_file(path_or_fileobj=b"x", path_in_repo="transformer/new.txt", repo_id="dev/tiny-video")
        calls.append(options["revision"])
        return fetch(*args, **options)

    monkeypatch.setattr(files, "snapshot_download", counted)
    encoder = open_pipeline("dev/tiny-video")
    sampling = Sampling(num_inference_steps=1, guidance_scale=1)
    generate_videos(
        encoder, plan_videos(["a fox", "a bird"], videos_per_prompt=3), tmp_path / "out", sampling=sampling
    )
    assert len(calls) <= 5 and calls[0] is None and set(calls[1:]) == {first}
    assert encoder.identity == f"dev/tiny-video@{first}"


def test_a_large_clip_is_encoded_in_tiles_and_its_key_says_so(pipeline_dir):
    """Tiles change the latents where they meet: a cache that was encoded whole is another one."""
    encoder = open_pipeline(pipeline_dir)
    whole, tiled = ClipSize(9, 480, 832, 8.0), ClipSize(9, 480, 848, 8.0)
    assert (is_tiled(whole), is_tiled(tiled)) == (False, True)
    size = [encoder.fingerprint("vae"), torch.float32]
    assert CacheKeys.of(encoder, whole, torch.float32).video == content_id(*size, whole, ENCODING_VERSION)
    assert CacheKeys.of(encoder, tiled, torch.float32).video == content_id(*size, tiled, ENCODING_VERSION, "tiled")


def test_a_large_clip_is_the_pipelines_own_tiled_encoding(tmp_path, pipeline_dir, monkeypatch):
    monkeypatch.setattr("lift_trl.alignment.data.cache._TILED_PIXELS", 63 * 80)  # of which a tiny VAE makes tiles, too
    clip = moving_square(tmp_path / "a.mp4", 0, num_frames=1, size=80)
    video = RatedVideo("a", clip, "a red circle", None, 0.5)
    cache = cache_videos(pipeline_dir, [video], tmp_path / "cache", num_frames=1, height=64, width=80)
    assert Artifact.load(cache).config["vae_tiling"] is True
    encoder = open_pipeline(pipeline_dir)
    pixels = load_clip(clip, ClipSize(1, 64, 80, encoder.adapter.fps), encoder.adapter).unsqueeze(0)
    pipe, means = encoder.load("vae", dtype=torch.float32), []
    for tiles in (False, True):
        pipe.vae.enable_tiling() if tiles else pipe.vae.disable_tiling()
        means.append(encoder.adapter.encode_video(pipe, pixels).mean[0].bfloat16())
    stored = CachedVideoDataset(cache)[0]["latent_mean"]
    assert torch.equal(stored, means[1]) and not torch.equal(stored, means[0])


def test_what_would_wait_for_a_device_is_seen():
    values = torch.tensor([1.0, 2.0])
    with host_waits() as waits:
        _ = (
            bool((values > 0).all()),
            values[values > 1],
            values.tolist(),
            values.sum().item(),
            values[torch.tensor([0])],
        )
    assert len(waits) == 4


@pytest.mark.parametrize("objective", [{}, {"objective": "dpo", "sync_ref_model": True}, {"objective": "nft"}])
def test_nothing_waits_for_the_device_between_forward_and_backward(tmp_path, pipeline_dir, cached, objective):
    trainer = make_trainer(pipeline_dir, tmp_path, cached, **objective)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in (0, 3)])
    trainer.model.train()
    with host_waits() as waits:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(2))
    assert waits == [] and loss.requires_grad


def test_rows_beside_a_loss_that_is_skipped_are_not_logged(tmp_path, pipeline_dir, cached):
    """Two micro-batches a step; the first of the second step overflows."""
    trainer = overflowing(
        make_trainer(
            pipeline_dir, tmp_path, cached, max_steps=2, per_device_train_batch_size=1, gradient_accumulation_steps=2
        ),
        lambda number: number == 1,
    )
    trainer.train()
    logged = [row["loss_unweighted"] for row in trainer.state.log_history if "loss_unweighted" in row]
    assert all(math.isfinite(value) for value in logged)


def loss_on_a_fake_device(trainer):
    """One micro-batch through the trainer's loss and its gradient, of a model and a batch that are on a device."""
    batch = trainer.data_collator([trainer.train_dataset[index] for index in (0, 3)])
    trainer.model.train().to(DEVICE)

    def moved(value):
        if isinstance(value, dict):
            return {name: moved(one) for name, one in value.items()}
        return value.to(DEVICE) if isinstance(value, torch.Tensor) else value

    with fake_device():
        loss = trainer.compute_loss(trainer.model, moved(batch), num_items_in_batch=torch.tensor(2).to(DEVICE))
        loss.backward()
    return {weight.grad.device for weight in trainer.model.parameters() if weight.grad is not None}


@pytest.mark.parametrize("objective", [{}, {"objective": "dpo", "sync_ref_model": True}, {"objective": "nft"}])
def test_the_loss_stays_on_its_device(tmp_path, pipeline_dir, cached, objective):
    assert loss_on_a_fake_device(make_trainer(pipeline_dir, tmp_path, cached, **objective)) == {DEVICE}


def test_a_tensor_that_a_loss_makes_on_the_cpu_is_found_at_its_line(tmp_path, pipeline_dir, cached):
    def numbered(rows, args):
        return rows.error * torch.arange(len(rows.error))

    trainer = make_trainer(pipeline_dir, tmp_path, cached, objective_of_own=numbered)
    with pytest.raises(RuntimeError, match="(?s)meta.*cpu|cpu.*meta") as found:
        loss_on_a_fake_device(trainer)
    assert any(entry.name == "numbered" for entry in found.traceback)
