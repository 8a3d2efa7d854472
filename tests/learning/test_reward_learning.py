"""Do rewards teach? Real training on the mini world, which fails if they are ignored, negated or shuffled."""

import pytest

from lift_trl.mini.checkpoints import VIDEO_MODELS
from tests.learning.arms import assert_learned, gains_over_base, rwl_minus_sft


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for each family's clips and the oracle's labels, made once."""
    return tmp_path_factory.mktemp("learning")


@pytest.mark.learning
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", VIDEO_MODELS)
def test_rewards_raise_the_oracles_reward_above_plain_fine_tuning(family, folder):
    """
    The lower end of the 95 % interval of RWL - SFT, paired over prompts and seeds, lies above zero.

    Plain fine-tuning on own samples raises the reward by itself, so the base is no control. `dev/LOG.md` has the figures
    of runs with rewards that were ignored, negated and shuffled on purpose.
    """
    gain = rwl_minus_sft(folder / family, family)
    assert gain.is_above_zero and gain.excludes_zero, gain


@pytest.mark.learning
@pytest.mark.timeout(1200)
def test_pairs_and_advantages_raise_the_oracles_reward_above_the_base(folder):
    """
    DPO and NFT, from the base's own clips: swapped pairs and negated advantages push away from the good ones, and a
    reference with the LoRA left on is no reference. `dev/LOG.md` has the figures of runs with each of these bugs.
    """
    assert_learned(gains_over_base(folder / "cogvideox"))
