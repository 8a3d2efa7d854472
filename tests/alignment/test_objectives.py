"""The objectives' losses against their papers' forms, written out on whole predictions in float64."""

import math
from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from lift_trl.alignment.objectives import OBJECTIVES, ObjectiveArguments, OtherPolicy, StepRows
from lift_trl.alignment.objectives.parts.settings import ObjectiveName


B = 6
SHAPE = (B, 3, 2, 5)


def mse(a, b):
    return (a - b).square().flatten(1).mean(1)


class Step:
    """Predictions of the three policies, a target, and what an objective is given of them. Rows are pairs (0, 1), ..."""

    def __init__(self, seed=0, scale=1.0, advantage=None):
        generator = torch.Generator().manual_seed(seed)
        draw = [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(4)]
        self.target = draw[0]
        self.v0 = draw[0] + 0.3 * draw[1]
        self.old = self.v0 + 0.1 * draw[2]
        self.v = (self.v0 + scale * 0.2 * draw[3]).requires_grad_()
        self.preference = torch.tensor([1, -1, 1, -1, 1, -1])
        self.partner = torch.tensor([1, 0, 3, 2, 5, 4])
        self.reward = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.8, 0.2], dtype=torch.float64)
        self.advantage = torch.tensor([2.0, -1.5, 0.5, -0.5, 0.0, 3.0], dtype=torch.float64)
        if advantage is not None:
            self.advantage = torch.full((B,), float(advantage), dtype=torch.float64)

    @property
    def rows(self) -> StepRows:
        reference, old = (OtherPolicy(mse(v, self.target), mse(self.v, v)) for v in (self.v0, self.old))
        return StepRows(
            mse(self.v, self.target), self.reward, self.advantage, self.preference, self.partner, reference, old
        )

    def loss(self, objective, **settings):
        args = ObjectiveArguments(objective=objective, **settings)
        return OBJECTIVES[objective].loss(self.rows, args)

    def gradient(self, loss):
        return torch.autograd.grad(loss.sum(), self.v)[0]


def test_the_names_are_those_of_the_settings():
    assert tuple(OBJECTIVES) == get_args(ObjectiveName)
    assert all(name == objective.name for name, objective in OBJECTIVES.items())


@pytest.mark.parametrize("objective", ["sft", "rwl", "rs", "best_of_n", "exp"])
def test_likelihoods_are_the_error_of_a_row(objective):
    step = Step()
    assert torch.equal(step.loss(objective), mse(step.v, step.target))


@pytest.mark.parametrize("beta", [7.0, 100.0])
@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
def test_dpo_at_the_reference(beta, loss_type):
    """log 2 (times 2 / beta), and the gradient grad(l_preferred - l_other) whatever beta and kind of loss."""
    step = Step(scale=0.0)
    loss = step.loss("dpo", beta=beta, loss_type=loss_type)
    if loss_type == "sigmoid":
        assert_close(loss, torch.full((B,), 2 / beta * math.log(2), dtype=torch.float64))
    # The loss stands on both rows of a pair: half of the sum is the sum over pairs.
    expected = step.gradient(step.preference * mse(step.v, step.target))
    assert_close(step.gradient(loss / 2), expected)


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
def test_dpo_is_the_papers_loss_and_follows_the_pair(loss_type):
    step, beta = Step(), 9.0
    change = (mse(step.v, step.target) - mse(step.v0, step.target))[[0, 2, 4]]
    other = (mse(step.v, step.target) - mse(step.v0, step.target))[[1, 3, 5]]
    inside = -beta * (change - other)
    written = {
        "sigmoid": -inside.sigmoid().log() * 2 / beta,
        "hinge": (1 - inside).clamp(min=0) / beta,
        "ipo": (inside / beta - 1 / (2 * beta)) ** 2 * beta,
    }[loss_type]
    loss = step.loss("dpo", beta=beta, loss_type=loss_type)
    assert_close(loss, written.repeat_interleave(2))
    step.preference = -step.preference  # pairs swapped: the margin is negated
    swapped = step.loss("dpo", beta=beta, loss_type="sigmoid")
    assert_close(swapped, (-(-inside).sigmoid().log() * 2 / beta).repeat_interleave(2))


