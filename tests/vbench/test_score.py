import json
import math
import zipfile

import numpy as np
import pytest

from lift_trl.hub.model_index import model_index
from lift_trl.vbench.export import write_leaderboard_zip
from lift_trl.vbench.results import load_results
from lift_trl.vbench.score import (
    IncompleteResultsError,
    aggregate,
    group_score,
    paired_deltas,
    vbench_rows,
)
from lift_trl.vbench.suite import DIMENSIONS


def read_results(paths, **options):
    return load_results(paths, **options)[0]


def notes_of(paths) -> str:
    return "\n".join(load_results(paths)[1])


def write_dimension(folder, name, values, *, reported=None, long=False, prompts=None, samples=2, videos="/videos"):
    """One file as VBench writes it; `values` in [0, 1]."""
    scale = 100 if name == "imaging_quality" else 1
    prompts = prompts or [f"prompt {i // samples}" for i in range(len(values))]
    rows = [
        {"video_path": f"{videos}/{prompt}-{i % samples}.mp4", "video_results": value * scale}
        for i, (prompt, value) in enumerate(zip(prompts, values))
    ]
    score = float(np.mean(values)) if reported is None else reported
    entry = (
        [score, [{"video_path": "/videos/split_clip/x-0/x-0_000.mp4", "video_results": 7.0}], rows]
        if long
        else [score, rows]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_eval_results.json").write_text(json.dumps({name: entry}))
    (folder / f"{name}_full_info.json").write_text("[]")


def write_all(folder, offset=0.0, seed=0, limit=100, samples=5, videos="/out/filtered_videos"):
    """All 16 dimensions, by default with the prompts and samples of VBench's protocol."""
    generator = np.random.default_rng(seed)
    for name, dimension in DIMENSIONS.items():
        values = 0.6 + offset + generator.normal(0, 0.05, samples * min(limit, dimension.num_prompts))
        write_dimension(folder, name, values, samples=samples, videos=videos)


def write_run(folder, planned, protocol="vbench"):
    (folder / "run.json").write_text(json.dumps({"protocol": protocol, "planned": planned, "runs": []}))


@pytest.mark.parametrize(
    ("value", "changed", "expected"),
    [
        (0.5, {}, (0.1433608590, 0.8454518533, 0.2837790579)),
        (0.9, {}, (0.8297277200, 1.5220944322, 0.9682010625)),
        (0.9, {"dynamic_degree": 0.4}, (0.7912661816, 1.5220944322, 0.9374318317)),
        (0.9, {"color": 0.0}, (0.8297277200, 1.4220944322, 0.9482010625)),
        (0.0, {}, (-0.7145977172, -0.0003513703, -0.5717484478)),
    ],
)
def test_golden_vectors_of_vbenchs_own_functions(value, changed, expected):
    raw = {**dict.fromkeys(DIMENSIONS, value), **changed}
    assert aggregate(raw) == pytest.approx(expected, abs=1e-10)


def test_extremes_are_one_and_zero():
    assert aggregate({n: d.maximum for n, d in DIMENSIONS.items()}) == pytest.approx((1, 1, 1), abs=1e-12)
    assert aggregate({n: d.minimum for n, d in DIMENSIONS.items()}) == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.mark.parametrize("missing", DIMENSIONS)
def test_a_total_of_fifteen_is_refused(missing):
    raw = {name: 0.9 for name in DIMENSIONS if name != missing}
    with pytest.raises(IncompleteResultsError, match=missing):
        aggregate(raw)
    with pytest.raises(IncompleteResultsError, match=missing):
        aggregate({**raw, missing: math.nan})
    other = "semantic" if DIMENSIONS[missing].group == "quality" else "quality"
    assert group_score(raw, other) > 0.8


def test_results_are_averaged_from_the_videos(tmp_path, caplog):
    # VBench on many GPUs writes the last frames' similarity as the score of appearance_style.
    write_dimension(tmp_path, "appearance_style", [0.2, 0.3], reported=0.9)
    write_dimension(tmp_path, "imaging_quality", [0.5, 0.7])
    results = read_results(tmp_path)
    assert list(results) == ["imaging_quality", "appearance_style"]
    assert results["appearance_style"].value == pytest.approx(0.25)
    assert results["imaging_quality"].value == pytest.approx(0.6)
    assert "appearance_style is 0.9000" in caplog.text and "imaging_quality is" not in caplog.text
    assert results["imaging_quality"].videos[1][:2] == ("prompt 0", 1)


def test_long_results_use_the_whole_videos(tmp_path):
    write_dimension(tmp_path, "scene", [0.2, 0.4], long=True)
    rows = json.loads((tmp_path / "scene_eval_results.json").read_text())
    rows["scene"][2].append({"long_video_cnt": 2})
    (tmp_path / "scene_eval_results.json").write_text(json.dumps(rows))
    results = read_results(tmp_path, protocol="vbench-long")
    assert results["scene"].value == pytest.approx(0.3)
    assert [row.metric for row in vbench_rows(results, "x")] == ["vbench-long/scene"]
    assert results["scene"].missing == "2 of 430 clips, 1 of 86 prompts"


def test_foreign_files_are_refused(tmp_path):
    write_dimension(tmp_path, "scene", [0.2])
    with pytest.raises(ValueError, match="full_info"):
        read_results(tmp_path / "scene_full_info.json")
    write_dimension(tmp_path / "b", "scene", [0.3])
    with pytest.raises(ValueError, match="only one of them"):
        read_results([tmp_path, tmp_path / "b"])
    (tmp_path / "b" / "scene_eval_results.json").write_text('{"scene": 0.3}')
    with pytest.raises(ValueError, match="per-video"):
        read_results(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="eval_results"):
        read_results(tmp_path / "none")


def test_rows_hold_totals_only_when_all_are_there(tmp_path):
    write_all(tmp_path)
    rows = {row.metric: row for row in vbench_rows(read_results(tmp_path), "base")}
    assert len(rows) == 19
    raw = {name: rows[f"vbench/{name}"].value for name in DIMENSIONS}
    expected = aggregate(raw)
    for name, value in zip(("quality_score", "semantic_score", "total_score"), expected):
        assert rows[f"vbench/{name}"].value == pytest.approx(value, abs=1e-12)
        low, high = rows[f"vbench/{name}"].ci95
        assert low < value < high
    assert rows["vbench/scene"].n == 86
    (tmp_path / "color_eval_results.json").unlink()
    left = {row.metric for row in vbench_rows(read_results(tmp_path), "base")}
    assert "vbench/quality_score" in left
    assert not {"vbench/semantic_score", "vbench/total_score", "vbench/color"} & left


AGGREGATES = ("quality_score", "semantic_score", "total_score")


def aggregates(folder, **options):
    names = (row.metric.partition("/")[2] for row in vbench_rows(read_results(folder, **options), "x"))
    return [name for name in names if "_score" in name]


def test_a_file_with_one_clip_each_makes_no_total(tmp_path):
    write_all(tmp_path, limit=1, samples=1)
    assert aggregates(tmp_path) == []
    assert "scene has only 1 of 430 clips, 1 of 86 prompts; no total is made of it" in notes_of(tmp_path)
    with pytest.raises(IncompleteResultsError, match="scene: 1 of 430 clips"):
        write_leaderboard_zip(read_results(tmp_path), tmp_path / "x.zip")


def test_a_mini_draw_is_an_estimate_and_a_hole_in_it_is_refused(tmp_path):
    write_all(tmp_path, limit=4, samples=2)
    planned = {name: [4, 2, 8] for name in DIMENSIONS}
    write_run(tmp_path, {**planned, "temporal_flickering": [4, 25, 8]})
    assert aggregates(tmp_path) == [f"{name}_estimate" for name in AGGREGATES]
    assert "scene is an estimate of VBench's figure: 4 of 86 prompts, 2 of 5 samples a prompt" in notes_of(tmp_path)
    assert "temporal_flickering is an estimate of VBench's figure: 4 of 75 prompts." in notes_of(tmp_path)
    with pytest.raises(IncompleteResultsError, match="scene: 4 of 86 prompts"):
        write_leaderboard_zip(read_results(tmp_path), tmp_path / "x.zip")
    write_dimension(tmp_path, "scene", [0.5] * 7)
    assert aggregates(tmp_path) == ["quality_score_estimate"]


def test_unfiltered_flickering_is_an_estimate(tmp_path):
    write_all(tmp_path, videos="/videos")
    assert aggregates(tmp_path) == ["quality_score_estimate", "semantic_score", "total_score_estimate"]


def test_what_vbench_itself_leaves_out_is_not_missing(tmp_path):
    """Color is without the clips whose object was not found, filtered flickering without those that move."""
    write_all(tmp_path)
    for name, count in (("color", 84), ("temporal_flickering", 70)):
        write_dimension(tmp_path, name, [0.9] * count, samples=1, videos="/out/filtered_videos")
    assert aggregates(tmp_path) == []  # by hand: nobody knows whether the other prompts were there
    full = {name: [d.num_prompts, 5, 5 * d.num_prompts] for name, d in DIMENSIONS.items()}
    write_run(tmp_path, {**full, "temporal_flickering": [75, 25, 375]})
    assert aggregates(tmp_path) == list(AGGREGATES)


def test_figures_cannot_be_restamped(tmp_path):
    write_all(tmp_path)
    write_run(tmp_path, {}, protocol="vbench-long")
    with pytest.raises(ValueError, match="results of vbench-long, not of vbench"):
        read_results(tmp_path)


@pytest.mark.parametrize("values", [[0.2, math.nan], []])
def test_a_dimension_without_a_figure_is_left_out_alone(tmp_path, values):
    write_all(tmp_path)
    write_dimension(tmp_path, "color", values, reported=0.5)
    assert aggregates(tmp_path) == ["quality_score"]
    assert "color_eval_results.json: color is left out: " in notes_of(tmp_path)
    write_dimension(tmp_path / "alone", "color", values, reported=0.5)
    (tmp_path / "alone" / "scene_eval_results.json").write_text('{"scene": [null, []]}')
    nothing = read_results(tmp_path / "alone")
    assert nothing == {} and vbench_rows(nothing, "x") == []
    assert paired_deltas(read_results(tmp_path), nothing, base_name="a", system="b") == []


def test_pairing_finds_a_small_gain_in_wide_noise(tmp_path):
    write_all(tmp_path / "base", seed=3)
    write_all(tmp_path / "tuned", seed=3, offset=0.002)
    base, tuned = read_results(tmp_path / "base"), read_results(tmp_path / "tuned")
    deltas = {d.metric: d for d in paired_deltas(base, tuned, base_name="base", system="tuned")}
    assert deltas["vbench/scene"].estimate.value == pytest.approx(0.002)
    assert deltas["vbench/scene"].estimate.is_above_zero and deltas["vbench/total_score"].estimate.is_above_zero
    ours = {row.metric: row.ci95 for row in vbench_rows(tuned, "tuned")}
    assert ours["vbench/scene"][0] < deltas["vbench/scene"].base_value  # unpaired, the gain drowns
    assert len(deltas) == 19


def test_deltas_are_over_shared_prompts_of_one_protocol(tmp_path):
    write_dimension(tmp_path / "a", "scene", [0.1, 0.2, 0.9, 0.9], prompts=["p", "q", "only a", "only a"])
    write_dimension(tmp_path / "b", "scene", [0.2, 0.3], prompts=["p", "q"])
    a, b = read_results(tmp_path / "a"), read_results(tmp_path / "b")
    (delta,) = paired_deltas(a, b, base_name="a", system="b")
    assert (delta.base_value, delta.value) == pytest.approx((0.15, 0.25))
    assert delta.estimate.n == 2
    with pytest.raises(ValueError, match="one protocol"):
        paired_deltas(a, read_results(tmp_path / "b", protocol="vbench-long"), base_name="a", system="b")


def test_model_index_is_what_the_hub_reads(tmp_path):
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    write_all(tmp_path)
    index = model_index(vbench_rows(read_results(tmp_path), "tuned"), model_name="me/tuned")
    name, results = model_index_to_eval_results(index)
    assert name == "me/tuned" and len(results) == 19
    total = next(result for result in results if result.metric_type == "vbench/total_score")
    assert "95% interval" in total.metric_name and total.dataset_name == "vbench"
    card = ModelCard.from_template(
        ModelCardData(model_name=name, eval_results=results), template_str="---\n{{ card_data }}\n---\n"
    )
    assert len(ModelCard(str(card)).data.eval_results) == 19


def test_leaderboard_zip_gives_vbenchs_script_the_same_scores(tmp_path):
    write_all(tmp_path / "r")
    results = read_results(tmp_path / "r")
    path = write_leaderboard_zip(results, tmp_path / "out" / "tuned.zip")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        contents = {key: value for name in names for key, value in json.loads(archive.read(name)).items()}
    assert sorted(names) == sorted(f"{name}_eval_results.json" for name in DIMENSIONS)
    assert {name: entry[0] for name, entry in contents.items()} == {n: r.reported for n, r in results.items()}
    del results["scene"]
    with pytest.raises(IncompleteResultsError, match="scene"):
        write_leaderboard_zip(results, path)


def test_what_is_in_per_cent_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"imaging_quality is 99, outside \[0, 1\].*write 0.99"):
        aggregate(dict.fromkeys(DIMENSIONS, 0.5) | {"imaging_quality": 99.0})
    with pytest.raises(ValueError, match="color is -0.2, outside"):
        group_score(dict.fromkeys(DIMENSIONS, 0.5) | {"color": -0.2}, "semantic")
    assert aggregate(dict.fromkeys(DIMENSIONS, 1.0)).total > 1


@pytest.mark.parametrize(
    ("name", "values", "reported", "problem"),
    [
        ("imaging_quality", [0.98, 1.0], 99.0, "imaging_quality is 99, outside"),
        ("imaging_quality", [98.0, 100.0], 0.99, r"of a clip is 9800, outside \[0, 100\]"),
        ("imaging_quality", [0.0098, 0.01], 0.99, r"of the clips is in \[0, 1\], not in \[0, 100\]"),
        ("color", [0.5, 50.0], None, r"color of a clip is 50, outside \[0, 1\]"),
        ("dynamic_degree", [-0.1, 0.5], None, r"dynamic_degree of a clip is -0.1, outside \[0, 1\]"),
        ("temporal_style", [-0.02, 0.2], None, None),  # a similarity may be below 0
        ("imaging_quality", [0.0, 0.0], None, None),
    ],
)
def test_results_on_another_scale_are_refused(tmp_path, name, values, reported, problem):
    write_dimension(tmp_path, name, values, reported=reported)
    if problem is None:
        assert read_results(tmp_path)[name].value == pytest.approx(np.mean(values))
    else:
        with pytest.raises(ValueError, match=problem):
            read_results(tmp_path)
