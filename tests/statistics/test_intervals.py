import numpy as np
import pytest

from lift_trl.statistics.intervals import Estimate, bootstrap_mean, bootstrap_share, resample_counts, wilson


def test_wilson_agrees_with_scipy():
    from scipy.stats import binomtest

    for successes, n in ((0, 5), (3, 7), (60, 60), (1, 200)):
        low, high = binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n).ci95 == pytest.approx((low, high), abs=1e-12)


def test_bootstrap_covers_the_truth_about_19_times_in_20():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        estimate = bootstrap_mean(generator.normal(1.0, 1.0, 40), seed=seed)
        covered += estimate.ci95[0] <= 1.0 <= estimate.ci95[1]
    assert 0.88 <= covered / 200 <= 0.99


def test_samples_of_one_prompt_are_not_independent():
    values = np.repeat(np.random.default_rng(1).normal(size=10), 20)
    prompts = [str(i // 20) for i in range(200)]
    alone, clustered = bootstrap_mean(values), bootstrap_mean(values, prompts)
    width = [e.ci95[1] - e.ci95[0] for e in (alone, clustered)]
    assert alone.value == pytest.approx(clustered.value)
    assert width[1] > 3 * width[0]
    assert (alone.n, clustered.n) == (200, 10)


def test_strata_keep_their_sizes():
    counts = resample_counts([0, 0, 0, 1, 1], num_resamples=50)
    assert (counts[:, :3].sum(1) == 3).all() and (counts[:, 3:].sum(1) == 2).all()
    assert counts.std(0).min() > 0


def test_one_prompt_has_no_interval_and_nan_is_refused():
    assert bootstrap_mean([0.2, 0.4], ["p", "p"]) == Estimate(pytest.approx(0.3), None, 1)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([0.1, float("nan")])
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


def test_a_share_of_all_or_none_is_not_sure():
    assert bootstrap_share([True] * 5) == wilson(5, 5)
    # Two votes on each of four prompts, all alike: four units, not eight.
    assert bootstrap_share([True, False] * 4, [str(i // 2) for i in range(8)]) == wilson(2, 4)
    mixed = [True, False, True, True]
    assert bootstrap_share(mixed) == bootstrap_mean([1.0, 0.0, 1.0, 1.0])
    assert bootstrap_share([True, True], ["p", "p"]) == Estimate(1.0, None, 1)
