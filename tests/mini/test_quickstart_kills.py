"""`recipes/mini.sh`, over fewer steps, killed by SIGKILL in every stage, against a run that nobody disturbed."""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from lift_trl.hub.lora.origin import adapter_identity
from lift_trl.store.manifest import METADATA_FILE, read_rows
from tests.structure.source import RECIPES


pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

#: What the YAMLs say, and what this test makes of it.
SMALLER = {
    "num_inference_steps": 4,
    "validation_num_inference_steps": 4,
    "videos_per_prompt": 1,
    "batch_size": 8,
    "max_steps": 6,
    "save_steps": 2,
    "per_device_train_batch_size": 6,
    "rows_per_shard": 16,
    "num_audit_clips": 4,
}


class Stage(NamedTuple):
    """
    Where to kill: while a process with all of `words` in its command line is at work.

    Args:
        begun: pattern of a file that shows that it is.
        said: or what it then writes to the log; what has neither is killed half a second after it appeared.
    """

    words: tuple[str, ...]
    begun: str = ""
    said: str = ""


STAGES = (
    Stage(("mini-world",), "world/real/*.mp4"),
    Stage(("generate.py", "to_rate"), "to_rate/videos/*.mp4"),
    Stage(("mini-rate", "rated")),
    Stage(("train_critic.py",), "critic/checkpoint-2/trainer_state.json"),
    Stage(("generate.py", "generate.yaml"), "generated/videos/*.mp4"),
    Stage(("score.py", "score.yaml"), "scored/*"),
    Stage(("cache.py",), "cache/shards/*"),
    Stage(("align.py", "align_rwl"), "lora_rwl/checkpoint-2/trainer_state.json"),
    Stage(("align.py", "align_sft"), "lora_sft/checkpoint-4/*"),
    Stage(("generate.py", "eval_rwl"), "eval_rwl/videos/*.mp4"),
    Stage(("score.py", "scored_rwl"), "scored_rwl/*"),
    Stage(("align.py", "align_kto"), "lora_kto/checkpoint-2/trainer_state.json"),
    Stage(("evaluate_critic.py",), "critic_eval/*"),
    Stage(("evaluate.py",), said="pixel statistics of"),
)


def plant(root: Path) -> Path:
    """A copy of the recipes with smaller figures; returns where their script will write."""
    shutil.copytree(RECIPES, root / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (root / "recipes" / "configs" / "mini").glob("*.yaml"):
        text = path.read_text()
        for name, value in SMALLER.items():
            text = re.sub(rf"^{name}: \S+", f"{name}: {value}", text, flags=re.MULTILINE)
        # A critic of six steps may call no clip Good in all, and then KTO has nothing to learn from.
        path.write_text(text.replace("objective: kto", "objective: rwl"))
    script = root / "recipes" / "mini.sh"
    script.write_text(
        script.read_text()
        .replace("--videos_per_prompt 2", "--videos_per_prompt 1")
        .replace("--max_steps 120 --per_device_train_batch_size 32", "")
    )
    return root / "runs" / "mini"


def start(root: Path) -> psutil.Popen:
    """The script as a user starts it."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with (root / "log").open("a") as log:
        return psutil.Popen(
            ["bash", "recipes/mini.sh"], cwd=root, env={**os.environ, "PATH": path}, stdout=log, stderr=log
        )


def finish(root: Path) -> None:
    """Runs it to the end."""
    assert start(root).wait() == 0, (root / "log").read_text()[-4000:]


def kill_in(stage: Stage, root: Path, folder: Path) -> None:
    """Starts the script and kills it with all that it started, once the stage is at work."""
    (root / "log").write_text("")
    script = start(root)
    wait_until(lambda: at_work(script, stage), script, root)
    if stage.begun:
        wait_until(lambda: any(folder.glob(stage.begun)), script, root)
    elif stage.said:
        wait_until(lambda: stage.said in (root / "log").read_text(), script, root)
    else:
        time.sleep(0.5)
    assert at_work(script, stage), f"{stage} was over before it could be killed."
    for process in [*script.children(recursive=True), script]:
        process.kill()
    script.wait()


def wait_until(holds: Callable[[], bool], script: psutil.Popen, root: Path) -> None:
    """Looks every 5 ms; fails if the script ends before."""
    while not holds():
        assert script.poll() is None, (root / "log").read_text()[-4000:]
        time.sleep(0.005)


def at_work(script: psutil.Popen, stage: Stage) -> bool:
    """Whether one of the script's processes is the stage's."""
    for process in script.children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if all(word in line for word in stage.words):
            return True
    return False


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run came to: hashes of clips and weights, rows of the manifests, the report's figures."""
    files = [*folder.glob("*/videos/*.mp4"), *folder.glob("critic/*.safetensors")]
    found: dict[str, Any] = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    # Their content: the bytes of a LoRA that was saved again differ by the order of the metadata.
    found |= {path.name: adapter_identity(path).rpartition("@")[2] for path in folder.glob("lora_*")}
    for path in [*folder.glob(f"*/{METADATA_FILE}"), folder / "critic_eval" / "figures.jsonl"]:
        found[str(path.relative_to(folder))] = sorted(json.dumps(row, sort_keys=True) for row in read_rows(path))
    found["report"] = json.loads((folder / "report" / "report.json").read_text())
    return found


def test_killed_in_every_stage_it_ends_as_if_undisturbed(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    folders = {root: plant(root) for root in (undisturbed, killed)}
    finish(undisturbed)
    for stage in STAGES:
        kill_in(stage, killed, folders[killed])
    finish(killed)
    expected, found = outcome(folders[undisturbed]), outcome(folders[killed])
    assert len([name for name in expected if name.endswith(".mp4")]) == 6 * 48
    assert {name for name in expected if expected[name] != found.get(name)} == set()
    assert found.keys() == expected.keys()