def test_equal_clips_give_no_gradient_and_swapped_pairs_negate_it():
    step = Step(scale=0.0)
    straight = step.gradient(step.loss("dpo"))
    step.preference = -step.preference
    assert_close(step.gradient(step.loss("dpo")), -straight)
    step.v = step.v.detach()[[0, 0, 2, 2, 4, 4]].requires_grad_()
    step.v0, step.target = step.v0[[0, 0, 2, 2, 4, 4]], step.target[[0, 0, 2, 2, 4, 4]]
    gradient = step.gradient(step.loss("dpo"))
    assert_close(gradient[::2], -gradient[1::2])  # both rows are the same clip: what reaches the weights cancels


def test_dpo_without_a_reference_and_with_a_moving_one():
    step = Step()
    free = step.loss("dpo", beta=9.0, reference_free=True)
    assert OBJECTIVES["dpo"].needs(ObjectiveArguments(objective="dpo", reference_free=True)) == frozenset()
    assert OBJECTIVES["dpo"].needs(ObjectiveArguments(objective="dpo", sync_ref_model=True)) == {"old"}
    moving = step.loss("dpo", beta=9.0, sync_ref_model=True)
    error, old = mse(step.v, step.target), mse(step.old, step.target)
    for loss, change in ((free, error), (moving, error - old)):
        written = -torch.nn.functional.logsigmoid(-9.0 * (change[::2] - change[1::2])) * 2 / 9
        assert_close(loss, written.repeat_interleave(2))


def test_kto_at_the_reference_pulls_the_desirable_and_pushes_the_others():
    step = Step(scale=0.0)
    loss = step.loss("kto", beta=11.0)
    assert_close(loss * 11 / 4, torch.full((B,), 0.5, dtype=torch.float64))
    assert_close(step.gradient(loss), step.gradient(step.preference * mse(step.v, step.target)))
    moved = Step()
    s = mse(moved.v0, moved.target) - mse(moved.v, moved.target)
    written = torch.where(moved.preference > 0, 1 - (11 * s).sigmoid(), 1 - (-11 * s).sigmoid()) * 4 / 11
    assert_close(moved.loss("kto", beta=11.0), written)


@pytest.mark.parametrize("beta, limit", [(0.02, 5.0), (0.4, 3.0), (1.0, 5.0)])
def test_nft_is_the_papers_loss_up_to_a_term_without_gradient(beta, limit):
    step = Step()
    r = (step.advantage / (2 * limit) + 0.5).clamp(0, 1)
    positive = beta * step.v + (1 - beta) * step.old
    negative = (1 + beta) * step.old - beta * step.v
    written = limit / beta * (r * mse(positive, step.target) + (1 - r) * mse(negative, step.target))
    loss = step.loss("nft", beta=beta, advantage_clip=limit)
    assert_close(step.gradient(loss), step.gradient(written), rtol=1e-9, atol=1e-12)


def test_nft_of_beta_one_and_the_best_advantage_is_sft():
    """In x0 form too: of a flow and of a velocity, |x0_hat - x0|^2 over the squared factor of v is |v_hat - v|^2."""
    step = Step(advantage=1.0)
    loss = step.loss("nft", beta=1.0, advantage_clip=1.0)
    assert_close(loss, step.loss("sft"))
    for factor in (0.37, (1 - 0.83) ** 0.5):  # a flow's sigma, and sqrt(1 - abar)
        x0, x0_hat = -factor * step.target, -factor * step.v
        assert_close(loss, mse(x0_hat, x0) / factor**2)


