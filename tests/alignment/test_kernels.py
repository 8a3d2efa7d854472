"""Compiled blocks, attention kernels, TF32, tiles: named options that stand in keys, change little and rename nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

from lift_trl.alignment.data.cache import encoding_dtype
from lift_trl.alignment.sampling.generate import generate_videos, load_pipeline, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.kernels import attending_by, compile_blocks, in_tf32
from lift_trl.store.manifest import METADATA_FILE, RUN_FILE, read_rows
from lift_trl.store.video_io import read_video
from lift_trl.video_models import open_pipeline
from tests.alignment.conftest import make_trainer, trainable


PLAIN = Sampling(num_inference_steps=2, guidance_scale=3.0)


class Attention(TorchDispatchMode):
    """Counts calls of the fused kernel."""

    fused = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.fused += "flash_attention" in str(function)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{"compile_blocks": "aot_eager"}, {"attention_kernel": "math"}, {"tf32": True}])
def test_an_option_of_sampling_stands_in_the_key_and_changes_little(options, pipeline_dir, tmp_path, fresh_dynamo):
    videos = plan_videos(["a red circle moving left"], seed=3)
    pipe = CogVideoXPipeline.from_pretrained(pipeline_dir)
    plain = generate_videos(pipe, videos, tmp_path / "plain", sampling=PLAIN)
    given = replace(PLAIN, **options)
    folder = generate_videos(pipe, videos, tmp_path / "given", sampling=given)
    one, other = (read_video(next((f / "videos").glob("*.mp4"))).frames.astype(int) for f in (plain, folder))
    assert np.abs(one - other).max() <= 2
    keys = [next(iter(read_rows(f / METADATA_FILE)))["settings"] for f in (plain, folder)]
    assert keys[0] != keys[1]
    with pytest.raises(ValueError, match="another model, adapter or settings"):
        generate_videos(pipe, videos, folder, sampling=PLAIN)
    # The caller's pipeline stays as it was.
    assert torch.get_float32_matmul_precision() == "highest"
    assert all(block._compiled_call_impl is None for block in pipe.transformer.transformer_blocks)


def test_tiles_that_do_not_fit_are_refused(pipeline_dir, tmp_path):
    """diffusers' tiles of the tiny VAE are so small that their overlaps add up to another width."""
    sampling = replace(PLAIN, vae_tiling=True)
    with pytest.raises(ValueError, match="48 x 56 pixels where 48 x 48 .*vae_tiling"):
        generate_videos(pipeline_dir, plan_videos(["a"]), tmp_path / "out", sampling=sampling)
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_options_reach_the_parts_of_the_pipeline(pipeline_dir):
    source = open_pipeline(pipeline_dir)
    dtype = encoding_dtype(source, "cpu")
    for options, tiled, compiled in (
        ({}, False, False),
        ({"vae_tiling": True, "compile_blocks": "eager"}, True, True),
    ):
        sampling = replace(PLAIN, **options).sized(source)
        pipe = load_pipeline(source, (), sampling, dtype, torch.device("cpu"))
        assert pipe.vae.use_tiling is tiled
        assert {block._compiled_call_impl is not None for block in pipe.transformer.transformer_blocks} == {compiled}
    big = replace(PLAIN, height=272, width=272)
    for vae_tiling, tiled in ((None, True), (False, False)):
        sampling = replace(big, vae_tiling=vae_tiling).sized(source)
        assert load_pipeline(source, (), sampling, dtype, torch.device("cpu")).vae.use_tiling is tiled


def test_attention_is_by_the_kernel_that_is_named():
    query = torch.randn(1, 2, 5, 8)
    calls = {}
    for kernel in (None, "flash", "math"):
        with attending_by(kernel), Attention() as attention:
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
        calls[kernel] = attention.fused
    assert calls == {None: 1, "flash": 1, "math": 0}
    with pytest.raises(ValueError, match="attention_kernel='cudnn' cannot run here.*Name another one"):
        with attending_by("cudnn"):
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
    with in_tf32(True):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_training_saves_a_lora_with_the_names_of_a_plain_one(
    checkpointing, pipeline_dir, cached, tmp_path, fresh_dynamo
):
    options = {"max_steps": 2, "activation_checkpointing": checkpointing, "attention_kernel": "flash"}
    plain = make_trainer(pipeline_dir, tmp_path / "plain", cached, **options)
    compiled = make_trainer(pipeline_dir, tmp_path / "compiled", cached, compile_blocks="aot_eager", **options)
    counters, graphs = torch._dynamo.utils.counters["stats"], []
    for trainer in (plain, compiled):
        before = counters["unique_graphs"]
        trainer.train()
        trainer.save_model()
        graphs.append(counters["unique_graphs"] - before)
    assert graphs[0] == 0 < graphs[1]
    for name, value in trainable(plain).items():
        torch.testing.assert_close(trainable(compiled)[name], value, rtol=1e-3, atol=1e-4)
    for file in ("pytorch_lora_weights.safetensors", "adapter_model.safetensors"):
        names = []
        for folder in ("plain", "compiled"):
            with safe_open(tmp_path / folder / file, framework="pt") as stored:
                names.append(set(stored.keys()))
        assert names[0] == names[1] and not any("_orig_mod" in name for name in names[1])
    CogVideoXPipeline.from_pretrained(pipeline_dir).load_lora_weights(tmp_path / "compiled")


def test_a_run_is_resumed_with_its_kernels_only(pipeline_dir, cached, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(pipeline_dir, tmp_path, cached, max_steps=1, attention_kernel="math", **options).train()
    checkpoint = tmp_path / "checkpoint-1"
    run = json.loads((checkpoint / RUN_FILE).read_text())
    assert (run["attention_kernel"], run["compile_blocks"], run["tf32"]) == ("math", None, None)
    other = make_trainer(pipeline_dir, tmp_path, cached, max_steps=2, **options)
    with pytest.raises(ValueError, match="attention_kernel='math' there, None here"):
        other.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.slow
def test_inductor_compiles_the_blocks(pipeline_dir, fresh_dynamo):
    network = CogVideoXPipeline.from_pretrained(pipeline_dir).transformer.eval()
    config = network.config
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(1, 3, config.in_channels, 6, 8, generator=generator),
        torch.randn(1, config.max_text_seq_length, config.text_embed_dim, generator=generator),
        torch.tensor([500]),
    )
    with torch.no_grad():
        plain = network(*inputs).sample
        names = list(network.state_dict())
        compile_blocks(network, "inductor")
        torch.testing.assert_close(network(*inputs).sample, plain, rtol=1e-3, atol=1e-4)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile_blocks": "cudagraphs"}, "compile_blocks='cudagraphs'; give one of inductor"),
        ({"attention_kernel": "xformers"}, "attention_kernel='xformers'; give one of cudnn"),
    ],
)
def test_wrong_names_are_refused(options, message, pipeline_dir, cached, tmp_path):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
    with pytest.raises(ValueError, match=message):
        make_trainer(pipeline_dir, tmp_path, cached, **options)


def test_what_does_not_go_together_is_refused(pipeline_dir, cached, tmp_path):
    with pytest.raises(ValueError, match="give one of them"):
        Sampling(compile_blocks="inductor", first_block_cache=0.05)
    with pytest.raises(ValueError, match="'math' cannot be compiled"):
        make_trainer(pipeline_dir, tmp_path, cached, compile_blocks="inductor", attention_kernel="math")
    with pytest.raises(ValueError, match="torch_compile does not apply.*compile_blocks: inductor"):
        make_trainer(pipeline_dir, tmp_path, cached, torch_compile=True)
