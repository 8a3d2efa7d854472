"""The accuracy of a critic's labels while FSDP2 has its model in pieces."""

import json

import pytest

from tests.critic.sharded_accuracy import accuracy_trainer, main
from tests.critic.tiny_models import build_vlm
from tests.processes import Job


@pytest.mark.slow
@pytest.mark.parametrize("family", ["idefics3", "qwen2_5_vl"])
def test_a_sharded_critic_has_the_accuracy_of_a_whole_one(family, tmp_path):
    """Its outermost weights are gathered only if the call goes through it: "mixed torch.Tensor and DTensor" otherwise."""
    base = str(tmp_path / "vlm")
    build_vlm(family, save_directory=base)
    Job(tmp_path / "log", main, base, tmp_path, num_processes=2).finish(400)
    trainer = accuracy_trainer(base, tmp_path / "one")
    whole = trainer.label_accuracy()
    assert whole["num_unscored"] == 0 and whole["label_mass"] > 0
    for rank in "01":
        assert json.loads((tmp_path / rank / "figures.json").read_text()) == pytest.approx(whole, rel=1e-5)
    with trainer.model.disable_adapter():
        assert trainer.label_accuracy()["label_mass"] != pytest.approx(whole["label_mass"], rel=1e-3)
