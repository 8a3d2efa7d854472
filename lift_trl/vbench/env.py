"""VBench's own environment: made by pip, looked at, and the weights that its dimensions read."""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ..store.disk.outputs import claim_folder
from ..store.disk.programs import ProgramError, run_program
from ..store.manifest import write_text
from .check import Problem
from .suite import DIMENSIONS, FLICKERING, STATIC_FILTER_WEIGHTS, WeightFile


logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
#: vbench 0.1.5 names no torch. 2.5.1 is the last that loads VBench's checkpoints as they are; it runs with numpy 1.26,
#: transformers 4.33.2 and decord 0.6.0 on Python 3.11 (checked on a CPU for temporal_flickering).
REQUIREMENTS = ("vbench==0.1.5", "torch==2.5.1", "torchvision==0.20.1")
MARKER = "lift_trl_vbench.json"
#: In an environment from its beginning, so that nothing is installed into one that is somebody's own.
BEGUN = ".lift_trl_vbench_begun"
#: vbench pins transformers 4.33.2, whose tokenizers<0.14 has wheels for Python 3.11 at most; torch 2.5.1 needs 3.9.
PYTHONS = ((3, 9), (3, 11))
#: What VBench-Long imports beyond VBench, and the version that no longer has what it imports (moviepy.editor,
#: torchvision.io.write_video).
LONG_PACKAGES: Mapping[str, tuple[int, int] | None] = {
    "scenedetect": None, "moviepy": (2, 0), "torchvision": (0, 26),
}  # fmt: skip
LONG_REMEDY = "pip install 'scenedetect[opencv]' 'moviepy<2' 'torchvision<0.26' dreamsim"


@dataclass(frozen=True)
class VBenchEnvironment:
    """
    A Python that can import vbench.

    Attributes:
        python: its interpreter.
        checkout: a git checkout of VBench that goes before installed packages, if any. VBench-Long needs one.
        cache: VBENCH_CACHE_DIR, the folder of the weights.
    """

    python: Path
    cache: Path
    checkout: Path | None = None

    def worker(self, *options: str) -> list[str]:
        """The command line that runs the worker in this environment."""
        checkout = [] if self.checkout is None else ["--checkout", str(self.checkout)]
        return [str(self.python), "-I", str(WORKER), *checkout, *options]

    def variables(self) -> dict[str, str]:
        """The process environment of the worker."""
        return {**os.environ, "VBENCH_CACHE_DIR": str(self.cache)}

    def probe(self) -> dict[str, Any]:
        """
        What this environment holds: versions, GPU, extras.

        Raises:
            FileNotFoundError: if there is no such interpreter.
            ProgramError: with the worker's own message if it does not even start.
        """
        return dict(_probe(self))


@cache
def _probe(environment: VBenchEnvironment) -> dict[str, Any]:
    """Once a process: an evaluation of several systems asks for each."""
    try:
        lines = run_program(environment.worker("--probe"), env=environment.variables()).splitlines()
        found: dict[str, Any] = dict(json.loads(lines[-1] if lines else ""))
    except (ProgramError, ValueError, TypeError) as error:
        raise ProgramError(
            f"{environment.python} cannot run VBench's worker ({error}). Name the Python of an environment that has vbench: "
            "--python PATH."
        ) from error
    return found


