"""Devices without a device: each family's encoding, loss with backward, and sampling on tensors of device "meta".

They hold nothing, and FakeTensorMode refuses an operation on tensors of two devices. So a tensor that some line makes on the
CPU, and that only a GPU would refuse, is found here. Not for types of numbers: autocast knows no such device.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lift_trl.alignment.data.clips import scaled
from lift_trl.alignment.objectives import per_sample_loss
from lift_trl.alignment.training.draws import draw_rows
from lift_trl.records import TextCondition
from lift_trl.video_models import open_pipeline
from tests.contracts.video_models import VIDEO_MODELS
from tests.fake_device import DEVICE, fake_device


FRAMES, HEIGHT, WIDTH = 9, 32, 64


def test_what_is_made_of_numbers_alone_is_known_and_still_of_a_device():
    with fake_device():
        sizes, unknown = torch.tensor([3, 0, 5]).to(DEVICE), torch.rand(3, device=DEVICE)
        assert (sizes - torch.arange(3, device=DEVICE)).tolist() == [3, -1, 3]
        assert sizes[sizes > 0].tolist() == [3, 5] and unknown[sizes > 0].shape == (2,)
        sizes[1:] = torch.tensor([sizes[2], 7], device=DEVICE)
        assert sizes.tolist() == [3, 5, 7] and unknown[unknown > 0].shape == (3,)
        sizes[0] = unknown.argmax()
        assert sizes.tolist() == [0, 0, 0]  # not known any more
        with pytest.raises(RuntimeError, match="at least two devices, meta and cpu"):
            sizes + torch.arange(3)


@pytest.fixture(scope="module", params=VIDEO_MODELS)
def family(request):
    """A source whose network and VAE are on the device, the shape of its latents, and an embedded prompt on the CPU."""
    pipe = VIDEO_MODELS[request.param]()
    source = open_pipeline(pipe)
    encoded = source.adapter.encode_video(pipe, torch.zeros(1, FRAMES, 3, HEIGHT, WIDTH))
    text = source.adapter.encode_text(pipe, ["a red fox"])
    for name in ("vae", *source.adapter.networks):
        pipe.components[name].to(DEVICE)
    return source, encoded.mean.shape[1:], text


def on_device(text: TextCondition, rows: int) -> TextCondition:
    return TextCondition({k: v.to(DEVICE).expand(rows, *v.shape[1:]) for k, v in text.items()})


def losses(source, shape, text, network):
    """As the trainer's, of two rows."""
    draws = draw_rows(["a", "b"], shape, key=(0,), num_timesteps=1000, caption_dropout=0.1)
    draws = [draw.to(DEVICE) for draw in draws]
    noisy = source.adapter.corrupt(source.pipeline.scheduler, draws[0], draws[1], draws[2])
    return per_sample_loss(source.adapter.predict(network, noisy, on_device(text, 2)), noisy.target)


def test_encoding_and_loss_with_backward_stay_on_the_device(family):
    source, shape, text = family
    network = getattr(source.pipeline, source.adapter.networks[0]).requires_grad_(False)
    lora = LoraConfig(r=2, target_modules=list(source.adapter.lora_target_modules))
    tuned = get_peft_model(network, lora).train()
    with fake_device():
        clip = scaled(torch.zeros(1, FRAMES, 3, HEIGHT, WIDTH, dtype=torch.uint8).to(DEVICE))
        assert source.adapter.encode_video(source.pipeline, clip).mean.device == DEVICE
        losses(source, shape, text, tuned).mean().backward()
    trained = [weight for weight in tuned.parameters() if weight.requires_grad]
    assert trained and {weight.grad.device for weight in trained} == {DEVICE}
    tuned.unload()


def test_sampling_stays_on_the_device(family):
    source, _, text = family
    model = source.adapter
    pipe = source.load(*model.networks, "vae", dtype=torch.float32, device=DEVICE)
    pipe.set_progress_bar_config(disable=True)
    scale = model.guidance_scale
    model.prepare_sampling(pipe, scale)
    with torch.no_grad(), fake_device():
        prompt = on_device(text, 1)
        video = pipe(
            num_inference_steps=2,
            generator=[torch.Generator().manual_seed(0)],
            output_type="pt",
            **model.pipeline_text(prompt, prompt if scale > 1 else None),
            **model.sampling_arguments(FRAMES, HEIGHT, WIDTH, scale),
        ).frames
    assert video.device == DEVICE and video.shape[1:] == (FRAMES, 3, HEIGHT, WIDTH)
