"""What every adapter of a text-to-video family must do, on its real classes at tiny size. The checklist of a new family.

Clips are oblong, latents are scaled: a swapped axis or a forgotten scale is seen. An adapter is held to its own pipeline:
what the pipeline gives the network, and what it makes of latents.
"""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

from lift_trl.alignment.data.cache_format import text_bytes, text_from_bytes
from lift_trl.alignment.objectives import per_sample_loss
from lift_trl.hub.lora.files import export_diffusers_lora
from lift_trl.hub.lora.loading import find_lora, load_lora
from lift_trl.records import NoisySample, TextCondition
from lift_trl.video_models import HeldPipeline, open_pipeline
from tests.contracts.video_models import VIDEO_MODELS


FRAMES, HEIGHT, WIDTH = 9, 32, 64
PROMPT, OTHER = "a red circle moving left", "a blue square moving up"


@pytest.fixture(scope="module", params=VIDEO_MODELS)
def source(request) -> HeldPipeline:
    return HeldPipeline(VIDEO_MODELS[request.param]())


def clips():
    return torch.rand(2, FRAMES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def encoded(source):
    """The posterior of two clips, and the text of a prompt and of none."""
    return (
        source.adapter.encode_video(source.pipeline, clips()),
        source.adapter.encode_text(source.pipeline, [PROMPT, ""]),
    )


def noise_like(latents):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))


def one(text: TextCondition) -> TextCondition:
    return TextCondition({name: tensor[:1] for name, tensor in text.items()})


def sample(source, text, *, guidance_scale=1.0, negative=None, num_inference_steps=3, **options):
    """A call of the family's pipeline, as `generate` and validation make it."""
    source.adapter.prepare_sampling(source.pipeline, guidance_scale)
    return source.pipeline(
        **source.adapter.pipeline_text(text, negative),
        **source.adapter.sampling_arguments(FRAMES, HEIGHT, WIDTH, guidance_scale),
        num_inference_steps=num_inference_steps,
        generator=torch.Generator().manual_seed(3),
        **options,
    ).frames


class Recorder:
    """In place of a network's forward: keeps what it is called with, and answers with `answer(kwargs)`."""

    def __init__(self, monkeypatch, network, answer=None):
        self.calls, self._forward, self._answer = [], network.forward, answer
        monkeypatch.setattr(network, "forward", self)

    def __call__(self, **kwargs):
        self.calls.append(kwargs)
        return self._forward(**kwargs) if self._answer is None else (self._answer(kwargs),)


#: Frames a second that the authors trained their model at (model cards; LTX: the default of its pipeline's call).
FPS = {
    "cogvideox-2b": 8, "cogvideox-5b": 8, "cogvideox-1.5": 16, "wan-2.1": 16, "wan-2.1-euler": 16, "wan-2.2-ti2v": 24,
    "ltx": 25, "hunyuan-1.5": 24,
}  # fmt: skip


def test_the_frame_rate_is_that_of_the_authors():
    """At another rate everything moves too fast or too slowly, and no shape tells."""
    assert {name: open_pipeline(build()).adapter.fps for name, build in VIDEO_MODELS.items()} == FPS


# ---- Text and video ------------------------------------------------------------------------------------------------


def test_text_is_the_same_alone_and_in_a_batch(source, encoded):
    text = encoded[1]
    assert isinstance(text, TextCondition)
    single = source.adapter.encode_text(source.pipeline, [PROMPT])
    assert single.keys() == text.keys()
    for name in text:
        assert_close(single[name][0], text[name][0])
    assert not torch.equal(text["prompt_embeds"][0], text["prompt_embeds"][1])


def test_the_stored_text_is_the_text(encoded):
    """On disk without the zeros at the end; in the precision that it has."""
    for index in (0, 1):
        alone = TextCondition({name: tensor[index] for name, tensor in encoded[1].items()})
        loaded = text_from_bytes(text_bytes(alone))
        assert loaded.keys() == alone.keys()
        for name in alone:
            assert torch.equal(loaded[name], alone[name]) and loaded[name].dtype == alone[name].dtype


