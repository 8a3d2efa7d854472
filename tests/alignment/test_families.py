"""Each family through the chain of recipes: cache, align, resume, LoRA, generate. And what must not happen silently."""

import json

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler, WanPipeline
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15AttnBlock
from safetensors.torch import load_file
from torch.testing import assert_close

from lift_trl.alignment.data.cache import cache_videos
from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.cli import main
from lift_trl.hub.lora.files import COMFYUI_LORA_FILE, DIFFUSERS_LORA_FILE
from lift_trl.hub.lora.loading import find_lora, load_lora
from lift_trl.records import RatedVideo
from lift_trl.store.manifest import read_rows
from lift_trl.store.video_io import read_video, write_video
from lift_trl.ui.compare.generation import PairGenerator
from lift_trl.video_models import HeldPipeline, open_pipeline
from lift_trl.video_models.hunyuan_video import causal_mask
from lift_trl.video_models.source import ADAPTERS
from tests.alignment.conftest import make_trainer, moving_square, trainable
from tests.contracts.toy_family import Toy, build_toy
from tests.contracts.video_models import VIDEO_MODELS, build_wan
from tests.invariants.test_trajectories import align


PROMPTS = ("a red circle moving left", "a blue square moving up")
SIZE = {"num_frames": 9, "height": 32, "width": 64}
BUILDERS = {
    **{name: VIDEO_MODELS[name] for name in ("wan-2.1", "wan-2.2-ti2v", "ltx", "hunyuan-1.5")},
    "toy": build_toy,
}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(ADAPTERS, "ToyPipeline", Toy)


def rated(folder, fps, num=4):
    files = [moving_square(folder / f"{i}.mp4", i, num_frames=9, size=32, fps=fps) for i in range(num)]
    return [RatedVideo(f"c{i}", file, PROMPTS[i % 2], scalar_reward=0.9 - 0.2 * i) for i, file in enumerate(files)]


@pytest.mark.parametrize("family", BUILDERS)
def test_the_chain(family, toy, tmp_path):
    pipe = BUILDERS[family]()
    model = pipe
    if family != "toy":  # whose class from_pretrained does not know
        pipe.save_pretrained(model := tmp_path / "model")
    source = open_pipeline(model)
    if family == "hunyuan-1.5":  # of a real checkpoint they are the class's own
        model = pipe
    cache = cache_videos(model, rated(tmp_path / "clips", source.adapter.fps), tmp_path / "cache", **SIZE)
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    trainers = [make_trainer(model, tmp_path / run, CachedVideoDataset(cache), **settings) for run in "ab"]
    trainers[0].train()
    trainers[0].save_model()
    trainers[1].train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    for name, value in trainable(trainers[0]).items():
        assert torch.equal(trainable(trainers[1])[name], value), name
    sampling = Sampling(**SIZE, num_inference_steps=2, batch_size=2)
    videos = plan_videos(PROMPTS, seed=3)
    made = []
    for lora in (None, tmp_path / "a"):
        folder = tmp_path / f"generated-{len(made)}"
        generate_videos(model, videos, folder, sampling=sampling, adapter=lora)
        made.append(list(read_rows(folder / "metadata.jsonl")))
    for base, tuned in zip(*made, strict=True):
        assert base["id"] == tuned["id"] and base["sha256"] != tuned["sha256"]
        assert (base["fps"], base["guidance_scale"]) == (source.adapter.fps, source.adapter.guidance_scale)


def own_call(pipe, family, videos, **options):
    """The pipeline's own call, with prompts as words."""
    lengths = {} if family == "hunyuan-1.5" else {"max_sequence_length": 6}
    return pipe(
        prompt=[video.prompt for video in videos],
        generator=[torch.Generator().manual_seed(video.seed) for video in videos],
        num_inference_steps=4, output_type="np", **SIZE, **lengths, **options,
    ).frames  # fmt: skip


