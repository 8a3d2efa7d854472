"""One seeded step of every family and objective: stored figures, and a reference of a few lines that shares no code.

Clips are oblong and the VAE's scale is not 1, so that a swapped axis or a forgotten factor moves the figures.
"""

import math
from functools import cache
from statistics import NormalDist

import pytest
import torch
from torch.testing import assert_close

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset, collate
from lift_trl.records import RatedVideo, seed_from
from lift_trl.rubric import Dimension, Label
from lift_trl.video_models import open_pipeline
from tests.alignment.conftest import make_trainer, moving_square
from tests.contracts.video_models import VIDEO_MODELS


FRAMES = 9
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
    ("cogvideox-1.5", "rwl"): (1.8645973, 0.82150454),
    ("cogvideox-1.5", "rs"): (2.5389996, 1.0738926),
    ("cogvideox-1.5", "sft"): (2.5186310, 0.96755870),
    ("wan-2.1", "rwl"): (4.5973272, 2.1285129),
    ("wan-2.1", "rs"): (6.4238591, 2.9326553),
    ("wan-2.1", "sft"): (6.2785802, 2.7662250),
    ("wan-2.2-ti2v", "rwl"): (2.8041034, 1.3176491),
    ("wan-2.2-ti2v", "rs"): (3.9358060, 1.7680193),
    ("wan-2.2-ti2v", "sft"): (3.9242334, 1.6726954),
    ("ltx", "rwl"): (3.8786473, 3.9142565),
    ("ltx", "rs"): (5.4774027, 5.3695590),
    ("ltx", "sft"): (5.2354817, 4.8763780),
    ("hunyuan-1.5", "rwl"): (6.5776000, 4.2782136),
    ("hunyuan-1.5", "rs"): (9.0299978, 5.4911169),
    ("hunyuan-1.5", "sft"): (9.0271702, 5.7541881),
}


def size_of(family):
    """Height and width: the flows' patches are larger."""
    return (24, 40) if family.startswith("cogvideox") else (32, 64)


def clips(family):
    """Four clips of seeded noise, [4, F, 3, H, W] in [-1, 1]; no codec takes part."""
    return torch.rand(4, FRAMES, 3, *size_of(family), generator=torch.Generator().manual_seed(5)) * 2 - 1


@cache
def pipeline(family):
    return VIDEO_MODELS[family]()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The ratings of the four clips; their files are only there so that the cache can be made."""
    folder = tmp_path_factory.mktemp("clips")
    files = [moving_square(folder / f"{i}.mp4", i, num_frames=FRAMES, size=24, fps=24) for i in range(4)]
    rated = [
        RatedVideo(f"c{i}", files[i], PROMPTS[i % 2], dict(zip(Dimension, labels))) for i, labels in enumerate(LABELS)
    ]
    return [*rated, RatedVideo("c3", files[3], PROMPTS[1], is_real=True)]


@pytest.fixture(scope="module")
def cached(rows, tmp_path_factory):
    @cache
    def of(family):
        folder, (height, width) = tmp_path_factory.mktemp(family), size_of(family)
        return CachedVideoDataset(
            cache_videos(
                pipeline(family),
                rows,
                folder,
                num_frames=FRAMES,
                height=height,
                width=width,
                fps=None if family == "ltx" else 24,
            )  # fmt: skip
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
        rotary = pipe._prepare_rotary_positional_embeddings(*clip.shape[-2:], mean.shape[1], torch.device("cpu"))
    text = pipe.encode_prompt("" if chance < CAPTION_DROPOUT else prompt, None, False, max_sequence_length=6)[0]
    prediction = pipe.transformer(
        abar.sqrt() * x0 + (1 - abar).sqrt() * noise, text, torch.tensor([step]), image_rotary_emb=rotary
    ).sample
    return prediction, abar.sqrt() * noise - (1 - abar).sqrt() * x0


def flow_prediction(of_posterior, level_of, call):
    """A flow: `of_posterior` normalises, `level_of` is the noise level of a quantile, `call` the network's."""

    def prediction(pipe, clip, row_id, prompt):
        posterior = pipe.vae.encode(clip.transpose(1, 2)).latent_dist
        mean, std = of_posterior(pipe, posterior.mean, posterior.std)
        draw, noise, step, chance = draws(row_id, mean.shape[1:])
        x0, level = mean + std * draw, level_of(step, mean)
        x_t = (1 - level) * x0 + level * noise
        return call(pipe, x_t, torch.tensor([1000 * level]), "" if chance < CAPTION_DROPOUT else prompt), noise - x0

    return prediction


