"""What every adapter of a text-to-video family must do, on its real classes at tiny size."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

from lift_trl.alignment.cache_format import text_bytes, text_from_bytes
from lift_trl.alignment.objectives import per_sample_loss
from lift_trl.hub.lora import export_diffusers_lora
from lift_trl.records import TextCondition
from lift_trl.video_models import PipelineSource
from tests.contracts.video_models import VIDEO_MODELS


FRAMES, HEIGHT, WIDTH = 9, 32, 48


@pytest.fixture(scope="module", params=VIDEO_MODELS)
def source(request) -> PipelineSource:
    return PipelineSource(VIDEO_MODELS[request.param]())


def clips():
    return torch.rand(2, FRAMES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def encoded(source):
    """Latents of two clips in the network's scale, their posterior, and the text of two prompts."""
    posterior = source.adapter.encode_video(source.pipeline, clips())
    text = source.adapter.encode_text(source.pipeline, ["a red circle moving left", ""])
    return posterior.mean, posterior, text


def noise_like(latents):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))


def scheduler_of(source):
    return source.load(dtype=torch.float32).scheduler


def test_text_has_one_length_and_a_mask(source, encoded):
    text = encoded[2]
    assert isinstance(text, TextCondition)
    single = source.adapter.encode_text(source.pipeline, ["a red circle moving left"])
    assert single.keys() == text.keys()
    for name in text:
        assert_close(single[name][0], text[name][0])
    assert not torch.equal(text["prompt_embeds"][0], text["prompt_embeds"][1])


def test_the_stored_text_is_the_text(source, encoded):
    """On disk without the zeros at the end; in the precision that it has."""
    for index in (0, 1):
        one = TextCondition({name: tensor[index] for name, tensor in encoded[2].items()})
        loaded = text_from_bytes(text_bytes(one))
        assert loaded.keys() == one.keys()
        for name in one:
            assert torch.equal(loaded[name], one[name]) and loaded[name].dtype == one[name].dtype


def test_posterior_is_the_vaes_in_the_networks_scale(source, encoded):
    """A draw, then scaled, is a draw from the scaled posterior."""
    _, posterior, _ = encoded
    assert posterior.mean.shape == posterior.logvar.shape and len(posterior.mean) == 2
    own = source.pipeline.vae.encode(clips().transpose(1, 2)).latent_dist
    frames = own.mean.shape[2]
    scale = source.pipeline.vae.config.scaling_factor
    mean, std = (part[:, -frames:].transpose(1, 2) for part in (posterior.mean, (0.5 * posterior.logvar).exp()))
    assert_close(mean, own.mean * scale, rtol=1e-5, atol=1e-6)
    assert_close(std, own.std * scale, rtol=1e-4, atol=1e-8)


def test_the_pipelines_own_latents_have_this_layout(source, encoded):
    sampled = source.pipeline(
        num_inference_steps=2, output_type="latent", **source.adapter.pipeline_text(encoded[2], None),
        **source.adapter.sampling_arguments(FRAMES, HEIGHT, WIDTH, guidance_scale=1.0),
    ).frames  # fmt: skip
    assert sampled.shape[1:] == encoded[0].shape[1:]


def test_corruption_runs_from_the_latents_to_the_noise(source, encoded):
    latents, scheduler = encoded[0], scheduler_of(source)
    noise = noise_like(latents)
    last = scheduler.config.num_train_timesteps - 1
    least = source.adapter.corrupt(scheduler, latents, noise, torch.tensor([0, 0]))
    most = source.adapter.corrupt(scheduler, latents, noise, torch.tensor([last, last]))
    assert_close(least.x_t, latents, rtol=0, atol=0.15)
    assert_close(most.x_t, noise, rtol=0, atol=0.05 * float(latents.abs().max()) + 1e-4)
    assert least.x_t.dtype == least.target.dtype == torch.float32
    assert least.target.shape == latents.shape


def test_corruption_is_float32_for_half_precision_latents(source, encoded):
    """The schedule is never rounded to the base's precision."""
    latents = encoded[0].bfloat16()
    noise, timesteps = noise_like(latents), torch.tensor([0, 500])
    half = source.adapter.corrupt(scheduler_of(source), latents, noise, timesteps)
    full = source.adapter.corrupt(scheduler_of(source), latents.float(), noise, timesteps)
    assert torch.equal(half.x_t, full.x_t) and torch.equal(half.target, full.target)