def test_a_draw_is_what_the_pipelines_own_scaling_gives(source, encoded):
    """Mean and deviation: one deviation above the mean is, unscaled again, one above the VAE's own mean."""
    posterior = encoded[0]
    assert posterior.mean.shape == posterior.logvar.shape and len(posterior.mean) == 2
    source.pipeline.vae.enable_slicing()
    own = source.pipeline.vae.encode(clips().transpose(1, 2)).latent_dist
    # The scale of each element, from the posterior's own means: exact for any affine map of a channel.
    mean, std = posterior.mean, (0.5 * posterior.logvar).exp()
    channel = 2 if mean.shape[2] == own.mean.shape[1] else 1
    ours, theirs = ((part.transpose(0, channel).flatten(1)) for part in (mean, std))
    own_mean, own_std = (part.transpose(0, 1).flatten(1) for part in (own.mean, own.std))
    for c in range(len(own_mean)):
        slope = ours[c].max().sub(ours[c].min()) / own_mean[c].max().sub(own_mean[c].min())
        assert abs(float(slope) - 1) > 1e-3, "the tiny model's scale is 1: it would hide a forgotten one"
        assert_close(theirs[c].max() / own_std[c].max(), slope, rtol=1e-3, atol=0)


# ---- The network and the pipeline ----------------------------------------------------------------------------------


