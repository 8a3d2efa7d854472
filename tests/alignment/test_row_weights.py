"""Which clips an objective trains on and what they weigh: the counts are the dataset's, never a batch's."""

import pytest
import torch
from torch.testing import assert_close

from lift_trl.alignment.objectives import (
    OBJECTIVES,
    ObjectiveArguments,
    RatedRows,
    effective_sample_size,
    per_sample_loss,
)
from lift_trl.alignment.objectives.parts.pairs import pairs_by_reward
from lift_trl.rubric import Dimension


NAN = float("nan")
LOSS = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def rated(
    reward=(0.9, 0.2, 0.05, NAN, NAN), all_good=(1, 0, 0, 0, 0), prompts="aaaab", labels=None, **options
) -> RatedRows:
    """Rows whose real ones are those without a reward; their ids sort against their order."""
    reward = torch.tensor(reward)
    names = [f"clip-{9 - place}" for place in range(len(reward))]
    by_dimension = torch.full((len(reward), 3), NAN) if labels is None else torch.tensor(labels)
    good = torch.tensor(all_good, dtype=torch.bool)
    return RatedRows(reward, by_dimension, reward.isnan(), good, names, prompts, **options)


def select(rows: RatedRows, **settings):
    args = ObjectiveArguments(**settings)
    return OBJECTIVES[args.objective].select(rows, args)


def mean_loss(**settings):
    chosen = select(rated(), **settings)
    return (chosen.weight * LOSS)[chosen.keep].mean()


@pytest.mark.parametrize("real_weight", [0.5, 1.0, 3.0])
def test_rwl_is_equation_3(real_weight):
    expected = (0.9 * 1 + 0.2 * 2 + 0.05 * 3) / 3 + real_weight * (4 + 5) / 2
    assert_close(mean_loss(objective="rwl", real_weight=real_weight), torch.tensor(expected))


def test_rs_is_equation_4_and_drops_before_it_counts():
    chosen = select(rated(), objective="rs")
    assert chosen.keep.tolist() == [True, False, False, True, True]
    assert_close((chosen.weight * LOSS)[chosen.keep].mean(), torch.tensor(1.0 + 4.5))


def test_sft_weighs_sampled_rows_alike():
    assert_close(mean_loss(objective="sft"), torch.tensor(2.0 + 4.5))


def test_real_weight_zero_drops_real_rows():
    chosen = select(rated(), objective="rwl", real_weight=0.0)
    assert chosen.keep.tolist() == [True, True, True, False, False]
    assert_close(chosen.weight[:3], rated().reward[:3])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_real_term_enters_every_objective_alike(objective):
    """lambda times the mean over the real rows, whatever is kept of the others; with 0 they are dropped."""
    rows = rated((0.2, 0.9, 0.4, 0.5, 0.6, NAN, NAN), (0, 1, 0, 0, 1, 1, 0), "aaabbaa")
    chosen = select(rows, objective=objective, real_weight=0.7)
    number = len(chosen.pairs) or int(chosen.keep[:5].sum())
    assert chosen.keep[5:].all() and chosen.preference[5:].eq(0).all() and chosen.advantage[5:].eq(0).all()
    assert_close(chosen.weight[5:] / (number + 2), torch.tensor([0.7 / 2] * 2))
    assert not select(rows, objective=objective, real_weight=0.0).keep[5:].any()


def test_normalised_rewards_have_mean_one_over_the_dataset():
    weight = select(rated(), objective="rwl", normalize_rewards=True).weight
    assert_close((weight[:3] * 3 / 5).mean(), torch.tensor(1.0))
    assert_close(weight[0] / weight[1], torch.tensor(0.9 / 0.2))


def test_the_paper_case_of_two_sampled_and_eight_real_rows():
    rows = rated((1.85 / 3, 0.1, *[NAN] * 8), (0,) * 10, "a" * 10)
    assert_close(select(rows, objective="rwl").weight, torch.tensor([3.083333, 0.5] + [1.25] * 8))


def test_exponential_weights_have_mean_one_and_the_ratio_of_the_temperature():
    weight = select(rated(), objective="exp", reward_temperature=0.3).weight * 3 / 5
    assert_close(weight[:3].mean(), torch.tensor(1.0))
    assert_close((weight[0] / weight[1]).log(), torch.tensor((0.9 - 0.2) / 0.3))
    assert select(rated(), objective="exp", reward_temperature=1e-3).weight.isfinite().all()


def test_best_of_n_keeps_the_best_of_each_prompt_and_breaks_ties_by_id():
    rows = rated((0.2, 0.9, 0.9, 0.5, 0.6, NAN), (0,) * 6, "aaabbb")
    assert select(rows, objective="best_of_n").keep.tolist() == [False, False, True, False, True, True]
    chosen = select(rows, objective="best_of_n", keep_per_prompt=2)
    assert chosen.keep.tolist() == [False, True, True, True, True, True]
    assert_close(chosen.weight[chosen.keep], torch.tensor([5 / 4] * 4 + [5.0]))