def default_cache() -> Path:
    """VBench's own rule: `VBENCH_CACHE_DIR`, else `~/.cache/vbench`."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


def make_environment(
    folder: Path | str, *, requirements: Sequence[str] = REQUIREMENTS, python: Path | str = sys.executable
) -> Path:
    """
    A virtual environment at `folder` with `requirements`, and the path of its interpreter. Made once: a marker with the
    installed versions is written last, so a killed installation is taken up again.

    Args:
        python: the interpreter that makes it and lives in it.

    Raises:
        FileExistsError: if `folder` holds what was not made here.
        ProgramError: with pip's last lines if the installation fails, or if `python` is none.
        ValueError: if `python` is of a version that the requirements have no wheels for.
    """
    root = Path(folder)
    interpreter = root / "bin" / "python"
    if (root / MARKER).is_file() and json.loads((root / MARKER).read_text(encoding="utf-8"))["requirements"] == list(
        requirements
    ):
        return interpreter
    said = run_program([str(python), "-c", "import sys; print(*sys.version_info[:2])"])
    if not re.fullmatch(r"\d+ \d+\s*", said):
        raise ProgramError(f"{python}: is no Python. Name one: --python PATH.")
    found = tuple(map(int, said.split()))
    if not PYTHONS[0] <= found <= PYTHONS[1]:
        raise ValueError(
            f"{python} is Python {found[0]}.{found[1]}; vbench 0.1.5 pins transformers 4.33.2, whose tokenizers<0.14 has no "
            "wheel for 3.12 or later, and torch 2.5.1 needs 3.9. Install Python 3.11, for instance by `uv python install "
            "3.11`, and name it: --python PATH."
        )
    logger.info("making VBench's environment at %s: %s (about 6 GB)", root, " ".join(requirements))
    if not (root / MARKER).is_file():
        claim_folder(root, BEGUN)
    run_program([str(python), "-m", "venv", str(root)])
    pip = [str(interpreter), "-m", "pip"]
    run_program([*pip, "install", "--disable-pip-version-check", *requirements])
    frozen = run_program([*pip, "freeze", "--disable-pip-version-check"]).splitlines()
    write_text(root / MARKER, json.dumps({"requirements": list(requirements), "installed": frozen}, indent=1))
    return interpreter


def needed_weights(dimensions: Sequence[str], *, static_filter: bool = False) -> dict[WeightFile, tuple[str, ...]]:
    """The files that `dimensions` read, each with the dimensions that need it."""
    needed: dict[WeightFile, list[str]] = {}
    for name in dimensions:
        filtering = STATIC_FILTER_WEIGHTS if static_filter and name == FLICKERING else ()
        for weight in (*DIMENSIONS[name].weights, *filtering):
            needed.setdefault(weight, []).append(name)
    return {weight: tuple(names) for weight, names in needed.items()}


def check_environment(
    environment: VBenchEnvironment,
    dimensions: Sequence[str],
    found: Mapping[str, Any],
    *,
    static_filter: bool = False,
    long: bool = False,
) -> list[Problem]:
    """
    Everything that `dimensions` miss in `environment`, by name: packages, weights, a GPU; empty if nothing.

    Args:
        found: what `environment.probe()` says.
    """
    problems: list[Problem] = []
    if not found["vbench"]:
        remedy = f"pip install {' '.join(REQUIREMENTS)}"
        return [Problem("package", "vbench", f"not installed for {environment.python}; {remedy}")]
    if long:
        problems += _long_problems(environment, dimensions, found)
    for name in dimensions:
        for module in DIMENSIONS[name].modules:
            if not found[module]:
                remedy = "build it from git before vbench, or use dims=no-detectron"
                problems.append(Problem("package", name, f"needs {module}, which is not installed; {remedy}"))
    for weight, names in needed_weights(dimensions, static_filter=static_filter).items():
        message = check_weight(environment.cache / weight.path, weight)
        if message:
            problems += [Problem("weights", name, f"{environment.cache / weight.path} {message}") for name in names]
    for model in sorted({m for name in dimensions for m in DIMENSIONS[name].hub_models}):
        problems.append(Problem("hub", model, "is loaded from the Hub or its cache by some dimensions", False))
    if found["gpu"] is None:
        if static_filter and FLICKERING in dimensions:
            problems.append(
                Problem("gpu", FLICKERING, "VBench's static filter runs on CUDA only, and there is no GPU")
            )
        problems.append(
            Problem("gpu", "all", "no GPU: days instead of minutes for all but temporal flickering", False)
        )
    return problems


def _long_problems(
    environment: VBenchEnvironment, dimensions: Sequence[str], found: Mapping[str, Any]
) -> Iterator[Problem]:
    """What VBench-Long misses; where it stops all dimensions, it is said of the package `vbench2_beta_long`."""
    if environment.checkout is None:
        yield Problem("package", "vbench2_beta_long", "VBench-Long needs a git checkout; give vbench_checkout")
    for package, bound in LONG_PACKAGES.items():
        version = re.match(r"(\d+)\.(\d+)", found[package] or "")
        if found[package] is None:
            yield Problem("package", "vbench2_beta_long", f"needs {package}, which is not installed; {LONG_REMEDY}")
        elif bound and version and (int(version[1]), int(version[2])) >= bound:
            older = f"{package} older than {bound[0]}.{bound[1]}"
            yield Problem("package", "vbench2_beta_long", f"needs {older}, found {found[package]}; {LONG_REMEDY}")
    for name in dimensions:
        if name in ("subject_consistency", "background_consistency") and found["dreamsim"] is None:
            yield Problem("package", name, f"needs dreamsim, which is not installed; {LONG_REMEDY}")
        if name == "subject_consistency" and not found["dinov2"]:
            message = (
                "DINOv2 (facebookresearch/dinov2, dinov2_vitb14) is fetched by torch.hub from GitHub when it starts"
            )
            yield Problem("hub", name, message, False)


def check_weight(path: Path, weight: WeightFile) -> str | None:
    """What is wrong with the file of `weight` at `path`, `None` if nothing."""
    if not path.is_file():
        return f"is missing; fetch {weight.url}"
    if weight.sha256 and not sha256(path).startswith(weight.sha256):
        return (
            f"is not the published file (sha256 does not begin with {weight.sha256[:16]}); delete and fetch it again"
        )
    return None


def sha256(path: Path) -> str:
    """The file's sha256 as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_weights(dimensions: Sequence[str], cache: Path, *, static_filter: bool = False) -> None:
    """
    Downloads what `dimensions` miss below `cache`, each file whole or not at all. One that cannot be had is logged, and
    `check_environment` then names the dimensions that need it: the others can run.
    """
    for weight in needed_weights(dimensions, static_filter=static_filter):
        path = cache / weight.path
        if path.is_file():
            continue
        logger.info("fetching %s", weight.url)
        try:
            fetch_weight(weight, path)
        except (OSError, HTTPException, ValueError) as error:
            logger.warning("%s could not be fetched: %s", weight.url, error)


