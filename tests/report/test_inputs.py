"""From folders to a report: which clips are compared, whose votes count, what is stamped."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.records import EvalRow
from lift_trl.report.clips import shown_clips
from lift_trl.report.inputs import ReportArguments, build_report, load_curves, parents_of
from lift_trl.report.judges import JudgedClip, judge_ballots, judged_clips, paired_differences
from lift_trl.report.page import save_report, to_markdown
from lift_trl.report.sections import sections
from lift_trl.report.systems import plain_controls, system_facts, training_stamps
from lift_trl.report.tables import systems_table
from lift_trl.report.verdict import default_summary, system_verdicts
from lift_trl.report.votes import net_preferences, read_ballots
from lift_trl.rubric import LIFT, Dimension
from lift_trl.statistics.drift import ClipStatistics
from lift_trl.statistics.figures import read_figures
from lift_trl.statistics.intervals import bootstrap_mean
from lift_trl.statistics.win_rate import Vote
from lift_trl.store.manifest import Artifact
from lift_trl.store.system_clips import SystemClip, load_system, pair_systems


def write_rows(folder, make_clip, rows):
    """A folder of clips with `rows`; each has `seed` (of the picture), and its clip is `videos/{number}.mp4`."""
    for number, row in enumerate(rows):
        make_clip(folder / "videos" / f"{number}.mp4", seed=number)
        rows[number] = {"file_name": f"videos/{number}.mp4", **row}
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rated(rewards, prompt="p", **more):
    """One row a clip, `None` where the critic could not score it."""
    return [
        {"prompt": prompt, "reward": r, **({"unscored": "no label"} if r is None else {}), **more} for r in rewards
    ]


def test_a_judge_votes_by_its_figures_and_a_difference_within_the_margin_is_a_tie():
    motion = str(Dimension.MOTION_SMOOTHNESS)
    first = {
        "p#0": JudgedClip("p", {motion: 0.2, "reward": 0.5}),
        "q#0": JudgedClip("q", {motion: 0.9, "reward": 0.3}),
        "r#0": JudgedClip("r", {motion: 0.9}),  # no reward
        "s#0": JudgedClip("s", {motion: 0.9, "reward": 0.9}),  # the other has none
    }
    second = {
        "p#0": JudgedClip("p", {motion: 0.9, "reward": 0.5 - 1e-7}),
        "q#0": JudgedClip("q", {motion: 0.2, "reward": 0.4}),
        "r#0": JudgedClip("r", {motion: 0.9, "reward": 0.9}),
    }
    ((pair, votes),) = judge_ballots("oracle", {"rwl": first, "base": second}).items()
    outcomes = {(vote.dimension, vote.prompt): vote.outcome for vote in votes}
    own = {(motion, "p"): -1, (motion, "q"): 1, (motion, "r"): 0, (None, "p"): 0, (None, "q"): -1}
    assert outcomes == (own if pair == ("rwl", "base") else {key: -outcome for key, outcome in own.items()})
    assert {vote.voter for vote in votes} == {"oracle"} and {vote.pair for vote in votes} == {"p#0", "q#0", "r#0"}


def test_an_unscored_clip_shifts_no_other(tmp_path, make_clip):
    """Three clips of one prompt, the same rewards in both systems; the base's first could not be scored."""
    base = write_rows(tmp_path / "base", make_clip, rated([None, 0.5, 0.9]))
    tuned = write_rows(tmp_path / "rwl", make_clip, rated([0.1, 0.5, 0.9]))
    assert [clip.key for clip in load_system(base)] == ["p#1", "p#2"]
    made = build_report(ReportArguments(str(tmp_path / "r"), [f"base={base}", f"rwl={tuned}"], drift=False))
    assert made.deltas[0].estimate.value == pytest.approx(0)
    assert {name: path.name for name, path in made.clips[0].clips.items()} == {"base": "1.mp4", "rwl": "1.mp4"}
    assert "base: 1 of 3 clips is unscored and left out." in made.notes


@pytest.mark.parametrize("name", ["id", "seed"])
def test_clips_are_paired_by_id_or_seed_where_rows_have_one(tmp_path, make_clip, name):
    rows = [{**row, name: f"{number}"} for number, row in enumerate(rated([0.1, 0.5, 0.9]))]
    base = write_rows(tmp_path / "base", make_clip, rows[:])
    # Another order, and one clip less.
    tuned = write_rows(tmp_path / "rwl", make_clip, [rows[2], rows[0]])
    made = build_report(ReportArguments(str(tmp_path / "r"), [f"base={base}", f"rwl={tuned}"], drift=False))
    assert made.deltas[0].estimate.value == pytest.approx(0) and made.deltas[0].base_value == pytest.approx(0.5)