def test_kto_balances_its_two_kinds_by_default():
    rows = rated((0.9, 0.2, 0.05, 0.3, NAN), prompts="abcde")
    chosen = select(rows, objective="kto")
    assert chosen.preference.tolist() == [1, -1, -1, -1, 0]
    assert_close(chosen.weight, torch.tensor([2.0, 2 / 3, 2 / 3, 2 / 3, 4.0]) * 5 / 4)
    given = select(rows, objective="kto", desirable_weight=3.0, undesirable_weight=0.5)
    assert_close(given.weight[:2], torch.tensor([3.0, 0.5]) * 5 / 4)
    with pytest.raises(ValueError, match="there are no desirable ones among 3"):
        select(rated(all_good=(0,) * 5), objective="kto")


def test_a_rare_kind_and_weights_out_of_balance_are_warned_of():
    """Labels, so that nothing is to be said of rewards; the numbers stay."""
    labels = [[0.9] * 3, *[[0.2] * 3] * 19]
    rows = rated([0.9, *[0.2] * 19], [1, *[0] * 19], "a" * 20, labels)
    assert select(rows, objective="kto").warnings == []  # one in twenty
    for good, kind, weight in ((0, "desirable", 10.5), (1, "undesirable", 10.5)):
        one, many = ([0.9] * 3, [0.2] * 3)[:: 1 - 2 * good]
        rows = rated([sum(one) / 3, *[sum(many) / 3] * 20], [not good, *[good] * 20], "a" * 21, [one, *[many] * 20])
        chosen = select(rows, objective="kto")
        (told,) = chosen.warnings
        assert f"1 {kind} of 21 clips weigh 10.5 each" in told and f"set {kind}_weight" in told
        assert chosen.weight[0] == pytest.approx(weight) and chosen.weight[1] == pytest.approx(21 / 40)
        given = select(rows, objective="kto", **{f"{kind}_weight": 3.0}).warnings
        assert "21 clips weigh" not in given[0] and "1 to 1.33 is recommended" in given[0]
    quarter = rated([0.9, 0.2, 0.2, 0.2], (1, 0, 0, 0), "abcd", [[0.9] * 3, *[[0.2] * 3] * 3])
    for desirable, said in ((2.99, 1), (3.0, 0), (3.99, 0), (4.02, 1)):
        told = select(quarter, objective="kto", desirable_weight=desirable, undesirable_weight=1.0).warnings
        assert len(told) == said, desirable


@pytest.mark.parametrize("objective", ["kto", "rs"])
def test_a_reward_without_labels_says_from_where_on_it_counts_as_best(objective):
    reward, real = [0.66, 0.2, 0.93, 0.4, 0.97, NAN], [0.9] * 3
    rows = rated(reward, (0, 0, 1, 0, 1, 0), "aaabbb")
    told = select(rows, objective=objective).warnings
    assert len(told) == 1 and told[0].startswith("5 clips have a reward and no labels: from 0.9 on they count as best")
    assert "which 2 do; the highest has 0.970" in told[0] and "another --scale" in told[0]
    mixed = rows._replace(dimension_reward=torch.tensor([[NAN] * 3] * 2 + [real] * 3 + [[NAN] * 3]), best_reward=1.0)
    (told,) = select(mixed, objective=objective).warnings
    assert "2 clips have a reward and no labels: from 1 on" in told and "which 0 do; the highest has 0.660" in told
    with pytest.raises(ValueError, match=r"highest has 0\.970.*use 'best_of_n' or 'rwl'"):
        select(rows._replace(all_good=torch.zeros(6, dtype=torch.bool)), objective=objective)
    for other in ("rwl", "best_of_n", "nft"):
        assert list(select(rows, objective=other).warnings) == []


def test_pairs_stand_within_a_prompt_and_never_tie():
    reward = torch.tensor([0.2, 0.9, 0.25, 0.9, 0.1, NAN])
    found = pairs_by_reward(reward, "aaabba", "uvwxyz", min_gap=0.05)
    assert set(found.pairs) == {(1, 0), (1, 2), (3, 4)} and (found.prompts, found.ties) == (2, 1)
    assert pairs_by_reward(reward, "aaabba", "uvwxyz", min_gap=0.05, per_prompt=1).pairs == [(1, 0), (3, 4)]
    at_the_limit = pairs_by_reward(torch.tensor([0.3, 0.25]), "aa", "uv", min_gap=0.05)  # in float32 a little more
    assert at_the_limit.pairs == [] and at_the_limit.ties == 1
    chosen = select(rated((0.2, 0.9, 0.25, 0.9, 0.1, NAN), (0,) * 6, "aaabba"), objective="dpo", real_weight=0.5)
    assert chosen.notes == {"pairs": 3, "prompts": 2, "ties": 1}
    few = select(
        rated((0.2, 0.9, 0.25, NAN), (0,) * 4, "aaaa"), objective="dpo", pairs_per_prompt=1, min_reward_gap=0.01
    )
    assert few.pairs.tolist() == [[1, 0]] and few.notes["ties"] == 0
    assert_close(chosen.weight, torch.tensor([4 / 6] * 5 + [0.5 * 4]))  # three pairs and a real one
    with pytest.raises(ValueError, match=r"'dpo': no two clips of one prompt differ .*=0.05 in reward \(1 ties\)"):
        select(rated((0.9, 0.9, NAN), (1, 1, 0), "aaa"), objective="dpo")


