"""What a plan makes of a YAML's settings: how often each part runs, and on how many cards."""

import pytest
from peft import LoraConfig

from lift_trl.alignment.reward_weighted_config import RewardWeightedVideoConfig
from lift_trl.estimate.plan import Job
from lift_trl.estimate.planners import read_plan
from lift_trl.estimate.video_planners import training_runs
from lift_trl.mini.checkpoints import VIDEO_MODELS, WEIGHTS
from tests.critic.tiny_models import build_vlm
from tests.estimate.written import write


VIDEO = {
    "model_name_or_path": str(WEIGHTS / VIDEO_MODELS["cogvideox"]),
    "num_frames": 9,
    "height": 48,
    "width": 48,
    "output_dir": "runs/x",
}


@pytest.fixture(scope="session")
def vlm(tmp_path_factory):
    """A chat VLM of which only the files without weights count."""
    folder = tmp_path_factory.mktemp("vlm") / "internvl"
    build_vlm("internvl", save_directory=folder)
    return str(folder)


def planned(tmp_path, stage, *, job=None, num_gpus=1, **settings):
    return read_plan(write(tmp_path / f"{stage}.yaml", **settings), job or Job(), num_gpus=num_gpus)


def settings(tmp_path, **own):
    return RewardWeightedVideoConfig(str(tmp_path), report_to=[], **own)


@pytest.mark.parametrize(
    "step, runs",
    [
        ({"gradient_accumulation_steps": 5, "max_steps": 7}, {1: 7 * 5, 3: 7 * 5 * 3}),
        ({"clips_per_step": 30, "max_steps": 7}, {1: 7 * 15, 3: 7 * 15}),
        ({"gradient_accumulation_steps": 5, "num_train_epochs": 7}, {1: 12 / 2 * 7, 3: 12 / 2 * 7}),
    ],
    ids=["steps", "clips", "epochs"],
)
def test_a_step_of_more_cards_is_more_work(tmp_path, step, runs):
    """Two clips at a time; the same number of steps on three cards sees three times as many, unless the step is of clips."""
    found, made = {}, {}
    for cards in runs:
        args = settings(tmp_path, per_device_train_batch_size=2, **step)
        found[cards], made[cards] = training_runs(args, Job(clips=12), cards)
        assert args.gradient_accumulation_steps == (5 if cards == 3 else 15 if "clips_per_step" in step else 5)
    assert found == runs
    assert made[3] == "30 clips a step: 2 on each of 3 cards, accumulated 5 times"


def test_a_plan_has_the_steps_of_all_cards_or_says_that_there_will_be_none(tmp_path):
    """Accumulation that is said beside `clips_per_step` is that of the cards, not of the process that counts."""
    common = {**VIDEO, "lora_r": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}
    plan = planned(tmp_path, "align", num_gpus=6, clips_per_step=64, max_steps=3, **common)
    refusal = "clips_per_step=64 cannot be made of 24 clips at a time (per_device_train_batch_size=4 on 6 processes)"
    assert plan.notes[0] == f"the run will not start on 6 cards: {refusal}. Nearest: 72."
    assert plan.parts[0].runs == 3 * 64 / 4


def test_steps_of_each_of_three_critics_are_those_of_all_cards(tmp_path, vlm):
    """Epochs of the three are of half, half and all ratings (as `test_command` has it); of `max_steps` each has as many."""
    common = {"model_name_or_path": vlm, "use_peft": True, "lora_r": 4, "num_frames": 2, "output_dir": "runs/critic"}
    common |= {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 11}
    assert planned(tmp_path, "correct", num_gpus=4, **common).parts[0].runs == 3 * 11 * 2 * 4


def test_a_critic_that_goes_on_has_the_lora_of_the_earlier_one(tmp_path, vlm):
    """In the precision of its checkpoint, which `auto` asks for, or in that of `model_init_kwargs`."""
    LoraConfig(r=5, lora_dropout=0.05, target_modules=["q_proj", "v_proj"]).save_pretrained(tmp_path / "earlier")
    common = {"model_name_or_path": vlm, "num_frames": 2, "output_dir": "runs/critic", "max_steps": 1}
    onward = planned(tmp_path, "train_critic", adapter=str(tmp_path / "earlier"), dtype="auto", **common)
    fresh = {"use_peft": True, "lora_r": 5, "lora_target_modules": ["q_proj", "v_proj"]}
    started, half = (
        planned(tmp_path, "train_critic", model_init_kwargs={"dtype": dtype}, **fresh, **common)
        for dtype in ("float32", "bfloat16")
    )
    assert onward.parts[0].count == started.parts[0].count != half.parts[0].count
    with pytest.raises(ValueError, match="model_init_kwargs has dtype: 'float32', and dtype says 'bfloat16'"):
        planned(tmp_path, "train_critic", dtype="bfloat16", model_init_kwargs={"dtype": "float32"}, **fresh, **common)
