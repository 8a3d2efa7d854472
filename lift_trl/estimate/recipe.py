"""A recipe's YAML, and those beside it that write what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.tables import read_yaml


@dataclass(frozen=True)
class Recipe:
    """
    Attributes:
        path: of the YAML.
        settings: what stands in it.
    """

    path: Path
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path | str) -> "Recipe":
        """
        The recipe of a YAML.

        Raises:
            FileNotFoundError, ValueError: naming the file.
        """
        settings = read_yaml(path)
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: holds no settings. Name the YAML of a recipe, as in recipes/configs.")
        return cls(Path(path), settings)

    def require(self, name: str) -> Any:
        """A setting that the stage cannot do without; `ValueError` names it and the file."""
        if self.settings.get(name) is None:
            raise ValueError(f"{self.path}: {name} is missing. Add it, or name the stage of this YAML with --stage.")
        return self.settings[name]

    def writer_of(self, folder: str) -> "Recipe | None":
        """The YAML in the same folder, or in one beside it, whose `output_dir` is `folder`."""
        own, others = self.path.parent, self.path.parent.parent.glob("*/*.yaml")
        for path in sorted(own.glob("*.yaml")) + sorted(path for path in others if path.parent != own):
            # Files beside it need not be recipes, unless they name the folder.
            if (
                folder.encode() in path.read_bytes()
                and (recipe := Recipe.read(path)).settings.get("output_dir") == folder
            ):
                return recipe
        return None
