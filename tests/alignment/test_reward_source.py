"""Released judges and critics by name, as what gives the rewards and as what watches them."""

from pathlib import Path

import pytest

from lift_trl.alignment.guard import read_verdicts
from lift_trl.alignment.reward_weighted_config import LoraArguments, RewardWeightedVideoConfig
from lift_trl.judges import load_judge
from lift_trl.reward_source import reward_source
from lift_trl.store.manifest import Artifact, read_json
from recipes import align, iterate
from tests.alignment.test_iterate import SAMPLING, TRAINING, World
from tests.judges import tiny_judges


@pytest.fixture(scope="module")
def world(tmp_path_factory, pipeline_dir):
    return World(tmp_path_factory.mktemp("world"), pipeline_dir)


@pytest.fixture(scope="module")
def video_reward(tmp_path_factory):
    """As a user writes it."""
    return f"video_reward={tiny_judges.write_video_reward(tmp_path_factory.mktemp('judge'))}"


def test_a_released_judge_gives_the_rewards_of_rounds_and_a_critic_watches(world, video_reward, tmp_path):
    rounds = iterate.IterateArguments(
        str(world.base), video_reward, str(world.prompts), rounds=1, videos_per_prompt=2, second_judge=str(world.critic),
        guard_action="warn", **SAMPLING,
    )  # fmt: skip
    settings = {**TRAINING, "max_steps": 1, "per_device_train_batch_size": 2, "disable_tqdm": True}
    iterate.main(rounds, LoraArguments(lora_r=4), RewardWeightedVideoConfig(str(tmp_path), **settings))
    judge = load_judge("video_reward", model=video_reward.partition("=")[2])
    made = [Artifact.load(tmp_path / place).config["critic"] for place in ("round_1/scored", "guard/base/judged")]
    assert made[0] == judge.name and made[1] == reward_source(str(world.critic)).name
    assert read_json(tmp_path / "round_1" / "lora" / "run.json")["critics"] == [Path(judge.name).name]
    assert str(tmp_path.parent) in judge.name and judge.name.endswith("+normal:0:1")
    clips = sorted((tmp_path / "round_1" / "generated").rglob("*.mp4"))
    rewards = read_verdicts(tmp_path / "round_1" / "scored")
    assert len(rewards) == len(clips) == 4 and len(set(rewards.values())) > 1


def test_a_released_judge_watches_a_training(world, video_reward, cache_dir, tmp_path):
    script = align.AlignArguments(
        str(world.base), str(cache_dir), critic=str(world.critic), second_judge=video_reward, guard_action="warn"
    )
    settings = {
        "max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "disable_tqdm": True,
        "validation_prompts": ["a red circle", "a blue square"], "validation_num_inference_steps": 1,
        "validation_guidance_scale": 1.0,
    }  # fmt: skip
    align.main(script, LoraArguments(lora_r=4), RewardWeightedVideoConfig(str(tmp_path), **settings))
    judge = load_judge("video_reward", model=video_reward.partition("=")[2])
    clips = sorted((tmp_path / "validation").glob("*/base.mp4"))
    scores = judge.score(clips, [clip.with_name("prompt.txt").read_text() for clip in clips])
    row = (tmp_path / "guard.md").read_text().splitlines()[2].split("|")
    assert row[1].strip() == "base" and row[3].strip() == f"{sum(s.reward for s in scores) / 2:.3f}"


def test_the_judge_that_gives_the_rewards_is_not_taken_to_watch(world, video_reward, tmp_path):
    with pytest.raises(ValueError, match="the same model"):
        iterate.main(
            iterate.IterateArguments(str(world.base), video_reward, str(world.prompts), second_judge=video_reward),
            LoraArguments(),
            RewardWeightedVideoConfig(str(tmp_path), report_to="none"),
        )
