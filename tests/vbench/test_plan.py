import json
import os

import pytest

from lift_trl.vbench.check import check_names, check_videos
from lift_trl.vbench.plan import Plan, link_videos, locate_videos, make_plan, write_full_info
from lift_trl.vbench.suite import load_suite


def test_names_counts_and_seeds(suite):
    plan = make_plan(suite, samples=2, flicker_samples=3)
    # Seven distinct prompts, two of them for flickering.
    assert len(plan.videos) == 5 * 2 + 2 * 3
    assert plan.videos[0].file_name == "a cat-0.mp4" and plan.videos[1].file_name == "a cat-1.mp4"
    assert len({video.seed for video in plan.videos}) == len({video.id for video in plan.videos}) == 16
    assert all(0 <= video.seed < 2**32 for video in plan.videos)
    assert plan == make_plan(suite, samples=2, flicker_samples=3)
    assert {v.seed for v in plan.videos}.isdisjoint(v.seed for v in make_plan(suite, samples=2, seed=1).videos)


def test_long_prompts_are_generated_under_the_original_names(suite_file):
    plan = make_plan(load_suite(suite_file, prompt_set="lift_opt"), samples=1)
    assert plan.videos[0].prompt.startswith("Long text 0.") and plan.videos[0].file_name == "a cat-0.mp4"
    original = make_plan(load_suite(suite_file), samples=1)
    assert [v.seed for v in plan.videos] == [v.seed for v in original.videos]


def test_a_subset_needs_fewer_clips_but_whole_rows(suite, tmp_path):
    """VBench-Long takes a clip's length from all dimensions of its prompt, chosen or not."""
    plan = make_plan(suite, dimensions=["aesthetic_quality"], samples=5)
    assert len(plan.videos) == 3 * 5
    write_full_info(plan, tmp_path / "info.json")
    rows = json.loads((tmp_path / "info.json").read_text())
    assert [row["dimension"] for row in rows] == [
        ["appearance_style"], *[["overall_consistency", "aesthetic_quality"]] * 3,
    ]  # fmt: skip
    assert {v.dimensions for v in plan.videos} == {("aesthetic_quality",)}


def test_the_draw_is_stratified_and_shared(suite):
    plan = make_plan(suite, limit_per_dimension=1, samples=1, flicker_samples=1)
    drawn = {d: [v for v in plan.videos if d in v.dimensions] for d in plan.dimensions}
    present = {d for row in suite.prompts for d in row.dimensions}
    assert all(len(drawn[d]) >= 1 for d in present)
    assert drawn["aesthetic_quality"][0] in drawn["overall_consistency"]
    assert plan == make_plan(suite, limit_per_dimension=1, samples=1, flicker_samples=1)
    assert len(plan.videos) < len(make_plan(suite, samples=1, flicker_samples=1).videos)


def test_saved_and_loaded(suite, tmp_path):
    plan = make_plan(suite, samples=1)
    plan.save(tmp_path / "plan")
    assert Plan.load(tmp_path / "plan") == plan
    with pytest.raises(ValueError, match="samples=0"):
        make_plan(suite, samples=0)


