"""Issue-sized checks on real CogVideoX clips: authors' critic answers as rewards, other clips standing in as real rows.

The folder may hold other clips and other counts: expectations are worked out from what is there.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest
import yaml
from safetensors.torch import load_file

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.objectives import ObjectiveArguments
from lift_trl.hub.lora.files import PEFT_WEIGHTS_FILE
from lift_trl.mini.checkpoints import build_tiny_pipeline
from lift_trl.rubric import LIFT, OFFICIAL_NAMES
from tests.real_folder import critic_files, critic_labels, demo_clip, reward


pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
ACCELERATE = ROOT / "recipes" / "configs" / "accelerate"
HEIGHT, WIDTH = 96, 144


def run(recipe: str, accelerate: str, config: Path) -> str:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / accelerate)]
    done = subprocess.run(
        [*command, str(ROOT / "recipes" / recipe), "--config", str(config)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def rated(real_data, tmp_path_factory) -> Path:
    """A folder in the documented form: clips with the authors' labels, and the pair clips as real rows."""
    folder = tmp_path_factory.mktemp("real") / "rated"
    folder.mkdir()
    rows = []
    for answer in json.loads(critic_files(real_data)[0].read_text(encoding="utf-8")):
        labels = {dimension: LIFT.parse_answer(answer[name]).label for name, dimension in OFFICIAL_NAMES.items()}
        clip = demo_clip(real_data, answer["video"])
        rows.append({"id": clip.stem, "file_name": str(clip), "prompt": answer["caption"], **labels})
    for pair in json.loads((real_data / "pairs.json").read_text()):
        for name in ("base", "aligned"):
            clip = real_data / pair[name]
            rows.append({"id": clip.stem, "file_name": str(clip), "prompt": pair["prompt"], "is_real": True})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def num_frames(rated) -> int:
    """The longest legal clip, 8 N + 1 frames at 8 a second, that all of the folder have; 49 of the authors' own."""
    lengths = []
    for line in (rated / "metadata.jsonl").read_text().splitlines():
        with av.open(json.loads(line)["file_name"]) as container:
            stream = container.streams.video[0]
            lengths.append(int(stream.frames / stream.average_rate * 8))
    return (min(*lengths, 49) - 1) // 8 * 8 + 1


@pytest.fixture(scope="module")
def expected_weights(rated) -> dict[str, float]:
    """Equation 3 with the counts of the folder: r N / N_g for sampled rows, N / N_r for real ones."""
    rows = [json.loads(line) for line in (rated / "metadata.jsonl").read_text().splitlines()]
    sampled = [row for row in rows if not row.get("is_real")]
    weights = {}
    for row in sampled:
        labels = {dimension: LIFT.parse_answer(row[dimension]).label for dimension in OFFICIAL_NAMES.values()}
        weights[row["id"]] = LIFT.mean_reward(labels) * len(rows) / len(sampled)
    return weights | {row["id"]: len(rows) / (len(rows) - len(sampled)) for row in rows if row.get("is_real")}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real-model") / "tiny"
    build_tiny_pipeline(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def cache(rated, pipeline, num_frames, tmp_path_factory) -> Path:
    """Encoded by two processes."""
    folder = tmp_path_factory.mktemp("real-cache")
    settings = {"model_name_or_path": str(pipeline), "videos": [str(rated)], "output_dir": str(folder / "cache")}
    size = {"num_frames": num_frames, "height": HEIGHT, "width": WIDTH}
    (folder / "cache.yaml").write_text(yaml.safe_dump({**settings, **size, "rows_per_shard": 3}))
    run("cache.py", "cpu_2.yaml", folder / "cache.yaml")
    return folder / "cache"


def test_validate_reads_every_clip(rated):
    done = subprocess.run(
        [sys.executable, "-m", "lift_trl.cli", "validate", str(rated)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "0 bad rows" in done.stdout


def test_the_cache_has_the_weights_of_equation_3(cache, expected_weights, num_frames):
    dataset = CachedVideoDataset(cache).weighted(ObjectiveArguments())
    found = {video.id: float(weight) for video, weight in zip(dataset.videos, dataset.weight)}
    assert found == pytest.approx(expected_weights, rel=1e-6)
    assert dataset[0]["latent_mean"].shape == ((num_frames - 1) // 4 + 1, 8, HEIGHT // 4, WIDTH // 4)


def test_the_demo_clips_have_the_unrounded_rewards(cache, real_data):
    rewards = {video.id: video.reward() for video in CachedVideoDataset(cache).videos if not video.is_real}
    labels = critic_labels(critic_files(real_data)[0])
    assert rewards == pytest.approx({demo_clip(real_data, name).stem: reward(given) for name, given in labels.items()})


def test_align_on_one_and_on_two_processes(cache, pipeline, tmp_path, expected_weights):
    count = len(expected_weights)
    steps = {
        "max_steps": 2,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
    }
    fixed = {
        **steps,
        "model_name_or_path": str(pipeline),
        "cache": str(cache),
        "lora_r": 4,
        "lora_alpha": 8,
        "report_to": "none",
    }
    logs = {}
    for accelerate, batch in (("cpu.yaml", count), ("cpu_2.yaml", -(-count // 2))):
        output = tmp_path / accelerate
        config = tmp_path / f"config-{accelerate}"
        config.write_text(yaml.safe_dump({**fixed, "per_device_train_batch_size": batch, "output_dir": str(output)}))
        logs[accelerate] = run("align.py", accelerate, config)
    for log in logs.values():
        shown = sorted(float(value) for value in re.findall(r"([\d.]+) \(\d+ rows\)", log))
        assert shown == pytest.approx(sorted({round(weight, 4) for weight in expected_weights.values()}), abs=1e-4)
    assert "one process" in logs["cpu.yaml"] and "DDP (gloo), 2 process(es)" in logs["cpu_2.yaml"]
    one, two = (load_file(tmp_path / name / PEFT_WEIGHTS_FILE) for name in logs)
    for name, value in one.items():
        assert (two[name] - value).abs().max() <= 1e-5 * value.abs().max() + 1e-7, name
