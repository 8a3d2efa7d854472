"""The guard against reward hacking: when it fires, what it keeps, and that rounds are judged on the same clips."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import PartialState

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.guard import Curves, Guard, read_verdicts
from lift_trl.alignment.training.guarded import GuardedValidation
from lift_trl.hub.gallery import validation_pairs
from lift_trl.mini.judges import OracleJudge, StillnessJudge
from lift_trl.mini.shapes import CLEAN, SCENES, draw_clip
from lift_trl.mini.world import write_clips
from lift_trl.report.inputs import load_curves
from lift_trl.rubric import Label
from lift_trl.statistics.drift import alarms_in_words
from lift_trl.store.manifest import read_json, read_rows
from tests.alignment.conftest import make_trainer
from tests.alignment.test_iterate import Fashion, World
from tests.processes import Job


def verdicts(mean, seed, spread=0.2, number=96):
    """Rewards of `number` clips; the noise of a clip is the same in every round, as seeds are."""
    noise = np.random.default_rng(seed).normal(0, spread, number)
    noise += np.random.default_rng(round(mean * 999)).normal(0, 0.1, number)
    return {f"clip-{index}": float(mean + value) for index, value in enumerate(noise)}


def rounds(rewards, judges):
    curves = Curves(verdicts(rewards[0], 1), verdicts(judges[0], 2))
    checks = [curves.add(verdicts(r, 1), verdicts(j, 2)) for r, j in zip(rewards[1:], judges[1:], strict=True)]
    return curves, [bool(check.reasons) for check in checks]


def test_a_reward_that_only_its_own_judge_sees_fires_in_the_first_round():
    """The prototype's run on stillness: its judge, and a critic that gave no reward."""
    curves, fired = rounds((0.48, 0.74, 0.99, 1.00), (0.655, 0.658, 0.541, 0.579))
    assert fired == [True, True, True] and curves.best == 0
    assert "the reward rose by 0.2" in curves.checks[1].reasons[0]


@pytest.mark.parametrize("judges", [(0.62, 0.72, 0.80, 0.83), (0.60, 0.65, 0.70, 0.71), (0.62, 0.70, 0.80, 0.795)])
def test_an_honest_reward_does_not_fire(judges):
    curves, fired = rounds((0.62, 0.72, 0.81, 0.84), judges)
    assert fired == [False] * 3


def test_a_fall_from_the_best_round_fires_even_after_honest_gains():
    curves, fired = rounds((0.62, 0.75, 0.80, 0.86), (0.62, 0.74, 0.78, 0.66))
    assert fired == [False, False, True] and curves.best == 2
    assert "fell by 0.1" in curves.checks[3].reasons[0] and "since round 2" in curves.checks[3].reasons[0]
    curves, fired = rounds((0.62, 0.75, 0.60), (0.62, 0.74, 0.66))
    assert fired == [False, False], "the reward itself says that this round is worse"


def test_a_round_in_which_the_guard_fired_is_never_the_best():
    """The other judge sees a little of an exploited gain, and then most of an honest one."""
    base = verdicts(0.5, 1)
    curves = Curves(base, base)
    gains = ((0.294, 0.03), (0.04, 0.02), (0.40, 0.01))
    checks = [curves.add(*({name: base[name] + more for name in base} for more in gain)) for gain in gains]
    assert [bool(check.reasons) for check in checks] == [True, False, True]
    assert [check.judge - curves.checks[0].judge for check in checks] == pytest.approx([0.03, 0.02, 0.01])
    assert curves.best == 2


def test_rounds_are_compared_on_the_clips_that_both_have():
    """The judge could not score the hard half of round 2, whose gain is the smaller one on every clip that it scored."""
    hard = {f"clip-{index}" for index in range(60)}
    base = {name: value - (0.3 if name in hard else 0.0) for name, value in verdicts(0.6, 1).items()}
    gained, less = ({name: base[name] + more for name in base} for more in (0.1, 0.02))
    easy = {name: value for name, value in less.items() if name not in hard}
    curves = Curves(base, base)
    for reward, judge in ((gained, gained), (less, easy)):
        assert not curves.add(reward, judge).reasons
    assert np.mean(list(easy.values())) > np.mean(list(gained.values())) and curves.best == 1
    mean = np.mean(list(base.values()))
    assert [check.judge for check in curves.checks] == pytest.approx([mean, mean + 0.1, mean + 0.02])