@pytest.mark.parametrize("family", ["wan-2.1", "ltx", "hunyuan-1.5", "cogvideox-5b"])
def test_the_videos_are_the_pipelines_own_call(family, tmp_path):
    """At guidance 3, with the family's negative prompt, of the second prompt too; the 5B by DPM with dynamic guidance."""
    pipe = VIDEO_MODELS[family]()
    source, videos, guidance = open_pipeline(pipe), plan_videos(PROMPTS, seed=3), 3.0
    negative, options, sampler = source.adapter.negative_prompt, {}, {}
    if family == "cogvideox-5b":
        options = {"use_dynamic_cfg": True}
        sampler = {"scheduler": "CogVideoXDPMScheduler", "pipeline_options": options}
    sampling = Sampling(**SIZE, num_inference_steps=4, guidance_scale=guidance, batch_size=2, **sampler)
    folder = generate_videos(pipe, videos, tmp_path / "made", sampling=sampling)
    if family == "cogvideox-5b":
        pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    if family == "hunyuan-1.5":
        pipe.guider = pipe.guider.new(guidance_scale=guidance)
        pipe.vae.enable_slicing()
    else:
        options = {**options, "guidance_scale": guidance}
    options |= {"frame_rate": 25} if family == "ltx" else {}
    own = own_call(pipe, family, videos, negative_prompt=[negative] * 2, **options)
    plain = own_call(pipe, family, videos, negative_prompt=["a green square moving right"] * 2, **options)
    assert np.abs(own - plain).max() > 1e-6
    for index, video in enumerate(videos):
        write_video(
            tmp_path / "own.mp4", (own[index] * 255).round().clip(0, 255).astype(np.uint8), fps=source.adapter.fps
        )
        made, frames = (
            read_video(path).frames.astype(int)
            for path in (folder / "videos" / f"{video.id}.mp4", tmp_path / "own.mp4")
        )
        assert np.array_equal(made, frames)


def test_a_pipeline_without_a_lora_loader_is_tuned_as_its_card_says_and_compared(tmp_path):
    """HunyuanVideo 1.5's: fails when diffusers gives it one."""
    pipe = VIDEO_MODELS["hunyuan-1.5"]()
    assert not hasattr(pipe, "load_lora_weights")
    cache = cache_videos(pipe, rated(tmp_path / "clips", 24, num=2), tmp_path / "cache", **SIZE)
    trainer = make_trainer(pipe, tmp_path / "lora", CachedVideoDataset(cache), max_steps=1, learning_rate=0.3)
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "lora" / "README.md").read_text().splitlines()
    (line,) = [line for line in card if line.startswith("pipe.") and "lora" in line]
    exec(line, {"pipe": (tuned := VIDEO_MODELS["hunyuan-1.5"]())})
    loaded = {name: p for name, p in tuned.transformer.named_parameters() if ".lora_" in name}
    trained = trainable(trainer)
    assert len(loaded) == len(trained) > 0
    for name, value in loaded.items():
        key = "base_model.model." + name.replace(".default_0.", ".default.")
        assert torch.equal(value, trained[key]), name
    arguments = {**SIZE, "num_inference_steps": 2}
    pages = PairGenerator(pipe, {"lift": str(tmp_path / "lora")}, None, arguments, 24.0, tmp_path / "made", 0.1)
    base, lift = (read_video(path).frames for path in pages.make(PROMPTS[0], 3, "lift").paths)
    assert (base != lift).any()
    pipe.transformer.disable_lora()
    own = pipe(prompt=PROMPTS[0], generator=torch.Generator().manual_seed(3), output_type="np", **arguments).frames[0]
    write_video(tmp_path / "own.mp4", (own * 255).round().clip(0, 255).astype(np.uint8), fps=24)
    assert np.array_equal(read_video(tmp_path / "own.mp4").frames, base)


