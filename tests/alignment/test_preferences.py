"""People's pairs: from the arena's votes and from a CSV, through the cache's recipe, to a LoRA by DPO."""

import csv
import math

import pytest
import torch

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.objectives.parts.pairs import pairs_by_reward
from lift_trl.alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
from lift_trl.judges.preferences import load_preferences, parse_systems
from lift_trl.report.inputs import ReportArguments, build_report
from lift_trl.report.page import save_report
from lift_trl.store.clip_rows import video_digest
from lift_trl.store.inspect import inspect_artifact
from lift_trl.store.manifest import STATE_FILE, read_json, write_rows
from lift_trl.ui.arena.votes import Arena
from lift_trl.ui.clips import load_clips, pair_clips
from lift_trl.ui.identity import Identity
from lift_trl.ui.vote_log import VoteLog
from tests.alignment.conftest import SIZE, make_trainer, moving_square
from tests.structure.source import RECIPES
from tests.structure.test_recipe_configs import load_recipe


PROMPTS = ["a red circle moving left", "a blue square moving up", "a green triangle moving down"]


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """Clips of two systems with the same names, as the same prompts and seeds have."""
    root = tmp_path_factory.mktemp("systems")
    for number, system in enumerate(("base", "tuned")):
        for index in range(3):
            moving_square(root / system / "videos" / f"{index}.mp4", 10 * number + index)
    return {system: root / system for system in ("base", "tuned")}


def vote(index, choice, voter="ada", dimension=None, swapped=False):
    sides = [f"{system}/videos/{index}.mp4" for system in ("base", "tuned")]
    first, second = sides[::-1] if swapped else sides
    return {
        "id": f"{voter}-{index}-{dimension}", "prompt": PROMPTS[index], "video_a": first, "video_b": second,
        "choice": choice, "dimension": dimension, "voter": voter, "created_at": "", "pair": "p",
    }  # fmt: skip


def write_votes(folder):
    """Pair 0: 2 to 1 for tuned; pair 1: one each way, a tie; pair 2: base, with one vote written in two segments."""
    rows = [
        vote(0, "b"),
        vote(0, "a", "bob", swapped=True),
        vote(0, "a", "eve"),
        vote(0, "a", dimension="video_fidelity"),
    ]
    rows += [vote(1, "a"), vote(1, "a", "bob", swapped=True), vote(2, "tie", "bob"), vote(2, "a")]
    write_rows(folder / "one.jsonl", rows)
    write_rows(folder / "two.jsonl", [vote(2, "a")])
    return folder


def names(preferences):
    """Pairs as (file of the preferred clip, file of the other)."""
    files = {video.id: "/".join(video.video.parts[-3::2]) for video in preferences.videos}
    return [tuple(files[name] for name in pair) for pair in preferences.pairs]


def test_votes_become_pairs_and_ties_are_refused(tmp_path, systems):
    found = load_preferences(write_votes(tmp_path), systems)
    assert sorted(names(found)) == [("base/2.mp4", "tuned/2.mp4"), ("tuned/0.mp4", "base/0.mp4")]
    assert found.ties == 1 and len(found.videos) == 4 and {video.labels for video in found.videos} == {None}
    fidelity = load_preferences(tmp_path, systems, dimension="video_fidelity")
    assert names(fidelity) == [("base/0.mp4", "tuned/0.mp4")]


def test_a_csv_with_the_benchmarks_columns_gives_the_same_pairs(tmp_path, systems):
    path = systems["base"].parent / "pairs.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path_A", "path_B", "prompt", "VQ", "Overall"])
        for index, (quality, choice) in enumerate([("A", "B"), ("B", "same"), ("same", "A")]):
            writer.writerow([f"base/videos/{index}.mp4", f"tuned/videos/{index}.mp4", PROMPTS[index], quality, choice])
    found = load_preferences(path)
    assert names(found) == [("tuned/0.mp4", "base/0.mp4"), ("base/2.mp4", "tuned/2.mp4")] and found.ties == 1
    assert names(load_preferences(path, dimension="VQ"))[1] == ("tuned/1.mp4", "base/1.mp4")
    with pytest.raises(
        ValueError, match="line 2: TA=None or no choice; write path_A, path_B, prompt and in TA A, B or same"
    ):
        load_preferences(path, dimension="TA")


