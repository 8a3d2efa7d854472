"""Every accelerate YAML is read by accelerate itself, and means the strategy that its name says."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command, launch_command_parser
from accelerate.utils import DistributedType

from tests.processes import Job
from tests.structure.source import RECIPES


CONFIGS = RECIPES / "configs" / "accelerate"
SCRIPT = str(Path(__file__).with_name("print_state.py"))

# name: (distributed type, processes, machines, how accelerate launches it)
EXPECTED = {
    "cpu": (DistributedType.NO, 1, 1, None),
    "cpu_2": (DistributedType.MULTI_GPU, 2, 1, "multi_gpu"),
    "single_gpu": (DistributedType.NO, 1, 1, None),
    "multi_gpu": (DistributedType.MULTI_GPU, 8, 1, "multi_gpu"),
    "multi_node": (DistributedType.MULTI_GPU, 16, 2, "multi_gpu"),
    "fsdp2": (DistributedType.FSDP, 8, 1, "use_fsdp"),
    "zero2": (DistributedType.DEEPSPEED, 8, 1, "use_deepspeed"),
    "zero3": (DistributedType.DEEPSPEED, 8, 1, "use_deepspeed"),
}


def test_each_yaml_is_expected():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_it(name):
    path = str(CONFIGS / f"{name}.yaml")
    *expected, launcher = EXPECTED[name]
    config = load_config_from_file(path)  # raises on an unknown key
    assert [config.distributed_type, config.num_processes, config.num_machines] == expected
    assert config.mixed_precision == "no"

    parser = launch_command_parser()
    args, _, _ = _validate_launch_command(parser.parse_args(["--config_file", path, SCRIPT]))
    chosen = [flag for flag in ("multi_gpu", "use_fsdp", "use_deepspeed", "tpu") if vars(args)[flag]]
    assert chosen == ([launcher] if launcher else [])
    assert args.use_cpu is name.startswith("cpu")


@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3"])
def test_nested_keys_are_options_of_the_launcher(name):
    """accelerate sets any nested key as an attribute, also a mistyped one."""
    known = {action.dest for action in launch_command_parser()._actions}
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    nested = {**config.get("fsdp_config", {}), **config.get("deepspeed_config", {})}
    assert nested and set(nested) <= known


def test_strategies_are_what_the_names_say():
    parser = launch_command_parser()
    args = {
        name: _validate_launch_command(parser.parse_args(["--config_file", str(CONFIGS / f"{name}.yaml"), SCRIPT]))[0]
        for name in ("fsdp2", "zero2", "zero3")
    }
    assert int(args["fsdp2"].fsdp_version) == 2
    assert (int(args["zero2"].zero_stage), int(args["zero3"].zero_stage)) == (2, 3)


@pytest.mark.parametrize("name", ["single_gpu", "multi_gpu", "multi_node", "fsdp2", "zero2", "zero3"])
def test_what_never_ran_on_a_gpu_says_so(name):
    assert "never run on" in (CONFIGS / f"{name}.yaml").read_text()


def launch(*words: str) -> None:
    """The target of a [`Job`]: `accelerate launch` with these words."""
    launch_command(launch_command_parser().parse_args(words))


def test_cpu_is_one_process(monkeypatch, tmp_path):
    """And `cpu_2` is one job of two: see `test_two_processes_equal_one` in tests/invariants/test_trajectories.py."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)  # the launcher of a surrounding job must not leak into this one
    output = Job(tmp_path / "log", launch, "--config_file", str(CONFIGS / "cpu.yaml"), SCRIPT).finish()
    assert [line for line in output.splitlines() if line.startswith("state ")] == ["state 1 0 None 1"]
