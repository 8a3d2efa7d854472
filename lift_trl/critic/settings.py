"""What a critic must know of its training to ask as it was taught: kept in the critic folder's `artifact.yaml`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from ..critic_models import find_critic_model
from ..hub_source import find_file
from ..protocols import CriticModel
from ..published import published
from ..rubric import LIFT, Rubric
from ..store.manifest import ARTIFACT_FILE, Artifact
from ..store.rubrics.of_data import check_same
from ..store.weights import weights_revision


KIND = "critic"
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class CriticSettings:
    """
    How a critic sees a clip.

    Args:
        num_frames (`int`, *optional*, defaults to `8`):
            Frames spread uniformly over the clip. Source: CodeGoat24/LiFT.
        with_reason (`bool`, *optional*, defaults to `True`):
            Whether it was taught to give reasons (the ablation without is in arXiv 2412.04814).
        native_video (`bool` or `None`, *optional*, defaults to `None`):
            Frames as one video (`True`) or as images; `None` leaves it to the family.
        processor_kwargs (`Mapping[str, Any]`, *optional*, defaults to `{}`):
            Options of the processor's call.
        rubric (`Rubric`, *optional*, defaults to `LIFT`):
            What it was taught to answer.
    """

    num_frames: int = 8
    with_reason: bool = True
    native_video: bool | None = None
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    rubric: Rubric = field(default=LIFT, repr=False)

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames}; a critic needs at least 1 frame of a clip.")

    def adapter(self, model_type: str) -> CriticModel:
        """The family's adapter under these settings."""
        return find_critic_model(model_type, native_video=self.native_video, processor_kwargs=self.processor_kwargs)

    def save(self, folder: Path | str, *, parents: Mapping[str, str]) -> None:
        """Writes them into `folder` with the dimensions that were taught and the `parents` (base model: revision)."""
        config = {name: value for name, value in asdict(self).items() if name != "rubric"}
        config["dimensions"] = [str(dimension) for dimension in self.rubric.dimensions]
        # A trainer pushes the file as it is; an earlier critic may be a folder of this machine.
        Artifact(kind=KIND, config=config, parents=published(parents), rubric=self.rubric).save(folder)


def find_revision(name_or_path: str, revision: str | None = None) -> str:
    """
    What tells one state of a model from another: its commit on the Hub; for a folder, a hash of its weight files.

    Scores are kept under this name, so a critic that was trained again in the same folder is another critic.
    """
    return weights_revision(name_or_path, revision)


def read_model_type(name_or_path: str, revision: str | None = None) -> str:
    """The `model_type` of a checkpoint's `config.json`, `""` where there is none, as beside most LoRAs."""
    path = find_file(name_or_path, CONFIG_NAME, revision=revision)
    return "" if path is None else str(json.loads(path.read_text(encoding="utf-8")).get("model_type", ""))


def load_settings(name_or_path: str, revision: str | None = None, rubric: Rubric | None = None) -> CriticSettings:
    """
    The settings of a critic folder or Hub repository; the defaults for a whole model without any (it was never tuned).

    Args:
        rubric: what it is to be asked; a critic that was taught is asked what it was taught.

    Raises:
        ValueError: if the artefact is no critic, was taught other dimensions or another `rubric`, or is an adapter without
            its settings.
    """
    path = find_file(name_or_path, ARTIFACT_FILE, revision=revision)
    # The authors' critics were taught with this project's defaults.
    is_ours = not find_critic_model(read_model_type(name_or_path, revision)).loads_adapters
    if path is None and is_ours and find_file(name_or_path, ADAPTER_CONFIG, revision=revision) is not None:
        raise ValueError(
            f"{name_or_path}: an adapter with no {ARTIFACT_FILE}, so nothing says with how many frames it was taught. "
            f"Copy {ARTIFACT_FILE} from the output_dir of its training beside it, or push that folder with lift-trl push."
        )
    if path is None and not is_ours:
        check_same(rubric or LIFT, LIFT, f"the rubric of the settings and that of the critic {name_or_path}")
    if path is None:
        return CriticSettings(rubric=rubric or LIFT)
    artifact = Artifact.load(path.parent)
    if artifact.kind != KIND:
        raise ValueError(f"{name_or_path}: a {artifact.kind} artefact, not a critic. Name the folder of train_critic.")
    config: dict[str, Any] = dict(artifact.config)
    taught = config.pop("dimensions", None)
    asked = [str(dimension) for dimension in artifact.rubric.dimensions]
    if taught != asked:
        raise ValueError(f"{name_or_path}: was taught {taught}, this lift_trl asks {asked}. Train it again.")
    what = f"the rubric of the settings and that of the critic {name_or_path}"
    check_same(rubric or artifact.rubric, artifact.rubric, what)
    known = {one.name for one in fields(CriticSettings)} - {"rubric"}
    return CriticSettings(**{name: value for name, value in config.items() if name in known}, rubric=artifact.rubric)