def test_the_table_has_both_curves(tmp_path):
    curves, _ = rounds((0.48, 0.74, 0.99), (0.65, 0.65, 0.54))
    curves.save(tmp_path)
    lines = (tmp_path / "guard.md").read_text().splitlines()
    assert lines[2].startswith("| base | 0.4") and lines[4].startswith(
        "| 2 | 1.0" if lines[4][6] == "1" else "| 2 | 0.9"
    )
    assert "the reward rose by" in lines[4]
    assert lines[-1] == "Best by the other judge, where the guard did not fire: the base."
    rewarded, other = load_curves("dpo", tmp_path)
    assert rewarded.group == other.group == "mean reward by round" and rewarded.name == "dpo: the critic that rewards"
    assert rewarded.steps == (0, 1, 2) and rewarded.values == pytest.approx((0.48, 0.74, 0.99), abs=0.05)
    assert other.values == pytest.approx((0.65, 0.65, 0.54), abs=0.05)
    (tmp_path / "trainer_state.json").write_text(
        '{"log_history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]}'
    )
    assert [curve.unit for curve in load_curves("dpo", tmp_path)] == ["round", "round", "step"]


def test_a_report_draws_what_tells_an_objective_that_fails(tmp_path, pipeline_dir, cached):
    """Every figure that docs/objectives.md warns by, as the trainer logs it."""
    drawn = {}
    for objective in ("dpo", "nft"):
        folder = tmp_path / objective
        trainer = make_trainer(pipeline_dir, folder, cached, objective=objective, max_steps=2, logging_steps=1)
        trainer.train()
        trainer.save_state()
        drawn[objective] = {curve.group: curve.values for curve in load_curves(objective, folder)}
        for key in ("kl_fraction", "kl_old_fraction", "rewards/margins", "rewards/accuracies", "rewards/chosen"):
            values = tuple(line[key] for line in trainer.state.log_history if key in line)
            assert drawn[objective].get(key.replace("_", " ").replace("/", ": "), ()) == values
    assert {"kl fraction", "rewards: margins", "rewards: accuracies", "rewards: chosen"} <= drawn["dpo"].keys()
    assert "kl old fraction" in drawn["nft"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, pipeline_dir):
    return World(tmp_path_factory.mktemp("world"), pipeline_dir)


def test_iterate_goes_back_to_the_best_round_and_repeats_nothing(world, tmp_path):
    critic = Fashion("critic", {"guard/round_1": Label.GOOD, "guard/round_2": Label.GOOD})
    other = Fashion("other", {"guard/round_1": Label.GOOD, "guard/round_2": Label.BAD})
    guard = Guard(other.source(), "best", alarms_in_words, videos_per_prompt=3)
    kept = world.iterate(tmp_path, rounds=3, critic=critic.source(), guard=guard, max_steps=1)
    assert kept == tmp_path / "round_1" / "lora" and not (tmp_path / "round_3").exists()
    # Of the round's own clips and of the LoRA that it went on from.
    assert [read_json(tmp_path / f"round_{n}" / "lora" / "run.json")["critics"] for n in (1, 2)] == [["critic"]] * 2
    table = (tmp_path / "guard.md").read_text()
    assert "fell by" in table and "Best by the other judge, where the guard did not fire: round 1." in table
    folders = [tmp_path / "guard" / name / "judged" for name in ("base", "round_2")]
    ids = [[row["id"] for row in read_rows(folder / "metadata.jsonl")] for folder in folders]
    assert ids[0] == ids[1] and len(ids[0]) == 6
    assert read_verdicts(tmp_path / "guard" / "base" / "scored").keys() == set(ids[0])
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert world.iterate(tmp_path, rounds=3, critic=critic.source(), guard=guard, max_steps=1) == kept
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")} == written
    stopped = guard._replace(action="stop")
    assert (
        world.iterate(tmp_path, rounds=3, critic=critic.source(), guard=stopped, max_steps=1).parent.name == "round_2"
    )


class Lenient(Fashion):
    """Likes one dimension of the first clip of round 1 better than the base's; the rest equally."""

    told = False

    def score(self, videos, captions, *, with_reason=False):
        first, *rest = super().score(videos, captions)
        if "guard/round_1" in str(videos[0]) and not self.told:
            self.told = True
            better = replace(first.judgements[0], label=Label.GOOD)
            first = replace(first, judgements=(better, *first.judgements[1:]))
        return [first, *rest]


@pytest.mark.parametrize("other", [Fashion("other", {"guard/round_1": Label.BAD}), Lenient("other", {})])
def test_without_a_better_round_there_is_nothing_to_go_back_to(world, tmp_path, other):
    """Nor where the other judge likes the exploited round a little better than the start."""
    critic, guard = Fashion("critic", {"guard/round_1": Label.GOOD}), Guard(other.source(), videos_per_prompt=4)
    with pytest.raises(RuntimeError, match="round 1: the reward is exploited: .* no round is better than the start"):
        world.iterate(tmp_path, rounds=2, critic=critic.source(), guard=guard, max_steps=1)


