"""`recipes/correct.py` with a real (random) vision-language model: runs, waits for the review, goes on, finishes."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from lift_trl.feedback.correction.review import Decision, decide
from lift_trl.feedback.hra import load_hra
from lift_trl.mini.world import World, build_world
from lift_trl.recipe_parser import RecipeParser
from lift_trl.rubric import Dimension, Label
from lift_trl.store.manifest import read_rows
from recipes import correct as recipe
from tests.feedback.conftest import conversation
from tests.hub.fixtures import LocalHub


@pytest.fixture
def world(tmp_path: Path) -> World:
    return build_world(tmp_path / "world", num_rated=4, num_real=1, trained=False)


def run(world: World, folder: Path, **options: object) -> list[Path]:
    """One call of the recipe with its YAML; the queues that wait after it."""
    changed = {"hra": world.rated, "model_name_or_path": world.vlm, "output_dir": folder, "max_steps": 1, **options}
    words = [word for name, value in changed.items() for word in (f"--{name}", str(value))]
    yaml = Path(recipe.__file__).parent / "configs" / "mini" / "correct.yaml"
    recipe.main(*RecipeParser(recipe.ARGUMENTS).parse_args_and_config(["--config", str(yaml), *words]))
    queues = sorted(folder.glob("*/review_queue.jsonl"))
    return [queue for queue in queues if any(row["decision"] is None for row in read_rows(queue))]


def test_the_recipe_stops_for_each_review_and_finishes(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    reviews = 0
    while queues := run(world, folder):
        (queue,) = queues
        assert f"rows of {queue} wait" in capsys.readouterr().out
        said = {row["id"]: (row["label"], row["reason"]) for row in read_rows(queue.parent / "labels.jsonl")}
        asked = list(read_rows(queue))
        assert all((row["critic_label"], row["critic_reason"]) == said[row["id"]] for row in asked)
        assert all(row["critic_label"] != row["label"] for row in asked)
        decide(queue, {row["id"]: Decision(Label(row["label"]), row["reason"], "ann") for row in asked})
        assert json.loads((queue.parent / "critic" / "adapter_config.json").read_text())["revision"] == "main"
        reviews += 1
    assert reviews >= 1
    assert "Corrected ratings in" in capsys.readouterr().out
    rated, corrected = load_hra(world.rated)["train"], load_hra(folder / "corrected")["train"]
    columns = ("video_id", "dimension", "label", "annotator", "reason")
    assert [[row[c] for c in columns] for row in corrected] == [[row[c] for c in columns] for row in rated]


def test_the_authors_repository_is_corrected_with_its_clips(world: World, hub: LocalHub, tmp_path: Path):
    """Their clips are in zips; a clip that is in none of them is dropped by name, the others are labelled."""
    rated, source = load_hra(world.rated)["train"], tmp_path / "authors"
    source.mkdir()
    rows = [
        conversation(
            f"videos/{row['video_id']}.mp4",
            row["caption"],
            Dimension(row["dimension"]),
            f"{row['label']}. {row['reason']}",
        )
        for row in rated
        if row["annotator"] == rated[0]["annotator"]
    ]
    clips = {row["video_id"]: row["video"]["path"] for row in rated}
    gone = rated[0]["video_id"]
    with ZipFile(source / "HRA_part1.zip", "w") as file:
        for name, path in clips.items():
            if name != gone:
                file.write(path, f"{name}.mp4")
    (source / "LiFT-HRA-data.json").write_text(json.dumps(rows))
    name = "dev/LiFT-HRA-to-correct"
    hub.api().create_repo(name, repo_type="dataset")
    hub.api().upload_folder(repo_id=name, repo_type="dataset", folder_path=source)

    run(world, tmp_path / "run", hra=name)
    dropped = list(read_rows(tmp_path / "run" / "1_filter" / "history.jsonl"))
    assert [event["video_id"] for event in dropped] == [gone] * 3
    assert all(event["why"].startswith("unreadable_clip") for event in dropped)
    labels = [row["label"] for row in read_rows(tmp_path / "run" / "2a_refine" / "labels.jsonl")]
    assert len(labels) in (3, 6) and set(labels) <= set(Label)


def test_options_of_the_model_reach_the_training(world: World, tmp_path: Path):
    with pytest.raises(ValueError, match="no_such_attention"):
        run(world, tmp_path / "run", attn_implementation="no_such_attention")
