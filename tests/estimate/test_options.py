"""Options that decide memory reach the count, and what is not counted is said."""

import pytest
from peft import LoraConfig

from lift_trl.alignment.data.clips import ClipSize
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.estimate.plan import Job
from lift_trl.estimate.planners import read_plan
from lift_trl.estimate.stages.video import VideoStages
from lift_trl.estimate.uncounted import uncounted
from tests.contracts.video_models import VIDEO_MODELS
from tests.estimate.mid_size import LORA, build_pipeline, save_configs, settings
from tests.estimate.written import write


SIZE = ClipSize(9, 96, 128, 8.0)
TOKENS = 3 * 12 * 16 + 6  # of a clip and its prompt


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Two layers of one head."""
    folder = save_configs(build_pipeline(num_layers=2, heads=1), tmp_path_factory.mktemp("tiny") / "checkpoint")
    return VideoStages(str(folder), SIZE)


def test_attention_by_math_holds_its_maps_in_float32(stages):
    """The scores and their softmax, of a clip with and without its prompt."""
    plain, whole = (
        stages.sampling(Sampling(9, 96, 128, num_inference_steps=2, guidance_scale=3.0, attention_kernel=kernel))
        for kernel in (None, "math")
    )
    more = sum(whole.peaks["run"].values()) - sum(plain.peaks["run"].values())
    assert more > 0.8 * 2 * (2 * TOKENS**2 * 4)
    assert whole.attention_flops == 0 and whole.flops == pytest.approx(plain.flops)


def test_attention_by_math_is_kept_for_backward(stages, tmp_path):
    """The softmax of each layer, unless it is computed again."""
    kept, plain, again = (
        stages.step_of(settings(tmp_path, 3, checkpointing, attention_kernel=kernel), LoraConfig(**LORA), 3).peak_bytes
        for checkpointing, kernel in ((False, "math"), (False, None), (True, "math"))
    )
    one = 3 * TOKENS**2 * 4
    assert kept - plain > 2 * one and kept - again > one


def test_tiles_are_those_that_the_sampling_says(stages):
    tiled, whole = (
        stages.sampling(Sampling(9, 96, 128, num_inference_steps=2, guidance_scale=1.0, vae_tiling=tiling))
        for tiling in (True, False)
    )
    assert sum(tiled.peaks["decoding"].values()) < sum(whole.peaks["decoding"].values()) / 1.5
    assert tiled.conv_flops > whole.conv_flops  # they overlap


def test_a_clip_is_encoded_in_tiles_above_the_size_at_which_the_cache_takes_them(stages):
    """A little more than 480 x 832 takes a little less."""
    whole, tiled = (VideoStages(stages.name_or_path, ClipSize(9, 480, width, 8.0)).video for width in (832, 848))
    assert tiled.peak["activations"] < whole.peak["activations"] / 1.5
    assert tiled.conv_flops > 1.1 * whole.conv_flops  # they overlap


@pytest.mark.parametrize("name", ["wan-2.1", "ltx", "hunyuan-1.5"])
def test_a_long_clip_is_decoded_as_short_ones_tell(name, tmp_path):
    """Wan decodes in pieces, the other two as a whole."""
    folder = save_configs(VIDEO_MODELS[name](), tmp_path / "checkpoint")
    stages = VideoStages(str(folder), ClipSize(9, 32, 32, 8.0))
    latents = stages.shapes.latents.shape
    shape = (1, latents[0], 11, *latents[2:])
    found, full = stages._decode(shape, tiled=False), stages._decode_latents(shape, tiled=False)
    assert found.peak_bytes == pytest.approx(full.peak_bytes, rel=0.02)
    assert found.flops == pytest.approx(full.flops, rel=0.02)


@pytest.mark.slow
def test_decoding_of_the_real_2b_takes_what_the_page_on_speed_says():
    stages = VideoStages("THUDM/CogVideoX-2b", ClipSize(49, 480, 720, 8.0))
    gib, tflop = zip(
        *((one.peak_bytes / 2**30, one.flops / 1e12) for one in (
            stages._decode((1, 16, 13, 60, 90), tiled=tiled) for tiled in (False, True)
        )), strict=True,
    )  # fmt: skip
    assert (gib, tflop) == (pytest.approx((15.1, 4.2), abs=0.15), pytest.approx((315, 441), abs=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first_block_cache": 0.05}, "first_block_cache:"),
        ({"compile_blocks": "inductor"}, "compile_blocks:"),
        ({"attention_kernel": "math"}, "attention_kernel: math"),
        ({"attention_kernel": "cudnn"}, "attention_kernel: counted"),
        ({"adapter": ["runs/lora"]}, "adapter:"),
        ({"load_in_4bit": True, "load_in_8bit": False}, "load_in_4bit: counted at most"),
        ({"load_in_8bit": True}, "load_in_8bit: counted at most"),
        ({}, None),
    ],
    ids=str,
)
def test_what_is_not_counted_is_said(options, said):
    found = list(uncounted("generate", options))
    assert [note.startswith(said) for note in found] == ([True] if said else [])


def test_a_plan_with_a_cache_of_blocks_says_so_and_takes_as_long(stages, tmp_path):
    size = {"num_frames": 9, "height": 96, "width": 128}
    common = {"model_name_or_path": stages.name_or_path, "num_inference_steps": 2, **size}
    plain, cached = (
        read_plan(write(tmp_path / "generate.yaml", **common, **own), Job())
        for own in ({}, {"first_block_cache": 0.05})
    )
    assert cached.parts[1].count.flops == plain.parts[1].count.flops
    assert [note for note in cached.notes if note not in plain.notes][0].startswith("first_block_cache: ")