def test_the_v_form_of_the_loss_equals_the_x0_form(source, encoded):
    """|x0_hat - x0|^2 / (1 - abar) = |v_hat - v|^2, at every noise level."""
    latents, _, text = encoded
    scheduler = scheduler_of(source)
    for step in (1, 200, 700, 998):
        timesteps = torch.tensor([step, step])
        noisy = source.adapter.corrupt(scheduler, latents, noise_like(latents), timesteps)
        with torch.no_grad():
            prediction = source.adapter.predict(source.pipeline.transformer, noisy, text).double()
        abar = scheduler.alphas_cumprod[timesteps].double().view(-1, 1, 1, 1, 1)
        x0_hat = abar.sqrt() * noisy.x_t.double() - (1 - abar).sqrt() * prediction
        x0_form = ((x0_hat - latents.double()).square() / (1 - abar)).flatten(1).mean(dim=1)
        assert_close(per_sample_loss(prediction, noisy.target).double(), x0_form, rtol=1e-4, atol=1e-6)


def test_an_untrained_lora_predicts_what_the_base_does(source, encoded):
    latents, _, text = encoded
    noisy = source.adapter.corrupt(scheduler_of(source), latents, noise_like(latents), torch.tensor([400, 400]))
    transformer = fresh_transformer(source)
    with torch.no_grad():
        base = source.adapter.predict(transformer, noisy, text)
        model = get_peft_model(transformer, LoraConfig(r=2, target_modules=list(source.adapter.lora_target_modules)))
        assert torch.equal(source.adapter.predict(model, noisy, text), base)


def test_thirty_steps_fit_one_clip_and_checkpointing_changes_nothing(source, encoded):
    latents, _, text = encoded
    model = fresh_transformer(source)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    noisy = source.adapter.corrupt(scheduler_of(source), latents, noise_like(latents), torch.tensor([300, 700]))
    losses = []
    for _ in range(30):
        loss = per_sample_loss(source.adapter.predict(model, noisy, text), noisy.target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]

    def gradients():
        model.zero_grad()
        per_sample_loss(source.adapter.predict(model, noisy, text), noisy.target).mean().backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    model.enable_gradient_checkpointing()
    for one, other in zip(plain, gradients()):
        assert_close(other, one)


def test_an_exported_lora_loads_into_the_pipeline_with_equal_outputs(source, encoded, tmp_path):
    latents, _, text = encoded
    model = get_peft_model(
        fresh_transformer(source),
        LoraConfig(r=2, lora_alpha=8, target_modules=list(source.adapter.lora_target_modules)),
    )
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(str(tmp_path))
    export_diffusers_lora(tmp_path, tmp_path, pipeline_class=source.class_name)
    noisy = source.adapter.corrupt(scheduler_of(source), latents, noise_like(latents), torch.tensor([400, 400]))
    pipe = source.pipeline
    with torch.no_grad():
        trained = source.adapter.predict(model, noisy, text)
        pipe.load_lora_weights(tmp_path)
        loaded = source.adapter.predict(pipe.transformer, noisy, text)
        pipe.unload_lora_weights()
    assert torch.equal(loaded, trained)
    assert not torch.equal(source.adapter.predict(pipe.transformer, noisy, text), trained)


@pytest.mark.parametrize("num_frames, height, width", [(1, 32, 32), (9, 32, 48), (17, 40, 32)])
def test_legal_sizes_decode_to_their_own_length(source, num_frames, height, width):
    source.adapter.check_size(num_frames, height, width)
    posterior = source.adapter.encode_video(source.pipeline, torch.zeros(1, num_frames, 3, height, width))
    latents = posterior.mean
    # 1.5 pads latent frames in front to whole temporal patches; the pipeline discards them before decoding.
    frames = (num_frames - 1) // 4 + 1
    decoded = source.pipeline.decode_latents(latents[:, latents.shape[1] - frames :])
    assert decoded.shape == (1, 3, num_frames, height, width)


def test_another_prediction_type_is_refused(source, encoded):
    scheduler = type(scheduler_of(source)).from_config(scheduler_of(source).config, prediction_type="epsilon")
    with pytest.raises(ValueError, match="predicts 'epsilon'; CogVideoX needs 'v_prediction'"):
        source.adapter.corrupt(scheduler, encoded[0], encoded[0], torch.tensor([1, 1]))


def fresh_transformer(source: PipelineSource) -> torch.nn.Module:
    """A fresh copy of the pipeline's transformer."""
    original = source.pipeline.transformer
    copy = type(original).from_config(original.config)
    copy.load_state_dict(original.state_dict())
    return copy