def test_what_is_wrong_with_a_vote_is_named(tmp_path, systems):
    write_rows(tmp_path / "a.jsonl", [vote(0, "left")])
    with pytest.raises(ValueError, match="a.jsonl, line 1: choice 'left'; use a, b or tie"):
        list(inspect_artifact(tmp_path))
    with pytest.raises(ValueError, match="a.jsonl, line 1: choice 'left'; use a, b or tie"):
        load_preferences(tmp_path, systems)
    with pytest.raises(ValueError, match="system of 'base/videos/0.mp4' is none of tuned. Name .* --systems base=DIR"):
        write_rows(tmp_path / "a.jsonl", [vote(0, "a")])
        load_preferences(tmp_path, {"tuned": systems["tuned"]})
    write_rows(tmp_path / "a.jsonl", [{**vote(0, "a"), "video_b": "tuned/videos/9.mp4"}])
    with pytest.raises(FileNotFoundError, match="line 1: .*9.mp4 is not there"):
        load_preferences(tmp_path, systems)
    write_rows(tmp_path / "a.jsonl", [vote(0, "tie")])
    with pytest.raises(ValueError, match=r"no pair in which one clip is preferred \(1 ties\)"):
        load_preferences(tmp_path, systems)
    with pytest.raises(FileNotFoundError, match="no votes"):
        load_preferences(tmp_path / "nowhere", systems)
    with pytest.raises(ValueError, match="systems: 'base'; write name=folder"):
        parse_systems(["base"])
    with pytest.raises(ValueError, match="systems: .base=b.; write name=folder, each name once"):
        parse_systems(["base=a", "base=b"])


def test_votes_to_a_lora(tmp_path, systems, pipeline_dir):
    """Arena, `votes/`, cache, DPO: unrated clips, each encoded once; rewards are needed by no part of it."""
    recipe = load_recipe(RECIPES / "cache.py")
    args = recipe.CacheArguments(
        model_name_or_path=str(pipeline_dir), output_dir=str(tmp_path / "cache"), **SIZE,
        preferences=str(write_votes(tmp_path / "votes")), systems=[f"{name}={path}" for name, path in systems.items()],
    )  # fmt: skip
    recipe.main(args)
    dataset = CachedVideoDataset(tmp_path / "cache")
    assert len(dataset.videos) == 4 and "  pairs that people chose: 2 in 2 prompts" in inspect_artifact(
        tmp_path / "cache"
    )
    assert dataset.artifact.parents["preferences"].startswith("votes@")
    trainer = make_trainer(
        pipeline_dir, tmp_path / "lora", dataset, objective="dpo", max_steps=8, per_device_train_batch_size=2
    )
    trainer.train()
    last = [line for line in trainer.state.log_history if "loss" in line][-1]
    assert last["rewards/accuracies"] == 1 and "reward_mean" not in last
    by_digest = {video_digest(systems[name] / "videos" / "0.mp4"): name for name in systems}
    assert set(by_digest.values()) == {"base", "tuned"}
    trainer.save_model()
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "votes" in card.partition("## ")[2]
    assert "| objective | `dpo` (direct preference" in card and "beta = 100.0, loss_type = sigmoid" in card
    assert "2 pairs a step" in card and "compared the sampled clips in pairs" in card
    with pytest.raises(ValueError, match="4 generated rows have no reward"):
        make_trainer(pipeline_dir, tmp_path / "rwl", CachedVideoDataset(tmp_path / "cache"))


