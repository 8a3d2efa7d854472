"""The recipes as a user starts them: `recipes/... --config ...`, with good and bad settings."""

from pathlib import Path

import pytest
import yaml

from lift_trl.alignment.data.cache_format import shard_paths
from tests.alignment.conftest import moving_square
from tests.processes import Job, recipe


def start(name: str, config: Path, num_processes: int = 1) -> Job:
    """`recipes/NAME.py --config CONFIG`; what it prints is in a file beside the YAML."""
    return Job(config.with_suffix(".log"), recipe, name, config=config, num_processes=num_processes)


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
    two = start("cache", write(tmp_path / "two.yaml", **settings, output_dir=tmp_path / "two"), num_processes=2)
    printed = two.finish()
    shards = {path.name: path.read_bytes() for path in shard_paths(tmp_path / "two")}
    assert len(shards) == 3 and "6 clips cached" in printed
    for path in shard_paths(tmp_path / "two")[1:]:
        path.unlink()  # as if two of three had not been finished
    (tmp_path / "two" / "metadata.jsonl").unlink()
    start("cache", write(tmp_path / "one.yaml", **settings, output_dir=tmp_path / "two")).finish()
    assert {path.name: path.read_bytes() for path in shard_paths(tmp_path / "two")} == shards


def test_a_bad_row_stops_the_recipe_and_is_named(tmp_path, clips, pipeline_dir):
    (clips / "3.mp4").unlink()
    settings = {"model_name_or_path": pipeline_dir, "num_frames": 9, "height": 32, "width": 32, "videos": [str(clips)]}
    run = start("cache", write(tmp_path / "c.yaml", **settings, output_dir=tmp_path / "cache"))
    assert run.wait() == [1]
    assert "metadata.csv, row 4" in run.output and "3.mp4: no such video file" in run.output


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
    run = start("align", write(tmp_path / "a.yaml", **settings))
    assert run.wait() != [0] and message in run.output
