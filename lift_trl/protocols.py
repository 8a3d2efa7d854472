"""The whole extension surface: a video model family, a critic model family, a reward model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .records import CriticScore, LatentPosterior, NativeScore, NoisySample, TextCondition, VideoSource


if TYPE_CHECKING:
    import torch
    from torch import Tensor


class VideoModel(Protocol):
    """
    One text-to-video family. The loss, the loop, the data, LoRA and saving exist once, elsewhere.

    An adapter derives from this class, is made of the configurations of its network, its VAE and its pipeline (the fields of
    `model_index.json`), and refuses checkpoints of its pipeline class that it cannot train.

    Attributes:
        fps: frames a second that the family was trained on.
        dtype: precision of the frozen base on an accelerator (float32 is used on a CPU).
        guidance_scale: classifier-free guidance that the family is sampled with by default.
        negative_prompt: what it is guided away from by default; empty for most.
        default_size: frames, height and width (pixels) of a clip that the checkpoint was trained on.
        lora_target_modules: PEFT's names of the modules that a LoRA adapts when the user names none.
        text_components: the parts of the pipeline that embed text.
        always_loaded: its parts that every load brings: settings, and what its constructor cannot do without.
        networks: the parts that denoise. A run trains one of them.
    """

    fps: float
    dtype: "torch.dtype"
    guidance_scale: float
    negative_prompt: str = ""
    lora_target_modules: tuple[str, ...]
    text_components: tuple[str, ...] = ("tokenizer", "text_encoder")
    always_loaded: tuple[str, ...] = ("scheduler",)
    networks: tuple[str, ...] = ("transformer",)

    def __init__(
        self,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any],
        pipeline_config: Mapping[str, Any],
    ) -> None: ...

    @property
    def default_size(self) -> tuple[int, int, int]: ...

    def check_size(self, num_frames: int, height: int, width: int) -> None:
        """Raises `ValueError` naming the nearest legal value if the family cannot encode such a clip."""

    def check_fps(self, fps: float) -> None:
        """Raises `ValueError` if the family cannot train on clips at `fps` frames a second; most can."""

    def quantile_range(self, scheduler: Any, network: str) -> tuple[float, float]:
        """The part of the quantiles that `network` denoises, as fractions."""
        return 0.0, 1.0

    def encode_text(self, pipe: Any, prompts: Sequence[str]) -> TextCondition:
        """`prompts` (B strings) embedded by `pipe`. What is not text is zero, at the end: it is not stored."""

    def encode_video(self, pipe: Any, video: "Tensor") -> LatentPosterior:
        """`video` (float32 [B, F, 3, H, W] in [-1, 1]) as `pipe.vae`'s posterior, in the network's scale and layout."""

    def corrupt(self, scheduler: Any, latents: "Tensor", noise: "Tensor", quantiles: "Tensor") -> NoisySample:
        """
        The forward process and the network's native target, in float32.

        `quantiles` (i64 [B], uniform in [0, num_train_timesteps)) order the family's own density of noise levels: 0 is the
        least noise. A family without a density of its own takes them as timesteps.
        """

    def predict(self, transformer: Any, noisy: NoisySample, text: TextCondition) -> "Tensor":
        """What the network predicts, shaped like `noisy.target`."""

    def sampling_arguments(self, num_frames: int, height: int, width: int, guidance_scale: float) -> dict[str, Any]:
        """The arguments of a call of the pipeline beside prompts, steps and seed."""
        return {"num_frames": num_frames, "height": height, "width": width, "guidance_scale": guidance_scale}

    def prepare_sampling(self, pipe: Any, guidance_scale: float) -> None:
        """Sets up what `sampling_arguments` cannot tell a call, such as guidance that is a part of the pipeline."""

    def comfyui_name(self, module: str) -> str:
        """
        ComfyUI's name of one of the network's modules (`blocks.0.attn1.to_q`).

        Raises:
            ValueError: if ComfyUI has no such module, or its names are not known here.
        """
        raise ValueError(
            f"ComfyUI's names for {type(self).__name__} are not known here ({module}). Use --format diffusers or merged."
        )

    def pipeline_text(self, text: TextCondition, negative: TextCondition | None) -> dict[str, Any]:
        """The arguments that give a call of the pipeline embedded prompts, and negative ones where it is guided."""
        return {**text, **{f"negative_{name}": tensor for name, tensor in (negative or {}).items()}}


class CriticModel(Protocol):
    """
    One vision-language family that can be tuned into a critic.

    Attributes:
        lora_target_modules: regular expression or names of the language model's linear layers, for PEFT.
        loads_adapters: whether `load` also takes a LoRA of others, with a `config.json` of the family, and finds its base.
    """

    lora_target_modules: str | list[str]
    loads_adapters: bool

    def load(self, name: str, *, dtype: "torch.dtype", revision: str | None, **placement: Any) -> tuple[Any, Any]:
        """The model and its processor; `placement` are `device_map` and `quantization_config` of `from_pretrained`."""

    def prompt(self, frames: Sequence[Any], question: str) -> list[dict[str, Any]]:
        """Chat messages: frames first, then caption and question."""

    def encode(self, processor: Any, texts: Sequence[str], clips: Sequence[Any]) -> "Mapping[str, Tensor]":
        """Model inputs of B rendered prompts and their clips, padded on the right."""

    def position_shift(self, model: Any) -> "Tensor | int":
        """What the model adds to a text token's place to get its position; read after the prefix has run."""


class LabelModel(Protocol):
    """A `RewardModel` whose scores are labels of this rubric, as `LiFTCritic`'s are."""

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> list[CriticScore]:
        """As `RewardModel.score`."""


class RewardModel(Protocol):
    """What alignment and evaluation need of a critic. `LiFTCritic` is one, so is any judge of `lift_trl.judges` or yours."""

    def score(
        self, videos: Sequence[VideoSource | str], captions: Sequence[str], *, with_reason: bool = False
    ) -> Sequence[CriticScore | NativeScore]:
        """One score for each video; a video that cannot be scored comes back as unscored, never with a value."""


@runtime_checkable
class StreamingRewardModel(RewardModel, Protocol):
    """A `RewardModel` that prepares the next batch while it scores one. What overrides `score` overrides this too."""

    def score_batches(
        self, batches: Iterable[tuple[Sequence[VideoSource], Sequence[str]]], *, with_reason: bool = False
    ) -> Iterator[Sequence[CriticScore | NativeScore]]:
        """As `score` of each (videos, captions), in order."""
