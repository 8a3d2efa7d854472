"""Processes and logging: which process this is, which strategy really runs, and one way to run a trainer."""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.logging import get_logger

from .store.weights import broken_file


if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer

logger = get_logger(__name__)

#: How long processes wait for one another. The libraries' 10 (NCCL) or 30 minutes would abort a job at its last barrier when
#: one process has hours of work more than another; a process that dies ends the job at once, through its launcher.
PROCESS_TIMEOUT = timedelta(days=7)


def has_accelerator() -> bool:
    """Whether this machine has a GPU (or another device that torch trains on)."""
    return torch.accelerator.is_available()


def process_state(*, use_cpu: bool | None = None) -> PartialState:
    """
    The state of this process among those that the launcher started.

    Args:
        use_cpu: compute on the CPU; by default where there is no accelerator.

    Raises:
        RuntimeError: if the launcher started a world that did not form. Each process would then take itself for the
            only one, and all would write to one folder.
    """
    state = PartialState(cpu=not has_accelerator() if use_cpu is None else use_cpu, timeout=PROCESS_TIMEOUT)
    check_world(state.num_processes)
    return state


def check_world(num_processes: int) -> None:
    """
    Raises:
        RuntimeError: if `num_processes` is not what the launcher started (environment variable `WORLD_SIZE`).
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != num_processes:
        raise RuntimeError(
            f"the launcher started {launched} processes, but this one sees {num_processes}: they would run as separate "
            "jobs over one output folder. Use recipes/configs/accelerate/cpu_2.yaml on a CPU, and check the YAML's "
            "distributed_type."
        )


@contextmanager
def leaving_processes() -> Iterator[None]:
    """
    Leaves the process group after the body, as every launched script must.

    A process that ends with the group still open tears its threads down with the interpreter, and now and then aborts
    ("terminate called without an active exception", exit code -6) after all its work is done. A body that raises leaves
    the group to the launcher, since closing it could wait for processes that no longer answer.
    """
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def strategy(accelerator: "Accelerator") -> str:
    """
    What really runs, in words: number of processes, their backend, and how the model is spread over them.

    accelerate turns some wishes silently into others (FSDP on a CPU into DDP); this reads what came of them.
    """
    state = accelerator.state
    kind = state.distributed_type.value
    if kind == "NO" or accelerator.num_processes == 1 and "DEEPSPEED" not in kind:
        spread = "one process"
    elif kind == "DEEPSPEED":
        spread = f"DeepSpeed ZeRO-{state.deepspeed_plugin.zero_stage}"
    elif kind == "FSDP":
        spread = f"FSDP{state.fsdp_plugin.fsdp_version}"
    else:
        spread = f"DDP ({state.backend})"
    return (
        f"{spread}, {accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"mixed precision {accelerator.mixed_precision}"
    )


def setup_logging(state: PartialState) -> None:
    """Messages of `info` and above on the main process, warnings on the others, with the rank where there are several."""
    rank = f" rank {state.process_index}" if state.num_processes > 1 else ""
    logging.basicConfig(format=f"%(asctime)s{rank} %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("lift_trl").setLevel(logging.INFO if state.is_main_process else logging.WARNING)


def release_memory() -> None:
    """Gives the memory of dropped models back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class ResumableTrainer:
    """
    Put before a `Trainer` among the bases: it resumes from whole checkpoints only, and a finished run trains no further.

    Stock looks at `max_steps` only after a step, so a run that ended within an epoch gets one step more each time that it
    is started again, and what was made from its weights no longer fits them.
    """

    args: Any
    state: Any

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Stock; `True` is the newest whole checkpoint of `output_dir`.

        Raises:
            ValueError: if there is none, or a file of the named one is missing or cut off.
        """
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            checkpoint = last_checkpoint(self.args.output_dir)
            if checkpoint is None:
                raise ValueError(f"{self.args.output_dir}: no whole checkpoint. Leave resume_from_checkpoint out.")
        elif checkpoint and (broken := broken_file(Path(checkpoint))):
            raise ValueError(f"{broken}: missing or cut off. Resume from another checkpoint, or leave it to the run.")
        return super().train(checkpoint, *args, **kwargs)  # type: ignore[misc]  # the Trainer's

    # Private in transformers 5.24: _run_epoch. When it goes,
    # `test_a_finished_run_that_is_started_again_changes_nothing` fails.
    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]  # the Trainer's


def fit(trainer: "Trainer") -> None:
    """
    Trains from the last checkpoint of `output_dir` where there is one, then saves and, if asked for, pushes.

    `resume_from_checkpoint: <path>` names another checkpoint; a run that is to start anew needs another `output_dir`.

    Raises:
        FileExistsError: if `output_dir` is another stage's artefact.
    """
    from .store.manifest import check_kind  # not for `--help`

    args = trainer.args
    check_kind(args.output_dir or ".", "critic", "lora")
    resume = args.resume_from_checkpoint
    if resume is None:
        resume = last_checkpoint(args.output_dir)
        if resume is not None:
            logger.info("resuming from %s", resume)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()
    trainer.save_state()
    if args.push_to_hub:
        trainer.push_to_hub()


def last_checkpoint(output_dir: str | Path | None) -> str | None:
    """The newest whole checkpoint of `output_dir`, or `None`; of each that is passed over the broken file is logged."""
    folders = [
        folder for folder in Path(output_dir or ".").glob("checkpoint-*") if folder.name.split("-")[-1].isdigit()
    ]
    newest_first = sorted(folders, key=lambda folder: int(folder.name.split("-")[-1]), reverse=True)
    for folder in newest_first:
        broken = broken_file(folder)
        if broken is None:
            return str(folder)
        logger.warning("%s is missing or cut off: its checkpoint is passed over", broken)
    return None
