"""Do rewards teach? Real training on the mini world, which fails if they are ignored, negated or shuffled."""

import pytest

from tests.learning.arms import rwl_minus_sft


@pytest.mark.learning
@pytest.mark.timeout(600)
def test_rewards_raise_the_oracles_reward_above_plain_fine_tuning(tmp_path):
    """
    The lower end of the 95 % interval of RWL - SFT, paired over prompts and seeds, lies above zero.

    Plain fine-tuning on own samples raises the reward by itself, so the base is no control. `dev/LOG.md` has the figures
    of runs with rewards that were ignored, negated and shuffled on purpose.
    """
    gain = rwl_minus_sft(tmp_path)
    assert gain.is_above_zero and gain.is_sure, gain
