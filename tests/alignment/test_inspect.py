from lift_trl.cli import main
from lift_trl.store.inspect import inspect_artifact
from lift_trl.store.manifest import Artifact, write_rows
from tests.alignment.conftest import moving_square


def test_inspect_of_a_cache(cache_dir, capsys):
    assert main(["inspect", str(cache_dir)]) == 0
    out = capsys.readouterr().out
    assert "cache" in out and "rows: 8, of which real: 2" in out and "num_frames: 9" in out
    assert "reward: mean 0.5000" in out and "best: clip-5 (0.9000), clip-0 (0.9000)" in out


def test_inspect_of_nothing_says_what_it_looked_for(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 1
    assert "holds no artifact.yaml, no metadata.jsonl, no votes and no LoRA" in capsys.readouterr().err


def test_labels_and_the_unscored_are_told_of_scored_rows_with_and_without_their_artifact(tmp_path):
    labels = {"semantic_consistency": "Good", "motion_smoothness": "Bad", "video_fidelity": "Normal"}
    rows = [
        {"id": "fox", "video": "clips/0.mp4", "prompt": "a fox", "reward": 0.38, "unscored": None, **labels},
        {"id": "bird", "video": "clips/1.mp4", "prompt": "a bird", "reward": None, "unscored": "no label"},
        {"id": "dog", "video": "clips/2.mp4", "prompt": "a dog", "reward": 1.0, **dict.fromkeys(labels, "Good")},
        {"id": "street", "video": "clips/3.mp4", "prompt": "a street", "is_real": True},
    ]
    for number in range(4):
        moving_square(tmp_path / "clips" / f"{number}.mp4", number)
    write_rows(tmp_path / "metadata.jsonl", rows)
    for artifact in (True, False):
        if artifact:
            Artifact("scored").save(tmp_path)
        else:
            (tmp_path / "artifact.yaml").unlink()
        lines = list(inspect_artifact(tmp_path))
        assert {"  rows: 4, of which real: 1", "  unscored: 1"} < set(lines)
        assert {
            "  semantic_consistency: Good 2, Normal 0, Bad 0",
            "  motion_smoothness: Good 1, Normal 0, Bad 1",
            "  video_fidelity: Good 1, Normal 1, Bad 0",
        } < set(lines)
        best, worst = (next(line for line in lines if line.startswith(f"  {word}:")) for word in ("best", "worst"))
        assert best.startswith("  best: dog (") and worst.startswith("  worst: fox (0.38")
    # Without an id the file is the name; raters who left a dimension out have not scored the clip, which is no bad row.
    tidy = [{"file_name": "clips/1.mp4", "prompt": "a bird", "dimension": d, "label": "Bad"} for d in list(labels)[:2]]
    write_rows(tmp_path / "metadata.jsonl", [{"file_name": "clips/0.mp4", "prompt": "a fox", "reward": 0.5}, *tidy])
    lines = list(inspect_artifact(tmp_path))
    assert {"  rows: 2, of which real: 0", "  unscored: 1", "  best: clips/0.mp4 (0.5000)", "  bad rows: 0"} < set(
        lines
    )


def test_clips_that_nobody_asked_to_score_are_not_unscored(tmp_path):
    write_rows(tmp_path / "metadata.jsonl", [{"id": "0", "prompt": "a fox", "file_name": "0.mp4"}])
    Artifact("generated").save(tmp_path)
    assert list(inspect_artifact(tmp_path))[-1] == "  rows: 1, of which real: 0"
    rating = {"id": "r", "dimension": "motion_smoothness", "label": "Bad", "reason": "It jumps.", "caption": "a fox"}
    write_rows(tmp_path / "metadata.jsonl", [rating])
    Artifact("correction").save(tmp_path)
    assert list(inspect_artifact(tmp_path))[-1] == "  motion_smoothness: Good 0, Normal 0, Bad 1"
