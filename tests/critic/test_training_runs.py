"""`accelerate launch recipes/train_critic.py` as a user runs it, on real clips, with one and with two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lift_trl.critic.lift_critic import LiFTCritic
from lift_trl.rubric import Dimension
from lift_trl.store.manifest import write_rows
from tests.critic.tiny_models import build_vlm


ROOT = Path(__file__).resolve().parents[2]


def launch(recipe: str, processes: int, *options: str) -> str:
    config = ROOT / "recipes" / "configs" / "accelerate" / ("cpu.yaml" if processes == 1 else "cpu_2.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
    env["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [*command, str(ROOT / "recipes" / recipe), *options], env=env, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def rated(real_data, tmp_path_factory):
    """The real clips with made-up labels: what is shown is that they run, not what is learned."""
    folder = tmp_path_factory.mktemp("rated")
    clips = sorted((real_data / "clips").glob("*.mp4"))
    pairs = json.loads((real_data / "pairs.json").read_text())
    prompt = pairs[0]["prompt"]
    rows = []
    for number, clip in enumerate(clips[:6]):
        (folder / clip.name).symlink_to(clip)
        labels = {d.value: ("Good", "Normal", "Bad")[(number + i) % 3] for i, d in enumerate(Dimension)}
        rows.append(
            {
                "file_name": clip.name,
                "prompt": f"{prompt} {number}",
                **labels,
                "reasons": dict.fromkeys(labels, "So it is."),
            }
        )
    write_rows(folder / "metadata.jsonl", rows)
    return folder


@pytest.mark.real
@pytest.mark.parametrize("family", ["idefics3", "qwen2_5_vl"])
def test_one_and_two_processes_train_the_same_critic_on_real_clips(family, rated, tmp_path):
    build_vlm(family, save_directory=tmp_path / "vlm")
    adapters, figures = [], []
    for processes in (1, 2):
        folder = tmp_path / f"critic{processes}"
        launch(
            "train_critic.py",
            processes,
            *("--model_name_or_path", str(tmp_path / "vlm"), "--use_peft", "--dtype", "float32"),
            *("--lora_r", "4", "--lora_dropout", "0"),
            *("--hra", str(rated), "--test_fraction", "0.3", "--output_dir", str(folder), "--max_steps", "3"),
            *("--per_device_train_batch_size", str(4 // processes), "--learning_rate", "1e-2", "--warmup_steps", "0"),
            *(
                "--gradient_checkpointing",
                "false",
                "--report_to",
                "none",
                "--eval_strategy",
                "steps",
                "--eval_steps",
                "3",
            ),
            *("--logging_steps", "1", "--disable_tqdm", "true"),
        )
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3]
        figures.append([entry[key] for entry in log for key in ("loss", "eval_accuracy") if key in entry])
        adapters.append(load_file(folder / "adapter_model.safetensors"))
        clips = sorted(rated.glob("*.mp4"))
        score = LiFTCritic.from_pretrained(folder).score(clips[:1], ["A fox."], with_reason=True)[0]
        assert score.unscored is None and 0.05 <= score.reward <= 0.9
    assert len(figures[0]) == 4 and figures[0] == pytest.approx(figures[1], abs=2e-3)
    moved = [name for name, value in adapters[0].items() if "lora_B" in name and value.abs().max() > 0]
    assert moved
    for name, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][name], atol=2e-4, rtol=0)
