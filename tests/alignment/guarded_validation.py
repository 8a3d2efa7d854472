"""One of two gloo processes: a guarded training whose reward is exploited at its first validation."""

import sys
from pathlib import Path

import torch

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.rubric import Label
from tests.alignment.test_guard import guarded
from tests.alignment.test_iterate import Fashion


class Loaded(Fashion):
    """Says when it scores."""

    def score(self, videos, captions, *, with_reason=False):
        print(f"{self.name} scores {len(videos)}")
        return super().score(videos, captions, with_reason=with_reason)


def main(pipeline_dir: str, cache_dir: str, output_dir: str) -> None:
    critic, other = Loaded("critic", {"step-2": Label.GOOD}), Loaded("other", {"step-2": Label.BAD})
    trainer = guarded(
        Path(output_dir), pipeline_dir, CachedVideoDataset(cache_dir), critic=critic, other=other,
        per_device_train_batch_size=2,
    )  # fmt: skip
    assert trainer.args.world_size == 2
    trainer.train()
    print(f"ended at step {trainer.state.global_step}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
