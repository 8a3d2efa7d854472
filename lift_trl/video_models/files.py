"""The files of a diffusers checkpoint: where they are, which are fetched, and what they hold."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from ..hub_source import HubSource, pinned
from ..records import content_id
from ..store.disk.digest import file_digest


_SHA256 = re.compile(r"[0-9a-f]{64}")


class CheckpointFiles:
    """
    A checkpoint's folder, or its repo on the Hub, of which only the files of the components that are asked for are fetched.

    Args:
        name: a folder or a Hub id, `user/name` or `user/name@revision`.
        revision: branch, tag or commit of a Hub id.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name, self.revision = pinned(name, revision)
        self._fetched: dict[tuple[str, ...], Path] = {}

    @property
    def on_hub(self) -> bool:
        """Whether the name is a Hub id."""
        return not Path(self.name).is_dir()

    @property
    def identity(self) -> str:
        """`repo@commit` of a Hub id, else the folder."""
        return f"{self.name}@{self.folder().name}" if self.on_hub else self.name

    def folder(self, *components: str) -> Path:
        """The local folder, with the files of `components` fetched if it is a Hub id."""
        if not self.on_hub:
            return Path(self.name)
        if components not in self._fetched:
            patterns = ["model_index.json", "transformer/config.json", "vae/config.json"]
            patterns += [f"{name}/*" for name in components]
            with HubSource(self.name, self.revision).named("model"):
                found = snapshot_download(
                    self.name,
                    # What the revision meant at first is what it means for the whole of a run.
                    revision=next((folder.name for folder in self._fetched.values()), self.revision),
                    allow_patterns=patterns,
                    ignore_patterns=["*.bin", "*.ckpt", "*.msgpack"],
                )
            self._fetched[components] = Path(found)
        return self._fetched[components]

    def fingerprint(self, *components: str) -> str:
        """16 hex digits over the names and the content of the components' files."""
        folder = self.folder(*components)
        files = sorted(path for name in components for path in (folder / name).rglob("*") if path.is_file())
        return content_id(*(f"{path.relative_to(folder)} {_hash_file(path)}" for path in files))


def _hash_file(path: Path) -> str:
    """sha256 of the content. In the Hub's cache a large file is a link to a blob that is named by its sha256."""
    target = path.resolve()
    if _SHA256.fullmatch(target.name):
        return target.name
    return file_digest(target)