@pytest.mark.parametrize(
    "name", ["my critic", "/b/critic@0123456789abcdef in int8", "critic@0123456789abcdef+linear:1:5"]
)
def test_a_guard_whose_judge_is_the_critic_is_refused(world, tmp_path, name):
    critic = Fashion("my critic" if name == "my critic" else "runs/critic@0123456789abcdef", {}).source()
    guard = Guard(Fashion(name, {}).source())
    for make in (
        lambda: GuardedValidation(guard, critic),
        lambda: world.iterate(tmp_path, critic=critic, guard=guard),
    ):
        with pytest.raises(
            ValueError, match=r"second_judge\) is .*critic.* and the critic is .*critic.*the same model"
        ):
            make()
    assert not list(tmp_path.iterdir())
    GuardedValidation(Guard(Fashion("my other critic", {}).source()), critic)
    GuardedValidation(Guard(Fashion("runs/critic@fedcba9876543210", {}).source()), critic)


def test_the_judges_of_the_mini_world_judge_clips(tmp_path):
    write_clips(tmp_path, [draw_clip(np.random.default_rng(0), CLEAN, SCENES[0])])
    clip, prompt = tmp_path / "00000.mp4", SCENES[0].prompt
    still, strict = StillnessJudge(still=1000.0), StillnessJudge(still=0.01)
    assert [j.score([clip], ["?"])[0].reward for j in (still, strict)] == pytest.approx([0.9, 0.05])
    right, wrong = OracleJudge().score([clip, clip], [prompt, SCENES[-1].prompt])
    assert right.reward == pytest.approx(0.9) and wrong.reward < 0.9


def guarded(folder, pipeline_dir, cached, *, critic, other, action="stop", **options):
    settings = {
        "max_steps": 4, "validation_prompts": ["a red circle", "a blue square", "a green triangle"], "validation_steps": 2,
        "validation_num_inference_steps": 1, "validation_guidance_scale": 1.0, **options,
    }  # fmt: skip
    watch = GuardedValidation(Guard(other.source(), action, alarms_in_words), critic.source())
    return make_trainer(pipeline_dir, folder, cached, callbacks=[watch], **settings)


def test_a_training_ends_where_its_reward_is_exploited(tmp_path, pipeline_dir, cached, caplog):
    critic, other = Fashion("critic", {"step-2": Label.GOOD}), Fashion("other", {"step-2": Label.BAD})
    trainer = guarded(tmp_path, pipeline_dir, cached, critic=critic, other=other)
    trainer.train()
    assert trainer.state.global_step == 2 and "step-2: the reward rose by 0.622" in caplog.text
    table = (tmp_path / "guard.md").read_text().splitlines()
    assert (
        table[0].startswith("| step |")
        and table[3].startswith("| 2 | 0.806 |")
        and "did not fire: the base." in table[-1]
    )


class Heard(Fashion):
    """Says when it scores, and in which process."""

    def score(self, videos, captions, *, with_reason=False):
        print(f"process {PartialState().process_index}: {self.name} scores {len(videos)}")
        return super().score(videos, captions, with_reason=with_reason)


def guarded_process(folder, pipeline_dir, cache_dir):
    critic, other = Heard("critic", {"step-2": Label.GOOD}), Heard("other", {"step-2": Label.BAD})
    dataset = CachedVideoDataset(cache_dir)
    trainer = guarded(folder, pipeline_dir, dataset, critic=critic, other=other, per_device_train_batch_size=2)
    assert trainer.args.world_size == 2
    trainer.train()
    print(f"process {trainer.args.process_index} ended at step {trainer.state.global_step}")
    torch.distributed.destroy_process_group()


def test_two_processes_end_together_and_the_first_alone_judges(tmp_path, pipeline_dir, cache_dir):
    output = Job(tmp_path / "log", guarded_process, tmp_path, pipeline_dir, cache_dir, num_processes=2).finish()
    assert "process 0 ended at step 2" in output and "process 1 ended at step 2" in output
    # The base and the step, by both judges, of all three prompts, whichever process sampled them.
    for name in ("critic", "other"):
        assert output.count(f"process 0: {name} scores 3") == 2
    assert output.count(" scores ") == 4
    table = (tmp_path / "guard.md").read_text().splitlines()
    assert table[3].startswith("| 2 | 0.806 |") and "the reward rose by 0.622" in table[3] and len(table) == 6


