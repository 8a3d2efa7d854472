"""What every test shares: a quiet and private environment, real input and a browser where there are any."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path


# These are read when huggingface_hub, datasets and torch are first imported, so they are set before any such import.
os.environ["HF_HUB_DISABLE_XET"] = "1"  # uploads to the local Hub of tests/hub need the LFS path
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A private home for the libraries: no test reads the user's token or cache, none fills it.
_HF_HOME = tempfile.mkdtemp(prefix="lift_trl_tests_")
atexit.register(shutil.rmtree, _HF_HOME, ignore_errors=True)
os.environ["HF_HOME"] = _HF_HOME
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
    os.environ.pop(_name, None)

from tests.hub.environment import use_local_hub  # noqa: E402  (the environment comes first)


use_local_hub()

import pytest  # noqa: E402

from tests.clips import make_clip  # noqa: E402, F401  (fixtures)
from tests.hub.fixtures import hub, local_hub  # noqa: E402, F401
from tests.judges.tiny_video_score import judge_checkpoint, tiny_judge  # noqa: E402, F401
from tests.processes import start_server  # noqa: E402
from tests.vbench.suites import suite, suite_file  # noqa: E402, F401


REAL_DATA = "LIFT_TRL_REAL_DATA"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests on real input where there is none, with the remedy as the reason."""
    if os.environ.get(REAL_DATA):
        return
    for item in items:
        if item.get_closest_marker("real"):
            target = "test-all" if item.get_closest_marker("slow") else "test-real"
            item.add_marker(pytest.mark.skip(reason=f"{REAL_DATA} is not set: make {target} {REAL_DATA}=DIR"))


# Nothing that the collection imports is garbage, and to look for some takes a quarter of its time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Outside of what pytest itself wraps around the tests: forks log and warn as processes of their own do."""
    if session.items:  # those who only hand them out to others have none
        start_server()
    return (yield)


@pytest.fixture(scope="module", autouse=True)
def _modules_are_not_garbage() -> None:
    """
    Keeps what is in memory before a file's tests out of the search for garbage.

    Half a million objects of imported libraries would be searched each time a model is let go: half of all the time of
    the tests that load models. What a test makes is searched as ever.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real input (`clips/`, `critic/`, `hra/`), read only; for tests marked `real`."""
    folder = os.environ.get(REAL_DATA)
    if not folder:
        pytest.skip(f"{REAL_DATA} is not set: make test-real {REAL_DATA}=DIR")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"{REAL_DATA}={folder} is not a folder.")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for playwright's `executable_path`; for tests marked `browser`."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    message = f"none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)"
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but {message}")
    pytest.skip(message)