def test_nfts_minimum_is_where_the_docstring_says():
    step, strength = Step(), 0.1
    best = step.old + (step.advantage / strength)[:, None, None, None] * (step.target - step.old)
    step.v = best.detach().requires_grad_()
    assert_close(
        step.gradient(step.loss("nft", beta=0.02)), torch.zeros(SHAPE, dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_awm_is_rwl_offline_and_its_anchor_is_the_old_policy():
    step = Step()
    step.advantage = step.reward
    args = ObjectiveArguments(objective="awm", beta=1e-12)
    assert_close(OBJECTIVES["awm"].loss(step.rows, args), step.reward * mse(step.v, step.target))
    anchored = step.loss("awm", beta=0.7)
    assert_close(anchored, step.reward * mse(step.v, step.target) + 0.7 * mse(step.v, step.old))
    # nft differs in the anchor alone: k - A instead of beta.
    nft = step.loss("nft", beta=0.7 / 5)
    assert_close(anchored - nft, step.advantage * mse(step.v, step.old))


@pytest.mark.parametrize("objective", ["nft", "awm"])
def test_the_kl_to_the_base_is_an_option_that_needs_it(objective):
    step, args = Step(), ObjectiveArguments(objective=objective, kl_coef=0.3)
    assert OBJECTIVES[objective].needs(args) == {"old", "reference"}
    assert OBJECTIVES[objective].needs(ObjectiveArguments(objective=objective)) == {"old"}
    plain = step.loss(objective)
    assert_close(step.loss(objective, kl_coef=0.3), plain + 0.3 * mse(step.v, step.v0))


def test_health_says_which_way_winners_and_losers_moved():
    step = Step()
    step.v = torch.stack([step.target[i] if i % 2 else 2 * step.v0[i] - step.target[i] for i in range(B)])
    args = ObjectiveArguments(objective="dpo", beta=10.0)
    figures = OBJECTIVES["dpo"].health(step.rows, args)
    l0 = mse(step.v0, step.target)
    # Winners: the error of a prediction that is twice as far from the target, four times that of the base.
    assert_close(figures["rewards/chosen"][::2], -10 * 3 * l0[::2])
    assert figures["rewards/chosen"][1::2].isnan().all() and figures["rewards/rejected"][::2].isnan().all()
    assert_close(figures["rewards/rejected"][1::2], 10 * l0[1::2])
    assert figures["rewards/accuracies"].tolist() == [0] * B
    assert_close(figures["rewards/margins"][::2], figures["rewards/chosen"][::2] - figures["rewards/rejected"][1::2])
    assert_close(figures["kl"], mse(step.v, step.v0))
    assert_close(figures["reference_error"], l0)


def test_ktos_health_is_in_units_of_beta_and_counts_what_is_on_its_side():
    step = Step()
    figures = OBJECTIVES["kto"].health(step.rows, ObjectiveArguments(objective="kto", beta=13.0))
    reward = 13 * (mse(step.v0, step.target) - mse(step.v, step.target))
    assert_close(figures["rewards/chosen"][::2], reward[::2])
    assert_close(figures["rewards/rejected"][1::2], reward[1::2])
    assert figures["rewards/accuracies"].tolist() == (step.preference * reward > 0).tolist()
    assert 0 < figures["rewards/accuracies"].mean() < 1
    assert_close(figures["kl"], mse(step.v, step.v0))


@pytest.mark.parametrize("objective", ["nft", "awm"])
def test_health_of_advantages_is_against_the_old_policy_and_the_kl_to_the_base(objective):
    step = Step()
    figures = OBJECTIVES[objective].health(step.rows, ObjectiveArguments(objective=objective, kl_coef=0.1))
    fell = mse(step.old, step.target) - mse(step.v, step.target)
    better, worse = step.advantage > 0, step.advantage < 0
    assert_close(figures["rewards/chosen"][better], fell[better])
    assert_close(figures["rewards/rejected"][worse], fell[worse])
    flat = step.advantage == 0
    assert figures["rewards/chosen"][~better].isnan().all() and figures["rewards/rejected"][flat].isnan().all()
    assert_close(figures["kl_old"], mse(step.v, step.old))
    assert_close(figures["kl"], mse(step.v, step.v0))
    assert_close(figures["reference_error"], mse(step.old, step.target))
    without = step.rows._replace(reference=None)
    assert "kl" not in OBJECTIVES[objective].health(without, ObjectiveArguments(objective=objective))
