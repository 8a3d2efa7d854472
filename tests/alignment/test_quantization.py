"""A frozen base in 8 bits: it trains a float32 LoRA that any base takes, samples, and says so."""

import json

import pytest
import torch
from torchao.utils import TorchAOBaseTensor

from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.alignment.sampling.generate import generate_videos, plan_videos
from lift_trl.alignment.sampling.settings import Sampling
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.store import quantization
from lift_trl.store.manifest import Artifact, read_rows
from lift_trl.video_models import open_pipeline
from tests.alignment.conftest import SIZE, make_trainer
from tests.contracts.video_models import build_wan


FAST = {**SIZE, "num_inference_steps": 2, "guidance_scale": 1.0}


def in_8_bits(network) -> list[str]:
    return [name for name, weight in network.named_parameters() if isinstance(weight, TorchAOBaseTensor)]


def losses(trainer):
    trainer.train()
    return torch.tensor([row["loss"] for row in trainer.state.log_history if "loss" in row])


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_a_lora_trained_on_8_bits_goes_on_any_base(tmp_path, pipeline_dir, cached, kind):
    out = tmp_path / "lora"
    plain = losses(make_trainer(pipeline_dir, tmp_path / "plain", cached, max_steps=3))
    trainer = make_trainer(
        pipeline_dir,
        out,
        cached,
        max_steps=3,
        quantization=kind,
        validation_prompts=["a red circle moving left"],
        validation_num_inference_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    found = losses(trainer)
    assert len(in_8_bits(trainer.model)) >= 8
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    assert not torch.equal(found, plain)
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.0)
    trainer.save_model()
    assert json.loads((out / "run.json").read_text())["quantization"] == kind
    assert len(list(out.glob("validation/*/*.mp4"))) == 2

    videos = plan_videos(["a red circle moving left"], seed=1)
    runs = {
        name: generate_videos(pipeline_dir, videos, tmp_path / name, sampling=sampling, adapter=out)
        for name, sampling in (("whole", Sampling(**FAST)), ("8 bits", Sampling(**FAST, quantization=kind)))
    }
    rows = [next(iter(read_rows(folder / "metadata.jsonl"))) for folder in runs.values()]
    assert len({row["sha256"] for row in rows}) == len({row["settings"] for row in rows}) == 2
    assert Artifact.load(runs["8 bits"]).config["quantization"] == kind

    again = make_trainer(pipeline_dir, out, cached, max_steps=4)
    with pytest.raises(ValueError, match=f"quantization='{kind}' there, None here"):
        again.train(resume_from_checkpoint=str(out / "checkpoint-2"))


@pytest.mark.parametrize("kind, alone", [("int8", torch.float32), ("float8", torch.bfloat16)])
def test_layers_in_8_bits_give_the_type_of_autocast_and_the_same_values(kind, alone):
    """Of what a layer norm gives on a GPU; torchao's in int8 would give float32 again."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(24, 16)).bfloat16()
    quantization.quantize(layers, kind, whole=())
    hidden = torch.randn(3, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        before, after = layers(hidden), quantization.in_autocast(layers, kind)(hidden)
    assert (before.dtype, after.dtype) == (alone, torch.bfloat16) and torch.equal(after.to(alone), before)
    assert torch.equal(layers(hidden.bfloat16()), after)


def test_a_pipeline_in_memory_stays_as_it_was():
    pipe = build_tiny_pipeline(seed=0)
    loaded = open_pipeline(pipe).load("transformer", "vae", dtype=torch.float32, quantization="int8")
    assert in_8_bits(loaded.transformer) and not in_8_bits(pipe.transformer) and not in_8_bits(loaded.vae)


def test_memory_and_files_have_the_same_layers_in_8_bits(tmp_path):
    """Wan keeps some in float32."""
    pipe = build_wan()
    pipe.save_pretrained(tmp_path / "files")
    held, stored = (
        open_pipeline(one).load("transformer", dtype=torch.bfloat16, quantization="int8").transformer
        for one in (pipe, str(tmp_path / "files"))
    )
    assert in_8_bits(held) == in_8_bits(stored) != []
    kept = {name for name, _ in pipe.transformer.named_parameters() if "time_embedder.linear" in name}
    assert kept and not kept.intersection(in_8_bits(held))


def test_what_cannot_be_quantised_is_refused(tmp_path, pipeline_dir, cached, monkeypatch):
    with pytest.raises(ValueError, match="quantization='int3'; give one of int8, float8"):
        RewardWeightedVideoConfig(str(tmp_path), quantization="int3")
    with pytest.raises(ValueError, match="weights in 8 bits cannot be trained. Set use_peft: true"):
        make_trainer(pipeline_dir, tmp_path, cached, peft_config=None, quantization="int8")
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs torchao: pip install 'lift-trl\[quantization\]'"):
        Sampling(quantization="float8")


def test_videos_made_before_there_were_such_options_are_still_ones_own():
    first = {"num_frames", "height", "width", "num_inference_steps", "guidance_scale", "negative_prompt", "scheduler"}
    assert json.loads(Sampling().key).keys() == first | {"pipeline_options", "batch_size", "enlarge"}


def test_a_first_block_that_hardly_changes_spares_the_others_and_no_video_depends_on_another(pipeline_dir, tmp_path):
    videos = plan_videos(["a red circle moving left", "a blue square"], seed=1)
    steps = {**FAST, "num_inference_steps": 6}

    def run(name, chosen, **options):
        folder = generate_videos(pipeline_dir, chosen, tmp_path / name, sampling=Sampling(**steps, **options))
        return {row["id"]: row["sha256"] for row in read_rows(folder / "metadata.jsonl")}

    whole, never, often = (run(f"{t}", videos, first_block_cache=t) for t in (None, 1e-9, 1e9))
    assert never == whole and all(often[unit] != whole[unit] for unit in whole)
    alone = run("second alone", videos[1:], first_block_cache=1e9)
    assert alone == {videos[1].id: often[videos[1].id]}


def test_a_cache_that_is_none_is_refused():
    with pytest.raises(ValueError, match="first_block_cache=0; give a number above 0"):
        Sampling(first_block_cache=0)