def fetch_weight(weight: WeightFile, path: Path) -> None:
    """
    Fetches one file by its url: a plain file, a member of a zip, or a repository (`git+https`).

    Raises:
        OSError: if the address cannot be reached, or the file is cut short.
        ProgramError: if git fails.
        ValueError: if a zip does not hold the file.
    """
    if weight.url.startswith("git+"):
        clone = path.parent.with_name(f".{path.parent.name}.tmp")
        shutil.rmtree(clone, ignore_errors=True)  # of a killed one
        if (path.parent / ".git").is_dir():  # a clone without the file
            shutil.rmtree(path.parent)
        run_program(["git", "clone", "--depth", "1", weight.url.removeprefix("git+"), str(clone)])
        clone.rename(path.parent)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unpacked = partial.with_suffix(".member")
    try:
        with urllib.request.urlopen(weight.url) as response, open(partial, "wb") as file:
            shutil.copyfileobj(response, file)
            length = response.headers["Content-Length"]
        if length is not None and partial.stat().st_size != int(length):
            raise OSError(f"{partial.stat().st_size} of {length} bytes came")
        if weight.url.endswith(".zip"):
            _unpack(partial, path.name, unpacked)
            unpacked.replace(path)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        unpacked.unlink(missing_ok=True)


def _unpack(archive: Path, name: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [entry for entry in opened.namelist() if entry.endswith("/" + name)]
            if len(members) != 1:
                raise ValueError(f"the zip holds {name} {len(members)} times")
            with opened.open(members[0]) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"what came is no zip ({error})") from None