@pytest.mark.slow
def test_a_guard_that_only_warns_sees_the_whole_run_and_one_that_is_resumed_its_beginning(
    tmp_path, pipeline_dir, cached
):
    judges = {"critic": Fashion("critic", {"step-2": Label.GOOD}), "other": Fashion("other", {"step-2": Label.BAD})}
    saved = {"save_strategy": "steps", "save_steps": 2}
    trainer = guarded(tmp_path, pipeline_dir, cached, **judges, action="warn", **saved)
    trainer.train()
    assert trainer.state.global_step == 4
    table = (tmp_path / "guard.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:5]] == [
        "base",
        "2",
        "4",
    ] and "rose by" in table
    resumed = guarded(tmp_path, pipeline_dir, cached, **judges, action="warn", **saved)
    (tmp_path / "guard.md").unlink()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert (tmp_path / "guard.md").read_text() == table


class Attentive(Fashion):
    """Remembers which videos it was given under which prompts."""

    def __init__(self, name, liked):
        super().__init__(name, liked)
        self.given = []

    def score(self, videos, captions, *, with_reason=False):
        self.given += zip(videos, captions, strict=True)
        return super().score(videos, captions)


@pytest.fixture(scope="module")
def half_run(tmp_path_factory, pipeline_dir, cache_dir):
    """Two steps of a guarded training with three prompts, and its checkpoint."""
    folder = tmp_path_factory.mktemp("half")
    judges = {"critic": Fashion("critic", {}), "other": Fashion("other", {})}
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    guarded(folder, pipeline_dir, CachedVideoDataset(cache_dir), **judges, **saved).train()
    return folder


@pytest.mark.parametrize(
    "prompts, judged",
    [
        (["a red circle", "a blue square"], {"base": 2, "2": 2, "4": 2}),
        (["a red circle", "a blue square", "a pink triangle"], {"base": 3, "2": 2, "4": 3}),
        (["a red disc", "a blue square", "a pink triangle"], {"base": 3, "4": 3}),
    ],
)
def test_a_run_resumed_with_other_validation_prompts_judges_and_shows_the_clips_of_these(
    tmp_path, pipeline_dir, cached, half_run, prompts, judged
):
    folder = shutil.copytree(half_run, tmp_path / "run")
    # As checkpoints were before they named critics and rubric.
    run = read_json(folder / "checkpoint-2" / "run.json")
    early = {name: value for name, value in run.items() if name not in ("critics", "rubric")}
    assert len(early) == len(run) - 2
    (folder / "checkpoint-2" / "run.json").write_text(json.dumps(early))
    critic, other = Attentive("critic", {"step-4": Label.GOOD}), Attentive("other", {})
    trainer = guarded(folder, pipeline_dir, cached, critic=critic, other=other, validation_prompts=prompts)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    rows = [line.split("|")[1].strip() for line in (folder / "guard.md").read_text().splitlines()[2:-2]]
    assert rows == list(judged) and other.given == critic.given
    names = [video.stem.removeprefix("step-") for video, _ in other.given]
    assert {name: names.count(name) for name in judged} == judged
    for video, caption in other.given:
        assert caption in prompts and video.with_name("prompt.txt").read_text() == caption
    shown = validation_pairs(folder)
    assert [pair.prompt for pair in shown] == prompts
    assert {pair.aligned.name for pair in shown} == {"step-4.mp4"}


def test_a_guard_needs_videos_to_judge(tmp_path, pipeline_dir, cached):
    watch = GuardedValidation(Guard(Fashion("other", {}).source()), Fashion("critic", {}).source())
    with pytest.raises(ValueError, match="give two validation_prompts or more"):
        make_trainer(pipeline_dir, tmp_path, cached, callbacks=[watch]).train()


@pytest.mark.parametrize("objective, name", [("dpo", "kl_fraction"), ("nft", "kl_old_fraction")])
def test_a_training_ends_where_it_is_too_far_from_its_reference(
    tmp_path, pipeline_dir, cached, caplog, objective, name
):
    settings = {"objective": objective, "max_steps": 6, "learning_rate": 0.01, "logging_steps": 1}
    free = make_trainer(pipeline_dir, tmp_path / "free", cached, **settings)
    free.train()
    path = [line[name] for line in free.state.log_history if name in line]
    limit = (path[2] + path[3]) / 2
    first = next(step for step, share in enumerate(path, start=1) if share > limit)
    held = make_trainer(pipeline_dir, tmp_path / "held", cached, max_kl_fraction=limit, **settings)
    held.train()
    assert 1 < held.state.global_step == first < 6
    assert f"{name}={path[first - 1]:.3f} is above max_kl_fraction={limit}" in caplog.text