def test_links_are_clean_and_from_either_form(suite, tmp_path, make_clip):
    plan = make_plan(suite, dimensions=["aesthetic_quality"], samples=1)
    generated = tmp_path / "generated"
    rows = []
    for number, video in enumerate(plan.videos):
        make_clip(generated / "videos" / f"{video.id}.mp4", seed=number)
        rows.append({"id": video.id, "prompt": video.prompt, "seed": video.seed, "video": f"videos/{video.id}.mp4"})
    (generated / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    target = tmp_path / "clean"
    assert link_videos(plan, generated, target) == 3
    assert sorted(os.listdir(target)) == sorted(video.file_name for video in plan.videos)
    assert (target / "A fantasy landscape-0.mp4").samefile(generated / "videos" / f"{plan.videos[1].id}.mp4")
    assert not (target / "A fantasy landscape-0.mp4").samefile(target / "a fantasy landscape-0.mp4")
    assert link_videos(plan, generated, target) == 3  # again: nothing changes

    again = tmp_path / "again"
    assert link_videos(plan, target, again) == 3  # a folder that has VBench's names already
    (again / ".DS_Store").write_text("")
    with pytest.raises(ValueError, match="DS_Store"):
        link_videos(plan, target, again)


def test_scored_clips_are_found_by_their_id(suite, tmp_path, make_clip):
    plan = make_plan(suite, dimensions=["human_action"], samples=2)
    rows = []
    for number, video in enumerate(plan.videos):
        make_clip(tmp_path / f"{number}.mp4", seed=number)
        rows.append({"id": video.id, "prompt": "as the critic saw it", "file_name": f"{number}.mp4", "reward": 0.5})
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert locate_videos(plan, tmp_path) == {
        "a person is running-0.mp4": tmp_path / "0.mp4",
        "a person is running-1.mp4": tmp_path / "1.mp4",
    }
    metadata.write_text('{"file_name": "0.mp4", "prompt": "a person is running", "seed": 1}\n')
    with pytest.raises(ValueError, match="metadata.jsonl, line 1: no id; generate"):
        locate_videos(plan, tmp_path)


def test_check_names_what_is_wrong(suite, tmp_path, make_clip):
    plan = make_plan(suite, dimensions=["aesthetic_quality"], samples=2)
    names = [video.file_name for video in plan.videos]
    folder = tmp_path / "videos"
    assert not check_videos(plan, folder).ok
    for name in names[:-1]:
        make_clip(folder / name)
    make_clip(folder / names[1], num_frames=5)
    make_clip(folder / names[2], size=64)
    whole = (folder / names[3]).read_bytes()
    (folder / names[3]).write_bytes(whole[: len(whole) // 2])
    make_clip(folder / names[4], num_frames=1)
    (folder / "notes.json").write_text("{}")

    found = check_videos(plan, folder, num_frames=9)
    assert (found.num_planned, found.num_found, found.ok) == (6, 5, False)
    where = {(problem.kind, problem.where) for problem in found.problems if problem.fatal}
    assert where == {
        ("missing", names[5]),
        ("frames", names[1]),
        ("form", names[2]),
        ("undecodable", names[3]),
        ("frames", names[4]),
    }
    # The links that VBench is given hold the planned clips only.
    assert [p.where for p in found.problems if p.kind == "stray"] == ["notes.json"]
    assert "5 of 6 clips found" in found.summary()


def test_collisions_and_short_protocols_are_told(suite):
    kinds = {problem.kind: problem for problem in check_names(make_plan(suite, samples=2, flicker_samples=5))}
    assert "case-sensitive" in kinds["case"].message and not kinds["case"].fatal
    assert "not VBench's protocol" in [p.message for p in check_names(make_plan(suite, samples=2))][-1]
    full = list(check_names(make_plan(suite)))
    assert {problem.kind for problem in full} == {"case"}


@pytest.mark.real
def test_the_real_plan(real_data):
    (path,) = (real_data / "vbench").glob("*.json")
    rows = json.loads(path.read_text(encoding="utf-8"))
    prompts = {row["prompt_en"] for row in rows}
    flickering = {row["prompt_en"] for row in rows if "temporal_flickering" in row["dimension"]}
    suite = load_suite(path, prompt_set="lift_opt")
    plan = make_plan(suite)
    assert len(plan.videos) == len(prompts) * 5 + len(flickering) * 20
    assert len(make_plan(suite, flicker_samples=5).videos) == len(prompts) * 5
    assert {video.file_name for video in plan.videos} >= {f"{name}-4.mp4" for name in prompts}
    assert len({video.file_name for video in plan.videos}) == len(plan.videos)
    assert max(len(video.file_name.encode()) for video in plan.videos) <= 255
    in_case_only = len(prompts) - len({name.lower() for name in prompts})
    assert [problem.kind for problem in check_names(plan)] == ["case"] * 5 * in_case_only
    small = make_plan(suite, limit_per_dimension=5, samples=1, flicker_samples=1)
    for dimension in {name for row in rows for name in row["dimension"]}:
        of_it = {row["prompt_en"] for row in rows if dimension in row["dimension"]}
        assert sum(dimension in video.dimensions for video in small.videos) >= min(5, len(of_it))
    assert locate_videos(plan, real_data / "clips") == {}
