"""The recipes as a user starts them: `accelerate launch recipes/... --config ...`, with good and bad settings."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lift_trl.alignment.data.cache_format import shard_paths
from tests.alignment.conftest import moving_square


ROOT = Path(__file__).parents[2]
ACCELERATE = ROOT / "recipes" / "configs" / "accelerate"


def launch(recipe: str, config: Path, accelerate: str = "cpu.yaml") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / accelerate)]
    return subprocess.run(
        [*command, str(ROOT / "recipes" / recipe), "--config", str(config)], capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture
def clips(tmp_path) -> Path:
    folder = tmp_path / "clips"
    rows = ["file_name,prompt,reward,is_real"]
    for index in range(6):
        moving_square(folder / f"{index}.mp4", index)
        rows.append(
            f"{index}.mp4,a red circle moving left,{'' if index > 3 else 0.2 * index},{str(index > 3).lower()}"
        )
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def write(path: Path, **settings) -> Path:
    path.write_text(yaml.safe_dump({name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}))
    return path


def test_cache_by_two_processes_then_one_gives_the_same_shards(tmp_path, clips, pipeline_dir):
    """Two processes with a bad clip at the end keep what they finished; one process goes on where they stopped."""
    settings = {"model_name_or_path": pipeline_dir, "num_frames": 9, "height": 32, "width": 32, "rows_per_shard": 2}
    settings["videos"] = [str(clips)]
    two = launch("cache.py", write(tmp_path / "two.yaml", **settings, output_dir=tmp_path / "two"), "cpu_2.yaml")
    assert two.returncode == 0, two.stderr
    shards = {path.name: path.read_bytes() for path in shard_paths(tmp_path / "two")}
    assert len(shards) == 3 and "6 clips cached" in two.stdout
    for path in shard_paths(tmp_path / "two")[1:]:
        path.unlink()  # as if two of three had not been finished
    (tmp_path / "two" / "metadata.jsonl").unlink()
    one = launch("cache.py", write(tmp_path / "one.yaml", **settings, output_dir=tmp_path / "two"))
    assert one.returncode == 0, one.stderr
    assert {path.name: path.read_bytes() for path in shard_paths(tmp_path / "two")} == shards


def test_a_bad_row_stops_the_recipe_and_is_named(tmp_path, clips, pipeline_dir):
    (clips / "3.mp4").unlink()
    settings = {"model_name_or_path": pipeline_dir, "num_frames": 9, "height": 32, "width": 32, "videos": [str(clips)]}
    run = launch("cache.py", write(tmp_path / "c.yaml", **settings, output_dir=tmp_path / "cache"))
    assert run.returncode != 0
    assert "metadata.csv, row 4" in run.stderr and "3.mp4: no such video file" in run.stderr


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"objectve": "rwl"}, "objectve"),
        ({"objective": "best"}, "objective='best'; use one of sft, rwl, rs, best_of_n"),
        ({"cache": "nowhere"}, "nowhere: no finished cache"),
        ({"lora_target_modules": ["to_nothing"]}, "to_nothing"),
    ],
)
def test_wrong_settings_of_align_are_named(tmp_path, pipeline_dir, cache_dir, setting, message):
    settings = {
        "model_name_or_path": pipeline_dir, "cache": cache_dir, "output_dir": tmp_path / "out", **setting
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "align.py"), "--config", str(write(tmp_path / "a.yaml", **settings))],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert run.returncode != 0 and message in run.stderr
