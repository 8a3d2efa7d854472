"""Model cards from `templates/*.md`: what it is, how it was made, what it came from, and a snippet that works."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor
from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames

from ..rubric import LIFT, words
from ..store.manifest import Artifact, command_line, library_versions
from .front_matter import tags
from .lora.loading import loading_call
from .parents import hub_parents, parent_table
from .tables import markdown_table


TEMPLATES = Path(__file__).parent / "templates"
_FIGURES = ("loss", "loss_unweighted", "reward_mean", "effective_sample_fraction", "eval_loss")
_HISTOGRAM_BINS = 10
_MAX_FIGURE_ROWS = 12


class BaseModel(NamedTuple):
    """
    The model that was tuned.

    Attributes:
        name: Hub id, or a folder.
        identity: `repo@commit`, or the folder.
        dtype: precision to load it in on a GPU, for instance `torch.float16`.
        call: the arguments of a call of its pipeline, beside the prompt.
        fps: frames a second of its clips.
        on_hub: whether `name` is a Hub id.
        network: the part of the pipeline that was tuned.
        pipeline: the name of its class in diffusers.
    """

    name: str
    identity: str
    dtype: str
    call: Mapping[str, Any]
    fps: float
    on_hub: bool
    network: str
    pipeline: str


class ObjectiveFacts(NamedTuple):
    """
    What was minimised.

    Attributes:
        name, words: as in `objective:`, and what it does.
        constants: what it was set to, by the name of the setting.
        unit: what a step takes, `"clips"` or `"pairs"`.
    """

    name: str
    words: str
    constants: Mapping[str, Any]
    unit: str


@dataclass(frozen=True)
class AlignedModelCard:
    """
    The card of a LoRA, or of a whole transformer, that `RewardWeightedVideoTrainer` tuned.

    Attributes:
        repo: the Hub id that it will have, or its folder.
        args: the trainer's configuration.
        objective: what was minimised, and its constants.
        adapter: the earlier LoRA that training went on from, `repo@revision`.
        lora: `r`, `lora_alpha` and `target_modules`; `None` where the whole transformer was trained.
        ratings: `reward` f32 [N] (NaN where real) and `is_real` bool [N] of the training rows.
        cache: the training clips' artefact: their size, and what they and their ratings came from.
        log_history: the Trainer's log lines.
    """

    repo: str
    base: BaseModel
    args: TrainingArguments
    objective: ObjectiveFacts
    adapter: str | None
    lora: Mapping[str, Any] | None
    ratings: Mapping[str, Tensor]
    cache: Artifact | None
    log_history: Sequence[Mapping[str, Any]]

    @property
    def clip(self) -> Mapping[str, Any]:
        """`num_frames, height, width, fps` of the training clips; empty where they are unknown."""
        return self.cache.config if self.cache else {}

    def save(
        self,
        path: Path,
        *,
        title: str | None = None,
        license: str = "other",
        more_tags: Sequence[str] = (),
        more_datasets: Sequence[str] = (),
    ) -> None:
        """Writes the card to `path`; `more_tags` and `more_datasets` beside its own, `title` for the repository's."""
        data = ModelCardData(
            base_model=self.base.name if self.base.on_hub else None,
            base_model_relation="adapter" if self.lora else "finetune",
            datasets=list(
                dict.fromkeys([*(one.repo_id for one in hub_parents(self._parents(), "dataset")), *more_datasets])
            )
            or None,
            library_name="diffusers",
            pipeline_tag="text-to-video",
            tags=tags("lora" if self.lora else "transformer", *(["lora"] if self.lora else []), *more_tags),
            license=license,
        )
        card = ModelCard.from_template(
            data,
            template_path=str(TEMPLATES / "lora_card.md"),
            title=title or Path(self.repo).name,
            what="A LoRA" if self.lora else "A fine-tuned transformer",
            base=self.base,
            snippet=self.snippet(),
            command=command_line(),
            how=markdown_table(["", ""], self._facts()),
            parents=parent_table(self._parents()),
            reward_table=_reward_table(self.ratings),
            figure_table=_figure_table(self.log_history),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        card.save(path)

    def snippet(self) -> str:
        """Python that loads the tuned model and samples one video, on a GPU or a CPU."""
        prompt = '"A red fox runs through fresh snow."'
        call = [f"{name}={value!r}" for name, value in self.base.call.items()]
        network = self.base.network
        load = loading_call(self.base.pipeline, network, self.repo)
        if not self.lora:
            load = f'pipe.{network} = type(pipe.{network}).from_pretrained("{self.repo}/transformer", dtype=dtype)'
            if self.base.on_hub:
                load = load.replace('/transformer"', '", subfolder="transformer"')
        lines = [
            "import torch",
            "from diffusers import DiffusionPipeline",
            "from diffusers.utils import encode_video",
            "",
            'device = "cuda" if torch.cuda.is_available() else "cpu"',
            f'dtype = {self.base.dtype} if device == "cuda" else torch.float32',
            f'pipe = DiffusionPipeline.from_pretrained("{self.base.name}", dtype=dtype)',
            load,
            "pipe.to(device)",
            f"video = pipe({', '.join([prompt, *call])}).frames[0]",
            f'encode_video(video, fps={round(self.clip.get("fps", self.base.fps))}, output_path="fox.mp4")',
        ]
        return "\n".join(lines)

    def _parents(self) -> dict[str, str]:
        """The base, the earlier LoRA, and what the clips and their ratings came from."""
        lora = {"adapter": self.adapter} if self.adapter else {}
        clips = {
            name: revision for name, revision in (self.cache.parents if self.cache else {}).items() if name != "model"
        }
        return {"base model": self.base.identity, **lora, **clips}

    def _facts(self) -> list[list[str]]:
        """How it was made, as rows of a table."""
        args, is_real = self.args, self.ratings.get("is_real")
        name, what, constants, unit = self.objective
        number = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        step = f"{number} {unit} a step, seed {args.seed}"
        schedule = SchedulerType(args.lr_scheduler_type).value
        rows = [
            ["objective", f"`{name}` ({what})"],
            *([["constants", ", ".join(f"{key} = {value}" for key, value in constants.items())]] if constants else []),
            ["real-video weight", f"lambda = {args.real_weight}"],  # type: ignore[attr-defined]
            [
                "optimiser",
                f"{OptimizerNames(args.optim).value}, {schedule} schedule, learning rate {args.learning_rate:g}, {step}",
            ],
            ["precision", f"mixed {args.mixed_precision}" if args.mixed_precision != "no" else "float32"],
            ["versions", ", ".join(f"{name} {number}" for name, number in library_versions().items() if number)],
        ]
        if self.cache:
            rubric = self.cache.rubric
            asked = "LiFT's" if rubric == LIFT else ", ".join(map(words, rubric.dimensions))
            rows.insert(0, ["rubric", f"`{rubric.id}` ({asked})"])
        if is_real is not None and self.clip:
            size = "{num_frames} frames of {width}x{height} px at {fps:g} fps".format(**self.clip)
            rows.insert(0, ["clips", f"{int((~is_real).sum())} sampled, {int(is_real.sum())} real; {size}"])
        if self.lora:
            rows.insert(
                1, ["LoRA", f"r = {self.lora['r']}, alpha = {self.lora['lora_alpha']}, on {_targets(self.lora)}"]
            )
        return rows


def _targets(lora: Mapping[str, Any]) -> str:
    targets = lora["target_modules"] or ()
    return f"`{targets}`" if isinstance(targets, str) else ", ".join(f"`{target}`" for target in sorted(targets))


def _reward_table(ratings: Mapping[str, Tensor]) -> str:
    """A histogram of the sampled clips' rewards, as a Markdown table."""
    if not ratings or bool(ratings["is_real"].all()):
        return "No sampled clip was rated."
    reward = ratings["reward"][~ratings["is_real"]].double()
    reward = reward[~reward.isnan()]
    if not len(reward):
        return "People compared the sampled clips in pairs; none has a reward."
    values, counts = reward.round(decimals=4).unique(return_counts=True)
    rows = [[f"{value:.4f}", str(count)] for value, count in zip(values.tolist(), counts.tolist(), strict=True)]
    if len(rows) > _HISTOGRAM_BINS:  # the critic's expected rewards, say; labels give at most ten values
        bins = reward.histc(_HISTOGRAM_BINS, 0.0, 1.0).long().tolist()
        rows = [
            [f"{i / _HISTOGRAM_BINS:.1f} to {(i + 1) / _HISTOGRAM_BINS:.1f}", str(n)] for i, n in enumerate(bins) if n
        ]
    return f"Mean {reward.mean():.4f}.\n\n{markdown_table(['reward', 'clips'], rows)}"


def _figure_table(log_history: Sequence[Mapping[str, Any]]) -> str:
    """At most a dozen lines of the training log, as a Markdown table."""
    lines = [line for line in log_history if "loss" in line or "eval_loss" in line]
    if not lines:
        return "Not trained yet."
    stride = -(-len(lines) // _MAX_FIGURE_ROWS)
    shown = lines[::stride] + ([lines[-1]] if (len(lines) - 1) % stride else [])
    names = [name for name in _FIGURES if any(name in line for line in shown)]
    rows = [[str(line["step"]), *(f"{line[name]:.4f}" if name in line else "" for name in names)] for line in shown]
    return markdown_table(["step", *names], rows)