def test_the_adapter_calls_the_network_as_the_pipeline_does(source, encoded, monkeypatch):
    network = source.pipeline.transformer
    recorder = Recorder(monkeypatch, network)
    sample(source, one(encoded[1]), output_type="latent")
    theirs = recorder.calls[0]
    latents = encoded[0].mean[:1]
    # The pipeline's first latents are its noise, drawn in the shape of the cached ones.
    x_t = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    timestep = theirs["timestep"].flatten()[:1].float()
    assert (theirs["timestep"] == theirs["timestep"].flatten()[0]).all()  # TI2V-5B: one a token, all alike
    source.adapter.predict(network, NoisySample(x_t, timestep, x_t), one(encoded[1]))
    ours = recorder.calls[-1]
    unset = {name for name, value in theirs.items() if value is None} | {"timestep", "return_dict"}
    assert ours.keys() - {"return_dict", "image_rotary_emb", "timestep"} == theirs.keys() - unset - {
        "image_rotary_emb"
    }
    for name in ours.keys() - {"timestep", "return_dict"}:
        assert_close(ours[name], theirs[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(ours["timestep"].float(), timestep)


def test_an_oracle_walks_from_noise_to_the_clip(source, encoded, monkeypatch):
    """
    The pipeline's own scheduler and last step, with a network that knows the target: what comes out is what the VAE makes of
    the clip. So targets, clock, scale, layout and padding are those of the pipeline.
    """
    network, adapter = source.pipeline.transformer, source.adapter
    x0 = encoded[0].mean[:1]
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    scheduler = source.load(dtype=torch.float32).scheduler

    def in_the_networks_form(target):
        """`target` as `predict` hands latents to the network."""
        seen = {}

        def echo(**kwargs):
            seen.update(kwargs)
            return (kwargs["hidden_states"],)

        adapter.predict(echo, NoisySample(target, torch.zeros(1), target), one(encoded[1]))
        form = seen["hidden_states"]
        return form[:, : target.shape[1]] if form.ndim == target.ndim else form

    def oracle(kwargs):
        step = kwargs["timestep"].flatten()[:1].long().clamp(max=999)
        return in_the_networks_form(adapter.corrupt(scheduler, x0, noise, step).target)

    Recorder(monkeypatch, network, oracle)
    frames = sample(source, one(encoded[1]), num_inference_steps=5, output_type="pt")
    vae = source.pipeline.vae
    own = vae.decode(vae.encode(clips()[:1].transpose(1, 2)).latent_dist.mode()).sample
    assert_close(frames[0], (own[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1), rtol=0, atol=2e-5)


def test_guidance_moves_from_the_negative_prompt(source, encoded):
    """With embedded texts, as the pipeline makes of the prompts' words; guidance and negative prompt have effect."""
    text = one(encoded[1])
    negative = source.adapter.encode_text(source.pipeline, [OTHER])
    guided, plain = (
        sample(source, text, guidance_scale=scale, negative=negative if scale > 1 else None, output_type="np")
        for scale in (4.0, 1.0)
    )
    assert np.abs(guided - plain).max() > 1e-6
    other = sample(source, text, guidance_scale=4.0, negative=one(encoded[1]), output_type="np")
    assert_close(other, plain, rtol=0, atol=1e-5)  # away from itself is nowhere


# ---- The forward process -------------------------------------------------------------------------------------------


def test_corruption_runs_from_the_latents_to_the_noise(source, encoded):
    latents, scheduler = encoded[0].mean, source.load(dtype=torch.float32).scheduler
    noise = noise_like(latents)

    def share(quantile):
        """How much of x_t is noise, by its correlations with noise and latents."""
        x_t = source.adapter.corrupt(scheduler, latents, noise, torch.tensor([quantile, quantile])).x_t
        pair = [float((x_t * part).sum() / (part * part).sum()) for part in (noise, latents)]
        return pair[0] / (pair[0] + pair[1])

    shares = [share(quantile) for quantile in (0, 250, 500, 750, 999)]
    assert shares == sorted(shares) and shares[0] < 0.2 and shares[-1] > 0.9
    sample = source.adapter.corrupt(scheduler, latents, noise, torch.tensor([0, 999]))
    assert sample.x_t.dtype == sample.target.dtype == torch.float32 and sample.target.shape == latents.shape


def test_corruption_is_float32_for_half_precision_latents(source, encoded):
    """The schedule is never rounded to the base's precision."""
    latents, scheduler = encoded[0].mean.bfloat16(), source.load(dtype=torch.float32).scheduler
    noise, quantiles = noise_like(latents), torch.tensor([0, 500])
    half = source.adapter.corrupt(scheduler, latents, noise, quantiles)
    full = source.adapter.corrupt(scheduler, latents.float(), noise, quantiles)
    assert torch.equal(half.x_t, full.x_t) and torch.equal(half.target, full.target)


def test_a_scheduler_of_another_kind_is_refused(source, encoded):
    from diffusers import DDPMScheduler

    with pytest.raises(ValueError, match="Restore the checkpoint's own scheduler_config.json"):
        source.adapter.corrupt(DDPMScheduler(), encoded[0].mean, encoded[0].mean, torch.tensor([1, 1]))


# ---- Training ------------------------------------------------------------------------------------------------------


def corrupted(source, latents, quantiles):
    scheduler = source.load(dtype=torch.float32).scheduler
    return source.adapter.corrupt(scheduler, latents, noise_like(latents), torch.tensor(quantiles))


def fresh_transformer(source: HeldPipeline) -> torch.nn.Module:
    """A fresh copy of the pipeline's transformer."""
    original = source.pipeline.transformer
    copy = type(original).from_config(original.config)
    copy.load_state_dict(original.state_dict())
    return copy


def lora_config(source, **settings) -> LoraConfig:
    return LoraConfig(r=2, target_modules=list(source.adapter.lora_target_modules), **settings)


def test_an_untrained_lora_predicts_what_the_base_does(source, encoded):
    latents, text = encoded[0].mean, encoded[1]
    noisy = corrupted(source, latents, [400, 400])
    # Frozen first: kernels of frozen and of trainable weights may differ in the last bit.
    transformer = fresh_transformer(source).requires_grad_(False)
    with torch.no_grad():
        base = source.adapter.predict(transformer, noisy, text)
        model = get_peft_model(transformer, lora_config(source))
        assert torch.equal(source.adapter.predict(model, noisy, text), base)


def test_twenty_steps_fit_one_clip_and_checkpointing_changes_nothing(source, encoded):
    latents, text = encoded[0].mean, encoded[1]
    model = fresh_transformer(source)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    noisy = corrupted(source, latents, [300, 700])
    losses = []
    for _ in range(20):
        loss = per_sample_loss(source.adapter.predict(model, noisy, text), noisy.target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

    def gradients():
        model.zero_grad()
        per_sample_loss(source.adapter.predict(model, noisy, text), noisy.target).mean().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients()
    model.enable_gradient_checkpointing()
    model.train()
    for one_way, other in zip(plain, gradients(), strict=True):
        assert_close(other, one_way, rtol=1e-4, atol=1e-6)


def test_an_exported_lora_loads_into_the_pipeline_with_equal_outputs(source, encoded, tmp_path):
    latents, text = encoded[0].mean, encoded[1]
    model = get_peft_model(fresh_transformer(source).requires_grad_(False), lora_config(source, lora_alpha=8))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    export_diffusers_lora(tmp_path, tmp_path)
    noisy = corrupted(source, latents, [400, 400])
    pipe = open_pipeline(source.pipeline).load("transformer", dtype=torch.float32, private=True)
    pipe.transformer.requires_grad_(False)
    with torch.no_grad():
        trained = source.adapter.predict(model, noisy, text)
        base = source.adapter.predict(pipe.transformer, noisy, text)
        load_lora(pipe, find_lora(tmp_path), name="lift")
        loaded = source.adapter.predict(pipe.transformer, noisy, text)
    assert torch.equal(loaded, trained)
    assert (trained - base).abs().max() > 1e-3


# ---- Sizes ---------------------------------------------------------------------------------------------------------


def test_legal_sizes_decode_to_their_own_length_and_others_name_the_nearest(source):
    adapter = source.adapter
    with pytest.raises(ValueError, match="Nearest legal values"):
        adapter.check_size(8, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="width=50: must be a multiple of .*Nearest legal value: (48|52|64)"):
        adapter.check_size(FRAMES, HEIGHT, 50)
    adapter.check_size(*adapter.default_size)
    for num_frames, height, width in ((1, 32, 32), (17, 64, 32)):
        adapter.check_size(num_frames, height, width)
        posterior = adapter.encode_video(source.pipeline, torch.zeros(1, num_frames, 3, height, width))
        source.adapter.prepare_sampling(source.pipeline, 1.0)
        arguments = adapter.sampling_arguments(num_frames, height, width, 1.0)
        text = adapter.encode_text(source.pipeline, [PROMPT])
        frames = source.pipeline(
            **adapter.pipeline_text(text, None), **arguments, num_inference_steps=2, output_type="np"
        ).frames
        assert frames.shape == (1, num_frames, height, width, 3)
        assert posterior.mean[0].numel() > 0


def test_a_pipeline_in_memory_keeps_what_its_class_keeps_in_float32(source, tmp_path):
    """In half precision: a folder and a pipeline in memory give the same weights, tensor by tensor."""
    source.pipeline.save_pretrained(tmp_path)
    parts = ("transformer", "text_encoder")
    for dtype in (torch.bfloat16, torch.float16):
        stored, held = (open_pipeline(model).load(*parts, dtype=dtype) for model in (tmp_path, source.pipeline))
        for part in parts:
            one_way, other = (pipe.components[part].state_dict() for pipe in (stored, held))
            for name, tensor in one_way.items():
                assert other[name].dtype == tensor.dtype and torch.equal(other[name], tensor), (part, name)


def test_a_network_in_8_bits_comes_with_all_that_is_always_loaded(source):
    """Also what stands after the network in a pipeline: the scheduler, and HunyuanVideo 1.5's VAE and guider."""
    networks = source.adapter.networks

    def held(quantization):
        pipe = source.load(*networks, dtype=torch.float32, quantization=quantization)
        return {name for name, part in pipe.components.items() if part is not None}

    assert held("int8") == held(None) >= {*networks, *source.adapter.always_loaded}
