"""Verdicts over several systems: a test over prompts, and a correction that holds the chance of one false verdict."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, permutation_test

from lift_trl.statistics.holm import LEVEL, NUM_FLIPS, holm, sign_flip_p


def test_the_sign_flip_test_is_that_of_scipy():
    differences = np.random.default_rng(3).normal(0.3, 1, 24)
    whole = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20000, rng=1)
    assert sign_flip_p(differences.tolist(), [str(i) for i in range(24)]) == pytest.approx(whole.pvalue, abs=0.02)


def test_no_test_by_draws_is_sure():
    """Thirty prompts that all gain: no draw is as extreme, and p is the least that so many draws can tell."""
    assert sign_flip_p([0.1] * 30, [str(i) for i in range(30)]) == 1 / (1 + NUM_FLIPS)


def test_clips_of_one_prompt_are_one_unit():
    alike = np.repeat(np.random.default_rng(0).normal(0.4, 1, 10), 6).tolist()
    prompts = [str(i // 6) for i in range(60)]
    single = sign_flip_p(alike[::6], prompts[::6])
    assert sign_flip_p(alike, prompts) == pytest.approx(single, abs=0.01)
    assert sign_flip_p(alike, [str(i) for i in range(60)]) < single / 2
    with pytest.raises(ValueError, match="no difference to test"):
        sign_flip_p([], [])


def test_holm_is_stricter_than_one_test_and_milder_than_bonferroni():
    p_values = {"a": 0.04, "b": 0.001, "c": 0.02}
    corrected = holm(p_values)
    assert list(corrected) == ["a", "b", "c"] and list(corrected.values()) == pytest.approx([0.04, 0.003, 0.04])
    # Never below that of a smaller one: of two the second's own correction would be 0.04.
    assert holm({"a": 0.03, "b": 0.04}) == pytest.approx({"a": 0.06, "b": 0.06})
    assert all(p < LEVEL for p in corrected.values()) and 3 * p_values["c"] > LEVEL
    assert all(corrected[n] >= q - 1e-12 for n, q in zip(p_values, false_discovery_control(list(p_values.values()))))
