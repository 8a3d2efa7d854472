"""One of two gloo processes: the accuracy of a critic's labels while its model is sharded as accelerate's FSDP2 shards it.

accelerate itself turns FSDP2 on a CPU into DDP, so its own preparation is called here.
"""

import json
import os
from pathlib import Path

import torch
from peft import LoraConfig
from torch.distributed.tensor import DTensor

from lift_trl.critic.critic_config import LiFTCriticConfig
from lift_trl.critic.critic_trainer import LiFTCriticTrainer
from tests.alignment.sharded_validation import shard
from tests.critic.rendered_clips import rated_squares


def accuracy_trainer(base: str, folder: Path) -> LiFTCriticTrainer:
    """A LoRA that does something, on ratings that are the same in every process."""
    ratings = rated_squares(folder / "ratings")
    return LiFTCriticTrainer(
        base,
        LiFTCriticConfig(
            str(folder), num_frames=2, report_to="none", per_device_eval_batch_size=1, gradient_checkpointing=False
        ),
        train_dataset=ratings,
        eval_dataset=ratings,
        peft_config=LoraConfig(r=4, lora_alpha=16, init_lora_weights=False),
    )


def main(base: str, folder: Path) -> None:
    rank = os.environ["RANK"]
    trainer = accuracy_trainer(base, folder / rank)
    assert torch.distributed.get_world_size() == 2
    # As under FSDP the critic is made only when it first scores.
    trainer._critic = None
    trainer.model = shard(trainer.model)
    assert all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
    measured = trainer.label_accuracy()
    (folder / rank / "figures.json").write_text(json.dumps(measured))
    # And what was gathered for scoring can still be trained.
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    trainer.model(**batch).loss.backward()
    assert all(p.grad is not None for p in trainer.model.parameters() if p.requires_grad)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