def test_bad_sampler_options_are_refused(tmp_path):
    pipe, videos = build_wan(), plan_videos(PROMPTS)
    for bad, message in (
        ({"scheduler": "WanPipeline"}, "no such scheduler"),
        ({"pipeline_options": {"use_dynamic_cfg": True}}, "a call of WanPipeline has no use_dynamic_cfg"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_videos(pipe, videos, tmp_path, sampling=Sampling(**SIZE, num_inference_steps=2, **bad))


def test_a_clip_of_fewer_frames_a_second_is_refused_before_a_model_loads(tmp_path):
    pipe = build_wan()
    clips = rated(tmp_path / "clips", fps=8)
    with pytest.raises(ValueError, match="4 clips cannot be used") as refused:
        cache_videos(pipe, clips, tmp_path / "cache", **SIZE)
    for clip in clips:
        assert f"{clip.video}: has 8 frames a second, and 16 are read" in str(refused.value)
    assert str(refused.value).count("Give --fps 8 ") == 4
    cached = CachedVideoDataset(cache_videos(pipe, clips, tmp_path / "cache", **SIZE, fps=8))
    assert cached.artifact.config["fps"] == 8 and len(cached) == 4


def test_positions_in_seconds_go_with_one_frame_rate(tmp_path):
    with pytest.raises(ValueError, match="fps=8: LTX-Video counts positions in seconds.*Leave fps out"):
        cache_videos(VIDEO_MODELS["ltx"](), rated(tmp_path, fps=8), tmp_path / "cache", **SIZE, fps=8)


@pytest.fixture(scope="module")
def wan_lora(tmp_path_factory):
    """The folder of a tiny Wan and of a LoRA of attention and feed-forward, alpha 4 times its rank."""
    from peft import LoraConfig

    folder = tmp_path_factory.mktemp("wan")
    pipe = build_wan()
    pipe.save_pretrained(folder / "model")
    cache = cache_videos(folder / "model", rated(folder / "clips", fps=16, num=2), folder / "cache", **SIZE)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    trainer = make_trainer(
        folder / "model", folder / "lora", CachedVideoDataset(cache), max_steps=2,
        peft_config=LoraConfig(r=4, lora_alpha=16, target_modules=targets),
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    return folder


def test_diffusers_reads_the_comfyui_file_of_wan_without_difference(wan_lora, tmp_path):
    assert main(["export", str(wan_lora / "lora"), "--format", "comfyui", "--output", str(tmp_path)]) == 0
    converted = _convert_non_diffusers_wan_lora_to_diffusers(load_file(tmp_path / COMFYUI_LORA_FILE))
    ours = load_file(wan_lora / "lora" / DIFFUSERS_LORA_FILE)
    modules = {key.rpartition(".lora_")[0] for key in ours}
    assert len(modules) == 2 * 10 and converted.keys() == ours.keys()
    for module in modules:
        down, up = (f"{module}.lora_{part}.weight" for part in "AB")
        assert torch.equal(converted[up] @ converted[down], 16 / 4 * ours[up] @ ours[down])


def test_comfyui_names_that_are_not_known_are_refused():
    adapter = open_pipeline(build_wan()).adapter
    with pytest.raises(ValueError, match="condition_embedder.time_proj: ComfyUI's name for it is not known"):
        adapter.comfyui_name("condition_embedder.time_proj")
    with pytest.raises(ValueError, match="names for HunyuanVideo15 are not known here"):
        open_pipeline(VIDEO_MODELS["hunyuan-1.5"]()).adapter.comfyui_name("transformer_blocks.0.attn.to_q")


def test_a_text_to_video_lora_serves_image_to_video_of_the_same_network(wan_lora):
    """`WanImageToVideoPipeline` of diffusers loads it where the network has the same layers (TI2V-5B)."""
    from diffusers import WanImageToVideoPipeline

    parts = WanPipeline.from_pretrained(wan_lora / "model").components
    pipe = WanImageToVideoPipeline(
        **{name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")},
        expand_timesteps=True,
    )
    pipe.load_lora_weights(wan_lora / "lora", weight_name=DIFFUSERS_LORA_FILE)
    loaded = {name for name, _ in pipe.transformer.named_modules() if name.endswith("lora_A")}
    assert len(loaded) == 20 and pipe.get_active_adapters()


def test_two_networks_are_never_trained_as_one(tmp_path):
    pipe = build_wan(experts=True)
    cache = CachedVideoDataset(cache_videos(pipe, rated(tmp_path / "clips", fps=16), tmp_path / "cache", **SIZE))
    with pytest.raises(
        ValueError, match="has two networks, transformer .* and transformer_2 .*Give network: transformer"
    ):
        make_trainer(pipe, tmp_path / "a", cache)
    with pytest.raises(ValueError, match="network='unet': .* has transformer and transformer_2"):
        HeldPipeline(pipe, network="unet")
    with pytest.raises(ValueError, match="sampling takes both networks"):
        make_trainer(HeldPipeline(pipe, network="transformer"), tmp_path / "a", cache, validation_prompts=["a fox"])
    seen = {}
    for network, (low, high) in (("transformer", (875, 1000)), ("transformer_2", (0, 875))):
        trainer = make_trainer(HeldPipeline(pipe, network=network), tmp_path / network, cache, max_steps=6)
        own = trainer.video_model.corrupt
        trainer.video_model.corrupt = lambda *args, own=own, network=network: (
            seen.setdefault(network, []).append(noisy := own(*args)) or noisy
        )
        trainer.train()
        trainer.save_model()
        times = torch.cat([noisy.timesteps for noisy in seen[network]])
        assert len(times) == 24 and (times >= low - 0.5).all() and (times <= high + 0.5).all()
        assert json.loads((tmp_path / network / "run.json").read_text())["network"] == network
    base = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    load_lora(pipe, find_lora(tmp_path / "transformer_2"), name="low")
    assert pipe.transformer.state_dict().keys() == base.keys()
    loaded = {name for name, _ in pipe.transformer_2.named_modules() if name.endswith("lora_A")}
    assert len(loaded) == 16


@pytest.mark.parametrize(
    "change, message",
    [
        ({"in_channels": 36}, "takes an image .*image-to-video is not supported.*Wan2.1-T2V-1.3B"),
        ({"image_dim": 1280}, "takes an image"),
    ],
)
def test_image_to_video_checkpoints_of_wan_are_refused(change, message):
    pipe = build_wan()
    pipe.transformer.register_to_config(**change)
    with pytest.raises(ValueError, match=message):
        open_pipeline(pipe)


@pytest.mark.parametrize(
    "change, message",
    [({"task_type": "i2v"}, "only text-to-video is supported"), ({"use_meanflow": True}, "is distilled")],
)
def test_checkpoints_of_hunyuan_that_are_no_plain_text_to_video_are_refused(change, message):
    pipe = VIDEO_MODELS["hunyuan-1.5"]()
    pipe.transformer.register_to_config(**change)
    with pytest.raises(ValueError, match=message):
        open_pipeline(pipe)


@pytest.mark.parametrize("num_frames, positions, batch_size", [(1, 7, None), (3, 5, 1), (4, 1, 2), (5, 6, None)])
def test_the_mask_of_hunyuan_s_vae_is_diffusers_own(num_frames, positions, batch_size):
    """Fails when diffusers gives another one."""
    theirs, ours = (
        make(num_frames, positions, torch.bfloat16, torch.device("cpu"), batch_size=batch_size)
        for make in (HunyuanVideo15AttnBlock.prepare_causal_attention_mask, causal_mask)
    )
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_hunyuan_s_vae_takes_few_steps_to_a_mask_in_encoding_and_decoding(monkeypatch):
    """Fails when diffusers makes its masks elsewhere."""
    source = open_pipeline(VIDEO_MODELS["hunyuan-1.5"]())
    monkeypatch.setattr(HunyuanVideo15AttnBlock, "prepare_causal_attention_mask", None)
    pipe, adapter = source.load("vae", dtype=torch.float32), source.adapter
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        pipe.vae.decode(torch.zeros(1, 4, 2, 8, 8))
    adapter.encode_video(pipe, torch.zeros(1, 9, 3, 32, 64))
    pipe = open_pipeline(VIDEO_MODELS["hunyuan-1.5"]()).load("vae", dtype=torch.float32)
    adapter.prepare_sampling(pipe, 6.0)
    assert pipe.vae.decode(torch.zeros(2, 4, 2, 8, 8)).sample.shape == (2, 3, 5, 32, 32)


def test_an_unknown_family_is_told_which_there_are():
    with pytest.raises(
        ValueError, match="no adapter for ToyPipeline; there is one for .*WanPipeline.*add_a_video_model.md"
    ):
        open_pipeline(build_toy())


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 12.0])
def test_noise_levels_are_the_schedulers_own_tables(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    from lift_trl.video_models.flow import noise_levels

    euler = FlowMatchEulerDiscreteScheduler(shift=shift)
    quantiles = torch.arange(1000)
    assert torch.equal(noise_levels(euler, quantiles, 0), euler.sigmas.flip(0))
    unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    unipc.set_timesteps(1000)
    # Its own table of 1000 runs to .999 before the shift, whose slope is at most `shift`.
    assert_close(noise_levels(unipc, quantiles, 0), unipc.sigmas[:-1].flip(0), rtol=0, atol=1e-3 * shift)


@pytest.mark.parametrize("name", ["ltx", "hunyuan-1.5"])
def test_the_scheduler_of_a_distilled_checkpoint_is_refused(name):
    pipe, latents = VIDEO_MODELS[name](), torch.zeros(1, 1, 1, 1, 1)
    corrupt = open_pipeline(pipe).adapter.corrupt
    corrupt(pipe.scheduler, latents, latents, torch.tensor([7]))
    pipe.scheduler.register_to_config(stochastic_sampling=True)
    with pytest.raises(ValueError, match="stochastic_sampling.*Use the checkpoint that was not distilled"):
        corrupt(pipe.scheduler, latents, latents, torch.tensor([7]))


@pytest.mark.parametrize(
    "family", ["wan-2.1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wan-2.2-ti2v", "ltx"))]
)
def test_two_processes_equal_one_on_a_flow(family, tmp_path):
    """Two clips in one step: one process with both, or two with one each."""
    model = tmp_path / "model"
    BUILDERS[family]().save_pretrained(model)
    clips = rated(tmp_path / "clips", open_pipeline(model).adapter.fps)
    cache = cache_videos(model, clips, tmp_path / "cache", **SIZE)
    options = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "max_steps": 2}
    for name, number in (("two", 2), ("one", 1)):
        batch = 2 // number
        align(
            model, cache, tmp_path / name, num_processes=number, **options, per_device_train_batch_size=batch
        ).finish()
    one, two = (load_file(tmp_path / name / DIFFUSERS_LORA_FILE) for name in ("one", "two"))
    for name, value in one.items():
        assert_close(two[name], value, rtol=1e-5, atol=1e-7)