def test_pairs_that_people_chose_need_no_reward():
    rows = rated((NAN, NAN, NAN), (0,) * 3, "aaa", pairs=[(2, 0)])._replace(is_real=torch.zeros(3, dtype=torch.bool))
    chosen = select(rows, objective="dpo")
    assert chosen.pairs.tolist() == [[2, 0]] and chosen.keep.tolist() == [True, False, True]
    both = select(rows._replace(pairs=[(2, 0), (1, 0)]), objective="dpo")
    assert both.notes == {"pairs": 2, "prompts": 1, "ties": 0} and not both.warnings
    unread = select(rows._replace(pairs=[(2, 0), (1, 0)]), objective="dpo", pairs_per_prompt=1)
    assert len(unread.pairs) == 2 and "pairs_per_prompt is not read" in unread.warnings[0]
    with pytest.raises(ValueError, match="3 generated rows have no reward"):
        select(rows, objective="rwl")


def test_advantages_are_normalised_within_a_prompt_and_flat_prompts_are_left_out():
    rows = rated((0.2, 0.9, 0.4, 0.5, 0.5, NAN), (0,) * 6, "aaabbb")
    chosen = select(rows, objective="nft", real_weight=0.0)
    group = rows.reward[:3].double()
    assert_close(chosen.advantage[:3].double(), (group - group.mean()) / group.std(correction=0), rtol=1e-6, atol=0)
    assert chosen.keep.tolist() == [True, True, True, False, False, False] and chosen.advantage[3:].eq(0).all()
    assert chosen.notes["groups"] == 2 and chosen.notes["flat_groups"] == 1
    others = select(rows, objective="nft", advantage_baseline="leave_one_out").advantage
    assert_close(others[:3], torch.tensor([0.2 - 0.65, 0.9 - 0.3, 0.4 - 0.55]))
    clipped = select(rows, objective="awm", advantage_clip=0.9)
    assert_close(clipped.advantage[:2], torch.tensor([-0.9, 0.9]))
    assert clipped.advantage[2] == chosen.advantage[2] and clipped.notes["clipped"] == pytest.approx(2 / 3)
    close = rated((0.8, 0.81, 0.85, 0.2, 0.9), (0,) * 5, "aaabb")  # .85 - .8 is more than .05 in floats
    assert select(close, objective="nft").keep.tolist() == [False] * 3 + [True] * 2
    assert select(close, objective="nft", min_reward_gap=0.04).notes["flat_groups"] == 0
    with pytest.raises(ValueError, match="in each of 1 prompts no two clips differ by more than min_reward_gap=0.05"):
        select(rated((0.5, 0.5), (0, 0), "aa"), objective="awm")


def test_each_dimension_can_be_normalised_on_its_own():
    """A dimension whose rewards lie close together is not drowned by one whose rewards lie far apart."""
    labels = [[0.05, 0.20, 0.9], [0.9, 0.05, 0.9], [0.05, 0.05, 0.9]]
    rows = rated([sum(row) / 3 for row in labels], (0,) * 3, "aaa", labels)
    together = select(rows, objective="nft").advantage
    apart = select(rows, objective="nft", multi_objective_aggregation="normalize_then_sum").advantage
    assert together[0] < 0 < together[1] and apart[0] == pytest.approx(apart[1].item()) and apart[0] > 0
    weighted = rows._replace(dimension_weights=dict(zip(Dimension, (1.0, 3.0, 1.0))))
    apart = select(weighted, objective="nft", multi_objective_aggregation="normalize_then_sum").advantage
    assert apart[0] > apart[1]
    with pytest.raises(ValueError, match="needs labels, and 3 clips have only a reward"):
        select(rated(), objective="nft", multi_objective_aggregation="normalize_then_sum")


def test_an_unscored_row_stops_the_run():
    rows = rated((0.9, NAN), (1, 0), "aa")._replace(is_real=torch.tensor([False, False]))
    for objective in OBJECTIVES.keys() - {"dpo"}:
        with pytest.raises(ValueError, match="1 generated rows have no reward|there are no"):
            select(rows, objective=objective)


def test_nothing_left_to_train_on():
    with pytest.raises(ValueError, match="keeps none of 1 generated rows"):
        select(rated((0.2,), (0,), "a"), objective="rs")
    with pytest.raises(ValueError, match="no row is left to train on: 1 real rows at real_weight=0"):
        select(rated((NAN,), (0,), "a"), objective="rwl", real_weight=0.0)


def test_rs_without_a_best_clip_does_not_train_on_real_rows_alone():
    with pytest.raises(ValueError, match="'rs' keeps none of 3 generated rows: none is Good in all .* Use 'rwl'"):
        select(rated(all_good=(0,) * 5), objective="rs")


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
