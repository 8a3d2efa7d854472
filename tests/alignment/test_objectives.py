import pytest
import torch
from torch.testing import assert_close

from lift_trl.alignment.objectives import effective_sample_size, per_sample_loss, row_weights


NAN = float("nan")
REWARD = torch.tensor([0.9, 0.2, 0.05, NAN, NAN])
IS_REAL = torch.tensor([False, False, False, True, True])
ALL_GOOD = torch.tensor([True, False, False, False, False])
LOSS = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def mean_loss(**kwargs):
    weight, keep = row_weights(REWARD, IS_REAL, ALL_GOOD, **kwargs)
    return (weight * LOSS)[keep].mean()


@pytest.mark.parametrize("real_weight", [0.5, 1.0, 3.0])
def test_rwl_is_equation_3(real_weight):
    expected = (0.9 * 1 + 0.2 * 2 + 0.05 * 3) / 3 + real_weight * (4 + 5) / 2
    assert_close(mean_loss(objective="rwl", real_weight=real_weight), torch.tensor(expected))


def test_rs_is_equation_4_and_drops_before_it_counts():
    weight, keep = row_weights(REWARD, IS_REAL, ALL_GOOD, objective="rs")
    assert keep.tolist() == [True, False, False, True, True]
    assert_close((weight * LOSS)[keep].mean(), torch.tensor(1.0 + 4.5))


def test_sft_weighs_sampled_rows_alike():
    assert_close(mean_loss(objective="sft"), torch.tensor(2.0 + 4.5))


def test_real_weight_zero_drops_real_rows():
    weight, keep = row_weights(REWARD, IS_REAL, ALL_GOOD, objective="rwl", real_weight=0.0)
    assert keep.tolist() == [True, True, True, False, False]
    assert_close(weight[keep], REWARD[:3])


def test_normalised_rewards_have_mean_one_over_the_dataset():
    weight, keep = row_weights(REWARD, IS_REAL, ALL_GOOD, objective="rwl", normalize_rewards=True)
    assert_close((weight[:3] * 3 / 5).mean(), torch.tensor(1.0))
    assert_close(weight[0] / weight[1], torch.tensor(0.9 / 0.2))


def test_the_paper_case_of_two_sampled_and_eight_real_rows():
    reward = torch.tensor([1.85 / 3, 0.1] + [NAN] * 8)
    weight, _ = row_weights(reward, reward.isnan(), torch.zeros(10, dtype=torch.bool), objective="rwl")
    assert_close(weight, torch.tensor([3.083333, 0.5] + [1.25] * 8))


def test_an_unscored_row_stops_the_run():
    reward = torch.tensor([0.9, NAN])
    with pytest.raises(ValueError, match="1 generated rows have no reward"):
        row_weights(reward, torch.tensor([False, False]), torch.tensor([True, False]), objective="rwl")


def test_nothing_left_to_train_on():
    with pytest.raises(ValueError, match="keeps none of 1 generated rows"):
        row_weights(torch.tensor([0.2]), torch.tensor([False]), torch.tensor([False]), objective="rs")
    with pytest.raises(ValueError, match="no row is left to train on: 1 real rows at real_weight=0"):
        row_weights(torch.tensor([NAN]), torch.tensor([True]), torch.tensor([False]), objective="rwl", real_weight=0.0)


def test_rs_without_a_best_clip_does_not_train_on_real_rows_alone():
    with pytest.raises(ValueError, match="'rs' keeps none of 3 generated rows: none is Good in all .* Use 'rwl'"):
        row_weights(REWARD, IS_REAL, torch.zeros(5, dtype=torch.bool), objective="rs")


def test_unknown_objective_names_the_allowed_ones():
    with pytest.raises(ValueError, match="use one of rwl, rs, sft"):
        mean_loss(objective="dpo")


def test_per_sample_loss_is_float32_and_keeps_the_batch():
    prediction = torch.zeros(2, 3, 4, dtype=torch.float16)
    target = torch.stack([torch.full((3, 4), 2.0), torch.full((3, 4), 300.0)])
    loss = per_sample_loss(prediction, target)
    assert loss.dtype == torch.float32
    assert_close(loss, torch.tensor([4.0, 90000.0]))  # 300^2 is beyond float16


def test_effective_sample_size():
    assert effective_sample_size(torch.ones(7)) == pytest.approx(7)
    assert effective_sample_size(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(torch.zeros(3)) == 0