def test_ids_of_other_prompts_pair_nothing(tmp_path, make_clip):
    """Ids that count the rows of each folder are no ids of a plan."""
    first = [{**rated([0.2], p)[0], "id": str(i)} for i, p in enumerate("ab")]
    second = [{**rated([0.2], p)[0], "id": str(i)} for i, p in enumerate("ba")]
    systems = {
        "base": load_system(write_rows(tmp_path / "base", make_clip, first)),
        "rwl": load_system(write_rows(tmp_path / "rwl", make_clip, second)),
    }
    paired = pair_systems(systems)
    assert {name: [clip.key for clip in clips] for name, clips in paired.items()} == {
        "base": ["a#0", "b#0"], "rwl": ["b#0", "a#0"],
    }  # fmt: skip


def test_a_folder_without_a_usable_clip_says_why(tmp_path, make_clip):
    folder = write_rows(tmp_path / "base", make_clip, rated([None, None]))
    with pytest.raises(ValueError, match="2 clips are unscored.*no label"):
        load_system(folder)
    rows = [{**rated([None])[0], **dict.fromkeys(Dimension, "Fine")}]
    rows[0].pop("unscored")
    with pytest.raises(ValueError, match="row 1"):
        load_system(write_rows(tmp_path / "bad", make_clip, rows))


def vote(number, prompt, left, right, choice, **more):
    """One row of the arena's log: a record's fields and the pair's id."""
    row = {"id": str(number), "prompt": prompt, "video_a": left, "video_b": right, "choice": choice, "dimension": None}
    return {**row, "voter": "v", "created_at": "2026-01-01T00:00:00Z", "pair": "0", **more}


