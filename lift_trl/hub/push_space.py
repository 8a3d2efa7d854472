"""A Space to the Hub, with all that it needs to start: package, variables, secrets, hardware."""

import secrets as random
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from email.parser import Parser
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, RepoCard, Volume
from packaging.requirements import Requirement

from ..hub_source import HubSource, NamedSource
from ..store.disk.programs import ProgramError, run_program
from .push import Pushed, artifact_kind
from .pushing.files import README, artifact_files, note_what_stays
from .pushing.repository import add_to_collection, commit_files, insist, open_repo, push_title


REQUIREMENTS = "requirements.txt"
PACKAGE = "lift-trl"
#: Anonymous voters are named by hashes with this secret; it is made with the first push and stays.
SALT = "SALT"
TOKEN = "HF_TOKEN"
#: Where the pages keep their rows if it can be written to.
DATA_DIR = "/data"


def push_space(
    folder: Path | str,
    repo_id: str,
    *,
    variables: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    hardware: str | None = None,
    storage: str | None = None,
    private: bool | None = None,
    wheel: Path | str | None = None,
    collection: str | None = None,
    token: str | None = None,
) -> Pushed:
    """
    Pushes a Space and sets it up; variables, secrets, hardware and storage are there before its first start.

    The wheel of lift_trl goes along unpacked, beside `app.py`: a Space installs its requirements before it sees its own
    files, and a wheel's address in a private Space needs a token. Its dependencies go to `requirements.txt`.

    Args:
        folder: with `app.py`, `README.md` (the Space's card) and `requirements.txt`.
        variables: `BASE`, `ADAPTERS`, `CRITIC`, `GALLERY`, ...: what the app reads; models and datasets among them are
            linked in the card.
        secrets: for instance `HF_TOKEN`. `SALT` is made if the Space has none.
        hardware: for instance `zero-a10g` or `t4-small`; unchanged by default.
        storage: a storage bucket (`user/name`, made private if it is not there) that is mounted at `/data`, where the pages
            keep their rows; unchanged by default.
        wheel: of lift_trl; built from the checkout by default.

    Raises:
        FileNotFoundError: if `folder` is no Space.
        ValueError: if `requirements.txt` does not name lift_trl, the Space is there and not as `private` as it should be or
            another one, or nothing lets it write to its `VOTES_REPO`.
    """
    path = Path(folder)
    if artifact_kind(path) != "space":
        raise FileNotFoundError(f"{folder}: no Space; it needs app.py and {README}.")
    variables, own = dict(variables or {}), dict(secrets or {})
    api = HfApi(token=token)
    is_there = insist(lambda: api.repo_exists(repo_id, repo_type="space"))
    known = {*own, *(insist(lambda: api.get_space_secrets(repo_id)) if is_there else ())}
    if "VOTES_REPO" in variables and TOKEN not in known:
        raise ValueError(
            f"VOTES_REPO={variables['VOTES_REPO']}: without the secret {TOKEN} the Space cannot write there. Export a token "
            f"that may, and add --secret {TOKEN}."
        )
    if SALT not in known:
        own[SALT] = random.token_hex(32)
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(wheel) if wheel else build_wheel(Path(scratch))
        files = {name: CommitOperationAdd(name, path / name) for name in artifact_files(path, "space")}
        note_what_stays(path, "space", files)
        files |= {name: CommitOperationAdd(name, data) for name, data in _unpacked(built).items()}
        requirements = space_requirements((path / REQUIREMENTS).read_text(encoding="utf-8"), built)
        files[REQUIREMENTS] = CommitOperationAdd(REQUIREMENTS, requirements.encode())
        files[README] = CommitOperationAdd(README, _card(api, path, variables).encode())
        open_repo(api, repo_id, "space", "space", private=private, space_sdk="gradio", space_hardware=hardware)
        if hardware is not None and is_there:
            insist(lambda: api.request_space_hardware(repo_id, hardware))  # type: ignore[arg-type]
        if storage is not None:
            _mount(api, repo_id, storage)
        for name, value in variables.items():
            insist(partial(api.add_space_variable, repo_id, name, value))
        for name, value in own.items():
            insist(partial(api.add_space_secret, repo_id, name, value))
        commit = commit_files(api, repo_id, "space", list(files.values()), message=push_title("space"), kept=files)
    if collection is not None:
        add_to_collection(api, collection, repo_id, "space", note="demo")
    return Pushed(f"{api.endpoint}/spaces/{repo_id}", repo_id, "space", commit)


def _mount(api: HfApi, repo_id: str, bucket: str) -> None:
    """Mounts `bucket` at `/data`; other volumes of the Space stay."""
    insist(lambda: api.create_bucket(bucket, private=True, exist_ok=True))
    there = insist(lambda: api.get_space_runtime(repo_id)).volumes or []
    volumes = [volume for volume in there if volume.mount_path != DATA_DIR]
    volumes.append(Volume(type="bucket", source=bucket, mount_path=DATA_DIR))
    insist(lambda: api.set_space_volumes(repo_id, volumes))


def build_wheel(folder: Path) -> Path:
    """
    The wheel of the checkout that this module belongs to.

    Raises:
        FileNotFoundError: if lift_trl was installed from a wheel: then give that wheel.
        ProgramError: if the build fails.
    """
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        raise FileNotFoundError("lift_trl does not run from a checkout; pass its wheel (--wheel lift_trl-*.whl).")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    try:
        run_program(command)
    except ProgramError as error:
        raise ProgramError(
            f"{error}. Install what builds wheels (pip install build hatchling), or pass --wheel."
        ) from error
    (wheel,) = folder.glob("lift_trl-*.whl")
    return wheel


def _unpacked(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        # The Hub refuses empty folders, not empty files.
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def space_requirements(text: str, wheel: Path) -> str:
    """
    A Space's requirements with lift_trl replaced by its dependencies, of the extras that were asked for.

    Raises:
        ValueError: if lift_trl is not among the requirements.
    """
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        needed = [
            Requirement(line) for line in Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or ()
        ]
    lines: list[str] = []
    found = False
    for line in (line.strip() for line in text.splitlines()):
        asked = Requirement(line) if line and not line.startswith(("#", "-")) else None
        if asked is None or asked.name.replace("_", "-") != PACKAGE:
            lines.append(line)
            continue
        found = True
        extras: Sequence[str] = ["", *sorted(asked.extras)]
        for requirement in needed:
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                requirement.marker = None
                lines.append(str(requirement))
    if not found:
        raise ValueError(f"{REQUIREMENTS} does not name {PACKAGE}; add a line `{PACKAGE}[ui]`.")
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _card(api: HfApi, folder: Path, variables: Mapping[str, str]) -> str:
    """The Space's card with the models and datasets that its variables name."""
    card: Any = RepoCard.load(folder / README)
    linked: dict[str, list[str]] = {"models": [], "datasets": []}
    for value in variables.values():
        for entry in value.split(","):
            name = HubSource.parse(NamedSource.parse(entry).source).repo_id
            for kind in linked:
                repo_type = kind.removesuffix("s")
                if name.count("/") == 1 and api.repo_exists(name, repo_type=repo_type):
                    linked[kind].append(name)
    for kind, names in linked.items():
        if names:
            card.data[kind] = sorted(set(names))
    return str(card)
