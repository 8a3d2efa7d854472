"""Rounds are counted as their stages are by themselves."""

import yaml

from lift_trl.estimate.gpus import find_gpu
from lift_trl.estimate.plan import Job
from lift_trl.estimate.planners import read_plan
from tests.critic.tiny_models import build_vlm
from tests.estimate.mid_size import SIZE, build_pipeline, save_configs


def test_rounds_are_their_stages_each_as_often_as_it_runs(tmp_path):
    """Prompts are embedded once; what is sampled is scored twice, encoded and trained on in each of three rounds."""
    save_configs(build_pipeline(num_layers=2, heads=1), tmp_path / "model")
    critics = [str(tmp_path / family) for family in ("internvl", "qwen3_vl")]
    for folder in critics:
        build_vlm(folder.rpartition("/")[2], save_directory=folder)
    size = {"num_frames": SIZE.num_frames, "height": SIZE.height, "width": SIZE.width}
    common = {"model_name_or_path": str(tmp_path / "model"), "output_dir": "runs/videos", **size}
    sampling = {"num_inference_steps": 5, "guidance_scale": 3.0}
    training = {"lora_r": 8, "per_device_train_batch_size": 2, "num_train_epochs": 5, "objective": "nft"}

    def plan(name, job, **settings):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return read_plan(path, job)

    job = Job(clips=24, videos=12, prompts=4)
    generated = plan("generate", job, batch_size=2, **common, **sampling)
    first, second = (
        plan(f"score_{n}", Job(clips=12), critic=critic, videos="runs/videos", batch_size=3, with_reason=False)
        for n, critic in enumerate(critics)
    )
    encoded = plan("cache", Job(clips=12, prompts=4), **common)
    trained = plan("align", job, **common, **training)
    rounds = plan(
        "iterate", job, rounds=3, critic=critics[0], second_judge=critics[1], critic_batch_size=3, sampling_batch_size=2,
        **common, **sampling, **training,
    )  # fmt: skip
    text, sampled = generated.parts
    judged = (*first.parts, *second.parts)
    alone = [(text, 1), *((part, 3) for part in (sampled, *judged, encoded.parts[1], *trained.parts))]
    for part, (own, times) in zip(rounds.parts, alone, strict=True):
        assert (part.name, part.clips, part.count) == (own.name, own.clips, own.count)
        assert part.runs == times * own.runs > 0
    assert rounds.disk == {name: 3 * n for name, n in {**generated.disk, **encoded.disk, **trained.disk}.items()}
    report = rounds.report(find_gpu("h100"), 1)
    assert report["peak_gb"] == max(row["total_gb"] for row in report["parts"]) and report["stage"] == "iterate"
    assert report["hours"] == sum(row["seconds"] * row["runs"] / 3600 for row in report["parts"])
