import math

import choix
import numpy as np
import pytest

from lift_trl.records import Comparison
from lift_trl.rubric import Dimension
from lift_trl.statistics.win_rate import (
    ALPHA,
    Vote,
    agreement,
    bradley_terry,
    fit_strengths,
    majority,
    to_votes,
    win_rates,
)


MOTION = Dimension.MOTION_SMOOTHNESS


def comparison(number, prompt, left, right, choice, dimension=None, voter="v"):
    return Comparison(str(number), prompt, left, right, choice, dimension, voter, "2026-01-01T00:00:00Z")


def vote(prompt, outcome, dimension=None, voter="v", pair=None):
    return Vote(prompt, pair or prompt, dimension, outcome, voter)


def test_sides_do_not_matter_and_other_systems_are_left_out():
    rows = [
        comparison(1, "p", "lora/p.mp4", "base/p.mp4", "a"),
        comparison(2, "q", "base/q.mp4", "lora/q.mp4", "b"),
        comparison(3, "r", "base/r.mp4", "lora/r.mp4", "tie"),
        comparison(4, "r", "base/r.mp4", "sft/r.mp4", "a"),
    ]
    votes = to_votes(rows, lambda video: video.split("/")[0], first="lora", second="base")
    assert [v.outcome for v in votes] == [1, 1, 0]
    with pytest.raises(ValueError, match="left"):
        to_votes([comparison(5, "p", "lora/p.mp4", "base/p.mp4", "left")], str, first="lora", second="base")


def test_shares_and_majorities():
    # Three pairs, six votes each: 4-2, 3-3, and ties win.
    outcomes = {"p": [1, 1, 1, 1, -1, -1], "q": [1, 1, 1, -1, -1, -1], "r": [0, 0, 0, 1, 1, -1]}
    votes = [vote(p, o, MOTION, f"v{i}") for p, row in outcomes.items() for i, o in enumerate(row)]
    assert majority(votes) == {"p": 1, "q": 0, "r": 0}
    (rate,) = win_rates(votes, judge="people", first="lora", second="base")
    assert (rate.win.value, rate.tie.value, rate.loss.value) == pytest.approx((9 / 18, 3 / 18, 6 / 18))
    assert (rate.majority_win, rate.majority_tie, rate.majority_loss) == pytest.approx((1 / 3, 2 / 3, 0))
    assert (rate.num_votes, rate.num_pairs, rate.win.n, rate.dimension) == (18, 3, 3, MOTION)
    # Half-votes: 9 + 1.5 against 6 + 1.5.
    assert rate.strength.value == pytest.approx(math.log((10.5 + ALPHA) / (7.5 + ALPHA)))


def test_no_votes_are_refused():
    with pytest.raises(ValueError, match="names of the systems"):
        win_rates([], judge="people", first="a", second="b")


def test_bradley_terry_recovers_strengths_and_its_interval_covers_them():
    generator = np.random.default_rng(0)
    truth = {"a": 1.0, "b": 0.0, "c": -1.0}
    results, prompts = [], []
    for number in range(300):
        for x, y in (("a", "b"), ("b", "c"), ("a", "c")):
            wins = generator.random() < 1 / (1 + math.exp(truth[y] - truth[x]))
            results.append((x, y, 1 if wins else -1))
            prompts.append(f"p{number}")
    fitted = bradley_terry(results, tuple(truth), clusters=prompts)
    for system, strength in truth.items():
        assert fitted[system].value == pytest.approx(strength, abs=0.2)
        assert fitted[system].ci95[0] < strength < fitted[system].ci95[1]


def test_two_systems_agree_with_choix_and_a_clean_sweep_stays_finite():
    half_wins = np.array([[0, 30], [10, 0]])
    data = [(0, 1)] * 30 + [(1, 0)] * 10
    expected = choix.ilsr_pairwise(2, data, alpha=2 * ALPHA)
    assert fit_strengths(half_wins) == pytest.approx(expected - expected.mean(), abs=1e-3)
    (rate,) = win_rates([vote(f"p{i}", 1) for i in range(5)], judge="c", first="a", second="b")
    assert math.isfinite(rate.strength.value) and rate.strength.value > 5
    # No resample differs: the bootstrap knows no bound of the strength, and Wilson's interval that of the share.
    assert rate.strength.ci95 is None
    assert rate.win.ci95 == pytest.approx((0.566, 1.0), abs=1e-3) and rate.loss.ci95 == pytest.approx(
        (0, 0.434), abs=1e-3
    )


def test_agreement_with_people():
    people = [vote("p", 1), vote("p", 1, voter="w"), vote("q", -1), vote("r", 0), vote("s", 1)]
    critic = [vote("p", 1), vote("q", 1), vote("r", 0), vote("s", 0), vote("t", 1)]
    found = agreement(people, critic)
    assert found.with_ties.value == pytest.approx(2 / 4)
    assert found.without_ties.value == pytest.approx(1 / 3)
    # Cohen's kappa by hand: observed 1/2; by chance (+1) 2/4 * 2/4 + (0) 1/4 * 2/4 + (-1) 1/4 * 0.
    assert found.kappa == pytest.approx((0.5 - 0.375) / (1 - 0.375))


def test_people_and_critic_meet_in_one_key():
    """Votes name paths, a critic's are by clip: the key of a clip joins them."""
    rows = [
        comparison(1, "a fox", "lora/x.mp4", "base/x.mp4", "a"),
        comparison(2, "a cat", "base/y.mp4", "lora/y.mp4", "a"),
        comparison(3, "a cat", "base/y.mp4", "lora/x.mp4", "a"),  # clips of two seeds: no pair of the critic's
    ]
    people = to_votes(
        rows, lambda video: video.split("/")[0], first="lora", second="base", key_of=lambda video: video.split("/")[1]
    )
    critic = [vote(prompt, 1, pair=key) for key, prompt in (("x.mp4", "a fox"), ("y.mp4", "a cat"))]
    found = agreement(people, critic)
    assert (found.with_ties.value, found.with_ties.n) == (0.5, 2)


def test_agreement_needs_common_pairs():
    with pytest.raises(ValueError, match="no pair in common"):
        agreement([vote("p", 1)], [vote("q", 1)])


def test_voters_are_clusters():
    """Ten voters of one mind each: another ten might vote otherwise, however many pairs they saw."""
    votes = [
        Vote(f"p{i}", f"p{i}", None, 1 if voter < 7 else -1, f"v{voter}") for voter in range(10) for i in range(40)
    ]
    (many,) = win_rates(votes, judge="people", first="a", second="b")
    (one,) = win_rates([v._replace(voter="v") for v in votes], judge="people", first="a", second="b")
    assert many.win.value == one.win.value == 0.7
    # Seven of ten: the interval of ten draws. Of one voter's votes each prompt has the same share.
    assert many.win.ci95 == pytest.approx((0.4, 1.0), abs=0.1)
    assert many.strength.ci95[1] - many.strength.ci95[0] > 2 and many.strength.value == one.strength.value
