"""Rounds are counted as their stages are by themselves, guards as what they sample and judge."""

import pytest

from lift_trl.estimate.gpus import find_gpu
from lift_trl.estimate.plan import Job
from lift_trl.estimate.planners import read_plan
from tests.critic.tiny_models import build_vlm
from tests.estimate.mid_size import SIZE, build_pipeline, save_configs
from tests.estimate.written import write


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A video model and two critics as configuration files, and the settings of a run."""
    folder = tmp_path_factory.mktemp("world")
    save_configs(build_pipeline(num_layers=2, heads=1), folder / "model")
    critics = [str(folder / family) for family in ("internvl", "qwen3_vl")]
    for path in critics:
        build_vlm(path.rpartition("/")[2], save_directory=path)
    size = {"num_frames": SIZE.num_frames, "height": SIZE.height, "width": SIZE.width}
    return critics, {"model_name_or_path": str(folder / "model"), "output_dir": "runs/videos", **size}


TRAINING = {"lora_r": 8, "per_device_train_batch_size": 2, "num_train_epochs": 5, "objective": "nft"}
JOB = Job(clips=24, videos=12, prompts=4)


def plan(tmp_path, name, job=JOB, num_gpus=1, **settings):
    return read_plan(write(tmp_path / f"{name}.yaml", **settings), job, num_gpus=num_gpus)


def test_rounds_are_their_stages_each_as_often_as_it_runs(tmp_path, world):
    """
    Three rounds of 12 videos, scored by the critic, encoded and trained on; and the guard's two a prompt, of the base and
    after each round, sampled as these and scored by both. Prompts are embedded by each sampling and each cache.
    """
    critics, common = world
    sampling = {"num_inference_steps": 5, "guidance_scale": 3.0, "vae_tiling": False}
    generated = plan(tmp_path, "generate", batch_size=2, quantization="int8", **common, **sampling)
    judged = [
        plan(
            tmp_path, f"score_{n}", Job(clips=12), critic=critic, videos="runs/videos", batch_size=3, with_reason=False,
            quantization="int8",
        )
        for n, critic in enumerate(critics)
    ]  # fmt: skip
    encoded = plan(tmp_path, "cache", Job(clips=12, prompts=4), **common)
    first, later = (
        plan(tmp_path, "align", quantization="int8", **common, **TRAINING, **own) for own in ({}, {"adapter": "lora"})
    )
    rounds = plan(
        tmp_path, "iterate", rounds=3, critic=critics[0], second_judge=critics[1], critic_batch_size=3,
        sampling_batch_size=2, critic_quantization="int8", quantization="int8", **common, **sampling, **TRAINING,
    )  # fmt: skip
    text, sampled = generated.parts
    alone = [text, sampled, *judged[0].parts, *judged[1].parts, encoded.parts[1], *later.parts]
    guarded = (3 + 1) * 2 * 4
    runs = [4 * (3 + 3 + 4), (36 + guarded) / 2, (36 + guarded) / 3, guarded / 3, 36, 3 * 24 / 2 * 5]
    for part, own, times in zip(rounds.parts, alone, runs, strict=True):
        assert (part.name, part.clips, part.count) == (own.name, own.clips, own.count)
        assert part.runs == times
    # The policy that sampled is a LoRA of its own from the second round on.
    trained = [one.parts[0].count.peak["trained weights"] for one in (first, later)]
    assert 1.8 < trained[1] / trained[0] <= 2  # with it stands what the trainer holds of the empty prompt
    videos = {name: size * (36 + guarded) / 12 for name, size in generated.disk.items()}
    disk = videos | {name: 3 * n for name, n in {**encoded.disk, **later.disk}.items()}
    assert rounds.disk == pytest.approx(disk)
    report = rounds.report(find_gpu("h100"), 1)
    assert report["peak_gb"] == max(row["total_gb"] for row in report["parts"]) and report["stage"] == "iterate"
    assert report["hours"] == sum(row["seconds"] * row["runs"] / 3600 for row in report["parts"])


def test_validation_and_a_guard_are_counted_beside_the_training(tmp_path, world):
    """Of 7 steps every third and the last are looked at, and the base: 4 x 2 videos, judged on one card alone."""
    critics, common = world
    validation = {
        "validation_prompts": ["a fox", "a bird"],
        "validation_steps": 3,
        "validation_num_inference_steps": 4,
    }
    found = plan(
        tmp_path, "align", num_gpus=2, critic=critics[0], second_judge=critics[1], max_steps=7,
        gradient_accumulation_steps=3, **common, **validation, **{**TRAINING, "objective": "rwl"},
    )  # fmt: skip
    step, videos, *judged = found.parts
    assert (step.runs, videos.runs, [part.runs for part in judged]) == (7 * 3 * 2, 8, [8 / 8] * 2)
    scored = [
        plan(tmp_path, "score", critic=critic, videos="runs/videos", with_reason=False).parts[0] for critic in critics
    ]
    held = {kind: step.count.peak[kind] for kind in ("weights", "trained weights", "optimiser")}
    for part, alone in zip(judged, scored, strict=True):
        assert part.count.flops == alone.count.flops
        assert part.count.peak_bytes == pytest.approx(alone.count.peak_bytes + sum(held.values()))
    assert videos.count.peak["optimiser"] == held["optimiser"]
    rows = found.report(find_gpu("h100"), 2)["parts"]
    assert rows[2]["hours"] * 3600 == pytest.approx(rows[2]["seconds"])
    assert rows[1]["hours"] * 3600 == pytest.approx(8 * rows[1]["seconds"] / (2 * 0.95))
