"""One of two gloo processes: validation videos of a LoRA whose model is sharded as accelerate's FSDP2 shards it.

accelerate itself turns FSDP2 on a CPU into DDP, so its own preparation is called here with what it reads of an accelerator.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.tensor import DTensor

from lift_trl.alignment.data.video_dataset import CachedVideoDataset
from lift_trl.alignment.sampling.validation import ValidationVideos
from tests.alignment.validation_run import validating_trainer


def shard(model: torch.nn.Module) -> torch.nn.Module:
    """`model` after accelerate's FSDP2, wrapped by the blocks that its class names, as in fsdp2.yaml."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
    )
    state = SimpleNamespace(fsdp_plugin=plugin)
    accelerator = SimpleNamespace(
        state=state, mixed_precision="no", device=torch.device("cpu"), is_main_process=True, torch_device_mesh=None
    )
    return fsdp2_prepare_model(accelerator, model)


def main(pipeline_dir: Path, cache_dir: Path, output_dir: Path) -> None:
    trainer = validating_trainer(pipeline_dir, output_dir, CachedVideoDataset(cache_dir))
    model = shard(trainer.model)
    assert torch.distributed.get_world_size() == 2
    print("timeout:", torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, ValidationVideos))
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=model)
    trainer.state.global_step = 1
    callback.on_train_end(trainer.args, trainer.state, trainer.control, model=model)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