def shifted(shift):
    """Entry `step` of a table of 1000 uniform levels, shifted."""
    return lambda step, latents: shift * (step + 1) / 1000 / (1 + (shift - 1) * (step + 1) / 1000)


def ltx_level(step, latents):
    """Logit-normal; its mean runs from .95 at 1024 tokens to 2.05 at 4096."""
    mean = 0.95 + (latents[0, 0].numel() - 1024) * (2.05 - 0.95) / (4096 - 1024)
    return 1 / (1 + math.exp(-NormalDist(mean, 1).inv_cdf((step + 0.5) / 1000)))


def wan_posterior(pipe, mean, std):
    m, s = (torch.tensor(pipe.vae.config[name]).view(-1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return (mean - m) / s, std / s


def ltx_posterior(pipe, mean, std):
    m, s = (part.view(-1, 1, 1, 1) for part in (pipe.vae.latents_mean, pipe.vae.latents_std))
    return (mean - m) / s * 0.9, std / s * 0.9


def wan_call(pipe, x_t, time, prompt):
    return pipe.transformer(x_t, time, pipe.encode_prompt([prompt], None, False, max_sequence_length=6)[0]).sample


def ltx_call(pipe, x_t, time, prompt):
    text, mask, _, _ = pipe.encode_prompt([prompt], None, False, max_sequence_length=6)
    frames, height, width = x_t.shape[2:]
    rope = (4 / 25, 8, 8)
    tokens = pipe.transformer(x_t.flatten(2).mT, text, time, mask, frames, height, width, rope).sample
    return tokens.mT.unflatten(2, (frames, height, width))


def hunyuan_call(pipe, x_t, time, prompt):
    text, mask, glyphs, glyph_mask = pipe.encode_prompt([prompt])
    inputs = torch.cat([x_t, torch.zeros_like(x_t), torch.zeros_like(x_t[:, :1])], dim=1)
    image = torch.zeros(1, 729, 8)
    return pipe.transformer(inputs, time, text, mask, None, glyphs, glyph_mask, image).sample


REFERENCES = {
    **dict.fromkeys(("cogvideox-2b", "cogvideox-5b", "cogvideox-1.5"), cogvideox_prediction),
    "wan-2.1": flow_prediction(wan_posterior, shifted(3), wan_call),
    "wan-2.2-ti2v": flow_prediction(wan_posterior, shifted(5), wan_call),
    "ltx": flow_prediction(ltx_posterior, ltx_level, ltx_call),
    "hunyuan-1.5": flow_prediction(lambda pipe, mean, std: (1.3 * mean, 1.3 * std), shifted(7), hunyuan_call),
}


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
    dataset, adapter = trainer.train_dataset, open_pipeline(pipe).adapter
    batch = collate([dataset[index] for index in range(len(dataset))])
    assert_close(batch["weight"], torch.tensor(WEIGHTS[objective]))
    kept = KEPT[objective]
    posterior = adapter.encode_video(pipe, clips(family)[kept])
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
        prediction, target = REFERENCES[family](pipe, clips(family)[index : index + 1], f"c{index}", prompt)
        losses.append(weight * (prediction - target).square().mean() / len(rows))
    sum(losses).backward()
    assert_close([loss, norm], [sum(losses).item(), gradient_norm(pipe.transformer)], rtol=1e-5, atol=0)
    assert_close((loss, norm), GOLDEN[family, objective], rtol=1e-5, atol=0)
