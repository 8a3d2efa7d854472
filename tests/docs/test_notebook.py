"""The notebook runs from top to bottom, over fewer videos and steps than it shows, in a kernel that is a fork."""

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.processes import Job


NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "quickstart.ipynb"
REDUCED = {
    "NUM_PROMPTS": 8,
    "RATED_PER_PROMPT": 1,
    "TRAIN_PER_PROMPT": 1,
    "EVAL_PER_PROMPT": 1,
    "NUM_REAL": 5,
    "SAMPLING_STEPS": 4,
    "BATCH_SIZE": 6,
    "CRITIC_STEPS": 4,
    "ALIGN_STEPS": 3,
}


def kernel(folder: Path, arguments: list[str]) -> None:
    """The target of a [`Job`]: `python -m ipykernel_launcher` with these arguments."""
    from ipykernel.kernelapp import launch_new_instance

    os.chdir(folder)
    launch_new_instance(argv=arguments)


class ForkedKernel(AsyncKernelManager):
    """Starts the kernel as a fork that has imported the libraries."""

    def __init__(self, folder: Path) -> None:
        super().__init__(owns_kernel=False, connection_file=str(folder / "connection.json"))
        self.folder = folder

    async def start_kernel(self, *, extra_arguments: list[str], **options: Any) -> None:
        self.write_connection_file()
        arguments = ["-f", self.connection_file, *extra_arguments]
        self.job = Job(self.folder / "kernel.log", kernel, self.folder, arguments)

    async def is_alive(self) -> bool:
        return self.job.running()


@pytest.mark.timeout(300)
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for name, value in REDUCED.items():
        parameters.source, replaced = re.subn(rf"^{name} = \d+", f"{name} = {value}", parameters.source, flags=re.M)
        assert replaced == 1
    manager = ForkedKernel(tmp_path)
    executed = NotebookClient(notebook, km=manager, timeout=240).execute()
    manager.job.kill()
    printed = "".join(out.get("text", "") for cell in executed.cells for out in cell.get("outputs", []))
    for name in ("base", "sft", "rwl"):
        assert len(list((tmp_path / "runs" / "notebook" / f"eval_{name}" / "videos").glob("*.mp4"))) == 8
        assert f"'{name}': 0." in printed
    gain = re.search(r"rwl - base: ([+-]\d\.\d{3}), 95 % interval ([+-]\d\.\d{3}) to ([+-]\d\.\d{3})", printed)
    assert gain and float(gain[2]) <= float(gain[1]) <= float(gain[3])
    assert any("<video" in str(out.get("data", {})) for cell in executed.cells for out in cell.get("outputs", []))