def test_an_arenas_votes_train_a_lora_and_stand_in_the_report(tmp_path, systems, pipeline_dir):
    """Arena, votes/, cache.py, align.py, report. Two people like `tuned` on two prompts of three, on mixed sides."""
    for folder in systems.values():
        rows = [{"file_name": f"videos/{n}.mp4", "prompt": prompt, "seed": n} for n, prompt in enumerate(PROMPTS)]
        write_rows(folder / "metadata.jsonl", rows)
    pairs = pair_clips(*(load_clips(str(path), system=name) for name, path in systems.items()))
    arena = Arena(pairs, VoteLog(tmp_path / "votes"), Identity(b"salt"))
    choices = []
    for voter in ("ada", "bob"):
        while (pair := arena.next_pair(voter)) is not None:
            liked = "base" if pair.prompt == PROMPTS[1] else "tuned"
            choices.append("a" if arena.sides(voter, pair)[0].system == liked else "b")
            assert arena.vote(voter, pair.id, dict.fromkeys(arena.questions, choices[-1]))
    assert len(choices) == 6 and set(choices) == {"a", "b"}
    found = load_preferences(tmp_path / "votes", systems)
    assert sorted(names(found)) == [
        ("base/1.mp4", "tuned/1.mp4"), ("tuned/0.mp4", "base/0.mp4"), ("tuned/2.mp4", "base/2.mp4"),
    ]  # fmt: skip
    (segment,) = (tmp_path / "votes").rglob("*.jsonl")
    # A folder of votes, and the page's own, where the journal of what was shown lies too.
    assert [names(load_preferences(path, systems)) for path in (segment, tmp_path)] == [names(found)] * 2

    named = [f"{name}={path}" for name, path in systems.items()]
    recipe = load_recipe(RECIPES / "cache.py")
    recipe.main(
        recipe.CacheArguments(
            str(pipeline_dir), str(tmp_path / "pairs"), preferences=str(tmp_path), systems=named, **SIZE
        )
    )
    recipe = load_recipe(RECIPES / "align.py")
    training = RewardWeightedVideoConfig(
        str(tmp_path / "lora"), objective="dpo", max_steps=3, per_device_train_batch_size=6, learning_rate=1e-2,
        logging_steps=1, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    recipe.main(recipe.AlignArguments(str(pipeline_dir), str(tmp_path / "pairs")), LoraArguments(lora_r=4), training)
    losses = [line["loss"] for line in read_json(tmp_path / "lora" / STATE_FILE)["log_history"] if "loss" in line]
    assert losses[0] == pytest.approx(math.log(2) * 2 / 100, rel=1e-3) and losses[-1] < losses[0]

    pages = []
    for votes in (tmp_path, tmp_path / "votes", segment):
        arguments = ReportArguments(
            str(tmp_path / "report"),
            named,
            drift=False,
            votes=[f"people={votes}"],
            training=[f"dpo={tmp_path / 'lora'}"],
        )
        report = build_report(arguments)
        assert [
            (rate.first, rate.win.value, rate.loss.value) for rate in report.win_rates if rate.dimension is None
        ] == [("tuned", pytest.approx(2 / 3), pytest.approx(1 / 3))]
        pages.append(save_report(report, tmp_path / "report").read_text())
    assert pages == pages[:1] * 3 and "Curve: loss." in pages[0]
    assert "<dt>people, perhaps independent</dt><dd><b>+0.333 (95% interval -1.000 to +1.000)</b>" in pages[0]


def test_votes_on_clips_by_their_seed_are_pairs_of_the_folders_clips(tmp_path, systems):
    """As the comparison writes them of clips on demand; two clips of one prompt and seed are numbered."""
    for folder in systems.values():
        rows = [{"file_name": f"videos/{n}.mp4", "prompt": PROMPTS[n // 2], "seed": 7} for n in range(3)]
        write_rows(folder / "metadata.jsonl", rows)

    def on_demand(index, seed, choice):
        sides = {"video_a": f"base/{seed}", "video_b": f"tuned/{seed}"}
        return {**vote(index, choice), **sides, "id": f"{index}-{seed}", "prompt": f"{PROMPTS[index]} "}

    write_rows(tmp_path / "a.jsonl", [on_demand(0, "7", "b"), on_demand(0, "7 #2", "a"), on_demand(1, "7", "b")])
    assert names(load_preferences(tmp_path, systems)) == [
        ("tuned/0.mp4", "base/0.mp4"), ("base/1.mp4", "tuned/1.mp4"), ("tuned/2.mp4", "base/2.mp4"),
    ]  # fmt: skip
    for seed in ("8", "7 #3", "7 #0", "7 #x"):
        write_rows(tmp_path / "a.jsonl", [on_demand(0, seed, "b")])
        with pytest.raises(
            ValueError, match=f"a.jsonl, line 1: .*base holds no clip of seed '{seed}' and this prompt"
        ):
            load_preferences(tmp_path, systems)


def test_inspect_counts_pairs_prompts_and_ties(tmp_path, cache_dir, systems):
    """As the trainer does: a gap that is the limit itself is a tie, though it is more than .05 in floats."""
    lines = list(inspect_artifact(cache_dir))
    assert "  pairs: 3 of rewards more than 0.05 apart in 3 of 3 prompts, 0 ties" in lines
    rewards = {"a": [0.75, 0.70, 0.1], "b": [0.4], "c": [0.3, 0.3]}
    rows = [
        {"id": f"{prompt}{place}", "file_name": f"{prompt}{place}.mp4", "prompt": prompt, "reward": reward}
        for prompt, values in rewards.items()
        for place, reward in enumerate(values)
    ]
    clips = tmp_path / "clips"
    for row in rows:
        moving_square(clips / row["file_name"], 3)
    write_rows(clips / "metadata.jsonl", rows)
    assert "  pairs: 2 of rewards more than 0.05 apart in 1 of 3 prompts, 2 ties" in inspect_artifact(clips)
    found = pairs_by_reward(
        torch.tensor([row["reward"] for row in rows]),
        *([row[name] for row in rows] for name in ("prompt", "id")), min_gap=0.05,
    )  # fmt: skip
    assert (len(found.pairs), found.prompts, found.ties) == (2, 1, 2)


def test_inspect_counts_the_pairs_of_votes(tmp_path):
    votes = write_votes(tmp_path / "votes")
    wanted = [
        f"{votes}: votes", "  votes: 8, of 3 people", "  overall: 2 pairs in 2 prompts, 1 ties",
        "  video_fidelity: 1 pairs in 1 prompts, 0 ties",
    ]  # fmt: skip
    assert list(inspect_artifact(votes)) == wanted
    assert list(inspect_artifact(votes / "two.jsonl"))[1] == "  votes: 1, of 1 people"