def write_votes(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def three(tmp_path, make_clip):
    """Ten prompts; the critic finds rwl best, then sft. All systems have the same file names."""
    prompts = [f"prompt {i}" for i in range(10)]
    rewards = {"base": 0.1, "rwl": 0.9, "sft": 0.5}
    folders = {
        name: write_rows(tmp_path / name, make_clip, [{"prompt": p, "reward": r, "id": p} for p in prompts])
        for name, r in rewards.items()
    }
    return [f"{name}={folder}" for name, folder in folders.items()]


def test_the_arenas_votes_count(three, tmp_path):
    rows = [
        vote(f"{i} {sides[0]}", f"prompt {i}", *sides, choice)
        for i in range(10)
        for sides, choice in (
            ((f"rwl/videos/{i}.mp4", f"base/videos/{i}.mp4"), "a" if i < 8 else "b"),
            ((f"sft/videos/{i}.mp4", f"rwl/videos/{i}.mp4"), "b"),
        )
    ]
    rows.append(vote(99, "prompt 0", "rwl/videos/0.mp4", "another/videos/0.mp4", "a"))
    votes = write_votes(tmp_path / "votes.jsonl", rows)
    made = build_report(ReportArguments(str(tmp_path / "r"), three, votes=[f"people={votes}"], drift=False))
    wins = {(r.judge, r.first, r.second): r.win for r in made.win_rates if r.dimension is None}
    assert wins["people", "rwl", "base"].value == 0.8 and wins["people", "rwl", "sft"].value == 1.0
    # Ten of ten is not sure to be all.
    assert wins["people", "rwl", "sft"].ci95 == pytest.approx((0.722, 1.0), abs=1e-3)
    assert made.notes == ("people: votes on clips that are not in this report, not counted: 1.",)
    # The critic prefers rwl each time: it agrees with people on 18 of 20 pairs.
    (found,) = made.agreements
    assert (found.judge, found.people, found.with_ties.value, found.with_ties.n) == ("critic", "people", 0.9, 10)
    order = {judge: [] for judge in ("critic", "people")}
    for row in sorted(made.strengths, key=lambda row: -row.strength.value):
        order[row.judge].append(row.system)
    assert order["critic"] == ["rwl", "sft", "base"] and order["people"][0] == "rwl"
    assert sum(row.strength.value for row in made.strengths) == pytest.approx(0, abs=1e-9)
    markdown = to_markdown(made, sections(made))
    assert "| critic with people | overall | 90% (" in markdown
    assert any(
        "Critic agrees with the majority of people on 90% of the pairs (95% in" in s for s in default_summary(made)
    )
    assert "| strength by | base | rwl | sft |" in markdown


def test_a_folder_of_votes_counts_as_the_file_of_all(three, tmp_path):
    """A page's `DATA_DIR`: two segments, of which one holds a vote of the other again, and beside them what was shown."""
    rows = [
        vote(i, f"prompt {i}", f"rwl/videos/{i}.mp4", f"base/videos/{i}.mp4", "a" if i < 7 else "b") for i in range(10)
    ]
    again = {**rows[2], "video_a": rows[2]["video_b"], "video_b": rows[2]["video_a"], "choice": "b"}
    for name, part in (("all", rows), ("data/votes/one", rows[:6]), ("data/votes/two", [again, *rows[6:]])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_votes(tmp_path / f"{name}.jsonl", part)
    (tmp_path / "data" / "shown").mkdir()
    (tmp_path / "data" / "shown" / "0f.jsonl").write_text(json.dumps({"id": "0", "person": "v", "item": "0"}) + "\n")
    systems = pair_systems({name: load_system(tmp_path / name) for name in ("base", "rwl", "sft")})
    found = [read_ballots(tmp_path / name, systems) for name in ("all.jsonl", "data", "data/votes")]
    assert found[0] == found[1] == found[2] and len(found[0][0]["rwl", "base"]) == 10
    made = build_report(
        ReportArguments(str(tmp_path / "r"), three, votes=[f"people={tmp_path / 'data'}"], drift=False)
    )
    people = [rate for rate in made.win_rates if rate.judge == "people"]
    assert [(rate.first, rate.win.value) for rate in people] == [("rwl", 0.7)]


def test_an_id_of_two_votes_is_named(three, tmp_path):
    """Whose file numbers its pairs: another voter's vote on the pair is no repetition of the first one's."""
    systems = pair_systems({name: load_system(tmp_path / name) for name in ("base", "rwl", "sft")})
    first = vote(0, "prompt 0", "rwl/videos/0.mp4", "base/videos/0.mp4", "a")
    write_votes(tmp_path / "votes.jsonl", [first, {**first, "voter": "w"}])
    with pytest.raises(
        ValueError, match=r"votes.jsonl, line 2: id '0' is that of another vote in .*votes.jsonl, line 1"
    ):
        read_ballots(tmp_path / "votes.jsonl", systems)
    with pytest.raises(FileNotFoundError, match="no votes"):
        read_ballots(tmp_path / "nowhere", systems)


def test_the_clips_follow_the_rule(tmp_path, make_clip):
    """By the independent judge, whatever the critic says: the worst loss of any system, then the largest gain."""
    gains = {"rwl": [0, 0.3, 0.1, 0, 0, 0], "sft": [0, 0, 0, -0.4, 0.2, 0]}

    def folder(name, rewards):
        return write_rows(
            tmp_path / name,
            make_clip,
            [{"prompt": f"p{i}", "reward": r, "id": f"p{i}"} for i, r in enumerate(rewards)],
        )

    systems = [f"{name}={folder(name, [0.5] * 6)}" for name in ("base", *gains)]
    judges = [f"eye/base={folder('eye_base', [0.5] * 6)}"]
    judges += [f"eye/{name}={folder(f'eye_{name}', [0.5 + g for g in mine])}" for name, mine in gains.items()]
    made = build_report(ReportArguments(str(tmp_path / "r"), systems, judges, drift=False, num_clips=4))
    assert made.judge == "eye"
    assert [(row.prompt, row.why) for row in made.clips] == [
        ("p3", "worst loss by eye: sft, -0.40"), ("p1", "largest gain by eye: rwl, +0.30"),
        ("p0", "spread over the prompts"), ("p4", "spread over the prompts"),
    ]  # fmt: skip
    assert [[row.prompt, list(row.clips), row.why] for row in made.verdict_clips["sft"]] == [
        ["p2", ["base", "sft"], "median gain +0.00 by eye"], ["p3", ["base", "sft"], "worst loss -0.40 by eye"],
    ]  # fmt: skip


def test_the_largest_drift_is_that_of_any_system():
    """By its own limit: the third system's half of the saturation, not the second's fifth of the motion."""
    clips = [SystemClip(f"p{i}#0", f"p{i}", Path(f"{i}.mp4"), None, 0.5) for i in range(3)]
    systems = dict.fromkeys(("base", "rwl", "sft"), clips)
    plain = ClipStatistics(0.1, 0.2, 0.4, 0.5, 0.9, np.zeros((4, 8, 8, 3)))
    statistics = {name: {clip.key: plain for clip in clips} for name, clips in systems.items()}
    statistics["rwl"]["p0#0"] = plain._replace(motion_energy=0.08)
    statistics["sft"]["p2#0"] = plain._replace(saturation=0.2)
    (row,) = shown_clips(systems, judged_clips(systems), "critic", statistics, limit=4)[1:2]
    assert (row.prompt, row.why) == ("p2", "largest drift: saturation of sft, -50%")


def test_a_difference_is_of_prompts_however_many_clips_they_have():
    gains = {"p": (0.3, 0.2, 0.4), "q": (-0.1, 0.0, 0.1), "r": (0.2, 0.2, 0.2)}
    keys = [(f"{prompt}#{n}", prompt, gain) for prompt, mine in gains.items() for n, gain in enumerate(mine)]
    judged = {
        "base": {key: JudgedClip(prompt, {"reward": 0.5}) for key, prompt, _ in keys},
        "rwl": {key: JudgedClip(prompt, {"reward": 0.5 + gain}) for key, prompt, gain in keys},
    }
    (found,) = paired_differences("eye", judged)
    means = [sum(mine) / 3 for mine in gains.values()]
    assert found.n == 3 and found.value == pytest.approx(sum(means) / 3)
    low, high = bootstrap_mean(means, list(gains)).ci95
    assert found.ci95 == pytest.approx((low, high))


def test_a_run_is_compared_with_plain_fine_tuning_of_the_same_settings(tmp_path, make_clip):
    systems = {}
    settings = {"learning_rate": 0.1, "real_weight": 0.3, "clips": "0f", "seed": 3}
    for name, objective, changed, steps in (
        ("rwl", "rwl", {}, 200),
        ("sft", "sft", {}, 200),
        ("fast", "sft", {"learning_rate": 0.2}, 200),
        ("heavy", "sft", {"real_weight": 1.0}, 200),
        ("others", "sft", {"clips": "1f"}, 200),
        ("later", "sft", {"adapter": "lora@fedcba9876543210"}, 200),
        ("short", "sft", {}, 100),
    ):
        start = f"{name}@0123456789abcdef"  # the same LoRA in two places
        run = {"objective": objective, "adapter": start, **settings, **changed, "max_steps": steps}
        systems[name] = load_system(
            sampled(tmp_path / name, make_clip, adapter=(f"user/lora_{name}@{'0f' * 20}", run))
        )
    assert plain_controls(systems) == {"rwl": "sft"}
    facts = system_facts("rwl", systems["rwl"])
    assert (facts.model, facts.objective, facts.adapter) == ("tiny", "rwl", "user/lora_rwl")
    assert (facts.settings, facts.clips, facts.prompts) == ("9 frames, 48x32 px, guidance 2.5", 3, 2)
    assert facts.seeds == "1 to 2"
    assert training_stamps(systems)["training later"] == (
        "objective sft, max steps 200, learning rate 0.1, real weight 0.3, seed 3, clips 0f, adapter fedcba9876543210"
    )


def test_of_two_loras_both_have_their_control(tmp_path, make_clip):
    systems = {}
    for name, objectives, seeds in (
        ("both", ("rwl", "dpo"), (3, 4)),
        ("plain", ("sft", "sft"), (3, 4)),
        ("half", ("sft", "rwl"), (3, 4)),
        ("one", ("sft",), (3,)),
        ("other", ("sft", "sft"), (3, 5)),
    ):
        runs = ({"objective": objective, "seed": seed} for objective, seed in zip(objectives, seeds, strict=True))
        loras = {role: (f"lora@{'0f' * 8}", run) for role, run in zip(("adapter", "adapter_2"), runs)}
        systems[name] = load_system(sampled(tmp_path / name, make_clip, **loras))
    assert plain_controls(systems) == {"both": "plain"}
    facts = system_facts("both", systems["both"])
    assert (facts.objective, facts.adapter) == ("rwl, dpo", "lora, lora")


def test_what_trained_a_lora_is_known_of_that_lora_only(tmp_path, make_clip):
    """Of clips whose record says nothing, its folder does, unless that holds another LoRA by now, or is gone."""
    (lora := tmp_path / "lora").mkdir()
    save_file({"a": torch.zeros(3)}, lora / "pytorch_lora_weights.safetensors")
    (lora / "run.json").write_text(json.dumps({"objective": "kto", "seed": 3}))
    (lora / "trainer_state.json").write_text(json.dumps({"max_steps": 70, "train_batch_size": 4}))
    folder = sampled(tmp_path / "kto", make_clip, adapter=(adapter_identity(lora), {}))
    args = ReportArguments(str(tmp_path / "r"), [f"kto={folder}"], drift=False)

    def told():
        made = build_report(args)
        objective = systems_table(made.systems, {}).rows[0][3]
        return objective, made.stamps.get("training kto"), [n for n in made.notes if "its LoRA" in n]

    assert told() == ("kto", "objective kto, max steps 70, train batch size 4, seed 3", [])
    moved = lora.rename(tmp_path / "moved")
    objective, stamp, notes = told()
    assert (objective, stamp) == (
        "not known",
        None,
    ) and f"kto: what trained its LoRA ({lora.name}) is not known" in notes[0]
    moved.rename(lora)
    save_file({"a": torch.ones(3)}, lora / "pytorch_lora_weights.safetensors")
    assert told() == (objective, stamp, notes)
    save_file({"a": torch.zeros(3)}, lora / "pytorch_lora_weights.safetensors")
    (lora / "run.json").write_text(json.dumps({"network": "transformer"}))  # as a person writes it
    assert told() == (objective, stamp, notes)


@pytest.mark.parametrize(
    "training, judges, role, said",
    [
        ({"objective": "rwl", "critics": ["/old/vr@0123456789abcdef"]}, ("vr",), "training", "judge that it was trained on"),
        ({"objective": "rwl", "critics": ["/old/vr@0123456789abcdef"]}, ("vr", "oracle"), "independent", "gave no training"),
        ({"objective": "rwl", "critics": None}, ("vr",), "not known", "it is not known whether it gave the training reward"),
        ({"objective": "rwl"}, ("oracle",), "not known", "it is not known whether it gave the training reward"),
        ({"objective": "sft", "critics": []}, ("vr",), "independent", "gave no training"),
    ],
)  # fmt: skip
def test_that_a_judge_gave_no_training_reward_is_said_only_where_it_is_known(
    tmp_path, make_clip, training, judges, role, said
):
    """The LoRA's record of its critics is compared with who says to have rated the clips, wherever both lie."""
    loras = {"base": {}, "tuned": {"adapter": (f"lora@{'0f' * 8}", training)}}
    systems = [f"{name}={sampled(tmp_path / name, make_clip, **lora)}" for name, lora in loras.items()]
    names, entries = {"vr": "vr@0123456789abcdef+linear:1:5", "oracle": "oracle"}, []
    for judge in judges:
        for system, reward in (("base", 0.25), ("tuned", 0.75)):
            rows = [{"prompt": p, "seed": 7, "reward": reward, "critic": names[judge]} for p in "aab"]
            entries.append(f"{judge}/{system}={write_rows(tmp_path / f'{judge}_{system}', make_clip, rows)}")
    made = build_report(ReportArguments(str(tmp_path / "r"), systems, entries, drift=False))
    assert (made.judge, made.role(made.judge)) == (judges[-1], role)
    (verdict,) = system_verdicts(made)
    assert (verdict.word == "not judged independently") == (role == "training") and verdict.role == role
    page = save_report(made, tmp_path / "r").read_text()
    # The systems' own folders do not say who rated them.
    own = "not a training reward" if training.get("critics") == [] else "perhaps the training reward"
    assert f"critic, {own}" in page and f"; {own} (critic) +0.000" in default_summary(made)[0]
    for text in (
        default_summary(made)[0],
        page[page.index("Did it help") :],
        (tmp_path / "r" / "report.md").read_text(),
    ):
        assert said in text and ("which gave no training reward" in text) == (role == "independent")


def test_a_judge_without_labels_is_compared_by_the_order_of_its_rewards(tmp_path, make_clip):
    """Two clips of each of nine prompts and two systems; the judge could not score one, and lists them in another order."""
    draws, prompts = np.random.default_rng(3), [f"prompt {i}" for i in range(9) for _ in range(2)]
    ours, theirs, told = {}, {}, []
    for system in ("base", "tuned"):
        ours[system] = draws.uniform(size=18).round(3).tolist()
        theirs[system] = [0.5 * r + 0.5 * float(draws.uniform()) for r in ours[system]]
        rows = [
            {"id": f"{system}{i}", "prompt": p, "reward": r} for i, (p, r) in enumerate(zip(prompts, ours[system]))
        ]
        told.append(f"{system}={write_rows(tmp_path / system, make_clip, rows)}")
        judged = [{**row, "reward": r, "critic": "vr"} for row, r in zip(rows, theirs[system], strict=True)]
        if system == "tuned":
            judged[5] |= {"reward": None, "unscored": "no answer"}
        write_rows(tmp_path / f"vr_{system}", make_clip, judged[::-1])
    judges = [f"vr/{name}={tmp_path / f'vr_{name}'}" for name in ours]
    made = build_report(ReportArguments(str(tmp_path / "r"), told, judges, drift=False))
    (row,) = (row for row in made.rows if row.suite == "critic against vr")
    both = [(a, b) for s in ours for i, (a, b) in enumerate(zip(ours[s], theirs[s])) if (s, i) != ("tuned", 5)]
    assert (row.metric, row.system, row.n) == ("rewards/spearman", "critic", 9)
    assert row.value == pytest.approx(spearmanr(*zip(*both, strict=True)).statistic)
    assert row.value - 0.4 < row.ci95[0] < row.value < row.ci95[1] < row.value + 0.4
    (trust,) = (part for part in sections(made) if part.id == "trust")
    (table,) = trust.tables
    assert table.columns == ("rewards", "Spearman", "prompts")
    assert table.rows[0][0] == "critic against vr" and table.rows[0][1].startswith(f"{row.value:.2f} (")


def as_table(folder, form):
    """The rows of a folder in another table."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in names} for row in rows]
    (folder / "metadata.jsonl").unlink()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    elif form == "csv":
        with open(folder / "metadata.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    else:  # as many editors and scripts leave it
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_judges_figures_do_not_depend_on_the_form_of_its_table(tmp_path, make_clip):
    draws = np.random.default_rng(4)
    forms = ("jsonl", "no end", "csv", "parquet")
    told, judges = [], {form: [] for form in forms}
    for system in ("base", "tuned"):
        labels = draws.integers(3, size=(2, 7, len(Dimension)))
        rows = [
            [
                {"id": f"{system}{i}", "prompt": f"p{i}", "reward": float(draws.uniform())}
                | {str(d): LIFT.labels[n] for d, n in zip(Dimension, given)}
                for i, given in enumerate(part)
            ]
            for part in labels.tolist()
        ]
        told.append(f"{system}={write_rows(tmp_path / system, make_clip, rows[0])}")
        rows[1][3] |= {"reward": None, "unscored": "no answer", **dict.fromkeys(map(str, Dimension))}
        for form in forms:
            folder = write_rows(tmp_path / form / system, make_clip, [dict(row) for row in rows[1]])
            judges[form].append(f"people/{system}={folder}")
            if form != "jsonl":
                as_table(folder, form)
    made = [build_report(ReportArguments(str(tmp_path / "r"), told, judges[form], drift=False)) for form in forms]
    assert sum(map(sum, made[0].confusion["people"].counts)) == 2 * 6 * len(Dimension)
    for other in made[1:]:
        assert (other.confusion, other.rows, other.paired) == (made[0].confusion, made[0].rows, made[0].paired)


def sampled(folder, make_clip, **loras):
    """Clips that these LoRAs made: role -> identity, and what trained it as the record of the clips has it."""
    write_rows(folder, make_clip, [{"prompt": p, "seed": 7, "reward": 0.5} for p in "aab"])
    config = {"num_frames": 9, "width": 48, "height": 32, "guidance_scale": 2.5}
    config["training"] = {role: run for role, (_, run) in loras.items() if run}
    parents = {"model": "tiny", **{role: identity for role, (identity, _) in loras.items()}}
    Artifact("generated", config, parents=parents).save(folder)
    return folder


def test_clips_are_of_the_day_on_which_they_were_made(tmp_path, make_clip):
    """Wherever they were copied since; of clips whose folder does not say, and of a user's own, nothing is claimed."""
    folder = sampled(tmp_path / "base", make_clip)
    replace(Artifact.load(folder), made_on="2020-09-13").save(folder)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert [system_facts("x", load_system(place)).made for place in (folder, tmp_path / "copy")] == ["2020-09-13"] * 2
    record = folder / "artifact.yaml"
    record.write_text("".join(line for line in record.read_text().splitlines(True) if "made_on" not in line))
    assert system_facts("x", load_system(folder)).made == ""  # of an earlier lift_trl
    record.unlink()
    assert system_facts("x", load_system(folder)).made == ""


def test_a_report_names_what_it_was_made_from(three, tmp_path):
    """The hash of every system's rows and every judge's: another reward is another parent, another order or place is not."""
    args = ReportArguments(str(tmp_path / "r"), three, judges=[f"oracle/{entry}" for entry in three], drift=False)
    save_report(build_report(args), tmp_path / "r")
    parents = Artifact.load(tmp_path / "r").parents
    assert set(parents) == {"base", "rwl", "sft", "oracle/base", "oracle/rwl", "oracle/sft"}
    assert parents["base"] == parents["oracle/base"] != parents["rwl"]
    folder = tmp_path / "base"
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    assert build_report(args).parents == parents
    (folder / "metadata.jsonl").write_text("\n".join(lines).replace("0.1", "0.2", 1) + "\n")
    changed = build_report(args).parents
    assert {name for name in parents if changed[name] != parents[name]} == {"base", "oracle/base"}


def test_parents_do_not_hang_on_the_place_and_count_every_rating(tmp_path, make_clip):
    tidy = {"file_name": "videos/0.mp4", "prompt": "p", "dimension": "motion_smoothness"}
    for place, second in (("here", "Good"), ("there", "Good"), ("changed", "Bad")):
        make_clip(tmp_path / place / "videos" / "0.mp4", seed=0)
        rows = [{**tidy, "label": "Good", "annotator_id": "a"}, {**tidy, "label": second, "annotator_id": "b"}]
        (tmp_path / place / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = parents_of({place: tmp_path / place for place in ("here", "there", "changed")})
    assert found["here"] == found["there"] != found["changed"]


def test_people_prefer_by_the_whole_clip():
    """Not by its motion, of which they may think the opposite."""
    whole = [Vote(f"p#{number}", f"p{number}", None, outcome, "ada") for number, outcome in enumerate((1, 1, -1, 0))]
    motion = [vote._replace(dimension=str(Dimension.MOTION_SMOOTHNESS), outcome=-1) for vote in whole]
    (found,) = net_preferences("people", {("rwl", "base"): [*motion, *whole]})
    assert (found.a, found.measure, found.value, found.n) == ("rwl", "preference", 0.25, 4)
    assert list(net_preferences("people", {("rwl", "base"): motion})) == []


def test_a_few_busy_voters_are_no_crowd():
    """Systems that are equal, and eight people each with a leaning of his own: the test over prompts sees 320 votes."""
    false = np.zeros(2)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        leaning = rng.normal(0, 0.6, 8)
        votes = [
            Vote(f"p{p}#0", f"p{p}", None, int(np.sign(rng.normal(leaning[v], 1))), f"voter {v}")
            for p in range(40)
            for v in range(8)
        ]
        (found,) = net_preferences("people", {("rwl", "base"): votes})
        (alone,) = net_preferences("people", {("rwl", "base"): [vote._replace(voter="all") for vote in votes]})
        false += (found.p_value < 0.05, alone.p_value < 0.05)
    assert false[0] <= 7 and false[1] > 25  # 3 are expected of a test at 0.05
    agreed = [Vote(f"p{p}#0", f"p{p}", None, 1, f"voter {p % 7}") for p in range(21)]
    (found,) = net_preferences("people", {("rwl", "base"): agreed})
    assert found.p_value == pytest.approx(2 / 2**7, abs=0.005)  # of seven voters


def test_votes_that_match_nothing_are_an_error(three, tmp_path):
    by_name = write_votes(tmp_path / "names.jsonl", [vote(0, "prompt 0", "0.mp4", "1.mp4", "a")])
    with pytest.raises(
        ValueError, match="none of 1 votes compares two of the systems base, rwl, sft; the first '0.mp4'"
    ):
        build_report(ReportArguments(str(tmp_path / "r"), three, votes=[f"people={by_name}"], drift=False))
    row = vote(0, "p", "a", "b", "a")
    for broken, message in (
        ({k: v for k, v in row.items() if k != "voter"}, "line 1: no voter"),
        ({**row, "dimension": "colour"}, "line 1: dimension 'colour'"),
    ):
        votes = write_votes(tmp_path / "broken.jsonl", [broken])
        with pytest.raises(ValueError, match=message):
            build_report(ReportArguments(str(tmp_path / "r"), three, votes=[f"people={votes}"], drift=False))
    with pytest.raises(ValueError, match="is a judge of this report"):
        build_report(ReportArguments(str(tmp_path / "r"), three, votes=[f"critic={votes}"], drift=False))


def test_a_name_that_fits_two_clips_is_an_error(tmp_path, make_clip):
    rows = [{"file_name": f"{part}/0.mp4", "prompt": part, "reward": 0.5} for part in "ab"]
    systems = []
    for name in ("base", "rwl"):
        for part in "ab":
            make_clip(tmp_path / name / part / "0.mp4")
        (tmp_path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        systems.append(f"{name}={tmp_path / name}")
    told = write_votes(tmp_path / "told.jsonl", [vote(0, "a", "rwl/a/0.mp4", "base/a/0.mp4", "a")])
    made = build_report(ReportArguments(str(tmp_path / "r"), systems, votes=[f"people={told}"], drift=False))
    assert made.win_rates[0].win.value == 1 and made.agreements[0].with_ties.value == 0  # the critic sees a tie
    bare = write_votes(tmp_path / "bare.jsonl", [vote(0, "a", "rwl/0.mp4", "base/0.mp4", "a")])
    with pytest.raises(ValueError, match="'rwl/0.mp4' fits 2 clips of rwl"):
        build_report(ReportArguments(str(tmp_path / "r"), systems, votes=[f"people={bare}"], drift=False))


def test_vbench_figures_stand_under_their_own_protocol(three, tmp_path):
    """A custom run read with the default protocol was called VBench; what it was measured with stands beside it."""
    folders = []
    for name, version in (("base", "2.5.1"), ("rwl", "2.6.0")):
        folder = tmp_path / "vbench" / name
        folder.mkdir(parents=True)
        clips = [{"video_path": f"videos/p{i}-0.mp4", "video_results": 0.9} for i in range(3)]
        (folder / "aesthetic_quality_eval_results.json").write_text(json.dumps({"aesthetic_quality": [0.9, clips]}))
        stamps = {"vbench": "0.1.5", "torch": version}
        run = {
            "protocol": "vbench-custom",
            "planned": {},
            "stamps": stamps,
            "runs": [{"dimension": "scene", "status": "failed"}],
        }
        (folder / "run.json").write_text(json.dumps(run))
        folders.append(f"{name}={folder}")
    args = {"systems": three, "vbench": folders, "drift": False}
    with pytest.raises(ValueError, match="protocol=vbench-custom"):
        build_report(ReportArguments(str(tmp_path / "r"), **args))
    made = build_report(ReportArguments(str(tmp_path / "r"), **args, protocol="vbench-custom"))
    (section,) = [part for part in sections(made) if part.id == "vbench-custom-figures"]
    stamps = section.tables[-1]
    assert stamps.columns == ("measured with", "base", "rwl")
    assert stamps.rows[:3] == (
        ("protocol", "vbench-custom", "vbench-custom"), ("vbench", "0.1.5", "0.1.5"), ("torch", "2.5.1", "2.6.0"),
    )  # fmt: skip
    assert "The systems differ in torch" in stamps.caption
    assert any(note.startswith("VBench of rwl: not measured: scene.") for note in made.notes)


def test_the_comparisons_votes_count(tmp_path, make_clip):
    """It names a gallery's clips by their files, live clips by their seeds, and once numbered clips that share a seed."""
    seeds, systems = ("7", "8", "8"), {}
    for name in ("base", "rwl", "sft"):
        rows = [
            {"prompt": prompt, "seed": seed, "file_name": f"{name}-{prompt}{number}.mp4", "reward": 0.5}
            for prompt in "pq"
            for number, seed in enumerate(seeds)
        ]
        for number, row in enumerate(rows):
            make_clip(tmp_path / name / row["file_name"], seed=number)
        (tmp_path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        systems[name] = load_system(tmp_path / name)
    rows = [
        vote(0, "p", "base/7", "rwl/7", "b"),
        vote(1, "q", "base/7", "rwl/7", "a"),
        vote(2, "p", "base/8 #2", "rwl/8 #2", "b"),
        vote(3, "p", "base/base-p1.mp4", "rwl/rwl-p1.mp4", "tie"),
        vote(4, "q", "base/7", "sft/7", "b"),
        vote(5, "p", "base/9", "rwl/9", "b"),  # no such clip here
        vote(6, "p", "base/base-q1.mp4", "rwl/rwl-q1.mp4", "b"),  # the files have another prompt by now
    ]
    votes = write_votes(tmp_path / "votes.jsonl", rows)
    found, left_out = read_ballots(votes, pair_systems(systems))
    outcomes = {pair: [(v.pair.split("|")[0], v.outcome) for v in ballots] for pair, ballots in found.items()}
    assert outcomes == {
        ("rwl", "base"): [("p#0", 1), ("q#0", -1), ("p#2", 1), ("p#1", 0)],
        ("sft", "base"): [("q#0", 1)],
    }
    assert left_out == 2


def test_figures_that_a_person_writes(tmp_path):
    """A last line needs no newline, a byte order mark is none of the text, and a value that is missing is named."""
    row = {"suite": "study", "metric": "study/gain", "system": "lift", "value": 0.25, "n": 3}
    path = tmp_path / "figures.jsonl"
    path.write_text(
        "\ufeff" + json.dumps(row) + "\n" + json.dumps(row | {"value": 0.5, "ci95": [0.1, 0.9]}), encoding="utf-8"
    )
    first, last = read_figures(path)
    assert (first.value, first.ci95, last.value, last.ci95) == (0.25, None, 0.5, (0.1, 0.9))
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"value": float("nan")}) + "\n")
    with pytest.raises(ValueError, match=r"figures\.jsonl, line 2: no value"):
        read_figures(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": True}, "value is True; write a finite number"),
        ({"value": "much"}, "value is 'much'"),
        ({"value": [0.5]}, "value is"),
        ({"value": float("inf")}, "value is inf"),
        ({"n": 2.5}, "n is 2.5; write a whole number"),
        ({"n": None}, "n is None"),
        ({"ci95": 0.1}, "ci95 is 0.1; write a list of its two ends"),
        ({"ci95": [0.1]}, "ci95 is"),
        ({"ci95": [0.1, "x"]}, "ci95 is 'x'"),
        ({"system": 3}, "write texts"),
        ({"values": 0.5}, "columns suite, metric, system, value, n, values; a row has suite"),
    ],
)
def test_a_figure_that_is_none_is_named_by_its_line(change, message, tmp_path):
    row = {"suite": "s", "metric": "s/m", "system": "base", "value": 0.25, "n": 12}
    path = tmp_path / "figures.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, row | change)))
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: ") + ".*" + re.escape(message)):
        read_figures(path)


def test_figures_of_a_spreadsheet_are_numbers(tmp_path):
    path = tmp_path / "figures.csv"
    path.write_text("suite,metric,system,value,n\ns,s/m,base,0.71,30\n")
    assert read_figures(path) == [EvalRow("s", "s/m", "base", 0.71, 30)]


def test_a_run_that_diverged_has_a_report(tmp_path, make_clip):
    """The one that it is wanted for: the gap is in the page, in the data and among the notes."""
    history = [{"step": 10 * n, "loss": loss} for n, loss in enumerate((0.5, 0.75, math.inf, math.nan), start=1)]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    folder = write_rows(tmp_path / "base", make_clip, rated([0.5]))
    args = ReportArguments(str(tmp_path / "r"), [f"base={folder}"], training=[f"rwl={tmp_path / 'run'}"], drift=False)
    save_report(build_report(args), tmp_path / "r")
    (curve,) = json.loads((tmp_path / "r" / "report.json").read_text())["curves"]
    assert curve["values"] == [0.5, 0.75, None, None] and curve["steps"] == [10, 20, 30, 40]
    note = "rwl: loss is infinite or NaN at 2 of 4 steps, first at step 30; the curve has gaps there."
    assert note in (tmp_path / "r" / "report.md").read_text()


@pytest.mark.parametrize("content", [{"log": []}, [], {"log_history": [{"step": 1, "loss": "x"}] * 2}])
def test_a_training_log_that_is_none_is_named(content, tmp_path):
    (tmp_path / "trainer_state.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"trainer_state\.json: no training log"):
        load_curves("rwl", tmp_path)
