"""One seeded step of every family and objective: stored figures, and a reference of a few lines that shares no code.

Clips are oblong and the VAE's scale is not 1, so that a swapped axis or a forgotten factor moves the figures.
"""

from functools import cache

import pytest
import torch
from torch.testing import assert_close

from lift_trl.alignment.cache import cache_videos
from lift_trl.alignment.video_dataset import CachedVideoDataset, collate
from lift_trl.records import RatedVideo, seed_from
from lift_trl.rubric import Dimension, Label
from lift_trl.video_models import PipelineSource
from tests.alignment.conftest import make_trainer, moving_square
from tests.contracts.video_models import VIDEO_MODELS


FRAMES, HEIGHT, WIDTH = 9, 24, 40
GOOD, NORMAL, BAD = Label.GOOD, Label.NORMAL, Label.BAD
#: Rewards .9, 1.15 / 3 and .05; the fourth clip is real.
LABELS = [(GOOD, GOOD, GOOD), (GOOD, NORMAL, BAD), (BAD, BAD, BAD)]
#: What weighs the four rows by equations 3 and 4 with lambda 1, N = 4 (RS: N = 2).
WEIGHTS = {
    "rwl": [0.9 * 4 / 3, 1.15 / 3 * 4 / 3, 0.05 * 4 / 3, 4.0],
    "rs": [2.0, 2.0],
    "sft": [4 / 3, 4 / 3, 4 / 3, 4.0],
}
KEPT = {"rwl": [0, 1, 2, 3], "rs": [0, 3], "sft": [0, 1, 2, 3]}
SEED, CAPTION_DROPOUT = 42, 0.5
PROMPTS = ("a red circle moving left", "a blue square moving up")
#: (loss, norm of the gradient of all weights), float32 on a CPU.
GOLDEN = {
    ("cogvideox-2b", "rwl"): (1.5131922, 1.2800002),
    ("cogvideox-2b", "rs"): (2.0911565, 1.8230558),
    ("cogvideox-2b", "sft"): (2.0911107, 1.7229131),
    ("cogvideox-5b", "rwl"): (1.4984511, 0.85038322),
    ("cogvideox-5b", "rs"): (2.0580502, 1.1652995),
    ("cogvideox-5b", "sft"): (2.0763233, 1.0842052),
    ("cogvideox-1.5", "rwl"): (1.5368783, 0.89497218),
    ("cogvideox-1.5", "rs"): (2.0903666, 1.2120463),
    ("cogvideox-1.5", "sft"): (2.1287171, 1.1533979),
}


def clips():
    """Four clips of seeded noise, [4, F, 3, H, W] in [-1, 1]; no codec takes part."""
    return torch.rand(4, FRAMES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5)) * 2 - 1


@cache
def pipeline(family):
    return VIDEO_MODELS[family]()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The ratings of the four clips; their files are only there so that the cache can be made."""
    folder = tmp_path_factory.mktemp("clips")
    files = [moving_square(folder / f"{i}.mp4", i, num_frames=FRAMES, size=HEIGHT, fps=24) for i in range(4)]
    rated = [
        RatedVideo(f"c{i}", files[i], PROMPTS[i % 2], dict(zip(Dimension, labels))) for i, labels in enumerate(LABELS)
    ]
    return [*rated, RatedVideo("c3", files[3], PROMPTS[1], is_real=True)]


@pytest.fixture(scope="module")
def cached(rows, tmp_path_factory):
    @cache
    def of(family):
        folder = tmp_path_factory.mktemp(family)
        return CachedVideoDataset(
            cache_videos(pipeline(family), rows, folder, num_frames=FRAMES, height=HEIGHT, width=WIDTH, fps=24)
        )

    return of


def draws(row_id, shape):
    """What a row draws at optimiser step 0."""
    generator = torch.Generator().manual_seed(seed_from(SEED, 0, (0.0, 1.0), row_id))
    posterior, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    return posterior, noise, int(torch.randint(0, 1000, (), generator=generator)), torch.rand((), generator=generator)


def cogvideox_prediction(pipe, clip, row_id, prompt):
    """Prediction and target of one clip [1, F, 3, H, W]: DDPM, v, frames before channels, 1.5 padded in front."""
    posterior = pipe.vae.encode(clip.transpose(1, 2)).latent_dist
    mean, std = (part.transpose(1, 2) for part in (posterior.mean, posterior.std))
    if pipe.transformer.config.patch_size_t:
        mean, std = (torch.cat([part[:, :1], part], dim=1) for part in (mean, std))
    of_posterior, noise, step, chance = draws(row_id, mean.shape[1:])
    x0 = 0.7 * (mean + std * of_posterior)
    abar = pipe.scheduler.alphas_cumprod[step]
    rotary = None
    if pipe.transformer.config.use_rotary_positional_embeddings:
        rotary = pipe._prepare_rotary_positional_embeddings(HEIGHT, WIDTH, mean.shape[1], torch.device("cpu"))
    text = pipe.encode_prompt("" if chance < CAPTION_DROPOUT else prompt, None, False, max_sequence_length=6)[0]
    prediction = pipe.transformer(
        abar.sqrt() * x0 + (1 - abar).sqrt() * noise, text, torch.tensor([step]), image_rotary_emb=rotary
    ).sample
    return prediction, abar.sqrt() * noise - (1 - abar).sqrt() * x0


REFERENCES = dict.fromkeys(("cogvideox-2b", "cogvideox-5b", "cogvideox-1.5"), cogvideox_prediction)


def gradient_norm(model):
    return torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm().item()


def step(family, objective, cached, tmp_path):
    """Loss and gradient norm of the trainer, at posteriors and texts that no file has rounded."""
    pipe = pipeline(family)
    trainer = make_trainer(
        pipe,
        tmp_path,
        cached(family),
        peft_config=None,
        objective=objective,
        caption_dropout=CAPTION_DROPOUT,
        seed=SEED,
    )
    dataset, adapter = trainer.train_dataset, PipelineSource(pipe).adapter
    batch = collate([dataset[index] for index in range(len(dataset))])
    assert_close(batch["weight"], torch.tensor(WEIGHTS[objective]))
    kept = KEPT[objective]
    posterior = adapter.encode_video(pipe, clips()[kept])
    batch["latent_mean"], batch["latent_logvar"] = posterior
    batch["text"] = adapter.encode_text(pipe, [PROMPTS[1 if i == 3 else i % 2] for i in kept])
    trainer._empty_prompt = {name: part[0] for name, part in adapter.encode_text(pipe, [""]).items()}
    trainer.model.train().zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradient_norm(trainer.model)


@pytest.mark.parametrize("objective", WEIGHTS)
@pytest.mark.parametrize("family", REFERENCES)
def test_a_seeded_step_is_the_stored_one_and_the_references(family, objective, cached, tmp_path):
    loss, norm = step(family, objective, cached, tmp_path)
    pipe, rows = pipeline(family), KEPT[objective]
    pipe.transformer.zero_grad()
    losses = []
    for weight, index in zip(WEIGHTS[objective], rows, strict=True):
        prompt = PROMPTS[1 if index == 3 else index % 2]
        prediction, target = REFERENCES[family](pipe, clips()[index : index + 1], f"c{index}", prompt)
        losses.append(weight * (prediction - target).square().mean() / len(rows))
    sum(losses).backward()
    assert_close([loss, norm], [sum(losses).item(), gradient_norm(pipe.transformer)], rtol=1e-5, atol=0)
    assert_close((loss, norm), GOLDEN[family, objective], rtol=1e-5, atol=0)
