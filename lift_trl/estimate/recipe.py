"""A recipe's YAML, and those beside it that write what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.tables import read_yaml
from ..store.typed import typed


#: Settings of which a plan makes products. Their recipes check all others too.
_COUNTS = (
    "num_frames", "height", "width", "batch_size", "videos_per_prompt", "num_inference_steps", "sampling_batch_size",
    "critic_batch_size", "rounds", "rows_per_shard", "per_device_train_batch_size", "gradient_accumulation_steps",
    "clips_per_step", "max_steps", "lora_r", "memory_gb",
)  # fmt: skip


#: Stage -> the module of its planner, which is called `plan_` and the stage.
PLANNERS = {
    **dict.fromkeys(("align", "iterate"), "rounds_planners"),
    **dict.fromkeys(("cache", "generate"), "video_planners"),
    **dict.fromkeys(("score", "train_critic", "evaluate_critic", "correct"), "critic_planners"),
}


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
        for name in _COUNTS:
            if settings.get(name) is not None:
                settings[name] = typed(f"{path}: {name}", settings[name], int)
        return cls(Path(path), settings)

    @property
    def stage(self) -> str:
        """What the file's name begins with, or its whole name where that is no stage with a plan."""
        return next((name for name in PLANNERS if self.path.stem.startswith(name)), self.path.stem)

    def require(self, name: str) -> Any:
        """A setting that the stage cannot do without; `ValueError` names it and the file."""
        if self.settings.get(name) is None:
            raise ValueError(f"{self.path}: {name} is missing. Add it, or name the stage of this YAML with --stage.")
        return self.settings[name]

    def writer_of(self, folder: str) -> "Recipe | None":
        """The YAML in the same folder, or in one beside it, whose `output_dir` is `folder`."""
        own, others = self.path.parent, self.path.parent.parent.glob("*/*.yaml")
        for path in sorted(own.glob("*.yaml")) + sorted(path for path in others if path.parent != own):
            # Files beside it need not be recipes, nor YAML, unless they name the folder as theirs.
            text = path.read_bytes()
            if b"output_dir" not in text or folder.encode() not in text:
                continue
            settings = read_yaml(path)
            if isinstance(settings, dict) and settings.get("output_dir") == folder:
                return Recipe.read(path)
        return None
