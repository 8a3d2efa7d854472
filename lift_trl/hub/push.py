"""One artefact folder to the Hub by its kind: files first, then the commit that makes them a whole artefact."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, RepoCard, SpaceCardData

from ..published import published
from ..store.manifest import ARTIFACT_FILE, METADATA_FILE, Artifact, read_rows, rows_text
from .artifact_cards import artifact_card
from .front_matter import pretty_name, tags, with_licence
from .gallery import GALLERY, gallery_files, validation_pairs, with_gallery
from .pushed_base import check_pushed_base, with_base
from .pushing.files import README, REPORT_PAGE, artifact_files, note_what_stays
from .pushing.repository import BATCH, add_to_collection, commit_files, insist, open_repo, push_title


#: Kind -> (type of repository, private). `None` leaves it to the account's default.
KINDS: dict[str, tuple[str, bool | None]] = {
    "hra": ("dataset", True),  # people's ratings are inside
    "generated": ("dataset", None),
    "scored": ("dataset", None),
    "cache": ("dataset", True),  # labels and rewards of every clip, which may be people's
    "report": ("dataset", None),
    "critic": ("model", None),
    "lora": ("model", None),
    "space": ("space", None),
}
LORA_FILES = ("pytorch_lora_weights.safetensors", "transformer/config.json")
#: Datasets are read by patterns of file names, so a stale shard of an earlier push would count as data.
_MIRRORED = ("hra", "generated", "scored", "cache")
#: Columns of rows that name models.
_MADE_BY = ("model", "adapter", "critic")
#: `![a plot](images/a.png)`, `<img src="images/a.png">`.
_LINKED = re.compile(r"""(?:\]\(|src=["'])([^)"'\s:#]+)""")
#: What a reader knows an artefact by goes last.
_PAGES = (ARTIFACT_FILE, METADATA_FILE, README)
#: The Hub's limit. Source: https://huggingface.co/docs/hub/storage-limits
_MAX_FOLDER_FILES = 10_000


class Pushed(NamedTuple):
    """Where an artefact is: its page, its repository and the commit."""

    url: str
    repo_id: str
    repo_type: str
    commit: str

    def __str__(self) -> str:
        return f"{self.url} ({self.repo_type}, commit {self.commit[:12]})"


def artifact_kind(folder: Path | str) -> str:
    """
    What `folder` is, a key of `KINDS`.

    Raises:
        FileNotFoundError: if it is nothing that can be pushed, or is not finished.
    """
    path = Path(folder)
    if (path / ARTIFACT_FILE).is_file():
        kind = Artifact.load(path).kind
        if kind in KINDS:
            return kind
    if any((path / name).is_file() for name in LORA_FILES):
        return "lora"
    if (path / "app.py").is_file() and (path / README).is_file():
        return "space"
    raise FileNotFoundError(
        f"{folder}: neither a finished artefact ({ARTIFACT_FILE}: {', '.join(KINDS)}), nor a LoRA, nor a Space (app.py and "
        f"{README}). Name the output_dir of a finished stage."
    )


def push(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    license: str | None = None,
    collection: str | None = None,
    base_model: str | None = None,
    token: str | None = None,
) -> Pushed:
    """
    Pushes an artefact with its card; call it again after an interruption, what the Hub has is not sent again.

    Large files go first and are no part of any commit; one commit then shows everything. So a reader sees the former
    artefact or the new one, never a mixture. More than 256 files go in several commits: the first takes away
    `artifact.yaml`, the last brings it, so that what is under way is no artefact.

    A LoRA's card shows clips of the base beside its own: those of a report's `cards`, else of its validation. A report goes
    to a dataset and its page to a static Space of the same name.

    Args:
        folder: an artefact that a stage finished, or the `output_dir` of `align`.
        repo_id: `user/name`, made if it is not there.
        private: by default true for `hra` and `cache`, which hold people's ratings, else as the repository is, a new one by
            the account's default. Where clips go along it must be said.
        license: for the card; by default the base's with its name and link, for data `other`: the parents' hold.
        collection: title of a collection of the same owner that the repository is added to, made if it is not there.
        base_model: of a critic or LoRA that was trained on a local folder: the same model on the Hub, `user/name`.

    Raises:
        FileNotFoundError: if the folder holds no finished artefact.
        ValueError: if it is a Space, which needs `push_space`; if nobody said who may see clips that go along; if the
            repository is there and not as `private` as it should be, or holds something else; if a folder has more files
            than the Hub takes; if a critic's or LoRA's base is not on the Hub; or if the Hub refuses the card, for instance
            for a `license` that it does not know, or the card shows a clip that is not there.
    """
    path, kind = Path(folder), artifact_kind(folder)
    if kind == "space":
        raise ValueError(f"{folder} is a Space; push_space sets its variables, secrets and hardware too.")
    repo_type, default_private = KINDS[kind]
    _check_who_may_see(path, kind, private)
    api = HfApi(token=token)
    if base_model and kind not in ("critic", "lora"):
        raise ValueError(f"base_model: {folder} is a {kind} artefact, which is loaded on no model. Leave it out.")
    card, contents = _contents(api, path, repo_id, kind, license, base_model)
    files = {name: CommitOperationAdd(name, content) for name, content in contents.items()}
    _check_folders(path, files)
    insist(lambda: RepoCard(card).validate(repo_type))  # the Hub's own check, before anything is sent
    repo = open_repo(api, repo_id, repo_type, kind, private=default_private if private is None else private)
    page = kind == "report" and REPORT_PAGE in files
    note_what_stays(path, kind, files)
    if page:  # as visible as the report: it holds all of it
        open_repo(api, repo_id, "space", kind, private=repo.private, space_sdk="static")
    if len(files) > BATCH:
        _commit_payload(api, repo_id, repo_type, files, push_title(kind))
        pages = [files[name] for name in _PAGES if name in files]
    else:
        pages = list(files.values())
    kept = files if kind in _MIRRORED else None
    commit = commit_files(api, repo_id, repo_type, pages, message=push_title(kind), kept=kept)
    if page:
        _push_page(api, path, repo_id)
    if collection is not None:
        add_to_collection(api, collection, repo_id, repo_type, note=kind)
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    return Pushed(f"{api.endpoint}/{prefix}{repo_id}", repo_id, repo_type, commit)


def _contents(
    api: HfApi, folder: Path, repo_id: str, kind: str, license: str | None, base_model: str | None
) -> tuple[str, Mapping[str, Path | bytes]]:
    """The card, and every file by its name in the repository, the card among them."""
    files: dict[str, Path | bytes] = {name: folder / name for name in artifact_files(folder, kind)}
    if ARTIFACT_FILE in files:
        files[ARTIFACT_FILE] = Artifact.load(folder).published().to_yaml().encode()
    if METADATA_FILE in files:
        files[METADATA_FILE] = _published_rows(folder / METADATA_FILE)
    if kind == "lora":
        card, clips = _gallery(folder, _lora_card(folder, repo_id, license))
        files |= {**_pictures(folder, card), **clips}
    else:
        card = artifact_card(folder, repo_id, license=license or "other")
    if kind in ("critic", "lora"):
        check_pushed_base(api, folder, card, base_model)
        changed = with_base(folder, card, base_model) if base_model else {}
        files |= changed
        card = changed.get(README, card.encode()).decode()
        card = with_licence(api, card) if license is None else card
    return card, files | {README: card.encode()}


def _published_rows(file: Path) -> bytes:
    """The rows, of which the models and judges that they name may be folders of this machine."""
    rows = ({**row, **published({name: row[name] for name in _MADE_BY if name in row})} for row in read_rows(file))
    return rows_text(rows).encode()


def _gallery(folder: Path, card: str) -> tuple[str, Mapping[str, Path]]:
    """
    The card with its clips, and these by their names in the repository: those that it shows, else those of the training's
    validation. What an earlier report left in the folder, and the card no longer shows, stays here.

    Raises:
        ValueError: if the card shows a clip that is not there.
    """
    widget = ModelCard(card).data.to_dict().get("widget") or []
    shown = [entry["output"]["url"] for entry in widget if "output" in entry]
    local = {name: folder / name for name in shown if "://" not in name}
    if gone := [name for name, clip in local.items() if not clip.is_file()]:
        raise ValueError(
            f"{folder / README} shows {', '.join(gone)}, which {'is' if len(gone) == 1 else 'are'} not there. Write the "
            "clips anew (lift-trl eval report --cards), or take `widget` out of the card."
        )
    pairs = [] if shown else validation_pairs(folder)
    return (with_gallery(card, pairs), gallery_files(pairs)) if pairs else (card, local)


def _pictures(folder: Path, card: str) -> dict[str, Path | bytes]:
    """Files of `folder` that the card, which its owner may have written, shows or links to."""
    names = [match[1] for match in _LINKED.finditer(card) if ".." not in match[1] and not match[1].startswith("/")]
    return {name: folder / name for name in names if (folder / name).is_file()}


def _push_page(api: HfApi, folder: Path, repo_id: str) -> None:
    """The report's page to a static Space of the same name, where it opens and its clips play."""
    data = SpaceCardData(
        title=pretty_name(repo_id), sdk="static", license="other", tags=tags("report"), datasets=[repo_id]
    )
    text = f"The page of the report in the dataset [{repo_id}]({api.endpoint}/datasets/{repo_id})."
    readme = f"---\n{data.to_yaml()}\n---\n\n{text}\n"
    files = [CommitOperationAdd("index.html", folder / REPORT_PAGE), CommitOperationAdd(README, readme.encode())]
    commit_files(api, repo_id, "space", files, message=push_title("report"))


def _check_who_may_see(folder: Path, kind: str, private: bool | None) -> None:
    """Raises `ValueError` if clips go along, and nobody said who may see them."""
    clips = {"generated": "clips", "report": "clips"}.get(kind)
    if kind == "lora" and ((folder / GALLERY).is_dir() or validation_pairs(folder)):
        clips = "clips of its card"
    if clips and private is None:
        raise ValueError(
            f"{folder}: {clips} go with a {kind}. Say who may see them: --private, or --public for everyone (in Python "
            "private=True or private=False)."
        )


def _check_folders(folder: Path, names: Collection[str]) -> None:
    for name, count in Counter(Path(name).parent for name in names).items():
        if count > _MAX_FOLDER_FILES:
            raise ValueError(
                f"{folder / name}: {count} files, and the Hub takes {_MAX_FOLDER_FILES} in a folder. Make the artefact in "
                "parts (for instance recipes/generate.py once for each part of the prompts), and push each of them."
            )


def _commit_payload(
    api: HfApi, repo_id: str, repo_type: str, files: Mapping[str, CommitOperationAdd], message: str
) -> None:
    """Commits all files but the pages, a part at a time; what is there is no whole artefact meanwhile."""

    def begin() -> None:
        if api.file_exists(repo_id, ARTIFACT_FILE, repo_type=repo_type):
            gone = [CommitOperationDelete(ARTIFACT_FILE)]
            api.create_commit(repo_id, gone, repo_type=repo_type, commit_message=f"{message}: begin")

    insist(begin)
    payload = [file for name, file in files.items() if name not in _PAGES]
    parts = [payload[start : start + BATCH] for start in range(0, len(payload), BATCH)]
    for number, part in enumerate(parts, start=1):
        commit_files(api, repo_id, repo_type, part, message=f"{message}: part {number} of {len(parts)}")


def _lora_card(folder: Path, repo_id: str, license: str | None) -> str:
    """The trainer's card, which named the folder where it did not know the repository."""
    path = folder / README
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing. Push the output_dir that the trainer saved; its card is in it.")
    text = re.sub(r'(load_lora_(?:weights|adapter)\(\s*)"[^"]*"', rf'\1"{repo_id}"', path.read_text(encoding="utf-8"))
    text = re.sub(r'(from_pretrained\(\s*)"[^"]*"(, subfolder="transformer")', rf'\1"{repo_id}"\2', text)
    text = re.sub(r"^# .*$", f"# {repo_id}", text, count=1, flags=re.MULTILINE)
    if license is None:
        return text
    card: Any = ModelCard(text)
    card.data.license = license
    return str(card)
